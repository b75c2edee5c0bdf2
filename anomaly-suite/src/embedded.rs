//! Isolde under schedules: a fresh database in memory for each, driven by polling.
//!
//! Isolde says itself when an operation is pending, and for whom it waits; nothing here sleeps or
//! guesses. Values that a schedule increments are stored as Isolde's counters and turned back into
//! decimal numbers in whatever comes out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::task::{Context, Poll};

use bytes::Bytes;
use isolde::step::{Op, Session};
use isolde::{Cas, Db, Deadlocks, Error, Recorder, Savepoint};
use isolde_history::model::{Event, History};
use isolde_history::schedule::{Begin, Database, Failure, FailureClass, Operation, Output, Schedule, Swap};
use isolde_types::{Key, LockMode};

use crate::engine::Engine;
use crate::numbers;

/// Isolde, in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Isolde {
    /// What it does about deadlocks; the database's default if it is not named.
    pub deadlocks: Option<Deadlocks>,
}

impl Engine for Isolde {
    fn name(&self) -> &'static str {
        "isolde"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn open(&self, schedule: &Schedule) -> Box<dyn Database> {
        let opened = Embedded::open(self.deadlocks, schedule);
        Box::new(opened.unwrap_or_else(|error| panic!("a database in memory always opens: {error}")))
    }
}

/// One database and its sessions.
struct Embedded {
    db: Db,
    recorder: Option<Recorder>,
    counters: BTreeSet<Key>,
    sessions: HashMap<usize, Running>,
}

struct Running {
    session: Option<Session>,
    id: isolde::TxnId,
    savepoints: Vec<(String, Savepoint)>,
    operation: Option<Polled>,
}

/// An operation under way, and what kind of result it has.
enum Polled {
    Value(Op<Option<Bytes>>),
    Rows(Op<Vec<(Key, Bytes)>>),
    Unit(Op<()>),
    Swap(Op<Cas>, Option<Bytes>),
    Commit(Op<isolde::Commit>),
    /// One that never waits and is done.
    Done(Result<(), Failure>),
}

impl Embedded {
    fn open(deadlocks: Option<Deadlocks>, schedule: &Schedule) -> isolde::Result<Embedded> {
        let mut builder = Db::builder().in_memory().no_lock_timeout();
        for operator in ["append", "max"] {
            let merge = move |value: Option<&[u8]>, operand: &[u8]| {
                numbers::merge(operator, value, operand).map(Vec::from).map_err(Into::into)
            };
            builder = builder.merge_operator(operator, merge);
        }
        if let Some(deadlocks) = deadlocks {
            builder = builder.deadlocks(deadlocks);
        }
        let db = builder.open()?;
        let counters = schedule.counters().cloned().collect();
        for (key, value) in &schedule.initial {
            db.put(key, encode(&counters, key, value))?;
        }
        let recorder = Some(db.recorder()?);
        Ok(Embedded { db, recorder, counters, sessions: HashMap::new() })
    }

    fn operation(&mut self, txn: usize, operation: &Operation<Bytes>) -> Polled {
        let counters = &self.counters;
        let Some(running) = self.sessions.get_mut(&txn) else { return ended() };
        match operation {
            Operation::Commit => return running.session.take().map_or_else(ended, |s| Polled::Commit(s.commit())),
            Operation::Rollback => {
                running.session = None;
                return Polled::Done(Ok(()));
            }
            _ => {}
        }
        let Some(session) = &running.session else { return ended() };
        match operation {
            Operation::Get(key) => Polled::Value(session.get(key)),
            Operation::GetForUpdate(key) => Polled::Value(session.get_for_update(key)),
            Operation::Scan(place) => Polled::Rows(session.scan(place.span())),
            Operation::Put(key, value) => Polled::Unit(session.put(key, encode(counters, key, value))),
            Operation::Insert(key, value) => Polled::Unit(session.insert(key, encode(counters, key, value))),
            Operation::Delete(key) => Polled::Unit(session.delete(key)),
            Operation::Increment(key, by) => Polled::Unit(session.increment(key, *by)),
            Operation::Merge { operator, key, value } => Polled::Unit(session.merge(operator, key, value)),
            Operation::CompareAndSet { key, old, new } => {
                let encoded = |value: &Option<Bytes>| value.as_ref().map(|value| encode(counters, key, value));
                let (expected, new) = (encoded(old), encoded(new));
                Polled::Swap(session.compare_and_set(key, expected.as_deref(), new.as_deref()), old.clone())
            }
            Operation::Lock(place) => Polled::Unit(session.lock(place.span(), LockMode::Exclusive)),
            Operation::Savepoint(name) => {
                running.savepoints.push((name.clone(), session.savepoint()));
                Polled::Done(Ok(()))
            }
            Operation::RollbackTo(name) => {
                let found = running.savepoints.iter().rposition(|(known, _)| known == name);
                let Some(index) = found else { return refuse(format!("there is no savepoint {name}")) };
                running.savepoints.truncate(index + 1);
                Polled::Unit(session.rollback_to(running.savepoints[index].1))
            }
            Operation::Commit | Operation::Rollback => ended(),
        }
    }

    fn decoded(&self, key: &Key, value: &Bytes) -> Bytes {
        let number = self.counters.contains(key).then(|| <[u8; 8]>::try_from(&value[..]).ok()).flatten();
        number.map_or_else(|| value.clone(), |bytes| i64::from_be_bytes(bytes).to_string().into())
    }

    fn decode_event(&self, event: &mut Event) {
        let decode = |key: &Key, value: &mut Option<Bytes>| {
            *value = value.as_ref().map(|value| self.decoded(key, value));
        };
        match event {
            Event::Read { key, value, .. } | Event::Write { key, value, .. } => decode(key, value),
            Event::Scan { rows, .. } => rows.iter_mut().for_each(|row| decode(&row.key, &mut row.value)),
            Event::Commit { resolved, .. } => {
                resolved.iter_mut().for_each(|(key, value)| *value = self.decoded(key, value));
            }
            _ => {}
        }
    }

    fn decode_output(&self, operation_key: Option<&Key>, output: Output) -> Output {
        let decode = |value: Option<Bytes>| match (operation_key, value) {
            (Some(key), Some(value)) => Some(self.decoded(key, &value)),
            (_, value) => value,
        };
        match output {
            Output::Value(value) => Output::Value(decode(value)),
            Output::CompareAndSet { found, swap } => Output::CompareAndSet { found: decode(found), swap },
            Output::Rows(rows) => {
                let row = |(key, value): (Key, Bytes)| (key.clone(), self.decoded(&key, &value));
                Output::Rows(rows.into_iter().map(row).collect())
            }
            Output::Done => Output::Done,
        }
    }
}

/// A value as Isolde stores it: a counter where the schedule increments, else as it is.
fn encode(counters: &BTreeSet<Key>, key: &Key, value: &Bytes) -> Bytes {
    let number = counters.contains(key).then(|| numbers::parse(Some(value)).ok()).flatten();
    number.map_or_else(|| value.clone(), |number| Bytes::copy_from_slice(&number.to_be_bytes()))
}

fn refuse(message: String) -> Polled {
    Polled::Done(Err(Failure { class: FailureClass::Refused, message, ended: false }))
}

fn ended() -> Polled {
    refuse("the transaction has ended".to_owned())
}
