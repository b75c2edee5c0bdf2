//! From what was observed to versions: what lists and registers have in common.

use std::collections::HashMap;

use bytes::Bytes;
use isolde_types::Isolation;

use super::observed::{Observed, Op};
use crate::check::Finding;
use crate::resolve::{Left, Outcome, Partial, Resolved, Txn, VersionRec, WriteRec};

/// What could be inferred of a history.
pub(super) struct Inferred<'o> {
    pub resolved: Resolved<'o>,
    /// Anomalies that are seen in the values themselves.
    pub findings: Vec<Finding>,
    /// What keeps a level from being shown to hold, in words.
    pub doubts: Vec<String>,
    /// What is assumed of the history, in its favour, in words.
    pub assumptions: Vec<String>,
}

/// A write: its transaction, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Writer {
    pub txn: usize,
    pub seq: u32,
}

/// Who wrote what, by key and value.
pub(super) struct Writers {
    by_value: HashMap<(usize, usize), Found>,
}

/// Who wrote a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Nobody,
    One(Writer),
    /// Two transactions did: who reads it does not say whose write it was.
    Several(usize, usize),
}

impl Writers {
    pub fn of(observed: &Observed) -> Writers {
        let mut by_value = HashMap::new();
        for (txn, observed) in observed.txns.iter().enumerate() {
            let mut seq = 0;
            for op in &observed.ops {
                let (Op::Append { key, value } | Op::Write { key, value }) = op else { continue };
                seq += 1;
                let found = by_value.entry((*key, *value)).or_insert(Found::One(Writer { txn, seq }));
                *found = match *found {
                    Found::One(known) if known.txn != txn => Found::Several(known.txn, txn),
                    Found::Several(..) => *found,
                    // The same transaction wrote it twice: what it left is the later one.
                    _ => Found::One(Writer { txn, seq }),
                };
            }
        }
        Writers { by_value }
    }

    pub fn find(&self, key: usize, value: usize) -> Found {
        self.by_value.get(&(key, value)).copied().unwrap_or(Found::Nobody)
    }

    /// The outcomes of the transactions. One whose outcome is not known committed if a committed one
    /// read what it wrote; else nothing that was observed depends on it, and it is left out.
    pub fn outcomes(&self, observed: &Observed) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = observed.txns.iter().map(|txn| txn.outcome).collect();
        for txn in observed.txns.iter().filter(|txn| txn.outcome == Outcome::Committed) {
            for (key, value) in txn.ops.iter().flat_map(read_values) {
                if let Found::One(writer) = self.find(key, value)
                    && outcomes[writer.txn] == Outcome::Unknown
                {
                    outcomes[writer.txn] = Outcome::Committed;
                }
            }
        }
        outcomes.iter_mut().filter(|outcome| **outcome == Outcome::Unknown).for_each(|left| *left = Outcome::Aborted);
        outcomes
    }
}

/// The keys and values that an operation read.
fn read_values(op: &Op) -> impl Iterator<Item = (usize, usize)> {
    let (one, many) = match op {
        Op::Read { key, value: Some(value) } => (Some((*key, *value)), None),
        Op::ReadList { key, values } => (None, Some(values.iter().map(|value| (*key, *value as usize)))),
        _ => (None, None),
    };
    one.into_iter().chain(many.into_iter().flatten())
}

/// The transactions as the checker knows them, with their writes; nothing is read or left yet.
///
/// `text` is the value that a write is shown with. An append is blind: what it stands on is another's.
pub(super) fn transactions<'o>(
    observed: &'o Observed,
    outcomes: &[Outcome],
    text: impl Fn(usize) -> &'o Bytes,
) -> Vec<Txn<'o>> {
    let txns = observed.txns.iter().zip(outcomes).map(|(txn, outcome)| {
        let writes = txn.ops.iter().filter_map(|op| match op {
            Op::Append { key, value } => Some((*key, *value, true)),
            Op::Write { key, value } => Some((*key, *value, false)),
            _ => None,
        });
        let writes = (1_u32..).zip(writes).map(|(seq, (key, value, blind))| WriteRec {
            key,
            seq,
            value: Some(text(value)),
            blind,
            undone: false,
        });
        Txn {
            name: &txn.name,
            isolation: Isolation::Serializable,
            outcome: *outcome,
            ts: None,
            begin: txn.begin,
            end: txn.end,
            writes: writes.collect(),
            reads: Vec::new(),
            left: Vec::new(),
            read_anything: txn.ops.iter().any(Op::is_read),
        }
    });
    txns.collect()
}

/// The last writes of each key by the transactions that committed: for each key, its writers and which
/// of their writes it is, in the order of the transactions.
pub(super) fn last_writes(txns: &[Txn<'_>], keys: usize) -> Vec<Vec<Writer>> {
    let mut last: Vec<Vec<Writer>> = vec![Vec::new(); keys];
    for (number, txn) in txns.iter().enumerate().filter(|(_, txn)| txn.outcome == Outcome::Committed) {
        for write in &txn.writes {
            let writer = Writer { txn: number, seq: write.seq };
            match last[write.key].last_mut() {
                Some(known) if known.txn == number => *known = writer,
                _ => last[write.key].push(writer),
            }
        }
    }
    last
}

/// Gives the next key its versions: the initial one, and these.
pub(super) fn add_versions<'o>(
    resolved: &mut Resolved<'o>,
    key: usize,
    initial: Option<&'o Bytes>,
    versions: impl Iterator<Item = (Writer, &'o Bytes)>,
    partial: Option<Partial>,
) {
    resolved.versions.open(initial);
    for (writer, value) in versions {
        let blind = resolved.txns[writer.txn].writes[writer.seq as usize - 1].blind;
        let place = resolved.versions.push(VersionRec { writer: Some(writer.txn), value: Some(value), blind });
        resolved.txns[writer.txn].left.push(Left { key, place, seq: writer.seq });
    }
    resolved.versions.close(false, partial);
}
