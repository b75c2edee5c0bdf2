//! The point index: a sharded hash map from keys to records.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use isolde_types::RecordCell;
use isolde_types::sync::{Arc, RwLock, RwLockReadGuard};

use crate::prefetch::prefetch_before;
use crate::record::{Record, prefix};

const SHARDS: usize = if cfg!(any(shuttle, loom)) { 2 } else { 64 };

/// One shard: records by the hash that they keep.
type Shard<C> = RwLock<HashTable<Arc<Record<C>>>>;

/// Records by key.
#[derive(Debug)]
pub(crate) struct Points<C> {
    shards: Vec<Shard<C>>,
    hasher: RandomState,
}

/// A record that is on its way. To drop this is to wait for it, as each atomic operation is: do some work before. Until
/// then nobody enters a key beside it, so take no latch of the store meanwhile.
#[must_use = "what is dropped at once is waited for at once"]
pub struct Prefetched<'s, C> {
    _shard: RwLockReadGuard<'s, HashTable<Arc<Record<C>>>>,
}

impl<C: RecordCell> Points<C> {
    pub fn new() -> Points<C> {
        Points { shards: (0..SHARDS).map(|_| RwLock::new(HashTable::new())).collect(), hasher: RandomState::default() }
    }

    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn shard(&self, hash: u64) -> &Shard<C> {
        // The table inside uses the low and the top bits.
        &self.shards[usize::try_from(hash >> 40).unwrap_or(0) % SHARDS]
    }

    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Arc<Record<C>>> {
        self.find_with(hash, key, Arc::clone)
    }

    /// What `visit` makes of a key's record, under the shard's latch: saves a count of references, up and down.
    /// It may latch records, and nothing else.
    pub fn find_with<R>(&self, hash: u64, key: &[u8], visit: impl FnOnce(&Arc<Record<C>>) -> R) -> Option<R> {
        let start = prefix(key);
        let shard = self.shard(hash).read();
        prefetch_slots(&shard, hash);
        shard.find(hash, |record| record.is_of(key, start, hash)).map(|record| {
            // Before anything is counted or latched: those wait for each other.
            record.prefetch();
            visit(record)
        })
    }

    /// Prefetches the record of a key, if there is one, and waits for the index alone. The record is not looked at, so
    /// now and then it is another one, in vain.
    pub fn prefetch(&self, key: &[u8]) -> Prefetched<'_, C> {
        let hash = self.hash(key);
        let shard = self.shard(hash).read();
        prefetch_slots(&shard, hash);
        let _ = shard.find(hash, |record| {
            record.prefetch();
            true
        });
        Prefetched { _shard: shard }
    }

    /// The record of a key, made if there is none.
    pub fn find_or_insert(&self, hash: u64, key: &[u8], make: impl FnOnce() -> Record<C>) -> Arc<Record<C>> {
        let start = prefix(key);
        let mut shard = self.shard(hash).write();
        let entry = shard.entry(hash, |record| record.is_of(key, start, hash), |record| record.hash());
        Arc::clone(entry.or_insert_with(|| Arc::new(make())).get())
    }

    /// Makes room for so many records, spread over the shards.
    pub fn reserve(&self, records: usize) {
        let share = records / SHARDS + records / SHARDS / 8;
        for shard in &self.shards {
            shard.write().reserve(share, |record| record.hash());
        }
    }

    /// Takes this very record out; `false` if it was gone.
    pub fn remove(&self, record: &Arc<Record<C>>) -> bool {
        let mut shard = self.shard(record.hash()).write();
        match shard.find_entry(record.hash(), |other| Arc::ptr_eq(other, record)) {
            Ok(entry) => {
                let (removed, _) = entry.remove();
                drop(shard);
                drop(removed);
                true
            }
            Err(_) => false,
        }
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Heap bytes of the tables.
    pub fn bytes(&self) -> usize {
        /// A table has a control byte for each slot, and slots for an eighth more than its capacity.
        const SLOT: usize = size_of::<usize>() + 1;
        self.shards.iter().map(|shard| shard.read().capacity() * 8 / 7 * SLOT).sum()
    }
}

/// How many slots behind the first most entries are, at most.
const SLOTS_AHEAD: usize = 5;

/// Prefetches the slots that a table is likely to look at for a hash: a look-up finds the number of a slot in one place and
/// then waits for the slot in another, and so both come at once. A small table is near as it is.
#[inline]
fn prefetch_slots<T>(table: &HashTable<T>, hash: u64) {
    const SMALL: usize = 2048;
    if table.num_buckets() > SMALL
        && let Some((slot, ahead)) = likely_slot(table, hash)
    {
        prefetch_before(slot, ahead);
        prefetch_before(slot, ahead.wrapping_add(SLOTS_AHEAD));
    }
}

/// Where a table begins to look for a hash: so many slots before some slot that is occupied.
///
/// This is how hashbrown lays tables out: slots stand in descending order, and the low bits of a hash say where to begin.
/// If it did so no more, the wrong places would be prefetched, and a test would fail.
#[inline]
fn likely_slot<T>(table: &HashTable<T>, hash: u64) -> Option<(&T, usize)> {
    let begins = hash as usize & table.num_buckets().wrapping_sub(1);
    // Nearly always one of the first is. Their control bytes stay near the processor: each look-up asks for them.
    (0..16).find_map(|number| Some((table.get_bucket(number)?, begins.wrapping_sub(number))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_entries_stand_where_they_are_prefetched() {
        let hasher = foldhash::fast::FixedState::with_seed(7);
        let mut table = HashTable::new();
        for key in 0..3_000_u64 {
            table.insert_unique(hasher.hash_one(key), key, |key| hasher.hash_one(key));
        }
        let address = |slot: &u64| std::ptr::from_ref(slot) as usize;
        let is_ahead = |key: &u64| {
            let hash = hasher.hash_one(key);
            let (slot, ahead) = likely_slot(&table, hash).unwrap();
            let begins = address(slot).wrapping_sub(ahead.wrapping_mul(size_of::<u64>()));
            let entry = table.find(hash, |other| other == key).unwrap();
            begins.wrapping_sub(address(entry)) <= SLOTS_AHEAD * size_of::<u64>()
        };
        let ahead = table.iter().filter(|key| is_ahead(key)).count();
        assert!(ahead > 2_400, "{ahead} of 3,000");
    }
}
