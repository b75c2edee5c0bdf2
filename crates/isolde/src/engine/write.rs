//! Writing a key: at once under its lock, or into the write set until the commit.

use bytes::Bytes;
use isolde_locks::Purpose;
use isolde_mvcc::{Packed, ReadAt, let_go};
use isolde_types::sync::Arc;
use isolde_types::sync::atomic::Ordering;
use isolde_types::{Key, LockMode, Span, Ts, mutant};

use super::core::within;
use super::read::Intent;
use super::txn::{Body, SavepointEntry};
use super::wait::Wait;
use super::write_set::{BlindOp, MergeOperator, Pending, Write};
use super::{RecordRef, TxnInner};
use crate::error::{ConflictKind, Error, KeyText, MergeError, Result};
use crate::isolation::{WriteCheck, WriteTiming};

/// What a savepoint names: a transaction, and a place in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Savepoint {
    txn: isolde_types::TxnId,
    number: u32,
}

/// What a compare-and-set came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cas<T = Bytes> {
    /// The key had the expected value, and has the new one now.
    Swapped,
    /// The key had another value, this one; nothing was changed.
    Current(Option<T>),
}

impl TxnInner {
    /// Sets or deletes a key, reading nothing.
    pub async fn write(self: &Arc<Self>, wait: &Wait, key: &[u8], value: Option<Packed>) -> Result<()> {
        if let Some(value) = &value {
            self.core.check_value(value)?;
        }
        self.change(wait, key, Pending::Value(value)).await
    }

    /// Adds to a counter, reading nothing.
    pub async fn increment(self: &Arc<Self>, wait: &Wait, key: &[u8], by: i64) -> Result<()> {
        self.change(wait, key, Pending::Blind(vec![BlindOp::Increment(by)])).await
    }

    /// Merges an operand, reading nothing.
    pub async fn merge(self: &Arc<Self>, wait: &Wait, operator: &str, key: &[u8], operand: &[u8]) -> Result<()> {
        self.core.check_value(operand)?;
        let operator = self.merge_operator(operator, key)?;
        let op = BlindOp::Merge(operator, Packed::copy(operand).into_bytes());
        self.change(wait, key, Pending::Blind(vec![op])).await
    }

    fn merge_operator(&self, name: &str, key: &[u8]) -> Result<MergeOperator> {
        self.core.config.merge_operators.get(name).cloned().ok_or_else(|| {
            Error::Merge(Box::new(MergeError {
                operator: name.into(),
                key: KeyText::new(key, self.core.config.redact),
                reason: None,
            }))
        })
    }

    /// Sets a key that must be absent: a read of its absence, and a write.
    pub async fn insert(self: &Arc<Self>, wait: &Wait, key: &[u8], value: Packed) -> Result<()> {
        self.check_write(key)?;
        self.core.check_memory()?;
        self.core.check_value(&value)?;
        match self.get_to_write(wait, key).await? {
            Some(_) => Err(Error::AlreadyExists(Box::new(KeyText::new(key, self.core.config.redact)))),
            None => self.write(wait, key, Some(value)).await,
        }
    }

    /// Sets a key to `new` if it has the value `expected` (`None`: if it is absent).
    pub async fn compare_and_set(
        self: &Arc<Self>,
        wait: &Wait,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<Packed>,
    ) -> Result<Cas> {
        self.check_write(key)?;
        if let Some(new) = &new {
            self.core.check_memory()?;
            self.core.check_value(new)?;
        }
        let current = self.get_to_write(wait, key).await?;
        if current.as_deref() != expected {
            return Ok(Cas::Current(current));
        }
        self.write(wait, key, new).await?;
        Ok(Cas::Swapped)
    }

    /// Sets a key to what `update` makes of its value; gives the value before.
    pub async fn fetch_update(
        self: &Arc<Self>,
        wait: &Wait,
        key: &[u8],
        update: impl FnOnce(Option<&[u8]>) -> Option<Bytes>,
    ) -> Result<Option<Bytes>> {
        self.check_write(key)?;
        let before = self.get_to_write(wait, key).await?;
        self.write(wait, key, update(before.as_deref()).map(Packed::from)).await?;
        Ok(before)
    }

    /// A read on which a write of the same key depends: under its exclusive lock where writes lock
    /// at once, else certified.
    async fn get_to_write(self: &Arc<Self>, wait: &Wait, key: &[u8]) -> Result<Option<Bytes>> {
        self.refuse_read_only()?;
        self.writable()?;
        if let Some(write) = self.body().writes.get(key)
            && let Pending::Value(value) = &write.pending
        {
            let value = value.as_ref().map(Packed::bytes);
            self.core.tap.read_own(self, key, write.seq, value);
            return Ok(value.cloned());
        }
        if self.policy.writes == WriteTiming::AtOnce {
            self.lock_key(wait, key, LockMode::Exclusive, Purpose::Write).await?;
        }
        self.get(wait, key, Intent::Update).await
    }

    /// What every write asks first; nothing has happened when it refuses.
    fn check_write(&self, key: &[u8]) -> Result<()> {
        self.refuse_read_only()?;
        self.writable()?;
        self.core.check_key(key)
    }

    async fn change(self: &Arc<Self>, wait: &Wait, key: &[u8], change: Pending) -> Result<()> {
        self.check_write(key)?;
        // A delete frees memory: refused, a full database would stay full for ever.
        if !matches!(change, Pending::Value(None)) {
            self.core.check_memory()?;
        }
        match self.policy.writes {
            WriteTiming::AtOnce => self.change_at_once(wait, key, change).await,
            WriteTiming::AtCommit => {
                let mut body = self.body();
                let pending = body.writes.combined(key, change, self.core.config.redact)?;
                let (_, displaced) = self.put(&mut body, Packed::copy(key).into_bytes(), pending, None)?;
                drop(body);
                let_go(displaced);
                Ok(())
            }
        }
    }

    /// Locks the key, and puts the in-flight version into its record.
    async fn change_at_once(self: &Arc<Self>, wait: &Wait, key: &[u8], change: Pending) -> Result<()> {
        let (record, mut body) = loop {
            let returns = self.returns.load(Ordering::Acquire);
            let record = self.lock_key(wait, key, LockMode::Exclusive, Purpose::Write).await?;
            let body = self.body();
            // A return to a savepoint in between may have given the lock back.
            if self.returns.load(Ordering::Acquire) == returns {
                break (record, body);
            }
        };
        let redact = self.core.config.redact;
        let pending = body.writes.combined(key, change, redact)?;
        let status = self.status(&mut body);
        if !pending.is_blind() {
            self.check_not_newer(&record, self.newest_under_lock(&record, Some(&status)))?;
        }
        // Nobody else commits this key while it is locked, so a blind change is resolved now.
        let base = record.0.read(ReadAt::Newest, Some(&status)).value;
        let value = pending.resolve(record.0.key(), base.as_deref(), redact)?;
        self.core.check_value(value.as_deref().unwrap_or_default())?;
        let (seq, displaced) = self.put(&mut body, record.0.key().clone(), pending, Some(record.clone()))?;
        record.0.install(&status, seq, value);
        drop(body);
        let_go(displaced);
        Ok(())
    }

    /// Enters a change into the write set, under the limit on its size; gives its number, and what it has
    /// displaced.
    fn put(
        &self,
        body: &mut Body,
        key: Key,
        pending: Pending,
        record: Option<RecordRef>,
    ) -> Result<(u32, Option<Write>)> {
        let size = body.writes.bytes() + key.len() + pending.size();
        within("write set", size, self.core.config.limits.write_set_bytes, "max_write_set_bytes")?;
        body.next_seq += 1;
        let seq = body.next_seq;
        let value = match &pending {
            Pending::Value(value) => value.as_ref().map(Packed::bytes),
            Pending::Blind(_) => None,
        };
        self.core.tap.write(self, &key, seq, value, pending.is_blind());
        Ok((seq, body.writes.set(key, Write { pending, seq, record })))
    }

    // --- spans --------------------------------------------------------------------------------

    /// Keeps a span as it is until the commit: by a lock, or in optimistic mode by a mark.
    pub async fn lock_whole_span(self: &Arc<Self>, wait: &Wait, span: Span, mode: LockMode) -> Result<()> {
        self.refuse_read_only()?;
        self.writable()?;
        match self.policy.writes {
            WriteTiming::AtOnce => {
                self.lock_span(wait, &span, mode, Purpose::Read).await?;
                self.check_span_not_newer(&span)
            }
            WriteTiming::AtCommit => {
                self.hold_marks_view();
                let as_of = if self.policy.has_snapshot() { self.read_ts() } else { self.core.timeline.visible() };
                let mut body = self.body();
                body.reads.marked = true;
                body.reads.add_span(span, as_of);
                Ok(())
            }
        }
    }

    /// In a snapshot view, what is locked to be written must not be newer than the snapshot.
    fn check_span_not_newer(&self, span: &Span) -> Result<()> {
        if self.policy.write_check != WriteCheck::NotNewerThanSnapshot {
            return Ok(());
        }
        let own = self.status_if_any();
        // Nobody else writes in the span now; what was committed last may be newer than visible_ts.
        match self.core.store.span_latest_after(span, self.read_ts(), Ts::MAX, own.as_ref()) {
            isolde_mvcc::SpanCheck::Changed { key, ts } => {
                Err(self.conflict(ConflictKind::SpanChanged, &key, Some(span), self.read_ts(), ts))
            }
            isolde_mvcc::SpanCheck::Unchanged | isolde_mvcc::SpanCheck::Undecided(_) => Ok(()),
        }
    }

    // --- savepoints -----------------------------------------------------------------------------

    /// A place to return to.
    pub fn savepoint(self: &Arc<Self>) -> Savepoint {
        // Inside the gate: an owner that is made after the end would never be taken away.
        let inside = self.step_inside().ok();
        let locks_at_once = inside.is_some() && self.policy.writes == WriteTiming::AtOnce;
        let owner = locks_at_once.then(|| self.owner());
        let mut body = self.body();
        // Under the latch: a write that comes before the savepoint has its lock before it too.
        let locks = owner.map(|owner| Arc::new(self.core.locks.mark(&owner)));
        let (number, undo, seq) = (body.next_savepoint, body.writes.mark(), body.next_seq);
        body.next_savepoint += 1;
        body.savepoints.push(SavepointEntry { number, undo, seq, locks });
        Savepoint { txn: self.id(), number }
    }

    /// Undoes the writes since the savepoint, and gives back the locks that they took. What was
    /// read stays read.
    pub fn rollback_to(self: &Arc<Self>, savepoint: Savepoint) -> Result<()> {
        let owner = self.owner_for(savepoint)?;
        let mut body = self.body();
        let at = body.savepoints.iter().position(|entry| entry.number == savepoint.number);
        let at = at.filter(|_| savepoint.txn == self.id()).ok_or(Error::SavepointGone)?;
        body.savepoints.truncate(at + 1);
        let SavepointEntry { undo, seq, ref locks, .. } = body.savepoints[at];
        let locks = locks.clone();
        let gone = self.undo(&mut body, undo)?;
        // Under the latch: no write of this transaction may stand in a record whose lock is given back.
        let given_back = owner.zip(locks).map(|(owner, mark)| self.core.locks.undo_to(&owner, &mark));
        self.returns.fetch_add(1, Ordering::Release);
        drop(body);
        self.core.tap.rollback_to(self, seq);
        if let Some(given_back) = given_back {
            given_back.wake();
        }
        let_go(gone);
        Ok(())
    }

    fn owner_for(self: &Arc<Self>, savepoint: Savepoint) -> Result<Option<Arc<isolde_locks::Owner<RecordRef>>>> {
        if savepoint.txn != self.id() {
            return Err(Error::SavepointGone);
        }
        Ok(match self.policy.writes {
            WriteTiming::AtOnce => Some(self.owner()),
            WriteTiming::AtCommit => None,
        })
    }

    /// Takes back every change since `mark`, in the write set and in the records.
    fn undo(&self, body: &mut Body, mark: usize) -> Result<Vec<Write>> {
        let status = match self.policy.writes {
            WriteTiming::AtOnce => Some(self.status(body)),
            WriteTiming::AtCommit => None,
        };
        let redact = self.core.config.redact;
        let Body { writes, placeholders, .. } = body;
        let mut failed = None;
        let gone = writes.rollback_to(mark, |key, after, before| {
            let (Some(status), Some(record)) = (&status, &after.record) else { return };
            match before {
                None => {
                    record.0.withdraw(status);
                    placeholders.push(record.clone());
                }
                Some(before) => {
                    let base = record.0.read(ReadAt::Newest, Some(status)).value;
                    match before.pending.resolve(key, base.as_deref(), redact) {
                        Ok(value) => record.0.install(status, before.seq, value),
                        Err(error) => failed = Some(error),
                    }
                }
            }
        });
        failed.map_or(Ok(gone), Err)
    }
}

/// Seeded faults that this file is asked about elsewhere.
pub(crate) fn unlocked_optimistic_commit() -> bool {
    mutant!("no-lock-at-optimistic-commit")
}
