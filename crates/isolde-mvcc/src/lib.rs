//! Isolde's version store: records, version chains, indexes, logical time, collection.
//!
//! ```text
//!   key ──► point index (hash) ──┐
//!                                ├──► Record { lock word, chain: in flight ─ @31 ─ @20 }
//!   key ──► ordered index ───────┘      one per key, found through both, never moved
//!           (leaves under fences)
//! ```
//!
//! - A **record** is made once for a key and found through both indexes. Its versions stand newest
//!   first; updating a key pushes a version, and costs no index work.
//! - A **view** reads the newest version at or below its time. An in-flight version asks the status of
//!   its transaction, so that one store commits all versions of a transaction at once.
//! - The [`Timeline`] gives out commit timestamps and moves visible_ts over the finished prefix;
//!   [`Views`] registers who may still read what; what nobody can see is collected (I7).
//!
//! This crate knows no locks, levels or modes. The lock word in a record is a type parameter of which
//! it knows one thing: that it can be sealed.
//!
//! What it leaves out: places in a log, and data larger than memory.

mod chain;
mod counters;
mod discard;
mod fences;
mod leaves;
mod live;
mod points;
mod prefetch;
mod record;
mod rows;
mod status;
mod store;
mod timeline;
mod value;
mod views;

pub use discard::{HoldBack, hold_back, let_go};
pub use leaves::Cursor;
pub use live::Live;
pub use points::Prefetched;
pub use record::{Found, FoundVersion, Latest, ReadAt, Record, Settled};
pub use rows::Rows;
pub use status::{Exposure, State, Status};
pub use store::{SpanCheck, Store, StoreStats, Swept};
pub use timeline::{Outcome, Timeline, VisibleWait, Wakers};
pub use value::Packed;
pub use views::{OpenView, View, Views};
