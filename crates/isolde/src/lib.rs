//! Isolde: an embedded transactional key-value store **where you choose the isolation level, see
//! what it costs, and can prove what it allows**.
//!
//! ```
//! use isolde::{Db, Isolation, Mode};
//!
//! # fn main() -> isolde::Result<()> {
//! let db = Db::builder().in_memory().open()?;
//! db.put("alice", 10_i64.to_be_bytes())?;
//!
//! // A body: begun, run, committed, and retried on conflict. Serializable unless you say otherwise.
//! db.transact(|t| {
//!     t.increment("alice", -3)?;
//!     t.increment("bob", 3)
//! })?;
//!
//! // Any level and mode, per transaction, mixed freely in one database.
//! let total = db.txn().isolation(Isolation::Snapshot).mode(Mode::Optimistic).read_only().run(|t| {
//!     t.scan(..).try_fold(0, |sum, row| {
//!         let (_, value) = row?;
//!         Ok::<_, isolde::Error>(sum + i64::from_be_bytes(value[..].try_into().unwrap_or_default()))
//!     })
//! })?;
//! assert_eq!(total, 10);
//! # Ok(()) }
//! ```
//!
//! # Choosing a level
//!
//! | you need | choose | why |
//! | --- | --- | --- |
//! | not to think about it | serializable (the default) | as if transactions ran one after another |
//! | counters | [`Txn::increment`] at any level | blind increments never lose each other, and never abort |
//! | reports over a consistent state | any level from repeatable read up, [`TxnBuilder::read_only`] | one snapshot, no locks, no aborts |
//! | few conflicts | optimistic | nothing waits; a loser is retried |
//! | hot keys, long transactions | pessimistic | waiting beats redoing |
//!
//! What each level lets through, in each mode, is not for this page to claim: run `anomaly-suite`.
//!
//! # Three ways to run a transaction
//!
//! | | for | conflicts |
//! | --- | --- | --- |
//! | [`Db::put`], [`Db::get`], [`Db::increment`], .. | one operation | retried |
//! | [`Db::transact`]; [`TxnBuilder::run`] with levels, labels and errors of one's own | nearly everything | the body is run again |
//! | [`Db::begin`], [`TxnBuilder::begin`], then [`Txn::commit`] | control over each step | an error, for you to retry |
//!
//! The examples are small services: `bank`, `queue`, `inventory`, `on_call`, `inspect`, `tables`, `record`.
//!
//! # Errors
//!
//! One type, [`Error`]. [`Error::is_retryable`] says whether to run the whole transaction again,
//! [`Error::kind`] what it is; `{}` is a line for the log, `{:#}` tells who, why, and what to do.
//!
//! # Blocking
//!
//! Reads are in memory. Locks are waited for, fairly, in the order of arrival, and a deadlock is found
//! when it arises; see [`Deadlocks`]. A commit of a durable database waits for its sync, on its own thread,
//! together with those that commit meanwhile; see [`Durability`].

mod batch;
mod builder;
mod db;
mod engine;
mod error;
mod isolation;
mod meter;
mod nested;
#[cfg(feature = "record")]
mod recorder;
mod retry;
mod stats;
#[doc(hidden)]
pub mod step;
mod table;
mod trace;
mod txn;

pub use batch::WriteBatch;
pub use builder::{Builder, TxnBuilder};
pub use bytes::Bytes;
pub use db::Db;
pub use engine::commit::Commit;
pub use engine::durable::Durability;
pub use engine::write::{Cas, Savepoint};
pub use error::{
    BadRow, Conflict, ConflictKind, Deadlock, Error, ErrorKind, KeyText, LockWait, MergeError, Result,
    RetriesExhausted, RowPart, StorageError, TooLarge, TxnSummary, Wound,
};
pub use isolde_locks::table::Target as LockTarget;
pub use isolde_locks::{
    Blocker, DeadlockReport, Deadlocks, Edge, EdgeKind, LockRow, LockStats, LockView, Victim, WaitsForView,
};
pub use isolde_types::{
    Anomaly, Clock, Guarantees, Isolation, Key, KeyRange, LockMode, ManualClock, Mode, RowKey, Span, SystemClock, Ts,
    TxnId, prefix,
};
pub use isolde_wal::LogStats;
#[doc(hidden)]
pub use isolde_wal::{Vfs, WriteBehind};
#[cfg(feature = "record")]
pub use recorder::Recorder;
pub use retry::{RetryEvent, RetryPolicy};
pub use stats::{Stats, TxnInfo};
#[cfg(feature = "json")]
pub use table::Json;
pub use table::{
    CodecError, DbTable, EncodeKey, KeyPrefix, Table, TableKey, TableKeys, TableScan, TxnTable, ValueCodec,
};
pub use txn::{Call, Keys, Scan, Txn};
