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

use super::{MAX_TXNS, Point, Program, reduce};
use crate::schedule::{Action, Driver, TxnOutcome};

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

/// Who waits, and who was aborted, before a step.
pub(super) struct Others {
    waiting: u8,
    aborted: u8,
}

impl Others {
    pub fn of(driver: &Driver<'_>, txns: usize) -> Others {
        let bits = |is: &dyn Fn(usize) -> bool| (0..txns).filter(|txn| is(*txn)).fold(0, |bits, txn| bits | 1 << txn);
        Others {
            waiting: bits(&|txn| driver.is_active(txn) && !driver.is_ready(txn)),
            aborted: bits(&|txn| driver.outcome(txn) == TxnOutcome::Aborted),
        }
    }

    /// What has happened since.
    pub fn effect(&self, driver: &Driver<'_>, txns: usize) -> Effect {
        let now = Others::of(driver, txns);
        let woken = self.waiting & !now.waiting;
        Effect { waited: self.waiting, woken, aborted: now.aborted != self.aborted }
    }
}

/// Those that slept or were tried at a point, and are independent of what was chosen there. `last` is the step
/// that a transaction has taken last, or waits to take; `next` the one that it takes next.
pub(super) fn asleep<'p>(
    parent: &Point,
    txns: usize,
    last: impl Fn(usize) -> Option<(&'p Program, Action)>,
    next: impl Fn(usize) -> Option<(&'p Program, Action)>,
) -> Asleep {
    let effects = parent.effects;
    let chosen = effects[parent.chosen];
    let candidates = (parent.asleep | parent.tried) & !(1 << parent.chosen);
    if candidates == 0 || chosen.aborted {
        return Asleep::default();
    }
    // A step, and the steps of others that may have gone on with it.
    let whole = |effect: Effect, step: (&'p Program, Action)| {
        let goes_on =
            |txn: &usize, waits: &(&Program, Action)| effect.woken >> txn & 1 == 1 || !independent(&step, waits);
        let others = members(effect.waited, txns).filter_map(|txn| Some((txn, last(txn)?)));
        let others: Vec<_> = others.filter(|(txn, waits)| goes_on(txn, waits)).collect();
        let who = others.iter().fold(0_u8, |bits, (txn, _)| bits | 1 << txn);
        let steps: Vec<_> = std::iter::once(step).chain(others.into_iter().map(|(_, waits)| waits)).collect();
        (who, steps)
    };
    let Some(taken) = last(parent.chosen) else { return Asleep::default() };
    let (by_taken, done) = whole(chosen, taken);
    let sleeps = |txn: &usize| {
        let (effect, Some(step)) = (effects[*txn], next(*txn)) else { return false };
        let (by_it, steps) = whole(effect, step);
        let apart = !effect.aborted && by_it & by_taken == 0;
        apart && steps.iter().all(|step| done.iter().all(|taken| independent(taken, step)))
    };
    Asleep { txns: members(candidates, txns).filter(sleeps).fold(0, |bits, txn| bits | 1 << txn), effects }
}

fn independent(a: &(&Program, Action), b: &(&Program, Action)) -> bool {
    reduce::independent((a.0, &a.1), (b.0, &b.1))
}

fn members(bits: u8, txns: usize) -> impl Iterator<Item = usize> {
    (0..txns).filter(move |txn| bits >> txn & 1 == 1)
}
