//! What errors say beside their kind: keys, transactions, conflicts, limits.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use isolde_locks::table::Target;
use isolde_locks::{Blocker, DeadlockReport, EdgeKind};
use isolde_types::sync::Arc;
use isolde_types::{Key, Span, Ts, TxnId, escape_key};

use super::Error;

/// A key as it is shown in messages: escaped and cut, or hashed if the database redacts keys.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(Box<str>);

impl KeyText {
    pub(crate) fn new(key: &[u8], redact: Redact) -> KeyText {
        match redact {
            Redact::Show => KeyText(format!("\"{}\"", escape_key(key)).into()),
            Redact::Hash => KeyText(format!("key #{:016x}", hash(key)).into()),
        }
    }

    pub(crate) fn span(span: &Span, redact: Redact) -> KeyText {
        match redact {
            Redact::Show => KeyText(span.to_string().into()),
            Redact::Hash => {
                let end = span.end.as_ref().map_or(0, |end| hash(end));
                KeyText(format!("span #{:016x}..#{end:016x}", hash(&span.start)).into())
            }
        }
    }
}

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// FNV-1a: stable from run to run, so that the same key can be followed through a log.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// A row of a typed table that cannot be read or written with the table's types.
#[derive(Debug)]
#[non_exhaustive]
pub struct BadRow {
    /// The table's name.
    pub table: &'static str,
    /// What cannot be read or written.
    pub part: RowPart,
    /// The key, as it stands in the database.
    pub key: KeyText,
    /// What the codec says.
    pub why: Option<Box<dyn StdError + Send + Sync>>,
}

/// A part of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RowPart {
    /// Its key cannot be decoded.
    Key,
    /// Its value cannot be decoded.
    Value,
    /// The value that was to be written cannot be encoded.
    NewValue,
}

impl BadRow {
    pub(super) fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.part {
            RowPart::Key => "is no key of its type",
            RowPart::Value => "has a value that cannot be decoded",
            RowPart::NewValue => "was to get a value that cannot be encoded",
        };
        write!(f, "table {:?}: {} {what}", self.table, self.key)?;
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }

    pub(super) fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.part {
            RowPart::NewValue => "\n  what to do: nothing was written; write a value that the codec knows",
            RowPart::Key | RowPart::Value => {
                "\n  what to do: read it with the types that it was written with, or raw, by Txn::scan of Table::span"
            }
        })
    }
}

/// Whether messages show keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Redact {
    Show,
    Hash,
}

/// A transaction, as messages name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnSummary {
    /// Its identity, if known.
    pub id: Option<TxnId>,
    /// The label that it was begun with.
    pub label: Option<Arc<str>>,
}

impl fmt::Display for TxnSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "{id}")?,
            None => f.write_str("another transaction")?,
        }
        match &self.label {
            Some(label) => write!(f, " {label:?}"),
            None => Ok(()),
        }
    }
}

/// What two transactions could not both have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ConflictKind {
    /// This transaction read a key, and another committed a newer version of it.
    ReadChanged,
    /// This transaction scanned or locked a span, and another changed what is in it.
    SpanChanged,
    /// This transaction writes a key that another committed since this one's snapshot.
    WrittenSinceSnapshot,
}

/// Why a transaction could not commit, or could not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Conflict {
    /// What clashed.
    pub kind: ConflictKind,
    /// This transaction.
    pub me: TxnSummary,
    /// The one that committed first, as far as it is still remembered.
    pub other: TxnSummary,
    /// The key, as messages show it.
    pub key: KeyText,
    /// The span that was scanned, for [`ConflictKind::SpanChanged`].
    pub span: Option<KeyText>,
    /// The state that this transaction had read, or had its snapshot of.
    pub read_ts: Ts,
    /// When the other committed.
    pub latest_ts: Ts,
    /// The key itself: a retry locks it first.
    pub(crate) lost_on: Unshown,
}

/// A key for the library's own use. `{:?}` of an error, which `unwrap` prints, shows no more than `{}` does.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Unshown(pub Key);

impl fmt::Debug for Unshown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl Conflict {
    #[allow(clippy::too_many_arguments, reason = "a record of what happened, built in one place")]
    pub(crate) fn new(
        kind: ConflictKind,
        me: TxnSummary,
        other: TxnSummary,
        key: &Key,
        span: Option<&Span>,
        read_ts: Ts,
        latest_ts: Ts,
        redact: Redact,
    ) -> Conflict {
        Conflict {
            kind,
            me,
            other,
            key: KeyText::new(key, redact),
            span: span.map(|span| KeyText::span(span, redact)),
            read_ts,
            latest_ts,
            lost_on: Unshown(key.clone()),
        }
    }

    pub(super) fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict { me, other, key, read_ts, latest_ts, .. } = self;
        match self.kind {
            ConflictKind::ReadChanged => {
                write!(f, "conflict (retryable): {me} read {key} as of {read_ts}, and {other} changed it {latest_ts}")
            }
            ConflictKind::SpanChanged => {
                let span = self.span.as_ref().unwrap_or(key);
                write!(
                    f,
                    "conflict (retryable): {me} scanned {span} as of {read_ts}, and {other} changed {key} in it {latest_ts}"
                )
            }
            ConflictKind::WrittenSinceSnapshot => {
                write!(
                    f,
                    "conflict (retryable): {me} writes {key}, and {other} committed it {latest_ts}, after {me}'s snapshot {read_ts}"
                )
            }
        }
    }

    pub(super) fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict { me, other, key, read_ts, latest_ts, .. } = self;
        let (mine, edge, topic) = match self.kind {
            ConflictKind::ReadChanged => ("read", "rw", "write-skew"),
            ConflictKind::SpanChanged => ("scanned", "rw", "G2"),
            ConflictKind::WrittenSinceSnapshot => ("writes", "ww", "lost-update"),
        };
        let what = self.span.as_ref().unwrap_or(key);
        match self.kind {
            ConflictKind::WrittenSinceSnapshot => write!(f, "\n  {me} {mine} {what}, and its snapshot is {read_ts}")?,
            _ => write!(f, "\n  {me} {mine} {what} as of {read_ts}")?,
        }
        write!(f, "\n  {other} wrote {key} and committed {latest_ts}")?;
        match self.kind {
            ConflictKind::WrittenSinceSnapshot => write!(f, "   ({other} -{edge}-> {me}, though {me} did not see it)")?,
            _ => write!(f, "   ({me} -{edge}-> {other})")?,
        }
        f.write_str("\n  what to do: begin again and retry; `transact` and `run` do so by themselves")?;
        match &self.span {
            Some(span) => write!(f, "\n  fewer conflicts: pessimistic mode, which locks {span}; or scan less")?,
            None => {
                write!(f, "\n  fewer conflicts: get_for_update({key}) in pessimistic mode, or a shorter transaction")?
            }
        }
        write!(f, "\n  help: anomaly-suite explain {topic}")
    }
}

/// A deadlock that this transaction was chosen to break.
#[derive(Clone)]
#[non_exhaustive]
pub struct Deadlock {
    /// The cycle: who waited for whom, on what. Its keys are in clear, also where messages redact them.
    pub report: Arc<DeadlockReport>,
    pub(crate) redact: Redact,
}

impl Deadlock {
    pub(super) fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadlock (retryable): ")?;
        if self.redact == Redact::Show {
            return write!(f, "{}", self.report);
        }
        for edge in &self.report.cycle {
            let who = TxnSummary { id: Some(edge.waiter), label: edge.waiter_label.clone() };
            let what = match &edge.target {
                Target::Key(key) => KeyText::new(key, self.redact),
                Target::Span(span) => KeyText::span(span, self.redact),
            };
            write!(f, "{who} waits for {} {what}, which {} has; ", edge.wants.letter(), edge.blocker.txn)?;
        }
        write!(f, "{} gives way", self.report.victim)
    }
}

impl fmt::Debug for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut this = f.debug_struct("Deadlock");
        match self.redact {
            Redact::Show => this.field("report", &self.report).finish(),
            Redact::Hash => this.field("victim", &self.report.victim).finish_non_exhaustive(),
        }
    }
}

/// An older transaction took what this one held.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Wound {
    /// This transaction.
    pub me: TxnSummary,
    /// The older one.
    pub by: TxnId,
}

/// Who said that a lock is not to be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    ByCall,
    ByPolicy,
    /// There was no need to: the lock is held by a body that the asking thread is inside of.
    Nobody,
}

/// A lock that was not granted, and who stood in the way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockWait {
    /// This transaction.
    pub me: TxnSummary,
    /// What was to be locked.
    pub target: KeyText,
    /// Those who held it, or waited for it before.
    pub blockers: Vec<Blocker>,
    pub(crate) asked: Asked,
}

impl LockWait {
    pub(crate) fn on_key(me: TxnSummary, key: &[u8], blockers: Vec<Blocker>, asked: Asked, redact: Redact) -> Self {
        LockWait { me, target: KeyText::new(key, redact), blockers, asked }
    }

    pub(crate) fn on_span(me: TxnSummary, span: &Span, blockers: Vec<Blocker>, asked: Asked, redact: Redact) -> Self {
        LockWait { me, target: KeyText::span(span, redact), blockers, asked }
    }

    pub(super) fn blocked_by(&self) -> String {
        let names: Vec<String> =
            self.blockers.iter().map(|b| TxnSummary { id: Some(b.txn), label: b.label.clone() }.to_string()).collect();
        if names.is_empty() { "somebody who has left by now".to_owned() } else { names.join(", ") }
    }

    pub(super) fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for blocker in &self.blockers {
            let who = TxnSummary { id: Some(blocker.txn), label: blocker.label.clone() };
            let how = match blocker.kind {
                EdgeKind::Hard => "holds",
                EdgeKind::Soft => "waits earlier for",
            };
            write!(f, "\n  in the way: {who} {how} {}", blocker.mode.letter())?;
        }
        if self.asked == Asked::Nobody {
            f.write_str(
                "\n  what to do: inside a body use its transaction; a call of `db` there is a transaction of its own,",
            )?;
            return f.write_str(" and waits for the body that it is in");
        }
        f.write_str("\n  what to do: try the operation again, or roll back and retry; ")?;
        f.write_str("Db::locks and Db::waits_for show who holds what")
    }
}

/// Every attempt of a body failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct RetriesExhausted {
    /// How many times the body ran.
    pub attempts: u32,
    /// How long all of them took.
    pub elapsed: Duration,
    /// The last error.
    pub last: Error,
}

/// A merge could not be computed.
#[derive(Debug)]
#[non_exhaustive]
pub struct MergeError {
    /// The operator's name.
    pub operator: Box<str>,
    /// The key.
    pub key: KeyText,
    /// What the operator said; `None` if no operator of that name is registered.
    pub reason: Option<Box<str>>,
}

/// Something is over its limit.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TooLarge {
    /// What: "key", "value", "write set" or "locks of one transaction".
    pub what: &'static str,
    /// How large it would be: bytes, or a number of locks.
    pub size: usize,
    /// The limit.
    pub limit: usize,
    /// The builder method that sets it.
    pub option: &'static str,
}
