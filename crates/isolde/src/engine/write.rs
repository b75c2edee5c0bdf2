//! Writing a key: at once under its lock, or into the write set until the commit.

use bytes::Bytes;
use isolde_locks::Purpose;
use isolde_mvcc::{Packed, ReadAt, let_go};
use isolde_types::sync::Arc;
use isolde_types::sync::atomic::Ordering;
use isolde_types::{LockMode, Span, Ts, mutant};

use super::core::within;
use super::read::Intent;
use super::txn::{Body, SavepointEntry, Seldom};
use super::wait::Wait;
use super::write_set::{BlindOp, MergeOperator, Pending, Write};
use super::{RecordRef, TxnInner};
use crate::error::{ConflictKind, Error, KeyText, MergeError, Result};
use crate::isolation::{WriteCheck, WriteTiming};
use crate::nested::InBody;

/// What a savepoint names: a transaction, and a place in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Savepoint {
    txn: isolde_types::TxnId,
    number: u32,
}

/// How often the operators of one change run at most: a key that is changed each time they do is changed by them.
const MERGES_MAX: usize = 64;

/// What merge operators have made of a change.
struct Merged {
    /// How often the transaction had returned to a savepoint, and which write of the key it was made over.
    returns: u64,
    of: Option<u32>,
    pending: Pending,
    /// The key's new value, where that is installed at once.
    value: Option<Packed>,
}

/// What came of entering a change.
enum Entered {
    Done,
    /// The transaction has returned to a savepoint meanwhile: perhaps the lock is gone.
    Returned,
    /// Operators must run first, over this write of the key, under no latch.
    MergeFirst(Option<(u32, Pending)>),
}

/// Whether an operator runs when a blind change is entered.
fn runs_operator(change: &Pending, earlier: Option<&Pending>, at_once: bool) -> bool {
    match earlier {
        _ if at_once => change.merges() || earlier.is_some_and(Pending::merges),
        Some(Pending::Value(_)) => change.merges(),
        Some(Pending::Blind(_)) | None => false,
    }
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
        self.change(wait, key, Pending::Value(value)).await
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
        let change = Pending::Value(Some(value));
        self.check_change(key, &change)?;
        match self.get_to_write(wait, key).await? {
            Some(_) => Err(Error::AlreadyExists(Box::new(KeyText::new(key, self.core.config.redact)))),
            None => self.change_checked(wait, key, change).await,
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
        let change = Pending::Value(new);
        self.check_change(key, &change)?;
        let current = self.get_to_write(wait, key).await?;
        if current.as_deref() != expected {
            return Ok(Cas::Current(current));
        }
        self.change_checked(wait, key, change).await?;
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
        let after = {
            // It may use the database, and is not to wait there for the lock that it stands under.
            let _inside = InBody::of(self);
            update(before.as_deref())
        };
        self.write(wait, key, after.map(Packed::from)).await?;
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

    /// What every change asks first; nothing has happened when it refuses.
    fn check_change(&self, key: &[u8], change: &Pending) -> Result<()> {
        self.check_write(key)?;
        match change {
            // A delete frees memory: refused, a full database would stay full for ever.
            Pending::Value(None) => return Ok(()),
            Pending::Value(Some(value)) => self.core.check_value(value)?,
            Pending::Blind(_) => {}
        }
        self.core.check_memory()
    }

    /// A change that waits for nothing, since it locks nothing before the commit: it does without the gate. The
    /// body's latch is enough, as whoever ends the transaction closes the gate and then comes for what was written.
    ///
    /// # Errors
    /// Gives the change back where it must go the other way: it locks at once, or runs merge operators.
    pub fn change_unlocked(
        self: &Arc<Self>,
        key: &[u8],
        mut change: Pending,
    ) -> std::result::Result<Result<()>, Pending> {
        if self.policy.writes == WriteTiming::AtOnce {
            return Err(change);
        }
        let checked = self.check_open().and_then(|()| self.check_change(key, &change));
        let outcome = match checked.and_then(|()| self.enter_change(key, None, 0, &mut change, None)) {
            Ok(Entered::Done) => Ok(()),
            Ok(Entered::Returned | Entered::MergeFirst(_)) => return Err(change),
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(()) => self.after_operation(None),
            // None of these ends the transaction: one that has ended was ended, and told of, elsewhere.
            Err(error) => self.remember_retryable(error),
        }
        Ok(outcome)
    }

    pub async fn change(self: &Arc<Self>, wait: &Wait, key: &[u8], change: Pending) -> Result<()> {
        self.check_change(key, &change)?;
        self.change_checked(wait, key, change).await
    }

    /// Enters a change; where writes lock at once, under the lock of its key, and into the record.
    ///
    /// Merge operators run under no latch. What they have made is of no use when the key was changed meanwhile
    /// through another thread; then they run again.
    async fn change_checked(self: &Arc<Self>, wait: &Wait, key: &[u8], mut change: Pending) -> Result<()> {
        let (mut merged, mut rounds) = (None, 0);
        loop {
            let returns = self.returns.load(Ordering::Acquire);
            let record = match self.policy.writes {
                WriteTiming::AtOnce => Some(self.lock_key(wait, key, LockMode::Exclusive, Purpose::Write).await?),
                WriteTiming::AtCommit => None,
            };
            match self.enter_change(key, record.as_ref(), returns, &mut change, merged.take())? {
                Entered::Done => return Ok(()),
                Entered::Returned => {}
                Entered::MergeFirst(_) if rounds == MERGES_MAX => {
                    return Err(Error::Unsupported("a merge operator that changes the very key that it merges"));
                }
                Entered::MergeFirst(earlier) => {
                    rounds += 1;
                    merged = Some(self.merged(key, record.as_ref(), returns, earlier, &change)?);
                }
            }
        }
    }

    /// Enters a change under the body's latch, if nothing is left to be done without it.
    fn enter_change(
        self: &Arc<Self>,
        key: &[u8],
        record: Option<&RecordRef>,
        returns: u64,
        change: &mut Pending,
        merged: Option<Merged>,
    ) -> Result<Entered> {
        // Declared before the latch, and so dropped after it, however this ends: to drop bytes can run code of
        // their owner.
        let (pending, value, displaced);
        let mut body = self.body();
        if record.is_none() {
            self.check_open()?;
        }
        // The commit looks it up: what is far away comes nearer meanwhile.
        let prefetched = record.is_none().then(|| self.core.store.prefetch(key));
        // A return to a savepoint in between may have given the lock back.
        if record.is_some() && self.returns.load(Ordering::Acquire) != returns {
            return Ok(Entered::Returned);
        }
        let earlier = body.writes.get(key);
        let of = earlier.map(|write| write.seq);
        let merges = change.is_blind() && runs_operator(change, earlier.map(|write| &write.pending), record.is_some());
        let made = match merged.filter(|merged| (merged.returns, merged.of) == (returns, of)) {
            _ if !merges => None,
            Some(merged) => Some(merged),
            None => return Ok(Entered::MergeFirst(earlier.map(|write| (write.seq, write.pending.clone())))),
        };
        let redact = self.core.config.redact;
        let change = std::mem::replace(change, Pending::Value(None));
        let (combined, resolved) = match made {
            Some(merged) => (merged.pending, Some(merged.value)),
            None => (Pending::combined(earlier.map(|write| &write.pending), key, change, redact)?, None),
        };
        pending = combined;
        let size = body.writes.bytes() + key.len() + pending.size();
        within("write set", size, self.core.config.limits.write_set_bytes, "max_write_set_bytes")?;
        let Some(record) = record else {
            // Relaxed: read by the commit, which comes after.
            if pending.merges() {
                self.merges.store(true, Ordering::Relaxed);
            }
            displaced = self.put(&mut body, key, pending, None).1;
            drop(prefetched);
            drop(body);
            let_go(displaced);
            return Ok(Entered::Done);
        };
        let keeps_result = pending.merges();
        value = self.value_at_once(&mut body, record, &pending, resolved)?;
        let status = self.status(&mut body);
        let (seq, earlier) = self.put(&mut body, key, pending, Some(record.clone()));
        displaced = earlier;
        if let Some(displaced) = &displaced {
            body.seldom.iter_mut().for_each(|seldom| seldom.merged.remove(displaced.seq));
        }
        if keeps_result {
            body.seldom().merged.insert(seq, value.clone());
        }
        record.0.install(&status, seq, value);
        drop(body);
        let_go(displaced);
        Ok(Entered::Done)
    }

    /// What a change that is installed at once makes of its key.
    fn value_at_once(
        &self,
        body: &mut Body,
        record: &RecordRef,
        pending: &Pending,
        resolved: Option<Option<Packed>>,
    ) -> Result<Option<Packed>> {
        let status = self.status(body);
        if !pending.is_blind() {
            self.check_not_newer(record, self.newest_under_lock(record, Some(&status)))?;
        }
        let value = match resolved {
            Some(value) => value,
            None => {
                // Nobody else commits this key while it is locked, so a blind change is resolved now.
                let base = record.0.read(ReadAt::Newest, Some(&status)).value;
                pending.resolve(record.0.key(), base.as_deref(), self.core.config.redact)?
            }
        };
        self.core.check_value(value.as_deref().unwrap_or_default())?;
        Ok(value)
    }

    /// Runs the merge operators of a change, under no latch.
    fn merged(
        self: &Arc<Self>,
        key: &[u8],
        record: Option<&RecordRef>,
        returns: u64,
        earlier: Option<(u32, Pending)>,
        change: &Pending,
    ) -> Result<Merged> {
        // An operator may use the database, and is not to wait there for the lock that it runs under.
        let _inside = InBody::of(self);
        let redact = self.core.config.redact;
        let of = earlier.as_ref().map(|(seq, _)| *seq);
        let pending = Pending::combined(earlier.as_ref().map(|(_, pending)| pending), key, change.clone(), redact)?;
        let value = match record {
            Some(record) => {
                let base = record.0.read(ReadAt::Newest, self.status_if_any().as_ref()).value;
                pending.resolve(record.0.key(), base.as_deref(), redact)?
            }
            None => None,
        };
        Ok(Merged { returns, of, pending, value })
    }

    /// What a write that is not committed makes of a value; its merge operators run, so under no latch.
    pub fn resolve(self: &Arc<Self>, pending: &Pending, key: &[u8], base: Option<&[u8]>) -> Result<Option<Packed>> {
        let _inside = pending.merges().then(|| InBody::of(self));
        pending.resolve(key, base, self.core.config.redact)
    }

    /// Enters a change into the write set; gives its number, and what it has displaced.
    fn put(&self, body: &mut Body, key: &[u8], pending: Pending, record: Option<RecordRef>) -> (u32, Option<Write>) {
        body.next_seq += 1;
        let seq = body.next_seq;
        let value = match &pending {
            Pending::Value(value) => value.as_ref().map(Packed::bytes),
            Pending::Blind(_) => None,
        };
        self.core.tap.write(self, key, seq, value, pending.is_blind());
        (seq, body.writes.set(key, Write { pending, seq, record }))
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
        let (undo, seq) = (body.writes.mark(), body.next_seq);
        let Seldom { savepoints, next_savepoint: number, .. } = body.seldom();
        *number += 1;
        let number = *number;
        savepoints.push(SavepointEntry { number, undo, seq, locks });
        Savepoint { txn: self.id(), number }
    }

    /// Undoes the writes since the savepoint, and gives back the locks that they took. What was
    /// read stays read.
    pub fn rollback_to(self: &Arc<Self>, savepoint: Savepoint) -> Result<()> {
        let owner = self.owner_for(savepoint)?;
        let mut body = self.body();
        let savepoints = &mut body.seldom().savepoints;
        let at = savepoints.iter().position(|entry| entry.number == savepoint.number);
        let at = at.filter(|_| savepoint.txn == self.id()).ok_or(Error::SavepointGone)?;
        savepoints.truncate(at + 1);
        let SavepointEntry { undo, seq, ref locks, .. } = savepoints[at];
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
        let Body { writes, placeholders, seldom, .. } = body;
        let merged = &mut seldom.get_or_insert_default().merged;
        let mut failed = None;
        let gone = writes.rollback_to(mark, |key, after, before| {
            merged.remove(after.seq);
            let Some(record) = &after.record else { return };
            match (before, &status) {
                (None, status) => {
                    status.iter().for_each(|status| record.0.withdraw(status));
                    // Also one that a commit has made which could not be done at once.
                    placeholders.push(record.clone());
                }
                (Some(_), None) => {}
                (Some(before), Some(status)) => {
                    let base = record.0.read(ReadAt::Newest, Some(status)).value;
                    let resolve = || before.pending.resolve(key, base.as_deref(), redact);
                    match merged.get(before.seq).cloned().map_or_else(resolve, Ok) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Db, Mode};

    /// The write set of a commit that waits for its locks stays as it is.
    #[test]
    fn what_comes_after_the_end_is_not_entered() {
        let db = Db::builder().in_memory().open().unwrap();
        let txn = db.begin().unwrap();
        txn.put("a", "1").unwrap();
        let inner = txn.inner();
        inner.begin_ending().unwrap();
        let mut late = Pending::increment(1);
        assert!(matches!(inner.enter_change(b"b", None, 0, &mut late, None), Err(Error::TransactionEnded)));
        assert!(matches!(inner.change_unlocked(b"b", late), Ok(Err(Error::TransactionEnded))));
        assert_eq!(inner.body().writes.len(), 1);
    }

    /// What operators have made of a key is kept once, not once for each merge of a transaction.
    #[test]
    fn results_of_merges_go_with_the_writes_that_they_belong_to() {
        let append = |old: Option<&[u8]>, new: &[u8]| Ok([old.unwrap_or_default(), new].concat());
        let db = Db::builder().in_memory().merge_operator("append", append).open().unwrap();
        let txn = db.txn().mode(Mode::Pessimistic).begin().unwrap();
        let kept = || txn.inner().body().seldom().merged.len();
        (0..100).for_each(|_| txn.merge("append", "log", "x").unwrap());
        assert_eq!(kept(), 1);
        let savepoint = txn.savepoint();
        (0..100).for_each(|_| txn.merge("append", "log", "y").unwrap());
        txn.rollback_to(savepoint).unwrap();
        assert_eq!(kept(), 1, "and none of what was taken back");
        txn.merge("append", "log", "z").unwrap();
        txn.put("log", "new").unwrap();
        txn.merge("append", "log", "!").unwrap();
        txn.commit().unwrap();
        assert_eq!(db.get("log").unwrap().as_deref(), Some(&b"new!"[..]));
    }
}
