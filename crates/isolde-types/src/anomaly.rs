//! The anomalies, by Adya's and Hermitage's names.

use std::fmt;

/// A class of anomaly that a history can show.
///
/// Sources: Adya, "Weak Consistency" (1999) for G0, G1, G-single and G2; Berenson et al., "A
/// Critique of ANSI SQL Isolation Levels" (1995) for P4; Hermitage for OTV and PMP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Anomaly {
    /// G0: a cycle of ww edges.
    DirtyWrite,
    /// G1a: a committed transaction read a version of an aborted one, or one undone by a savepoint.
    AbortedRead,
    /// G1b: a transaction read a version that its writer later overwrote itself.
    IntermediateRead,
    /// G1c: a cycle of ww and wr edges with at least one wr.
    CircularFlow,
    /// OTV: after one version of a transaction was read, an older version of another key that it
    /// also wrote was read.
    TransactionVanishes,
    /// G-single whose one rw edge is on an item: read skew, fuzzy read.
    ReadSkewItem,
    /// G-single whose one rw edge is on a predicate: a phantom.
    ReadSkew,
    /// P4: two committed transactions read one version of a key, and both wrote the key.
    LostUpdate,
    /// A cycle with two or more rw edges, no two of them adjacent.
    LongFork,
    /// G2-item: a cycle with two or more rw edges, all on items.
    WriteSkew,
    /// G2: a cycle with two or more rw edges, some on predicates.
    PredicateWriteSkew,
    /// A cycle that closes only through real time: a stale read.
    Realtime,
    /// A read that differs from the transaction's own last write of that key.
    Internal,
}

impl Anomaly {
    /// All classes, from the gravest to the mildest.
    pub const ALL: [Anomaly; 13] = [
        Anomaly::DirtyWrite,
        Anomaly::AbortedRead,
        Anomaly::IntermediateRead,
        Anomaly::CircularFlow,
        Anomaly::TransactionVanishes,
        Anomaly::ReadSkewItem,
        Anomaly::ReadSkew,
        Anomaly::LostUpdate,
        Anomaly::LongFork,
        Anomaly::WriteSkew,
        Anomaly::PredicateWriteSkew,
        Anomaly::Realtime,
        Anomaly::Internal,
    ];

    /// The code that literature, schedules and reports use.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Anomaly::DirtyWrite => "G0",
            Anomaly::AbortedRead => "G1a",
            Anomaly::IntermediateRead => "G1b",
            Anomaly::CircularFlow => "G1c",
            Anomaly::TransactionVanishes => "OTV",
            Anomaly::ReadSkewItem => "G-single-item",
            Anomaly::ReadSkew => "G-single",
            Anomaly::LostUpdate => "P4",
            Anomaly::LongFork => "long-fork",
            Anomaly::WriteSkew => "G2-item",
            Anomaly::PredicateWriteSkew => "G2",
            Anomaly::Realtime => "G-single-realtime",
            Anomaly::Internal => "internal",
        }
    }

    /// What people call it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Anomaly::DirtyWrite => "dirty write",
            Anomaly::AbortedRead => "aborted read",
            Anomaly::IntermediateRead => "intermediate read",
            Anomaly::CircularFlow => "circular information flow",
            Anomaly::TransactionVanishes => "observed transaction vanishes",
            Anomaly::ReadSkewItem => "read skew",
            Anomaly::ReadSkew => "phantom",
            Anomaly::LostUpdate => "lost update",
            Anomaly::LongFork => "long fork",
            Anomaly::WriteSkew => "write skew",
            Anomaly::PredicateWriteSkew => "predicate write skew",
            Anomaly::Realtime => "stale read",
            Anomaly::Internal => "own write not read",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}
