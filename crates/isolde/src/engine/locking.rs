//! Locking keys and spans for a transaction: waiting, and what a refusal says.

use std::task::Poll;

use isolde_locks::{Acquire, Brief, Handles, LockError, Owner, Purpose, WaitPolicy};
use isolde_types::sync::Arc;
use isolde_types::{LockMode, Span};

use super::wait::{Cause, Patience, Wait};
use super::{RecordRef, TxnInner};
use crate::error::{Asked, Deadlock, Error, KeyText, LockWait, Result, TooLarge, TxnSummary, Wound};
use crate::trace;

/// The records of a write set whose commit runs, in key order.
pub(crate) enum WriteRecords {
    /// Their locks are with the transaction's owner.
    Held(Handles<RecordRef>),
    /// Their locks are here, for the length of the commit.
    Brief(Brief<RecordRef>),
}

impl WriteRecords {
    /// Gives back the locks that are here.
    pub fn release(self) -> Handles<RecordRef> {
        match self {
            WriteRecords::Held(records) => records,
            WriteRecords::Brief(brief) => brief.release(),
        }
    }
}

impl Default for WriteRecords {
    fn default() -> Self {
        WriteRecords::Held(Handles::new())
    }
}

impl std::ops::Deref for WriteRecords {
    type Target = [RecordRef];

    fn deref(&self) -> &[RecordRef] {
        match self {
            WriteRecords::Held(records) => records,
            WriteRecords::Brief(brief) => brief.records(),
        }
    }
}

impl TxnInner {
    /// Locks a key and gives its record.
    ///
    /// The record is linked into the indexes before its lock is asked for; a record that was
    /// reclaimed in between is looked up again.
    pub async fn lock_key(
        self: &Arc<Self>,
        wait: &Wait,
        key: &[u8],
        mode: LockMode,
        purpose: Purpose,
    ) -> Result<RecordRef> {
        let owner = self.owner();
        let record = RecordRef(self.core.store.find_or_create(key));
        self.lock_record(&owner, wait, record, mode, purpose).await
    }

    /// The same, for a caller that has the owner and the record; gives the one that was locked.
    pub async fn lock_record(
        &self,
        owner: &Arc<Owner<RecordRef>>,
        wait: &Wait,
        mut record: RecordRef,
        mode: LockMode,
        purpose: Purpose,
    ) -> Result<RecordRef> {
        self.writable()?;
        loop {
            let policy = wait_policy(wait);
            let acquire = self.core.locks.lock_key(owner, record.clone(), mode, purpose, policy);
            let waits = || trace::waits(self, || KeyText::new(record.0.key(), self.core.config.redact), mode);
            match lock_wait(wait, acquire, waits).await {
                Ok(()) => return Ok(record),
                Err(LockError::Sealed) => record = RecordRef(self.core.store.find_or_create(record.0.key())),
                Err(error) => return Err(self.lock_error(error, wait, |w| w.key(record.0.key()))),
            }
        }
    }

    /// Locks a span.
    pub async fn lock_span(self: &Arc<Self>, wait: &Wait, span: &Span, mode: LockMode, purpose: Purpose) -> Result<()> {
        self.writable()?;
        let owner = self.owner();
        let acquire = self.core.locks.lock_span(&owner, span.clone(), mode, purpose, wait_policy(wait), &*self.core);
        let waits = || trace::waits(self, || KeyText::span(span, self.core.config.redact), mode);
        lock_wait(wait, acquire, waits).await.map_err(|error| self.lock_error(error, wait, |w| w.span(span)))
    }

    fn lock_error(&self, error: LockError, wait: &Wait, target: impl FnOnce(WaitFor) -> LockWait) -> Error {
        let asked = match wait.patience {
            Patience::NoWait => Asked::ByCall,
            Patience::Default | Patience::AtMost(_) => Asked::ByPolicy,
        };
        let redact = self.core.config.redact;
        let wait_for = |blockers| WaitFor { me: self.summary(), blockers, asked, redact };
        match error {
            LockError::Deadlock(report) => Error::Deadlock(Box::new(Deadlock { report, redact })),
            LockError::Wounded { by } => Error::Wounded(Box::new(Wound { me: self.summary(), by })),
            LockError::Busy(blockers) => Error::LockBusy(Box::new(target(wait_for(blockers)))),
            LockError::Timeout(blockers) => Error::LockTimeout(Box::new(target(wait_for(blockers)))),
            LockError::TooManyLocks { limit } => Error::TooLarge(Box::new(TooLarge {
                what: "locks of one transaction",
                size: limit + 1,
                limit,
                option: "max_locks_per_transaction",
            })),
            LockError::Ended | LockError::Sealed => self.ended_error(),
        }
    }
}

/// What a failed lock request says about itself.
struct WaitFor {
    me: TxnSummary,
    blockers: Vec<isolde_locks::Blocker>,
    asked: Asked,
    redact: crate::error::Redact,
}

impl WaitFor {
    fn key(self, key: &[u8]) -> LockWait {
        LockWait::on_key(self.me, key, self.blockers, self.asked, self.redact)
    }

    fn span(self, span: &Span) -> LockWait {
        LockWait::on_span(self.me, span, self.blockers, self.asked, self.redact)
    }
}

fn wait_policy(wait: &Wait) -> WaitPolicy {
    match wait.patience {
        Patience::NoWait => WaitPolicy::NoWait,
        Patience::Default | Patience::AtMost(_) => WaitPolicy::Wait,
    }
}

/// Waits for a lock, until it is granted, fails, or the wait has expired.
async fn lock_wait<W>(wait: &Wait, acquire: Acquire<'_, RecordRef>, waits: impl Fn() -> W) -> Result<(), LockError> {
    let mut acquire = std::pin::pin!(acquire);
    let mut waiting = None;
    std::future::poll_fn(|cx| {
        if waiting.is_some() && wait.take_expired() {
            return Poll::Ready(acquire.as_mut().time_out());
        }
        match acquire.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map(|_| ())),
            Poll::Pending => {
                if waiting.is_none() {
                    wait.begin_lock_wait();
                    waiting = Some(waits());
                }
                wait.pending(Cause::Lock);
                Poll::Pending
            }
        }
    })
    .await
}
