//! The policy table: what a level and a mode mean. The only file that knows levels.
//!
//! Every transaction takes the same road; its policy, one row of this table fixed at begin, says
//! what it reads, what it locks, and what must still hold when it commits. The rest of the engine
//! asks the policy and never compares levels.
//!
//! | level | mode | reads see | read locks | write lock | check |
//! | --- | --- | --- | --- | --- | --- |
//! | read uncommitted | pessimistic | newest, in-flight included | – | at the write | – |
//! | read uncommitted | optimistic | newest, in-flight included | – | at commit | – |
//! | read committed | pessimistic | a fresh view per call | – | at the write | – |
//! | read committed | optimistic | a fresh view per call | – | at commit | – |
//! | repeatable read | pessimistic | newest, under the lock | keys, rows returned | at the write | – |
//! | repeatable read | optimistic | snapshot at begin | – | at commit | keys and rows read unchanged |
//! | snapshot | pessimistic | snapshot at begin | – | at the write | first updater wins |
//! | snapshot | optimistic | snapshot at begin | – | at commit | first committer wins |
//! | serializable | pessimistic | newest, under the lock | keys, spans | at the write | – |
//! | serializable | optimistic | snapshot at begin | – | at commit | keys and spans read unchanged |
//!
//! A transaction begun read-only reads one snapshot from repeatable read up: it is serial there, so
//! it locks nothing and certifies nothing. Sources: Adya (1999) for the levels, Berenson et al.
//! (1995) for snapshot isolation.

use isolde_types::{Isolation, LockMode, Mode};

/// What a plain read sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadView {
    /// The newest version, in-flight writes of pessimistic writers included.
    Dirty,
    /// What is visible when the call starts: one consistent view per call.
    Statement,
    /// What was visible when the transaction began.
    Snapshot,
    /// The newest committed version, read under a lock.
    Locked,
}

/// How much of what a transaction reads is kept as it was read. Ordered: spans include rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Footprint {
    /// Nothing.
    Nothing,
    /// Keys that were read, present or absent, and rows that a scan returned.
    Rows,
    /// These, and all of the span that was scanned.
    Spans,
}

/// When the write set is locked and its versions are put into their records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriteTiming {
    /// Pessimistic: when the operation runs.
    AtOnce,
    /// Optimistic: at commit.
    AtCommit,
}

/// What a written key is checked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriteCheck {
    /// Nothing: the write goes on top of what is there.
    Nothing,
    /// No commit newer than the snapshot: first updater, or first committer, wins.
    NotNewerThanSnapshot,
}

/// Whether skip-locked scans keep the level's promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SkipLocked {
    Sound,
    Unsound,
}

/// Whether a transaction was begun to read only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Policy {
    pub view: ReadView,
    pub read_lock: Footprint,
    pub certify: Footprint,
    pub writes: WriteTiming,
    pub write_check: WriteCheck,
    /// What `get_for_update` takes where it locks.
    pub update_lock: LockMode,
    pub skip_locked: SkipLocked,
}

impl Policy {
    /// The row for a level and a mode.
    pub const fn of(isolation: Isolation, mode: Mode, access: Access) -> Policy {
        let row = match mode {
            Mode::Pessimistic => Policy::pessimistic(isolation),
            Mode::Optimistic => Policy::optimistic(isolation),
        };
        match access {
            Access::ReadWrite => row,
            Access::ReadOnly => row.read_only(),
        }
    }

    /// Why a scan may not skip rows that are locked, if it may not.
    pub fn why_not_skip_locked(self) -> Option<&'static str> {
        match (self.writes, self.skip_locked) {
            (WriteTiming::AtCommit, _) => Some("skip_locked in optimistic mode: nothing is locked when a row is read"),
            (_, SkipLocked::Unsound) => Some("skip_locked at a level whose promise a skipped row would break"),
            (_, SkipLocked::Sound) => None,
        }
    }

    const fn pessimistic(isolation: Isolation) -> Policy {
        let base = Policy {
            view: ReadView::Statement,
            read_lock: Footprint::Nothing,
            certify: Footprint::Nothing,
            writes: WriteTiming::AtOnce,
            write_check: WriteCheck::Nothing,
            update_lock: LockMode::Exclusive,
            skip_locked: SkipLocked::Sound,
        };
        let locked =
            Policy { view: ReadView::Locked, update_lock: LockMode::Update, skip_locked: SkipLocked::Unsound, ..base };
        match isolation {
            Isolation::ReadUncommitted => Policy { view: ReadView::Dirty, ..base },
            Isolation::ReadCommitted => base,
            Isolation::RepeatableRead => Policy { read_lock: Footprint::Rows, ..locked },
            Isolation::Snapshot => {
                Policy { view: ReadView::Snapshot, write_check: WriteCheck::NotNewerThanSnapshot, ..base }
            }
            Isolation::Serializable => Policy { read_lock: Footprint::Spans, ..locked },
        }
    }

    const fn optimistic(isolation: Isolation) -> Policy {
        let base = Policy {
            view: ReadView::Snapshot,
            read_lock: Footprint::Nothing,
            certify: Footprint::Nothing,
            writes: WriteTiming::AtCommit,
            write_check: WriteCheck::Nothing,
            update_lock: LockMode::Exclusive,
            skip_locked: SkipLocked::Unsound,
        };
        match isolation {
            Isolation::ReadUncommitted => Policy { view: ReadView::Dirty, ..base },
            Isolation::ReadCommitted => Policy { view: ReadView::Statement, ..base },
            Isolation::RepeatableRead => Policy { certify: Footprint::Rows, ..base },
            Isolation::Snapshot => Policy { write_check: WriteCheck::NotNewerThanSnapshot, ..base },
            Isolation::Serializable => Policy { certify: Footprint::Spans, ..base },
        }
    }

    /// Whoever only reads is serial at its snapshot, where the level promises to repeat reads.
    const fn read_only(self) -> Policy {
        let view = match self.view {
            ReadView::Dirty | ReadView::Statement => self.view,
            ReadView::Snapshot | ReadView::Locked => ReadView::Snapshot,
        };
        Policy { view, read_lock: Footprint::Nothing, certify: Footprint::Nothing, ..self }
    }

    /// Whether plain reads take locks.
    pub fn locks_reads(&self) -> bool {
        self.read_lock > Footprint::Nothing
    }

    /// Whether the transaction reads one snapshot, taken at its begin.
    pub fn has_snapshot(&self) -> bool {
        self.view == ReadView::Snapshot
    }

    /// What a read sees that the transaction marks (or that its write depends on): never in-flight
    /// writes, which may not come to be.
    pub fn marked_view(&self) -> ReadView {
        match self.view {
            ReadView::Dirty => ReadView::Statement,
            other => other,
        }
    }
}

/// The level at which an optimistic body runs when it escalates to pessimistic mode: one whose
/// pessimistic row gives no less than the optimistic row did.
pub(crate) const fn escalated(isolation: Isolation) -> Isolation {
    match isolation {
        Isolation::ReadUncommitted | Isolation::ReadCommitted => Isolation::ReadCommitted,
        Isolation::Snapshot => Isolation::Snapshot,
        Isolation::RepeatableRead | Isolation::Serializable => Isolation::Serializable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locking_row_certifies_nothing_and_a_certifying_row_locks_nothing() {
        for isolation in Isolation::ALL {
            for mode in Mode::ALL {
                let policy = Policy::of(isolation, mode, Access::ReadWrite);
                assert!(policy.read_lock == Footprint::Nothing || policy.certify == Footprint::Nothing);
                assert_eq!(policy.view == ReadView::Locked, policy.locks_reads());
                assert!(policy.certify == Footprint::Nothing || policy.has_snapshot());
            }
        }
    }

    #[test]
    fn read_only_rows_lock_and_certify_nothing() {
        for isolation in Isolation::ALL {
            for mode in Mode::ALL {
                let policy = Policy::of(isolation, mode, Access::ReadOnly);
                assert!(!policy.locks_reads() && policy.certify == Footprint::Nothing);
                assert_ne!(policy.view, ReadView::Locked);
            }
        }
    }
}
