//! The versions of each key, in their order.

use crate::hash::HashMap;

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
    /// What is known of the order of keys for which it is not known whole.
    partial: HashMap<usize, Partial>,
}

/// What is known of the order of a key's versions, where it is not known whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Partial {
    /// The versions below this place are in order; nothing is known of the places of the others,
    pub ordered: usize,
    /// but that they come after the one at this place and those before it,
    pub anchor: usize,
    /// and, of some, that one comes somewhere before another with a larger place. Sorted.
    pub pairs: Vec<(usize, usize)>,
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

    /// Whether the order of the versions of a key is known whole.
    pub fn partial(&self, key: usize) -> Option<&Partial> {
        self.partial.get(&key)
    }

    /// The keys whose order is not known whole.
    pub fn partial_keys(&self) -> Vec<usize> {
        let mut keys: Vec<usize> = self.partial.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// The versions of a key that are known to come after one, as near to it as is known.
    pub fn following(&self, key: usize, place: usize) -> impl Iterator<Item = usize> {
        let size = self.of(key).len();
        let partial = self.partial.get(&key);
        let ordered = partial.map_or(size, |partial| partial.ordered);
        let next = (place + 1 < ordered).then_some(place + 1);
        let loose = partial.filter(|partial| partial.anchor == place).map_or(size..size, |_| ordered..size);
        let pairs = partial.map_or(&[][..], |partial| {
            let first = partial.pairs.partition_point(|pair| pair.0 < place);
            let count = partial.pairs[first..].partition_point(|pair| pair.0 == place);
            &partial.pairs[first..first + count]
        });
        next.into_iter().chain(loose).chain(pairs.iter().map(|pair| pair.1))
    }

    /// Whether a version of a key is known to be newer than another.
    pub fn is_newer(&self, key: usize, newer: usize, older: usize) -> bool {
        match self.partial.get(&key) {
            Some(partial) if newer >= partial.ordered => {
                older <= partial.anchor || partial.pairs.binary_search(&(older, newer)).is_ok()
            }
            Some(partial) if older >= partial.ordered => false,
            _ => newer > older,
        }
    }

    /// Begins the versions of the next key.
    pub fn open(&mut self, initial: Option<&'h Bytes>) {
        self.starts.push(self.list.len());
        self.list.push(VersionRec { writer: None, value: initial, blind: false });
    }

    /// Adds a version of the key that was begun last; its place.
    pub fn push(&mut self, version: VersionRec<'h>) -> usize {
        self.list.push(version);
        self.list.len() - 1 - self.starts.last().copied().unwrap_or(0)
    }

    /// Ends the versions of the key that was begun last.
    pub fn close(&mut self, rising: bool, partial: Option<Partial>) {
        let key = self.rising.len();
        self.rising.push(rising);
        self.partial.extend(partial.map(|partial| (key, partial)));
    }

    /// Ends the list: every key has its versions.
    pub fn finish(&mut self) {
        self.starts.push(self.list.len());
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
        let listed: Listed<'h> =
            history.order.iter().filter_map(|(key, order)| Some((names.find(key)?, order))).collect();
        let mut placed = self.last_writes(&listed, owners);
        placed.sort_unstable_by_key(|placed| (placed.key, placed.rank, placed.txn));
        let initial: HashMap<usize, &Bytes> =
            history.initial.iter().filter_map(|(key, value)| Some((names.find(key)?, value))).collect();
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
            for placed in here {
                self.place(placed, &resolved);
            }
            let times = here.iter().map(|placed| self.txns[placed.txn].ts);
            self.versions.close(times.clone().all(|ts| ts.is_some()) && times.is_sorted(), None);
        }
        self.versions.finish();
    }

    fn place(&mut self, placed: &Placed, resolved: &HashMap<(usize, usize), &'h Bytes>) {
        let txn = &mut self.txns[placed.txn];
        let write = &txn.writes[placed.write];
        let value = resolved.get(&(placed.txn, placed.key)).copied().or(write.value);
        let version = VersionRec { writer: Some(placed.txn), value, blind: write.blind };
        let place = self.versions.push(version);
        txn.left.push(Left { key: placed.key, place, seq: write.seq });
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
    let mut ranks = HashMap::default();
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
    let mut values = HashMap::default();
    for (event, owner) in history.events.iter().zip(&owners.of_event) {
        if let (Event::Commit { resolved, .. }, Some(owner)) = (event, owner) {
            let known = resolved.iter().filter_map(|(key, value)| Some((names.find(key)?, value)));
            values.extend(known.map(|(key, value)| ((*owner, key), value)));
        }
    }
    values
}
