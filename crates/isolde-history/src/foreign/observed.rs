//! What was observed of another database: transactions, and the values that they read and wrote.

use std::collections::HashMap;

use isolde_types::Key;

use crate::resolve::Outcome;

/// A history of another database, read by [`read`](super::read).
#[derive(Debug)]
pub struct Observed {
    pub(super) kind: Kind,
    pub(super) txns: Vec<ObservedTxn>,
    pub(super) keys: Vec<Key>,
    pub(super) values: Vec<String>,
    /// Which value is the initial one.
    pub(super) initial: Initial,
}

/// What the keys hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Lists, appended to.
    Lists,
    /// Single values, written.
    Registers,
}

/// What a register held at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Initial {
    /// The one value that was read and that nobody wrote: the format says so.
    Unwritten,
    /// Nothing; or, if nobody read the key as absent, that value, which is an assumption.
    AbsentOrUnwritten,
}

/// A transaction as it was observed.
#[derive(Debug)]
pub(super) struct ObservedTxn {
    pub name: String,
    /// The line where it ended, or where it began if its end is not known.
    pub line: usize,
    pub outcome: Outcome,
    /// When it began and ended, in the order of the text; no end where real time is not known.
    pub begin: usize,
    pub end: Option<usize>,
    /// The transaction that the same session ran before it, where real time is not known.
    pub after: Option<usize>,
    pub ops: Vec<Op>,
}

/// An operation; keys and values by their numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Append { key: usize, value: usize },
    ReadList { key: usize, values: Vec<u32> },
    Write { key: usize, value: usize },
    Read { key: usize, value: Option<usize> },
}

impl Op {
    pub fn key_read_as_absent(&self) -> Option<usize> {
        match self {
            Op::Read { key, value: None } => Some(*key),
            _ => None,
        }
    }

    pub fn is_read(&self) -> bool {
        matches!(self, Op::ReadList { .. } | Op::Read { .. })
    }
}

impl Observed {
    /// How many transactions there are, whatever became of them.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.txns.len()
    }

    /// The line of the text where a transaction ended (or began, if its end is not known).
    #[must_use]
    pub fn line_of(&self, name: &str) -> Option<usize> {
        self.txns.iter().find(|txn| txn.name == name).map(|txn| txn.line)
    }
}

/// Gives texts their numbers.
#[derive(Default)]
pub(super) struct Numbers {
    numbers: HashMap<String, usize>,
    pub texts: Vec<String>,
}

impl Numbers {
    pub fn of(&mut self, text: String) -> usize {
        let next = self.texts.len();
        *self.numbers.entry(text).or_insert_with_key(|text| {
            self.texts.push(text.clone());
            next
        })
    }
}

/// Keys sorted, and the operations with them: a key's number is its place among the sorted keys.
pub(super) fn sort_keys(names: Vec<String>, txns: &mut [ObservedTxn]) -> Vec<Key> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_unstable_by(|a, b| names[*a].cmp(&names[*b]));
    let mut number = vec![0; names.len()];
    order.iter().enumerate().for_each(|(place, old)| number[*old] = place);
    for op in txns.iter_mut().flat_map(|txn| &mut txn.ops) {
        let (Op::Append { key, .. } | Op::ReadList { key, .. } | Op::Write { key, .. } | Op::Read { key, .. }) = op;
        *key = number[*key];
    }
    order.into_iter().map(|old| Key::from(names[old].clone())).collect()
}
