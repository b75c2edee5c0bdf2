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
    /// The key of the operation under way.
    key: Option<Key>,
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

impl Polled {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Output, Failure>> {
        match self {
            Polled::Value(op) => op.poll(cx).map_ok(Output::Value).map_err(failure),
            Polled::Rows(op) => op.poll(cx).map_ok(Output::Rows).map_err(failure),
            Polled::Unit(op) => op.poll(cx).map_ok(|()| Output::Done).map_err(failure),
            Polled::Swap(op, old) => op.poll(cx).map_ok(|cas| swapped(cas, old)).map_err(failure),
            // A commit that fails has ended its transaction, whatever the reason.
            Polled::Commit(op) => {
                op.poll(cx).map_ok(|_| Output::Done).map_err(|error| Failure { ended: true, ..failure(error) })
            }
            Polled::Done(result) => Poll::Ready(result.clone().map(|()| Output::Done)),
        }
    }
}

fn swapped(cas: Cas, old: &Option<Bytes>) -> Output {
    match cas {
        Cas::Swapped => Output::CompareAndSet { found: old.clone(), swap: Swap::Done },
        Cas::Current(found) => Output::CompareAndSet { found, swap: Swap::Refused },
    }
}

/// What an error means to a schedule. A lock that the policy `NoWait` found busy ends the
/// transaction too: whoever runs it has to start again.
fn failure(error: Error) -> Failure {
    let (class, ended) = match &error {
        Error::Conflict(_) | Error::SnapshotTooOld { .. } | Error::LockBusy(_) => (FailureClass::Conflict, true),
        Error::Deadlock(_) | Error::Wounded(_) => (FailureClass::Deadlock, true),
        Error::LockTimeout(_) => (FailureClass::Timeout, true),
        Error::TransactionEnded => (FailureClass::Refused, true),
        _ => (FailureClass::Refused, false),
    };
    Failure { class, message: error.to_string(), ended }
}

impl Database for Embedded {
    fn begin(&mut self, txn: usize, begin: &Begin<'_>) -> Result<(), Failure> {
        let mut builder = self.db.txn().isolation(begin.isolation).mode(begin.mode).label(begin.name);
        if begin.read_only {
            builder = builder.read_only();
        }
        let mut op = Session::begin(builder);
        let Poll::Ready(begun) = op.poll(&mut Context::from_waker(std::task::Waker::noop())) else {
            let message = "begin waits, though nothing was to be locked first".to_owned();
            return Err(Failure { class: FailureClass::Refused, message, ended: true });
        };
        let session = begun.map_err(|error| Failure { ended: true, ..failure(error) })?;
        let id = session.id();
        let running = Running { session: Some(session), id, savepoints: Vec::new(), key: None, operation: None };
        self.sessions.insert(txn, running);
        Ok(())
    }

    fn start(&mut self, txn: usize, operation: &Operation<Bytes>) {
        let polled = self.operation(txn, operation);
        if let Some(running) = self.sessions.get_mut(&txn) {
            running.key = operation.key().cloned();
            running.operation = Some(polled);
        }
    }

    fn poll(&mut self, txn: usize, cx: &mut Context<'_>) -> Poll<Result<Output, Failure>> {
        let Some(running) = self.sessions.get_mut(&txn) else { return ended().poll(cx) };
        let Some(mut operation) = running.operation.take() else { return ended().poll(cx) };
        let Poll::Ready(result) = operation.poll(cx) else {
            running.operation = Some(operation);
            return Poll::Pending;
        };
        if result.as_ref().is_err_and(|failure| failure.ended) {
            running.session = None;
        }
        let key = running.key.take();
        Poll::Ready(result.map(|output| self.decode_output(key.as_ref(), output)))
    }

    fn waits_for(&mut self, txn: usize) -> Option<String> {
        let id = self.sessions.get(&txn)?.id;
        let waits = self.db.waits_for();
        let blockers = waits.rows.iter().filter(|row| row.waiter == id);
        let mut names: Vec<String> = blockers.filter_map(|row| Some(row.blocker.label.as_ref()?.to_string())).collect();
        names.sort();
        names.dedup();
        (!names.is_empty()).then(|| names.join(" and "))
    }

    fn history(&mut self) -> History {
        self.sessions.clear();
        let Some(recorder) = self.recorder.take() else { return History::default() };
        let mut history = recorder.finish();
        for (key, value) in &mut history.initial {
            *value = self.decoded(key, value);
        }
        history.events.iter_mut().for_each(|event| self.decode_event(event));
        history
    }

    fn final_state(&mut self) -> BTreeMap<Key, Bytes> {
        self.sessions.clear();
        let rows = self.db.snapshot().and_then(|snapshot| snapshot.scan(..).collect::<isolde::Result<Vec<_>>>());
        let rows = rows.unwrap_or_else(|error| panic!("a database in memory can always be read: {error}"));
        rows.into_iter().map(|(key, value)| (key.clone(), self.decoded(&key, &value))).collect()
    }

    fn complaints(&mut self) -> Vec<String> {
        self.sessions.clear();
        self.db.check().err().into_iter().collect()
    }
}
