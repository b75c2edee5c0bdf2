//! Breaking deadlocks: the age policies, victims, and the cycles that they are told of.

use isolde_types::sync::Arc;
use isolde_types::{LockMode, TxnId, mutant};

use super::{Effects, REMEMBERED, RawBlocker, Refusal, Request, Table, Target, Ticket};
use crate::policy::{Deadlocks, Victim};
use crate::report::{Blocker, DeadlockReport, Edge};

impl Table {
    pub(super) fn age(&self, txn: TxnId) -> (u64, TxnId) {
        (self.txns.get(&txn).map_or(u64::MAX, |entry| entry.party.age), txn)
    }

    /// Wound-wait: an older request wounds every younger transaction that it waits for.
    pub(super) fn wound_younger(&mut self, ticket: Ticket) -> Effects {
        let Some(request) = self.requests.get(&ticket) else { return Effects::default() };
        let me = request.txn;
        let blockers = self.blockers_of(me, &request.target, request.mode, request.turn);
        let younger: Vec<TxnId> =
            blockers.into_iter().map(|blocker| blocker.txn).filter(|txn| self.age(*txn) > self.age(me)).collect();
        self.wound_all(younger, me)
    }

    /// Wait-die: a request that would wait for an older transaction gives way.
    pub(super) fn die_if_younger(&mut self, ticket: Ticket) -> Effects {
        let Some(request) = self.requests.get(&ticket) else { return Effects::default() };
        let me = request.txn;
        let blockers = self.blockers_of(me, &request.target, request.mode, request.turn);
        let older = blockers.into_iter().find(|blocker| self.age(blocker.txn) < self.age(me));
        let Some(older) = older else { return Effects::default() };
        let edge = self.edge(&self.requests[&ticket], older);
        self.sacrifice(me, vec![edge])
    }

    /// An upgrade or grant has come before those who wait on the target: their edges to it are new.
    pub(super) fn passed(&mut self, txn: TxnId, target: &Target, mode: LockMode) -> Effects {
        if mutant!("deadlock-misses-upgrade") {
            return Effects::default();
        }
        let mut effects = Effects::default();
        for ticket in self.waiters_on(target) {
            let Some(request) = self.requests.get(&ticket) else { continue };
            if request.txn == txn || !request.mode.conflicts(mode) || !self.waits_for(request, txn) {
                continue;
            }
            let older = self.age(request.txn) < self.age(txn);
            let waiter = request.txn;
            effects = effects.and(match self.policy {
                Deadlocks::WoundWait if older => self.wound(txn, waiter),
                Deadlocks::WaitDie if !older => self.die_if_younger(ticket),
                _ => Effects::default(),
            });
        }
        effects
    }

    /// Ends a transaction's waits, and says that it must roll back. Once.
    pub(super) fn wound(&mut self, txn: TxnId, by: TxnId) -> Effects {
        self.wound_all(vec![txn], by)
    }

    /// The same for several: all of their waits end before anybody else's turn comes, so that none of them
    /// is granted what it has to give back at once, and a queue is gone through once.
    fn wound_all(&mut self, txns: Vec<TxnId>, by: TxnId) -> Effects {
        let (mut effects, mut touched) = (Effects::default(), Vec::new());
        for txn in txns {
            let Some(entry) = self.txns.get_mut(&txn).filter(|entry| !entry.wounded) else { continue };
            entry.wounded = true;
            effects.wounds.push((txn, by));
            effects.wakes.extend(self.refuse_waits(txn, &Refusal::Wounded { by }, &mut touched));
        }
        effects.and(self.pump_all(touched))
    }

    pub(super) fn end_waits(&mut self, txn: TxnId, refusal: &Refusal) -> Effects {
        let mut touched = Vec::new();
        let wakes = self.refuse_waits(txn, refusal, &mut touched);
        Effects { wakes, wounds: Vec::new() }.and(self.pump_all(touched))
    }

    /// Refuses what a transaction waits for; gives the tickets, and adds the targets whose queues moved.
    fn refuse_waits(&mut self, txn: TxnId, refusal: &Refusal, touched: &mut Vec<Target>) -> Vec<Ticket> {
        let waits = self.txns.get(&txn).map(|entry| entry.waits.to_vec()).unwrap_or_default();
        for target in waits.iter().filter_map(|ticket| self.refuse(*ticket, refusal.clone())) {
            if !touched.contains(&target) {
                touched.push(target);
            }
        }
        waits
    }

    // --- deadlocks --------------------------------------------------------------------------------

    /// Searches until no cycle through the transaction is left.
    pub(super) fn break_cycles(&mut self, txn: TxnId) -> Effects {
        let mut effects = Effects::default();
        if self.nobody_can_wait_for(txn) {
            return effects;
        }
        while let Some(cycle) = self.find_cycle(txn) {
            let victim = self.choose(txn, &cycle);
            effects = effects.and(self.sacrifice(victim, cycle));
        }
        effects
    }

    /// Whether a transaction surely is in no circle: it holds nothing, and its one request came last.
    fn nobody_can_wait_for(&self, txn: TxnId) -> bool {
        self.txns.get(&txn).is_some_and(|entry| {
            let newest = |ticket: &Ticket| ticket.0 == self.next;
            entry.held.is_empty() && entry.waits.len() == 1 && entry.waits.iter().all(newest)
        })
    }

    pub(super) fn choose(&self, requester: TxnId, cycle: &[Edge]) -> TxnId {
        let rule = match self.policy {
            Deadlocks::Detect { victim } => victim,
            _ => Victim::Youngest,
        };
        let members = cycle.iter().map(|edge| edge.waiter);
        let chosen = match rule {
            Victim::Requester => Some(requester),
            Victim::Youngest => members.max_by_key(|txn| self.age(*txn)),
            Victim::Oldest => members.min_by_key(|txn| self.age(*txn)),
            Victim::FewestLocks => members.min_by_key(|txn| (self.held_by(*txn), std::cmp::Reverse(self.age(*txn)))),
        };
        chosen.unwrap_or(requester)
    }

    pub(super) fn held_by(&self, txn: TxnId) -> usize {
        self.txns.get(&txn).map_or(0, |entry| entry.held.len())
    }

    /// Makes a transaction give way: its waits fail; its locks go when it rolls back.
    pub(super) fn sacrifice(&mut self, victim: TxnId, cycle: Vec<Edge>) -> Effects {
        let report = Arc::new(DeadlockReport { cycle, victim, policy: self.policy });
        self.deadlocks += 1;
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&report));
        self.end_waits(victim, &Refusal::Deadlock(report))
    }

    pub(crate) fn edge(&self, request: &Request, blocker: RawBlocker) -> Edge {
        let party = self.txns.get(&request.txn).map(|entry| &entry.party);
        Edge {
            waiter: request.txn,
            waiter_label: party.and_then(|party| party.label.clone()),
            waiter_age: party.map_or(0, |party| party.age),
            target: request.target.clone(),
            wants: request.mode,
            blocker: self.named(blocker),
        }
    }

    pub(super) fn named(&self, blocker: RawBlocker) -> Blocker {
        Blocker { txn: blocker.txn, label: self.label(blocker.txn), mode: blocker.mode, kind: blocker.kind }
    }
}
