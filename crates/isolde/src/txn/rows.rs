//! The rows of a span, one after the other, from either end.

use std::time::Duration;

use bytes::Bytes;
use isolde_types::RowKey;
use isolde_types::sync::Arc;

use super::call::block_on_locks;
use crate::engine::read::Intent;
use crate::engine::scan::{End, OnLocked, ScanCore};
use crate::engine::wait::{Patience, Wait, block_on};
use crate::error::{Error, Result};

/// The rows of a span: see [`Txn::scan`](crate::Txn::scan).
///
/// *Errors*: a lock that is not granted in time leaves the iterator where it was, and the next call
/// tries the same row again. If the transaction has ended it yields `TransactionEnded` once, then
/// nothing.
#[must_use = "iterators do nothing unless consumed"]
pub struct Scan {
    core: ScanCore,
    patience: Patience,
    begun: bool,
    done: bool,
}

impl Scan {
    pub(super) fn new(core: ScanCore, patience: Patience) -> Scan {
        Scan { core, patience, begun: false, done: false }
    }

    /// Locks (in optimistic mode: marks) each row that is returned, to be written.
    ///
    /// Candidates are found in the call's view, locked, and read again; those that are gone by then
    /// are dropped, and none is added.
    pub fn for_update(mut self) -> Scan {
        self.core.intent = Intent::Update;
        self
    }

    /// Locks (in optimistic mode: marks) each row that is returned, so that it stays.
    pub fn for_share(mut self) -> Scan {
        self.core.intent = Intent::Share;
        self
    }

    /// Where a row is locked by somebody else, fails with `LockBusy` instead of waiting.
    /// Refused in optimistic mode, where nothing is locked.
    pub fn nowait(mut self) -> Scan {
        self.core.on_locked = OnLocked::Refuse;
        self.patience = Patience::NoWait;
        self
    }

    /// Leaves out rows that are locked by somebody else: for queues.
    ///
    /// Refused (`Unsupported`) at repeatable read and serializable, where it would be unsound, in
    /// optimistic mode, where nothing is locked, and without [`for_update`](Scan::for_update) or
    /// [`for_share`](Scan::for_share).
    ///
    /// ```
    /// # use isolde::{Db, Isolation, Mode, prefix};
    /// # fn main() -> isolde::Result<()> {
    /// let db = Db::builder().in_memory().open()?;
    /// db.put("job/1", "mail")?;
    /// db.put("job/2", "bill")?;
    /// let worker = || db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Pessimistic).begin();
    /// let (one, two) = (worker()?, worker()?);
    /// let next = |t: &isolde::Txn| t.scan(prefix("job/")).for_update().skip_locked().next().transpose();
    /// assert_eq!(next(&one)?.map(|(key, _)| key), Some("job/1".into()));
    /// assert_eq!(next(&two)?.map(|(key, _)| key), Some("job/2".into()));
    /// # Ok(()) }
    /// ```
    pub fn skip_locked(mut self) -> Scan {
        self.core.on_locked = OnLocked::Skip;
        self
    }

    /// Ends after so many rows more, from both ends together.
    ///
    /// The rows are those that `take` would give, own writes among them, and rows that are deleted,
    /// [skipped](Scan::skip_locked) or gone by the time they are locked do not count. But the scan knows beforehand: it
    /// reads no further ahead than it must, and where it locks the span (pessimistic mode at serializable) it locks
    /// as far as so many keys at first, and where those do not suffice twice as far each time, not all the rest at once.
    /// Rows that are locked or marked, and what an optimistic transaction certifies, are in any case only what the scan has
    /// passed. What is behind the last row is neither locked nor certified: others may write there.
    ///
    /// ```
    /// # use isolde::{Db, prefix};
    /// # fn main() -> isolde::Result<()> {
    /// let db = Db::builder().in_memory().open()?;
    /// (0..9).try_for_each(|i| db.put(format!("score/{i}"), "x"))?;
    /// let t = db.begin()?;
    /// let best: Vec<_> = t.scan(prefix("score/")).limit(2).keys().rev().collect::<Result<_, _>>()?;
    /// assert_eq!(best, ["score/8", "score/7"]);
    /// # Ok(()) }
    /// ```
    pub fn limit(mut self, rows: usize) -> Scan {
        self.core.limit = Some(rows);
        self
    }

    /// Waits for a lock at most this long.
    pub fn timeout(mut self, at_most: Duration) -> Scan {
        self.patience = Patience::AtMost(at_most);
        self
    }

    /// The keys alone.
    pub fn keys(self) -> Keys {
        Keys { scan: self }
    }

    fn readable(&self) -> Result<()> {
        let (txn, wait) = (&self.core.txn, Wait::new(self.patience));
        block_on(&*txn.core.config.clock, None, &wait, txn.readable(&wait))
    }

    fn step(&mut self, end: End) -> Option<Result<(RowKey, Bytes)>> {
        if self.done || self.core.limit == Some(0) {
            return None;
        }
        let row = self.step_on(end);
        if matches!(row, Some(Ok(_))) {
            self.core.handed_out();
        }
        row
    }

    fn step_on(&mut self, end: End) -> Option<Result<(RowKey, Bytes)>> {
        if !std::mem::replace(&mut self.begun, true) {
            if let Err(error) = self.readable() {
                self.done = true;
                return Some(Err(error));
            }
            if self.core.on_locked == OnLocked::Skip && self.core.intent == Intent::Plain {
                self.done = true;
                let why = "skip_locked on a scan that locks nothing: add for_update() or for_share()";
                return Some(Err(Error::Unsupported(why)));
            }
            self.core.decide(end);
        }
        if end == End::Front
            && let Some(row) = self.core.next_ready()
        {
            self.done = row.is_err();
            return Some(row);
        }
        let txn = Arc::clone(&self.core.txn);
        let wait = Wait::new(self.patience);
        let timeout = match self.patience {
            Patience::AtMost(at_most) => Some(at_most),
            Patience::Default | Patience::NoWait => txn.lock_timeout,
        };
        let operation = txn.inside(self.core.next(&wait, end)).run();
        let row = block_on_locks(&txn, timeout, &wait, operation);
        self.done = match &row {
            Ok(row) => row.is_none(),
            Err(error) => matches!(error, Error::TransactionEnded) || error.ends_transaction(),
        };
        row.transpose()
    }
}

impl Iterator for Scan {
    type Item = Result<(RowKey, Bytes)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.core.take_ready() {
            Some(row) => Some(Ok(row)),
            None => self.step(End::Front),
        }
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(End::Back)
    }
}

/// The keys of a span: see [`Scan::keys`].
#[must_use = "iterators do nothing unless consumed"]
pub struct Keys {
    scan: Scan,
}

impl Keys {
    /// See [`Scan::limit`].
    pub fn limit(self, rows: usize) -> Keys {
        Keys { scan: self.scan.limit(rows) }
    }
}

impl Iterator for Keys {
    type Item = Result<RowKey>;

    fn next(&mut self) -> Option<Self::Item> {
        self.scan.next().map(|row| row.map(|(key, _)| key))
    }
}

impl DoubleEndedIterator for Keys {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.scan.next_back().map(|row| row.map(|(key, _)| key))
    }
}

const _: () = {
    const fn sent<T: Send + 'static>() {}
    sent::<Scan>();
};
