//! The versions of each key, in their order.

use std::collections::HashMap;

use bytes::Bytes;
use isolde_types::Ts;

use super::transactions::{Names, Owners};
use super::{Left, Resolved};
use crate::model::{Event, History, TxnKey};

/// A version of a key.
#[derive(Clone, Debug)]
pub(crate) struct VersionRec<'h> {
    /// The transaction that wrote it; `None` for the state before the first event.
    pub writer: Option<usize>,
    pub value: Option<&'h Bytes>,
    pub blind: bool,
}

/// The versions of all keys, oldest first; the first of each key is the initial state.
#[derive(Debug, Default)]
pub(crate) struct Versions<'h> {
    list: Vec<VersionRec<'h>>,
    /// Where the versions of each key begin, and the end.
    starts: Vec<usize>,
    /// Whether the commit times of a key's versions rise, so that they can be searched by halves.
    rising: Vec<bool>,
}

impl<'h> Versions<'h> {
    /// The versions of a key.
    pub fn of(&self, key: usize) -> &[VersionRec<'h>] {
        &self.list[self.starts[key]..self.starts[key + 1]]
    }

    /// The versions of each key, by its number.
    pub fn each(&self) -> impl Iterator<Item = (usize, &[VersionRec<'h>])> {
        (0..self.rising.len()).map(|key| (key, self.of(key)))
    }

    fn open(&mut self, initial: Option<&'h Bytes>) {
        self.starts.push(self.list.len());
        self.list.push(VersionRec { writer: None, value: initial, blind: false });
    }
}

/// A version that is to take its place: the last write of a key by a committed transaction.
struct Placed {
    key: usize,
    /// Its commit time, or its place where an order is listed.
    rank: u64,
    txn: usize,
    write: usize,
}

/// The places of the writes of one key, where its order is listed.
type Listed<'h> = HashMap<usize, &'h Vec<(TxnKey, u32)>>;

impl<'h> Resolved<'h> {
    pub(super) fn order_versions(&mut self, history: &'h History, names: &Names<'_>, owners: &Owners) {
        let listed: Listed<'h> = history.order.iter().map(|(key, order)| (names.of(key), order)).collect();
        let mut placed = self.last_writes(&listed, owners);
        placed.sort_unstable_by_key(|placed| (placed.key, placed.rank, placed.txn));
        let initial: HashMap<usize, &Bytes> =
            history.initial.iter().map(|(key, value)| (names.of(key), value)).collect();
        let resolved = resolved_values(history, names, owners);
        let mut rest = &placed[..];
        for key in 0..self.keys.len() {
            let count = rest.partition_point(|placed| placed.key == key);
            let (here, later) = rest.split_at(count);
            rest = later;
            if !listed.contains_key(&key) {
                self.complain_of_equal_times(key, here);
            }
            self.versions.open(initial.get(&key).copied());
            for (place, placed) in here.iter().enumerate() {
                self.place(placed, place + 1, &resolved);
            }
            let times = here.iter().map(|placed| self.txns[placed.txn].ts);
            self.versions.rising.push(times.clone().all(|ts| ts.is_some()) && times.is_sorted());
        }
        self.versions.starts.push(self.versions.list.len());
    }

    fn place(&mut self, placed: &Placed, place: usize, resolved: &HashMap<(usize, usize), &'h Bytes>) {
        let txn = &mut self.txns[placed.txn];
        let write = &txn.writes[placed.write];
        let value = resolved.get(&(placed.txn, placed.key)).copied().or(write.value);
        let version = VersionRec { writer: Some(placed.txn), value, blind: write.blind };
        txn.left.push(Left { key: placed.key, place, seq: write.seq });
        self.versions.list.push(version);
    }

    /// The last write of each key by each committed transaction, savepoints considered.
    fn last_writes(&self, listed: &Listed<'_>, owners: &Owners) -> Vec<Placed> {
        let ranks = ranks(listed, owners);
        let mut placed = Vec::new();
        let mut last: Vec<(usize, usize)> = Vec::new();
        for (number, txn) in self.committed() {
            last.clear();
            let standing = txn.writes.iter().enumerate().filter(|(_, write)| !write.undone);
            last.extend(standing.map(|(at, write)| (write.key, at)));
            last.sort_unstable();
            for (at, &(key, write)) in last.iter().enumerate() {
                if last.get(at + 1).is_some_and(|next| next.0 == key) {
                    continue;
                }
                let rank = if listed.contains_key(&key) {
                    ranks.get(&(key, number, txn.writes[write].seq)).copied().unwrap_or(u64::MAX)
                } else {
                    txn.ts.unwrap_or(Ts::MAX).0
                };
                placed.push(Placed { key, rank, txn: number, write });
            }
        }
        placed
    }

    fn complain_of_equal_times(&mut self, key: usize, placed: &[Placed]) {
        for pair in placed.windows(2) {
            let (a, b) = (&self.txns[pair[0].txn], &self.txns[pair[1].txn]);
            if a.ts == b.ts {
                let key = self.keys[key];
                self.complaints.push(format!("{} and {} committed versions of {key:?} at one time", a.name, b.name));
            }
        }
    }

    /// The newest version at or below a time; without a time, the initial one.
    pub(super) fn newest_at(&self, key: usize, as_of: Option<Ts>) -> usize {
        let Some(as_of) = as_of else { return 0 };
        let versions = self.versions.of(key);
        let visible = |version: &VersionRec<'_>| self.time(version).is_none_or(|ts| ts <= as_of);
        if self.versions.rising[key] {
            versions.partition_point(visible).saturating_sub(1)
        } else {
            versions.iter().rposition(visible).unwrap_or(0)
        }
    }

    /// The first version that was committed at a time.
    pub(super) fn committed_at(&self, key: usize, ts: Ts) -> Option<usize> {
        let versions = self.versions.of(key);
        if self.versions.rising[key] {
            let place = versions.partition_point(|version| self.time(version).is_none_or(|time| time < ts));
            (versions.get(place).and_then(|version| self.time(version)) == Some(ts)).then_some(place)
        } else {
            versions.iter().position(|version| self.time(version) == Some(ts))
        }
    }
}

/// The places of listed writes, by key, transaction and number there; of a write listed twice, the last.
fn ranks(listed: &Listed<'_>, owners: &Owners) -> HashMap<(usize, usize, u32), u64> {
    let mut ranks = HashMap::new();
    for (key, order) in listed {
        for (place, (txn, seq)) in (0_u64..).zip(order.iter()) {
            if let Some(number) = owners.number(*txn) {
                ranks.insert((*key, number, *seq), place);
            }
        }
    }
    ranks
}

/// What increments and merges came to, by transaction and key.
fn resolved_values<'h>(history: &'h History, names: &Names<'_>, owners: &Owners) -> HashMap<(usize, usize), &'h Bytes> {
    let mut values = HashMap::new();
    for (event, owner) in history.events.iter().zip(&owners.of_event) {
        if let (Event::Commit { resolved, .. }, Some(owner)) = (event, owner) {
            let known = resolved.iter().filter_map(|(key, value)| Some((names.find(key)?, value)));
            values.extend(known.map(|(key, value)| ((*owner, key), value)));
        }
    }
    values
}
