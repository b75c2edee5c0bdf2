//! The contract of mixed levels: the promises are kept, and the document is current.

use anomaly_suite::explore::{Exploring, survey};
use anomaly_suite::mixed::{Contract, OF_TWO, PROGRAMS, Sample, mixed, permitted};
use anomaly_suite::report::{Style, mixed as report};
use anomaly_suite::{Control, Engine, Isolde, trial};
use isolde_history::explore::Programs;
use isolde_history::schedule::{Schedule, Setting};
use isolde_types::{Anomaly, Isolation, Mode};

fn contract(engine: &dyn Engine, settings: &[Setting], sample: Sample) -> Contract {
    mixed(engine, settings, sample, |_, _| ()).unwrap()
}

fn is_kept(contract: &Contract) {
    for cell in &contract.cells {
        assert!(cell.faults.is_empty(), "{:?} beside {:?}: {:#?}", cell.side, cell.beside, cell.faults);
    }
}

/// All of it is explored once: it takes some seconds.
#[test]
fn every_promise_is_kept_and_the_document_is_current() {
    let all: Vec<Setting> = Setting::all().collect();
    let contract = contract(&Isolde, &all, Sample::NONE);
    assert_eq!(contract.cells.len(), 100);
    is_kept(&contract);
    each_level_sees_what_it_does_not_forbid(&contract);
    nothing_is_dirty_beside_an_optimist(&contract);
    schedules_show_it_again(&contract);
    let json: serde_json::Value = serde_json::from_str(&report::json(&contract)).unwrap();
    assert_eq!((json["kept"].as_bool(), json["cells"].as_array().map(Vec::len)), (Some(true), Some(100)));
    let current = include_str!("../../docs/mixed-levels.md");
    assert!(report::markdown(&contract) == current, "not current: run {}", report::REGENERATE);
    for line in report::table(&contract, Style::default()).lines() {
        assert!(line.chars().count() <= 100 && line == line.trim_end(), "{line}");
    }
}

/// Beside itself, too: where levels are not mixed the contract is the matrix.
fn each_level_sees_what_it_does_not_forbid(contract: &Contract) {
    for cell in contract.cells.iter().filter(|cell| cell.beside.mode == Mode::Pessimistic) {
        let permitted: Vec<Anomaly> = permitted(cell.side).collect();
        let seen: Vec<Anomaly> = cell.seen.keys().copied().collect();
        // A snapshot is older than what its transaction writes: no circle goes through it.
        let circles = cell.beside.isolation != Isolation::Snapshot;
        let permitted: Vec<Anomaly> =
            permitted.into_iter().filter(|anomaly| circles || *anomaly != Anomaly::CircularFlow).collect();
        assert_eq!(seen, permitted, "{:?} beside {:?}", cell.side, cell.beside);
    }
}

fn nothing_is_dirty_beside_an_optimist(contract: &Contract) {
    let dirty = [Anomaly::AbortedRead, Anomaly::IntermediateRead, Anomaly::TransactionVanishes];
    for cell in contract.cells.iter().filter(|cell| cell.beside.mode == Mode::Optimistic) {
        assert!(dirty.iter().all(|anomaly| !cell.seen.contains_key(anomaly)), "{:?}", cell.side);
    }
}

/// What is reported as a schedule shows the anomaly when it is replayed.
fn schedules_show_it_again(contract: &Contract) {
    for cell in &contract.cells {
        for (anomaly, witness) in &cell.seen {
            let schedule = Schedule::parse(&witness.schedule.to_string()).unwrap();
            let trial = trial(&Isolde, &schedule, Setting::default()).unwrap();
            let found: Vec<Anomaly> = trial.evidence.shown.iter().map(|shown| shown.anomaly).collect();
            assert!(found.contains(anomaly), "{anomaly}: {found:?}\n{schedule}");
        }
    }
}

/// Without control every promise is broken that two transactions can break: the programs can show it.
#[test]
fn without_control_no_promise_is_kept() {
    let strict = Setting { isolation: Isolation::Serializable, mode: Mode::Pessimistic };
    let contract = contract(&Control, &[strict], Sample::NONE);
    let seen: Vec<Anomaly> = contract.cells[0].seen.keys().copied().collect();
    assert_eq!(seen, OF_TWO);
    assert!(!contract.is_kept());
    assert!(report::table(&contract, Style::default()).contains("BROKEN in 1"));
    assert!(report::markdown(&contract).contains("BROKEN"));
}

/// Programs that nobody chose add nothing to the table.
#[test]
fn a_sample_of_small_programs_adds_nothing() {
    let weak = |isolation, mode| Setting { isolation, mode };
    let some = [
        weak(Isolation::ReadUncommitted, Mode::Pessimistic),
        weak(Isolation::RepeatableRead, Mode::Optimistic),
        weak(Isolation::Snapshot, Mode::Optimistic),
        weak(Isolation::Serializable, Mode::Pessimistic),
    ];
    let sample = Sample { pairs: 12, seed: 1 };
    println!("{sample:?}");
    let (table, more) = (contract(&Isolde, &some, Sample::NONE), contract(&Isolde, &some, sample));
    assert!(more.sampled.0 == 12 && more.explored() > table.explored());
    is_kept(&more);
    for (cell, more) in table.cells.iter().zip(&more.cells) {
        assert!(cell.seen.keys().eq(more.seen.keys()), "{:?} beside {:?}: {:?}", cell.side, cell.beside, more.seen);
    }
}

#[test]
fn each_of_the_programs_shows_something_without_control() {
    for (name, text) in PROGRAMS {
        let programs = Programs::of(&Schedule::parse(text).unwrap()).unwrap();
        let found = survey(&Control, &programs, &[Setting::default()], &Exploring::default(), |_| ()).unwrap();
        assert!(!found.survey.anomalies.is_empty(), "{name}");
    }
}

#[test]
fn programs_are_named_once() {
    let mut names: Vec<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PROGRAMS.len());
}
