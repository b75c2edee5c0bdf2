//! Random transactions in threads, with the recorder on: what the scheduler of the machine makes of
//! them. A failure cannot be repeated by its seed, so the history is kept, and made smaller.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::Instant;

use fastrand::Rng;
use isolde_history::model::{Event, History, TxnKey, Version};
use isolde_history::schedule::{Action, BeginWords, Operation, Place, Schedule, Setting, Step, Value};
use isolde_history::{Report, check};
use isolde_types::Key;

use super::case::{self, Shape};
use super::{Failure, Limit, Tally, failure};
use crate::isolde::{Isolde, open_with};
use crate::perform::perform;
use crate::verdict::trial;

/// How many transactions each thread runs in one case: few, so that a history stays readable.
const TRANSACTIONS: usize = 40;

/// A history that broke a promise.
#[derive(Clone, PartialEq, Debug)]
pub struct ThreadedFailure {
    /// The seed of the case, for the programs; the interleaving was the machine's.
    pub seed: u64,
    /// What is wrong, in words.
    pub faults: Vec<String>,
    /// The transactions of the history that are needed to show it.
    pub history: History,
    /// A schedule that fails on one thread too, if the recorded order of steps makes one.
    pub schedule: Option<Failure>,
}

/// Runs cases in `threads` threads until one fails or the limit is reached.
pub fn threads(
    threads: usize,
    shape: Shape,
    seed: u64,
    limit: Limit,
    mut progress: impl FnMut(&Tally),
) -> isolde::Result<(Tally, Option<ThreadedFailure>)> {
    let (mut tally, start) = (Tally::default(), Instant::now());
    while !limit.is_reached(tally.cases, start) {
        let seed = seed.wrapping_add(tally.cases);
        let (history, complaint) = run(threads, shape, seed)?;
        let report = check(&history);
        tally.cases += 1;
        tally.transactions += (threads * TRANSACTIONS) as u64;
        tally.committed += report.committed as u64;
        tally.aborted += history.events.iter().filter(|event| matches!(event, Event::Abort { .. })).count() as u64;
        for anomaly in report.anomalies() {
            *tally.shown.entry(anomaly).or_default() += 1;
        }
        let words = words(report);
        if complaint.is_some() || !words.is_empty() {
            return Ok((tally, Some(explain(seed, complaint, words, history))));
        }
        progress(&tally);
    }
    Ok((tally, None))
}

/// What a history is at fault for, by the promise of each transaction's own level.
fn words(report: Report) -> Vec<String> {
    report.complaints.into_iter().chain(report.violations.into_iter().map(|violation| violation.words)).collect()
}

fn run(threads: usize, shape: Shape, seed: u64) -> isolde::Result<(History, Option<String>)> {
    let db = open_with(&case::initial(shape).collect::<Vec<_>>())?;
    let recorder = db.recorder()?;
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (db, barrier) = (&db, &barrier);
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ thread as u64);
                barrier.wait();
                for number in 0..TRANSACTIONS {
                    let (isolation, mode) = case::setting(&mut rng);
                    let number = thread * TRANSACTIONS + number;
                    let (begin, operations) = case::program(&mut rng, shape, number, isolation, mode);
                    // Whatever it fails with, the checker judges what it did.
                    let _ = perform(db, begin, &operations);
                }
            });
        }
    });
    let history = recorder.finish();
    db.collect();
    Ok((history, db.check().err()))
}

// --- a failure -------------------------------------------------------------------------------------

fn explain(seed: u64, complaint: Option<String>, words: Vec<String>, history: History) -> ThreadedFailure {
    let history = if words.is_empty() { history } else { smallest(history) };
    let faults = complaint.into_iter().chain(words).collect();
    let schedule = as_schedule(&history);
    let fails = !super::faults(&trial(&Isolde, &schedule, Setting::default())).is_empty();
    let schedule = fails.then(|| failure(&Isolde, seed, &schedule));
    ThreadedFailure { seed, faults, history, schedule }
}

/// Leaves out transactions, many at a time and then one by one, as long as the history still breaks a
/// promise and does not contradict itself more than it did: a writer can go once its readers have.
pub(super) fn smallest(history: History) -> History {
    let contradicts = !check(&history).complaints.is_empty();
    let still = |smaller: &History| {
        let report = check(smaller);
        if contradicts {
            !report.complaints.is_empty()
        } else {
            report.complaints.is_empty() && !report.violations.is_empty()
        }
    };
    let mut smallest = history;
    let mut chunk = txns(&smallest).len() / 2;
    loop {
        let all: Vec<TxnKey> = txns(&smallest).into_iter().collect();
        for some in all.rchunks(chunk.max(1)) {
            let smaller = without(&smallest, some);
            if still(&smaller) {
                smallest = smaller;
            }
        }
        if chunk <= 1 && txns(&smallest).len() == all.len() {
            return smallest;
        }
        chunk /= 2;
    }
}

fn txns(history: &History) -> BTreeSet<TxnKey> {
    history.events.iter().map(Event::txn).collect()
}

fn without(history: &History, some: &[TxnKey]) -> History {
    let mut smaller = history.clone();
    smaller.events.retain(|event| !some.contains(&event.txn()));
    smaller.order.iter_mut().for_each(|(_, writes)| writes.retain(|(txn, _)| !some.contains(txn)));
    smaller
}

/// The recorded operations in the recorded order.
fn as_schedule(history: &History) -> Schedule {
    let numbers: Vec<TxnKey> = txns(history).into_iter().collect();
    let steps = history.events.iter().filter_map(|event| {
        let txn = numbers.binary_search(&event.txn()).ok()?;
        action(event).map(|action| Step { txn, action })
    });
    Schedule {
        initial: history.initial.iter().map(|(key, value)| (key.clone(), crate::isolde::decode(value))).collect(),
        txns: (1..=numbers.len()).map(|txn| format!("T{txn}")).collect(),
        steps: steps.collect(),
        ..Schedule::default()
    }
}

fn action(event: &Event) -> Option<Action> {
    let operation = match event {
        Event::Begin { isolation, mode, read_only, .. } => {
            let words = BeginWords { isolation: Some(*isolation), mode: Some(*mode), read_only: *read_only };
            return Some(Action::Begin(words));
        }
        Event::Read { version: Version::Own(_), .. } | Event::RollbackTo { .. } => return None,
        Event::Read { key, .. } => Operation::Get(key.clone()),
        Event::Scan { span, .. } => {
            Operation::Scan(Place::Between { start: span.start.clone(), end: span.end.clone() })
        }
        Event::Write { key, blind: true, .. } => Operation::Increment(key.clone(), 1),
        Event::Write { key, value: Some(value), .. } => {
            Operation::Put(key.clone(), Value::Word(crate::isolde::decode(value)))
        }
        Event::Write { key, value: None, .. } => Operation::Delete(Key::clone(key)),
        Event::Commit { .. } => Operation::Commit,
        Event::Abort { .. } | Event::Unknown { .. } => Operation::Rollback,
    };
    Some(Action::Do(operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history in which an update was lost at snapshot: only the two transactions are kept.
    #[test]
    fn a_history_shrinks_to_the_transactions_that_show_the_fault() {
        let (mut history, complaint) = run(2, Shape::default(), 1).unwrap();
        assert_eq!((complaint, words(check(&history))), (None, Vec::new()));
        let before = txns(&history).len();
        let lost = isolde_history::schedule::Schedule::parse(
            "init: x=1\nT1: begin snapshot\nT2: begin snapshot\nT1: get x\nT2: get x\nT1: put x 2\nT2: put x 3\n",
        );
        let uncontrolled = trial(&crate::engine::Control, &lost.unwrap(), Setting::default()).unwrap().replay.history;
        let shift = 1 + txns(&history).last().map_or(0, |txn| txn.0);
        let ts = 1_000_000;
        history.initial.extend(uncontrolled.initial);
        history.events.extend(uncontrolled.events.into_iter().map(|event| shifted(event, shift, ts)));
        assert!(!words(check(&history)).is_empty(), "the lost update is found among {before} other transactions");
        let smallest = smallest(history);
        assert_eq!(txns(&smallest).len(), 2);
        assert!(!words(check(&smallest)).is_empty());
    }

    /// The same event, of other transactions and at later times.
    fn shifted(event: Event, shift: u64, later: u64) -> Event {
        let txn = TxnKey(event.txn().0 + shift);
        match event {
            Event::Begin { name, isolation, mode, read_only, .. } => {
                Event::Begin { txn, name, isolation, mode, read_only }
            }
            Event::Read { key, version, value, kind, as_of, .. } => {
                Event::Read { txn, key, version, value, kind, as_of }
            }
            Event::Write { key, seq, value, blind, .. } => Event::Write { txn, key, seq, value, blind },
            Event::Commit { resolved, .. } => {
                Event::Commit { txn, ts: Some(isolde_types::Ts(later + txn.0)), resolved }
            }
            other => other,
        }
    }
}
