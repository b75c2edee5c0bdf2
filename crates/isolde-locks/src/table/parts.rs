//! What the table is made of: targets, tickets, answers, holders and queues.

use std::collections::BTreeSet;
use std::fmt;

use isolde_types::sync::Arc;
use isolde_types::{Key, LockMode, Span, TxnId, escape_key};
use smallvec::SmallVec;

use crate::report::{Blocker, DeadlockReport};

/// What is locked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// A key, present or absent.
    Key(Key),
    /// A half-open span.
    Span(Span),
}

impl Target {
    pub(super) fn overlaps(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Key(a), Target::Key(b)) => a == b,
            (target, Target::Span(span)) | (Target::Span(span), target) => target.meets(span),
        }
    }

    /// Whether some key is in both.
    pub(super) fn meets(&self, span: &Span) -> bool {
        match self {
            Target::Key(key) => span.contains(key),
            Target::Span(own) => own.overlaps(span),
        }
    }

    /// Whether whoever holds the span has this covered.
    pub(super) fn is_within(&self, span: &Span) -> bool {
        match self {
            Target::Key(key) => span.contains(key),
            Target::Span(inner) => {
                let ends_within = match (&span.end, &inner.end) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(end), Some(inner)) => inner <= end,
                };
                inner.is_empty() || (span.start <= inner.start && ends_within)
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
    /// It waits; [`Table::collect`](super::Table::collect) has the answer once the ticket is among the effects' wakes.
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
    /// Most calls do nothing to anybody.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.wakes.is_empty() && self.wounds.is_empty()
    }

    #[inline]
    pub(crate) fn and(self, other: Effects) -> Effects {
        match (self.is_empty(), other.is_empty()) {
            (_, true) => self,
            (true, false) => other,
            (false, false) => self.then(other),
        }
    }

    fn then(mut self, other: Effects) -> Effects {
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
    pub(super) party: Party,
    pub(super) held: BTreeSet<Target>,
    pub(crate) waits: SmallVec<[Ticket; 2]>,
    pub(super) wounded: bool,
}

/// One transaction's hold on a target.
#[derive(Clone)]
pub(crate) struct Holder {
    pub txn: TxnId,
    /// Held for good, until released.
    pub(super) base: Option<LockMode>,
    /// Granted to tickets that have not collected yet.
    pub(super) pending: SmallVec<[(Ticket, LockMode); 1]>,
}

impl Holder {
    pub fn mode(&self) -> Option<LockMode> {
        self.pending.iter().map(|(_, mode)| *mode).max().max(self.base)
    }
}

/// The place of a request in every queue that it is in: upgrades first, then by arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Turn(pub(super) u8, pub(super) u64);

pub(crate) struct Request {
    pub txn: TxnId,
    pub target: Target,
    pub mode: LockMode,
    pub turn: Turn,
    pub(super) state: State,
}

impl Request {
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
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
    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}
