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
//! that the disk has work while the others run.

use std::time::Duration;

use crossbeam_utils::CachePadded;
use isolde_types::sync::{Condvar, CondvarMutex};

/// A number that only grows, and those who wait for it.
#[derive(Default)]
struct Bell {
    ended: CondvarMutex<u64>,
    rings: Condvar,
}

impl Bell {
    fn wait(&self, batch: u64) {
        let mut ended = self.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while *ended < batch {
            ended = self.rings.wait(ended).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// The same, but not longer than that.
    fn wait_at_most(&self, batch: u64, limit: Duration) {
        if limit == Duration::MAX {
            return self.wait(batch);
        }
        let ended = self.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waited = self.rings.wait_timeout_while(ended, limit, |ended| *ended < batch);
        drop(waited.unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    fn ring(&self, batch: u64) {
        let mut ended = self.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *ended = batch.max(*ended);
        drop(ended);
        self.rings.notify_all();
    }
}

/// What a parked thread waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// This batch, which it was chosen to lead, is the next one.
    Lead(u64),
    /// This batch has ended.
    Follow(u64),
}

/// Who is waiting; guarded by the log's queue.
#[derive(Default)]
pub(super) struct Parked {
    /// Batches that were begun; the one that forms has the next number.
    pub begun: u64,
    /// Somebody was chosen to lead the batch that forms.
    pub has_leader: bool,
    /// Somebody waits for the end of an even batch, of an odd one.
    followed: [bool; 2],
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
        self.followed[parity(self.begun)] = true;
        Turn::Follow(self.begun)
    }

    /// Waits for the batch that forms.
    pub fn join(&mut self) -> Turn {
        let forming = self.begun + 1;
        if std::mem::replace(&mut self.has_leader, true) {
            self.followed[parity(forming)] = true;
            return Turn::Follow(forming);
        }
        Turn::Lead(forming)
    }

    /// The batch that was begun last has ended: whom to wake.
    pub fn end(&mut self) -> Ended {
        let batch = self.begun;
        let followed = std::mem::take(&mut self.followed[parity(batch)]);
        Ended { batch, leader: self.has_leader, followed }
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
}

impl Bells {
    pub fn wait(&self, turn: Turn) {
        match turn {
            Turn::Lead(batch) => self.lead.wait(batch - 1),
            Turn::Follow(batch) => self.end[parity(batch)].wait(batch),
        }
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
        self.company.wait_at_most(batch, at_most);
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

    #[test]
    fn the_first_that_joins_leads_and_each_end_tells_those_who_wait_for_it() {
        let mut parked = Parked::default();
        parked.begin();
        assert_eq!(parked.follow(), Turn::Follow(1), "what is written covers it");
        assert_eq!([parked.join(), parked.join(), parked.join()], [Turn::Lead(2), Turn::Follow(2), Turn::Follow(2)]);
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
        [Turn::Lead(4), Turn::Follow(3), Turn::Follow(1)].into_iter().for_each(|turn| bells.wait(turn));
        bells.ring_for_good();
        [Turn::Lead(9), Turn::Follow(8)].into_iter().for_each(|turn| bells.wait(turn));
    }
}
