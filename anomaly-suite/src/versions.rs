//! The versions that committed transactions left behind, per key and in version order.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use isolde_history::model::{Event, History, TxnKey};
use isolde_types::Key;

/// A version: who wrote it, and its value (`None` for a tombstone).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenVersion {
    /// The writer's name; `init` for the state before the first step.
    pub writer: String,
    /// The value.
    pub value: Option<Bytes>,
}

/// The name of the writer of the initial state.
pub const INIT: &str = "init";

/// Writes of one transaction: number, key, value; those undone by a savepoint are gone.
type Writes = Vec<(u32, Key, Option<Bytes>)>;

/// The versions of each key that committed transactions wrote, in version order.
#[must_use]
pub fn versions(history: &History) -> BTreeMap<Key, Vec<WrittenVersion>> {
    let initial = |(key, value): &(Key, Bytes)| {
        (key.clone(), vec![WrittenVersion { writer: INIT.to_owned(), value: Some(value.clone()) }])
    };
    let mut versions: BTreeMap<Key, Vec<WrittenVersion>> = history.initial.iter().map(initial).collect();
    for (key, writer, value) in in_version_order(history) {
        versions.entry(key).or_default().push(WrittenVersion { writer, value });
    }
    versions
}

/// What each committed transaction wrote in the end, by its name.
#[must_use]
pub fn written_by(history: &History) -> BTreeMap<String, Vec<(Key, Option<Bytes>)>> {
    let mut written: BTreeMap<String, Vec<(Key, Option<Bytes>)>> = BTreeMap::new();
    for (key, writer, value) in in_version_order(history) {
        written.entry(writer).or_default().push((key, value));
    }
    written
}

fn in_version_order(history: &History) -> Vec<(Key, String, Option<Bytes>)> {
    let mut names: HashMap<TxnKey, &str> = HashMap::new();
    let mut writes: HashMap<TxnKey, Writes> = HashMap::new();
    let mut installed = Vec::new();
    for event in &history.events {
        match event {
            Event::Begin { txn, name, .. } => drop(names.insert(*txn, name)),
            Event::Write { txn, key, seq, value, .. } => {
                writes.entry(*txn).or_default().push((*seq, key.clone(), value.clone()));
            }
            Event::RollbackTo { txn, seq } => writes.entry(*txn).or_default().retain(|(n, ..)| n <= seq),
            Event::Commit { txn, ts, resolved } => {
                let last: BTreeMap<Key, (u32, Option<Bytes>)> =
                    writes.remove(txn).into_iter().flatten().map(|(n, key, value)| (key, (n, value))).collect();
                for (key, (seq, value)) in last {
                    let value = resolved.iter().find(|(k, _)| *k == key).map_or(value, |(_, v)| Some(v.clone()));
                    let place = place(history, &key, (*txn, seq));
                    let name = names.get(txn).copied().unwrap_or_default().to_owned();
                    installed.push(((place, *ts), (key, name, value)));
                }
            }
            _ => {}
        }
    }
    installed.sort_by_key(|(place, _)| *place);
    installed.into_iter().map(|(_, version)| version).collect()
}

/// The place of a write in the version order of its key, where the history lists one.
fn place(history: &History, key: &Key, write: (TxnKey, u32)) -> Option<usize> {
    let (_, order) = history.order.iter().find(|(listed, _)| listed == key)?;
    order.iter().position(|listed| *listed == write)
}
