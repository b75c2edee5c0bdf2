//! Every schedule shows its anomaly on the engine without control: else it could prove nothing.

mod common;

use anomaly_suite::{Control, Mechanism, Outcome, Suite, catalogue, trial};
use common::Boasting;
use isolde_history::schedule::{Setting, ShownWithoutControl, StepOutcome};

#[test]
fn every_schedule_shows_its_anomaly_where_nothing_prevents_it() {
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
    let excepted =
        catalogue::all().iter().filter(|entry| entry.schedule.shown_without_control == ShownWithoutControl::No);
    assert_eq!(excepted.map(|entry| entry.id).collect::<Vec<_>>(), ["stale-read", "own-writes"]);
}

#[test]
fn a_level_that_allows_what_it_forbids_is_a_fault() {
    let (empty, honest) = (Suite::new(&Boasting).run(), Suite::new(&Control).run());
    assert_eq!(honest.faulty().count(), 0, "the engine without control promises nothing");
    for cell in &empty.cells {
        let trial = cell.trial.as_ref().unwrap();
        let broken = trial.outcome == Some(Outcome::Possible) && !trial.permitted;
        // Beside what a schedule hunts, it may break other promises.
        assert!(!broken || !cell.faults().is_empty(), "{} at {:?}", cell.entry.id, cell.setting);
    }
    let at_serializable = |cell: &&anomaly_suite::Cell| cell.setting.isolation == isolde_types::Isolation::Serializable;
    let shown = catalogue::all().len() - 2;
    assert_eq!(empty.faulty().filter(at_serializable).count(), 2 * shown, "in each mode, all but two");
}
