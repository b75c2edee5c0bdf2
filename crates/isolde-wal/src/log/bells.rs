//! Where threads wait for a batch: all those of one batch are woken by one call.
//!
//! ```text
//!  batch      5 is written and synced           6 forms meanwhile
//!  follower   waits until 5 has ended           waits until 6 has ended
//!  its next leader                              waits until 5 has ended, then leads 6
//! ```
//!
//! Woken one by one, 63 threads cost a leader 63 calls into the kernel, and each of them may take the
//! leader's processor away before it has woken the next. So a batch has one bell. Two take turns, since
//! nobody waits for a batch that has not begun to form; the next leader has a third and is woken first, so
//! that the disk has work while the others run. Followers of a large batch may wait [awake](super::awake) first.

use std::sync::PoisonError;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::sync::{Condvar, CondvarMutex};

use super::awake::Awake;

/// A number that only grows, and those who wait for it.
#[derive(Default)]
struct Bell {
    /// Grows under the latch, so that nobody falls asleep meanwhile; whoever is awake looks without.
    ended: AtomicU64,
    /// How many sleep: to wake nobody is a call into the kernel, too.
    sleepers: CondvarMutex<usize>,
    rings: Condvar,
}

impl Bell {
    fn has_rung(&self, batch: u64) -> bool {
        // Acquire: whoever hears it sees what the batch has done.
        self.ended.load(Ordering::Acquire) >= batch
    }

    /// Waits asleep; not longer than `limit`, where there is one.
    fn wait(&self, batch: u64, limit: Option<Duration>) {
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        *sleepers += 1;
        let early = |_: &mut usize| !self.has_rung(batch);
        let mut sleepers = match limit {
            None => self.rings.wait_while(sleepers, early).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                self.rings.wait_timeout_while(sleepers, limit, early).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        *sleepers -= 1;
    }

    fn ring(&self, batch: u64) {
        let sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        self.ended.fetch_max(batch, Ordering::Release);
        let sleep = *sleepers > 0;
        drop(sleepers);
        if sleep {
            self.rings.notify_all();
        }
    }
}

/// What a parked thread waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// This batch, which it was chosen to lead, is the next one.
    Lead(u64),
    /// This batch has ended, for which about so many wait.
    Follow { batch: u64, crowd: usize },
}

/// Who is waiting; guarded by the log's queue.
#[derive(Default)]
pub(super) struct Parked {
    /// Batches that were begun; the one that forms has the next number.
    pub begun: u64,
    /// Somebody was chosen to lead the batch that forms.
    pub has_leader: bool,
    /// How many wait for the end of an even batch, of an odd one.
    followers: [u32; 2],
    /// How many waited for the end of the last one.
    last_followers: u32,
}

impl Parked {
    /// The batch that forms is taken; the next one begins to form.
    pub fn begin(&mut self) {
        self.begun += 1;
        self.has_leader = false;
    }

    /// Leads the batch that forms, while nobody does; gives its number.
    pub fn lead_forming(&mut self) -> u64 {
        self.has_leader = true;
        self.begun + 1
    }

    /// Waits for the batch that was begun last.
    pub fn follow(&mut self) -> Turn {
        self.follows(self.begun)
    }

    /// Waits for the batch that forms.
    pub fn join(&mut self) -> Turn {
        let forming = self.begun + 1;
        if std::mem::replace(&mut self.has_leader, true) { self.follows(forming) } else { Turn::Lead(forming) }
    }

    fn follows(&mut self, batch: u64) -> Turn {
        self.followers[parity(batch)] += 1;
        Turn::Follow { batch, crowd: self.waiting() }
    }

    /// About how many wait when much goes on.
    fn waiting(&self) -> usize {
        self.last_followers.max(self.followers.iter().sum()) as usize
    }

    /// The batch that was begun last has ended: whom to wake.
    pub fn end(&mut self) -> Ended {
        let batch = self.begun;
        self.last_followers = std::mem::take(&mut self.followers[parity(batch)]);
        Ended { batch, leader: self.has_leader, followed: self.last_followers > 0 }
    }
}

/// A batch has ended, and bells are still to be rung.
#[must_use = "who is not woken waits for ever"]
pub(super) struct Ended {
    batch: u64,
    leader: bool,
    followed: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Bells {
    lead: CachePadded<Bell>,
    end: [CachePadded<Bell>; 2],
    company: Bell,
    awake: Awake,
}

impl Bells {
    pub fn wait(&self, turn: Turn) {
        match turn {
            Turn::Lead(batch) => self.lead.wait(batch - 1, None),
            Turn::Follow { batch, crowd } => {
                let bell = &self.end[parity(batch)];
                self.awake.wait(batch, crowd, || bell.has_rung(batch));
                if !bell.has_rung(batch) {
                    bell.wait(batch, None);
                }
            }
        }
    }

    /// Whether somebody who was chosen to lead is about to, and would only be hindered by whoever leads before:
    /// where the processors are busy, larger batches are more than a disk that is never idle.
    pub fn has_leader(&self, parked: &Parked) -> bool {
        parked.has_leader && self.awake.is_crowd(parked.waiting())
    }

    pub fn ring(&self, Ended { batch, leader, followed }: Ended) {
        if leader {
            self.lead.ring(batch);
        }
        if followed {
            self.end[parity(batch)].ring(batch);
        }
    }

    /// The leader of this batch waits for company: until it is hurried, but not longer than that.
    pub fn gather(&self, batch: u64, at_most: Duration) {
        self.company.wait(batch, (at_most < Duration::MAX).then_some(at_most));
    }

    /// The leader of this batch waits for company no longer.
    pub fn hurry(&self, batch: u64) {
        self.company.ring(batch);
    }

    /// Nobody waits any more, now or later.
    pub fn ring_for_good(&self) {
        self.lead.ring(u64::MAX);
        self.company.ring(u64::MAX);
        self.end.iter().for_each(|bell| bell.ring(u64::MAX));
    }
}

fn parity(batch: u64) -> usize {
    usize::from(batch % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(batch: u64, crowd: usize) -> Turn {
        Turn::Follow { batch, crowd }
    }

    #[test]
    fn the_first_that_joins_leads_and_each_end_tells_those_who_wait_for_it() {
        let mut parked = Parked::default();
        parked.begin();
        assert_eq!(parked.follow(), follow(1, 1), "what is written covers it");
        assert_eq!([parked.join(), parked.join(), parked.join()], [Turn::Lead(2), follow(2, 2), follow(2, 3)]);
        let Ended { batch, leader, followed } = parked.end();
        assert_eq!((batch, leader, followed), (1, true, true));
        parked.begin();
        let Ended { batch, leader, followed } = parked.end();
        assert_eq!((batch, leader, followed), (2, false, true), "nobody was chosen for the third");
        parked.begin();
        let Ended { leader, followed, .. } = parked.end();
        assert!(!leader && !followed, "no bell is rung for nobody");
    }

    #[test]
    fn a_bell_that_was_rung_keeps_nobody() {
        let bells = Bells::default();
        bells.ring(Ended { batch: 3, leader: true, followed: true });
        [Turn::Lead(4), follow(3, 1), follow(1, 1)].into_iter().for_each(|turn| bells.wait(turn));
        bells.ring_for_good();
        [Turn::Lead(9), follow(8, 1000)].into_iter().for_each(|turn| bells.wait(turn));
    }
}
