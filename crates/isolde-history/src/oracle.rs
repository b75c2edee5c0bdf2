//! The black-box oracle: believes no version, only values and outcomes.
//!
//! For small histories it tries every order of the committed transactions: is there one in which
//! running them one after another gives every value that was read, and the final state? An engine that
//! reports wrong versions, or a checker that misjudges them, is caught by a disagreement.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use isolde_types::{Key, Span};

use crate::model::{Event, History, ReadKind, TxnKey, Version};

/// Histories with more committed transactions than this are not tried.
pub const LIMIT: usize = 8;

/// What the oracle says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// In this order, by the names of the transactions, everything is explained.
    Serial(Vec<String>),
    /// No order explains it.
    NotSerial,
    /// There are more transactions than are tried.
    TooLarge,
}

/// An access of a transaction, as far as values go.
enum Access {
    Read {
        key: Key,
        value: Option<Bytes>,
    },
    Scan {
        span: Span,
        rows: Vec<(Key, Bytes)>,
    },
    Write {
        key: Key,
        seq: u32,
        value: Option<Bytes>,
        blind: bool,
    },
    /// Writes numbered above this, up to here, are undone; what was read meanwhile was read.
    RollbackTo(u32),
}

struct Program {
    name: String,
    accesses: Vec<Access>,
}

/// Whether some serial order of the committed transactions explains every value read and, if given,
/// the final state.
///
/// Untracked reads are left out. Increments and merges are taken for writes of what they came to, so a
/// history with two of them on one key is only explained in the order in which they were resolved.
#[must_use]
pub fn serializable(history: &History, final_state: Option<&BTreeMap<Key, Bytes>>) -> Verdict {
    let programs = programs(history);
    if programs.len() > LIMIT {
        return Verdict::TooLarge;
    }
    let start: BTreeMap<Key, Bytes> = history.initial.iter().cloned().collect();
    let mut order: Vec<usize> = Vec::new();
    if search(&programs, &start, final_state, &mut order) {
        Verdict::Serial(order.into_iter().map(|number| programs[number].name.clone()).collect())
    } else {
        Verdict::NotSerial
    }
}

/// Depth-first over orders; the depth is at most [`LIMIT`].
fn search(
    programs: &[Program],
    state: &BTreeMap<Key, Bytes>,
    final_state: Option<&BTreeMap<Key, Bytes>>,
    order: &mut Vec<usize>,
) -> bool {
    if order.len() == programs.len() {
        return final_state.is_none_or(|expected| expected == state);
    }
    for next in 0..programs.len() {
        if order.contains(&next) {
            continue;
        }
        if let Some(after) = run(&programs[next], state) {
            order.push(next);
            if search(programs, &after, final_state, order) {
                return true;
            }
            order.pop();
        }
    }
    false
}

/// The state after a program, if it reads in this state what it did read.
///
/// A read beside an own increment or merge is a read of what that stands on: of the state before.
fn run(program: &Program, before: &BTreeMap<Key, Bytes>) -> Option<BTreeMap<Key, Bytes>> {
    let mut state = before.clone();
    let mut blind: BTreeSet<&Key> = BTreeSet::new();
    let mut undo: Vec<(u32, &Key, Option<Bytes>, bool)> = Vec::new();
    for access in &program.accesses {
        match access {
            Access::Read { key, value } => {
                let seen = if blind.contains(key) { before } else { &state };
                if seen.get(key) != value.as_ref() {
                    return None;
                }
            }
            Access::Scan { span, rows } => {
                let beside = state.iter().filter(|(key, _)| !blind.contains(key));
                let beneath = before.iter().filter(|(key, _)| blind.contains(key));
                let seen: BTreeMap<&Key, &Bytes> =
                    beside.chain(beneath).filter(|(key, _)| span.contains(key)).collect();
                if !seen.into_iter().eq(rows.iter().map(|(key, value)| (key, value))) {
                    return None;
                }
            }
            Access::Write { key, seq, value, blind: is_blind } => {
                undo.push((*seq, key, state.get(key).cloned(), blind.contains(key)));
                set(&mut state, key, value.clone());
                let _ = if *is_blind { blind.insert(key) } else { blind.remove(key) };
            }
            Access::RollbackTo(last) => {
                while let Some((_, key, value, was_blind)) = undo.pop_if(|(seq, ..)| *seq > *last) {
                    set(&mut state, key, value);
                    let _ = if was_blind { blind.insert(key) } else { blind.remove(key) };
                }
            }
        }
    }
    Some(state)
}

fn set(state: &mut BTreeMap<Key, Bytes>, key: &Key, value: Option<Bytes>) {
    match value {
        Some(value) => drop(state.insert(key.clone(), value)),
        None => drop(state.remove(key)),
    }
}

/// The committed transactions, each with its accesses in order.
fn programs(history: &History) -> Vec<Program> {
    let committed: BTreeMap<TxnKey, &Vec<(Key, Bytes)>> = history
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Commit { txn, resolved, .. } => Some((*txn, resolved)),
            _ => None,
        })
        .collect();
    let mut programs: BTreeMap<TxnKey, Program> = BTreeMap::new();
    for event in &history.events {
        let Some(resolved) = committed.get(&event.txn()) else { continue };
        if let Event::Begin { txn, name, .. } = event {
            programs.insert(*txn, Program { name: name.clone(), accesses: Vec::new() });
        }
        if let Some(program) = programs.get_mut(&event.txn()) {
            program.accesses.extend(access(event, resolved));
        }
    }
    programs.into_values().collect()
}

fn access(event: &Event, resolved: &[(Key, Bytes)]) -> Option<Access> {
    match event {
        // Own reads are the checker's matter: a savepoint may have undone the write since.
        Event::Read { version: Version::Own(_), .. } => None,
        Event::Read { key, value, kind: ReadKind::Tracked, .. } => {
            Some(Access::Read { key: key.clone(), value: value.clone() })
        }
        Event::Scan { span, rows, kind: ReadKind::Tracked, .. } => {
            let present = rows.iter().filter_map(|row| Some((row.key.clone(), row.value.clone()?)));
            Some(Access::Scan { span: span.clone(), rows: present.collect() })
        }
        Event::Write { key, seq, value, blind, .. } => {
            let value = match resolved.iter().find(|(name, _)| name == key) {
                Some((_, value)) if *blind => Some(value.clone()),
                _ => value.clone(),
            };
            Some(Access::Write { key: key.clone(), seq: *seq, value, blind: *blind })
        }
        Event::RollbackTo { seq, .. } => Some(Access::RollbackTo(*seq)),
        _ => None,
    }
}
