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

/// One serial order, and the first thing in it that did not happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refutation {
    /// The order, by the names of the transactions.
    pub order: Vec<String>,
    /// What would have been, and what was, in words.
    pub words: String,
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

/// Why each serial order of the committed transactions fails to explain the values read and, if
/// given, the final state; `None` where some order does not fail, or where there are more than
/// `limit` transactions (their orders are too many to be told).
#[must_use]
pub fn refutations(
    history: &History,
    final_state: Option<&BTreeMap<Key, Bytes>>,
    limit: usize,
) -> Option<Vec<Refutation>> {
    let programs = programs(history);
    let start: BTreeMap<Key, Bytes> = history.initial.iter().cloned().collect();
    if programs.is_empty() || programs.len() > limit.min(LIMIT) {
        return None;
    }
    let refute = |order: Vec<usize>| {
        let words = refute(&programs, &order, start.clone(), final_state)?;
        Some(Refutation { order: order.iter().map(|number| programs[*number].name.clone()).collect(), words })
    };
    orders(programs.len()).into_iter().map(refute).collect()
}

/// All orders of so many transactions, the order of their begins first.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..count {
        let longer = |order: Vec<usize>| {
            let rest = (0..count).filter(|next| !order.contains(next)).collect::<Vec<_>>();
            rest.into_iter().map(move |next| [&order[..], &[next]].concat())
        };
        orders = orders.into_iter().flat_map(longer).collect();
    }
    orders
}

/// The first thing of an order that did not happen.
fn refute(
    programs: &[Program],
    order: &[usize],
    mut state: BTreeMap<Key, Bytes>,
    final_state: Option<&BTreeMap<Key, Bytes>>,
) -> Option<String> {
    for number in order {
        match run(&programs[*number], &state) {
            Ok(after) => state = after,
            Err(words) => return Some(format!("{} {words}", programs[*number].name)),
        }
    }
    let end = final_state?;
    let key = state.keys().chain(end.keys()).find(|key| state.get(*key) != end.get(*key))?;
    let (name, would, is) = (key.escape_ascii(), value(state.get(key)), value(end.get(key)));
    Some(format!("in the end {name} would be {would}, and it is {is}"))
}

/// A value in words.
fn value(value: Option<&Bytes>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| value.escape_ascii().to_string())
}

/// Rows in words.
fn rows<'r>(rows: impl Iterator<Item = (&'r Key, &'r Bytes)>) -> String {
    let row = |(key, value): (&Key, &Bytes)| format!("{}={}", key.escape_ascii(), value.escape_ascii());
    let rows: Vec<String> = rows.map(row).collect();
    if rows.is_empty() { "nothing".to_owned() } else { rows.join(" ") }
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
        if let Ok(after) = run(&programs[next], state) {
            order.push(next);
            if search(programs, &after, final_state, order) {
                return true;
            }
            order.pop();
        }
    }
    false
}

/// The state after a program, if it reads in this state what it did read; else what it would have read.
///
/// A read beside an own increment or merge is a read of what that stands on: of the state before.
fn run(program: &Program, before: &BTreeMap<Key, Bytes>) -> Result<BTreeMap<Key, Bytes>, String> {
    let mut state = before.clone();
    let mut blind: BTreeSet<&Key> = BTreeSet::new();
    let mut undo: Vec<(u32, &Key, Option<Bytes>, bool)> = Vec::new();
    for access in &program.accesses {
        match access {
            Access::Read { key, value: read } => {
                let seen = if blind.contains(key) { before } else { &state };
                if seen.get(key) != read.as_ref() {
                    let (name, would, did) = (key.escape_ascii(), value(seen.get(key)), value(read.as_ref()));
                    return Err(format!("would have read {name} as {would}, and it read {did}"));
                }
            }
            Access::Scan { span, rows: found } => {
                let beside = state.iter().filter(|(key, _)| !blind.contains(key));
                let beneath = before.iter().filter(|(key, _)| blind.contains(key));
                let seen: BTreeMap<&Key, &Bytes> =
                    beside.chain(beneath).filter(|(key, _)| span.contains(key)).collect();
                let found = || found.iter().map(|(key, value)| (key, value));
                if !seen.iter().map(|(key, value)| (*key, *value)).eq(found()) {
                    let (would, did) = (rows(seen.into_iter()), rows(found()));
                    return Err(format!("would have found {would}, and it found {did}"));
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
    Ok(state)
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

#[cfg(test)]
mod tests {
    use isolde_types::{Isolation, Mode};

    use super::*;

    /// T1 and T2 each read x=1, and each write x and commit; T2 last.
    fn lost_update(written: [&'static str; 2]) -> History {
        let key = || Key::from_static(b"x");
        let one = |number: u64, to: &'static str| {
            let txn = TxnKey(number);
            let value = || Some(Bytes::from_static(b"1"));
            let (isolation, mode) = (Isolation::ReadCommitted, Mode::Optimistic);
            let name = format!("T{number}");
            let version = Version::Committed(isolde_types::Ts(0));
            [
                Event::Begin { txn, name, isolation, mode, read_only: false },
                Event::Read { txn, key: key(), version, value: value(), kind: ReadKind::Tracked, as_of: None },
                Event::Write { txn, key: key(), seq: 1, value: Some(Bytes::from_static(to.as_bytes())), blind: false },
                Event::Commit { txn, ts: None, resolved: Vec::new() },
            ]
        };
        let events = [one(1, written[0]), one(2, written[1])].concat();
        History { initial: vec![(key(), Bytes::from_static(b"1"))], events, ..History::default() }
    }

    #[test]
    fn every_order_is_refuted_by_its_first_wrong_value() {
        let refuted = refutations(&lost_update(["2", "3"]), None, 3).unwrap();
        let told: Vec<String> = refuted.iter().map(|one| format!("{}: {}", one.order.join(" "), one.words)).collect();
        let expected =
            ["T1 T2: T2 would have read x as 2, and it read 1", "T2 T1: T1 would have read x as 3, and it read 1"];
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_is_refuted_where_some_order_explains_it_or_orders_are_too_many() {
        // T1 leaves x as it was: T1 first explains what T2 read.
        assert_eq!(refutations(&lost_update(["1", "3"]), None, 3), None);
        assert_eq!(refutations(&lost_update(["2", "3"]), None, 1), None);
    }

    #[test]
    fn a_final_state_refutes_too() {
        let end = BTreeMap::from([(Key::from_static(b"x"), Bytes::from_static(b"9"))]);
        let refuted = refutations(&lost_update(["1", "3"]), Some(&end), 3).unwrap();
        assert_eq!(refuted[0].words, "in the end x would be 3, and it is 9");
    }
}
