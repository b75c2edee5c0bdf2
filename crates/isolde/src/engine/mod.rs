//! The inside of the library: one transaction type, one read path, one write path, one commit.
//!
//! Everything that can wait is an `async fn`; see [`wait`]. What a transaction does is asked of its
//! [`Policy`](crate::isolation::Policy), never of its level.

pub(crate) mod at_once;
mod certify;
pub(crate) mod commit;
pub(crate) mod core;
pub(crate) mod durable;
pub(crate) mod gate;
pub(crate) mod inside;
mod key_map;
mod locking;
mod merge_results;
pub(crate) mod read;
pub(crate) mod registry;
pub(crate) mod scan;
mod shares;
pub(crate) mod tap;
pub(crate) mod txn;
pub(crate) mod wait;
pub(crate) mod write;
pub(crate) mod write_set;

pub(crate) use self::core::{Core, RecordRef};
pub(crate) use shares::{CoreRef, Shares};
pub(crate) use txn::{Begin, TxnInner};
