//! The lock table: a pure state machine.
//!
//! No thread, no clock, no I/O: a request is answered with a value, and what it did to others comes
//! back as [`Effects`].
//!
//! ```text
//!   key "a":   holders T1:S T2:S      queue  T2→X (upgrade)   T3:X   T4:S
//!              T2 waits for T1 (hard); T3 for T1, T2 (hard) and T2's upgrade (soft);
//!              T4 for T2's upgrade and for T3 (soft), though it could share with the holders
//! ```
//!
//! Keys and spans live in one order: a request for a key looks at the holders and earlier waiters of
//! that key and of every span over it; a request for a span at those of every key in it and of every
//! span that overlaps it.
//!
//! A granted wait belongs to its *ticket* until [`Table::collect`]: cancelled before that, the
//! transaction falls back to what it held without it.

mod giving_back;
mod holding;
mod parts;
mod policies;

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};
use std::ops::{Bound, ControlFlow};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use isolde_types::sync::Arc;
use isolde_types::{Key, LockMode, Span, TxnId, mutant};
use smallvec::SmallVec;

use crate::policy::{Deadlocks, WaitPolicy};
use crate::report::{Blocker, DeadlockReport, Edge, EdgeKind};

use parts::State;
pub use parts::{Answer, Effects, Party, Refusal, Target, Ticket};
pub(crate) use parts::{Holder, Queue, Request, Turn, TxnEntry};

/// How many deadlocks are remembered.
const REMEMBERED: usize = 64;

/// See the module.
pub struct Table {
    policy: Deadlocks,
    pub(crate) txns: BTreeMap<TxnId, TxnEntry>,
    pub(crate) keys: BTreeMap<Key, Queue>,
    /// Few at a time: looked through one by one.
    pub(crate) spans: Vec<(Span, Holder)>,
    pub(crate) span_waiters: Vec<(Turn, Ticket)>,
    pub(crate) requests: BTreeMap<Ticket, Request>,
    next: u64,
    recent: VecDeque<Arc<DeadlockReport>>,
    pub(crate) deadlocks: u64,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(policy: Deadlocks) -> Table {
        Table {
            policy,
            txns: BTreeMap::new(),
            keys: BTreeMap::new(),
            spans: Vec::new(),
            span_waiters: Vec::new(),
            requests: BTreeMap::new(),
            next: 0,
            recent: VecDeque::new(),
            deadlocks: 0,
        }
    }

    /// Whether a transaction is known.
    #[must_use]
    pub fn knows(&self, txn: TxnId) -> bool {
        self.txns.contains_key(&txn)
    }

    /// Makes a transaction known. Idempotent.
    pub fn enter(&mut self, txn: TxnId, party: &Party) {
        self.txns.entry(txn).or_insert_with(|| TxnEntry {
            party: party.clone(),
            held: BTreeSet::new(),
            waits: SmallVec::new(),
            wounded: false,
        });
    }

    /// Enters a lock that was granted outside of the table. The transaction must be known.
    pub fn hold(&mut self, txn: TxnId, key: &Key, mode: LockMode) {
        self.strengthen(txn, &Target::Key(key.clone()), |holder| holder.base = holder.base.max(Some(mode)));
    }

    /// Asks for a lock. The transaction must be known.
    pub fn acquire(&mut self, txn: TxnId, target: Target, mode: LockMode, wait: WaitPolicy) -> (Answer, Effects) {
        let held = match &target {
            // Itself: a span over it does not keep its record from being reclaimed.
            Target::Key(key) => self.holds_key_for_good(txn, key),
            Target::Span(_) => self.holds_for_good(txn, &target),
        };
        if held.is_some_and(|held| held >= mode) {
            return (Answer::Granted, Effects::default());
        }
        let turn = self.turn(txn, &target);
        if !self.is_blocked(txn, &target, mode, turn) {
            self.strengthen(txn, &target, |holder| holder.base = holder.base.max(Some(mode)));
            let effects = self.after_grant(txn, &target, mode);
            return (Answer::Granted, effects);
        }
        if wait == WaitPolicy::NoWait || self.policy == Deadlocks::NoWait {
            let blockers = self.blockers_of(txn, &target, mode, turn);
            let named = blockers.into_iter().map(|blocker| self.named(blocker)).collect();
            return (Answer::Refused(Refusal::Busy(named)), Effects::default());
        }
        self.enqueue(txn, target, mode, turn)
    }

    /// The answer to a ticket, once it is there; the ticket is used up by it.
    ///
    /// # Errors
    /// What the wait came to, if not to a grant.
    pub fn collect(&mut self, ticket: Ticket) -> Option<Result<(), Refusal>> {
        let request = self.requests.get(&ticket)?;
        match request.state {
            State::Waiting => return None,
            State::Granted => {
                let (txn, target, mode) = (request.txn, request.target.clone(), request.mode);
                self.strengthen(txn, &target, |holder| {
                    holder.pending.retain(|(pending, _)| *pending != ticket);
                    holder.base = holder.base.max(Some(mode));
                });
            }
            State::Refused(_) => {}
        }
        let request = self.requests.remove(&ticket)?;
        match request.state {
            State::Refused(refusal) => Some(Err(refusal)),
            State::Waiting | State::Granted => Some(Ok(())),
        }
    }

    /// Gives a request up: a waiting one leaves its queue, a granted one that was not collected is
    /// given back.
    pub fn cancel(&mut self, ticket: Ticket) -> Effects {
        if mutant!("cancelled-waiter-stays") {
            return Effects::default();
        }
        let Some(request) = self.requests.remove(&ticket) else { return Effects::default() };
        match request.state {
            State::Refused(_) => Effects::default(),
            State::Waiting => {
                self.leave_queue(ticket, request.txn, &request.target);
                self.pump(&request.target)
            }
            State::Granted => {
                self.weaken(request.txn, &request.target, |holder| {
                    holder.pending.retain(|(pending, _)| *pending != ticket);
                });
                self.pump(&request.target).and(self.after_giving_back(request.txn))
            }
        }
    }

    // --- questions ---------------------------------------------------------------------------

    /// What a transaction holds on a target, by itself or by a span over it.
    #[must_use]
    pub fn holds(&self, txn: TxnId, target: &Target) -> Option<LockMode> {
        self.held(txn, target, Holder::mode)
    }

    /// The same without what was granted to tickets that have not collected, and may be cancelled.
    #[must_use]
    pub fn holds_for_good(&self, txn: TxnId, target: &Target) -> Option<LockMode> {
        self.held(txn, target, |holder| holder.base)
    }

    fn held(&self, txn: TxnId, target: &Target, mode: impl Fn(&Holder) -> Option<LockMode>) -> Option<LockMode> {
        let by_key = match target {
            Target::Key(key) => self.key_holder(txn, key).and_then(&mode),
            Target::Span(_) => None,
        };
        let over = self.spans.iter().filter(|(span, holder)| holder.txn == txn && target.is_within(span));
        over.filter_map(|(_, holder)| mode(holder)).max().max(by_key)
    }

    fn key_holder(&self, txn: TxnId, key: &Key) -> Option<&Holder> {
        self.keys.get(key)?.holders.iter().find(|holder| holder.txn == txn)
    }

    /// What a transaction holds on a key itself.
    #[must_use]
    pub fn holds_key(&self, txn: TxnId, key: &Key) -> Option<LockMode> {
        self.key_holder(txn, key).and_then(Holder::mode)
    }

    /// The same without what was granted to tickets that have not collected, and may be cancelled.
    #[must_use]
    pub fn holds_key_for_good(&self, txn: TxnId, key: &Key) -> Option<LockMode> {
        self.key_holder(txn, key)?.base
    }

    /// Who stands in the way of a waiting request.
    #[must_use]
    pub fn blockers(&self, ticket: Ticket) -> Vec<Blocker> {
        let Some(request) = self.requests.get(&ticket).filter(|request| request.state == State::Waiting) else {
            return Vec::new();
        };
        let blockers = self.blockers_of(request.txn, &request.target, request.mode, request.turn);
        blockers.into_iter().map(|blocker| self.named(blocker)).collect()
    }

    /// The last 64 deadlocks, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &Arc<DeadlockReport>> {
        self.recent.iter()
    }

    /// The waits of all transactions, in queue order, each with whom it waits for.
    #[must_use]
    pub fn edges(&self) -> Vec<Edge> {
        let edges = self.waiting_requests().into_iter().flat_map(|request| {
            let blockers = self.blockers_of(request.txn, &request.target, request.mode, request.turn);
            blockers.into_iter().map(|blocker| self.edge(request, blocker)).collect::<Vec<_>>()
        });
        edges.collect()
    }

    /// The waiting requests, in turn.
    pub(crate) fn waiting_requests(&self) -> Vec<&Request> {
        let mut waiting: Vec<&Request> =
            self.requests.values().filter(|request| request.state == State::Waiting).collect();
        waiting.sort_by_key(|request| request.turn);
        waiting
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.requests.values().filter(|request| request.state == State::Waiting).count()
    }

    /// What people call a transaction.
    pub(crate) fn label(&self, txn: TxnId) -> Option<Arc<str>> {
        self.txns.get(&txn).and_then(|entry| entry.party.label.clone())
    }

    /// Whether a key has neither holder nor waiter; or, if exactly one holder and nothing else, who.
    pub(crate) fn alone(&self, key: &Key) -> Alone {
        match self.keys.get(key) {
            None => Alone::Nobody,
            Some(queue) => match queue.holders.as_slice() {
                [] if queue.waiters.is_empty() => Alone::Nobody,
                [only] if queue.waiters.is_empty() && only.pending.is_empty() => {
                    only.base.map_or(Alone::No, |mode| Alone::One(only.txn, mode))
                }
                _ => Alone::No,
            },
        }
    }

    /// Takes a key out of the table: its one holder is known from the word from now on.
    pub(crate) fn forget_key(&mut self, key: &Key) {
        if let Some(queue) = self.keys.remove(key) {
            for holder in &queue.holders {
                if let Some(entry) = self.txns.get_mut(&holder.txn) {
                    entry.held.remove(&Target::Key(key.clone()));
                }
            }
        }
    }

    /// Whether somebody waits in the queue of a key that the transaction holds.
    pub(crate) fn holds_what_others_want(&self, txn: TxnId) -> bool {
        let held = self.txns.get(&txn).into_iter().flat_map(|entry| &entry.held);
        held.into_iter().any(|target| self.queues(target).any(|queue| !queue.waiters.is_empty()))
    }

    /// Whether a span is held or waited for.
    pub(crate) fn has_spans(&self) -> bool {
        !self.spans.is_empty() || !self.span_waiters.is_empty()
    }

    // --- blocking ------------------------------------------------------------------------------

    /// Upgrades go first: a request for what the transaction holds, or has a span over.
    fn turn(&mut self, txn: TxnId, target: &Target) -> Turn {
        self.next += 1;
        let upgrade = self.holds(txn, target).is_some();
        Turn(u8::from(!upgrade), self.next)
    }

    /// Holders that conflict, then earlier waiters that conflict; nobody twice.
    pub(crate) fn blockers_of(&self, txn: TxnId, target: &Target, mode: LockMode, turn: Turn) -> Vec<RawBlocker> {
        let mut found = Vec::new();
        let mut known: HashSet<TxnId, RandomState> = HashSet::default();
        self.each_blocker(txn, target, mode, turn, |blocker| {
            if known.insert(blocker.txn) {
                found.push(blocker);
            }
        });
        found
    }

    /// Whether a request waits for this transaction: for what it holds, or for its turn.
    pub(crate) fn waits_for(&self, request: &Request, txn: TxnId) -> bool {
        let comes_before = |ticket: &Ticket| {
            self.requests.get(ticket).is_some_and(|earlier| {
                earlier.turn < request.turn
                    && earlier.mode.conflicts(request.mode)
                    && earlier.target.overlaps(&request.target)
                    && !self.blocks(request.txn, earlier)
            })
        };
        let waits = self.txns.get(&txn).map(|entry| &entry.waits[..]).unwrap_or_default();
        self.blocks(txn, request) || (!mutant!("queue-unfair") && waits.iter().any(comes_before))
    }

    pub(crate) fn each_blocker(
        &self,
        txn: TxnId,
        target: &Target,
        mode: LockMode,
        turn: Turn,
        mut visit: impl FnMut(RawBlocker),
    ) {
        let all = self.try_each_blocker(txn, target, mode, turn, |blocker| {
            visit(blocker);
            ControlFlow::Continue(())
        });
        debug_assert!(all.is_continue());
    }

    /// Whether anybody stands in the way; looks no further than the first. At a hot key each grant asks
    /// this for every waiter, and the new holder answers it.
    pub(crate) fn is_blocked(&self, txn: TxnId, target: &Target, mode: LockMode, turn: Turn) -> bool {
        self.try_each_blocker(txn, target, mode, turn, |_| ControlFlow::Break(())).is_break()
    }

    fn try_each_blocker(
        &self,
        txn: TxnId,
        target: &Target,
        mode: LockMode,
        turn: Turn,
        mut visit: impl FnMut(RawBlocker) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut holder = |holder: &Holder| match holder.mode() {
            Some(held) if holder.txn != txn && held.conflicts(mode) => {
                visit(RawBlocker { txn: holder.txn, mode: held, kind: EdgeKind::Hard })
            }
            _ => ControlFlow::Continue(()),
        };
        let queues = self.queues(target);
        for queue in queues.clone() {
            queue.holders.iter().try_for_each(&mut holder)?;
        }
        for (span, held) in &self.spans {
            if !mutant!("span-lock-ignored-by-writers") && target.meets(span) {
                holder(held)?;
            }
        }
        if mutant!("queue-unfair") {
            return ControlFlow::Continue(());
        }
        let mut waiter = |(earlier, ticket): &(Turn, Ticket)| {
            let Some(request) = self.requests.get(ticket).filter(|_| *earlier < turn) else {
                return ControlFlow::Continue(());
            };
            let conflicts = request.txn != txn && request.mode.conflicts(mode) && request.target.overlaps(target);
            // Whoever waits for this transaction already is not waited for: that would be a deadlock.
            if conflicts && !self.blocks(txn, request) {
                return visit(RawBlocker { txn: request.txn, mode: request.mode, kind: EdgeKind::Soft });
            }
            ControlFlow::Continue(())
        };
        for queue in queues {
            queue.waiters.iter().try_for_each(&mut waiter)?;
        }
        self.span_waiters.iter().try_for_each(&mut waiter)
    }

    /// Whether a transaction holds what a request waits for.
    pub(crate) fn blocks(&self, txn: TxnId, request: &Request) -> bool {
        let held =
            |holder: &Holder| holder.txn == txn && holder.mode().is_some_and(|held| held.conflicts(request.mode));
        let by_key = self.queues(&request.target).any(|queue| queue.holders.iter().any(held));
        by_key || self.spans.iter().any(|(span, holder)| held(holder) && request.target.meets(span))
    }

    /// The queues of the keys that a target is, or holds.
    pub(crate) fn queues(&self, target: &Target) -> Queues<'_> {
        match target {
            Target::Key(key) => Queues::One(self.keys.get(key)),
            Target::Span(span) if span.is_empty() => Queues::One(None),
            Target::Span(span) => Queues::Within(self.keys.range::<[u8], _>(bounds(span))),
        }
    }

    fn enqueue(&mut self, txn: TxnId, target: Target, mode: LockMode, turn: Turn) -> (Answer, Effects) {
        let ticket = Ticket(self.next);
        let queue = match &target {
            Target::Key(key) => &mut self.keys.entry(key.clone()).or_default().waiters,
            Target::Span(_) => &mut self.span_waiters,
        };
        let at = queue.partition_point(|(earlier, _)| *earlier < turn);
        queue.insert(at, (turn, ticket));
        let request = Request { txn, target: target.clone(), mode, turn, state: State::Waiting };
        self.requests.insert(ticket, request);
        if let Some(entry) = self.txns.get_mut(&txn) {
            entry.waits.push(ticket);
        }
        let effects = self.apply_policy(txn, ticket, &target, mode);
        match self.requests.get(&ticket).map(|request| &request.state) {
            Some(State::Waiting) => (Answer::Waits(ticket), effects),
            _ => {
                let outcome = self.collect(ticket);
                let effects = Effects { wakes: without(effects.wakes, ticket), ..effects };
                match outcome {
                    Some(Err(refusal)) => (Answer::Refused(refusal), effects),
                    Some(Ok(())) | None => (Answer::Granted, effects),
                }
            }
        }
    }

    /// What the policy does about a request that has begun to wait.
    fn apply_policy(&mut self, txn: TxnId, ticket: Ticket, target: &Target, mode: LockMode) -> Effects {
        let mut effects = match self.policy {
            Deadlocks::WoundWait => self.wound_younger(ticket).and(self.passed(txn, target, mode)),
            Deadlocks::WaitDie => self.die_if_younger(ticket).and(self.passed(txn, target, mode)),
            Deadlocks::Detect { .. } | Deadlocks::NoWait | Deadlocks::TimeoutOnly => Effects::default(),
        };
        if self.policy != Deadlocks::TimeoutOnly {
            effects = effects.and(self.break_cycles(txn));
        }
        effects
    }

    /// A transaction got something, or more of it. Whoever waits for it may do so in a circle now, if
    /// it waits for something else itself.
    fn after_grant(&mut self, txn: TxnId, target: &Target, mode: LockMode) -> Effects {
        let effects = self.pump_own(txn);
        effects.and(match self.policy {
            Deadlocks::WoundWait | Deadlocks::WaitDie => self.passed(txn, target, mode).and(self.break_cycles(txn)),
            Deadlocks::Detect { .. } => self.break_cycles(txn),
            Deadlocks::NoWait | Deadlocks::TimeoutOnly => Effects::default(),
        })
    }

    /// What a transaction got may let its other waits through: it no longer waits for those who now
    /// wait for it.
    fn pump_own(&mut self, txn: TxnId) -> Effects {
        let waits = self.txns.get(&txn).map_or(&[][..], |entry| entry.waits.as_slice());
        if waits.is_empty() {
            return Effects::default();
        }
        let targets = waits.iter().filter_map(|ticket| Some(self.requests.get(ticket)?.target.clone())).collect();
        self.pump_all(targets)
    }
}

/// A blocker before its label is looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawBlocker {
    pub txn: TxnId,
    pub mode: LockMode,
    pub kind: EdgeKind,
}

/// The queues of a key, or of the keys in a span.
#[derive(Clone)]
pub(crate) enum Queues<'t> {
    One(Option<&'t Queue>),
    Within(btree_map::Range<'t, Key, Queue>),
}

impl<'t> Iterator for Queues<'t> {
    type Item = &'t Queue;

    fn next(&mut self) -> Option<&'t Queue> {
        match self {
            Queues::One(queue) => queue.take(),
            Queues::Within(queues) => queues.next().map(|(_, queue)| queue),
        }
    }
}

/// Who is on a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Alone {
    Nobody,
    One(TxnId, LockMode),
    No,
}

fn bounds(span: &Span) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let end = span.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(&span.start[..]), end)
}

fn without(mut tickets: Vec<Ticket>, ticket: Ticket) -> Vec<Ticket> {
    tickets.retain(|other| *other != ticket);
    tickets
}
