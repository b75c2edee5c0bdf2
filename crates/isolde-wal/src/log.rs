//! The log while it is open: places, group commit, poison.
//!
//! ```text
//!  sequencer ─ give ─► queue ─ leader: take all, write, sync ─► durable_ts ─► those who wait
//! ```
//!
//! Records are given places inside the sequencer, in commit_ts order: that only links them into the
//! queue. Whoever needs its commit hard and finds no leader *leads*: it takes the whole queue, writes
//! it and syncs it on its own thread, while others queue up behind for the next batch. So batches form
//! by themselves, and nobody waits for company, unless it was asked for: such a leader waits before it
//! takes the queue, and whoever has less patience than it ends that wait.
//!
//! With the queue's end the leader captures visible_ts: when everything up to that end is synced,
//! durable_ts becomes the captured value. It is captured under the queue's latch, under which visible_ts
//! moves, too; so the collector, which reads visible_ts first, spares either the captured state or all
//! from it on.
//!
//! Worked example: t1 (commit_ts 1) finds no leader and leads a batch of one. While it syncs, t2 and t3
//! commit and find a leader: they wait. t1's sync ends: durable_ts is 1; it wakes t2, the first that
//! came, which leads a batch of t2 and t3, and returns. One sync later durable_ts is 3; t2 wakes t3, and would
//! wake a hundred by the same call.
//!
//! Any failed write or sync *poisons*: durable_ts stands still from then on, and nothing is tried again,
//! because after a failed sync nothing is known of the bytes before it (Rebello et al., ATC 2020).
//!
//! Sources: group commit, DeWitt et al. 1984; early lock release, Johnson et al. 2010 (Aether).

mod awake;
mod bells;
mod end;
mod parts;
#[cfg(test)]
mod tests;
mod thread;
mod waiting;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use isolde_types::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex, MutexGuard, thread as threads};
use isolde_types::{Durable, LogBody, Places, Ts, mutant};

use self::bells::{Bells, Parked};
use self::parts::Counts;
pub use self::parts::{LogStats, WriteBehind};
pub use self::thread::Tending;
pub use self::waiting::{HardWait, Need};
use crate::batch::{Batch, Run};
use crate::error::Result;
use crate::format::{Lsn, RECORD_HEADER};
use crate::process::Process;
use crate::record::record_len;
use crate::segments::{Reservation, Segments};
use crate::writer::Writer;

/// How hard a commit is to be before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hardness {
    /// Written to the file: it survives the process.
    Written,
    /// Synced: it survives the machine.
    Synced,
}

/// See the module.
pub struct Log {
    /// Changed by every commit; so it keeps cache lines to itself, like all here that changes often: whoever only
    /// looks where the rest is would wait for them.
    queue: CachePadded<Mutex<Queue>>,
    bells: Bells,
    /// Only the leader takes it.
    writer: Mutex<Writer>,
    segments: Arc<Segments>,
    durable: Arc<Durable>,
    /// Every commit up to it is in the file.
    written: CachePadded<AtomicU64>,
    /// So much stands in the queue that who is admitted must take its latch.
    full: AtomicBool,
    /// The newest commit or view of which somebody may have been told before it was durable.
    acknowledged: CachePadded<AtomicU64>,
    poisoned: AtomicBool,
    /// It was closed: the same as poisoned, but nothing has failed.
    closed: AtomicBool,
    cause: Mutex<Option<Arc<str>>>,
    process: Process,
    write_behind: WriteBehind,
    epoch: u64,
    counts: CachePadded<Counts>,
}

#[derive(Default)]
struct Queue {
    batch: Batch,
    /// Memory for later batches.
    spare: Vec<Run>,
    /// visible_ts when records were last given places.
    captured: Ts,
    leading: bool,
    /// The leader waits for company, so long at most; nothing once somebody has ended that wait.
    gathering: Option<Duration>,
    /// What is being written; nothing while nobody writes.
    under_way: UnderWay,
    /// Threads that wait.
    parked: Parked,
    /// Somebody needs everything up to here synced.
    wanted_synced: Ts,
    /// Bytes are in the file and not synced.
    unsynced: u64,
    /// Tasks that wait.
    waiters: BTreeMap<(Ts, u64), Waiter>,
    last_ticket: u64,
    /// The log's thread, once it runs.
    thread: Option<threads::Thread>,
}

/// The batch that is being written.
#[derive(Clone, Copy, Default)]
struct UnderWay {
    captured: Ts,
    syncs: bool,
}

impl UnderWay {
    /// Whether its end is what such a one waits for.
    fn covers(self, need: Need) -> bool {
        need.ts <= self.captured && (self.syncs || need.hardness == Hardness::Written)
    }
}

struct Waiter {
    waker: Waker,
    hardness: Hardness,
}

impl Log {
    pub(crate) fn new(
        writer: Writer,
        segments: Arc<Segments>,
        durable: Arc<Durable>,
        write_behind: WriteBehind,
        epoch: u64,
    ) -> Log {
        let ts = durable.get();
        let queue = Queue { captured: ts, ..Queue::default() };
        Log {
            queue: CachePadded::new(Mutex::new(queue)),
            bells: Bells::default(),
            writer: Mutex::new(writer),
            segments,
            durable,
            written: CachePadded::new(AtomicU64::new(ts.0)),
            full: AtomicBool::new(false),
            acknowledged: CachePadded::default(),
            poisoned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            cause: Mutex::new(None),
            process: Process::this(),
            write_behind,
            epoch,
            counts: CachePadded::default(),
        }
    }

    /// The number of this opening; with a commit_ts it is unique for ever.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Up to where commits are durable.
    #[must_use]
    pub fn durable(&self) -> &Arc<Durable> {
        &self.durable
    }

    /// The newest commit or view of which somebody may have been told before it was durable.
    #[must_use]
    pub fn acknowledged(&self) -> Ts {
        Ts(self.acknowledged.load(Ordering::SeqCst))
    }

    /// Somebody is told of what is in the view at `ts`.
    pub fn acknowledge(&self, ts: Ts) {
        // Relaxed: it only grows, so what is seen may ask for too much, never for too little.
        if ts > self.durable.get() && ts.0 > self.acknowledged.load(Ordering::Relaxed) {
            self.acknowledged.fetch_max(ts.0, Ordering::SeqCst);
        }
    }

    /// Figures since it was opened.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.counts.stats()
    }

    /// Bytes that were appended since the last checkpoint began.
    #[must_use]
    pub fn since_checkpoint(&self) -> u64 {
        self.counts.since_checkpoint.load(Ordering::Relaxed)
    }

    /// What was found at opening and no checkpoint holds.
    pub(crate) fn note_backlog(&self, bytes: u64) {
        self.counts.since_checkpoint.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The process that may write.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// A checkpoint begins: bytes are counted anew.
    pub(crate) fn begin_checkpoint(&self) {
        self.counts.since_checkpoint.store(0, Ordering::Relaxed);
    }

    /// The segment that is written now, and up to where the log is on disk.
    pub(crate) fn position(&self) -> (u64, Lsn) {
        let writer = self.writer.lock();
        (writer.segment(), writer.durable())
    }

    // --- admission -------------------------------------------------------------------------------

    /// Makes sure that a record of such a body can be appended. Before a commit takes its place: after
    /// that nothing may fail for want of space.
    ///
    /// *Blocks* while the log has too much to write, and while it must prepare a segment.
    ///
    /// # Errors
    /// `Poisoned`; `DiskFull`, `Io`, `TooLarge`: nothing has happened then.
    pub fn admit(&self, body_len: usize) -> Result<Reservation<'_>> {
        self.check()?;
        let len = RECORD_HEADER + body_len;
        let reservation = self.segments.reserve(len)?;
        // Relaxed: a limit may be passed by those who come at the same moment.
        if !self.full.load(Ordering::Relaxed) {
            return Ok(reservation);
        }
        let mut queue = self.queue.lock();
        while self.is_full(&queue) {
            if queue.leading {
                self.hurry(&mut queue, Duration::ZERO);
                // Its leader writes all that stands there; this thread has nothing better to do.
                drop(queue);
                drop(self.writer.lock());
                self.check()?;
                queue = self.queue.lock();
                continue;
            }
            self.lead(queue);
            self.check()?;
            queue = self.queue.lock();
        }
        Ok(reservation)
    }

    /// The same, if it waits for nothing and prepares nothing; `None` otherwise, and where it would be refused.
    pub fn admit_at_once(&self, body_len: usize) -> Option<Reservation<'_>> {
        if self.is_poisoned() || self.full.load(Ordering::Relaxed) {
            return None;
        }
        self.segments.reserve_at_once(RECORD_HEADER.saturating_add(body_len))
    }

    /// Space for this very record, which may have become larger than was thought.
    ///
    /// # Errors
    /// As [`admit`](Log::admit).
    pub fn fit<'l>(&'l self, mut reservation: Reservation<'l>, record: &mut LogBody) -> Result<Reservation<'l>> {
        let len = record_len(record);
        if !reservation.holds(len) {
            drop(reservation);
            reservation = self.segments.reserve(len)?;
        }
        record.reserved = reservation.bytes();
        Ok(reservation)
    }

    fn overdue(&self, queue: &Queue) -> bool {
        queue.batch.bytes >= self.write_behind.write_bytes
    }

    fn is_full(&self, queue: &Queue) -> bool {
        queue.batch.bytes > self.write_behind.limit_bytes || queue.thread.is_none() && self.overdue(queue)
    }

    /// For a look without the queue's latch. Hardly ever is there anything to say, and what is said again every time
    /// would be far from whoever looks.
    fn note_whether_full(&self, queue: &Queue) {
        let full = self.is_full(queue);
        if self.full.load(Ordering::Relaxed) != full {
            self.full.store(full, Ordering::Relaxed);
        }
    }

    // --- leading ---------------------------------------------------------------------------------

    /// Waits so long for others to join the batch, or until somebody who will not wait so long does, and
    /// leads it.
    fn lead_in_company(&self, mut queue: MutexGuard<'_, Queue>, company: Duration) {
        // A model checker knows no time: it waits until it is hurried, or not at all.
        if company.is_zero() || cfg!(any(shuttle, loom)) && company < Duration::MAX {
            return self.lead(queue);
        }
        queue.leading = true;
        queue.gathering = Some(company);
        let batch = queue.parked.lead_forming();
        drop(queue);
        self.bells.gather(batch, company);
        let mut queue = self.queue.lock();
        queue.gathering = None;
        self.lead(queue);
    }

    /// A leader that waits for company does so no longer, if it has more patience than that.
    fn hurry(&self, queue: &mut Queue, patience: Duration) {
        if queue.gathering.is_some_and(|own| patience < own) {
            queue.gathering = None;
            self.bells.hurry(queue.parked.begun + 1);
        }
    }

    /// Writes everything that stands in the queue, syncs it if anyone needs that, and wakes those whose
    /// wait is over, and the next leader.
    fn lead(&self, mut queue: MutexGuard<'_, Queue>) {
        if self.is_poisoned() {
            return;
        }
        queue.leading = true;
        let mut batch = std::mem::take(&mut queue.batch);
        self.note_whether_full(&queue);
        let mut captured = queue.captured;
        let sync = queue.wanted_synced > self.durable.get() || queue.unsynced >= self.write_behind.sync_bytes;
        if sync {
            self.durable.announce(captured);
        }
        queue.under_way = UnderWay { captured, syncs: sync };
        queue.parked.begin();
        drop(queue);

        let unwinding = Unwinding(self);
        let outcome = self.write_batch(&mut batch, sync);
        if mutant!("captured-read-after-write") {
            captured = self.queue.lock().captured;
        }
        std::mem::forget(unwinding);
        self.after_batch(batch, captured, sync, outcome);
    }

    fn write_batch(&self, batch: &mut Batch, sync: bool) -> Result<u64> {
        self.process.check()?;
        // Only the leader counts, so nothing is lost between the two; a checkpoint resets what was since the last.
        let count =
            |counter: &AtomicU64, by: u64| counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
        count(&self.counts.records, batch.records as u64);
        count(&self.counts.bytes, batch.bytes as u64);
        self.counts.since_checkpoint.fetch_add(batch.bytes as u64, Ordering::Relaxed);
        let mut writer = self.writer.lock();
        if !batch.is_empty() {
            count(&self.counts.batches, 1);
            writer.append(&mut batch.runs)?;
        }
        if sync && mutant!("acknowledged-before-sync") {
            return Ok(0);
        }
        if sync {
            count(&self.counts.syncs, 1);
            writer.sync()?;
        }
        Ok(writer.unsynced())
    }

    fn after_batch(&self, batch: Batch, captured: Ts, sync: bool, outcome: Result<u64>) {
        let unsynced = match outcome {
            Ok(unsynced) => unsynced,
            // Still leading: nobody may lead after a failure, not even for a moment.
            Err(error) => {
                if mutant!("leads-after-failure") {
                    self.queue.lock().leading = false;
                    threads::yield_now();
                }
                return self.poison(&error);
            }
        };
        let mut queue = self.queue.lock();
        if self.is_poisoned() {
            return; // somebody else has failed meanwhile: durable_ts stands still, and all were woken
        }
        batch.recycle(&mut queue.spare);
        queue.leading = false;
        queue.under_way = UnderWay::default();
        queue.unsynced = unsynced;
        self.written.fetch_max(captured.0, Ordering::Release);
        if sync {
            self.durable.advance(captured);
        }
        self.durable.withdraw();
        self.advance_idle(&queue);
        let (wakers, thread) = self.next_after(&mut queue);
        let ended = queue.parked.end();
        drop(queue);
        self.bells.ring(ended);
        wake_all(wakers);
        if let Some(thread) = thread {
            thread.unpark();
        }
    }

    /// With nothing unwritten or unsynced, everything visible is hard: commits that failed left a hole.
    fn advance_idle(&self, queue: &Queue) {
        if queue.batch.is_empty() && !queue.leading {
            self.written.fetch_max(queue.captured.0, Ordering::Release);
            if queue.unsynced == 0 {
                self.durable.advance(queue.captured);
            }
        }
    }

    /// The tasks whose wait is over; and the log's thread, if it is to lead next since no parked thread does.
    /// A task may be dropped or not polled: where there is no thread all of them are woken, and the first that
    /// is polled leads.
    fn next_after(&self, queue: &mut Queue) -> (Vec<Waker>, Option<threads::Thread>) {
        if queue.waiters.is_empty() {
            return (Vec::new(), None); // as nearly always: only tasks wait there
        }
        let durable = self.durable.get();
        let written = Ts(self.written.load(Ordering::Acquire));
        let over = |(ts, _): &(Ts, u64), waiter: &Waiter| match waiter.hardness {
            Hardness::Synced => *ts <= durable || mutant!("follower-acknowledged-by-any-sync"),
            Hardness::Written => *ts <= written,
        };
        let done: Vec<(Ts, u64)> =
            queue.waiters.iter().filter(|(ticket, waiter)| over(ticket, waiter)).map(|(ticket, _)| *ticket).collect();
        let remove = |ticket: &(Ts, u64)| queue.waiters.remove(ticket).map(|waiter| waiter.waker);
        let mut wakers: Vec<Waker> = done.iter().filter_map(remove).collect();
        if queue.waiters.is_empty() || queue.parked.has_leader {
            return (wakers, None);
        }
        if mutant!("task-leads-next") {
            wakers.extend(queue.waiters.pop_first().map(|(_, waiter)| waiter.waker));
            return (wakers, None);
        }
        if queue.thread.is_some() {
            return (wakers, queue.thread.clone());
        }
        wakers.extend(std::mem::take(&mut queue.waiters).into_values().map(|waiter| waiter.waker));
        (wakers, None)
    }

    /// Something that writes has failed in a way that nobody can answer for: the log fails with this reason, and all
    /// who wait hear of it.
    pub fn fail(&self, why: &str) {
        self.poison(&why);
    }

    /// From now on nothing is written, and durable_ts stands still.
    fn poison(&self, why: &dyn Display) {
        let mut cause = self.cause.lock();
        if cause.is_none() {
            *cause = Some(why.to_string().into());
        }
        drop(cause);
        if mutant!("no-poison-after-error") {
            let mut queue = self.queue.lock();
            (queue.leading, queue.unsynced) = (false, 0);
            let ended = queue.parked.end();
            drop(queue);
            return self.bells.ring(ended);
        }
        let mut queue = self.queue.lock();
        queue.leading = false;
        self.poisoned.store(true, Ordering::Release);
        self.durable.withdraw();
        let waiters = std::mem::take(&mut queue.waiters);
        drop(queue);
        self.bells.ring_for_good();
        wake_all(waiters.into_values().map(|waiter| waiter.waker));
    }
}

/// A leader that unwinds poisons: nobody knows what it has written.
struct Unwinding<'l>(&'l Log);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.0.poison(&"a leader panicked");
    }
}

fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        // A panic in a waker is somebody else's, and keeps no other from being woken.
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}

impl Places for Log {
    fn give(
        &self,
        records: &mut dyn Iterator<Item = (Ts, &mut LogBody)>,
        publish: &mut dyn FnMut() -> Ts,
    ) -> Vec<Waker> {
        let mut queue = self.queue.lock();
        let Queue { batch, spare, .. } = &mut *queue;
        for (ts, body) in records {
            if body.at_once {
                // Before it is visible, so that no later time stands there yet; whoever is told of it sees this, too.
                self.acknowledged.store(ts.0, Ordering::Relaxed);
            }
            batch.push(ts, body, spare);
        }
        self.note_whether_full(&queue);
        queue.captured = publish();
        if self.is_poisoned() {
            return Vec::new();
        }
        if queue.batch.is_empty() {
            if queue.leading {
                return Vec::new(); // its leader wakes them
            }
            self.advance_idle(&queue);
            let (wakers, thread) = self.next_after(&mut queue);
            drop(queue);
            if let Some(thread) = thread {
                thread.unpark();
            }
            return wakers;
        }
        if queue.batch.bytes >= self.write_behind.write_bytes
            && let Some(thread) = queue.thread.clone()
        {
            drop(queue);
            thread.unpark();
        }
        Vec::new()
    }
}
