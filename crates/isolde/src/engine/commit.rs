//! The commit, step for step.
//!
//! ```text
//! 1 lock      X-lock the write set, in key order (pessimistic: held already); a small one briefly
//! 2 install   resolve blind changes; the writes stand in their records as in-flight versions
//! 3 order     commit_ts = next, and the status says so before the sequencer is left
//! 4 certify   does what the policy asks still hold at commit_ts?
//! 5 finalize  the status flips to committed: all versions at once; visible_ts moves over the
//!             finished prefix
//! 6 release   locks go, waiters wake, in queue order
//! 7 harden    wait until visible_ts has reached commit_ts, and for the log as the durability asks;
//!             then, and only then, acknowledge
//! ```
//!
//! Before step 1 a durable database admits the commit: there is space for its record in the log. The
//! record is encoded in step 2 and belongs to the sequencer from step 3 on.
//!
//! Steps 2 to 6 are one function without an await: a commit can be pending only while it drains,
//! in step 1 and in step 7. Dropped before step 2 it rolls back; dropped in step 7 it is committed.
//! A transaction with nothing left to certify does 3 and 5 in one visit to the sequencer; if it writes one key,
//! from within one visit to that key's record, in which its version is never in flight.
//!
//! A transaction that has no lock yet needs none but those of step 1, and these only from step 2 to step 5:
//! steps that wait for no lock and run no code of the user. So it takes them briefly where they are free,
//! without a lock owner ([`Brief`](isolde_locks::Brief)). A merge operator is such code, and many keys are
//! many steps: then, and where somebody else has a lock, it goes the long way.

use isolde_locks::{Handles, Owner, Purpose};
use isolde_mvcc::{Outcome, Packed, ReadAt, Status, Wakers, hold_back, let_go};
use isolde_types::sync::atomic::Ordering;
use isolde_types::sync::{Arc, BriefGuard};
use isolde_types::{Key, LockMode, LogBody, Ts, mutant};
use isolde_wal::{BodyWriter, Reservation};

use super::certify::{Lost, ReadSet};
use super::durable::Durability;
use super::inside::GiveUpOnDrop;
use super::locking::WriteRecords;
use super::merge_results::MergeResults;
use super::txn::{Body, Held};
use super::wait::Wait;
use super::write_set::Pending;
use super::{RecordRef, TxnInner};
use crate::error::{Error, Result, Wound};
use crate::isolation::{WriteCheck, WriteTiming};

/// More bytes of log than of keys and values, for a few keys.
const ROOM: usize = 16;

/// How many keys a commit may lock briefly: whoever meets one of them spins.
const BRIEFLY: usize = 16;
/// How many bytes of keys and values such a commit may write: they are copied for the log meanwhile.
const BRIEF_BYTES: usize = 16 << 10;
/// How many reads such a commit may have to certify, of keys that it writes. Others would be certified after the order,
/// where one that is ordered and undecided is waited for; a span, moreover, may be of any size.
const BRIEF_READS: usize = 64;

/// A commit that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Commit {
    /// The place in the commit order; for a transaction that wrote nothing, the state that it is
    /// known to be visible with.
    pub ts: Ts,
    /// Which opening of the database this was; a durable one counts them. A commit that a crash has
    /// taken may leave its `ts` to another, but never in the same epoch. 0 in memory.
    pub epoch: u64,
}

impl TxnInner {
    /// Commits; see the module.
    pub async fn commit(self: &Arc<Self>, wait: &Wait) -> Result<Commit> {
        match self.commit_at_once() {
            Ok(outcome) => outcome,
            Err(rest) => self.commit_rest(wait, rest).await,
        }
    }

    /// The long way.
    pub(super) async fn commit_untold(self: &Arc<Self>, wait: &Wait) -> Result<Commit> {
        self.begin_ending()?;
        let guard = GiveUpOnDrop(self);
        self.drained(wait).await?;
        let ts = match self.decide_at_once(guard)? {
            AtOnce::Ended(commit) => {
                self.harden_reads(wait).await?;
                return Ok(commit);
            }
            AtOnce::Decided(ts) => ts,
            AtOnce::MustWait(guard, reservation, records) => {
                self.lock_write_set(wait, records).await?;
                let merged = self.merge_write_set();
                self.or_give_up(guard, || {
                    self.decides()?;
                    self.decide(reservation, self.body(), merged)
                })?
            }
        };
        self.acknowledged(wait, ts).await
    }

    /// Step 7.
    pub(super) async fn acknowledged(&self, wait: &Wait, ts: Ts) -> Result<Commit> {
        self.visible(wait, ts).await;
        self.harden(wait, ts).await?;
        Ok(self.committed(ts))
    }

    /// What is acknowledged, when a recorder was told.
    pub(super) fn committed(&self, ts: Ts) -> Commit {
        if self.core.tap.is_open() {
            let resolved = std::mem::take(&mut self.body().seldom().resolved);
            self.core.tap.commit(self, Some(ts), resolved);
        }
        self.as_commit(ts)
    }

    /// It is serial where it read: nothing to lock, order or certify.
    fn end_without_writes(&self) -> Commit {
        let ts = if self.policy.has_snapshot() { self.read_ts() } else { self.core.timeline.visible() };
        self.core.tap.commit(self, None, Vec::new());
        let Held { owner, placeholders, views, .. } = self.take_held();
        self.end_views(views);
        self.give_back(owner, &placeholders);
        self.as_commit(ts)
    }

    fn as_commit(&self, ts: Ts) -> Commit {
        Commit { ts, epoch: self.core.disk.as_ref().map_or(0, |disk| disk.log.epoch()) }
    }

    /// The whole of it, where nothing has to be waited for.
    fn decide_at_once<'t>(self: &'t Arc<Self>, guard: GiveUpOnDrop<'t>) -> Result<AtOnce<'t>> {
        let mut body = self.body();
        if body.writes.is_empty() && !body.reads.marked {
            drop(body);
            self.decides()?;
            std::mem::forget(guard);
            return Ok(AtOnce::Ended(self.end_without_writes()));
        }
        let reservation = match &self.core.disk {
            None => None,
            Some(disk) => {
                let bound = log_bound(&body);
                drop(body);
                let reservation = self.admit(disk, bound)?;
                body = self.body();
                Some(reservation)
            }
        };
        let records = self.records(&body);
        match self.lock_records(&body, records) {
            Ok(locked) => {
                body.locked = locked;
                let nothing = Ok(MergeResults::default());
                let decide = || {
                    self.decides()?;
                    self.decide(reservation, body, nothing)
                };
                Ok(AtOnce::Decided(self.or_give_up(guard, decide)?))
            }
            Err(records) => {
                // Before they are waited for, so that whoever rolls back finds those that were made for it.
                body.writes.set_records(&records);
                drop(body);
                Ok(AtOnce::MustWait(guard, reservation, records))
            }
        }
    }

    /// Steps 2 to 6; if they fail, the transaction is rolled back. Code of others runs when the locks are back:
    /// wakers, and the owners of bytes that are dropped.
    pub(super) fn or_give_up(
        &self,
        guard: GiveUpOnDrop<'_>,
        decide: impl FnOnce() -> Result<Ts, Undone>,
    ) -> Result<Ts> {
        let _foreign = hold_back();
        // Moved here to be dropped before what is held back, on unwinding too.
        let guard = guard;
        match decide() {
            Ok(ts) => {
                std::mem::forget(guard);
                Ok(ts)
            }
            Err(Undone { error, wakers, reads }) => {
                drop(guard);
                drop(wakers);
                let_go(reads);
                Err(error)
            }
        }
    }

    /// Locks the records of the write set if that can be done at once; pessimistic ones are locked already.
    pub(super) fn lock_records(
        &self,
        body: &Body,
        records: Handles<RecordRef>,
    ) -> std::result::Result<WriteRecords, Handles<RecordRef>> {
        if self.policy.writes == WriteTiming::AtOnce || super::write::unlocked_optimistic_commit() {
            return Ok(WriteRecords::Held(records));
        }
        // A failed log refuses: that is said on the long way.
        if !self.may_lock_briefly(body) || self.writable().is_err() {
            return Err(records);
        }
        self.core.locks.try_brief(records).map(WriteRecords::Brief)
    }

    /// Step 1 the long way: with an owner, in the queue of each lock.
    async fn lock_write_set(self: &Arc<Self>, wait: &Wait, mut records: Handles<RecordRef>) -> Result<()> {
        let owner = self.owner();
        for record in &mut records {
            let wanted = record.clone();
            let locked = self.lock_record(&owner, wait, wanted, LockMode::Exclusive, Purpose::Write).await?;
            if !Arc::ptr_eq(&locked.0, &record.0) {
                self.body().writes.set_record(&locked);
                *record = locked;
            }
        }
        self.body().locked = WriteRecords::Held(records);
        Ok(())
    }

    /// The records of the write set, in key order, made where there are none.
    pub(super) fn records(&self, body: &Body) -> Handles<RecordRef> {
        let create = |key: &[u8]| RecordRef(self.core.store.find_or_create(key));
        let writes = body.writes.iter();
        writes.map(|(key, write)| write.record.clone().unwrap_or_else(|| create(key))).collect()
    }

    /// Whether its commit needs no owner, and is short: whoever meets one of its locks spins until it is over.
    pub(super) fn may_lock_briefly(&self, body: &Body) -> bool {
        let most = BRIEFLY.min(self.core.config.limits.locks);
        body.owner.is_none()
            && body.writes.len() <= most
            && body.writes.bytes() <= BRIEF_BYTES
            && body.reads.is_covered(BRIEF_READS, |key| body.writes.get(key).is_some())
            && !body.writes.iter().any(|(_, write)| write.pending.merges())
    }

    /// Steps 2 to 6, after the gate has let it decide: no await, no lock is waited for, and nobody sees half of it.
    pub(super) fn decide(
        self: &Arc<Self>,
        reservation: Option<Reservation<'_>>,
        mut body: BriefGuard<'_, Body>,
        merged: Result<MergeResults>,
    ) -> Result<Ts, Undone> {
        self.check_writes(&mut body)?;
        let merged = merged?;
        if !merged.is_empty() {
            body.seldom().merged.append(merged);
        }
        if mutant!("publish-before-installed") {
            let status = self.status(&mut body);
            let (ts, wakers) = self.core.timeline.commit_at_once(&status, None);
            wakers.wake();
            self.install(&mut body, &status, None)?;
            let held = body.take_held();
            drop(body);
            return Ok(self.after_flip(ts, held, WakeOnDrop::default()));
        }
        if self.policy.writes == WriteTiming::AtCommit && body.locked.len() == 1 && body.reads.is_empty() {
            return self.decide_in_one_visit(reservation, body);
        }
        let status = self.status(&mut body);
        let mut encoder = encoder(reservation.as_ref(), &body);
        self.install(&mut body, &status, encoder.as_mut())?;
        let (reservation, record) = self.cannot_fail_any_more(&mut body, reservation, encoder)?;
        let reads = std::mem::take(&mut body.reads);
        drop(body);
        let (ts, wakers) = match self.order_and_certify(&status, &reads, record) {
            Ok(ordered) => ordered,
            Err(undone) => return Err(Undone { reads, ..undone }),
        };
        reservation.into_iter().for_each(Reservation::placed);
        self.after_flip(ts, self.take_held(), wakers);
        let_go(reads);
        Ok(ts)
    }

    /// The same for one key, with nothing to certify: the version is never in flight.
    fn decide_in_one_visit(
        &self,
        reservation: Option<Reservation<'_>>,
        mut body: BriefGuard<'_, Body>,
    ) -> Result<Ts, Undone> {
        let mut encoder = encoder(reservation.as_ref(), &body);
        let mut value = None;
        self.resolve_writes(&mut body, None, encoder.as_mut(), |_, _, resolved| value = resolved)?;
        let (reservation, mut log_body) = self.cannot_fail_any_more(&mut body, reservation, encoder)?;
        // Its own view goes first: it would only hold back what the visit collects.
        self.end_views(body.take_views());
        let (timeline, views) = (&self.core.timeline, &self.core.views);
        let [record] = &body.locked[..] else { unreachable!("one key is written, and locked (I4)") };
        let (ts, wakers, settled) = record.0.commit(value, timeline, &mut log_body, || views.cached_live(timeline));
        let wakers = WakeOnDrop(wakers);
        let held = body.take_held();
        drop(body);
        self.remember(ts);
        reservation.into_iter().for_each(Reservation::placed);
        log_body.into_iter().for_each(BodyWriter::recycle);
        let records = held.locked.release();
        if settled.leaves_garbage {
            records.into_iter().for_each(|record| self.settle_later(record));
        }
        self.give_back(held.owner, &held.placeholders);
        self.wake_and_sweep(wakers, ts, 1);
        Ok(ts)
    }

    /// The end of step 2: the record for the log, the space that it needs there, and no wound from here on.
    fn cannot_fail_any_more<'t>(
        &'t self,
        body: &mut Body,
        reservation: Option<Reservation<'t>>,
        encoder: Option<BodyWriter>,
    ) -> Result<(Option<Reservation<'t>>, Option<LogBody>)> {
        let mut record = encoder.map(BodyWriter::finish);
        let reservation = self.fitting(reservation, record.as_mut())?;
        protect(self, body.owner.as_deref())?;
        if mutant!("release-before-flip") {
            body.locked = WriteRecords::Held(std::mem::take(&mut body.locked).release());
            body.owner.iter().for_each(|owner| self.core.locks.release_all(owner));
        }
        Ok((reservation, record))
    }

    /// Runs the merge operators of a write set that is installed now, under no latch: they are code of the user.
    /// Gives what they made, by the number of the write.
    fn merge_write_set(self: &Arc<Self>) -> Result<MergeResults> {
        if !self.merges.load(Ordering::Relaxed) {
            return Ok(MergeResults::default());
        }
        let merges: Vec<(RecordRef, Pending, u32)> = {
            let body = self.body();
            let writes = body.writes.iter().zip(body.locked.iter()).filter(|((_, write), _)| write.pending.merges());
            writes.map(|((_, write), record)| (record.clone(), write.pending.clone(), write.seq)).collect()
        };
        let resolve = |(record, pending, seq): (RecordRef, Pending, u32)| {
            let base = record.0.read(ReadAt::Newest, None).value;
            Ok((seq, self.resolve(&pending, record.0.key(), base.as_deref())?))
        };
        merges.into_iter().map(resolve).collect()
    }

    /// Step 2, first half: what can be known before the commit timestamp.
    fn check_writes(&self, body: &mut Body) -> Result<()> {
        let own = body.status_if_any();
        let own = own.as_ref();
        let Body { writes, reads, locked, .. } = body;
        if self.policy.write_check == WriteCheck::NotNewerThanSnapshot {
            let records = writes.iter().zip(locked.iter());
            for (_, record) in records.filter(|((_, write), _)| !write.pending.is_blind() || reads.read_anything) {
                self.check_not_newer(record, self.newest_under_lock(record, own))?;
            }
        }
        let early = mutant!("certify-before-ordering") && !reads.is_empty();
        if early {
            reads.certify(&self.core, Ts::MAX, own).map_err(|lost| self.lost(lost))?;
            *reads = ReadSet::default();
            return Ok(());
        }
        if mutant!("skip-point-certification") || super::write::unlocked_optimistic_commit() {
            return Ok(());
        }
        // Whoever reads and writes a key has it locked: one look now is enough.
        reads.certify_covered(&self.core, own, |key| writes.get(key).is_some()).map_err(|lost| self.lost(lost))
    }

    /// Step 2, second half: every write becomes an in-flight version of its record.
    fn install(&self, body: &mut Body, status: &Arc<Status>, encoder: Option<&mut BodyWriter>) -> Result<()> {
        let at_commit = self.policy.writes == WriteTiming::AtCommit;
        self.resolve_writes(body, Some(status), encoder, |record, seq, value| {
            if at_commit {
                record.0.install(status, seq, value);
            }
        })
    }

    /// Tells what every write comes to, and writes it down for the log and a recorder.
    fn resolve_writes(
        &self,
        body: &mut Body,
        own: Option<&Arc<Status>>,
        mut encoder: Option<&mut BodyWriter>,
        mut tell: impl FnMut(&RecordRef, u32, Option<Packed>),
    ) -> Result<()> {
        let redact = self.core.config.redact;
        let Body { writes, locked, seldom, .. } = body;
        for ((key, write), record) in writes.iter_mut().zip(locked.iter()) {
            let blind = write.pending.is_blind();
            let merged = seldom.as_ref().filter(|_| blind).and_then(|seldom| seldom.merged.get(write.seq));
            let value = match merged {
                Some(value) => value.clone(),
                None => {
                    let base = if blind { record.0.read(ReadAt::Newest, own).value } else { None };
                    write.pending.take(key, base.as_deref(), redact)?
                }
            };
            self.core.check_value(value.as_deref().unwrap_or_default())?;
            if let (true, true, Some(value)) = (write.pending.is_blind(), self.core.tap.is_open(), &value) {
                seldom.get_or_insert_default().resolved.push((Key::copy_from_slice(key), value.bytes().clone()));
            }
            if let Some(encoder) = &mut encoder {
                encoder.push(key, value.as_deref());
            }
            tell(record, write.seq, value);
        }
        Ok(())
    }

    /// Steps 3 to 5.
    fn order_and_certify(
        self: &Arc<Self>,
        status: &Arc<Status>,
        reads: &ReadSet,
        record: Option<LogBody>,
    ) -> Result<(Ts, WakeOnDrop), Undone> {
        let timeline = &self.core.timeline;
        if reads.is_empty() {
            let (ts, wakers) = timeline.commit_at_once(status, record);
            return Ok((ts, WakeOnDrop(wakers)));
        }
        let ts = timeline.order(status, record);
        let guard = AbortOrdered { txn: self, status };
        let certified = reads.certify(&self.core, ts, Some(status));
        std::mem::forget(guard);
        match certified {
            Ok(()) => Ok((ts, WakeOnDrop(timeline.finalize(status, Outcome::Committed)))),
            Err(lost) => {
                let wakers = WakeOnDrop(timeline.finalize(status, Outcome::Aborted));
                Err(Undone { error: self.lost(lost), wakers, reads: ReadSet::default() })
            }
        }
    }

    /// Says in the record what the log must know. A merge may have come to more than was thought: then more space is
    /// reserved, before the order.
    fn fitting<'t>(
        &'t self,
        reservation: Option<Reservation<'t>>,
        record: Option<&mut LogBody>,
    ) -> Result<Option<Reservation<'t>>> {
        match (reservation, record, &self.core.disk) {
            (Some(reservation), Some(record), Some(disk)) => {
                record.at_once = self.durability == Durability::None;
                Ok(Some(disk.log.fit(reservation, record)?))
            }
            (reservation, ..) => Ok(reservation),
        }
    }

    fn lost(&self, lost: Lost) -> Error {
        self.conflict(lost.kind, &lost.key, lost.span.as_ref(), lost.as_of, lost.latest)
    }

    /// Step 6, and what is left to tidy: stamp the versions, drop those that nobody can see.
    fn after_flip(&self, ts: Ts, held: Held, wakers: WakeOnDrop) -> Ts {
        let Held { owner, locked, placeholders, views } = held;
        // Its own view goes first: it needs no version any more, and would only hold back collection.
        self.end_views(views);
        let live = self.core.views.cached_live(&self.core.timeline);
        // Settled while they are locked briefly: the next one to have the lock would meet this thread at the
        // record's latch, and to wait there is to give the time slice away to all those who spin for the lock.
        for record in locked.iter() {
            if record.0.settle(&live).leaves_garbage {
                self.core.store.note_garbage(Arc::clone(&record.0));
            }
        }
        self.remember(ts);
        let written = locked.len();
        drop(locked);
        self.give_back(owner, &placeholders);
        self.wake_and_sweep(wakers, ts, written);
        ts
    }

    /// Before the locks go: whoever loses against this commit is told its name.
    fn remember(&self, ts: Ts) {
        self.core.recent.remember(ts, self.known_id(), self.label.as_ref());
    }

    /// Others are woken when the locks are back, and before time is spent on what is nobody's concern.
    fn wake_and_sweep(&self, wakers: WakeOnDrop, ts: Ts, written: usize) {
        drop(wakers);
        self.core.after_commit(ts, written);
    }

    /// Gives back locks and registration; nothing is left to roll back.
    fn give_back(&self, owner: Option<Arc<Owner<RecordRef>>>, placeholders: &[RecordRef]) {
        self.finish();
        self.release(owner, placeholders);
        self.deregister(|counts| counts.committed += 1);
    }
}

fn encoder(reservation: Option<&Reservation<'_>>, body: &Body) -> Option<BodyWriter> {
    reservation.map(|_| BodyWriter::with_capacity(body.writes.bytes() + ROOM))
}

/// From here on nobody can wound this transaction: it is about to take its commit timestamp.
fn protect(txn: &TxnInner, owner: Option<&Owner<RecordRef>>) -> Result<()> {
    match owner.map(Owner::protect) {
        Some(Err(by)) => Err(Error::Wounded(Box::new(Wound { me: txn.summary(), by }))),
        Some(Ok(())) | None => Ok(()),
    }
}

/// At most how many bytes of log the write set takes.
pub(super) fn log_bound(body: &Body) -> usize {
    body.writes.iter().map(|(key, write)| BodyWriter::bound(key.len(), write.pending.size_bound())).sum()
}

/// What came of a commit that is to wait for no lock.
enum AtOnce<'t> {
    /// It had written and marked nothing.
    Ended(Commit),
    Decided(Ts),
    /// The records of its write set must be waited for.
    MustWait(GiveUpOnDrop<'t>, Option<Reservation<'t>>, Handles<RecordRef>),
}

/// A commit that failed in steps 2 to 6, with those who waited for its place in the order, and with what it had
/// read: spans hold bytes of the caller's.
pub(super) struct Undone {
    error: Error,
    wakers: WakeOnDrop,
    reads: ReadSet,
}

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        Undone { error, wakers: WakeOnDrop::default(), reads: ReadSet::default() }
    }
}

/// Whatever happens on the way, nobody sleeps on.
#[derive(Default)]
struct WakeOnDrop(Wakers);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).wake();
    }
}

/// If certification unwinds, the order must not be left with an open end.
struct AbortOrdered<'t> {
    txn: &'t TxnInner,
    status: &'t Arc<Status>,
}

impl Drop for AbortOrdered<'_> {
    fn drop(&mut self) {
        let wakers = self.txn.core.timeline.finalize(self.status, Outcome::Aborted);
        // The status has flipped (I4), and wakers are code of others.
        let mut body = self.txn.body();
        let records = std::mem::take(&mut body.locked).release();
        body.writes.set_records(&records);
        drop(body);
        wakers.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Db, Txn, prefix};

    /// What others spin for is short, whatever the transaction has done before.
    #[test]
    fn only_a_short_commit_locks_briefly() {
        let db = Db::builder().in_memory().merge_operator("keep", |_, new| Ok(new.to_vec())).open().unwrap();
        db.put("a", "0").unwrap();
        let briefly = |body: &dyn Fn(&Txn)| {
            let txn = db.begin().unwrap();
            body(&txn);
            let inner = txn.inner();
            let brief = inner.may_lock_briefly(&inner.body());
            txn.commit().unwrap();
            brief
        };
        let puts = |txn: &Txn, keys: usize| (0..keys).for_each(|n| txn.put(n.to_be_bytes(), "1").unwrap());
        let gets = |txn: &Txn, keys: usize| (0..keys).for_each(|n| drop(txn.get(n.to_be_bytes()).unwrap()));
        assert!(briefly(&|txn| puts(txn, BRIEFLY)));
        assert!(!briefly(&|txn| puts(txn, BRIEFLY + 1)));
        assert!(!briefly(&|txn| txn.put("a", vec![0; BRIEF_BYTES]).unwrap()));
        assert!(briefly(&|txn| (gets(txn, BRIEFLY), puts(txn, BRIEFLY)).1));
        assert!(!briefly(&|txn| (gets(txn, 2), puts(txn, 1)).1), "what it does not write is certified after the order");
        assert!(!briefly(&|txn| ((0..=BRIEF_READS).for_each(|_| gets(txn, 1)), puts(txn, 1)).1));
        assert!(!briefly(&|txn| (drop(txn.scan(prefix("none")).next()), puts(txn, 1)).1));
        assert!(briefly(&|txn| txn.increment("count", 1).unwrap()));
        assert!(!briefly(&|txn| txn.merge("keep", "a", "").unwrap()));
    }
}
