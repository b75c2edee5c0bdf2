//! Operations inside the gate of their transaction, and what happens when they leave.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use isolde_types::sync::Arc;

use super::TxnInner;
use crate::error::Result;
use crate::trace;

/// An operation that is inside its transaction's gate whenever it is polled, and only then.
///
/// An error that ends the transaction rolls it back before the operation returns.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Inside<'t, F> {
    pub(super) txn: &'t Arc<TxnInner>,
    pub(super) operation: F,
}

impl<T, F: Future<Output = Result<T>>> Inside<'_, F> {
    /// Runs the operation as a future.
    pub async fn run(self) -> Result<T> {
        let Inside { txn, operation } = self;
        let mut operation = std::pin::pin!(operation);
        std::future::poll_fn(|cx| poll_inside(txn, operation.as_mut(), cx)).await
    }
}

/// Polls an operation inside the gate.
pub(crate) fn poll_inside<T, F: Future<Output = Result<T>> + ?Sized>(
    txn: &TxnInner,
    operation: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<T>> {
    if let Err(ended) = txn.enter() {
        // Whoever ended it rolls it back, or commits it.
        txn.remember_retryable(&ended);
        return Poll::Ready(Err(ended));
    }
    let inside = LeaveOnDrop(txn);
    let polled = operation.poll(cx);
    if let Poll::Ready(outcome) = &polled {
        txn.after_operation(outcome.as_ref().err());
    }
    drop(inside);
    if let Poll::Ready(outcome) = &polled {
        trace::operation(txn, outcome.as_ref().err());
    }
    polled
}

impl TxnInner {
    /// From here on nobody else can roll it back: its commit has waited for all that it waits for.
    ///
    /// # Errors
    /// It was rolled back meanwhile.
    pub fn decides(&self) -> Result<()> {
        if self.gate.decide() { Ok(()) } else { Err(self.ended_error()) }
    }

    /// Rolls back a transaction whose commit has failed.
    pub(super) fn give_up(&self) {
        self.perform(self.gate.give_up());
        // If somebody else had rolled it back, its commit may have made a lock owner, or locked, after that. Whoever
        // is still about to roll it back gives the locks back when its versions are withdrawn, and not before.
        let (owner, locked) = {
            let mut body = self.body();
            if !body.undone {
                return;
            }
            (body.owner.take(), std::mem::take(&mut body.locked))
        };
        drop(locked);
        self.release(owner, &[]);
    }
}

/// Leaves the gate when dropped.
pub(crate) struct LeaveOnDrop<'t>(pub(super) &'t TxnInner);

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Rolls a transaction back unless it is forgotten.
pub(crate) struct RollbackOnDrop<'t>(pub &'t TxnInner);

impl Drop for RollbackOnDrop<'_> {
    fn drop(&mut self) {
        self.0.roll_back();
    }
}

/// Gives a transaction up whose commit has failed, however far that had come, unless it is forgotten.
pub(crate) struct GiveUpOnDrop<'t>(pub &'t TxnInner);

impl Drop for GiveUpOnDrop<'_> {
    fn drop(&mut self) {
        self.0.give_up();
    }
}
