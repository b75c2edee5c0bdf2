//! Which version each read saw.

use std::collections::HashSet;

use crate::hash::HashMap;

use bytes::Bytes;
use isolde_types::{Isolation, Span, Ts};

use super::transactions::{Names, Owners};
use super::{Outcome, ReadRec, Resolved, Seen, shown};
use crate::model::{Event, History, ReadKind, Row, TxnKey, Version};

/// The writes of each transaction so far, by key.
type OwnWrites<'h> = HashMap<(usize, usize), Vec<OwnWrite<'h>>>;

/// A write that its transaction has made so far: its number, whether it is blind, and its value.
type OwnWrite<'h> = (u32, bool, Option<&'h Bytes>);

/// A read as it was recorded.
struct Access<'h> {
    at: usize,
    reader: usize,
    key: usize,
    version: Version,
    value: Option<&'h Bytes>,
    as_of: Option<Ts>,
}

/// A scan as it was recorded.
struct Scan<'h> {
    at: usize,
    reader: usize,
    span: &'h Span,
    rows: &'h [Row],
    kind: ReadKind,
    as_of: Option<Ts>,
}

impl<'h> Resolved<'h> {
    pub(super) fn resolve_reads(&mut self, history: &'h History, names: &Names<'_>, owners: &Owners) {
        let mut own = OwnWrites::default();
        for (at, (event, owner)) in history.events.iter().zip(&owners.of_event).enumerate() {
            let Some(reader) = *owner else { continue };
            match event {
                Event::Write { seq, value, blind, .. } => {
                    own.entry((reader, names.named(at, 0))).or_default().push((*seq, *blind, value.as_ref()));
                }
                Event::RollbackTo { seq, .. } => self.undo(reader, *seq, &mut own),
                Event::Read { version, value, kind, as_of, .. } => {
                    let (key, value) = (names.named(at, 0), value.as_ref());
                    let access = Access { at, reader, key, version: *version, value, as_of: *as_of };
                    self.resolve_read(&access, *kind == ReadKind::Tracked, true, history, owners, &own);
                }
                Event::Scan { span, rows, kind, as_of, .. } => {
                    let scan = Scan { at, reader, span, rows, kind: *kind, as_of: *as_of };
                    self.resolve_scan(&scan, history, names, owners, &own);
                }
                _ => {}
            }
        }
    }

    fn undo(&self, number: usize, seq: u32, own: &mut OwnWrites<'_>) {
        for write in self.txns[number].writes.iter().filter(|write| write.seq > seq) {
            if let Some(writes) = own.get_mut(&(number, write.key)) {
                writes.retain(|(n, ..)| *n <= seq);
            }
        }
    }

    fn resolve_read(
        &mut self,
        access: &Access<'h>,
        tracked: bool,
        item: bool,
        history: &History,
        owners: &Owners,
        own: &OwnWrites<'_>,
    ) {
        let wrote = !self.txns[access.reader].writes.is_empty();
        let own = if wrote { own.get(&(access.reader, access.key)) } else { None };
        let last = own.and_then(|writes| writes.last());
        self.check_internal(access, last);
        let seen = self.resolve(access, history, owners);
        self.check_value(access, seen);
        let read = ReadRec { key: access.key, seen, value: access.value, tracked, item };
        self.txns[access.reader].reads.push(read);
    }

    fn resolve_scan(
        &mut self,
        scan: &Scan<'h>,
        history: &History,
        names: &Names<'_>,
        owners: &Owners,
        own: &OwnWrites<'_>,
    ) {
        let Scan { at, reader, as_of, .. } = *scan;
        let tracked = scan.kind == ReadKind::Tracked;
        for (number, row) in scan.rows.iter().enumerate() {
            let (key, value) = (names.named(at, number), row.value.as_ref());
            let access = Access { at, reader, key, version: row.version, value, as_of };
            self.resolve_read(&access, tracked, value.is_some(), history, owners, own);
        }
        let missing = self.missing(scan, names, own);
        if tracked {
            self.txns[reader].reads.extend(missing);
        }
    }

    /// Keys in a scanned span that the scan did not mention: it found them absent.
    fn missing(&mut self, scan: &Scan<'_>, names: &Names<'_>, own: &OwnWrites<'_>) -> Vec<ReadRec<'h>> {
        if scan.span.is_empty() {
            return Vec::new();
        }
        let mentioned: HashSet<usize> = (0..scan.rows.len()).map(|row| names.named(scan.at, row)).collect();
        let first = self.keys.partition_point(|key| **key < scan.span.start);
        let end = scan.span.end.as_ref();
        let end = end.map_or(self.keys.len(), |end| self.keys.partition_point(|key| *key < end));
        let isolation = self.txns[scan.reader].isolation;
        let exact = !matches!(isolation, Isolation::RepeatableRead | Isolation::ReadUncommitted);
        let mut found = Vec::new();
        for key in first..end {
            let hidden = own.get(&(scan.reader, key)).is_some_and(|writes| !writes.is_empty());
            let versions = self.versions.of(key);
            let never_there = versions.len() == 1 && versions[0].value.is_none();
            if mentioned.contains(&key) || hidden || never_there {
                continue;
            }
            let newest = self.newest_at(key, scan.as_of);
            let absent = (0..=newest).rev().find(|place| versions[*place].value.is_none());
            if exact && absent != Some(newest) {
                let (at, name, key) = (scan.at, self.txns[scan.reader].name, self.keys[key]);
                self.complaints.push(format!("event {at}: the scan of {name} missed {key:?}, which was there"));
            }
            if let Some(place) = absent {
                let seen = Seen::Version(place);
                found.push(ReadRec { key, seen, value: None, tracked: true, item: false });
            }
        }
        found
    }

    fn resolve(&mut self, access: &Access<'_>, history: &History, owners: &Owners) -> Seen {
        match access.version {
            Version::Own(_) => Seen::Own,
            Version::None => self.resolve_absent(access),
            Version::Committed(ts) if ts <= history.start => Seen::Version(0),
            Version::Committed(ts) => self.committed_at(access.key, ts).map_or_else(
                || {
                    let (at, key) = (access.at, self.keys[access.key]);
                    self.complaints.push(format!("event {at}: nobody committed {key:?} at {ts}"));
                    Seen::Version(0)
                },
                Seen::Version,
            ),
            Version::InFlight { txn, seq } => self.resolve_in_flight(access, owners, txn, seq),
        }
    }

    fn resolve_absent(&mut self, access: &Access<'_>) -> Seen {
        let versions = self.versions.of(access.key);
        // Without a state, some version that was absent: the initial one, or the last tombstone.
        let newest = match access.as_of {
            Some(_) => self.newest_at(access.key, access.as_of),
            None if versions[0].value.is_none() => 0,
            None => versions.iter().rposition(|version| version.value.is_none()).unwrap_or(0),
        };
        if versions[newest].value.is_some() {
            let (at, key) = (access.at, self.keys[access.key]);
            self.complaints.push(format!("event {at}: {key:?} was read as absent, and was there"));
            return Seen::Version(0);
        }
        Seen::Version(newest)
    }

    fn resolve_in_flight(&mut self, access: &Access<'_>, owners: &Owners, txn: TxnKey, seq: u32) -> Seen {
        let writer = owners.number(txn);
        let found = writer.and_then(|writer| Some((writer, self.write_of(writer, access.key, seq)?)));
        let Some((writer, undone)) = found else {
            let (at, key) = (access.at, self.keys[access.key]);
            self.complaints.push(format!("event {at}: nobody wrote what was read of {key:?}"));
            return Seen::Version(0);
        };
        match self.txns[writer].outcome {
            Outcome::Committed if undone => Seen::Aborted(writer),
            Outcome::Committed => match self.left_by(access.key, writer) {
                Some(left) if left.seq == seq => Seen::Version(left.place),
                _ => Seen::Intermediate(writer),
            },
            Outcome::Aborted | Outcome::Unknown => Seen::Aborted(writer),
        }
    }

    /// Whether a write of a transaction was undone, if it made it at all.
    fn write_of(&self, writer: usize, key: usize, seq: u32) -> Option<bool> {
        let writes = &self.txns[writer].writes;
        // Writes are numbered from 1, so this is where it stands, unless the records are odd.
        let there = usize::try_from(seq).ok().and_then(|seq| writes.get(seq.checked_sub(1)?));
        let is_it = |write: &&super::WriteRec<'_>| write.seq == seq && write.key == key;
        there.filter(is_it).or_else(|| writes.iter().find(is_it)).map(|write| write.undone)
    }

    fn check_internal(&mut self, access: &Access<'_>, last: Option<&OwnWrite<'_>>) {
        let key = self.keys[access.key];
        let Some((seq, blind, written)) = last else {
            if let Version::Own(seq) = access.version {
                let words = format!("it read its write {seq} of {key:?}, which does not stand");
                self.internal.push((access.reader, access.key, words));
            }
            return;
        };
        let good = match access.version {
            Version::Own(read) => read == *seq && (*blind || access.value == *written),
            // An increment is not a value: what it stands on is read.
            _ => *blind,
        };
        if !good {
            let (read, written) = (shown(access.value), shown(*written));
            let words = format!("it read {read} of {key:?}, and had written {written} itself");
            self.internal.push((access.reader, access.key, words));
        }
    }

    fn check_value(&mut self, access: &Access<'_>, seen: Seen) {
        let Seen::Version(place) = seen else { return };
        let version = &self.versions.of(access.key)[place];
        if version.value != access.value {
            let (at, key) = (access.at, self.keys[access.key]);
            let (read, holds) = (shown(access.value), shown(version.value));
            let words = format!("event {at}: {key:?} was read as {read}, and the version that was named holds {holds}");
            self.complaints.push(words);
        }
    }
}
