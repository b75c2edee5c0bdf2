//! A request as a future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use isolde_types::LockMode;
use isolde_types::sync::Arc;

use super::{Granted, Handle, LockManager};
use crate::error::LockError;
use crate::ledger::{Locked, Purpose};
use crate::owner::Owner;
use crate::policy::WaitPolicy;
use crate::report::Blocker;
use crate::table::Ticket;

/// A lock that is being acquired.
///
/// Ready at once where nobody is in the way, and then nothing is allocated. Pending it is in its
/// queue; whoever releases what it waits for wakes it. Dropped while it is pending, or granted but not
/// polled since, it leaves the queue and holds nothing that the transaction did not hold before.
#[must_use = "a lock is asked for, and waited for, by polling"]
pub struct Acquire<'a, H: Handle> {
    pub(super) manager: &'a LockManager<H>,
    pub(super) owner: &'a Arc<Owner<H>>,
    pub(super) locked: Locked<H>,
    pub(super) mode: LockMode,
    pub(super) purpose: Purpose,
    pub(super) wait: WaitPolicy,
    /// The count of spans was raised for this request.
    pub(super) announced: bool,
    pub(super) state: Progress,
}

/// How far a request has come.
pub(super) enum Progress {
    /// Nothing was asked yet.
    Ask,
    /// It is in its queue.
    Waits(Ticket),
    /// It is over, and its outcome was fetched.
    Done,
}

impl<H: Handle> Future for Acquire<'_, H> {
    type Output = Result<Granted, LockError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let request = self.get_mut();
        let manager = request.manager;
        match &mut request.state {
            Progress::Done => Poll::Ready(Err(LockError::Ended)),
            Progress::Waits(ticket) => {
                let ticket = *ticket;
                manager.look(request, ticket, cx.waker())
            }
            Progress::Ask => {
                request.state = Progress::Done;
                if let Locked::Key(handle) = &request.locked
                    && let Some(outcome) = manager.try_word(request.owner, handle, request.mode, request.purpose)
                {
                    return Poll::Ready(outcome.map(|()| Granted { waited: false }));
                }
                manager.ask(request, cx.waker())
            }
        }
    }
}

impl<H: Handle> Unpin for Acquire<'_, H> {}

impl<H: Handle> Acquire<'_, H> {
    /// Ends the wait: its time is over.
    ///
    /// # Errors
    /// `Timeout` with those who stood in the way; or, if the wait had ended without a grant just
    /// before, why. `Ok` if it had just been granted: then the lock is held.
    pub fn time_out(self: Pin<&mut Self>) -> Result<(), LockError> {
        let request = self.get_mut();
        let Progress::Waits(ticket) = request.state else { return Err(LockError::Ended) };
        let blockers = request.manager.graph.lock().table.blockers(ticket);
        let noop = Waker::noop();
        match request.manager.look(request, ticket, noop) {
            Poll::Ready(outcome) => outcome.map(|_| ()),
            Poll::Pending => {
                request.cancel();
                Err(LockError::Timeout(blockers))
            }
        }
    }

    /// Who stands in the way now; empty if it does not wait.
    pub fn blockers(&self) -> Vec<Blocker> {
        match self.state {
            Progress::Waits(ticket) => self.manager.graph.lock().table.blockers(ticket),
            Progress::Ask | Progress::Done => Vec::new(),
        }
    }

    fn cancel(&mut self) {
        let Progress::Waits(ticket) = std::mem::replace(&mut self.state, Progress::Done) else { return };
        let manager = self.manager;
        let mut graph = manager.graph.lock();
        let known = graph.wakers.remove(&ticket);
        let effects = graph.table.cancel(ticket);
        let aftermath = manager.settle(&mut graph, effects);
        manager.deflate_locked(&mut graph, &self.locked);
        drop(graph);
        drop(known);
        aftermath.perform();
    }
}

impl<H: Handle> Drop for Acquire<'_, H> {
    fn drop(&mut self) {
        self.cancel();
        if self.announced {
            self.manager.drop_spans(1);
        }
    }
}
