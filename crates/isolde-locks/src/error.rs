//! Why a lock was not granted.

use isolde_types::TxnId;
use isolde_types::sync::Arc;

use crate::report::{Blocker, DeadlockReport};

/// Why a lock was not granted.
#[derive(Clone, Debug)]
pub enum LockError {
    /// The transaction was chosen to break a deadlock; it must roll back and give up its locks.
    Deadlock(Arc<DeadlockReport>),
    /// An older transaction wounded this one; it must roll back.
    Wounded {
        /// The older one.
        by: TxnId,
    },
    /// Somebody is in the way, and the request or the policy does not wait.
    Busy(Vec<Blocker>),
    /// The wait was cancelled by [`Acquire::time_out`](crate::Acquire::time_out).
    Timeout(Vec<Blocker>),
    /// The record is dead: look the key up again.
    Sealed,
    /// The transaction holds as many locks as it may.
    TooManyLocks {
        /// The limit.
        limit: usize,
    },
    /// The transaction has given up all its locks and gets no more.
    Ended,
}
