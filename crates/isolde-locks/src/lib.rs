//! Isolde's lock manager: keys and spans, fair queues, upgrades, deadlocks.
//!
//! Two layers:
//!
//! - [`table`] is the whole of the semantics as a pure state machine: no thread, no clock, no I/O.
//!   "Blocked" is a value that tests read.
//! - [`LockManager`] is the thin shell that threads and tasks share. A lock that only one transaction
//!   holds is a word in its record ([`LockCell`]) and never meets the table; whoever finds somebody
//!   else there *inflates* it: the word says FAT, and the table has the holder.
//!
//! ```text
//!            one holder                            several holders, waiters, or spans about
//!   word: FREE ──CAS──► thin(mode, T7) ──inflate──► FAT ──────────► table: holders + queue
//!              ◄─CAS──  (2 atomic operations)       ◄──deflate────  (one graph mutex)
//! ```
//!
//! A commit that has no lock yet takes those of its few writes *briefly* ([`Brief`]): BRIEF in the word, no
//! owner, no queue; whoever meets it spins until it is gone.
//!
//! What a waiter is, a parked thread or a task, the manager does not know: it holds a
//! [`Waker`](std::task::Waker). Timeouts are somebody else's decision to cancel.
//!
//! # Rules
//!
//! - Modes: Shared, Update (compatible with Shared, not with itself), Exclusive. There are no
//!   intention modes: there is no hierarchy. Targets are keys, present or absent, and half-open spans;
//!   a key and a span conflict where they overlap.
//! - A request is granted if it conflicts with no holder *and* no earlier waiter. Upgrades, requests
//!   for something that the transaction holds or has a span over, go before all others. Queues are
//!   never reordered otherwise: a writer behind readers is not starved.
//! - What a transaction holds it may ask for again. A transaction may wait for several locks at once.
//! - Deadlocks are cycles of hard edges (to holders) and soft edges (to earlier waiters); they are
//!   searched for when a request blocks, until no cycle through it is left.
//!
//! # Sources
//!
//! Gray and Reuter, *Transaction Processing* (1993) for Update locks and fair queues; PostgreSQL's
//! `lmgr/README` for soft edges; Rosenkrantz, Stearns and Lewis (1978) for wound-wait and wait-die.

mod cell;
mod error;
mod ledger;
mod manager;
mod owner;
mod policy;
mod report;
mod search;
pub mod table;
mod view;

pub use cell::LockCell;
pub use error::LockError;
pub use ledger::{LockMark, Purpose};
pub use manager::{Acquire, Brief, GivenBack, Granted, Handle, Handles, LockManager, SpanRecords};
pub use owner::{OnWound, Owner, OwnerSpec};
pub use policy::{Deadlocks, LockConfig, Victim, WaitPolicy};
pub use report::{Blocker, DeadlockReport, Edge, EdgeKind};
pub use view::{LockRow, LockStats, LockView, WaitRow, WaitsForView};
