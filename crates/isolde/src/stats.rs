//! Figures and lists for people: what is going on in a database.

use std::fmt;

use isolde_locks::LockStats;
use isolde_types::sync::Arc;
use isolde_types::{Isolation, Mode, Ts, TxnId};

use crate::engine::{Core, TxnInner};

/// Figures about a database since it was opened.
///
/// Taken without stopping anybody, so figures of different parts may be of slightly different
/// instants.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Transactions begun.
    pub begun: u64,
    /// Transactions committed.
    pub committed: u64,
    /// Transactions rolled back, by their owner or by the database.
    pub rolled_back: u64,
    /// Conflicts: commits that failed certification, and calls that met a commit which their transaction cannot
    /// stand beside, such as a write at snapshot in pessimistic mode.
    pub conflicts: u64,
    /// Bodies that were run again.
    pub retries: u64,
    /// Transactions active now.
    pub active: usize,
    /// Keys that have a record: present, deleted and not yet collected, or locked while absent.
    pub records: usize,
    /// Versions, tombstones included.
    pub versions: usize,
    /// Bytes that keys, versions and indexes take, about.
    pub memory_bytes: usize,
    /// Registered views: open snapshots and calls in progress.
    pub views: usize,
    /// The oldest registered view; old ones keep old versions in memory.
    pub oldest_view: Option<Ts>,
    /// The state that a transaction begun now would see.
    pub visible_ts: Ts,
    /// What the lock manager counted.
    pub locks: LockStats,
}

impl Stats {
    pub(crate) fn of(core: &Core) -> Stats {
        let counts = core.registry.counts();
        let store = core.store.stats();
        Stats {
            begun: counts.begun,
            committed: counts.committed,
            rolled_back: counts.rolled_back,
            conflicts: counts.conflicts,
            retries: counts.retries,
            active: core.registry.active().len(),
            records: store.records,
            versions: store.versions,
            memory_bytes: store.bytes,
            views: core.views.count(),
            oldest_view: core.views.oldest(),
            visible_ts: core.timeline.visible(),
            locks: core.locks.stats(),
        }
    }
}

/// An active transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TxnInfo {
    /// Its identity.
    pub id: TxnId,
    /// The label that it was begun with.
    pub label: Option<Arc<str>>,
    /// Its level.
    pub isolation: Isolation,
    /// Its mode.
    pub mode: Mode,
    /// Whether it was begun read-only.
    pub read_only: bool,
    /// The state that its snapshot shows, at the levels that read one.
    pub read_ts: Option<Ts>,
    /// Keys that it has written so far.
    pub writes: usize,
}

impl TxnInfo {
    pub(crate) fn all(core: &Core) -> Vec<TxnInfo> {
        let mut all: Vec<TxnInfo> = core.registry.active().iter().map(|txn| TxnInfo::of(txn)).collect();
        all.sort_by_key(|info| info.id);
        all
    }

    fn of(txn: &TxnInner) -> TxnInfo {
        TxnInfo {
            id: txn.id(),
            label: txn.label.clone(),
            isolation: txn.isolation,
            mode: txn.mode,
            read_only: txn.is_read_only(),
            read_ts: txn.policy.has_snapshot().then(|| txn.read_ts()),
            writes: txn.body().writes.len(),
        }
    }
}

impl fmt::Display for TxnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.id, self.isolation, self.mode)?;
        if self.read_only {
            f.write_str(" read-only")?;
        }
        if let Some(label) = &self.label {
            write!(f, " {label:?}")?;
        }
        write!(f, ", {} writes", self.writes)
    }
}
