//! The gate of a transaction: who is inside, and whether it is ending.
//!
//! One word says how many threads are inside (an operation is inside only while it is polled, an
//! iterator only during `next`) and whether the transaction is ending. Entering and ending are
//! compare-and-swaps on that word, so they cannot both miss each other:
//!
//! ```text
//!            enter / leave
//!   active ───────────────► active, n inside
//!     │ end (commit)            │ end
//!     ▼                         ▼
//!   ending ◄── last leave ── ending, n inside      later operations: TransactionEnded
//!     │ abandon: whoever finds or leaves nobody inside rolls back, exactly once
//!     ▼                         │ decide (the commit itself, once it waits for nothing more)
//!   rolling back                ▼
//!                           deciding: nobody else rolls it back; it finishes, or gives itself up
//! ```
//!
//! A wound marks the transaction; it is rolled back at once if nobody is inside, else by the last
//! to leave.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use isolde_types::mutant;
use isolde_types::sync::Mutex;
use isolde_types::sync::atomic::{AtomicU64, Ordering};

const INSIDE: u64 = (1 << 32) - 1;
const ENDING: u64 = 1 << 32;
const ABANDONED: u64 = 1 << 33;
const WOUNDED: u64 = 1 << 34;
const CLEANED: u64 = 1 << 35;
const DECIDING: u64 = 1 << 36;

/// What must be done by the caller after a transition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Duty {
    /// Nothing.
    Nothing,
    /// Roll back: the transaction is ending, nobody is inside, and nobody else will.
    RollBack,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    word: AtomicU64,
    drained: Mutex<Option<Waker>>,
}

impl Gate {
    /// Goes inside; `false` when the transaction is ending or wounded.
    pub fn enter(&self) -> bool {
        self.update(|word| (word & (ENDING | WOUNDED) == 0).then_some(word + 1)).is_ok()
    }

    /// Whether operations may still enter.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.word.load(Ordering::Acquire) & (ENDING | WOUNDED) == 0
    }

    /// Goes outside.
    pub fn leave(&self) -> Duty {
        let left = |word: u64| {
            let next = word - 1;
            let wounded = next & WOUNDED != 0 && next & ENDING == 0;
            Some(if wounded && next & INSIDE == 0 { next | ENDING | ABANDONED } else { next })
        };
        match self.update(left) {
            Ok(word) => self.after(word),
            Err(_) => Duty::Nothing,
        }
    }

    /// Begins to end, for a commit: from now on nobody enters. `false` if something else ended it.
    pub fn end(&self) -> bool {
        self.update(|word| (word & (ENDING | WOUNDED) == 0).then_some(word | ENDING)).is_ok()
    }

    /// Whether it was wounded: ended from outside before it began to end by itself.
    pub fn is_wounded(&self) -> bool {
        self.word.load(Ordering::Acquire) & WOUNDED != 0
    }

    /// Ready when nobody is inside an ending transaction: `true` if it may be committed, `false` if one
    /// of those who were inside gave it up.
    pub fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let drained = || {
            let word = self.word.load(Ordering::Acquire);
            if word & INSIDE == 0 { Poll::Ready(word & ABANDONED == 0) } else { Poll::Pending }
        };
        if drained().is_ready() {
            return drained();
        }
        let waker = cx.waker().clone();
        let earlier = self.drained.lock().replace(waker);
        drop(earlier);
        drained()
    }

    /// Wakes whoever waits until nobody is inside.
    pub fn wake_drained(&self) {
        let waker = self.drained.lock().take();
        if let Some(waker) = waker {
            // A panic there is somebody else's: whoever leaves may be unwinding.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Gives the transaction up: it is rolled back by the caller, or by the last to leave. One whose commit
    /// decides is left alone: that is taking its place in the order of all.
    pub fn abandon(&self) -> Duty {
        let taken = if mutant!("kill-meets-commit") { ABANDONED } else { ABANDONED | DECIDING };
        let given_up = |word: u64| (word & taken == 0).then_some(word | ENDING | ABANDONED);
        match self.update(given_up) {
            Ok(word) => self.after(word),
            Err(_) => Duty::Nothing,
        }
    }

    /// The commit goes on to where it cannot be stopped any more; `false` if somebody has given the
    /// transaction up.
    pub fn decide(&self) -> bool {
        let stands = |word: u64| word & ABANDONED == 0 || mutant!("killed-commit-goes-on");
        self.update(|word| stands(word).then_some(word | DECIDING)).is_ok()
    }

    /// Begins to end and decides in one step; `false`, and nothing has changed, if anybody is inside or has ended it.
    pub fn end_deciding(&self) -> bool {
        // AcqRel: as in `update`.
        self.word.compare_exchange(0, ENDING | DECIDING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The commit gives its transaction up, however far it has come.
    pub fn give_up(&self) -> Duty {
        match self.update(|word| Some((word & !DECIDING) | ENDING | ABANDONED)) {
            Ok(word) => self.after(word),
            Err(_) => Duty::Nothing,
        }
    }

    /// The commit is done: nothing is left to roll back. It has decided, and from then on nobody else changes the word.
    pub fn finish(&self) {
        let word = self.word.load(Ordering::Relaxed);
        debug_assert!(word & DECIDING != 0 && word & INSIDE == 0, "a commit decides before it is done");
        self.word.store(word | CLEANED, Ordering::Release);
    }

    /// Marks the transaction wounded. One that is already ending is left alone: its commit learns of
    /// the wound from its locks, or is past it.
    pub fn wound(&self) -> Duty {
        let wounded = |word: u64| match word {
            word if word & ENDING != 0 => None,
            word if word & INSIDE == 0 => Some(word | WOUNDED | ENDING | ABANDONED),
            word => Some(word | WOUNDED),
        };
        match self.update(wounded) {
            Ok(word) => self.after(word),
            Err(_) => Duty::Nothing,
        }
    }

    /// What the word that was just stored asks of whoever stored it.
    fn after(&self, word: u64) -> Duty {
        if word & INSIDE != 0 || word & ENDING == 0 {
            return Duty::Nothing;
        }
        if word & ABANDONED != 0 {
            return self.claim_cleaning();
        }
        self.wake_drained();
        Duty::Nothing
    }

    fn claim_cleaning(&self) -> Duty {
        match self.update(|word| (word & CLEANED == 0).then_some(word | CLEANED)) {
            Ok(_) => Duty::RollBack,
            Err(_) => Duty::Nothing,
        }
    }

    /// Stores what `next` makes of the word, and gives it back; `Err` if `next` declines.
    fn update(&self, next: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        // AcqRel: whoever ends or cleans up sees all that those who left had done.
        self.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, &next)
            .map(|before| next(before).expect("the same function accepted this word"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_enters_what_is_ending() {
        let gate = Gate::default();
        assert!(gate.enter());
        assert!(gate.end());
        assert!(!gate.enter() && !gate.end());
        assert_eq!(gate.leave(), Duty::Nothing);
        assert_eq!(gate.poll_drained(&mut Context::from_waker(Waker::noop())), Poll::Ready(true));
    }

    #[test]
    fn a_commit_learns_that_the_last_to_leave_has_given_the_transaction_up() {
        let gate = Gate::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(gate.enter() && gate.end());
        assert!(gate.poll_drained(&mut cx).is_pending());
        assert_eq!(gate.abandon(), Duty::Nothing);
        assert_eq!(gate.leave(), Duty::RollBack);
        assert_eq!(gate.poll_drained(&mut cx), Poll::Ready(false));
    }

    #[test]
    fn the_last_to_leave_an_abandoned_transaction_rolls_back_once() {
        let gate = Gate::default();
        assert!(gate.enter() && gate.enter());
        assert_eq!(gate.abandon(), Duty::Nothing);
        assert_eq!(gate.leave(), Duty::Nothing);
        assert_eq!(gate.leave(), Duty::RollBack);
        assert_eq!(gate.abandon(), Duty::Nothing);
    }

    #[test]
    fn an_idle_wounded_transaction_is_rolled_back_at_once() {
        let gate = Gate::default();
        assert_eq!(gate.wound(), Duty::RollBack);
        assert!(!gate.enter());
    }

    #[test]
    fn a_running_wounded_transaction_is_rolled_back_when_it_leaves() {
        let gate = Gate::default();
        assert!(gate.enter());
        assert_eq!(gate.wound(), Duty::Nothing);
        assert!(!gate.enter());
        assert_eq!(gate.leave(), Duty::RollBack);
    }

    #[test]
    fn a_committing_transaction_ignores_the_wound_mark() {
        let gate = Gate::default();
        assert!(gate.end());
        assert_eq!(gate.wound(), Duty::Nothing);
        assert_eq!(gate.abandon(), Duty::RollBack);
    }

    #[test]
    fn nobody_rolls_back_what_is_being_decided_but_its_own_commit() {
        let gate = Gate::default();
        assert!(gate.end() && gate.decide());
        assert_eq!(gate.abandon(), Duty::Nothing);
        assert_eq!(gate.give_up(), Duty::RollBack);
        assert_eq!((gate.give_up(), gate.abandon()), (Duty::Nothing, Duty::Nothing));
    }

    #[test]
    fn what_is_ended_and_decided_in_one_step_was_open_and_empty() {
        let gate = Gate::default();
        assert!(gate.enter() && !gate.end_deciding());
        assert_eq!(gate.leave(), Duty::Nothing);
        assert!(gate.end_deciding() && !gate.end_deciding() && !gate.enter());
        assert_eq!((gate.abandon(), gate.wound()), (Duty::Nothing, Duty::Nothing));
        assert_eq!(gate.give_up(), Duty::RollBack);
        let wounded = Gate::default();
        assert!(wounded.enter() && wounded.wound() == Duty::Nothing && !wounded.end_deciding());
    }

    #[test]
    fn a_commit_does_not_decide_what_was_given_up() {
        let gate = Gate::default();
        assert!(gate.end());
        assert_eq!(gate.abandon(), Duty::RollBack);
        assert!(!gate.decide());
        assert_eq!(gate.give_up(), Duty::Nothing);
    }
}
