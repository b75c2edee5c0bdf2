//! Sleep sets: which choices need not be tried, because another schedule comes to the same.
//!
//! What a step touches is not known from its operation alone. Where it ends somebody's wait, that one's step runs
//! as a part of it: a commit that gives a lock back can finish the commit of another, and with it write keys that
//! it never named; or that commit goes on to wait for its next key. And where a step aborts somebody, all locks of
//! that one go. This is seen when the step runs: whoever was woken, or waited for something that the step touches,
//! adds what he waited to do, and a step that aborts anybody is independent of nothing.
//!
//! Whoever sleeps is independent of all that has happened since his step was tried, so that it would still do what
//! it did then.

use super::MAX_TXNS;
use super::tree::Point;
use crate::schedule::{Driver, TxnOutcome};

/// Whoever need not be tried at a point, as bits, and what their steps did when they were.
#[derive(Clone, Copy, Default)]
pub(super) struct Asleep {
    pub txns: u8,
    pub effects: [Effect; MAX_TXNS],
}

/// What a step did to others.
#[derive(Clone, Copy, Default)]
pub(super) struct Effect {
    /// Who waited before it, as bits.
    waited: u8,
    /// Whose waits it ended.
    woken: u8,
    /// Whether it aborted anybody.
    aborted: bool,
}

/// Who can go on, who waits, and who was aborted, as bits.
#[derive(Clone, Copy, Default)]
pub(super) struct Standing {
    pub ready: u8,
    waiting: u8,
    aborted: u8,
}

impl Standing {
    /// `can`: whether somebody has a step to take.
    pub fn of(driver: &Driver<'_>, txns: usize, can: impl Fn(usize) -> bool) -> Standing {
        let mut state = Standing::default();
        for txn in 0..txns {
            state.ready |= u8::from(can(txn)) << txn;
            state.waiting |= u8::from(driver.is_active(txn) && !driver.is_ready(txn)) << txn;
            state.aborted |= u8::from(driver.outcome(txn) == TxnOutcome::Aborted) << txn;
        }
        state
    }

    /// What a step did that led from here to `after`.
    pub fn effect(self, after: Standing) -> Effect {
        let woken = self.waiting & !after.waiting;
        Effect { waited: self.waiting, woken, aborted: self.aborted != after.aborted }
    }

    /// The same without the step of `txn`, which aborted nobody.
    pub fn before(self, txn: usize, step: Effect) -> Standing {
        let ready = self.ready & !step.woken | 1 << txn;
        let waiting = (self.waiting | step.woken) & !(1 << txn);
        Standing { ready, waiting, ..self }
    }
}

impl Effect {
    /// The same step where others wait.
    pub fn seen_from(self, state: Standing) -> Effect {
        Effect { waited: state.waiting, ..self }
    }
}

/// Those that slept or were tried at a point, and are independent of what was chosen there. `last` is the step
/// that a transaction has taken last, or waits to take; `next` the one that it takes next.
pub(super) fn asleep<S: Copy>(
    parent: &Point,
    last: impl Fn(usize) -> Option<S>,
    next: impl Fn(usize) -> Option<S>,
    are_independent: impl Fn(S, S) -> bool,
) -> Asleep {
    let effects = parent.effects;
    let chosen = effects[parent.chosen];
    let candidates = parent.known() & !(1 << parent.chosen);
    if candidates == 0 || chosen.aborted {
        return Asleep::default();
    }
    // Whose steps may have gone on with a step: as bits.
    let goes_on = |effect: Effect, step: S| {
        let others = members(effect.waited & !effect.woken);
        let touched = others.filter(|txn| last(*txn).is_some_and(|waits| !are_independent(step, waits)));
        effect.woken | touched.fold(0, |bits, txn| bits | 1 << txn)
    };
    let Some(taken) = last(parent.chosen) else { return Asleep::default() };
    let by_taken = goes_on(chosen, taken);
    let sleeps = |txn: &usize| {
        let (effect, Some(step)) = (effects[*txn], next(*txn)) else { return false };
        let by_it = goes_on(effect, step);
        let whole = |step: S, others: u8| std::iter::once(step).chain(members(others).filter_map(&last));
        let apart = !effect.aborted && by_it & by_taken == 0;
        apart && whole(step, by_it).all(|step| whole(taken, by_taken).all(|taken| are_independent(taken, step)))
    };
    Asleep { txns: members(candidates).filter(sleeps).fold(0, |bits, txn| bits | 1 << txn), effects }
}

/// The transactions of some bits.
pub(super) fn members(mut bits: u8) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let txn = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(txn)
    })
}
