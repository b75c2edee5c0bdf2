//! What is counted for `metrics`, with the feature of that name; without it, nothing is, at no cost.
//!
//! | metric | kind | labels |
//! | --- | --- | --- |
//! | `isolde_commits_total` | counter | `isolation`, `mode` |
//! | `isolde_aborts_total` | counter | `isolation`, `mode`, `kind` |
//! | `isolde_retries_total` | counter | `kind` |
//! | `isolde_given_up_total` | counter | |
//! | `isolde_lock_wait_seconds` | histogram | `mode` of the lock |
//! | `isolde_checkpoint_seconds` | histogram | |
//! | `isolde_checkpoint_failures_total` | counter | |
//!
//! `kind` is an [`ErrorKind`](crate::ErrorKind) by its name. They go to the recorder that the process has
//! installed; without one they cost a few nanoseconds. A lock wait is counted when it ends, granted or not,
//! and a commit when it is acknowledged. What is a state and not an event, versions or bytes in memory, is
//! set by [`Db::report_gauges`](crate::Db::report_gauges) whenever the service asks.
//!
//! A recorder that panics loses what it was told, and nothing else.

#![cfg_attr(not(feature = "metrics"), allow(unused_variables))]

use std::time::Duration;

use isolde_types::{Clock, LockMode};

use crate::engine::TxnInner;
use crate::error::Error;

/// Tells the recorder; what it does is its own business.
macro_rules! count {
    ($($told:tt)*) => {
        #[cfg(feature = "metrics")]
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| $($told)*));
    };
}

pub(crate) fn committed(txn: &TxnInner) {
    count!(
        metrics::counter!("isolde_commits_total", "isolation" => txn.isolation.name(), "mode" => txn.mode.name())
            .increment(1)
    );
}

pub(crate) fn aborted(txn: &TxnInner, error: &Error) {
    count!(
        metrics::counter!(
            "isolde_aborts_total",
            "isolation" => txn.isolation.name(),
            "mode" => txn.mode.name(),
            "kind" => format!("{:?}", error.kind())
        )
        .increment(1)
    );
}

pub(crate) fn retry(error: &Error) {
    count!(metrics::counter!("isolde_retries_total", "kind" => format!("{:?}", error.kind())).increment(1));
}

pub(crate) fn gave_up() {
    count!(metrics::counter!("isolde_given_up_total").increment(1));
}

pub(crate) fn checkpoint(succeeded: bool, elapsed: Duration) {
    count!(if succeeded {
        metrics::histogram!("isolde_checkpoint_seconds").record(elapsed.as_secs_f64());
    } else {
        metrics::counter!("isolde_checkpoint_failures_total").increment(1);
    });
}

/// A wait for a lock, counted when it ends.
pub(crate) struct LockWait<'c> {
    #[cfg(feature = "metrics")]
    began: (&'c dyn Clock, Duration, LockMode),
    #[cfg(not(feature = "metrics"))]
    _none: std::marker::PhantomData<&'c dyn Clock>,
}

impl<'c> LockWait<'c> {
    pub fn begin(clock: &'c dyn Clock, mode: LockMode) -> LockWait<'c> {
        LockWait {
            #[cfg(feature = "metrics")]
            began: (clock, clock.now(), mode),
            #[cfg(not(feature = "metrics"))]
            _none: std::marker::PhantomData,
        }
    }
}

#[cfg(feature = "metrics")]
impl Drop for LockWait<'_> {
    fn drop(&mut self) {
        let (clock, began, mode) = self.began;
        let seconds = clock.now().saturating_sub(began).as_secs_f64();
        let mode = match mode {
            LockMode::Shared => "shared",
            LockMode::Update => "update",
            LockMode::Exclusive => "exclusive",
        };
        count!(metrics::histogram!("isolde_lock_wait_seconds", "mode" => mode).record(seconds));
    }
}

/// Sets what is a state and not an event.
#[cfg(feature = "metrics")]
pub(crate) fn gauges(stats: &crate::Stats) {
    let gauges = [
        ("isolde_active_transactions", stats.active as f64),
        ("isolde_records", stats.records as f64),
        ("isolde_versions", stats.versions as f64),
        ("isolde_memory_bytes", stats.memory_bytes as f64),
        ("isolde_views", stats.views as f64),
        ("isolde_visible_ts", stats.visible_ts.0 as f64),
    ];
    for (name, value) in gauges {
        count!(metrics::gauge!(name).set(value));
    }
}
