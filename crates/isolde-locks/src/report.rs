//! Who was in whose way, for people.

use std::fmt;

use isolde_types::sync::Arc;
use isolde_types::{LockMode, TxnId};

use crate::policy::Deadlocks;
use crate::table::Target;

/// Somebody who holds, or waits earlier for, what a request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blocker {
    /// Who.
    pub txn: TxnId,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// The mode that it holds or waits for.
    pub mode: LockMode,
    /// Whether it holds the lock or waits for it.
    pub kind: EdgeKind,
}

/// Whether one waits for a holder, or for an earlier waiter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EdgeKind {
    /// For a holder.
    Hard,
    /// For somebody who came earlier and waits too.
    Soft,
}

impl EdgeKind {
    /// The word in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EdgeKind::Hard => "hard",
            EdgeKind::Soft => "soft",
        }
    }
}

/// One transaction that waits for another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// Who waits.
    pub waiter: TxnId,
    /// Its label.
    pub waiter_label: Option<Arc<str>>,
    /// Its age: smaller is older.
    pub waiter_age: u64,
    /// What it wants to lock.
    pub target: Target,
    /// How.
    pub wants: LockMode,
    /// For whom it waits.
    pub blocker: Blocker,
}

/// A deadlock, or a wait that an age policy did not allow, and who gave way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadlockReport {
    /// The circle, each waiting for the next and the last for the first. Under `WaitDie` the one wait
    /// that was not allowed.
    pub cycle: Vec<Edge>,
    /// Who gave way.
    pub victim: TxnId,
    /// The policy that chose it.
    pub policy: Deadlocks,
}

/// A transaction with its label.
pub(crate) struct Named<'a>(pub TxnId, pub &'a Option<Arc<str>>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(label) => write!(f, "{} {label:?}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for DeadlockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { self.explain(f) } else { self.line(f) }
    }
}

impl DeadlockReport {
    fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for edge in &self.cycle {
            let who = Named(edge.waiter, &edge.waiter_label);
            write!(f, "{who} waits for {} {}, ", edge.wants.letter(), edge.target)?;
        }
        match self.cycle.as_slice() {
            [only] if only.blocker.txn != only.waiter => {
                write!(f, "which the older {} has; {} gives way", only.blocker.txn, self.victim)
            }
            _ => write!(f, "in a circle; {} gives way", self.victim),
        }
    }

    fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, edge) in self.cycle.iter().enumerate() {
            let who = Named(edge.waiter, &edge.waiter_label);
            let other = Named(edge.blocker.txn, &edge.blocker.label);
            let verb = match edge.blocker.kind {
                EdgeKind::Hard => "holds",
                EdgeKind::Soft => "waits earlier for",
            };
            let separator = if number == 0 { "" } else { "\n" };
            write!(
                f,
                "{separator}  {who} (age {}) waits for {} {}   <-  {other} {verb} {}",
                edge.waiter_age,
                edge.wants.letter(),
                edge.target,
                edge.blocker.mode.letter(),
            )?;
        }
        write!(f, "\n  {} gives way", self.victim)
    }
}
