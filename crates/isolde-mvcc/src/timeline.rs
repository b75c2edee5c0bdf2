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
//! Left out: places in the log. They will be given out where the prefix moves, in `advance`.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use crossbeam_utils::CachePadded;
use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex};
use isolde_types::{Ts, mutant};

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
#[derive(Debug)]
pub struct Timeline {
    visible: CachePadded<AtomicU64>,
    sequencer: Arc<CachePadded<Mutex<Sequencer>>>,
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Ordered,
    Finished,
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
        Timeline { visible: CachePadded::new(AtomicU64::new(0)), sequencer: Arc::default() }
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

    /// Takes the next commit_ts; the status says `Ordered` before anyone can get a larger one.
    pub fn order(&self, status: &Status) -> Ts {
        assert_eq!(status.state(), State::Active, "I1: a transaction is ordered once");
        let mut sequencer = self.sequencer.lock();
        let ts = sequencer.next();
        status.set(State::Ordered(ts));
        sequencer.open.push_back(Progress::Ordered);
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
        sequencer.finish(visible, ts);
        self.advance(&mut sequencer)
    }

    /// Orders and commits in one visit, for a transaction that has nothing to certify.
    pub fn commit_at_once(&self, status: &Status) -> (Ts, Wakers) {
        assert_eq!(status.state(), State::Active, "I1: a transaction is ordered once");
        let mut sequencer = self.sequencer.lock();
        let ts = sequencer.next();
        status.set(State::Committed(ts));
        sequencer.open.push_back(Progress::Finished);
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

    /// Moves visible_ts over the finished prefix. This is where members of the prefix will get
    /// their places in the log, in commit_ts order.
    fn advance(&self, sequencer: &mut Sequencer) -> Wakers {
        let before = self.visible();
        let mut visible = before;
        while sequencer.open.front().is_some_and(|first| *first == Progress::Finished || mutant!("visible-skips-gap")) {
            sequencer.open.pop_front();
            visible = visible.next();
        }
        if visible == before {
            return Wakers::default();
        }
        // Release: everything that the prefix wrote happened before (I2).
        self.visible.store(visible.0, Ordering::Release);
        sequencer.woken(visible)
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

    fn finish(&mut self, visible: Ts, ts: Ts) {
        let place = ts.0.checked_sub(visible.0 + 1).and_then(|place| usize::try_from(place).ok());
        if let Some(progress) = place.and_then(|place| self.open.get_mut(place)) {
            *progress = Progress::Finished;
        }
    }

    fn woken(&mut self, visible: Ts) -> Wakers {
        if self.waiters.is_empty() {
            return Wakers::default();
        }
        let later = self.waiters.split_off(&(visible.next(), 0));
        Wakers(std::mem::replace(&mut self.waiters, later).into_values().collect())
    }
}
