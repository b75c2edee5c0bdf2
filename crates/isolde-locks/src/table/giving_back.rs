//! Giving locks back, one by one or all at once.

use isolde_types::{LockMode, TxnId};

use super::{Effects, Holder, Refusal, State, Table, Target};
use crate::policy::Deadlocks;

impl Table {
    /// Lowers what a transaction holds on a target, or gives it up (`None`).
    pub fn set_mode(&mut self, txn: TxnId, target: &Target, mode: Option<LockMode>) -> Effects {
        self.weaken(txn, target, |holder| holder.base = holder.base.min(mode));
        self.pump(target).and(self.after_giving_back(txn))
    }

    /// Gives up everything that a transaction holds and waits for, and forgets it.
    pub fn release(&mut self, txn: TxnId) -> Effects {
        let Some(entry) = self.txns.get_mut(&txn) else { return Effects::default() };
        let held = std::mem::take(&mut entry.held);
        let waits = std::mem::take(&mut entry.waits);
        let mut touched: Vec<Target> = held.into_iter().collect();
        let mut effects = Effects::default();
        for ticket in waits {
            touched.extend(self.refuse(ticket, Refusal::Ended));
            effects.wakes.push(ticket);
        }
        // In one order always: the same calls must wake the same waiters in the same order.
        touched.sort_unstable();
        for target in &touched {
            self.refuse_uncollected(txn, target);
            self.drop_holder(txn, target);
        }
        self.txns.remove(&txn);
        effects.and(self.pump_all(touched))
    }

    /// A transaction gave something back: it no longer stands before those who waited for that, so its
    /// other waits may be behind them now.
    pub(super) fn after_giving_back(&mut self, txn: TxnId) -> Effects {
        let waits = self.txns.get(&txn).map(|entry| entry.waits.clone()).unwrap_or_default();
        if waits.is_empty() {
            return Effects::default();
        }
        let rule = match self.policy {
            Deadlocks::WoundWait => Table::wound_younger,
            Deadlocks::WaitDie => Table::die_if_younger,
            Deadlocks::Detect { .. } | Deadlocks::NoWait => return self.break_cycles(txn),
            Deadlocks::TimeoutOnly => return Effects::default(),
        };
        let effects = waits.into_iter().fold(Effects::default(), |effects, ticket| effects.and(rule(self, ticket)));
        effects.and(self.break_cycles(txn))
    }

    pub(super) fn weaken(&mut self, txn: TxnId, target: &Target, change: impl FnOnce(&mut Holder)) {
        let Some(holder) = self.holder_mut(txn, target) else { return };
        change(holder);
        if holder.mode().is_none() {
            self.drop_holder(txn, target);
            if let Some(entry) = self.txns.get_mut(&txn) {
                entry.held.remove(target);
            }
        }
    }

    fn drop_holder(&mut self, txn: TxnId, target: &Target) {
        match target {
            Target::Key(key) => {
                if let Some(queue) = self.keys.get_mut(key) {
                    queue.holders.retain(|holder| holder.txn != txn);
                    if queue.is_empty() {
                        self.keys.remove(key);
                    }
                }
            }
            Target::Span(span) => self.spans.retain(|(held, holder)| holder.txn != txn || held != span),
        }
    }

    /// What was granted and not collected is not there to be collected any more.
    fn refuse_uncollected(&mut self, txn: TxnId, target: &Target) {
        let pending = self.holder_mut(txn, target).map(|holder| holder.pending.clone());
        for (ticket, _) in pending.iter().flatten() {
            if let Some(request) = self.requests.get_mut(ticket) {
                request.state = State::Refused(Refusal::Ended);
            }
        }
    }
}
