//! A transaction: its gate, its view, what it read and wrote, and how it is rolled back.

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use isolde_locks::{LockMark, OnWound, Owner, OwnerSpec, Purpose};
use isolde_mvcc::{Exposure, OpenView, Status, View, let_go};
use isolde_types::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use isolde_types::sync::{Arc, BriefGuard, BriefMutex, Mutex, Weak};
use isolde_types::{Isolation, Key, LockMode, Mode, Ts, TxnId, mutant};

use super::certify::ReadSet;
use super::durable::Durability;
use super::gate::{Duty, Gate};
use super::inside::{Inside, LeaveOnDrop, RollbackOnDrop};
use super::locking::WriteRecords;
use super::merge_results::MergeResults;
use super::registry::PlaceCell;
use super::wait::{Cause, Wait};
use super::write_set::WriteSet;
use super::{CoreRef, RecordRef};
use crate::error::{Error, Result, TxnSummary, Wound};
use crate::isolation::{Access, Policy, WriteTiming};

/// How a transaction is to be begun.
#[derive(Clone)]
pub(crate) struct Begin {
    pub isolation: Isolation,
    pub mode: Mode,
    pub access: Access,
    pub label: Option<Arc<str>>,
    pub lock_timeout: Option<Duration>,
    /// What its commit is to survive.
    pub durability: Durability,
    /// The age of the first attempt, kept over retries.
    pub age: Option<u64>,
    /// A key that an earlier attempt lost on: locked before the snapshot is taken.
    pub lock_first: Option<Key>,
}

/// Why a transaction ended that its caller did not end.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum EndedBy {
    Caller = 0,
    Wound = 1,
    Age = 2,
}

/// What a transaction has done so far; behind its latch.
#[derive(Default)]
pub(crate) struct Body {
    pub writes: WriteSet,
    pub reads: ReadSet,
    pub next_seq: u32,
    /// Records that were locked while they had no version: collected once they are unlocked.
    pub placeholders: Vec<RecordRef>,
    /// It was rolled back: its versions are withdrawn, its owner was taken.
    pub undone: bool,
    pub owner: Option<Arc<Owner<RecordRef>>>,
    /// The records of the write set, while its commit runs.
    pub locked: WriteRecords,
    /// The record that its commit wrote, where what was replaced there stays until the commit is durable.
    pub unsettled: Option<RecordRef>,
    status: Option<Arc<Status>>,
    view: Option<OpenView>,
    pub seldom: Option<Box<Seldom>>,
}

/// What most transactions do without.
#[derive(Default)]
pub(crate) struct Seldom {
    pub savepoints: Vec<SavepointEntry>,
    pub next_savepoint: u32,
    /// What merges came to, by the number of their write: operators never run under the latch.
    pub merged: MergeResults,
    /// What increments and merges came to, for a recorder.
    pub resolved: Vec<(Key, bytes::Bytes)>,
    /// Registered by the first marked read of a transaction without snapshot, so that what
    /// certification needs is not collected.
    pub marks_view: Option<View>,
}

impl Body {
    /// What most transactions do without, made if there is none.
    pub fn seldom(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }

    /// Takes out what a transaction that is done gives back.
    pub fn take_held(&mut self) -> Held {
        Held {
            owner: self.owner.take(),
            locked: std::mem::take(&mut self.locked),
            placeholders: std::mem::take(&mut self.placeholders),
            views: self.take_views(),
        }
    }

    /// Takes out the registered views, for [`TxnInner::end_views`].
    pub fn take_views(&mut self) -> (Option<OpenView>, Option<View>) {
        (self.view.take(), self.seldom.as_mut().and_then(|seldom| seldom.marks_view.take()))
    }

    /// The status of the versions that stand in records, if there are any.
    pub fn status_if_any(&self) -> Option<Arc<Status>> {
        self.status.clone()
    }
}

/// What a transaction holds until it is done.
pub(crate) struct Held {
    pub owner: Option<Arc<Owner<RecordRef>>>,
    pub locked: WriteRecords,
    pub placeholders: Vec<RecordRef>,
    pub views: (Option<OpenView>, Option<View>),
}

/// A place in a transaction to return to.
pub(crate) struct SavepointEntry {
    pub number: u32,
    pub undo: usize,
    pub seq: u32,
    pub locks: Option<Arc<LockMark>>,
}

/// See the module.
pub(crate) struct TxnInner {
    pub core: CoreRef,
    pub policy: Policy,
    pub isolation: Isolation,
    pub mode: Mode,
    pub label: Option<Arc<str>>,
    pub lock_timeout: Option<Duration>,
    pub durability: Durability,
    /// Before the first read, everything up to here must be durable; zero: nothing.
    pub hard_first: AtomicU64,
    /// The newest commit that a read outside the snapshot has shown.
    pub seen: AtomicU64,
    access: Access,
    pub(super) gate: Gate,
    id: AtomicU64,
    age: Option<u64>,
    read_ts: AtomicU64,
    /// When it began, if snapshots have an age limit.
    began: Option<Duration>,
    ended_by: AtomicU8,
    wounded_by: AtomicU64,
    place: PlaceCell,
    /// The last operation's error, if it was a retryable one: a body may wrap it in its own type.
    retryable: Mutex<Option<Error>>,
    has_retryable: AtomicBool,
    /// How often it returned to a savepoint; changes under the body's latch.
    pub returns: AtomicU64,
    /// Whether merges stand in the write set that are left to the commit.
    pub merges: AtomicBool,
    body: BriefMutex<Body>,
}

impl TxnInner {
    /// A transaction, registered; with a view, if it is to read one from the start.
    pub(super) fn new(core: &CoreRef, begin: &Begin) -> Result<Arc<TxnInner>> {
        if core.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let policy = Policy::of(begin.isolation, begin.mode, begin.access);
        // Before the view, which nobody would close if the clock panicked: it is the user's.
        let began = core.config.limits.snapshot_age.map(|_| core.config.clock.now());
        let at_once = policy.has_snapshot() && begin.lock_first.is_none();
        let view = at_once.then(|| core.snapshot_view(begin.access, begin.durability));
        let (view, hard_first) = view.map_or((None, Ts::ZERO), |(view, hard_first)| (Some(view), hard_first));
        let txn = Arc::new(TxnInner {
            core: core.clone(),
            policy,
            isolation: begin.isolation,
            mode: begin.mode,
            label: begin.label.clone(),
            lock_timeout: begin.lock_timeout.or(core.config.lock_timeout),
            durability: begin.durability,
            hard_first: AtomicU64::new(hard_first.0),
            seen: AtomicU64::new(0),
            access: begin.access,
            gate: Gate::default(),
            id: AtomicU64::new(0),
            age: begin.age,
            read_ts: AtomicU64::new(view.as_ref().map_or(0, |view| view.ts().0)),
            began,
            ended_by: AtomicU8::new(EndedBy::Caller as u8),
            wounded_by: AtomicU64::new(0),
            place: PlaceCell::default(),
            retryable: Mutex::new(None),
            has_retryable: AtomicBool::new(false),
            returns: AtomicU64::new(0),
            merges: AtomicBool::new(false),
            body: BriefMutex::new(Body { view, ..Body::default() }),
        });
        core.registry.enter(Arc::downgrade(&txn), &txn.place);
        core.tap.begin(&txn);
        // Whoever closes looks for the active ones after it has said so: one of the two sees the other.
        if core.closed.load(Ordering::Acquire) {
            txn.roll_back();
            return Err(Error::Closed);
        }
        Ok(txn)
    }

    /// Begins. Never waits, unless an earlier attempt lost on a key: then the lock on that key.
    pub async fn begin(core: &CoreRef, wait: &Wait, begin: &Begin) -> Result<Arc<TxnInner>> {
        let Some(key) = &begin.lock_first else { return TxnInner::begin_at_once(core, begin) };
        let txn = TxnInner::new(core, begin)?;
        let guard = RollbackOnDrop(&txn);
        // Inside the gate, like any operation: it may be wounded while it waits.
        txn.inside(txn.lock_key(wait, key, LockMode::Exclusive, Purpose::Read)).run().await?;
        std::mem::forget(guard);
        // A recorder is told of the begin before the view is taken, and what others did meanwhile is seen.
        txn.open_view();
        Ok(txn)
    }

    /// Takes the snapshot, where the policy reads one, in place of an earlier one.
    pub(super) fn open_view(&self) {
        if self.policy.has_snapshot() {
            let (view, hard_first) = self.core.snapshot_view(self.access, self.durability);
            // Relaxed: written before the transaction is handed to anyone.
            self.hard_first.store(hard_first.0, Ordering::Relaxed);
            self.read_ts.store(view.ts().0, Ordering::Relaxed);
            let earlier = self.body.lock().view.replace(view);
            self.end_views((earlier, None));
        }
    }

    /// Ends what was registered so that its versions stay.
    pub fn end_views(&self, (snapshot, _marks): (Option<OpenView>, Option<View>)) {
        if let Some(view) = snapshot {
            self.core.views.close(view);
        }
    }

    /// The snapshot's time; zero where the policy reads none.
    pub fn read_ts(&self) -> Ts {
        Ts(self.read_ts.load(Ordering::Relaxed))
    }

    /// The identity, given at the first need of one.
    pub fn id(&self) -> TxnId {
        // Relaxed: the number says nothing about other memory.
        match self.id.load(Ordering::Relaxed) {
            0 => {
                let fresh = self.core.next_id().0;
                match self.id.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => TxnId(fresh),
                    Err(earlier) => TxnId(earlier),
                }
            }
            id => TxnId(id),
        }
    }

    /// The identity, if one was given.
    pub fn known_id(&self) -> Option<TxnId> {
        Some(self.id.load(Ordering::Relaxed)).filter(|id| *id != 0).map(TxnId)
    }

    pub fn age(&self) -> u64 {
        self.age.unwrap_or_else(|| self.id().0)
    }

    pub fn summary(&self) -> TxnSummary {
        TxnSummary { id: Some(self.id()), label: self.label.clone() }
    }

    pub fn is_read_only(&self) -> bool {
        self.access == Access::ReadOnly
    }

    pub fn refuse_read_only(&self) -> Result<()> {
        if self.is_read_only() { Err(Error::ReadOnly) } else { Ok(()) }
    }

    pub fn body(&self) -> BriefGuard<'_, Body> {
        self.body.lock()
    }

    // --- entering and ending ---------------------------------------------------------------

    /// Runs an operation inside the gate, whenever it is polled.
    pub fn inside<T, F: Future<Output = Result<T>>>(self: &Arc<Self>, operation: F) -> Inside<'_, F> {
        Inside { txn: self, operation }
    }

    /// Whether operations may still run; why not.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    pub fn check_open(&self) -> Result<()> {
        if self.is_open() { Ok(()) } else { Err(self.ended_error()) }
    }

    /// Goes inside, until the guard is dropped: for work that does not wait.
    pub fn step_inside(&self) -> Result<LeaveOnDrop<'_>> {
        self.enter()?;
        Ok(LeaveOnDrop(self))
    }

    pub(super) fn enter(&self) -> Result<()> {
        if self.gate.enter() { Ok(()) } else { Err(self.ended_error()) }
    }

    pub(super) fn leave(&self) {
        self.perform(self.gate.leave());
    }

    pub(super) fn perform(&self, duty: Duty) {
        if duty == Duty::RollBack {
            self.clean_up();
            // A commit that waits for those inside: they gave the transaction up.
            self.gate.wake_drained();
        }
    }

    /// Begins to commit: nobody enters any more.
    pub fn begin_ending(&self) -> Result<()> {
        if self.gate.end() { Ok(()) } else { Err(self.ended_error()) }
    }

    /// Waits until no operation of this transaction runs, and cancels those that wait.
    ///
    /// # Errors
    /// That of an operation which ended the transaction while it was waited for.
    pub async fn drained(&self, wait: &Wait) -> Result<()> {
        let stands = std::future::poll_fn(|cx| {
            let drained = self.gate.poll_drained(cx);
            if drained.is_pending() {
                wait.pending(Cause::Draining);
            }
            drained
        })
        .await;
        if stands { Ok(()) } else { Err(self.take_retryable().unwrap_or_else(|| self.ended_error())) }
    }

    /// The commit is done: nothing is left to roll back.
    pub fn finish(&self) {
        self.gate.finish();
    }

    /// Rolls back: at once, or when the last running operation leaves. Idempotent.
    pub fn roll_back(&self) {
        self.perform(self.gate.abandon());
    }

    /// Remembers what a body may wrap, and rolls back what an error has ended.
    pub(super) fn after_operation(&self, error: Option<&Error>) {
        if let Some(error) = error {
            self.remember_retryable(error);
            if error.ends_transaction() && !mutant!("victim-keeps-locks") {
                self.roll_back();
            }
        } else if self.has_retryable.load(Ordering::Relaxed) {
            self.has_retryable.store(false, Ordering::Relaxed);
            self.retryable.lock().take();
        }
    }

    pub(super) fn remember_retryable(&self, error: &Error) {
        *self.retryable.lock() = error.retryable_copy();
        self.has_retryable.store(true, Ordering::Relaxed);
    }

    /// The error of the last operation, if it was a retryable one.
    pub fn take_retryable(&self) -> Option<Error> {
        self.retryable.lock().take()
    }

    pub(super) fn ended_error(&self) -> Error {
        match self.ended_by.load(Ordering::Acquire) {
            // Too late: it was ending by itself.
            _ if !self.gate.is_wounded() => Error::TransactionEnded,
            by if by == EndedBy::Wound as u8 => {
                let by = TxnId(self.wounded_by.load(Ordering::Acquire));
                Error::Wounded(Box::new(Wound { me: self.summary(), by }))
            }
            by if by == EndedBy::Age as u8 => self.too_old(),
            _ => Error::TransactionEnded,
        }
    }

    fn too_old(&self) -> Error {
        Error::SnapshotTooOld { limit: self.core.config.limits.snapshot_age.unwrap_or_default() }
    }

    /// Ends a transaction that is open for longer than `limit`.
    pub fn expire_if_older(&self, limit: Duration, now: Duration) {
        let holds_view = self.policy.has_snapshot();
        if holds_view && self.began.is_some_and(|began| now.saturating_sub(began) > limit) {
            self.end_from_outside(EndedBy::Age);
        }
    }

    fn end_from_outside(&self, by: EndedBy) {
        let _ = self.ended_by.compare_exchange(EndedBy::Caller as u8, by as u8, Ordering::AcqRel, Ordering::Acquire);
        self.perform(self.gate.wound());
    }

    /// Undoes everything: versions, then locks, then the view (I8). Runs once, with nobody inside.
    fn clean_up(&self) {
        let (owner, locked, placeholders, writes, reads) = {
            let mut body = self.body.lock();
            let writes = self.withdraw_all(&mut body);
            self.end_views(body.take_views());
            body.seldom.iter_mut().for_each(|seldom| seldom.savepoints.clear());
            body.undone = true;
            let locked = std::mem::take(&mut body.locked);
            let reads = std::mem::take(&mut body.reads);
            (body.owner.take(), locked, std::mem::take(&mut body.placeholders), writes, reads)
        };
        if mutant!("failed-commit-keeps-brief-locks") {
            std::mem::forget(locked);
        } else {
            drop(locked);
        }
        if !mutant!("drop-keeps-locks") {
            self.release(owner, &placeholders);
        }
        self.core.tap.abort(self);
        self.deregister(|counts| counts.rolled_back += 1);
        let_go(writes);
        let_go(reads);
    }

    /// Takes this transaction's in-flight versions out of their records; gives what it wrote, to be dropped
    /// under no latch.
    fn withdraw_all(&self, body: &mut Body) -> WriteSet {
        let status = body.status.take();
        if let Some(status) = &status {
            status.abort();
        }
        let Body { writes, placeholders, locked, .. } = body;
        let known = writes.iter().filter_map(|(_, write)| write.record.as_ref());
        let brief = matches!(locked, WriteRecords::Brief(_)).then(|| locked.iter());
        for record in known.chain(brief.into_iter().flatten()) {
            if let Some(status) = &status {
                record.0.withdraw(status);
            }
            placeholders.push(record.clone());
        }
        std::mem::take(&mut body.writes)
    }

    /// Gives all locks back, and leaves records that nobody needs to the collector.
    pub fn release(&self, owner: Option<Arc<Owner<RecordRef>>>, placeholders: &[RecordRef]) {
        if let Some(owner) = owner {
            self.core.locks.release_all(&owner);
        }
        for record in placeholders {
            self.core.store.note_garbage(Arc::clone(&record.0));
        }
    }

    /// Takes out of the body what a transaction that is done gives back.
    pub fn take_held(&self) -> Held {
        self.body().take_held()
    }

    pub fn deregister(&self, count: impl FnOnce(&mut super::registry::Counts)) {
        if let Some(place) = self.place.take() {
            self.core.registry.leave(place, count);
        }
    }

    // --- locks ------------------------------------------------------------------------------

    /// The lock owner, made at the first lock.
    pub fn owner(self: &Arc<Self>) -> Arc<Owner<RecordRef>> {
        self.owner_in(&mut self.body.lock())
    }

    /// The same, for a caller that has the body.
    pub fn owner_in(self: &Arc<Self>, body: &mut Body) -> Arc<Owner<RecordRef>> {
        if let Some(owner) = &body.owner {
            return Arc::clone(owner);
        }
        let weak: Weak<TxnInner> = Arc::downgrade(self);
        let owner = self.core.locks.owner(OwnerSpec {
            id: self.id(),
            age: self.age(),
            label: self.label.clone(),
            on_wound: Some(weak),
        });
        body.owner = Some(Arc::clone(&owner));
        owner
    }

    /// Ready when `ts` is visible: what a call returns is visible to whoever begins later (I2).
    pub async fn visible(&self, wait: &Wait, ts: Ts) {
        let mut queued = isolde_mvcc::VisibleWait::default();
        std::future::poll_fn(|cx| match self.core.timeline.poll_visible(ts, cx, &mut queued) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => {
                wait.pending(Cause::Visibility);
                Poll::Pending
            }
        })
        .await;
    }

    // --- the body ---------------------------------------------------------------------------

    /// The status that this transaction's in-flight versions hold, made at the first of them.
    pub fn status(&self, body: &mut Body) -> Arc<Status> {
        let exposure = match self.policy.writes {
            WriteTiming::AtOnce => Exposure::Exposed,
            WriteTiming::AtCommit => Exposure::Private,
        };
        Arc::clone(body.status.get_or_insert_with(|| Status::new(self.id(), exposure)))
    }

    /// Whether versions of this transaction stand in records.
    pub fn has_in_flight(&self) -> bool {
        self.policy.writes == WriteTiming::AtOnce && !self.is_read_only() && self.status_if_any().is_some()
    }

    pub fn status_if_any(&self) -> Option<Arc<Status>> {
        self.body().status_if_any()
    }

    /// Registers a view for marked reads of a transaction without snapshot, once; gives its time, or
    /// the snapshot's.
    pub fn hold_marks_view(&self) -> Ts {
        if self.policy.has_snapshot() {
            return self.read_ts();
        }
        let mut body = self.body();
        let register = || self.core.view();
        body.seldom().marks_view.get_or_insert_with(register).ts()
    }
}

impl Drop for TxnInner {
    fn drop(&mut self) {
        let views = self.body.get_mut().take_views();
        self.end_views(views);
        let Body { writes, reads, unsettled, .. } = self.body.get_mut();
        if let Some(record) = unsettled.take() {
            self.core.settle_claimed(record);
        }
        if !writes.is_empty() {
            let_go(std::mem::take(writes));
        }
        if !reads.is_empty() {
            let_go(std::mem::take(reads));
        }
    }
}

impl OnWound for TxnInner {
    fn wounded(&self, by: TxnId) {
        self.wounded_by.store(by.0, Ordering::Release);
        self.end_from_outside(EndedBy::Wound);
    }
}
