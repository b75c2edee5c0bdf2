//! Histories of transactions: what was observed, and what it means.
//!
//! This crate knows nothing of the engine. A [`History`] says what each transaction read (and which
//! version of it), scanned, wrote, and how it ended; whoever can produce one, any database, can be
//! judged: [`check()`] searches it for anomalies and explains each by its smallest cycle, and
//! [`oracle`] believes no version and looks for a serial order that explains the values. A
//! [`schedule`] is the script of a history, and its driver runs it against a database by polling.

mod assert;
pub mod check;
mod cycles;
mod explain;
pub mod explore;
pub mod foreign;
mod graph;
mod hash;
mod json;
mod levels;
pub mod model;
pub mod oracle;
mod resolve;
mod scc;
pub mod schedule;
mod seen;

pub use check::{Edge, Finding, Report, Violation, check};
pub use graph::EdgeKind;
pub use json::ReadError;
pub use model::{Event, History, ReadKind, Row, TxnKey, Version};
