//! Marks: what a write leaves beside its value, so that whoever reads it can say whose it was.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use isolde_history::model::TxnKey;

/// A write: its transaction, and its number there. Written as `2.1`; the initial state is `0.0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mark {
    /// The transaction, numbered from 1.
    pub txn: u64,
    /// Which of its writes, numbered from 1.
    pub seq: u32,
}

/// A value as it was found: with the marks of its writers, oldest first, or with the last one alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The value.
    pub value: Bytes,
    /// The marks; the last one is that of this value.
    pub trail: Vec<Mark>,
}

impl Mark {
    /// The mark of the initial state.
    pub const INITIAL: Mark = Mark { txn: 0, seq: 0 };

    /// The transaction in the history.
    #[must_use]
    pub const fn txn_key(self) -> TxnKey {
        TxnKey(self.txn)
    }
}

impl Stored {
    /// What was read: a value, and its trail as text.
    ///
    /// # Errors
    /// When the trail is none.
    pub fn read(value: impl Into<Bytes>, trail: &str) -> Result<Stored, String> {
        let trail: Result<Vec<Mark>, String> = trail.split_whitespace().map(str::parse).collect();
        Ok(Stored { value: value.into(), trail: trail? })
    }

    /// The mark of this value.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.trail.last().copied().unwrap_or(Mark::INITIAL)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.txn, self.seq)
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('.').and_then(|(txn, seq)| Some((txn.parse().ok()?, seq.parse().ok()?)));
        let (txn, seq) = parts.ok_or_else(|| format!("expected the mark of a write, found {text:?}"))?;
        Ok(Mark { txn, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_is_read_back_and_ends_in_the_mark_of_the_value() {
        let (first, last) = (Mark { txn: 1, seq: 2 }, Mark { txn: 12, seq: 1 });
        let stored = Stored::read("v", &format!("{} {first} {last}", Mark::INITIAL)).unwrap();
        assert_eq!(stored.trail, [Mark::INITIAL, first, last]);
        assert_eq!(stored.mark(), last);
        assert_eq!(Stored::read("v", "").unwrap().mark(), Mark::INITIAL);
        assert!(Stored::read("v", "1.2 x").unwrap_err().contains("\"x\""));
    }
}
