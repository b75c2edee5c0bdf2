//! Who is active, and who committed lately: for people, for errors, and for limits.

use std::sync::OnceLock;

use isolde_types::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use isolde_types::sync::{Arc, BriefMutex, Mutex, Weak, spin_until, thread_number};
use isolde_types::{Ts, TxnId};
use smallvec::SmallVec;

use super::TxnInner;
use crate::error::TxnSummary;

/// Begin and end touch one shard, chosen by thread, so that threads do not meet here.
const SHARDS: usize = 16;

/// How many commits are remembered by name.
const REMEMBERED: usize = 1024;
/// How many of them are made room for at once.
const CHUNK: usize = 32;

/// What a shard counted.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub begun: u64,
    pub committed: u64,
    pub rolled_back: u64,
    pub conflicts: u64,
    pub retries: u64,
}

/// The places that most threads need stand in the shard itself: what is allocated for them might share a cache line
/// with what another thread writes to, and would be one more line to fetch.
#[derive(Default)]
struct Shard {
    active: SmallVec<[Option<Weak<TxnInner>>; 4]>,
    free: SmallVec<[usize; 4]>,
    counts: Counts,
}

/// Keeps a shard on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// The active transactions and the counters of begun and ended ones.
#[derive(Default)]
pub(crate) struct Registry {
    shards: [Padded<BriefMutex<Shard>>; SHARDS],
}

/// Where a transaction is registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    shard: usize,
    slot: usize,
}

impl Place {
    const NOWHERE: u64 = 0;

    fn pack(self) -> u64 {
        (self.slot * SHARDS + self.shard) as u64 + 1
    }

    fn unpack(word: u64) -> Option<Place> {
        let place = usize::try_from(word.checked_sub(1)?).ok()?;
        Some(Place { shard: place % SHARDS, slot: place / SHARDS })
    }
}

/// The place of a transaction that is entered once and leaves once: its gate lets one thread end it.
#[derive(Debug, Default)]
pub(crate) struct PlaceCell(AtomicU64);

impl PlaceCell {
    fn set(&self, place: Place) {
        // Relaxed: written under the shard's latch, which whoever finds the transaction there has had.
        self.0.store(place.pack(), Ordering::Relaxed);
    }

    /// The place, for the one who ends the transaction.
    pub fn take(&self) -> Option<Place> {
        let place = Place::unpack(self.0.load(Ordering::Relaxed))?;
        self.0.store(Place::NOWHERE, Ordering::Relaxed);
        Some(place)
    }
}

impl Registry {
    /// Enters a transaction, and tells it where it stands before anybody can find it.
    pub fn enter(&self, txn: Weak<TxnInner>, cell: &PlaceCell) {
        let shard = shard_of_this_thread();
        let mut inside = self.shards[shard].0.lock();
        inside.counts.begun += 1;
        let slot = match inside.free.pop() {
            Some(slot) => slot,
            None => {
                inside.active.push(None);
                inside.active.len() - 1
            }
        };
        cell.set(Place { shard, slot });
        inside.active[slot] = Some(txn);
    }

    pub fn leave(&self, place: Place, count: impl FnOnce(&mut Counts)) {
        let mut inside = self.shards[place.shard].0.lock();
        count(&mut inside.counts);
        let left = inside.active[place.slot].take();
        inside.free.push(place.slot);
        drop(inside);
        drop(left);
    }

    pub fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.shards[shard_of_this_thread()].0.lock().counts);
    }

    pub fn counts(&self) -> Counts {
        self.shards.iter().map(|shard| shard.0.lock().counts).fold(Counts::default(), |a, b| Counts {
            begun: a.begun + b.begun,
            committed: a.committed + b.committed,
            rolled_back: a.rolled_back + b.rolled_back,
            conflicts: a.conflicts + b.conflicts,
            retries: a.retries + b.retries,
        })
    }

    /// The active transactions, in no order.
    pub fn active(&self) -> Vec<Arc<TxnInner>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let inside = shard.0.lock();
            if inside.active.len() > inside.free.len() {
                all.extend(inside.active.iter().flatten().filter_map(Weak::upgrade));
            }
        }
        all
    }
}

/// Threads are spread over the shards.
fn shard_of_this_thread() -> usize {
    thread_number() % SHARDS
}

/// Names of the last commits, so that a conflict can say with whom.
///
/// A ring of chunks that are made when a commit first comes there: a database that is opened for a handful of
/// commits is opened fast.
#[derive(Default)]
pub(crate) struct RecentCommits {
    ring: [OnceLock<Chunk>; REMEMBERED / CHUNK],
}

type Chunk = Box<[Named; CHUNK]>;

/// A commit and its name. Most have no label, and are written without a latch.
#[derive(Default)]
struct Named {
    /// The commit_ts; [`BUSY`](Named::BUSY) while somebody is at this entry.
    ts: AtomicU64,
    /// 0: it had none, and gets one if somebody asks.
    id: AtomicU64,
    has_label: AtomicBool,
    label: Mutex<Option<Arc<str>>>,
}

impl Named {
    const BUSY: u64 = u64::MAX;

    /// Has the entry alone meanwhile, for a few instructions; `visit` gets its commit_ts and gives the new one.
    fn with(&self, visit: impl FnOnce(u64) -> u64) {
        // Acquire: what the last one wrote here is seen.
        let ts = spin_until(|| Some(self.ts.swap(Self::BUSY, Ordering::Acquire)).filter(|ts| *ts != Self::BUSY));
        self.ts.store(visit(ts), Ordering::Release);
    }
}

impl RecentCommits {
    pub fn remember(&self, ts: Ts, id: Option<TxnId>, label: Option<&Arc<str>>) {
        let (chunk, place) = Self::place(ts);
        let entry = &self.ring[chunk].get_or_init(Box::default)[place];
        entry.with(|before| {
            if before > ts.0 {
                return before;
            }
            entry.id.store(id.map_or(0, |id| id.0), Ordering::Relaxed);
            if label.is_some() || entry.has_label.load(Ordering::Relaxed) {
                *entry.label.lock() = label.cloned();
                entry.has_label.store(label.is_some(), Ordering::Relaxed);
            }
            ts.0
        });
    }

    /// Who committed at `ts`, if that is still remembered. One without an identity gets `fresh`.
    pub fn who(&self, ts: Ts, fresh: impl FnOnce() -> TxnId) -> TxnSummary {
        let (chunk, place) = Self::place(ts);
        let mut who = TxnSummary { id: None, label: None };
        if let Some(chunk) = self.ring[chunk].get() {
            let entry = &chunk[place];
            entry.with(|at| {
                if at == ts.0 {
                    if entry.id.load(Ordering::Relaxed) == 0 {
                        entry.id.store(fresh().0, Ordering::Relaxed);
                    }
                    who.id = Some(TxnId(entry.id.load(Ordering::Relaxed)));
                    who.label = entry.label.lock().clone();
                }
                at
            });
        }
        who
    }

    fn place(ts: Ts) -> (usize, usize) {
        let place = usize::try_from(ts.0).unwrap_or(0) % REMEMBERED;
        (place / CHUNK, place % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commits_are_remembered_by_name_and_older_ones_are_not() {
        let recent = RecentCommits::default();
        let who = |ts: u64| recent.who(Ts(ts), || TxnId(ts + 9_000)).id;
        assert!(who(1).is_none(), "nobody has committed");
        let all = REMEMBERED as u64 + 40;
        (1..=all).for_each(|ts| recent.remember(Ts(ts), Some(TxnId(ts + 7)), None));
        // A late one does not replace a newer one.
        recent.remember(Ts(3), Some(TxnId(10)), None);
        for ts in 1..=all {
            let expected = (ts > 40).then_some(TxnId(ts + 7));
            assert_eq!(who(ts), expected, "{ts}");
        }
        recent.remember(Ts(all + 1), None, None);
        assert_eq!(who(all + 1), Some(TxnId(all + 1 + 9_000)), "it gets one when somebody asks");
        assert_eq!(recent.who(Ts(all + 1), || unreachable!("and keeps it")).id, who(all + 1));
    }
}
