//! Every schedule shows its anomaly on the engine without control: else it could prove nothing.

use anomaly_suite::{Control, Mechanism, Outcome, catalogue, trial};
use isolde_history::schedule::{Setting, StepOutcome};

#[test]
fn every_schedule_shows_its_anomaly_where_nothing_prevents_it() {
    use isolde_history::schedule::notation::ShownWithoutControl;
    for entry in catalogue::all() {
        let trial = trial(&Control, &entry.schedule, Setting::default()).unwrap();
        let expected = match entry.schedule.shown_without_control {
            ShownWithoutControl::Yes => Outcome::Possible,
            ShownWithoutControl::No => Outcome::Prevented(Mechanism::Invisible),
        };
        assert_eq!(trial.outcome, Some(expected), "{}", entry.id);
        assert_eq!(trial.evidence.complaints, [""; 0], "{}", entry.id);
        assert!(trial.permitted || expected != Outcome::Possible, "it promises nothing: {}", entry.id);
    }
}

#[test]
fn nothing_ever_waits_or_fails_without_control() {
    for entry in catalogue::all() {
        let trial = trial(&Control, &entry.schedule, Setting::default()).unwrap();
        assert!(trial.replay.steps.iter().all(|step| step.outcome == StepOutcome::Ok), "{}", entry.id);
    }
}

#[test]
fn only_own_writes_and_the_stale_read_need_no_control() {
    use isolde_history::schedule::notation::ShownWithoutControl::No;
    let excepted = catalogue::all().iter().filter(|entry| entry.schedule.shown_without_control == No);
    assert_eq!(excepted.map(|entry| entry.id).collect::<Vec<_>>(), ["stale-read", "own-writes"]);
}
