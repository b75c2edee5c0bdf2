//! The search for deadlocks: a breadth-first walk of the waits-for graph from one transaction back to
//! itself, so that the cycle that is reported is a shortest one.
//!
//! Nodes are transactions and, so that edges stay few, the queues of keys: a queue is entered once
//! for each mode and only as far as it was not yet walked, so that a hundred waiters on one key cost a
//! hundred steps and not ten thousand. There is no recursion and no limit on depth.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use isolde_types::{Key, LockMode, TxnId, mutant};

use crate::report::{Edge, EdgeKind};
use crate::table::{RawBlocker, Request, Table, Target, Ticket, Turn};

/// How a transaction was reached: by whose request, and through what.
type Parents = BTreeMap<TxnId, (Ticket, RawBlocker)>;

/// How far the queue of a key was walked for requests of a mode.
type Walked = BTreeMap<(Key, LockMode), Turn>;

impl Table {
    /// A shortest cycle of waits through `start`, beginning with a wait of `start`.
    pub(crate) fn find_cycle(&self, start: TxnId) -> Option<Vec<Edge>> {
        if !self.may_be_waited_for(start) {
            return None;
        }
        let mut parents = Parents::default();
        let mut walked = Walked::default();
        let mut frontier = VecDeque::from([start]);
        while let Some(txn) = frontier.pop_front() {
            for ticket in self.waits_of(txn) {
                let request = self.requests.get(ticket)?;
                let mut closing = None;
                // The start's own places in a queue are not walked for others: they close cycles.
                let mut from_start = Walked::default();
                let walked = if txn == start { &mut from_start } else { &mut walked };
                self.each_unwalked_blocker(request, walked, |blocker| {
                    if blocker.txn == start {
                        closing.get_or_insert(blocker);
                    } else if let Entry::Vacant(place) = parents.entry(blocker.txn) {
                        place.insert((*ticket, blocker));
                        frontier.push_back(blocker.txn);
                    }
                });
                if let Some(blocker) = closing {
                    return Some(self.path(start, *ticket, blocker, &parents));
                }
            }
        }
        None
    }

    fn waits_of(&self, txn: TxnId) -> &[Ticket] {
        self.txns.get(&txn).map_or(&[], |entry| entry.waits.as_slice())
    }

    /// A transaction that waits for one thing only and holds nothing that others wait for is in no
    /// cycle: the usual case at a hot key.
    fn may_be_waited_for(&self, txn: TxnId) -> bool {
        let Some(entry) = self.txns.get(&txn) else { return false };
        if entry.waits.is_empty() || !self.somebody_else_waits(txn) {
            return false;
        }
        entry.waits.len() > 1
            || !self.span_waiters.is_empty()
            || self.has_spans()
            || self.is_upgrade(entry.waits[0])
            || self.holds_what_others_want(txn)
    }

    /// A circle has two members at least, and all of them wait.
    fn somebody_else_waits(&self, txn: TxnId) -> bool {
        self.requests.values().any(|request| request.txn != txn && request.is_waiting())
    }

    fn is_upgrade(&self, ticket: Ticket) -> bool {
        self.requests.get(&ticket).is_some_and(|request| self.holds(request.txn, &request.target).is_some())
    }

    /// Every blocker of a request, but in the queue of its key only what was not walked before.
    fn each_unwalked_blocker(&self, request: &Request, walked: &mut Walked, mut visit: impl FnMut(RawBlocker)) {
        let Target::Key(key) = &request.target else {
            self.each_blocker(request.txn, &request.target, request.mode, request.turn, visit);
            return;
        };
        if self.has_spans() || mutant!("deadlock-misses-upgrade") {
            let soft_only = mutant!("deadlock-misses-upgrade") && self.holds_key(request.txn, key).is_some();
            self.each_blocker(request.txn, &request.target, request.mode, request.turn, |blocker| {
                if !(soft_only && blocker.kind == EdgeKind::Hard) {
                    visit(blocker);
                }
            });
            return;
        }
        let Some(queue) = self.keys.get(key) else { return };
        let reached = walked.entry((key.clone(), request.mode)).or_default();
        let from = std::mem::replace(reached, request.turn.max(*reached));
        for holder in queue.holders.iter().filter(|holder| holder.txn != request.txn) {
            // The holders of one key are few, and none of them is missed by looking again.
            if let Some(mode) = holder.mode().filter(|mode| mode.conflicts(request.mode)) {
                visit(RawBlocker { txn: holder.txn, mode, kind: EdgeKind::Hard });
            }
        }
        let start = queue.waiters.partition_point(|(earlier, _)| *earlier < from);
        let end = queue.waiters.partition_point(|(earlier, _)| *earlier < request.turn);
        for (_, ticket) in queue.waiters.get(start..end).unwrap_or_default() {
            let Some(earlier) = self.requests.get(ticket) else { continue };
            let conflicts = earlier.txn != request.txn && earlier.mode.conflicts(request.mode);
            if conflicts && !self.blocks(request.txn, earlier) {
                visit(RawBlocker { txn: earlier.txn, mode: earlier.mode, kind: EdgeKind::Soft });
            }
        }
    }

    /// The cycle that ends with `last` waiting for `start`, from its beginning.
    fn path(&self, start: TxnId, last: Ticket, closing: RawBlocker, parents: &Parents) -> Vec<Edge> {
        let mut edges = vec![self.edge(&self.requests[&last], closing)];
        let mut at = self.requests[&last].txn;
        while at != start {
            let (ticket, blocker) = &parents[&at];
            edges.push(self.edge(&self.requests[ticket], *blocker));
            at = self.requests[ticket].txn;
        }
        edges.reverse();
        edges
    }
}
