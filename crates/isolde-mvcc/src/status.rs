//! The fate of one writing transaction, in one word that all its in-flight versions point to.
//!
//! ```text
//! Active ──order──► Ordered(ts) ──finalize──► Committed(ts)
//!    │                   └───────finalize──► Aborted
//!    └──abort──► Aborted
//! ```
//!
//! A reader that meets an in-flight version asks its status. So one store commits or aborts all
//! versions of a transaction at once, wherever they stand (Larson et al. 2011, "Hekaton", does the
//! same through a table of transactions). Only the [`Timeline`](crate::Timeline) orders and
//! finalizes.

use isolde_types::sync::Arc;
use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::{Ts, TxnId};

/// Whether the dirty view may read the in-flight versions of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposure {
    /// It may: the versions stand for writes that were made.
    Exposed,
    /// It may not: the versions are there for a commit that can still fail its certification.
    Private,
}

/// Where a writing transaction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It has no commit_ts.
    Active,
    /// It took this commit_ts, and may still fail.
    Ordered(Ts),
    /// It committed at this commit_ts.
    Committed(Ts),
    /// It never happened.
    Aborted,
}

/// The status of one writing transaction, shared by its in-flight versions.
#[derive(Debug)]
pub struct Status {
    writer: TxnId,
    exposure: Exposure,
    word: AtomicU64,
}

const ACTIVE: u64 = 0;
const ABORTED: u64 = 1;
const ORDERED: u64 = 2;
const COMMITTED: u64 = 3;
const TAG_BITS: u32 = 2;

fn pack(state: State) -> u64 {
    match state {
        State::Active => ACTIVE,
        State::Aborted => ABORTED,
        State::Ordered(ts) => (ts.0 << TAG_BITS) | ORDERED,
        State::Committed(ts) => (ts.0 << TAG_BITS) | COMMITTED,
    }
}

fn unpack(word: u64) -> State {
    let ts = Ts(word >> TAG_BITS);
    match word & ((1 << TAG_BITS) - 1) {
        ACTIVE => State::Active,
        ABORTED => State::Aborted,
        ORDERED => State::Ordered(ts),
        _ => State::Committed(ts),
    }
}

impl Status {
    /// The status of a transaction that begins to write: active.
    #[must_use]
    pub fn new(writer: TxnId, exposure: Exposure) -> Arc<Status> {
        Arc::new(Status { writer, exposure, word: AtomicU64::new(ACTIVE) })
    }

    /// The transaction that this is the status of.
    #[must_use]
    pub fn writer(&self) -> TxnId {
        self.writer
    }

    /// Whether the dirty view may read its in-flight versions.
    #[must_use]
    pub fn exposure(&self) -> Exposure {
        self.exposure
    }

    /// Where the transaction is now.
    #[must_use]
    pub fn state(&self) -> State {
        // Acquire: pairs with the Release in `set`; whoever sees an outcome sees what led to it.
        unpack(self.word.load(Ordering::Acquire))
    }

    /// Rolls an active transaction back: from here on nobody reads its in-flight versions.
    ///
    /// # Panics
    /// When it was ordered: from then on only the timeline ends it.
    pub fn abort(&self) {
        assert!(matches!(self.state(), State::Active | State::Aborted), "I2: an ordered transaction is finalized");
        self.set(State::Aborted);
    }

    pub(crate) fn set(&self, state: State) {
        self.word.store(pack(state), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_its_word() {
        for state in [State::Active, State::Aborted, State::Ordered(Ts(7)), State::Committed(Ts(1 << 61))] {
            assert_eq!(unpack(pack(state)), state);
        }
    }

    #[test]
    #[should_panic(expected = "I2")]
    fn an_ordered_transaction_cannot_be_aborted_behind_the_timeline() {
        let status = Status::new(TxnId(1), Exposure::Exposed);
        status.set(State::Ordered(Ts(1)));
        status.abort();
    }
}
