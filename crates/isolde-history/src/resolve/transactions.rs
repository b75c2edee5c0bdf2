//! Keys and transactions get their numbers; who committed.

use crate::hash::HashMap;

use isolde_types::Key;

use super::{Outcome, Resolved, Txn, WriteRec};
use crate::model::{Event, History, TxnKey, Version};

/// The numbers of the keys. Hashing a key costs more than all else that is done with it, so each one
/// that an event names is hashed once.
#[derive(Default)]
pub(super) struct Names<'h> {
    numbers: HashMap<&'h Key, usize>,
    /// The keys that the events name, in their order.
    named: Vec<usize>,
    /// Where those of each event begin.
    starts: Vec<usize>,
}

impl<'h> Names<'h> {
    /// The number of a key that may be none of this history's.
    pub fn find(&self, key: &Key) -> Option<usize> {
        self.numbers.get(key).copied()
    }

    /// The number of the key that an event reads or writes, or of a row of its scan.
    pub fn named(&self, event: usize, row: usize) -> usize {
        self.named[self.starts[event] + row]
    }

    fn add(&mut self, key: &'h Key) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(key).or_insert(next)
    }
}

/// The numbers of the transactions.
pub(super) struct Owners {
    numbers: HashMap<TxnKey, usize>,
    /// Whose event each one is.
    pub of_event: Vec<Option<usize>>,
}

impl Owners {
    pub fn number(&self, txn: TxnKey) -> Option<usize> {
        self.numbers.get(&txn).copied()
    }
}

/// The keys that an event names.
fn keys_of(event: &Event) -> impl Iterator<Item = &Key> {
    let (one, many) = match event {
        Event::Read { key, .. } | Event::Write { key, .. } => (Some(key), None),
        Event::Scan { rows, .. } => (None, Some(rows.iter().map(|row| &row.key))),
        _ => (None, None),
    };
    one.into_iter().chain(many.into_iter().flatten())
}

impl<'h> Resolved<'h> {
    pub(super) fn collect_keys(&mut self, history: &'h History) -> Names<'h> {
        let mut names = Names::default();
        let listed = history.order.iter().map(|(key, _)| key);
        for key in history.initial.iter().map(|(key, _)| key).chain(listed) {
            names.add(key);
        }
        for event in &history.events {
            names.starts.push(names.named.len());
            for key in keys_of(event) {
                let number = names.add(key);
                names.named.push(number);
            }
        }
        self.sort_keys(&mut names);
        names
    }

    /// Numbers keys by their order instead of by the order in which they were met.
    fn sort_keys(&mut self, names: &mut Names<'h>) {
        let mut sorted: Vec<(&'h Key, usize)> = names.numbers.iter().map(|(key, number)| (*key, *number)).collect();
        sorted.sort_unstable();
        let mut place = vec![0; sorted.len()];
        sorted.iter().enumerate().for_each(|(at, (_, met))| place[*met] = at);
        names.numbers.values_mut().for_each(|number| *number = place[*number]);
        names.named.iter_mut().for_each(|number| *number = place[*number]);
        self.keys = sorted.into_iter().map(|(key, _)| key).collect();
    }

    pub(super) fn collect_transactions(&mut self, history: &'h History, names: &Names<'_>) -> Owners {
        let mut owners = Owners { numbers: HashMap::default(), of_event: Vec::with_capacity(history.events.len()) };
        for (at, event) in history.events.iter().enumerate() {
            if let Event::Begin { txn, .. } = event {
                self.begin(at, event);
                if owners.numbers.insert(*txn, self.txns.len() - 1).is_some() {
                    let name = self.txns[self.txns.len() - 1].name;
                    self.complaints.push(format!("event {at}: transaction {name} began twice"));
                }
            } else {
                match owners.number(event.txn()) {
                    Some(number) => self.note(number, at, event, names),
                    None => self.complaints.push(format!("event {at}: its transaction never began")),
                }
            }
        }
        // Only now: of two transactions that began under one number, everything belongs to the second.
        owners.of_event = history.events.iter().map(|event| owners.number(event.txn())).collect();
        owners
    }

    fn begin(&mut self, at: usize, event: &'h Event) {
        let Event::Begin { name, isolation, .. } = event else { return };
        self.txns.push(Txn {
            name,
            isolation: *isolation,
            outcome: Outcome::Unknown,
            ts: None,
            begin: at,
            end: None,
            writes: Vec::new(),
            reads: Vec::new(),
            left: Vec::new(),
            read_anything: false,
        });
    }

    fn note(&mut self, number: usize, at: usize, event: &'h Event, names: &Names<'_>) {
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
            Event::Write { seq, value, blind, .. } => txn.writes.push(WriteRec {
                key: names.named(at, 0),
                seq: *seq,
                value: value.as_ref(),
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
    pub(super) fn settle_unknown(&mut self, history: &History, owners: &Owners) {
        let mut seen_by_committed: Vec<TxnKey> =
            history.order.iter().flat_map(|(_, order)| order.iter().map(|(txn, _)| *txn)).collect();
        for (event, owner) in history.events.iter().zip(&owners.of_event) {
            if owner.is_some_and(|number| self.txns[number].outcome == Outcome::Committed) {
                seen_by_committed.extend(event.versions().filter_map(|version| match version {
                    Version::InFlight { txn, .. } => Some(txn),
                    _ => None,
                }));
            }
        }
        for txn in seen_by_committed {
            if let Some(number) = owners.number(txn)
                && self.txns[number].outcome == Outcome::Unknown
            {
                self.txns[number].outcome = Outcome::Committed;
            }
        }
        for txn in self.txns.iter_mut().filter(|txn| txn.outcome == Outcome::Unknown) {
            txn.outcome = Outcome::Aborted;
        }
    }
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
