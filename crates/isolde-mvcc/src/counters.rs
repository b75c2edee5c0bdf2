//! Counts of versions and bytes, spread over cache lines so that writers do not meet.

use crossbeam_utils::CachePadded;
use isolde_types::sync::atomic::{AtomicI64, Ordering};

use crate::chain::Size;

const SHARDS: usize = 16;

#[derive(Debug, Default)]
struct Shard {
    versions: AtomicI64,
    bytes: AtomicI64,
}

/// See the module. A shard alone means nothing; the sum does.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    shards: [CachePadded<Shard>; SHARDS],
}

impl Counters {
    /// Adds a change; `hash` spreads the keys over the shards.
    pub fn add(&self, hash: u64, size: Size) {
        let shard = &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)];
        // Relaxed: figures for people and limits, not for decisions about memory. Most updates change neither.
        if size.versions != 0 {
            shard.versions.fetch_add(size.versions, Ordering::Relaxed);
        }
        if size.bytes != 0 {
            shard.bytes.fetch_add(size.bytes, Ordering::Relaxed);
        }
    }

    pub fn sum(&self) -> Size {
        self.shards.iter().fold(Size::default(), |sum, shard| Size {
            versions: sum.versions + shard.versions.load(Ordering::Relaxed),
            bytes: sum.bytes + shard.bytes.load(Ordering::Relaxed),
        })
    }
}
