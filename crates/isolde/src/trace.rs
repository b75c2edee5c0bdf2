//! What is told to `tracing`, with the feature of that name; without it, nothing is, at no cost. What of it
//! is counted stands in [`meter`].
//!
//! | level | event | fields |
//! | --- | --- | --- |
//! | TRACE | `lock wait` | `txn`, `label`, `target`, `mode` |
//! | DEBUG | `committed` | `txn`, `label`, `isolation`, `mode`, `ts` |
//! | DEBUG | `aborted` | `txn`, `label`, `isolation`, `mode`, `kind`, `error` |
//! | DEBUG | `retry` | `label`, `attempt`, `delay_us`, `escalated`, `kind`, `error` |
//! | WARN | `deadlock` | as `aborted` |
//! | WARN | `gave up` | `label`, `attempt`, `error` |
//! | INFO | `opened`, `closed` | `path`; `elapsed_ms`, `ts` |
//! | INFO | `checkpoint` | `ts`, `rows`, `elapsed_ms` |
//! | ERROR | `checkpoint failed`, `log failed` | `error` |
//!
//! The target is `isolde`. The attempts of a body run inside a span `transaction` at DEBUG with `label`,
//! `attempt`, `isolation` and `mode`. Keys are shown as in errors: `redact_keys` holds here too.
//!
//! Everything is told under no latch, and after a commit only when it is acknowledged. A subscriber that
//! panics loses its event, and nothing else.

#![cfg_attr(not(feature = "tracing"), allow(unused_variables, clippy::unused_self))]

use std::time::Duration;

use isolde_types::{LockMode, Ts};
use isolde_wal::Manifest;

use crate::engine::commit::Commit;
use crate::engine::{Begin, TxnInner};
use crate::error::{Error, KeyText, Result};
use crate::meter;

#[cfg(feature = "tracing")]
fn quietly(tell: impl FnOnce()) {
    // What a subscriber does is its own business; the transaction goes on.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(tell));
}

/// Tells an event, if anybody listens.
macro_rules! event {
    ($level:ident, $name:literal, $($fields:tt)*) => {
        #[cfg(feature = "tracing")]
        quietly(|| tracing::event!(target: "isolde", tracing::Level::$level, $($fields)*, $name));
    };
}

/// An event of a transaction.
macro_rules! event_of {
    ($level:ident, $name:literal, $txn:expr, $($fields:tt)*) => {
        event!(
            $level,
            $name,
            txn = $txn.known_id().map(|id| id.0),
            label = $txn.label.as_deref(),
            isolation = %$txn.isolation,
            mode = %$txn.mode,
            $($fields)*
        )
    };
}

/// A lock was not to be had at once; what is given is kept until the wait ends.
pub(crate) fn waits(txn: &TxnInner, target: impl FnOnce() -> KeyText, mode: LockMode) -> meter::LockWait<'_> {
    event!(
        TRACE,
        "lock wait",
        txn = txn.known_id().map(|id| id.0),
        label = txn.label.as_deref(),
        target = %target(),
        mode = ?mode
    );
    meter::LockWait::begin(&*txn.core.config.clock, mode)
}

/// An operation failed; only what ends the transaction is told.
pub(crate) fn operation(txn: &TxnInner, outcome: Option<&Error>) {
    if let Some(error) = outcome.filter(|error| error.ends_transaction()) {
        ended(txn, error);
    }
}

/// A commit came to its end.
pub(crate) fn commit(txn: &TxnInner, outcome: &Result<Commit>) {
    match outcome {
        Ok(commit) => {
            meter::committed(txn);
            event_of!(DEBUG, "committed", txn, ts = commit.ts.0);
        }
        Err(error) => ended(txn, error),
    }
}

fn ended(txn: &TxnInner, error: &Error) {
    meter::aborted(txn, error);
    match error {
        Error::Deadlock(_) => {
            event_of!(WARN, "deadlock", txn, kind = ?error.kind(), error = %error);
        }
        Error::Poisoned(_) | Error::OutcomeUnknown => {
            event_of!(ERROR, "log failed", txn, kind = ?error.kind(), error = %error);
        }
        _ => {
            event_of!(DEBUG, "aborted", txn, kind = ?error.kind(), error = %error);
        }
    }
}

/// A body is run again.
pub(crate) fn retry(begin: &Begin, attempt: u32, delay: Duration, escalated: bool, error: &Error) {
    meter::retry(error);
    event!(
        DEBUG,
        "retry",
        label = begin.label.as_deref(),
        attempt,
        delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX),
        escalated,
        kind = ?error.kind(),
        error = %error
    );
}

/// A body is not run again.
pub(crate) fn gave_up(begin: &Begin, attempt: u32, error: &Error) {
    meter::gave_up();
    event!(WARN, "gave up", label = begin.label.as_deref(), attempt, error = %error);
}

/// The files of a database were opened.
pub(crate) fn opened(path: &str, ts: Ts, elapsed: Duration) {
    event!(INFO, "opened", path, ts = ts.0, elapsed_ms = millis(elapsed));
}

/// A database was closed.
pub(crate) fn closed(outcome: &Result<()>) {
    match outcome {
        Ok(()) => {
            event!(INFO, "closed", clean = true);
        }
        Err(error) => {
            event!(ERROR, "log failed", error = %error);
        }
    }
}

/// A checkpoint was written, or not.
pub(crate) fn checkpoint(outcome: &Result<Manifest>, elapsed: Duration) {
    meter::checkpoint(outcome.is_ok(), elapsed);
    match outcome {
        Ok(manifest) => {
            let rows = manifest.partitions.iter().map(|partition| partition.rows).sum::<u64>();
            event!(INFO, "checkpoint", ts = manifest.checkpoint_ts().0, rows, elapsed_ms = millis(elapsed));
        }
        Err(error) => {
            event!(ERROR, "checkpoint failed", error = %error);
        }
    }
}

#[cfg(feature = "tracing")]
fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// The span in which an attempt of a body runs, entered until it is dropped.
pub(crate) struct Attempt {
    #[cfg(feature = "tracing")]
    entered: Option<tracing::span::EnteredSpan>,
}

#[cfg(feature = "tracing")]
impl Drop for Attempt {
    fn drop(&mut self) {
        let entered = self.entered.take();
        quietly(|| drop(entered));
    }
}

/// Enters the span of an attempt.
pub(crate) fn attempt(begin: &Begin, attempt: u32) -> Attempt {
    Attempt {
        #[cfg(feature = "tracing")]
        entered: std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tracing::span!(
                target: "isolde",
                tracing::Level::DEBUG,
                "transaction",
                label = begin.label.as_deref(),
                attempt,
                isolation = %begin.isolation,
                mode = %begin.mode
            )
            .entered()
        }))
        .ok(),
    }
}
