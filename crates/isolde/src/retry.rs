//! Retrying a transaction body: when, how long to wait, and when to stop being optimistic.
//!
//! A body is run again only after an error for which [`Error::is_retryable`] holds. Between
//! attempts it waits a random time up to an exponentially growing bound ("full jitter"), so that two
//! bodies that undo each other do not keep step. A retry locks the key that the attempt before lost
//! on and only then takes its snapshot; after [`RetryPolicy::escalate_after`] losses an optimistic
//! body runs in pessimistic mode. A retry keeps the age of the first attempt, so that under the
//! policies that favour the old it wins in the end.

use std::time::Duration;

use crate::engine::{Begin, Core};
use crate::error::{Error, Result, RetriesExhausted};
use crate::isolation::escalated;
use crate::trace;
use isolde_types::Mode;
use isolde_types::sync::Arc;

/// How often, and at what pace, a body is run again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How many times a body runs at most, the first time included. At least 1.
    pub max_attempts: u32,
    /// The bound of the random wait before the second attempt; it doubles with each attempt.
    pub base_delay: Duration,
    /// The largest bound of a wait.
    pub max_delay: Duration,
    /// No attempt starts after this time since the first one began.
    pub max_elapsed: Option<Duration>,
    /// After this many losses an optimistic body runs in pessimistic mode.
    pub escalate_after: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_attempts: 16,
            base_delay: Duration::from_micros(50),
            max_delay: Duration::from_millis(20),
            max_elapsed: None,
            escalate_after: 3,
        }
    }
}

impl RetryPolicy {
    /// This policy with another number of attempts.
    #[must_use]
    pub fn with_max_attempts(self, max_attempts: u32) -> Self {
        RetryPolicy { max_attempts, ..self }
    }

    /// This policy with another number of losses before an optimistic body runs pessimistically.
    #[must_use]
    pub fn with_escalate_after(self, escalate_after: u32) -> Self {
        RetryPolicy { escalate_after, ..self }
    }

    /// This policy with other bounds on the waits.
    #[must_use]
    pub fn with_delays(self, base_delay: Duration, max_delay: Duration) -> Self {
        RetryPolicy { base_delay, max_delay, ..self }
    }

    /// This policy with a limit on the time of all attempts.
    #[must_use]
    pub fn with_max_elapsed(self, max_elapsed: Duration) -> Self {
        RetryPolicy { max_elapsed: Some(max_elapsed), ..self }
    }

    /// A random wait before the attempt after `failed` failed ones.
    fn delay(&self, failed: u32) -> Duration {
        let doubled = self.base_delay.saturating_mul(1 << failed.saturating_sub(1).min(20));
        let bound = doubled.min(self.max_delay);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(fastrand::u64(0..=nanos))
    }
}

/// What an `on_retry` hook is told before a body runs again.
#[derive(Debug)]
#[non_exhaustive]
pub struct RetryEvent<'a> {
    /// The transaction's label.
    pub label: Option<&'a str>,
    /// The number of the attempt that failed, from 1.
    pub attempt: u32,
    /// Why it failed.
    pub error: &'a Error,
    /// How long is waited before the next one.
    pub delay: Duration,
    /// Whether the next attempt runs in pessimistic mode because optimism lost too often.
    pub escalated: bool,
}

/// Is told before a body runs again.
pub(crate) type RetryHook = Arc<dyn Fn(&RetryEvent<'_>) + Send + Sync>;

/// The attempts of one body.
pub(crate) struct Attempts {
    /// How the next attempt is to be begun.
    pub begin: Begin,
    policy: RetryPolicy,
    failed: u32,
    started: Duration,
}

impl Attempts {
    pub fn new(core: &Core, begin: Begin) -> Attempts {
        Attempts { begin, policy: core.config.retry.clone(), failed: 0, started: core.config.clock.now() }
    }

    /// The number of the next attempt, from 1.
    pub fn number(&self) -> u32 {
        self.failed + 1
    }

    /// After a failed attempt: how long to wait before the next.
    ///
    /// # Errors
    /// The error itself if it is not retryable, `RetriesExhausted` if there is no next attempt.
    pub fn after(&mut self, core: &Core, error: Error, age: u64) -> Result<Duration> {
        if !error.is_retryable() {
            return Err(error);
        }
        self.failed += 1;
        let elapsed = core.config.clock.now().saturating_sub(self.started);
        let late = self.policy.max_elapsed.is_some_and(|max| elapsed >= max);
        if self.failed >= self.policy.max_attempts || late {
            let attempts = self.failed;
            trace::gave_up(&self.begin, attempts, &error);
            return Err(Error::RetriesExhausted(Box::new(RetriesExhausted { attempts, elapsed, last: error })));
        }
        let escalated = self.adapt(core, &error, age);
        let delay = self.policy.delay(self.failed);
        core.registry.count(|counts| counts.retries += 1);
        trace::retry(&self.begin, self.failed, delay, escalated, &error);
        if let Some(hook) = &core.config.on_retry {
            let label = self.begin.label.as_deref();
            hook(&RetryEvent { label, attempt: self.failed, error: &error, delay, escalated });
        }
        Ok(delay)
    }

    /// What the next attempt does differently; whether it escalates now.
    fn adapt(&mut self, core: &Core, error: &Error, age: u64) -> bool {
        if core.config.keep_age {
            self.begin.age = Some(age);
        }
        let escalate = self.begin.mode == Mode::Optimistic && self.failed >= self.policy.escalate_after;
        if escalate {
            self.begin.mode = Mode::Pessimistic;
            self.begin.isolation = escalated(self.begin.isolation);
        }
        let optimistic = self.begin.mode == Mode::Optimistic;
        self.begin.lock_first = error.conflict().filter(|_| optimistic).map(|conflict| conflict.lost_on.0.clone());
        escalate
    }
}

/// Lets time pass between attempts.
#[cfg(not(any(shuttle, loom)))]
pub(crate) fn pause(delay: Duration) {
    if !delay.is_zero() {
        std::thread::sleep(delay);
    }
}

/// A model checker has no time.
#[cfg(any(shuttle, loom))]
pub(crate) fn pause(_delay: Duration) {
    isolde_types::sync::thread::yield_now();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_are_random_below_it() {
        let policy = RetryPolicy::default();
        for failed in 1..64 {
            assert!(policy.delay(failed) <= policy.max_delay);
        }
        assert!(policy.delay(1) <= policy.base_delay);
        assert!((0..100).map(|_| policy.delay(10)).collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
