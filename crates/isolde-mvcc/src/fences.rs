//! The low fences of the leaves, and nothing else: the one module that owns a skiplist.
//!
//! crossbeam-skiplist 0.1.3 has two defects: inserting over an existing key hides it from concurrent
//! readers for a moment, and `range` leaks the nodes that it walks past. So a fence is inserted once,
//! with `get_or_insert`, and only single entries are looked up; clippy refuses the two calls anywhere.
//! Under a model checker the fences are an ordinary map behind a latch, which it can see through.

use std::ops::Bound;

use isolde_types::Key;

#[cfg(not(any(shuttle, loom)))]
mod imp {
    use std::borrow::Borrow;
    use std::cmp::Ordering;

    use crossbeam_skiplist::SkipMap;

    use super::{Bound, Key};
    use crate::record::prefix;

    /// A key beside its first bytes, so that most comparisons end in the node of the skiplist.
    struct Fence {
        prefix: u128,
        key: Key,
    }

    /// What fences are compared by, whether they own their key or not.
    trait Place {
        fn prefix(&self) -> u128;
        fn key(&self) -> &[u8];
    }

    impl Place for Fence {
        fn prefix(&self) -> u128 {
            self.prefix
        }

        fn key(&self) -> &[u8] {
            &self.key
        }
    }

    impl Place for (u128, &[u8]) {
        fn prefix(&self) -> u128 {
            self.0
        }

        fn key(&self) -> &[u8] {
            self.1
        }
    }

    impl Ord for dyn Place + '_ {
        fn cmp(&self, other: &Self) -> Ordering {
            self.prefix().cmp(&other.prefix()).then_with(|| self.key().cmp(other.key()))
        }
    }

    impl PartialOrd for dyn Place + '_ {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for dyn Place + '_ {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }

    impl Eq for dyn Place + '_ {}

    impl Ord for Fence {
        fn cmp(&self, other: &Self) -> Ordering {
            (self as &dyn Place).cmp(other as &dyn Place)
        }
    }

    impl PartialOrd for Fence {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Fence {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }

    impl Eq for Fence {}

    impl<'p> Borrow<dyn Place + 'p> for Fence {
        fn borrow(&self) -> &(dyn Place + 'p) {
            self
        }
    }

    /// Values by key, found from the left.
    pub(crate) struct Fences<V: Send + 'static>(SkipMap<Fence, V>);

    impl<V: Clone + Send + Sync + 'static> Fences<V> {
        pub fn new() -> Self {
            Fences(SkipMap::new())
        }

        /// Enters a fence that is not there.
        pub fn insert(&self, key: Key, value: V) {
            let fence = |key: Key| Fence { prefix: prefix(&key), key };
            if isolde_types::mutant!("skiplist-reinsert") {
                #[allow(clippy::disallowed_methods, reason = "a seeded fault")]
                self.0.insert(fence(key.clone()), value.clone());
            }
            self.0.get_or_insert(fence(key), value);
        }

        pub fn remove(&self, key: &[u8]) {
            self.0.remove(&(prefix(key), key) as &dyn Place);
        }

        /// The value of the last key within the bound.
        pub fn last_below(&self, bound: Bound<&[u8]>) -> Option<V> {
            let places = bound.map(|key| (prefix(key), key));
            let places = places.as_ref().map(|place| place as &dyn Place);
            self.0.upper_bound(places).map(|entry| entry.value().clone())
        }

        pub fn len(&self) -> usize {
            self.0.len()
        }
    }
}

#[cfg(any(shuttle, loom))]
mod imp {
    use std::collections::BTreeMap;

    use isolde_types::sync::Mutex;

    use super::{Bound, Key};

    /// Values by key, found from the left.
    pub(crate) struct Fences<V>(Mutex<BTreeMap<Key, V>>);

    impl<V: Clone> Fences<V> {
        pub fn new() -> Self {
            Fences(Mutex::new(BTreeMap::new()))
        }

        pub fn insert(&self, key: Key, value: V) {
            self.0.lock().entry(key).or_insert(value);
        }

        pub fn remove(&self, key: &[u8]) {
            self.0.lock().remove(key);
        }

        pub fn last_below(&self, bound: Bound<&[u8]>) -> Option<V> {
            let map = self.0.lock();
            map.range::<[u8], _>((Bound::Unbounded, bound)).next_back().map(|(_, value)| value.clone())
        }

        pub fn len(&self) -> usize {
            self.0.lock().len()
        }
    }
}

pub(crate) use imp::Fences;

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// What leaks through `SkipMap::range` does not through the way we look.
    #[test]
    fn looking_does_not_leak_what_is_removed_later() {
        let probe = Arc::new(());
        let fences = Fences::new();
        for i in 0..1_000_u32 {
            fences.insert(Key::copy_from_slice(&i.to_be_bytes()), Arc::clone(&probe));
        }
        for i in 0..1_000_u32 {
            assert!(fences.last_below(Bound::Excluded(&(i + 1).to_be_bytes())).is_some());
        }
        (0..1_000_u32).for_each(|i| fences.remove(&i.to_be_bytes()));
        drop(fences);
        // Removed nodes are freed by later rounds of the collector, which other pins bring about.
        for round in 0.. {
            if Arc::strong_count(&probe) == 1 {
                return;
            }
            assert!(round < 100_000, "{} values leaked", Arc::strong_count(&probe) - 1);
            let other = Fences::new();
            (0..64_u32).for_each(|i| other.insert(Key::copy_from_slice(&i.to_be_bytes()), Arc::new(())));
            (0..64_u32).for_each(|i| other.remove(&i.to_be_bytes()));
        }
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
        let missed = (0..200_000).filter(|_| fences.last_below(Bound::Included(b"m")) != Some(7)).count();
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert_eq!(missed, 0, "the fence was hidden by an insert");
    }
}
