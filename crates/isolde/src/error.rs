//! Errors that say what happened, to whom, because of whom, and what to do.
//!
//! One enum for everything. [`Error::kind`] is for code that decides, [`Error::is_retryable`] is
//! the one question that a retry loop asks, `{e}` is one line for a log, and `{e:#}` explains:
//! which key, which transactions, which dependency, and one thing to do.

mod detail;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

pub(crate) use detail::{Asked, Redact};
pub use detail::{
    BadRow, Conflict, ConflictKind, Deadlock, KeyText, LockWait, MergeError, RetriesExhausted, RowPart, TooLarge,
    TxnSummary, Wound,
};
/// Why the files of a database could not be opened, read or written.
pub use isolde_wal::WalError as StorageError;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// Only conflict, deadlock, a wound, a snapshot that is too old and a failed commit end the
/// transaction; after any other error it lives on, and the failed operation has changed nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Another transaction committed something that this one cannot stand beside. The transaction
    /// is rolled back. Retry it.
    Conflict(Box<Conflict>),
    /// The transaction was part of a deadlock and was chosen to give way. It is rolled back. Retry
    /// it.
    Deadlock(Box<Deadlock>),
    /// An older transaction needed a lock that this one held (wound-wait). It is rolled back. Retry
    /// it.
    Wounded(Box<Wound>),
    /// A lock was not granted in time. The transaction lives on: try the operation again, do
    /// something else, or roll back and retry.
    ///
    /// At once, and not retryable, where no time would help: a transaction inside another one's body
    /// waits, on the same thread, for that body.
    LockTimeout(Box<LockWait>),
    /// A lock was held by somebody else and the call, or the database's policy, does not wait. The
    /// transaction lives on.
    LockBusy(Box<LockWait>),
    /// The transaction's snapshot is older than the database allows. It is rolled back. Retry it.
    SnapshotTooOld {
        /// The limit that was set with `Builder::max_snapshot_age`.
        limit: Duration,
    },
    /// The transaction has ended: an iterator or an operation outlived it.
    TransactionEnded,
    /// A transaction body failed with a retryable error at every attempt.
    RetriesExhausted(Box<RetriesExhausted>),
    /// `insert` found the key present. The transaction lives on.
    AlreadyExists(Box<KeyText>),
    /// `increment` met a value that is not a counter: 8 bytes, a big-endian `i64`.
    NotACounter(Box<KeyText>),
    /// `increment` would leave the range of `i64`.
    CounterOverflow(Box<KeyText>),
    /// A merge operator refused its operand, or is not registered.
    Merge(Box<MergeError>),
    /// A key or a value of a typed table is not what the table's types make. The transaction lives on.
    BadRow(Box<BadRow>),
    /// A key, a value, a write set, or a number of locks is over its limit. The transaction lives on.
    TooLarge(Box<TooLarge>),
    /// The database's versions take more memory than it may use. The transaction lives on; end
    /// snapshots that are open for long, delete, or raise the limit.
    MemoryLimit {
        /// The limit in bytes, set with `Builder::memory_limit`.
        limit_bytes: usize,
    },
    /// A transaction that was begun read-only tried to write or to lock.
    ReadOnly,
    /// The call does not keep what this level or mode promises.
    Unsupported(&'static str),
    /// The savepoint belongs to another transaction, or was undone by an earlier `rollback_to`.
    SavepointGone,
    /// The body's own error, wrapped by [`Error::abort`]. Never retried.
    Aborted(Box<dyn StdError + Send + Sync>),
    /// The database was closed.
    Closed,
    /// An option makes no sense.
    Config(Box<str>),
    /// A write or sync of the log failed, for this reason: nothing more can be written, and only what is
    /// durable can be read. Reopen the database. (Not returned by a database in memory.)
    Poisoned(Box<str>),
    /// The log failed while the commit was on its way to the disk: it may or may not be there after the
    /// next open. (Not returned by a database in memory.) Do not retry blindly: reopen the database and
    /// look.
    OutcomeUnknown,
    /// The files of the database could not be opened, read or written; [`kind`](Error::kind) tells apart
    /// why. The transaction, if there was one, is rolled back.
    Storage(Box<StorageError>),
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Error {
        match error {
            StorageError::Poisoned(cause) => Error::Poisoned((&*cause).into()),
            StorageError::Closed => Error::Closed,
            StorageError::TooLarge { bytes, limit } => Error::TooLarge(Box::new(TooLarge {
                what: "transaction's log record",
                size: bytes,
                limit,
                option: "log_segment_bytes",
            })),
            error => Error::Storage(Box::new(error)),
        }
    }
}

const _: () = assert!(size_of::<Error>() <= 24, "Error travels in every Result: keep it small");

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each kind is the variant of Error with the same name")]
pub enum ErrorKind {
    Conflict,
    Deadlock,
    Wounded,
    LockTimeout,
    LockBusy,
    SnapshotTooOld,
    TransactionEnded,
    RetriesExhausted,
    AlreadyExists,
    NotACounter,
    CounterOverflow,
    Merge,
    BadRow,
    TooLarge,
    MemoryLimit,
    ReadOnly,
    Unsupported,
    SavepointGone,
    Aborted,
    Closed,
    Config,
    Poisoned,
    OutcomeUnknown,
    Io,
    DiskFull,
    Corruption,
    MissingFile,
    NotADatabase,
    VersionMismatch,
    AlreadyOpen,
    Forked,
}

impl Error {
    /// Wraps an error of the body's own, so that a `transact` closure can end with it: the
    /// transaction rolls back and is not retried.
    ///
    /// ```
    /// # use isolde::{Db, Error};
    /// # #[derive(Debug)] struct Insufficient { have: i64 }
    /// # impl std::fmt::Display for Insufficient { fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result { write!(f, "{}", self.have) } }
    /// # impl std::error::Error for Insufficient {}
    /// # fn main() -> isolde::Result<()> {
    /// let db = Db::builder().in_memory().open()?;
    /// let end = db.transact(|_| -> isolde::Result<()> { Err(Error::abort(Insufficient { have: 3 })) });
    /// assert_eq!(end.unwrap_err().downcast_abort::<Insufficient>().unwrap().have, 3);
    /// # Ok(()) }
    /// ```
    pub fn abort(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Aborted(error.into())
    }

    /// The error that was given to [`Error::abort`], if this is one and it has that type.
    ///
    /// # Errors
    /// Gives the error back unchanged when it is another one.
    pub fn downcast_abort<E: StdError + 'static>(self) -> std::result::Result<E, Error> {
        match self {
            Error::Aborted(inner) => inner.downcast::<E>().map(|e| *e).map_err(Error::Aborted),
            other => Err(other),
        }
    }

    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Conflict(_) => ErrorKind::Conflict,
            Error::Deadlock(_) => ErrorKind::Deadlock,
            Error::Wounded(_) => ErrorKind::Wounded,
            Error::LockTimeout(_) => ErrorKind::LockTimeout,
            Error::LockBusy(_) => ErrorKind::LockBusy,
            Error::SnapshotTooOld { .. } => ErrorKind::SnapshotTooOld,
            Error::TransactionEnded => ErrorKind::TransactionEnded,
            Error::RetriesExhausted(_) => ErrorKind::RetriesExhausted,
            Error::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Error::NotACounter(_) => ErrorKind::NotACounter,
            Error::CounterOverflow(_) => ErrorKind::CounterOverflow,
            Error::Merge(_) => ErrorKind::Merge,
            Error::BadRow(_) => ErrorKind::BadRow,
            Error::TooLarge(_) => ErrorKind::TooLarge,
            Error::MemoryLimit { .. } => ErrorKind::MemoryLimit,
            Error::ReadOnly => ErrorKind::ReadOnly,
            Error::Unsupported(_) => ErrorKind::Unsupported,
            Error::SavepointGone => ErrorKind::SavepointGone,
            Error::Aborted(_) => ErrorKind::Aborted,
            Error::Closed => ErrorKind::Closed,
            Error::Config(_) => ErrorKind::Config,
            Error::Poisoned(_) => ErrorKind::Poisoned,
            Error::OutcomeUnknown => ErrorKind::OutcomeUnknown,
            Error::Storage(storage) => match **storage {
                StorageError::DiskFull => ErrorKind::DiskFull,
                StorageError::Corruption { .. } => ErrorKind::Corruption,
                StorageError::MissingFile { .. } => ErrorKind::MissingFile,
                StorageError::NotADatabase { .. } => ErrorKind::NotADatabase,
                StorageError::VersionMismatch { .. } => ErrorKind::VersionMismatch,
                StorageError::AlreadyOpen { .. } => ErrorKind::AlreadyOpen,
                StorageError::Forked => ErrorKind::Forked,
                _ => ErrorKind::Io,
            },
        }
    }

    /// Whether running the whole transaction again, from its begin, may succeed.
    ///
    /// `transact` and `run` retry exactly these. A lock that a `nowait` call found busy is not among
    /// them, since the caller asked to be told; one that the policy `NoWait` found busy is.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::LockBusy(wait) => wait.asked == Asked::ByPolicy,
            Error::LockTimeout(wait) => wait.asked != Asked::Nobody,
            Error::Conflict(_) | Error::Deadlock(_) | Error::Wounded(_) | Error::SnapshotTooOld { .. } => true,
            _ => false,
        }
    }

    /// What the transaction was in conflict with, if this is a conflict.
    #[must_use]
    pub fn conflict(&self) -> Option<&Conflict> {
        match self {
            Error::Conflict(conflict) => Some(conflict),
            Error::RetriesExhausted(end) => end.last.conflict(),
            _ => None,
        }
    }

    /// A copy, if it is retryable: a body may have wrapped the original in an error of its own.
    pub(crate) fn retryable_copy(&self) -> Option<Error> {
        if !self.is_retryable() {
            return None;
        }
        match self {
            Error::Conflict(conflict) => Some(Error::Conflict(conflict.clone())),
            Error::Deadlock(deadlock) => Some(Error::Deadlock(deadlock.clone())),
            Error::Wounded(wound) => Some(Error::Wounded(wound.clone())),
            Error::LockTimeout(wait) => Some(Error::LockTimeout(wait.clone())),
            Error::LockBusy(wait) => Some(Error::LockBusy(wait.clone())),
            Error::SnapshotTooOld { limit } => Some(Error::SnapshotTooOld { limit: *limit }),
            _ => None,
        }
    }

    /// Whether this error ended the transaction that it happened to.
    pub(crate) fn ends_transaction(&self) -> bool {
        matches!(self, Error::Conflict(_) | Error::Deadlock(_) | Error::Wounded(_) | Error::SnapshotTooOld { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line(f)?;
        if f.alternate() { self.explain(f) } else { Ok(()) }
    }
}

impl Error {
    fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Conflict(conflict) => conflict.line(f),
            Error::Deadlock(deadlock) => deadlock.line(f),
            Error::Wounded(w) => write!(f, "wounded (retryable): {} held what the older {} needs", w.me, w.by),
            Error::LockTimeout(w) if w.asked == Asked::Nobody => {
                let (me, target, by) = (&w.me, &w.target, w.blocked_by());
                write!(
                    f,
                    "lock not waited for: {me} wants {target}, held by {by}; this thread is inside a body that is in the way"
                )
            }
            Error::LockTimeout(w) => {
                write!(f, "lock timeout (retryable): {} waited for {}, held by {}", w.me, w.target, w.blocked_by())
            }
            Error::LockBusy(w) => {
                let retryable = if self.is_retryable() { " (retryable)" } else { "" };
                write!(f, "lock busy{retryable}: {} wants {}, held by {}", w.me, w.target, w.blocked_by())
            }
            Error::SnapshotTooOld { limit } => {
                write!(f, "snapshot too old (retryable): it was open for longer than {limit:?}")
            }
            Error::TransactionEnded => f.write_str("the transaction has ended"),
            Error::RetriesExhausted(end) => {
                write!(f, "gave up after {} attempts in {:?}: {}", end.attempts, end.elapsed, end.last)
            }
            Error::AlreadyExists(key) => write!(f, "{key} already exists"),
            Error::NotACounter(key) => write!(f, "{key} is not a counter: a counter is 8 bytes, a big-endian i64"),
            Error::CounterOverflow(key) => write!(f, "the counter {key} would leave the range of i64"),
            Error::Merge(e) => match &e.reason {
                Some(reason) => write!(f, "merge operator {:?} refused {}: {reason}", e.operator, e.key),
                None => write!(f, "no merge operator {:?} is registered (wanted for {})", e.operator, e.key),
            },
            Error::BadRow(row) => row.line(f),
            Error::TooLarge(e) => {
                write!(f, "{} too large: {} is over the limit of {} (Builder::{})", e.what, e.size, e.limit, e.option)
            }
            Error::MemoryLimit { limit_bytes } => {
                write!(f, "the database holds more than its limit of {limit_bytes} bytes (Builder::memory_limit)")
            }
            Error::ReadOnly => f.write_str("the transaction was begun read-only"),
            Error::Unsupported(why) => write!(f, "unsupported: {why}"),
            Error::SavepointGone => f.write_str("the savepoint is not one of this transaction, or was undone"),
            Error::Aborted(inner) => write!(f, "{inner}"),
            Error::Closed => f.write_str("the database is closed"),
            Error::Config(why) => write!(f, "configuration: {why}"),
            Error::Poisoned(cause) => {
                write!(f, "the log failed ({cause}): nothing can be written until the database is reopened")
            }
            Error::OutcomeUnknown => {
                f.write_str("the outcome of the commit is unknown: the log failed; reopen the database and look")
            }
            Error::Storage(storage) => fmt::Display::fmt(storage, f),
        }
    }

    /// What `{:#}` adds: who, why, and one thing to do.
    fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Conflict(conflict) => conflict.explain(f),
            Error::Deadlock(deadlock) => {
                if deadlock.redact == Redact::Show {
                    write!(f, "\n{:#}", deadlock.report)?;
                }
                f.write_str("\n  what to do: retry (`transact` and `run` do so by themselves)")?;
                f.write_str("\n  fewer deadlocks: lock keys in one order, or get_for_update before a write")
            }
            Error::Wounded(_) => f.write_str(
                "\n  what to do: retry (`transact` and `run` do so, and keep the age, so that a retry wins in the end)",
            ),
            Error::LockTimeout(wait) | Error::LockBusy(wait) => wait.explain(f),
            Error::BadRow(row) => row.explain(f),
            Error::RetriesExhausted(end) => {
                f.write_str("\n  the last error: ")?;
                fmt::Display::fmt(&end.last, f)
            }
            _ => self.remedy().map_or(Ok(()), |remedy| write!(f, "\n  what to do: {remedy}")),
        }
    }

    /// One thing to do, where it takes no more than words.
    fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Error::SnapshotTooOld { .. } => {
                "retry, in shorter transactions; or raise Builder::max_snapshot_age, at the price of memory"
            }
            Error::TransactionEnded => {
                "begin a new transaction; an earlier error, Db::kill or Db::close has ended this one"
            }
            Error::AlreadyExists(_) => "`put` overwrites; `get` reads what is there. The transaction lives on",
            Error::NotACounter(_) => "write counters as `i64::to_be_bytes`, or start the key anew",
            Error::CounterOverflow(_) => "nothing was added; read the counter and decide",
            Error::Merge(e) if e.reason.is_none() => "register it with Builder::merge_operator, at every open",
            Error::Merge(_) => "nothing was merged; give it an operand that it takes",
            Error::TooLarge(_) => "split it, or raise the limit that is named",
            Error::MemoryLimit { .. } => {
                "end snapshots that are open for long (Db::transactions), delete, or raise the limit; then retry"
            }
            Error::ReadOnly => "begin it without `read_only`; Db::snapshot is read-only, too",
            Error::SavepointGone => "roll back to an earlier savepoint, or begin again",
            Error::Closed => "open the database again; Db::close closes it for all handles",
            Error::Poisoned(_) => "open it again; what was acknowledged is safe",
            Error::OutcomeUnknown => {
                "open it again and look whether the commit is there, for example by a key that only it writes"
            }
            _ => return None,
        })
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Aborted(inner) => Some(inner.as_ref()),
            Error::RetriesExhausted(end) => Some(&end.last),
            Error::Storage(storage) => Some(storage.as_ref()),
            Error::BadRow(row) => row.why.as_deref().map(|why| why as &(dyn StdError + 'static)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use isolde_types::{Key, Ts, TxnId};

    use super::*;

    fn summary(id: u64, label: &str) -> TxnSummary {
        TxnSummary { id: Some(TxnId(id)), label: Some(label.into()) }
    }

    #[test]
    fn a_conflict_names_key_transactions_edge_and_remedy() {
        let error = Error::Conflict(Box::new(Conflict::new(
            ConflictKind::ReadChanged,
            summary(17, "transfer"),
            summary(16, "go-off-call"),
            &Key::from_static(b"oncall/alice"),
            None,
            Ts(41),
            Ts(42),
            Redact::Show,
        )));
        let text = format!("{error:#}");
        for part in ["oncall/alice", "T17 \"transfer\"", "T16 \"go-off-call\"", "-rw->", "what to do", "@42"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(format!("{error}").lines().count(), 1);
        assert!(error.is_retryable());
    }

    #[test]
    fn redacted_keys_show_a_hash() {
        let text = KeyText::new(b"secret", Redact::Hash).to_string();
        assert!(!text.contains("secret") && text.contains('#'));
        assert_eq!(text, KeyText::new(b"secret", Redact::Hash).to_string());
    }
}
