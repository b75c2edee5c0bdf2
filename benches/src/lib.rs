//! What the benchmarks measure with: keys, tables to compare with, and fair rounds.
//!
//! Figures of two things are compared only within one process, in interleaved rounds, and reported
//! as the median of the rounds' ratios: machines are noisy, ratios less so.

mod bare;
pub mod checker;
pub mod durable;
pub mod opening;
pub mod shape;

use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use isolde::{Db, Isolation, Mode};
use parking_lot::RwLock;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;

/// A random order of distinct 16-byte keys: the `i`-th key of a set, for any `i`.
#[must_use]
pub fn key(i: u64) -> [u8; 16] {
    let mixed = u128::from(mix(i)) << 64 | u128::from(i);
    mixed.to_be_bytes()
}

/// A bijection that scatters its argument (the finalizer of MurmurHash3, public domain).
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// A value of the usual size.
#[must_use]
pub fn value() -> Bytes {
    Bytes::from(vec![7_u8; VALUE_BYTES])
}

/// A database that holds the first `keys` keys.
///
/// # Panics
/// If it cannot be filled.
#[must_use]
pub fn filled(keys: u64) -> Db {
    let db = Db::builder().in_memory().open().expect("the options are sound");
    let batch = 10_000;
    for start in (0..keys).step_by(batch) {
        let txn =
            db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Optimistic).begin().expect("the database is open");
        for i in start..(start + batch as u64).min(keys) {
            txn.put(key(i), [7_u8; VALUE_BYTES]).expect("nobody else writes");
        }
        txn.commit().expect("nobody else writes");
    }
    db
}

/// A bare sharded hash map: what a point read costs without transactions.
pub struct ShardedMap {
    shards: Vec<RwLock<HashMap<Bytes, Bytes, RandomState>>>,
    hasher: RandomState,
}

impl ShardedMap {
    /// The first `keys` keys in 256 shards.
    #[must_use]
    pub fn filled(keys: u64) -> ShardedMap {
        let map = ShardedMap { shards: (0..256).map(|_| RwLock::default()).collect(), hasher: RandomState::default() };
        for i in 0..keys {
            let key = Bytes::copy_from_slice(&key(i));
            map.shard(&key).write().insert(key, value());
        }
        map
    }

    fn shard(&self, key: &[u8]) -> &RwLock<HashMap<Bytes, Bytes, RandomState>> {
        use std::hash::BuildHasher;
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash >> 56).expect("eight bits")]
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.shard(key).read().get(key).cloned()
    }
}

/// Nanoseconds per call of `work`, over `calls` calls.
pub fn nanos_per_call(calls: u64, mut work: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    (0..calls).for_each(&mut work);
    start.elapsed().as_nanos() as f64 / calls as f64
}

/// The middle of some figures.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    assert!(!sorted.is_empty(), "a median of nothing");
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_and_the_tables_hold_them() {
        let distinct: std::collections::BTreeSet<_> = (0..1000).map(key).collect();
        assert_eq!(distinct.len(), 1000);
        let (db, map) = (filled(100), ShardedMap::filled(100));
        for i in 0..100 {
            assert_eq!(db.get(key(i)).unwrap().unwrap().len(), VALUE_BYTES);
            assert!(map.get(&key(i)).is_some());
        }
        assert!(map.get(&key(100)).is_none());
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).total_cmp(&2.0), std::cmp::Ordering::Equal);
    }
}
