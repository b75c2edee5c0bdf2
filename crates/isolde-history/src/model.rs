//! The history model: events in the order in which they were observed.

use bytes::Bytes;
use isolde_types::{Isolation, Key, Mode, Span, Ts};

/// A transaction within one history: a small number that the recorder gives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TxnKey(pub u64);

/// Which version of a key was read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// No version at all: the key was not there. Collected tombstones look like this too; the
    /// checker takes it for the newest tombstone at or below the read's `as_of` if there is one, and
    /// where the read has none, for the initial absence or the last tombstone.
    None,
    /// The version that was committed at this time; a tombstone is a version.
    Committed(Ts),
    /// A write that was not committed when it was read: its transaction, and which of its writes
    /// (numbered from 1 in the order of its `Write` events) it was.
    InFlight {
        /// The writer.
        txn: TxnKey,
        /// The number of the write within the writer.
        seq: u32,
    },
    /// The reader's own write, by its number.
    Own(u32),
}

/// How a key was read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReadKind {
    /// A read whose truth the level promises to keep: it makes rw edges.
    Tracked,
    /// `get_untracked`, or a row found by a skip-locked scan: it makes no rw edge.
    Untracked,
}

/// One key met by a scan: a row (`value` present) or a tombstone that it passed (`value` absent).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Row {
    /// The key.
    pub key: Key,
    /// The version read.
    pub version: Version,
    /// Its value; `None` for a tombstone.
    pub value: Option<Bytes>,
}

/// One observation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A transaction began, at this level and mode.
    Begin {
        /// Who.
        txn: TxnKey,
        /// What people call it, such as `T1`.
        name: String,
        /// Its level.
        isolation: Isolation,
        /// Its mode.
        mode: Mode,
        /// Whether it was begun read-only.
        read_only: bool,
    },
    /// A key was read.
    Read {
        /// Who.
        txn: TxnKey,
        /// The key.
        key: Key,
        /// The version read.
        version: Version,
        /// Its value; `None` for an absent key.
        value: Option<Bytes>,
        /// What the read promises.
        kind: ReadKind,
        /// The committed state that the read looked at, if it looked at one.
        as_of: Option<Ts>,
    },
    /// A span was scanned: every key in it that had a version in the view.
    Scan {
        /// Who.
        txn: TxnKey,
        /// The part of the span that was really looked at (a scan may be left early).
        span: Span,
        /// Rows and tombstones met, in key order.
        rows: Vec<Row>,
        /// What the scan promises.
        kind: ReadKind,
        /// The committed state that the scan looked at, if it looked at one.
        as_of: Option<Ts>,
    },
    /// A key was written; `None` is a delete. An increment or merge reads nothing: its value is not
    /// known yet and `Resolved` gives it.
    Write {
        /// Who.
        txn: TxnKey,
        /// The key.
        key: Key,
        /// The number of this write within its transaction, from 1.
        seq: u32,
        /// The value, or `None` for a delete.
        value: Option<Bytes>,
        /// Whether it is an increment or merge, whose value is only known at commit.
        blind: bool,
    },
    /// Writes numbered above `seq` were undone.
    RollbackTo {
        /// Who.
        txn: TxnKey,
        /// The last write that stands.
        seq: u32,
    },
    /// The transaction committed; its last write of each key became the version of `ts`.
    Commit {
        /// Who.
        txn: TxnKey,
        /// Its place in the commit order; `None` for one that wrote nothing or where unknown.
        ts: Option<Ts>,
        /// The values that increments and merges came to.
        resolved: Vec<(Key, Bytes)>,
    },
    /// The transaction was rolled back, by its caller or by the database.
    Abort {
        /// Who.
        txn: TxnKey,
    },
    /// Whether the transaction committed is not known.
    Unknown {
        /// Who.
        txn: TxnKey,
    },
}

/// What was observed, and the state that it started from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Keys that were present before the first event, and their values. Their versions are
    /// `Committed(ts)` for any `ts` at or below `start`.
    pub initial: Vec<(Key, Bytes)>,
    /// The commit order's position when recording began.
    pub start: Ts,
    /// The version order of a key, oldest first, where commit times do not give it: each write (its
    /// transaction, and its number there) in the order in which it took its place. Only the writes
    /// that became versions count. A key that is not listed is in the order of its commit times.
    ///
    /// A database that keeps versions by commit time lists nothing; one that writes in place, where
    /// two transactions may overwrite each other in opposite orders, lists every key.
    pub order: Vec<(Key, Vec<(TxnKey, u32)>)>,
    /// The events, in the order in which they were observed. Order between transactions matters
    /// for real time alone: one that ended before another began precedes it.
    pub events: Vec<Event>,
}
