//! Lock modes, and what an index may ask of the lock on a record.

use std::fmt;

/// How strongly a transaction holds a key or a span.
///
/// The derived order is the order of strength: a holder of a stronger mode needs no weaker one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LockMode {
    /// Others may share it too: what is read stays.
    Shared,
    /// Compatible with Shared and not with itself: a read that means to write, so that two of them
    /// do not deadlock on their upgrade.
    Update,
    /// Compatible with nothing.
    Exclusive,
}

impl LockMode {
    /// All modes, weakest first.
    pub const ALL: [LockMode; 3] = [LockMode::Shared, LockMode::Update, LockMode::Exclusive];

    /// Whether two transactions may not hold these modes on overlapping targets at once. Symmetric.
    #[must_use]
    pub const fn conflicts(self, other: LockMode) -> bool {
        use LockMode::{Shared, Update};
        !matches!((self, other), (Shared, Shared) | (Shared, Update) | (Update, Shared))
    }

    /// One letter for tables: S, U or X.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            LockMode::Shared => 'S',
            LockMode::Update => 'U',
            LockMode::Exclusive => 'X',
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LockMode::Shared => "Shared",
            LockMode::Update => "Update",
            LockMode::Exclusive => "Exclusive",
        })
    }
}

/// The lock on a record, as far as the version store may know it.
///
/// The store seals a record before it reclaims it; a sealed cell refuses every later lock, and
/// whoever is refused looks the key up again.
pub trait RecordCell: Default + Send + Sync + 'static {
    /// Seals the cell if nobody holds or waits for its lock; says whether it is sealed now.
    fn try_seal(&self) -> bool;
    /// Whether the cell was sealed.
    fn is_sealed(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_symmetric_and_grow_with_strength() {
        for a in LockMode::ALL {
            for b in LockMode::ALL {
                assert_eq!(a.conflicts(b), b.conflicts(a));
                for stronger in LockMode::ALL.into_iter().filter(|s| *s >= a) {
                    assert!(!a.conflicts(b) || stronger.conflicts(b));
                }
            }
        }
        assert!(LockMode::Update.conflicts(LockMode::Update));
        assert!(!LockMode::Update.conflicts(LockMode::Shared));
    }
}
