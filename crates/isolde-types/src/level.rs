//! Isolation levels and modes.

use std::fmt;
use std::str::FromStr;

use crate::Anomaly;

/// An isolation level: which anomalies a transaction is protected from.
///
/// The names and what each forbids follow Adya (1999) and Berenson et al. (1995). The variants are
/// deliberately not ordered: snapshot isolation and repeatable read are incomparable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Isolation {
    /// Reads may see writes that are not committed, and may never be. Forbids dirty writes (G0).
    ReadUncommitted,
    /// Each call reads one state that was committed at its start. Forbids G0 and G1.
    ReadCommitted,
    /// What was read stays as it was read (Adya's PL-2.99); new keys may appear in scans.
    RepeatableRead,
    /// All reads come from the state at the transaction's begin, and no concurrent transaction
    /// writes a key that this one writes. Allows write skew.
    Snapshot,
    /// As if transactions ran one after another, in an order that agrees with real time.
    #[default]
    Serializable,
}

impl Isolation {
    /// All levels, as the matrix lists them.
    pub const ALL: [Isolation; 5] = [
        Isolation::ReadUncommitted,
        Isolation::ReadCommitted,
        Isolation::RepeatableRead,
        Isolation::Snapshot,
        Isolation::Serializable,
    ];

    /// The name in commands and files: `read-uncommitted` to `serializable`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Isolation::ReadUncommitted => "read-uncommitted",
            Isolation::ReadCommitted => "read-committed",
            Isolation::RepeatableRead => "repeatable-read",
            Isolation::Snapshot => "snapshot",
            Isolation::Serializable => "serializable",
        }
    }

    /// The anomalies that this level forbids, by its definition and in either mode.
    ///
    /// ```
    /// use isolde_types::{Anomaly, Isolation};
    /// assert!(Isolation::Snapshot.forbids().contains(&Anomaly::LostUpdate));
    /// assert!(!Isolation::Snapshot.forbids().contains(&Anomaly::WriteSkew));
    /// ```
    #[must_use]
    pub const fn forbids(self) -> &'static [Anomaly] {
        use Anomaly::*;
        match self {
            Isolation::ReadUncommitted => &[DirtyWrite, Internal],
            Isolation::ReadCommitted => &[DirtyWrite, AbortedRead, IntermediateRead, CircularFlow, Internal],
            Isolation::RepeatableRead => &[
                DirtyWrite,
                AbortedRead,
                IntermediateRead,
                CircularFlow,
                ReadSkewItem,
                LostUpdate,
                WriteSkew,
                Internal,
            ],
            Isolation::Snapshot => &[
                DirtyWrite,
                AbortedRead,
                IntermediateRead,
                CircularFlow,
                TransactionVanishes,
                ReadSkewItem,
                ReadSkew,
                LostUpdate,
                LongFork,
                Internal,
            ],
            Isolation::Serializable => &Anomaly::ALL,
        }
    }
}

/// What a level promises in one mode: what its definition forbids, and what the way in which the mode
/// keeps it forbids besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guarantees {
    /// The anomalies that cannot happen to such a transaction, whatever the others run at.
    pub forbidden: &'static [Anomaly],
}

impl Guarantees {
    /// Whether all that a level's definition forbids is forbidden.
    ///
    /// ```
    /// use isolde_types::{Isolation, Mode};
    /// let snapshot = Isolation::Snapshot.guarantees(Mode::Optimistic);
    /// assert!(snapshot.keep(Isolation::ReadCommitted));
    /// assert!(!snapshot.keep(Isolation::RepeatableRead), "write skew");
    /// ```
    #[must_use]
    pub fn keep(&self, isolation: Isolation) -> bool {
        isolation.forbids().iter().all(|anomaly| self.forbidden.contains(anomaly))
    }
}

impl Isolation {
    /// What this level promises in a mode. Where the mode is stronger than the level asks, this says so:
    /// repeatable read and read committed let no observed transaction vanish. (Optimistic repeatable read
    /// reads one snapshot, and still does not keep what snapshot promises: it may overwrite, unread, what
    /// was committed since, and then what its scans saw is too old.)
    ///
    /// Between two optimistic transactions a dirty read cannot happen even at read uncommitted; it is
    /// not promised, because an optimistic transaction may read what a pessimistic one has in flight.
    #[must_use]
    pub const fn guarantees(self, mode: Mode) -> Guarantees {
        use Anomaly::*;
        let forbidden: &'static [Anomaly] = match (self, mode) {
            (Isolation::ReadCommitted, _) => {
                &[DirtyWrite, AbortedRead, IntermediateRead, CircularFlow, TransactionVanishes, Internal]
            }
            (Isolation::RepeatableRead, _) => &[
                DirtyWrite,
                AbortedRead,
                IntermediateRead,
                CircularFlow,
                TransactionVanishes,
                ReadSkewItem,
                LostUpdate,
                WriteSkew,
                Internal,
            ],
            (Isolation::ReadUncommitted | Isolation::Snapshot | Isolation::Serializable, _) => self.forbids(),
        };
        Guarantees { forbidden }
    }
}

/// How a level is kept: by locks as operations run, or by certification at commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// Lock and check when the operation runs; conflicts wait.
    Pessimistic,
    /// Lock and check at commit; conflicts abort, and are retried.
    #[default]
    Optimistic,
}

impl Mode {
    /// Both modes, as the matrix lists them.
    pub const ALL: [Mode; 2] = [Mode::Pessimistic, Mode::Optimistic];

    /// The name in commands and files: `pessimistic` or `optimistic`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Pessimistic => "pessimistic",
            Mode::Optimistic => "optimistic",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no level or no mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseLevelError {
    word: String,
    expected: &'static str,
}

impl fmt::Display for ParseLevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown word {:?}: expected {}", self.word, self.expected)
    }
}

impl std::error::Error for ParseLevelError {}

impl FromStr for Isolation {
    type Err = ParseLevelError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Isolation::ALL.into_iter().find(|level| level.name() == word).ok_or_else(|| ParseLevelError {
            word: word.to_owned(),
            expected: "read-uncommitted, read-committed, repeatable-read, snapshot or serializable",
        })
    }
}

impl FromStr for Mode {
    type Err = ParseLevelError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.name() == word)
            .ok_or_else(|| ParseLevelError { word: word.to_owned(), expected: "pessimistic or optimistic" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_never_promises_less_than_its_level() {
        for level in Isolation::ALL {
            assert!(Mode::ALL.iter().all(|mode| level.guarantees(*mode).keep(level)), "{level}");
        }
    }

    #[test]
    fn names_parse_back() {
        for level in Isolation::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        for mode in Mode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert!("SERIALIZABLE".parse::<Isolation>().unwrap_err().to_string().contains("serializable"));
    }
}
