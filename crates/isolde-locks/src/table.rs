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

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use isolde_types::sync::Arc;
use isolde_types::{Key, LockMode, Span, TxnId, escape_key, mutant};
use smallvec::SmallVec;

use crate::policy::{Deadlocks, Victim, WaitPolicy};
use crate::report::{Blocker, DeadlockReport, Edge, EdgeKind};

/// How many deadlocks are remembered.
const REMEMBERED: usize = 64;

/// What is locked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// A key, present or absent.
    Key(Key),
    /// A half-open span.
    Span(Span),
}

impl Target {
    fn overlaps(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Key(a), Target::Key(b)) => a == b,
            (Target::Key(key), Target::Span(span)) | (Target::Span(span), Target::Key(key)) => span.contains(key),
            (Target::Span(a), Target::Span(b)) => a.overlaps(b),
        }
    }

    /// Whether whoever holds `self` has `other` covered.
    fn covers(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Key(a), Target::Key(b)) => a == b,
            (Target::Key(_), Target::Span(span)) => span.is_empty(),
            (Target::Span(span), Target::Key(key)) => span.contains(key),
            (Target::Span(a), Target::Span(b)) => {
                let ends_within = match (&a.end, &b.end) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(end), Some(inner)) => inner <= end,
                };
                b.is_empty() || (a.start <= b.start && ends_within)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Key(key) => write!(f, "\"{}\"", escape_key(key)),
            Target::Span(span) => write!(f, "{span}"),
        }
    }
}

/// A request that waits, or whose answer was not fetched yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Why a request came to nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The transaction was chosen to break a deadlock, or its age did not allow the wait.
    Deadlock(Arc<DeadlockReport>),
    /// An older transaction wounded it.
    Wounded {
        /// The older one.
        by: TxnId,
    },
    /// Somebody is in the way, and the request or the policy does not wait.
    Busy(Vec<Blocker>),
    /// The transaction released everything.
    Ended,
}

/// The answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It holds the lock.
    Granted,
    /// It waits; [`Table::collect`] has the answer once the ticket is among the effects' wakes.
    Waits(Ticket),
    /// It does not, and will not.
    Refused(Refusal),
}

/// What a call did to others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Effects {
    /// Tickets whose waits are over, in the order in which they are to be woken.
    pub wakes: Vec<Ticket>,
    /// Transactions that were wounded, and by whom: they must roll back.
    pub wounds: Vec<(TxnId, TxnId)>,
}

impl Effects {
    pub(crate) fn and(mut self, other: Effects) -> Effects {
        self.wakes.extend(other.wakes);
        self.wounds.extend(other.wounds);
        self
    }
}

/// What is known of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Party {
    /// Smaller is older.
    pub age: u64,
    /// What people call it.
    pub label: Option<Arc<str>>,
}

pub(crate) struct TxnEntry {
    party: Party,
    held: HashSet<Target, RandomState>,
    pub(crate) waits: SmallVec<[Ticket; 2]>,
    wounded: bool,
}

/// One transaction's hold on a target.
#[derive(Clone)]
pub(crate) struct Holder {
    pub txn: TxnId,
    /// Held for good, until released.
    base: Option<LockMode>,
    /// Granted to tickets that have not collected yet.
    pending: SmallVec<[(Ticket, LockMode); 1]>,
}

impl Holder {
    pub fn mode(&self) -> Option<LockMode> {
        self.pending.iter().map(|(_, mode)| *mode).max().max(self.base)
    }
}

/// The place of a request in every queue that it is in: upgrades first, then by arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Turn(u8, u64);

pub(crate) struct Request {
    pub txn: TxnId,
    pub target: Target,
    pub mode: LockMode,
    pub turn: Turn,
    state: State,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    Granted,
    Refused(Refusal),
}

#[derive(Default)]
pub(crate) struct Queue {
    pub holders: SmallVec<[Holder; 2]>,
    pub waiters: Vec<(Turn, Ticket)>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}

/// See the module.
pub struct Table {
    policy: Deadlocks,
    pub(crate) txns: HashMap<TxnId, TxnEntry, RandomState>,
    pub(crate) keys: BTreeMap<Key, Queue>,
    /// Few at a time: looked through one by one.
    pub(crate) spans: Vec<(Span, Holder)>,
    pub(crate) span_waiters: Vec<(Turn, Ticket)>,
    pub(crate) requests: HashMap<Ticket, Request, RandomState>,
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
            txns: HashMap::default(),
            keys: BTreeMap::new(),
            spans: Vec::new(),
            span_waiters: Vec::new(),
            requests: HashMap::default(),
            next: 0,
            recent: VecDeque::new(),
            deadlocks: 0,
        }
    }

    /// Makes a transaction known. Idempotent.
    pub fn enter(&mut self, txn: TxnId, party: &Party) {
        self.txns.entry(txn).or_insert_with(|| TxnEntry {
            party: party.clone(),
            held: HashSet::default(),
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
        if self.holds(txn, &target).is_some_and(|held| held >= mode) {
            return (Answer::Granted, Effects::default());
        }
        let turn = self.turn(txn, &target);
        let blockers = self.blockers_of(txn, &target, mode, turn);
        if blockers.is_empty() {
            self.strengthen(txn, &target, |holder| holder.base = holder.base.max(Some(mode)));
            let effects = self.after_grant(txn, &target, mode);
            return (Answer::Granted, effects);
        }
        if wait == WaitPolicy::NoWait || self.policy == Deadlocks::NoWait {
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
                self.leave_queue(ticket, &request);
                self.pump(&request.target)
            }
            State::Granted => {
                self.weaken(request.txn, &request.target, |holder| {
                    holder.pending.retain(|(pending, _)| *pending != ticket);
                });
                self.pump(&request.target)
            }
        }
    }

    /// Lowers what a transaction holds on a target, or gives it up (`None`).
    pub fn set_mode(&mut self, txn: TxnId, target: &Target, mode: Option<LockMode>) -> Effects {
        self.weaken(txn, target, |holder| holder.base = holder.base.min(mode));
        self.pump(target)
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
        for target in &touched {
            self.drop_holder(txn, target);
        }
        self.txns.remove(&txn);
        effects.and(self.pump_all(touched))
    }

    // --- questions ---------------------------------------------------------------------------

    /// What a transaction holds on a target, by itself or by a span over it.
    #[must_use]
    pub fn holds(&self, txn: TxnId, target: &Target) -> Option<LockMode> {
        let by_key = match target {
            Target::Key(key) => self.keys.get(key).and_then(|queue| mode_of(&queue.holders, txn)),
            Target::Span(_) => None,
        };
        let over =
            self.spans.iter().filter(|(span, holder)| holder.txn == txn && Target::Span(span.clone()).covers(target));
        over.filter_map(|(_, holder)| holder.mode()).max().max(by_key)
    }

    /// What a transaction holds on a key itself.
    #[must_use]
    pub fn holds_key(&self, txn: TxnId, key: &Key) -> Option<LockMode> {
        self.keys.get(key).and_then(|queue| mode_of(&queue.holders, txn))
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
        let mut found: Vec<RawBlocker> = Vec::new();
        self.each_blocker(txn, target, mode, turn, |blocker| {
            if !found.iter().any(|earlier| earlier.txn == blocker.txn) {
                found.push(blocker);
            }
        });
        found
    }

    pub(crate) fn each_blocker(
        &self,
        txn: TxnId,
        target: &Target,
        mode: LockMode,
        turn: Turn,
        mut visit: impl FnMut(RawBlocker),
    ) {
        let mut holder = |holder: &Holder| {
            if let Some(held) = holder.mode().filter(|held| holder.txn != txn && held.conflicts(mode)) {
                visit(RawBlocker { txn: holder.txn, mode: held, kind: EdgeKind::Hard });
            }
        };
        for queue in self.queues(target) {
            queue.holders.iter().for_each(&mut holder);
        }
        for (span, held) in &self.spans {
            if !mutant!("span-lock-ignored-by-writers") && Target::Span(span.clone()).overlaps(target) {
                holder(held);
            }
        }
        if mutant!("queue-unfair") {
            return;
        }
        let mut waiter = |(earlier, ticket): &(Turn, Ticket)| {
            let Some(request) = self.requests.get(ticket).filter(|_| *earlier < turn) else { return };
            let conflicts = request.txn != txn && request.mode.conflicts(mode) && request.target.overlaps(target);
            // Whoever waits for this transaction already is not waited for: that would be a deadlock.
            if conflicts && !self.blocks(txn, request) {
                visit(RawBlocker { txn: request.txn, mode: request.mode, kind: EdgeKind::Soft });
            }
        };
        for queue in self.queues(target) {
            queue.waiters.iter().for_each(&mut waiter);
        }
        self.span_waiters.iter().for_each(&mut waiter);
    }

    /// Whether a transaction holds what a request waits for.
    pub(crate) fn blocks(&self, txn: TxnId, request: &Request) -> bool {
        let held =
            |holder: &Holder| holder.txn == txn && holder.mode().is_some_and(|held| held.conflicts(request.mode));
        let by_key = self.queues(&request.target).any(|queue| queue.holders.iter().any(held));
        let overlaps = |span: &Span| Target::Span(span.clone()).overlaps(&request.target);
        by_key || self.spans.iter().any(|(span, holder)| held(holder) && overlaps(span))
    }

    /// The queues of the keys that a target is, or holds.
    pub(crate) fn queues(&self, target: &Target) -> impl Iterator<Item = &Queue> {
        let (one, many) = match target {
            Target::Key(key) => (self.keys.get(key), None),
            Target::Span(span) if span.is_empty() => (None, None),
            Target::Span(span) => (None, Some(self.keys.range(bounds(span)).map(|(_, queue)| queue))),
        };
        one.into_iter().chain(many.into_iter().flatten())
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
        let waits = self.txns.get(&txn).map(|entry| entry.waits.clone()).unwrap_or_default();
        let targets = waits.iter().filter_map(|ticket| Some(self.requests.get(ticket)?.target.clone())).collect();
        self.pump_all(targets)
    }

    // --- the age policies --------------------------------------------------------------------------

    fn age(&self, txn: TxnId) -> (u64, TxnId) {
        (self.txns.get(&txn).map_or(u64::MAX, |entry| entry.party.age), txn)
    }

    /// Wound-wait: an older request wounds every younger transaction that it waits for.
    fn wound_younger(&mut self, ticket: Ticket) -> Effects {
        let Some(request) = self.requests.get(&ticket) else { return Effects::default() };
        let me = request.txn;
        let blockers = self.blockers_of(me, &request.target, request.mode, request.turn);
        let younger: Vec<TxnId> =
            blockers.into_iter().map(|blocker| blocker.txn).filter(|txn| self.age(*txn) > self.age(me)).collect();
        younger.into_iter().fold(Effects::default(), |effects, txn| effects.and(self.wound(txn, me)))
    }

    /// Wait-die: a request that would wait for an older transaction gives way.
    fn die_if_younger(&mut self, ticket: Ticket) -> Effects {
        let Some(request) = self.requests.get(&ticket) else { return Effects::default() };
        let me = request.txn;
        let blockers = self.blockers_of(me, &request.target, request.mode, request.turn);
        let older = blockers.into_iter().find(|blocker| self.age(blocker.txn) < self.age(me));
        let Some(older) = older else { return Effects::default() };
        let edge = self.edge(&self.requests[&ticket], older);
        self.sacrifice(me, vec![edge])
    }

    /// An upgrade or grant has come before those who wait on the target: their edges to it are new.
    fn passed(&mut self, txn: TxnId, target: &Target, mode: LockMode) -> Effects {
        if mutant!("deadlock-misses-upgrade") {
            return Effects::default();
        }
        let mut effects = Effects::default();
        for ticket in self.waiters_on(target) {
            let Some(request) = self.requests.get(&ticket) else { continue };
            let waits_for_me = self
                .blockers_of(request.txn, &request.target, request.mode, request.turn)
                .iter()
                .any(|blocker| blocker.txn == txn);
            if request.txn == txn || !request.mode.conflicts(mode) || !waits_for_me {
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
    fn wound(&mut self, txn: TxnId, by: TxnId) -> Effects {
        let Some(entry) = self.txns.get_mut(&txn).filter(|entry| !entry.wounded) else { return Effects::default() };
        entry.wounded = true;
        let effects = Effects { wakes: Vec::new(), wounds: vec![(txn, by)] };
        effects.and(self.end_waits(txn, &Refusal::Wounded { by }))
    }

    fn end_waits(&mut self, txn: TxnId, refusal: &Refusal) -> Effects {
        let Some(entry) = self.txns.get(&txn) else { return Effects::default() };
        let waits = entry.waits.clone();
        let touched: Vec<Target> = waits.iter().filter_map(|ticket| self.refuse(*ticket, refusal.clone())).collect();
        let effects = Effects { wakes: waits.into_vec(), wounds: Vec::new() };
        effects.and(self.pump_all(touched))
    }

    // --- deadlocks --------------------------------------------------------------------------------

    /// Searches until no cycle through the transaction is left.
    fn break_cycles(&mut self, txn: TxnId) -> Effects {
        let mut effects = Effects::default();
        while let Some(cycle) = self.find_cycle(txn) {
            let victim = self.choose(txn, &cycle);
            effects = effects.and(self.sacrifice(victim, cycle));
        }
        effects
    }

    fn choose(&self, requester: TxnId, cycle: &[Edge]) -> TxnId {
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

    fn held_by(&self, txn: TxnId) -> usize {
        self.txns.get(&txn).map_or(0, |entry| entry.held.len())
    }

    /// Makes a transaction give way: its waits fail; its locks go when it rolls back.
    fn sacrifice(&mut self, victim: TxnId, cycle: Vec<Edge>) -> Effects {
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

    fn named(&self, blocker: RawBlocker) -> Blocker {
        Blocker { txn: blocker.txn, label: self.label(blocker.txn), mode: blocker.mode, kind: blocker.kind }
    }

    // --- changing what is held -----------------------------------------------------------------

    fn strengthen(&mut self, txn: TxnId, target: &Target, change: impl FnOnce(&mut Holder)) {
        if let Some(entry) = self.txns.get_mut(&txn) {
            entry.held.insert(target.clone());
        }
        let fresh = || Holder { txn, base: None, pending: SmallVec::new() };
        match target {
            Target::Key(key) => {
                let holders = &mut self.keys.entry(key.clone()).or_default().holders;
                match holders.iter_mut().find(|holder| holder.txn == txn) {
                    Some(holder) => change(holder),
                    None => {
                        let mut holder = fresh();
                        change(&mut holder);
                        holders.push(holder);
                    }
                }
            }
            Target::Span(span) => {
                match self.spans.iter_mut().find(|(held, holder)| holder.txn == txn && held == span) {
                    Some((_, holder)) => change(holder),
                    None => {
                        let mut holder = fresh();
                        change(&mut holder);
                        self.spans.push((span.clone(), holder));
                    }
                }
            }
        }
    }

    fn weaken(&mut self, txn: TxnId, target: &Target, change: impl FnOnce(&mut Holder)) {
        let holder = match target {
            Target::Key(key) => {
                self.keys.get_mut(key).and_then(|queue| queue.holders.iter_mut().find(|holder| holder.txn == txn))
            }
            Target::Span(span) => {
                self.spans.iter_mut().find(|(held, holder)| holder.txn == txn && held == span).map(|(_, holder)| holder)
            }
        };
        let Some(holder) = holder else { return };
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

    // --- waking ------------------------------------------------------------------------------------

    /// Ends a wait without a grant; gives the target whose queue is shorter now.
    fn refuse(&mut self, ticket: Ticket, refusal: Refusal) -> Option<Target> {
        let mut request = self.requests.remove(&ticket)?;
        if request.state == State::Waiting {
            self.leave_queue(ticket, &request);
            request.state = State::Refused(refusal);
        }
        let target = request.target.clone();
        self.requests.insert(ticket, request);
        Some(target)
    }

    fn leave_queue(&mut self, ticket: Ticket, request: &Request) {
        match &request.target {
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
        if let Some(entry) = self.txns.get_mut(&request.txn) {
            entry.waits.retain(|waiter| *waiter != ticket);
        }
    }

    /// Waiting requests that a change of the target may let through, in turn.
    fn waiters_on(&self, target: &Target) -> Vec<Ticket> {
        let in_queues = self.queues(target).flat_map(|queue| queue.waiters.iter());
        let mut waiters: Vec<(Turn, Ticket)> = in_queues
            .chain(&self.span_waiters)
            .filter(|(_, ticket)| self.requests.get(ticket).is_some_and(|r| r.target.overlaps(target)))
            .copied()
            .collect();
        waiters.sort_unstable();
        waiters.into_iter().map(|(_, ticket)| ticket).collect()
    }

    fn pump_all(&mut self, targets: Vec<Target>) -> Effects {
        targets.into_iter().fold(Effects::default(), |effects, target| effects.and(self.pump(&target)))
    }

    /// Grants whatever can be granted now that the target has changed, in turn.
    fn pump(&mut self, target: &Target) -> Effects {
        let mut effects = Effects::default();
        for ticket in self.waiters_on(target) {
            let Some(request) = self.requests.get(&ticket).filter(|request| request.state == State::Waiting) else {
                continue;
            };
            let (txn, wanted, mode, turn) = (request.txn, request.target.clone(), request.mode, request.turn);
            if !self.blockers_of(txn, &wanted, mode, turn).is_empty() {
                continue;
            }
            self.grant(ticket, txn, &wanted, mode);
            if !(mutant!("lost-wakeup") && effects.wakes.is_empty()) {
                effects.wakes.push(ticket);
            }
            effects = effects.and(self.after_grant(txn, &wanted, mode));
        }
        effects
    }

    fn grant(&mut self, ticket: Ticket, txn: TxnId, target: &Target, mode: LockMode) {
        if let Some(mut request) = self.requests.remove(&ticket) {
            self.leave_queue(ticket, &request);
            request.state = State::Granted;
            self.requests.insert(ticket, request);
        }
        self.strengthen(txn, target, |holder| holder.pending.push((ticket, mode)));
    }
}

/// A blocker before its label is looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawBlocker {
    pub txn: TxnId,
    pub mode: LockMode,
    pub kind: EdgeKind,
}

/// Who is on a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Alone {
    Nobody,
    One(TxnId, LockMode),
    No,
}

fn mode_of(holders: &[Holder], txn: TxnId) -> Option<LockMode> {
    holders.iter().find(|holder| holder.txn == txn).and_then(Holder::mode)
}

fn bounds(span: &Span) -> (Bound<Key>, Bound<Key>) {
    (Bound::Included(span.start.clone()), span.end.clone().map_or(Bound::Unbounded, Bound::Excluded))
}

fn without(mut tickets: Vec<Ticket>, ticket: Ticket) -> Vec<Ticket> {
    tickets.retain(|other| *other != ticket);
    tickets
}
