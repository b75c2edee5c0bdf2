//! The fuzzer finds what is wrong, makes it small, and finds nothing where nothing is.

mod common;

use anomaly_suite::fuzz::{Limit, Shape, cases, threads};
use anomaly_suite::{Isolde, trial};
use common::Boasting;
use isolde_history::schedule::{Schedule, Setting};

#[test]
fn isolde_keeps_its_promises_in_random_cases() {
    for shape in [Shape::default(), Shape { txns: 6, keys: 2, operations: 6 }] {
        let (tally, failure) = cases(&Isolde, shape, 1, Limit::Cases(2_000), |_| ());
        assert_eq!(failure, None);
        assert!(tally.committed > 3_000 && tally.aborted > 100 && tally.blocked > 100, "{tally:?}");
        assert!(tally.shown.len() >= 8, "what levels permit is shown: {tally:?}");
    }
}

/// Nothing in the engine depends on addresses, hashes or time: else no failure could be repeated.
#[test]
fn the_same_seeds_do_the_same() {
    let shape = Shape { txns: 8, keys: 3, operations: 6 };
    let run = || cases(&Isolde, shape, 5, Limit::Cases(2_000), |_| ()).0;
    assert_eq!(run(), run());
}

#[test]
fn isolde_keeps_its_promises_in_threads() {
    let (tally, failure) = threads(3, Shape::default(), 1, Limit::Cases(60), |_| ()).unwrap();
    assert_eq!(failure, None);
    assert!(tally.committed > 1_000, "{tally:?}");
}

#[test]
fn an_engine_that_breaks_its_promises_is_found_out_and_the_case_made_small() {
    for seed in [1, 10_000, 20_000] {
        let (_, failure) = cases(&Boasting, Shape::default(), seed, Limit::Cases(1_000), |_| ());
        let failure = failure.expect("an engine without control keeps no promise for long");
        assert!(!failure.faults.is_empty());
        assert!(failure.schedule.txns.len() <= 3, "{}", failure.schedule);
        assert!(failure.schedule.steps.len() <= 10, "{}", failure.schedule);
        // What is printed is what fails.
        let again = Schedule::parse(&failure.schedule.to_string()).unwrap();
        assert_eq!(trial(&Boasting, &again, Setting::default()).unwrap().faults(), failure.faults);
        assert!(trial(&Isolde, &again, Setting::default()).unwrap().faults().is_empty());
    }
}

/// One step less, and it does not fail any more.
#[test]
fn a_shrunk_case_has_nothing_to_spare() {
    let (_, failure) = cases(&Boasting, Shape::default(), 5, Limit::Cases(1_000), |_| ());
    let schedule = failure.unwrap().schedule;
    for step in 0..schedule.steps.len() {
        let mut less = schedule.clone();
        less.steps.remove(step);
        let middle = matches!(&schedule.steps[step].action, isolde_history::schedule::Action::Do(op) if !op.ends());
        if middle {
            assert!(trial(&Boasting, &less, Setting::default()).is_ok_and(|trial| trial.faults().is_empty()), "{less}");
        }
    }
}
