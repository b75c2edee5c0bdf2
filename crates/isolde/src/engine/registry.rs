//! Who is active, and who committed lately: for people, for errors, and for limits.

use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex, Weak, thread_number};
use isolde_types::{Ts, TxnId};

use super::TxnInner;
use crate::error::TxnSummary;

/// Begin and end touch one shard, chosen by thread, so that threads do not meet here.
const SHARDS: usize = 16;

/// How many commits are remembered by name.
const REMEMBERED: usize = 1024;

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
            all.extend(shard.0.lock().active.iter().flatten().filter_map(Weak::upgrade));
        }
        all
    }
}

/// Threads are spread over the shards.
fn shard_of_this_thread() -> usize {
    thread_number() % SHARDS
}

/// Names of the last commits, so that a conflict can say with whom.
pub(crate) struct RecentCommits {
    ring: Box<[Mutex<(Ts, TxnSummary)>]>,
}

impl Default for RecentCommits {
    fn default() -> Self {
        let empty = || Mutex::new((Ts::ZERO, TxnSummary { id: None, label: None }));
        RecentCommits { ring: (0..REMEMBERED).map(|_| empty()).collect() }
    }
}

impl RecentCommits {
    pub fn remember(&self, ts: Ts, id: TxnId, label: Option<Arc<str>>) {
        let mut entry = self.slot(ts).lock();
        let forgotten =
            (ts > entry.0).then(|| std::mem::replace(&mut *entry, (ts, TxnSummary { id: Some(id), label })));
        drop(entry);
        drop(forgotten);
    }

    /// Who committed at `ts`, if that is still remembered.
    pub fn who(&self, ts: Ts) -> TxnSummary {
        let entry = self.slot(ts).lock();
        if entry.0 == ts { entry.1.clone() } else { TxnSummary { id: None, label: None } }
    }

    fn slot(&self, ts: Ts) -> &Mutex<(Ts, TxnSummary)> {
        &self.ring[usize::try_from(ts.0).unwrap_or(0) % REMEMBERED]
    }
}
