//! Options and figures of the log.

use std::time::Duration;

use isolde_types::sync::atomic::{AtomicU64, Ordering};

/// When the log's thread writes and syncs what nobody waits for.
#[derive(Clone, Debug)]
pub struct WriteBehind {
    /// It writes when so many bytes stand unwritten...
    pub write_bytes: usize,
    /// ...or since so long.
    pub write_after: Duration,
    /// It syncs when so many bytes stand unsynced...
    pub sync_bytes: u64,
    /// ...or since so long.
    pub sync_after: Duration,
    /// Commits wait when so many bytes stand unwritten.
    pub limit_bytes: usize,
}

impl Default for WriteBehind {
    fn default() -> Self {
        WriteBehind {
            write_bytes: 1 << 20,
            write_after: Duration::from_secs(1),
            sync_bytes: 64 << 20,
            sync_after: Duration::from_secs(10),
            limit_bytes: 64 << 20,
        }
    }
}

#[derive(Default)]
pub(super) struct Counts {
    pub syncs: AtomicU64,
    pub batches: AtomicU64,
    pub records: AtomicU64,
    pub bytes: AtomicU64,
    /// Bytes appended since the last checkpoint began.
    pub since_checkpoint: AtomicU64,
}

/// Figures of the log since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LogStats {
    /// How often the disk was asked to sync.
    pub syncs: u64,
    /// Writes, each of as many records as stood there.
    pub batches: u64,
    /// Records.
    pub records: u64,
    /// Bytes of records.
    pub bytes: u64,
}

impl Counts {
    pub fn stats(&self) -> LogStats {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { syncs, batches, records, bytes, .. } = self;
        LogStats { syncs: load(syncs), batches: load(batches), records: load(records), bytes: load(bytes) }
    }
}
