//! Beginning and committing in one go, where nothing is to be waited for: no future is made.
//!
//! A commit locks its records briefly first, and then ends its transaction and decides in one step of the gate, which
//! is refused if anybody is inside or has ended it. So nobody has to be told that it was decided too early: whoever
//! cannot go this way has changed nothing, and goes the long way.

use isolde_types::Ts;
use isolde_types::sync::Arc;
use isolde_types::sync::atomic::Ordering;

use super::commit::Commit;
use super::inside::GiveUpOnDrop;
use super::merge_results::MergeResults;
use super::wait::Wait;
use super::{Begin, CoreRef, TxnInner};
use crate::error::Result;
use crate::isolation::WriteTiming;
use crate::trace;

/// What is left of a commit that could not be done at once.
pub(crate) enum Rest {
    /// All of it.
    All,
    /// It is committed, and has to wait until it is visible.
    Visibility(Ts),
}

impl TxnInner {
    /// Begins where no key is to be locked first, which may wait.
    pub fn begin_at_once(core: &CoreRef, begin: &Begin) -> Result<Arc<TxnInner>> {
        let txn = TxnInner::new(core, begin)?;
        // A recorder is told of the begin before the view is taken.
        if core.tap.is_open() {
            txn.open_view();
        }
        Ok(txn)
    }

    /// Commits, if that waits for nothing.
    ///
    /// # Errors
    /// What is left to do, if it does.
    pub fn commit_at_once(self: &Arc<Self>) -> std::result::Result<Result<Commit>, Rest> {
        match self.decide_in_one_step() {
            None => Err(Rest::All),
            Some(Ok(ts)) if self.core.timeline.visible() < ts => Err(Rest::Visibility(ts)),
            Some(decided) => {
                let outcome = decided.map(|ts| self.committed(ts));
                trace::commit(self, &outcome);
                Ok(outcome)
            }
        }
    }

    /// What [`commit_at_once`](TxnInner::commit_at_once) has left.
    pub async fn commit_rest(self: &Arc<Self>, wait: &Wait, rest: Rest) -> Result<Commit> {
        let outcome = match rest {
            Rest::All => self.commit_untold(wait).await,
            Rest::Visibility(ts) => {
                self.visible(wait, ts).await;
                Ok(self.committed(ts))
            }
        };
        trace::commit(self, &outcome);
        outcome
    }

    /// Steps 1 to 6, in memory; `None` where it must go another way, and nothing was done.
    fn decide_in_one_step(self: &Arc<Self>) -> Option<Result<Ts>> {
        if self.core.disk.is_some() || self.merges.load(Ordering::Relaxed) || !self.is_open() {
            return None;
        }
        let mut body = self.body();
        let optimistic = self.policy.writes == WriteTiming::AtCommit;
        if body.writes.is_empty() || optimistic && !self.may_lock_briefly(&body) {
            return None;
        }
        let records = match self.lock_records(&body, self.records(&body)) {
            Ok(locked) if self.gate.end_deciding() => {
                let guard = GiveUpOnDrop(self);
                body.locked = locked;
                return Some(self.or_give_up(guard, || self.decide(None, body, Ok(MergeResults::default()))));
            }
            Ok(locked) => locked.release(),
            Err(records) => records,
        };
        // So that whoever rolls back finds those that were made for it.
        body.writes.set_records(&records);
        None
    }
}
