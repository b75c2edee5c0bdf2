//! Waiting until commits are hard: a thread inside the call, a task in the queue's map.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use isolde_types::sync::atomic::Ordering;
use isolde_types::sync::{Arc, MutexGuard, thread as threads};
use isolde_types::{Ts, mutant};

use super::bells::Turn;
use super::{Hardness, Log, Queue, Waiter};
use crate::error::{Result, WalError};

/// What a caller asks to be hard, see [`Log::wait_hard`] and [`Log::poll_hard`].
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Everything up to here.
    pub ts: Ts,
    /// How hard.
    pub hardness: Hardness,
    /// As a leader, a thread may wait so long for company, unless somebody comes who will not. A task does not
    /// wait: it would hold up the others of its executor.
    pub company: Duration,
}

/// A task's place among those who wait for the log. Dropping it leaves the queue.
#[derive(Default)]
pub struct HardWait {
    place: Option<(Arc<Log>, (Ts, u64))>,
}

impl Drop for HardWait {
    fn drop(&mut self) {
        if let Some((log, ticket)) = self.place.take() {
            let waiter = log.queue.lock().waiters.remove(&ticket);
            drop(waiter); // under no latch: a waker's drop is foreign code
        }
    }
}

impl Log {
    /// Whether everything up to `ts` is as hard as that.
    #[must_use]
    pub fn is_hard(&self, ts: Ts, hardness: Hardness) -> bool {
        match hardness {
            Hardness::Synced => self.durable.get() >= ts,
            // Acquire: the bytes are in the file.
            Hardness::Written => Ts(self.written.load(Ordering::Acquire)) >= ts,
        }
    }

    /// Fails if a write or a sync has failed.
    ///
    /// # Errors
    /// `Poisoned`.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.is_poisoned() { self.refuse() } else { Ok(()) }
    }

    #[cold]
    fn refuse(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(WalError::Closed);
        }
        let cause = self.cause.lock().clone();
        Err(WalError::Poisoned(cause.unwrap_or_else(|| "unknown".into())))
    }

    /// Whether a write or a sync has failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        // Acquire: pairs with the Release in `poison`; durable_ts stands still from then on.
        self.poisoned.load(Ordering::Acquire)
    }

    /// Waits on this thread until everything up to `need.ts` is hard, or will never be: writes and syncs itself if
    /// nobody does. *Blocks*.
    ///
    /// # Errors
    /// `Poisoned`: it may be hard, or not, or be so after the next open.
    pub fn wait_hard(&self, need: Need) -> Result<()> {
        let mut waited = false;
        loop {
            if let Some(answer) = self.answer(need, waited) {
                return answer;
            }
            let Some(queue) = self.ask(need) else { continue };
            if queue.leading || self.bells.has_leader(&queue.parked) {
                self.wait_parked(queue, need);
                waited = true;
            } else {
                self.lead_in_company(queue, need.company);
            }
        }
    }

    /// Ready when everything up to `need.ts` is hard, or will never be.
    ///
    /// The caller writes and syncs inside the call, if nobody does. Else the task of `cx` is woken when the batch is
    /// done.
    ///
    /// *Cancel safety*: dropping `wait` leaves the queue; what was placed is written all the same.
    ///
    /// # Errors
    /// As [`wait_hard`](Log::wait_hard).
    pub fn poll_hard(self: &Arc<Self>, need: Need, cx: &mut Context<'_>, wait: &mut HardWait) -> Poll<Result<()>> {
        let waited = wait.place.is_some();
        loop {
            if let Some(answer) = self.answer(need, waited) {
                return Poll::Ready(answer);
            }
            // Under no latch: it is foreign code.
            let waker = cx.waker().clone();
            let Some(mut queue) = self.ask(need) else { continue };
            if !queue.leading {
                self.lead(queue);
                continue;
            }
            let replaced = self.enqueue(&mut queue, need, waker, wait);
            drop(queue);
            drop(replaced);
            return Poll::Pending;
        }
    }

    /// What there is to say without the queue's latch.
    fn answer(&self, need: Need, waited: bool) -> Option<Result<()>> {
        let woken = waited && mutant!("follower-acknowledged-by-any-sync");
        if self.is_hard(need.ts, need.hardness) || woken {
            return Some(Ok(()));
        }
        if let Err(poisoned) = self.check() {
            // Again: it may have become hard just before the log was closed, or failed.
            let hard = self.is_hard(need.ts, need.hardness) || waited && mutant!("follower-misses-failure");
            return Some(if hard { Ok(()) } else { Err(poisoned) });
        }
        // The fault is that the others go on; its own failure a leader must hear of, or it leads for ever.
        let cause = if mutant!("no-poison-after-error") { self.cause.lock().take() } else { None };
        cause.map(|cause| Err(WalError::Poisoned(cause)))
    }

    /// Says what is needed; `None` if there is something to say now.
    fn ask(&self, need: Need) -> Option<MutexGuard<'_, Queue>> {
        let mut queue = self.queue.lock();
        // Again under the latch, under which both move: no wake-up is lost.
        if self.is_hard(need.ts, need.hardness) || self.is_poisoned() {
            return None;
        }
        if need.hardness == Hardness::Synced {
            queue.wanted_synced = queue.wanted_synced.max(need.ts);
        }
        self.hurry(&mut queue, need.company);
        Some(queue)
    }

    /// Parks until the batch is done that such a one waits for; if nobody is to lead it, leads it.
    fn wait_parked(&self, mut queue: MutexGuard<'_, Queue>, need: Need) {
        let turn = if queue.under_way.covers(need) { queue.parked.follow() } else { queue.parked.join() };
        drop(queue);
        self.bells.wait(turn);
        let Turn::Lead(batch) = turn else { return };
        let queue = self.queue.lock();
        // Though it may have become hard meanwhile: others count on this batch.
        if !queue.leading && queue.parked.begun + 1 == batch {
            self.lead(queue);
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        queue: &mut Queue,
        need: Need,
        waker: Waker,
        wait: &mut HardWait,
    ) -> [Option<Waiter>; 2] {
        queue.last_ticket += 1;
        let ticket = (need.ts, queue.last_ticket);
        let before = wait.place.take().and_then(|(_, ticket)| queue.waiters.remove(&ticket));
        let waiter = Waiter { waker, hardness: need.hardness };
        let replaced = queue.waiters.insert(ticket, waiter);
        wait.place = Some((Arc::clone(self), ticket));
        [before, replaced]
    }

    /// Makes everything that was placed so far durable. *Blocks* for a sync.
    ///
    /// # Errors
    /// `Poisoned`, `Forked`.
    pub fn flush(&self) -> Result<()> {
        self.process.check()?;
        loop {
            let mut queue = self.queue.lock();
            // Under the latch, under which it fails: nobody leads after a failure, and nothing is left to write.
            self.check()?;
            if queue.batch.is_empty() && queue.unsynced == 0 && !queue.leading {
                return Ok(());
            }
            if queue.leading {
                self.hurry(&mut queue, Duration::ZERO);
                drop(queue);
                drop(self.writer.lock());
                threads::yield_now();
                continue;
            }
            queue.wanted_synced = queue.captured;
            self.lead(queue);
        }
    }
}
