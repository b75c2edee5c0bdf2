//! Logical time: who commits when, and up to where everything is finished.
//!
//! ```text
//!  commit_ts   1  2  3  4  5  6
//!              c  c  a  o  c  o        c committed, a aborted, o ordered and not finished
//!                    ▲
//!              visible_ts = 3: the finished prefix; 5 waits for 4
//! ```
//!
//! The sequencer is one small latch. [`Timeline::order`] takes the next commit_ts and says so in
//! the status before it leaves, so whoever takes a larger one later finds every version with a
//! smaller one in place (I5). [`Timeline::finalize`] gives the outcome and moves visible_ts over
//! the finished prefix (I2), so a snapshot is one atomic load. Nothing waits inside (I6); wakers
//! are handed to the caller, who wakes them when it holds no latch.
//!
//! Worked example: t1 orders (1), t2 orders (2), t2 is finalized: visible_ts stays 0, t2's session
//! polls for 2 and waits. t1 is finalized: visible_ts goes to 2 at once, and t2's waker is returned.
//!
//! A durable database has a log behind it ([`Places`]). The encoded record of a transaction belongs to its
//! entry here from the moment it is ordered; where the prefix moves, its members get their places in the
//! log, in commit_ts order, in the same visit that makes them visible.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use crossbeam_utils::CachePadded;
use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex};
use isolde_types::{LogBody, Places, Ts, mutant};

use crate::status::{State, Status};

/// How a transaction that was ordered ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It happened, at its commit_ts.
    Committed,
    /// It never happened; its commit_ts stays unused.
    Aborted,
}

/// The one order of commits, and visible_ts.
pub struct Timeline {
    visible: CachePadded<AtomicU64>,
    sequencer: Arc<CachePadded<Mutex<Sequencer>>>,
    log: Option<Arc<dyn Places>>,
}

#[derive(Debug, Default)]
struct Sequencer {
    /// The last commit_ts given out.
    last: Ts,
    /// What follows visible_ts, without holes: `visible_ts + 1 ..= last`.
    open: VecDeque<Progress>,
    waiters: BTreeMap<(Ts, u64), Waker>,
    last_ticket: u64,
}

#[derive(Debug)]
struct Progress {
    finished: bool,
    /// What the transaction wrote, for the log; taken away if it fails.
    body: Option<LogBody>,
}

/// Wakers of those who waited for visible_ts; whoever gets them wakes them, under no latch.
#[must_use = "a waker that is not woken is a lost wake-up"]
#[derive(Debug, Default)]
pub struct Wakers(Vec<Waker>);

impl Wakers {
    /// Wakes them all, in the order of what they waited for. A panic in one is somebody else's, and
    /// keeps no other from being woken.
    pub fn wake(self) {
        for waker in self.0 {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Whether nobody is to be woken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One place among those who wait for visible_ts, see [`Timeline::poll_visible`].
///
/// Dropping it leaves the queue.
#[derive(Debug, Default)]
pub struct VisibleWait {
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    sequencer: Arc<CachePadded<Mutex<Sequencer>>>,
    ticket: (Ts, u64),
}

impl Drop for VisibleWait {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let waker = place.sequencer.lock().waiters.remove(&place.ticket);
            drop(waker); // not under the sequencer: a waker's drop is foreign code
        }
    }
}

impl Timeline {
    /// The beginning of time: nothing was committed.
    #[must_use]
    pub fn new() -> Self {
        Timeline { visible: CachePadded::new(AtomicU64::new(0)), sequencer: Arc::default(), log: None }
    }

    /// Goes on after `last`, the newest commit that a log gave back, and gives places in that log.
    #[must_use]
    pub fn recovered(last: Ts, log: Arc<dyn Places>) -> Self {
        let sequencer = Sequencer { last, ..Sequencer::default() };
        Timeline {
            visible: CachePadded::new(AtomicU64::new(last.0)),
            sequencer: Arc::new(CachePadded::new(Mutex::new(sequencer))),
            log: Some(log),
        }
    }

    /// visible_ts: a view at this time sees a finished prefix of all commits.
    #[must_use]
    pub fn visible(&self) -> Ts {
        // Acquire: pairs with the Release in `advance`; who reads this ts sees its versions (I2).
        Ts(self.visible.load(Ordering::Acquire))
    }

    /// The last commit_ts that was given out, finished or not.
    #[must_use]
    pub fn last(&self) -> Ts {
        self.sequencer.lock().last
    }

    /// Takes the next commit_ts; the status says `Ordered` before anyone can get a larger one. `body` is
    /// for the log, if there is one.
    pub fn order(&self, status: &Status, body: Option<LogBody>) -> Ts {
        assert_eq!(status.state(), State::Active, "I1: a transaction is ordered once");
        let mut sequencer = self.sequencer.lock();
        let ts = sequencer.next();
        status.set(State::Ordered(ts));
        sequencer.open.push_back(Progress { finished: false, body });
        ts
    }

    /// Ends a transaction that was ordered: all its versions at once. visible_ts moves over it as
    /// soon as everything before it is finished.
    pub fn finalize(&self, status: &Status, outcome: Outcome) -> Wakers {
        let State::Ordered(ts) = status.state() else { panic!("I2: only an ordered transaction is finalized") };
        let mut sequencer = self.sequencer.lock();
        status.set(match outcome {
            Outcome::Committed => State::Committed(ts),
            Outcome::Aborted => State::Aborted,
        });
        let visible = self.visible();
        let failed = sequencer.finish(visible, ts, outcome);
        let wakers = self.advance(&mut sequencer);
        drop(sequencer);
        drop(failed);
        wakers
    }

    /// Orders and commits in one visit, for a transaction that has nothing to certify.
    pub fn commit_at_once(&self, status: &Status, mut body: Option<LogBody>) -> (Ts, Wakers) {
        assert_eq!(status.state(), State::Active, "I1: a transaction is ordered once");
        self.commit_finished(&mut body, |ts| status.set(State::Committed(ts)))
    }

    /// The same; `flips` makes all that was written committed, or the caller keeps everybody away from it until that
    /// is done. What is left of `body` is memory.
    pub(crate) fn commit_finished(&self, body: &mut Option<LogBody>, flips: impl FnOnce(Ts)) -> (Ts, Wakers) {
        let mut sequencer = self.sequencer.lock();
        let ts = sequencer.next();
        flips(ts);
        if sequencer.open.is_empty() {
            // It is the whole prefix, as nearly always.
            let hard = self.publish(ts, &mut body.iter_mut().map(|body| (ts, body)));
            return (ts, sequencer.woken(ts, hard));
        }
        sequencer.open.push_back(Progress { finished: true, body: body.take() });
        (ts, self.advance(&mut sequencer))
    }

    /// Ready as soon as visible_ts is at least `ts`; until then the task of `cx` is woken for it.
    ///
    /// *Cancel safety*: dropping `wait` leaves the queue.
    pub fn poll_visible(&self, ts: Ts, cx: &mut Context<'_>, wait: &mut VisibleWait) -> Poll<()> {
        if self.visible() >= ts {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let mut sequencer = self.sequencer.lock();
        // Again under the latch: visible_ts only moves under it, so no wake-up is lost.
        if self.visible() >= ts {
            return Poll::Ready(());
        }
        let ticket = match &wait.place {
            Some(place) if place.ticket.0 == ts => place.ticket,
            _ => sequencer.ticket(ts),
        };
        let replaced = sequencer.waiters.insert(ticket, waker);
        drop(sequencer);
        drop(replaced);
        if wait.place.as_ref().is_none_or(|place| place.ticket != ticket) {
            *wait = VisibleWait { place: Some(Place { sequencer: Arc::clone(&self.sequencer), ticket }) };
        }
        Poll::Pending
    }

    /// Moves visible_ts over the finished prefix, whose members get their places in the log, in
    /// commit_ts order.
    fn advance(&self, sequencer: &mut Sequencer) -> Wakers {
        let visible = self.visible();
        let finished = |progress: &&Progress| progress.finished || mutant!("visible-skips-gap");
        let count = sequencer.open.iter().take_while(finished).count();
        if count == 0 {
            return Wakers::default();
        }
        let (first, visible) = (visible.next(), Ts(visible.0 + count as u64));
        let places = sequencer.open.iter_mut().take(count).zip(first.0..);
        let hard =
            self.publish(visible, &mut places.filter_map(|(progress, ts)| Some((Ts(ts), progress.body.as_mut()?))));
        sequencer.open.drain(..count);
        sequencer.woken(visible, hard)
    }

    /// Makes everything up to `visible` visible, and gives the records of it their places in the log. Gives wakers of
    /// those who wait for the log.
    fn publish(&self, visible: Ts, records: &mut dyn Iterator<Item = (Ts, &mut LogBody)>) -> Vec<Waker> {
        let mut publish = || {
            // Release: everything that the prefix wrote happened before (I2).
            self.visible.store(visible.0, Ordering::Release);
            visible
        };
        match &self.log {
            Some(log) => log.give(records, &mut publish),
            None => {
                publish();
                Vec::new()
            }
        }
    }
}

impl std::fmt::Debug for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Timeline(visible {}, last {})", self.visible(), self.last())
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Sequencer {
    fn next(&mut self) -> Ts {
        self.last = self.last.next();
        self.last
    }

    fn ticket(&mut self, ts: Ts) -> (Ts, u64) {
        self.last_ticket += 1;
        (ts, self.last_ticket)
    }

    /// Notes that it is finished; gives back what must not reach the log.
    fn finish(&mut self, visible: Ts, ts: Ts, outcome: Outcome) -> Option<LogBody> {
        let place = ts.0.checked_sub(visible.0 + 1).and_then(|place| usize::try_from(place).ok());
        let progress = place.and_then(|place| self.open.get_mut(place))?;
        progress.finished = true;
        if outcome == Outcome::Aborted { progress.body.take() } else { None }
    }

    /// Those who waited for this time, and then `others`.
    #[inline]
    fn woken(&mut self, visible: Ts, others: Vec<Waker>) -> Wakers {
        if self.waiters.is_empty() {
            return Wakers(others);
        }
        let later = self.waiters.split_off(&(visible.next(), 0));
        Wakers(std::mem::replace(&mut self.waiters, later).into_values().chain(others).collect())
    }
}
