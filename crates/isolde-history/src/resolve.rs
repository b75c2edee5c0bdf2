//! From events to versions: who wrote which version of each key, in which order, and which version
//! each read saw.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use isolde_types::{Isolation, Key, Span, Ts};

use crate::model::{Event, History, ReadKind, TxnKey, Version};

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Committed,
    Aborted,
    Unknown,
}

/// A write within a transaction.
#[derive(Clone, Debug)]
pub(crate) struct WriteRec {
    pub key: Key,
    pub seq: u32,
    pub value: Option<Bytes>,
    pub blind: bool,
    pub undone: bool,
}

/// A read of one key, with the version that it was found to be.
#[derive(Clone, Debug)]
pub(crate) struct ReadRec {
    pub key: Key,
    pub seen: Seen,
    pub value: Option<Bytes>,
    pub tracked: bool,
    /// Whether the key was read by name, or returned as a row; else a scan found it absent.
    pub item: bool,
}

/// What a read saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// The version at this place in the key's order.
    Version(usize),
    /// A write that never became a version: of this transaction, undone or of an aborted one.
    Aborted(usize),
    /// A write that its transaction overwrote itself.
    Intermediate(usize),
    /// Its own write.
    Own,
}

/// A transaction.
#[derive(Clone, Debug)]
pub(crate) struct Txn {
    pub name: String,
    pub isolation: Isolation,
    pub outcome: Outcome,
    pub ts: Option<Ts>,
    pub begin: usize,
    pub end: Option<usize>,
    pub writes: Vec<WriteRec>,
    pub reads: Vec<ReadRec>,
    /// Whether it read anything before it ended, own writes apart.
    pub read_anything: bool,
}

/// A version of a key.
#[derive(Clone, Debug)]
pub(crate) struct VersionRec {
    /// The transaction that wrote it; `None` for the state before the first event.
    pub writer: Option<usize>,
    pub value: Option<Bytes>,
    pub ts: Option<Ts>,
    pub blind: bool,
}

/// Everything that the checker asks about.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub txns: Vec<Txn>,
    /// The versions of each key, oldest first; the first is the initial state.
    pub versions: BTreeMap<Key, Vec<VersionRec>>,
    /// Own reads that did not give the own write, in words, with the reader.
    pub internal: Vec<(usize, Key, String)>,
    /// Contradictions in the records.
    pub complaints: Vec<String>,
}

impl Resolved {
    pub fn of(history: &History) -> Resolved {
        let mut resolved = Resolved::default();
        let numbers = resolved.collect_transactions(history);
        resolved.settle_unknown(history, &numbers);
        resolved.order_versions(history, &numbers);
        resolved.resolve_reads(history, &numbers);
        resolved
    }

    /// The name of a transaction, or of the initial state.
    pub fn name(&self, writer: Option<usize>) -> &str {
        writer.map_or("the initial state", |txn| &self.txns[txn].name)
    }

    pub fn committed(&self) -> impl Iterator<Item = (usize, &Txn)> {
        self.txns.iter().enumerate().filter(|(_, txn)| txn.outcome == Outcome::Committed)
    }

    // --- transactions -------------------------------------------------------------------------

    fn collect_transactions(&mut self, history: &History) -> HashMap<TxnKey, usize> {
        let mut numbers = HashMap::new();
        for (at, event) in history.events.iter().enumerate() {
            if let Event::Begin { txn, name, isolation, .. } = event {
                if numbers.insert(*txn, self.txns.len()).is_some() {
                    self.complaints.push(format!("event {at}: transaction {name} began twice"));
                }
                self.txns.push(Txn {
                    name: name.clone(),
                    isolation: *isolation,
                    outcome: Outcome::Unknown,
                    ts: None,
                    begin: at,
                    end: None,
                    writes: Vec::new(),
                    reads: Vec::new(),
                    read_anything: false,
                });
                continue;
            }
            match numbers.get(&event.txn()) {
                Some(number) => self.note(*number, at, event),
                None => self.complaints.push(format!("event {at}: its transaction never began")),
            }
        }
        numbers
    }

    fn note(&mut self, number: usize, at: usize, event: &Event) {
        let txn = &mut self.txns[number];
        if txn.end.is_some() {
            self.complaints.push(format!("event {at}: {} did something after its end", txn.name));
        }
        let mut end = |outcome| {
            txn.outcome = outcome;
            txn.end = Some(at);
        };
        match event {
            Event::Commit { ts, .. } => {
                end(Outcome::Committed);
                txn.ts = *ts;
            }
            Event::Abort { .. } => end(Outcome::Aborted),
            Event::Unknown { .. } => end(Outcome::Unknown),
            Event::Write { key, seq, value, blind, .. } => txn.writes.push(WriteRec {
                key: key.clone(),
                seq: *seq,
                value: value.clone(),
                blind: *blind,
                undone: false,
            }),
            Event::RollbackTo { seq, .. } => {
                txn.writes.iter_mut().filter(|write| write.seq > *seq).for_each(|write| write.undone = true);
            }
            Event::Read { version, .. } => txn.read_anything |= !matches!(version, Version::Own(_)),
            Event::Scan { .. } => txn.read_anything = true,
            Event::Begin { .. } => {}
        }
    }

    /// A transaction of unknown outcome counts as committed if a committed one read it, or its
    /// version stands in the order; else it left nothing, and counts as aborted.
    fn settle_unknown(&mut self, history: &History, numbers: &HashMap<TxnKey, usize>) {
        let mut seen_by_committed: Vec<TxnKey> =
            history.order.iter().flat_map(|(_, order)| order.iter().map(|(txn, _)| *txn)).collect();
        for event in &history.events {
            let committed = numbers.get(&event.txn()).is_some_and(|n| self.txns[*n].outcome == Outcome::Committed);
            if committed {
                seen_by_committed.extend(event.versions().filter_map(|version| match version {
                    Version::InFlight { txn, .. } => Some(txn),
                    _ => None,
                }));
            }
        }
        for txn in seen_by_committed {
            if let Some(number) = numbers.get(&txn)
                && self.txns[*number].outcome == Outcome::Unknown
            {
                self.txns[*number].outcome = Outcome::Committed;
            }
        }
        for txn in self.txns.iter_mut().filter(|txn| txn.outcome == Outcome::Unknown) {
            txn.outcome = Outcome::Aborted;
        }
    }

    // --- versions --------------------------------------------------------------------------------

    fn order_versions(&mut self, history: &History, numbers: &HashMap<TxnKey, usize>) {
        let initial = |value: Option<Bytes>| VersionRec { writer: None, value, ts: None, blind: false };
        for (key, value) in &history.initial {
            self.versions.insert(key.clone(), vec![initial(Some(value.clone()))]);
        }
        let resolved_values = resolved_values(history, numbers);
        let listed: HashMap<&Key, &Vec<(TxnKey, u32)>> = history.order.iter().map(|(k, order)| (k, order)).collect();
        let mut finals: BTreeMap<Key, Vec<(usize, WriteRec)>> = BTreeMap::new();
        for (number, txn) in self.committed() {
            let mut last: HashMap<&Key, &WriteRec> = HashMap::new();
            for write in txn.writes.iter().filter(|write| !write.undone) {
                last.insert(&write.key, write);
            }
            for (key, write) in last {
                let mut write = write.clone();
                if let Some(value) = resolved_values.get(&(number, key)) {
                    write.value = Some((*value).clone());
                }
                finals.entry(key.clone()).or_default().push((number, write));
            }
        }
        for (key, mut writes) in finals {
            match listed.get(&key) {
                Some(order) => writes.sort_by_key(|(number, write)| place(order, numbers, *number, write.seq)),
                None => writes.sort_by_key(|(number, _)| (self.txns[*number].ts.unwrap_or(Ts::MAX), *number)),
            }
            self.complain_of_equal_times(&key, &writes, listed.contains_key(&key));
            let versions = self.versions.entry(key).or_insert_with(|| vec![initial(None)]);
            versions.extend(writes.into_iter().map(|(number, write)| VersionRec {
                writer: Some(number),
                value: write.value,
                ts: self.txns[number].ts,
                blind: write.blind,
            }));
        }
    }

    fn complain_of_equal_times(&mut self, key: &Key, writes: &[(usize, WriteRec)], listed: bool) {
        for pair in writes.windows(2) {
            let (a, b) = (&self.txns[pair[0].0], &self.txns[pair[1].0]);
            if !listed && a.ts == b.ts {
                let words = format!("{} and {} committed versions of {key:?} at one time", a.name, b.name);
                self.complaints.push(words);
            }
        }
    }

    /// The place of the version that a committed transaction left of a key.
    pub fn version_by(&self, key: &Key, writer: usize) -> Option<usize> {
        self.versions.get(key)?.iter().position(|version| version.writer == Some(writer))
    }

    // --- reads -----------------------------------------------------------------------------------

    fn resolve_reads(&mut self, history: &History, numbers: &HashMap<TxnKey, usize>) {
        // Own writes so far: the number of the last one of each key, and whether it is blind.
        let mut own = OwnWrites::new();
        for (at, event) in history.events.iter().enumerate() {
            let Some(&number) = numbers.get(&event.txn()) else { continue };
            match event {
                Event::Write { key, seq, value, blind, .. } => {
                    own.entry((number, key.clone())).or_default().push((*seq, *blind, value.clone()));
                }
                Event::RollbackTo { seq, .. } => {
                    for ((txn, _), writes) in &mut own {
                        if *txn == number {
                            writes.retain(|(n, ..)| n <= seq);
                        }
                    }
                }
                Event::Read { key, version, value, kind, as_of, .. } => {
                    let last = own.get(&(number, key.clone())).and_then(|writes| writes.last());
                    self.check_internal(number, key, *version, value.as_ref(), last);
                    let seen = self.resolve(at, history, numbers, key, *version, *as_of);
                    self.check_value(at, key, seen, value.as_ref());
                    let read = ReadRec {
                        key: key.clone(),
                        seen,
                        value: value.clone(),
                        tracked: *kind == ReadKind::Tracked,
                        item: true,
                    };
                    self.txns[number].reads.push(read);
                }
                Event::Scan { span, rows, kind, as_of, .. } => {
                    let tracked = *kind == ReadKind::Tracked;
                    for row in rows {
                        let last = own.get(&(number, row.key.clone())).and_then(|writes| writes.last());
                        self.check_internal(number, &row.key, row.version, row.value.as_ref(), last);
                        let seen = self.resolve(at, history, numbers, &row.key, row.version, *as_of);
                        self.check_value(at, &row.key, seen, row.value.as_ref());
                        let item = row.value.is_some();
                        let read = ReadRec { key: row.key.clone(), seen, value: row.value.clone(), tracked, item };
                        self.txns[number].reads.push(read);
                    }
                    let missing = self.missing(number, at, span, rows, *as_of, &own);
                    if tracked {
                        self.txns[number].reads.extend(missing);
                    }
                }
                _ => {}
            }
        }
    }

    /// Keys in a scanned span that the scan did not mention: it found them absent.
    fn missing(
        &mut self,
        number: usize,
        at: usize,
        span: &Span,
        rows: &[crate::model::Row],
        as_of: Option<Ts>,
        own: &OwnWrites,
    ) -> Vec<ReadRec> {
        if span.is_empty() {
            return Vec::new();
        }
        let mentioned: std::collections::HashSet<&Key> = rows.iter().map(|row| &row.key).collect();
        let mut found = Vec::new();
        let mut complaints = Vec::new();
        let end = span.end.clone().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        for (key, versions) in self.versions.range((std::ops::Bound::Included(span.start.clone()), end)) {
            let hidden = own.get(&(number, key.clone())).is_some_and(|writes| !writes.is_empty());
            if mentioned.contains(key) || hidden {
                continue;
            }
            let newest = newest_at(versions, as_of);
            let absent = (0..=newest).rev().find(|place| versions[*place].value.is_none());
            let exact = !matches!(self.txns[number].isolation, Isolation::RepeatableRead | Isolation::ReadUncommitted);
            if exact && absent != Some(newest) {
                let name = &self.txns[number].name;
                complaints.push(format!("event {at}: the scan of {name} missed {key:?}, which was there"));
            }
            if let Some(place) = absent {
                let seen = Seen::Version(place);
                found.push(ReadRec { key: key.clone(), seen, value: None, tracked: true, item: false });
            }
        }
        self.complaints.extend(complaints);
        found
    }

    fn resolve(
        &mut self,
        at: usize,
        history: &History,
        numbers: &HashMap<TxnKey, usize>,
        key: &Key,
        version: Version,
        as_of: Option<Ts>,
    ) -> Seen {
        match version {
            Version::Own(_) => Seen::Own,
            Version::None => {
                let Some(versions) = self.versions.get(key) else { return self.unwritten(key) };
                // Without a state, some version that was absent: the initial one, or the last tombstone.
                let newest = match as_of {
                    Some(_) => newest_at(versions, as_of),
                    None if versions[0].value.is_none() => 0,
                    None => versions.iter().rposition(|version| version.value.is_none()).unwrap_or(0),
                };
                if versions[newest].value.is_some() {
                    self.complaints.push(format!("event {at}: {key:?} was read as absent, and was there"));
                    return Seen::Version(0);
                }
                Seen::Version(newest)
            }
            Version::Committed(ts) if ts <= history.start => {
                self.versions.entry(key.clone()).or_insert_with(|| vec![absent()]);
                Seen::Version(0)
            }
            Version::Committed(ts) => {
                let place = self.versions.get(key).and_then(|all| all.iter().position(|v| v.ts == Some(ts)));
                place.map_or_else(
                    || {
                        self.complaints.push(format!("event {at}: nobody committed {key:?} at {ts}"));
                        self.unwritten(key)
                    },
                    Seen::Version,
                )
            }
            Version::InFlight { txn, seq } => self.resolve_in_flight(at, numbers, key, txn, seq),
        }
    }

    fn unwritten(&mut self, key: &Key) -> Seen {
        self.versions.entry(key.clone()).or_insert_with(|| vec![absent()]);
        Seen::Version(0)
    }

    fn resolve_in_flight(
        &mut self,
        at: usize,
        numbers: &HashMap<TxnKey, usize>,
        key: &Key,
        txn: TxnKey,
        seq: u32,
    ) -> Seen {
        let writer = numbers.get(&txn).copied();
        let write = writer
            .and_then(|writer| self.txns[writer].writes.iter().find(|write| write.seq == seq && write.key == *key));
        let (Some(writer), Some(write)) = (writer, write) else {
            self.complaints.push(format!("event {at}: nobody wrote what was read of {key:?}"));
            return self.unwritten(key);
        };
        let last = self.txns[writer].writes.iter().rfind(|write| !write.undone && write.key == *key);
        match self.txns[writer].outcome {
            Outcome::Committed if write.undone => Seen::Aborted(writer),
            Outcome::Committed if last.is_some_and(|last| last.seq == seq) => {
                self.version_by(key, writer).map_or(Seen::Aborted(writer), Seen::Version)
            }
            Outcome::Committed => Seen::Intermediate(writer),
            Outcome::Aborted | Outcome::Unknown => Seen::Aborted(writer),
        }
    }

    fn check_internal(
        &mut self,
        number: usize,
        key: &Key,
        version: Version,
        value: Option<&Bytes>,
        last: Option<&(u32, bool, Option<Bytes>)>,
    ) {
        let Some((seq, blind, written)) = last else {
            if let Version::Own(seq) = version {
                let words = format!("it read its write {seq} of {key:?}, which does not stand");
                self.internal.push((number, key.clone(), words));
            }
            return;
        };
        let good = match version {
            Version::Own(read) => read == *seq && (*blind || value == written.as_ref()),
            // An increment is not a value: what it stands on is read.
            _ => *blind,
        };
        if !good {
            let words =
                format!("it read {} of {key:?}, and had written {} itself", shown(value), shown(written.as_ref()));
            self.internal.push((number, key.clone(), words));
        }
    }

    fn check_value(&mut self, at: usize, key: &Key, seen: Seen, value: Option<&Bytes>) {
        if let Seen::Version(place) = seen
            && let Some(version) = self.versions.get(key).and_then(|versions| versions.get(place))
            && version.value.as_ref() != value
        {
            let words = format!(
                "event {at}: {key:?} was read as {}, and the version that was named holds {}",
                shown(value),
                shown(version.value.as_ref())
            );
            self.complaints.push(words);
        }
    }
}

/// The writes of each transaction so far, by key: number, whether it is blind, value.
type OwnWrites = HashMap<(usize, Key), Vec<(u32, bool, Option<Bytes>)>>;

/// A value for people.
pub(crate) fn shown(value: Option<&Bytes>) -> String {
    value.map_or("nothing".to_owned(), |value| value.escape_ascii().to_string())
}

fn absent() -> VersionRec {
    VersionRec { writer: None, value: None, ts: None, blind: false }
}

/// The newest version at or below a time; without a time, the initial one.
fn newest_at(versions: &[VersionRec], as_of: Option<Ts>) -> usize {
    let Some(as_of) = as_of else { return 0 };
    versions.iter().rposition(|version| version.ts.is_none_or(|ts| ts <= as_of)).unwrap_or(0)
}

fn resolved_values<'h>(history: &'h History, numbers: &HashMap<TxnKey, usize>) -> HashMap<(usize, &'h Key), &'h Bytes> {
    let commits = history.events.iter().filter_map(|event| match event {
        Event::Commit { txn, resolved, .. } => Some((numbers.get(txn)?, resolved)),
        _ => None,
    });
    commits.flat_map(|(number, resolved)| resolved.iter().map(|(key, value)| ((*number, key), value))).collect()
}

fn place(order: &[(TxnKey, u32)], numbers: &HashMap<TxnKey, usize>, number: usize, seq: u32) -> usize {
    let is_it = |(txn, n): &(TxnKey, u32)| numbers.get(txn) == Some(&number) && *n == seq;
    order.iter().rposition(is_it).unwrap_or(usize::MAX)
}

impl Event {
    /// Whose event it is.
    #[must_use]
    pub fn txn(&self) -> TxnKey {
        match self {
            Event::Begin { txn, .. }
            | Event::Read { txn, .. }
            | Event::Scan { txn, .. }
            | Event::Write { txn, .. }
            | Event::RollbackTo { txn, .. }
            | Event::Commit { txn, .. }
            | Event::Abort { txn }
            | Event::Unknown { txn } => *txn,
        }
    }

    /// The versions that it read.
    fn versions(&self) -> impl Iterator<Item = Version> {
        let (one, many) = match self {
            Event::Read { version, .. } => (Some(*version), None),
            Event::Scan { rows, .. } => (None, Some(rows.iter().map(|row| row.version))),
            _ => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}
