//! Embedded key-value stores in Rust: transactions in this process, on one thread.
//!
//! A value is stored behind the mark of its writer (`2.1 value`), and a write does not read, so that it
//! stays as blind as it was; the versions of a key are then in the order of the commits, which run one
//! after the other. None of these stores has an increment, a compare-and-set or savepoints with names as
//! one operation of a transaction, so the schedules that need them are absent.

use std::collections::HashMap;

use bytes::Bytes;
use isolde_history::schedule::{Begin, Failure, FailureClass, Operation, Schedule};
use isolde_types::{Key, Span};

use super::mark::{Mark, Stored};
use super::traced::{Answer, Progress, Sessions};
use crate::engine::{Level, Unreachable};

/// A store with transactions.
pub(super) trait Store: Sized {
    /// A transaction under way.
    type Txn;

    /// Begins one; `None` while the store would make it wait for another one.
    fn begin(&mut self, level: Level, read_only: bool) -> Result<Option<Self::Txn>, Failure>;

    fn get(&self, txn: &mut Self::Txn, key: &Key) -> Result<Option<Bytes>, Failure>;

    fn get_for_update(&self, _: &mut Self::Txn, _: &Key) -> Result<Option<Bytes>, Failure> {
        Err(refused("there is no get-for-update"))
    }

    fn scan(&self, txn: &mut Self::Txn, span: &Span) -> Result<Vec<(Key, Bytes)>, Failure>;

    fn put(&self, txn: &mut Self::Txn, key: &Key, value: Bytes) -> Result<(), Failure>;

    fn delete(&self, txn: &mut Self::Txn, key: &Key) -> Result<(), Failure>;

    fn commit(&mut self, txn: Self::Txn) -> Result<(), Failure>;

    fn rollback(&mut self, txn: Self::Txn) -> Result<(), Failure>;
}

/// The transactions of one run. One begins with its first operation, which may have to wait.
pub(super) struct Embedded<S: Store> {
    store: S,
    level: Level,
    begun: HashMap<usize, (Level, bool)>,
    txns: HashMap<usize, S::Txn>,
    started: HashMap<usize, (Operation<Bytes>, Mark)>,
}

impl<S: Store> Embedded<S> {
    /// The store, holding the initial state of a schedule.
    pub fn new(store: S, schedule: &Schedule, level: Level) -> Result<Self, Unreachable> {
        let (begun, txns, started) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut embedded = Embedded { store, level, begun, txns, started };
        embedded.fill(&schedule.initial).map_err(|failure| Unreachable(failure.message))?;
        Ok(embedded)
    }

    fn fill(&mut self, initial: &[(Key, Bytes)]) -> Result<(), Failure> {
        let mut txn = self.alone(false)?;
        for (key, value) in initial {
            self.store.put(&mut txn, key, marked(Mark::INITIAL, value))?;
        }
        self.store.commit(txn)
    }

    /// A transaction while there is no other.
    fn alone(&mut self, read_only: bool) -> Result<S::Txn, Failure> {
        self.store.begin(self.level, read_only)?.ok_or_else(|| refused("somebody has not ended"))
    }

    /// Runs what was started; `None` while the transaction cannot even begin.
    fn run(&mut self, txn: usize, operation: &Operation<Bytes>, mark: Mark) -> Result<Option<Answer>, Failure> {
        if !self.txns.contains_key(&txn) {
            let (level, read_only) = *self.begun.get(&txn).ok_or_else(|| refused("nothing has begun"))?;
            let Some(begun) = self.store.begin(level, read_only)? else { return Ok(None) };
            self.txns.insert(txn, begun);
        }
        if operation.ends() {
            let Some(ending) = self.txns.remove(&txn) else { return Err(refused("it has ended")) };
            let ended = match operation {
                Operation::Commit => self.store.commit(ending),
                _ => self.store.rollback(ending),
            };
            return ended.map(|()| Some(Answer::Done)).map_err(|failure| Failure { ended: true, ..failure });
        }
        let Some(open) = self.txns.get_mut(&txn) else { return Err(refused("it has ended")) };
        answer(&self.store, open, operation, mark).map(Some)
    }
}

impl<S: Store> Sessions for Embedded<S> {
    const TRAILS: bool = false;

    fn begin(&mut self, txn: usize, begin: &Begin<'_>, level: &Level) -> Result<(), Failure> {
        self.begun.insert(txn, (*level, begin.read_only));
        // A snapshot is taken now, where the store does not make us wait.
        if let Some(begun) = self.store.begin(*level, begin.read_only)? {
            self.txns.insert(txn, begun);
        }
        Ok(())
    }

    fn start(&mut self, txn: usize, operation: &Operation<Bytes>, mark: Mark) {
        self.started.insert(txn, (operation.clone(), mark));
    }

    fn poll(&mut self, txn: usize) -> Progress {
        let Some((operation, mark)) = self.started.remove(&txn) else {
            return Progress::Done(Err(refused("nothing was started")));
        };
        match self.run(txn, &operation, mark) {
            Ok(Some(answer)) => Progress::Done(Ok(answer)),
            Ok(None) => {
                self.started.insert(txn, (operation, mark));
                Progress::Blocked
            }
            Err(failure) => Progress::Done(Err(failure)),
        }
    }

    fn rows(&mut self) -> Result<Vec<(Key, Stored)>, String> {
        let words = |failure: Failure| failure.message;
        let mut txn = self.alone(true).map_err(words)?;
        let rows = self.store.scan(&mut txn, &Span::all()).map_err(words)?;
        self.store.rollback(txn).map_err(words)?;
        rows.into_iter().map(|(key, value)| Ok((key, unmarked(&value)?))).collect()
    }
}

fn answer<S: Store>(store: &S, txn: &mut S::Txn, operation: &Operation<Bytes>, mark: Mark) -> Result<Answer, Failure> {
    let found = |value: Option<Bytes>| {
        let stored = value.map(|value| unmarked(&value)).transpose();
        stored.map(Answer::Found).map_err(|words| refused(&words))
    };
    match operation {
        Operation::Get(key) => found(store.get(txn, key)?),
        Operation::GetForUpdate(key) => found(store.get_for_update(txn, key)?),
        Operation::Scan(place) => {
            let row = |(key, value): (Key, Bytes)| Ok((key, unmarked(&value)?));
            let rows: Result<Vec<_>, String> = store.scan(txn, &place.span())?.into_iter().map(row).collect();
            rows.map(Answer::Rows).map_err(|words| refused(&words))
        }
        Operation::Put(key, value) => store.put(txn, key, marked(mark, value)).map(|()| Answer::Done),
        Operation::Insert(key, value) => match store.get(txn, key)? {
            Some(_) => Err(refused("the key exists already")),
            None => store.put(txn, key, marked(mark, value)).map(|()| Answer::Done),
        },
        Operation::Delete(key) => store.delete(txn, key).map(|()| Answer::Done),
        operation => Err(refused(&format!("there is no {operation:?}"))),
    }
}

/// What none of these stores has. (`get-for-update` is left to each.)
pub(super) fn lacks(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Increment(..)
            | Operation::Merge { .. }
            | Operation::CompareAndSet { .. }
            | Operation::Lock(_)
            | Operation::Savepoint(_)
            | Operation::RollbackTo(_)
    )
}

pub(super) fn refused(message: &str) -> Failure {
    Failure { class: FailureClass::Refused, message: message.to_owned(), ended: false }
}

/// A failure for which the whole transaction must be run again.
#[cfg(any(feature = "fjall", feature = "surrealmx"))]
pub(super) fn conflict(message: &str) -> Failure {
    Failure { class: FailureClass::Conflict, message: message.to_owned(), ended: true }
}

/// A value as it is stored.
fn marked(mark: Mark, value: &Bytes) -> Bytes {
    [mark.to_string().as_bytes(), b" ", value].concat().into()
}

/// What stands in the store, and whose it is.
fn unmarked(stored: &Bytes) -> Result<Stored, String> {
    let text = String::from_utf8_lossy(stored);
    let (mark, value) = text.split_once(' ').ok_or_else(|| format!("{text:?} has no mark"))?;
    Stored::read(value.to_owned(), mark)
}
