//! Redo: the log's commits are applied again, on several threads.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use isolde_types::mutant;

use crate::checkpoint::on_threads;
use crate::directory::Redo;
use crate::error::{Result, WalError};
use crate::manifest::Manifest;
use crate::record::Operations;
use crate::scan::{Found, SegmentBytes};

/// Redoes commits, each key on one thread, so that its changes come in their order.
pub(crate) fn redo_records(
    segment: &SegmentBytes<'_>,
    commits: &[&Found],
    manifest: &Manifest,
    threads: usize,
    redo: &dyn Redo,
) -> Result<()> {
    let hasher: BuildHasherDefault<DefaultHasher> = BuildHasherDefault::default();
    let share = |key: &[u8]| usize::try_from(hasher.hash_one(key) % threads.max(1) as u64).unwrap_or(0);
    let next = AtomicUsize::new(0);
    on_threads(threads, || {
        let mine = next.fetch_add(1, Ordering::Relaxed);
        for found in commits {
            let ts = found.header.commit_ts;
            for operation in Operations::new(segment.bytes.get(found.body.clone()).unwrap_or_default()) {
                let malformed = |_| {
                    let offset = found.at.0.saturating_sub(segment.header.start.0);
                    WalError::corrupt(segment.name, offset, "an operation makes no sense")
                };
                let (key, value) = operation.map_err(malformed)?;
                if value.is_none() && mutant!("deletions-are-not-redone") {
                    continue;
                }
                if (threads <= 1 || share(key) == mine) && ts > manifest.ts_of(key) {
                    redo.apply(key, value, ts);
                }
                if mutant!("record-redone-in-part") {
                    break;
                }
            }
        }
        Ok(())
    })
}
