//! What a database must do so that schedules can be run against it.
//!
//! A database gives one session per transaction. An operation is started, then polled: ready with an
//! [`Output`] or a [`Failure`], or pending, and **pending means that the operation is known to be
//! blocked** by another transaction: the lock manager said so, or the server's own lock views. It is
//! never a guess made by waiting a while. Whoever is pending keeps the context's waker and wakes it
//! when it can go on; the order in which wakers are woken is the order in which transactions resume.

use std::collections::BTreeMap;
use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use isolde_types::{Isolation, Key, Mode};

use super::notation::{Operation, text};
use crate::History;

/// How a transaction begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begin<'a> {
    /// What the schedule calls it; the history must call it the same.
    pub name: &'a str,
    /// Its level.
    pub isolation: Isolation,
    /// Its mode.
    pub mode: Mode,
    /// Whether it promises to write nothing.
    pub read_only: bool,
}

/// A database under a schedule. Transactions are named by small numbers that the driver chooses.
pub trait Database {
    /// Begins transaction `txn`.
    ///
    /// # Errors
    /// When the database refuses to begin it.
    fn begin(&mut self, txn: usize, begin: &Begin<'_>) -> Result<(), Failure>;

    /// Starts an operation of `txn`, which has begun, has not ended and has no other operation
    /// under way. Nothing need happen before the first poll.
    fn start(&mut self, txn: usize, operation: &Operation<Bytes>);

    /// Drives the operation that `txn` started last.
    fn poll(&mut self, txn: usize, cx: &mut Context<'_>) -> Poll<Result<Output, Failure>>;

    /// For whom the pending operation of `txn` waits, in words such as `T2, who holds x`.
    fn waits_for(&mut self, _txn: usize) -> Option<String> {
        None
    }

    /// From here on nobody reads the words of a failure: they may be left out.
    fn be_brief(&mut self) {}

    /// What was recorded, once every transaction has ended. Values are as the schedule writes them.
    fn history(&mut self) -> History;

    /// What is in the database once every transaction has ended.
    fn final_state(&mut self) -> BTreeMap<Key, Bytes>;

    /// What keeps the history from being judged, once it was taken; nothing where versions are reported.
    fn doubts(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// What the database finds wrong with itself, once every transaction has ended.
    fn complaints(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// What an operation returned.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Output {
    /// Nothing: a write, a lock, a savepoint, an end.
    Done,
    /// What a key held.
    Value(Option<Bytes>),
    /// The rows of a span.
    Rows(Vec<(Key, Bytes)>),
    /// What a compare-and-set found, and what it did about it.
    CompareAndSet {
        /// What the key held.
        found: Option<Bytes>,
        /// Whether that was what it expected.
        swap: Swap,
    },
}

/// What a compare-and-set did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Swap {
    /// The key held what it expected, and was written.
    Done,
    /// The key held something else, and was left alone.
    Refused,
}

impl fmt::Display for Output {
    /// As `expect:` writes it: `11`, `-` for absent, `x:1,y:2` for rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Done => Ok(()),
            Output::Value(value) | Output::CompareAndSet { found: value, .. } => {
                f.write_str(&value.as_ref().map_or("-".into(), |value| text(value)))
            }
            Output::Rows(rows) if rows.is_empty() => f.write_str("-"),
            Output::Rows(rows) => {
                let row = |(key, value): &(Key, Bytes)| format!("{}:{}", text(key), text(value));
                f.write_str(&rows.iter().map(row).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// Why an operation failed, and whether its transaction ended with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What kind of failure.
    pub class: FailureClass,
    /// The database's own words, on one line; nothing where it was told to be [brief](Database::be_brief).
    pub message: String,
    /// Whether the transaction is over: rolled back by the database.
    pub ended: bool,
}

/// The kinds of failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FailureClass {
    /// Two accesses that cannot both stand.
    Conflict,
    /// The victim of a deadlock.
    Deadlock,
    /// A wait that took too long.
    Timeout,
    /// The operation makes no sense here (a key that exists already, a value that is no number, an
    /// operation that the database does not have): nothing to do with other transactions.
    Refused,
    /// Indeterminate: the connection was lost before the answer, and nobody knows what took effect.
    Unknown,
}

impl FailureClass {
    /// One word for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FailureClass::Conflict => "conflict",
            FailureClass::Deadlock => "deadlock",
            FailureClass::Timeout => "timeout",
            FailureClass::Refused => "refused",
            FailureClass::Unknown => "unknown",
        }
    }
}
