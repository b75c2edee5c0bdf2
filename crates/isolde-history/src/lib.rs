//! Histories of transactions: what was observed, and what it means.
//!
//! This crate knows nothing of the engine. A [`History`] says what each transaction read (and which
//! version of it), scanned, wrote, and how it ended; whoever can produce one, any database, can be
//! judged.

pub mod model;
pub mod schedule;

pub use model::{Event, History, ReadKind, Row, TxnKey, Version};
