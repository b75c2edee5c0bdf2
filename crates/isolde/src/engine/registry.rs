//! Who is active, and who committed lately: for people, for errors, and for limits.

use std::sync::OnceLock;

use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex, Weak, thread_number};
use isolde_types::{Ts, TxnId};

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

#[derive(Default)]
struct Shard {
    active: Vec<Option<Weak<TxnInner>>>,
    free: Vec<usize>,
    counts: Counts,
}

/// Keeps a shard on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// The active transactions and the counters of begun and ended ones.
#[derive(Default)]
pub(crate) struct Registry {
    shards: [Padded<Mutex<Shard>>; SHARDS],
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

/// The place of a transaction that is entered once and leaves once.
#[derive(Debug, Default)]
pub(crate) struct PlaceCell(AtomicU64);

impl PlaceCell {
    pub fn set(&self, place: Place) {
        self.0.store(place.pack(), Ordering::Release);
    }

    /// The place, for the one who gets it.
    pub fn take(&self) -> Option<Place> {
        Place::unpack(self.0.swap(Place::NOWHERE, Ordering::AcqRel))
    }
}

impl Registry {
    pub fn enter(&self, txn: Weak<TxnInner>) -> Place {
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
        inside.active[slot] = Some(txn);
        Place { shard, slot }
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

type Chunk = Box<[Mutex<(Ts, TxnSummary)>; CHUNK]>;

impl RecentCommits {
    pub fn remember(&self, ts: Ts, id: TxnId, label: Option<Arc<str>>) {
        let (chunk, place) = Self::place(ts);
        let chunk =
            self.ring[chunk].get_or_init(|| Box::new(std::array::from_fn(|_| Mutex::new((Ts::ZERO, nobody())))));
        let mut entry = chunk[place].lock();
        let forgotten =
            (ts > entry.0).then(|| std::mem::replace(&mut *entry, (ts, TxnSummary { id: Some(id), label })));
        drop(entry);
        drop(forgotten);
    }

    /// Who committed at `ts`, if that is still remembered.
    pub fn who(&self, ts: Ts) -> TxnSummary {
        let (chunk, place) = Self::place(ts);
        let Some(chunk) = self.ring[chunk].get() else { return nobody() };
        let entry = chunk[place].lock();
        if entry.0 == ts { entry.1.clone() } else { nobody() }
    }

    fn place(ts: Ts) -> (usize, usize) {
        let place = usize::try_from(ts.0).unwrap_or(0) % REMEMBERED;
        (place / CHUNK, place % CHUNK)
    }
}

const fn nobody() -> TxnSummary {
    TxnSummary { id: None, label: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commits_are_remembered_by_name_and_older_ones_are_not() {
        let recent = RecentCommits::default();
        assert!(recent.who(Ts(1)).id.is_none(), "nobody has committed");
        let all = REMEMBERED as u64 + 40;
        (1..=all).for_each(|ts| recent.remember(Ts(ts), TxnId(ts + 7), None));
        // A late one does not replace a newer one.
        recent.remember(Ts(3), TxnId(10), None);
        for ts in 1..=all {
            let expected = (ts > 40).then_some(TxnId(ts + 7));
            assert_eq!(recent.who(Ts(ts)).id, expected, "{ts}");
        }
    }
}
