//! What clients saw, from several threads, as one history with versions.
//!
//! Nothing is deleted and every key is present at first, so each read names its version by the mark
//! that it found. A transaction's begin is recorded before it is asked for and its end after it was
//! answered, so real time orders only what was really one after the other.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use fastrand::Rng;
use isolde_history::History;
use isolde_history::model::{Event, ReadKind, TxnKey, Version};
use isolde_history::schedule::{Failure, FailureClass, Operation};
use isolde_types::{Key, Ts, escape_key};

use super::concurrent::Observed;
use super::mark::{Mark, Stored};
use super::traced::Answer;
use crate::engine::Level;
use crate::fuzz::Shape;

/// What is there before the first transaction: every key.
pub(super) fn initial(shape: Shape) -> Vec<(Key, Bytes)> {
    (0..shape.keys).map(|key| (name(key), Bytes::from_static(b"0.0"))).collect()
}

fn name(key: usize) -> Key {
    Key::from(format!("k{key}"))
}

/// One transaction: it reads and writes a few keys, and ends. Each write's value is its mark, so no two
/// are alike.
pub(super) fn program(rng: &mut Rng, shape: Shape, txn: u64) -> Vec<Operation<Bytes>> {
    let mut seq = 0;
    let mut operations: Vec<Operation<Bytes>> = Vec::new();
    for _ in 0..rng.usize(1..=shape.operations.max(1)) {
        let key = name(rng.usize(..shape.keys));
        operations.push(if rng.bool() {
            Operation::Get(key)
        } else {
            seq += 1;
            Operation::Put(key, Bytes::from(Mark { txn, seq }.to_string()))
        });
    }
    operations.push(if rng.u8(..20) == 0 { Operation::Rollback } else { Operation::Commit });
    operations
}

/// The events of all threads, in the order in which they were seen.
#[derive(Default)]
pub(super) struct Records(Mutex<Vec<Event>>);

impl Records {
    pub(super) fn push(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Before the database is asked.
    pub(super) fn begin(&self, txn: u64, level: Level) {
        let (isolation, mode) = (level.promises, level.setting.mode);
        self.push(Event::Begin { txn: TxnKey(txn), name: format!("T{txn}"), isolation, mode, read_only: false });
    }

    /// After it has answered.
    pub(super) fn done(&self, mark: Mark, operation: &Operation<Bytes>, answer: Answer) {
        let txn = mark.txn_key();
        match (operation, answer) {
            (Operation::Get(key), Answer::Found(found)) => {
                let version = match found.as_ref().map(Stored::mark) {
                    None => Version::None,
                    Some(Mark::INITIAL) => Version::Committed(Ts::ZERO),
                    Some(seen) if seen.txn_key() == txn => Version::Own(seen.seq),
                    Some(seen) => Version::InFlight { txn: seen.txn_key(), seq: seen.seq },
                };
                let value = found.map(|stored| stored.value);
                self.push(Event::Read { txn, key: key.clone(), version, value, kind: ReadKind::Tracked, as_of: None });
            }
            (Operation::Put(key, value), _) => {
                let (key, value) = (key.clone(), Some(value.clone()));
                self.push(Event::Write { txn, key, seq: mark.seq, value, blind: false });
            }
            (Operation::Rollback, _) => self.push(Event::Abort { txn }),
            // Its place among the commits is not known: another one may have come first and been heard of later.
            _ => self.push(Event::Commit { txn, ts: None, resolved: Vec::new() }),
        }
    }

    /// A transaction that has failed is over. Only one that failed at its commit, in a way that does not
    /// say that it was rolled back, may have committed.
    pub(super) fn failed(&self, txn: u64, operation: &Operation<Bytes>, failure: &Failure) {
        let txn = TxnKey(txn);
        let rolled_back = matches!(failure.class, FailureClass::Conflict | FailureClass::Deadlock);
        self.push(match operation {
            Operation::Commit if !rolled_back => Event::Unknown { txn },
            _ => Event::Abort { txn },
        });
    }

    /// The history, with the version orders that the final rows of each node give.
    pub(super) fn finish(self, initial: Vec<(Key, Bytes)>, nodes: &[Vec<(Key, Stored)>]) -> Observed {
        let events = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let rows = nodes.first().map_or(&[][..], Vec::as_slice);
        let mut complaints = lost(&events, rows);
        for (node, others) in nodes.iter().enumerate().skip(1) {
            if others != rows {
                complaints.push(format!("in the end node {} holds other rows than node 1", node + 1));
            }
        }
        let order = rows.iter().map(|(key, stored)| {
            let marks = stored.trail.iter().filter(|mark| **mark != Mark::INITIAL);
            (key.clone(), marks.map(|mark| (mark.txn_key(), mark.seq)).collect())
        });
        let order = order.collect();
        Observed { history: History { initial, order, events, ..History::default() }, complaints }
    }
}

/// Writes that were committed and left no mark.
fn lost(events: &[Event], rows: &[(Key, Stored)]) -> Vec<String> {
    let committed = |txn: TxnKey| events.iter().any(|event| matches!(event, Event::Commit { txn: t, .. } if *t == txn));
    let is_there = |key: &Key, mark: Mark| rows.iter().any(|(k, stored)| k == key && stored.trail.contains(&mark));
    let lost = events.iter().filter_map(|event| match event {
        Event::Write { txn, key, seq, .. } => {
            let mark = Mark { txn: txn.0, seq: *seq };
            (!is_there(key, mark) && committed(*txn)).then_some((mark, key))
        }
        _ => None,
    });
    lost.map(|(mark, key)| format!("the write {mark} of {} was committed, and left no trace", escape_key(key)))
        .collect()
}

#[cfg(test)]
mod tests {
    use isolde_history::check;
    use isolde_history::schedule::Setting;
    use isolde_types::{Anomaly, Isolation, Mode};

    use super::*;

    fn level() -> Level {
        Level::of(Setting { isolation: Isolation::Serializable, mode: Mode::Pessimistic })
    }

    fn shape() -> Shape {
        Shape { keys: 2, ..Shape::default() }
    }

    fn found(mark: &str) -> Answer {
        Answer::Found(Some(Stored::read(mark.to_owned(), &format!("0.0 {mark}")).unwrap()))
    }

    fn get(records: &Records, txn: u64, key: usize, mark: &str) {
        records.done(Mark { txn, seq: 1 }, &Operation::Get(name(key)), found(mark));
    }

    fn put(records: &Records, txn: u64, key: usize) {
        let mark = Mark { txn, seq: 1 };
        records.done(mark, &Operation::Put(name(key), Bytes::from(mark.to_string())), Answer::Done);
    }

    fn commit(records: &Records, txn: u64) {
        records.done(Mark { txn, seq: 2 }, &Operation::Commit, Answer::Done);
    }

    /// The rows k0 and k1, by their trails.
    fn rows(trails: [&str; 2]) -> Vec<(Key, Stored)> {
        let row = |(key, trail)| {
            let stored = Stored::read("", trail).unwrap();
            (name(key), Stored { value: Bytes::from(stored.mark().to_string()), ..stored })
        };
        trails.into_iter().enumerate().map(row).collect()
    }

    /// T1 reads k0 and writes k1, T2 reads k1 and writes k0, neither sees the other.
    fn skew() -> Records {
        let records = Records::default();
        records.begin(1, level());
        records.begin(2, level());
        get(&records, 1, 0, "0.0");
        get(&records, 2, 1, "0.0");
        put(&records, 1, 1);
        put(&records, 2, 0);
        commit(&records, 1);
        records
    }

    #[test]
    fn what_was_answered_becomes_a_history_with_versions() {
        let records = skew();
        commit(&records, 2);
        let observed = records.finish(initial(shape()), &[rows(["0.0 2.1", "0.0 1.1"])]);
        assert_eq!(observed.complaints, [""; 0]);
        let report = check(&observed.history);
        assert_eq!((report.anomalies(), report.complaints), (vec![Anomaly::WriteSkew], Vec::new()));
        assert_eq!(History::from_json_lines(&observed.history.to_json_lines()).unwrap(), observed.history);
    }

    /// Two wrote the same key: the order is that of the trail, not that in which the commits were seen.
    #[test]
    fn the_trails_give_the_order_of_versions() {
        let records = Records::default();
        for txn in [1, 2] {
            records.begin(txn, level());
            put(&records, txn, 0);
        }
        commit(&records, 1);
        commit(&records, 2);
        let observed = records.finish(initial(shape()), &[rows(["0.0 2.1 1.1", "0.0"])]);
        assert_eq!(observed.history.order[0], (name(0), vec![(TxnKey(2), 1), (TxnKey(1), 1)]));
        let times = observed.history.events.iter().filter(|event| matches!(event, Event::Commit { ts: Some(_), .. }));
        assert_eq!(times.count(), 0, "nobody knows when they committed");
        assert!(check(&observed.history).is_serializable(), "they were concurrent");
    }

    #[test]
    fn a_commit_that_was_lost_with_its_connection_is_unknown_and_a_victim_is_not() {
        for (class, unknown) in
            [(FailureClass::Unknown, true), (FailureClass::Refused, true), (FailureClass::Deadlock, false)]
        {
            let records = skew();
            let failure = Failure { class, message: String::new(), ended: true };
            records.failed(2, &Operation::Commit, &failure);
            let last = records.0.into_inner().unwrap().pop().unwrap();
            assert_eq!(last == Event::Unknown { txn: TxnKey(2) }, unknown, "{last:?}");
        }
        let records = skew();
        let timeout = Failure { class: FailureClass::Timeout, message: String::new(), ended: false };
        records.failed(2, &Operation::Get(name(0)), &timeout);
        assert_eq!(records.0.into_inner().unwrap().pop(), Some(Event::Abort { txn: TxnKey(2) }));
    }

    #[test]
    fn a_committed_write_that_left_no_trace_and_nodes_that_differ_are_complaints() {
        let records = skew();
        commit(&records, 2);
        let nodes = [rows(["0.0", "0.0 1.1"]), rows(["0.0 2.1", "0.0 1.1"])];
        let complaints = records.finish(initial(shape()), &nodes).complaints;
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("2.1 of k0"), "{complaints:?}");
        assert!(complaints[1].contains("node 2"), "{complaints:?}");
    }

    #[test]
    fn a_program_is_a_function_of_its_seed_and_ends_and_its_values_are_its_marks() {
        for seed in 0..200 {
            let program = |seed| program(&mut Rng::with_seed(seed), shape(), 9);
            assert_eq!(program(seed), program(seed));
            let (last, before) =
                program(seed).split_last().map(|(last, before)| (last.clone(), before.to_vec())).unwrap();
            assert!(last.ends() && !before.is_empty() && before.len() <= shape().operations);
            let values = before.iter().filter_map(|operation| match operation {
                Operation::Put(_, value) => Some(value.clone()),
                _ => None,
            });
            for (seq, value) in (1..).zip(values) {
                assert_eq!(value, Mark { txn: 9, seq }.to_string());
            }
        }
    }
}
