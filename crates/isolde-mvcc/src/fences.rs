//! The low fences of the leaves: in which leaf a key belongs, or in one left of it.
//!
//! ```text
//!   blocks      from ""          from "k"             each at least half full, but for the last
//!   fences      "" "c" "g"       "k" "p" "t"          sorted, first bytes of the keys apart
//!   leaves      ▢  ▢   ▢         ▢   ▢   ▢
//! ```
//!
//! The first bytes of all fences of a block lie side by side, so that a search among a million keys
//! meets two short arrays that stay near the processor, not a path of nodes that do not.
//!
//! Everybody who looks for a leaf passes here, so those who read meet no common counter: the latch is one
//! for each of a few groups of threads, and who enters or removes a fence takes them all. That comes once in
//! some thirty new keys.

use std::ops::Bound;

use isolde_types::Key;
use latch::Latch;

use crate::record::prefix;

/// How many fences a block holds at most.
const BLOCK_FENCES: usize = if cfg!(any(shuttle, loom)) { 2 } else { 256 };

/// Values by key, sorted, in vectors side by side.
struct Sorted<V> {
    prefixes: Vec<u128>,
    keys: Vec<Key>,
    values: Vec<V>,
}

/// Values by key, found from the left.
///
/// The key of a block is at or before its fences, and after those of the blocks before it; the first
/// block's is empty. No block is empty, but perhaps the first.
pub(crate) struct Fences<V>(Latch<Sorted<Sorted<V>>>);

impl<V> Sorted<V> {
    fn new() -> Sorted<V> {
        Sorted { prefixes: Vec::new(), keys: Vec::new(), values: Vec::new() }
    }

    /// How many keys are within the bound.
    fn count_within(&self, bound: Bound<&[u8]>) -> usize {
        let (Bound::Included(key) | Bound::Excluded(key)) = bound else { return self.keys.len() };
        let start = prefix(key);
        let less = self.prefixes.partition_point(|other| *other < start);
        let alike = self.prefixes[less..].partition_point(|other| *other == start);
        let within = |other: &Key| match bound {
            Bound::Included(key) => other[..] <= *key,
            _ => other[..] < *key,
        };
        less + self.keys[less..less + alike].partition_point(within)
    }

    fn insert(&mut self, place: usize, key: Key, value: V) {
        self.prefixes.insert(place, prefix(&key));
        self.keys.insert(place, key);
        self.values.insert(place, value);
    }

    fn remove(&mut self, place: usize) -> (Key, V) {
        self.prefixes.remove(place);
        (self.keys.remove(place), self.values.remove(place))
    }

    fn split_off(&mut self, place: usize) -> Sorted<V> {
        Sorted {
            prefixes: self.prefixes.split_off(place),
            keys: self.keys.split_off(place),
            values: self.values.split_off(place),
        }
    }

    /// Heap bytes of the vectors.
    fn bytes(&self) -> usize {
        self.prefixes.capacity() * size_of::<u128>()
            + self.keys.capacity() * size_of::<Key>()
            + self.values.capacity() * size_of::<V>()
    }
}

impl<V> Sorted<Sorted<V>> {
    /// The place of the block in which `key` belongs.
    fn block_of(&self, key: &[u8]) -> usize {
        self.count_within(Bound::Included(key)) - 1
    }
}

impl<V> Fences<V> {
    pub fn new() -> Fences<V> {
        let mut blocks = Sorted::new();
        blocks.insert(0, Key::new(), Sorted::new());
        Fences(Latch::new(blocks))
    }

    /// Enters a fence that is not there.
    pub fn insert(&self, key: Key, value: V) {
        if isolde_types::mutant!("fence-reinsert") {
            self.remove(&key);
        }
        let mut blocks = self.0.write();
        let at = blocks.block_of(&key);
        let is_last = at + 1 == blocks.values.len();
        let block = &mut blocks.values[at];
        let place = block.count_within(Bound::Included(&key));
        if place > 0 && block.keys[place - 1] == key {
            return;
        }
        block.insert(place, key, value);
        let len = block.keys.len();
        if len > BLOCK_FENCES {
            // Fences that come in order leave full blocks behind.
            let middle = if is_last && place + 1 == len { place } else { len / 2 };
            let right = block.split_off(middle);
            blocks.insert(at + 1, right.keys[0].clone(), right);
        }
    }

    pub fn remove(&self, key: &[u8]) {
        let mut blocks = self.0.write();
        let at = blocks.block_of(key);
        let block = &mut blocks.values[at];
        let within = block.count_within(Bound::Included(key));
        let removed = (within > 0 && block.keys[within - 1][..] == *key).then(|| block.remove(within - 1));
        let emptied = (block.keys.is_empty() && at > 0).then(|| blocks.remove(at));
        drop(blocks);
        drop((removed, emptied));
    }

    /// What `found` makes of the value of the last key within the bound.
    pub fn last_below<R>(&self, bound: Bound<&[u8]>, found: impl Fn(&V) -> R) -> Option<R> {
        let blocks = self.0.read();
        let within = blocks.count_within(bound);
        blocks.values.iter().take(within).rev().find_map(|block| {
            let within = block.count_within(bound);
            block.values.get(within.checked_sub(1)?).map(&found)
        })
    }

    /// Heap bytes, the keys apart: they are the leaves'.
    pub fn bytes(&self) -> usize {
        let blocks = self.0.read();
        blocks.bytes() + blocks.values.iter().map(Sorted::bytes).sum::<usize>()
    }
}

#[cfg(not(any(shuttle, loom)))]
mod latch {
    use std::sync::PoisonError;

    use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

    /// A latch whose readers on different threads do not meet.
    pub(super) struct Latch<T>(ShardedLock<T>);

    impl<T> Latch<T> {
        pub fn new(inside: T) -> Latch<T> {
            Latch(ShardedLock::new(inside))
        }

        pub fn read(&self) -> ShardedLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub fn write(&self) -> ShardedLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(any(shuttle, loom))]
mod latch {
    pub(super) use isolde_types::sync::RwLock as Latch;
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Random changes, and every kind of search, beside a map of the standard library.
    #[test]
    fn fences_agree_with_a_sorted_map() {
        let mut rng = fastrand::Rng::with_seed(11);
        let (fences, mut map) = (Fences::new(), BTreeMap::new());
        for number in 0..20_000_u32 {
            // Some keys differ in their first bytes, some only far behind.
            let start = ["", "a", "a name that is long enough ", "b"][rng.usize(..4)];
            let key = Key::from(format!("{start}{:03}", rng.u32(..1_000)));
            let growing = (number / 4_000) % 2 == 0;
            if rng.u32(..8) < if growing { 6 } else { 2 } {
                fences.insert(key.clone(), number);
                map.entry(key.clone()).or_insert(number);
            } else {
                fences.remove(&key);
                map.remove(&key);
            }
            let bounds = [Bound::Included(&key[..]), Bound::Excluded(&key[..]), Bound::Unbounded];
            for bound in bounds {
                let wanted = map.range::<[u8], _>((Bound::Unbounded, bound)).next_back().map(|(_, value)| *value);
                assert_eq!(fences.last_below(bound, |number| *number), wanted, "{bound:?} after {number} changes");
            }
        }
        assert!(map.len() > BLOCK_FENCES, "{} fences are one block", map.len());
    }

    #[test]
    fn what_is_removed_is_dropped() {
        let probe = Arc::new(());
        let fences = Fences::new();
        let key = |i: u32| Key::copy_from_slice(&i.to_be_bytes());
        (0..2_000).for_each(|i| fences.insert(key(i), Arc::clone(&probe)));
        (0..2_000).for_each(|i| fences.remove(&key(i)));
        assert_eq!(Arc::strong_count(&probe), 1);
        assert_eq!(fences.0.read().values.len(), 1, "only the first block may be empty");
    }

    /// A fence that is always there is always found, while others come and go and it is entered again.
    #[test]
    fn a_fence_that_is_there_is_always_found() {
        let fences = Arc::new(Fences::new());
        let fixed = Key::from_static(b"m");
        fences.insert(fixed.clone(), 7);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (fences, stop, fixed) = (Arc::clone(&fences), Arc::clone(&stop), fixed.clone());
            move || {
                for i in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let other = Key::copy_from_slice(&(i % 64).to_be_bytes());
                    fences.insert(fixed.clone(), 7);
                    fences.insert(other.clone(), 1);
                    fences.remove(&other);
                }
            }
        });
        let missed =
            (0..200_000).filter(|_| fences.last_below(Bound::Included(b"m"), |number| *number) != Some(7)).count();
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert_eq!(missed, 0, "the fence was hidden by an insert");
    }
}
