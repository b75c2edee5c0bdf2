//! Beginning and committing in one go, where nothing is to be waited for: no future is made.
//!
//! A commit locks its records briefly first, and then ends its transaction and decides in one step of the gate, which
//! is refused if anybody is inside or has ended it. So nobody has to be told that it was decided too early: whoever
//! cannot go this way has changed nothing, and goes the long way.

use isolde_types::Ts;
use isolde_types::sync::Arc;
use isolde_types::sync::atomic::Ordering;

use super::commit::{Commit, log_bound};
use super::inside::GiveUpOnDrop;
use super::merge_results::MergeResults;
use super::wait::Wait;
use super::{Begin, CoreRef, TxnInner};
use crate::error::Result;
use crate::isolation::WriteTiming;
use crate::trace;

/// What is left of a commit that could not be done at once.
#[derive(Debug)]
pub(crate) enum Rest {
    /// All of it.
    All,
    /// It is committed, and has to wait until it is visible and hard.
    Hardness(Ts),
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
        let hardened = match self.decide_in_one_step().ok_or(Rest::All)? {
            Ok(ts) if self.core.timeline.visible() < ts => return Err(Rest::Hardness(ts)),
            Ok(ts) => self.harden_at_once(ts).ok_or(Rest::Hardness(ts))?.map(|()| ts),
            Err(error) => Err(error),
        };
        let outcome = hardened.map(|ts| self.committed(ts));
        trace::commit(self, &outcome);
        Ok(outcome)
    }

    /// What [`commit_at_once`](TxnInner::commit_at_once) has left.
    pub async fn commit_rest(self: &Arc<Self>, wait: &Wait, rest: Rest) -> Result<Commit> {
        let outcome = match rest {
            Rest::All => self.commit_untold(wait).await,
            Rest::Hardness(ts) => self.acknowledged(wait, ts).await,
        };
        trace::commit(self, &outcome);
        outcome
    }

    /// Steps 1 to 6; `None` where it must go another way, and nothing was done.
    fn decide_in_one_step(self: &Arc<Self>) -> Option<Result<Ts>> {
        if self.merges.load(Ordering::Relaxed) || !self.is_open() {
            return None;
        }
        let mut body = self.body();
        let optimistic = self.policy.writes == WriteTiming::AtCommit;
        if body.writes.is_empty() || optimistic && !self.may_lock_briefly(&body) {
            return None;
        }
        // Before the gate is asked: what was decided must not fail for space.
        let reservation = match &self.core.disk {
            Some(disk) => Some(self.admit_at_once(disk, log_bound(&body))?),
            None => None,
        };
        let records = match self.lock_records(&body, self.records(&body)) {
            Ok(locked) if self.gate.end_deciding() => {
                let guard = GiveUpOnDrop(self);
                body.locked = locked;
                return Some(self.or_give_up(guard, || self.decide(reservation, body, Ok(MergeResults::default()))));
            }
            Ok(locked) => locked.release(),
            Err(records) => records,
        };
        // So that whoever rolls back finds those that were made for it.
        body.writes.set_records(&records);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Db, Durability, Mode, Txn};

    /// A transaction that has written.
    fn begun(db: &Db, mode: Mode, durability: Durability) -> Txn {
        let txn = db.txn().mode(mode).durability(durability).begin().unwrap();
        txn.put(format!("{mode:?} {durability:?}"), format!("{durability:?}")).unwrap();
        txn
    }

    /// How far its commit comes at once.
    fn comes(db: &Db, durability: Durability) -> std::result::Result<Result<Ts>, Rest> {
        let came = begun(db, Mode::Optimistic, durability).inner().commit_at_once();
        came.map(|outcome| outcome.map(|commit| commit.ts))
    }

    #[test]
    fn a_durable_commit_waits_for_nothing_but_what_its_durability_asks_for() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::builder().path(folder.path()).no_threads().open().unwrap();
        let log = &db.core().disk.as_ref().unwrap().log;
        db.put("k", "has space reserved for those that follow").unwrap();

        let told = comes(&db, Durability::None).unwrap().unwrap();
        assert_eq!(log.acknowledged(), told, "whoever reads what is durable must not go back behind it");
        assert!(log.durable().get() < told);
        for durability in [Durability::Sync, Durability::Buffered] {
            let Err(Rest::Hardness(ts)) = comes(&db, durability) else { panic!("{durability:?} waits for the log") };
            assert!(log.acknowledged() < ts && log.durable().get() < ts, "{durability:?} is told of later");
            let visible = db.txn().durability(Durability::None).run(|t| t.get(format!("Optimistic {durability:?}")));
            assert!(visible.unwrap().is_some(), "it is committed");
        }
        db.sync().unwrap();

        let begun = |mode| [Durability::None, Durability::Sync].map(|durability| begun(&db, mode, durability));
        let written = [Mode::Pessimistic, Mode::Optimistic].map(begun);
        log.fail("for this test");
        for txn in written.as_flattened() {
            let came = txn.inner().commit_at_once();
            assert!(matches!(came, Err(Rest::All)), "a failed log refuses, and the long way says so");
        }
        assert!(db.get("Pessimistic None").unwrap().is_none());
    }
}
