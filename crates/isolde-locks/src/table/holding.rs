//! Changing what is held, and granting to those who waited for it.

use isolde_types::{LockMode, TxnId, mutant};
use smallvec::SmallVec;

use super::{Effects, Holder, Refusal, State, Table, Target, Ticket, Turn};

/// How many waiters are listed without an allocation.
const FEW: usize = 4;

impl Table {
    pub(super) fn strengthen(&mut self, txn: TxnId, target: &Target, change: impl FnOnce(&mut Holder)) {
        if let Some(holder) = self.holder_mut(txn, target) {
            return change(holder);
        }
        if let Some(entry) = self.txns.get_mut(&txn) {
            entry.held.insert(target.clone());
        }
        let mut holder = Holder { txn, base: None, pending: SmallVec::new() };
        change(&mut holder);
        match target {
            Target::Key(key) => self.keys.entry(key.clone()).or_default().holders.push(holder),
            Target::Span(span) => self.spans.push((span.clone(), holder)),
        }
    }

    /// A transaction's hold on this very target.
    pub(super) fn holder_mut(&mut self, txn: TxnId, target: &Target) -> Option<&mut Holder> {
        match target {
            Target::Key(key) => self.keys.get_mut(key)?.holders.iter_mut().find(|holder| holder.txn == txn),
            Target::Span(span) => {
                let held = self.spans.iter_mut().find(|(held, holder)| holder.txn == txn && held == span);
                held.map(|(_, holder)| holder)
            }
        }
    }

    // --- waking ------------------------------------------------------------------------------------

    /// Ends a wait without a grant; gives the target whose queue is shorter now.
    pub(super) fn refuse(&mut self, ticket: Ticket, refusal: Refusal) -> Option<Target> {
        let request = self.requests.get_mut(&ticket)?;
        let (txn, target) = (request.txn, request.target.clone());
        if request.state == State::Waiting {
            request.state = State::Refused(refusal);
            self.leave_queue(ticket, txn, &target);
        }
        Some(target)
    }

    pub(super) fn leave_queue(&mut self, ticket: Ticket, txn: TxnId, target: &Target) {
        match target {
            Target::Key(key) => {
                if let Some(queue) = self.keys.get_mut(key) {
                    queue.waiters.retain(|(_, waiter)| *waiter != ticket);
                    if queue.is_empty() {
                        self.keys.remove(key);
                    }
                }
            }
            Target::Span(_) => self.span_waiters.retain(|(_, waiter)| *waiter != ticket),
        }
        if let Some(entry) = self.txns.get_mut(&txn) {
            entry.waits.retain(|waiter| *waiter != ticket);
        }
    }

    /// Waiting requests that a change of the target may let through, in turn.
    pub(super) fn waiters_on(&self, target: &Target) -> SmallVec<[Ticket; FEW]> {
        if let (Target::Key(key), true) = (target, self.span_waiters.is_empty()) {
            let waiters = self.keys.get(key).map_or(&[][..], |queue| queue.waiters.as_slice());
            return waiters.iter().map(|(_, ticket)| *ticket).collect();
        }
        let in_queues = self.queues(target).flat_map(|queue| queue.waiters.iter());
        let mut waiters: SmallVec<[(Turn, Ticket); FEW]> = in_queues
            .chain(&self.span_waiters)
            .filter(|(_, ticket)| self.requests.get(ticket).is_some_and(|r| r.target.overlaps(target)))
            .copied()
            .collect();
        waiters.sort_unstable();
        waiters.into_iter().map(|(_, ticket)| ticket).collect()
    }

    pub(super) fn pump_all(&mut self, targets: Vec<Target>) -> Effects {
        targets.into_iter().fold(Effects::default(), |effects, target| effects.and(self.pump(&target)))
    }

    /// Grants whatever can be granted now that the target has changed, in turn.
    pub(super) fn pump(&mut self, target: &Target) -> Effects {
        let mut effects = Effects::default();
        // Nobody waits at all: the usual case where locks came into the table because of a span.
        if self.requests.is_empty() {
            return effects;
        }
        for ticket in self.waiters_on(target) {
            let Some(request) = self.requests.get(&ticket).filter(|request| request.state == State::Waiting) else {
                continue;
            };
            let (txn, wanted, mode, turn) = (request.txn, request.target.clone(), request.mode, request.turn);
            if self.is_blocked(txn, &wanted, mode, turn) {
                continue;
            }
            self.grant(ticket, txn, &wanted, mode);
            if !(mutant!("lost-wakeup") && effects.wakes.is_empty()) {
                effects.wakes.push(ticket);
            }
            effects = effects.and(self.after_grant(txn, &wanted, mode));
            // Nobody passes an Exclusive lock on the key; what the new holder still waits for was let
            // through with the grant.
            if mode == LockMode::Exclusive && wanted == *target && matches!(target, Target::Key(_)) {
                break;
            }
        }
        effects
    }

    pub(super) fn grant(&mut self, ticket: Ticket, txn: TxnId, target: &Target, mode: LockMode) {
        if let Some(request) = self.requests.get_mut(&ticket) {
            request.state = State::Granted;
            self.leave_queue(ticket, txn, target);
        }
        self.strengthen(txn, target, |holder| holder.pending.push((ticket, mode)));
    }
}
