//! Newtypes for the numbers that must not be swapped.

use std::fmt;

/// A logical time: the position of a commit in the one order of all commits.
///
/// `read_ts`, `commit_ts` and `visible_ts` are of this type. [`Ts::ZERO`] is before every commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ts(pub u64);

impl Ts {
    /// Before every commit: the state of an empty database.
    pub const ZERO: Ts = Ts(0);
    /// After every commit; no transaction ever gets it.
    pub const MAX: Ts = Ts(u64::MAX);

    /// The timestamp after this one.
    #[must_use]
    pub const fn next(self) -> Ts {
        Ts(self.0 + 1)
    }
}

impl fmt::Display for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl fmt::Debug for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identity of a transaction, unique in one open database; smaller is older.
///
/// Zero is never given to a transaction, so that a lock word of zero can mean "free".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub u64);

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", self.0)
    }
}

impl fmt::Debug for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
