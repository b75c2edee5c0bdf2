//! Registers: a value says who wrote it, and nothing of the order.
//!
//! Certain are the versions that were read, that the initial one is the first, and that a transaction
//! which read a version and wrote the key wrote a later one. The rest of the order is for
//! [`solve`](super::solve) to find.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::infer::{Found, Inferred, Writer, Writers, add_versions, last_writes, transactions};
use super::observed::{Initial, Observed, Op};
use crate::resolve::{Outcome, Partial, ReadRec, Resolved, Seen, shown};

/// The texts that the versions are shown with.
pub(super) struct Texts(Vec<Bytes>);

impl Texts {
    pub fn of(observed: &Observed) -> Texts {
        Texts(observed.values.iter().map(|value| Bytes::from(value.clone())).collect())
    }
}

/// Whether to assume in favour of a history what it does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Assume {
    Initial,
    Nothing,
}

/// Infers the versions of a history of registers.
pub(super) fn infer<'o>(observed: &'o Observed, texts: &'o Texts, assume: Assume) -> Inferred<'o> {
    let writers = Writers::of(observed);
    let outcomes = writers.outcomes(observed);
    let txns = transactions(observed, &outcomes, |value| &texts.0[value]);
    let keys = observed.keys.iter().collect();
    let resolved = Resolved { txns, keys, ..Resolved::default() };
    let inferred = Inferred { resolved, findings: Vec::new(), doubts: Vec::new(), assumptions: Vec::new() };
    let mut registers = Registers { observed, texts, writers, initial: HashMap::new(), inferred };
    registers.find_initial(assume);
    registers.add_keys();
    registers.add_reads();
    registers.inferred
}

struct Registers<'o> {
    observed: &'o Observed,
    texts: &'o Texts,
    writers: Writers,
    /// The initial value of a key, where it was read.
    initial: HashMap<usize, usize>,
    inferred: Inferred<'o>,
}

/// What a read outside of the transaction's own writes saw.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Initial,
    Txn(usize),
}

impl<'o> Registers<'o> {
    /// The values that nobody wrote: the initial one of each key, if such a value is initial at all.
    fn find_initial(&mut self, assume: Assume) {
        let assumes = self.observed.initial == Initial::AbsentOrUnwritten;
        let absent: HashSet<usize> = committed_ops(self.observed).filter_map(Op::key_read_as_absent).collect();
        for op in committed_ops(self.observed) {
            let Op::Read { key, value: Some(value) } = op else { continue };
            match self.writers.find(*key, *value) {
                Found::Nobody if !assumes || (assume == Assume::Initial && !absent.contains(key)) => {
                    let known = *self.initial.entry(*key).or_insert(*value);
                    if known == *value && assumes {
                        self.assume(*key, *value);
                    } else if known != *value {
                        self.doubt(*key, *value, &format!("nobody wrote it, nor {}", self.observed.values[known]));
                    }
                }
                Found::Nobody => self.doubt(*key, *value, "nobody wrote it"),
                Found::Several(a, b) => {
                    let (a, b) = (&self.observed.txns[a].name, &self.observed.txns[b].name);
                    self.doubt(*key, *value, &format!("{a} and {b} both wrote it"));
                }
                Found::One(_) => {}
            }
        }
        for words in [&mut self.inferred.doubts, &mut self.inferred.assumptions] {
            words.sort();
            words.dedup();
        }
    }

    fn assume(&mut self, key: usize, value: usize) {
        let (key, value) = (self.observed.keys[key].escape_ascii(), &self.observed.values[value]);
        self.inferred
            .assumptions
            .push(format!("{key}={value} was there from the beginning: it was read, and nobody wrote it"));
    }

    fn doubt(&mut self, key: usize, value: usize, why: &str) {
        let (key, value) = (self.observed.keys[key].escape_ascii(), &self.observed.values[value]);
        self.inferred.doubts.push(format!("{key}={value} was read, and {why}"));
    }

    /// Whose version a value is, if that is known.
    fn source(&self, key: usize, value: Option<usize>) -> Option<Source> {
        let Some(value) = value else { return Some(Source::Initial) };
        match self.writers.find(key, value) {
            Found::One(writer) => Some(Source::Txn(writer.txn)),
            Found::Nobody => (self.initial.get(&key) == Some(&value)).then_some(Source::Initial),
            Found::Several(..) => None,
        }
    }

    /// What each committed transaction read of a key before it wrote it.
    fn predecessors(&self) -> HashMap<(usize, usize), Source> {
        let mut sources = HashMap::new();
        for (txn, observed) in self.observed.txns.iter().enumerate() {
            let mut written = HashMap::new();
            for op in observed.ops.iter().filter(|_| observed.outcome == Outcome::Committed) {
                match op {
                    Op::Write { key, .. } => drop(written.insert(*key, ())),
                    Op::Read { key, value } if !written.contains_key(key) => {
                        if let Some(source) = self.source(*key, *value).filter(|source| *source != Source::Txn(txn)) {
                            sources.entry((*key, txn)).or_insert(source);
                        }
                    }
                    _ => {}
                }
            }
        }
        sources
    }

    fn add_keys(&mut self) {
        let predecessors = self.predecessors();
        let last = last_writes(&self.inferred.resolved.txns, self.observed.keys.len());
        for (key, last) in last.into_iter().enumerate() {
            self.add_key(key, last, &predecessors);
        }
        self.inferred.resolved.versions.finish();
    }

    /// The versions of a key: those that were written one upon the other, in order; then the others.
    fn add_key(&mut self, key: usize, last: Vec<Writer>, predecessors: &HashMap<(usize, usize), Source>) {
        let mut upon: HashMap<Source, Vec<Writer>> = HashMap::new();
        for writer in &last {
            if let Some(source) = predecessors.get(&(key, writer.txn)) {
                upon.entry(*source).or_default().push(*writer);
            }
        }
        let mut order: Vec<Writer> = Vec::new();
        let mut at = Source::Initial;
        while let Some([next]) = upon.get(&at).map(Vec::as_slice)
            && order.len() < last.len()
        {
            order.push(*next);
            at = Source::Txn(next.txn);
        }
        let ordered = order.len() + 1;
        let chain: HashMap<usize, usize> = order.iter().enumerate().map(|(at, writer)| (writer.txn, at + 1)).collect();
        order.extend(last.iter().filter(|writer| !chain.contains_key(&writer.txn)));
        // One version alone comes after the initial one: nothing else is left to know.
        let known = order.len() < ordered || order.len() == 1;
        let partial = (!known).then(|| Partial { ordered, anchor: 0, pairs: pairs(&order, ordered, &upon) });
        let txns = &self.inferred.resolved.txns;
        let value = |writer: &Writer| txns[writer.txn].writes[writer.seq as usize - 1].value;
        let versions: Vec<(Writer, &Bytes)> = order.iter().filter_map(|w| Some((*w, value(w)?))).collect();
        let initial = self.initial.get(&key).map(|value| &self.texts.0[*value]);
        add_versions(&mut self.inferred.resolved, key, initial, versions.into_iter(), partial);
    }

    fn add_reads(&mut self) {
        for (reader, txn) in self.observed.txns.iter().enumerate() {
            if txn.outcome != Outcome::Committed {
                continue;
            }
            let mut own: HashMap<usize, usize> = HashMap::new();
            for op in &txn.ops {
                match op {
                    Op::Write { key, value } => drop(own.insert(*key, *value)),
                    Op::Read { key, value } => self.add_read(reader, *key, *value, own.get(key).copied()),
                    Op::Append { .. } | Op::ReadList { .. } => {}
                }
            }
        }
    }

    fn add_read(&mut self, reader: usize, key: usize, value: Option<usize>, own: Option<usize>) {
        let text = value.map(|value| &self.texts.0[value]);
        if let Some(own) = own {
            if value != Some(own) {
                let (read, written) = (shown(text), &self.observed.values[own]);
                let name = &self.observed.keys[key];
                let words = format!("it read {read} of {name:?}, and had written {written} itself");
                self.inferred.resolved.internal.push((reader, key, words));
            }
            return;
        }
        let Some(seen) = self.seen(reader, key, value) else { return };
        let record = ReadRec { key, seen, value: text, tracked: true, item: true };
        self.inferred.resolved.txns[reader].reads.push(record);
    }

    /// The version that a read saw, if that is known.
    fn seen(&mut self, reader: usize, key: usize, value: Option<usize>) -> Option<Seen> {
        let txn = match self.source(key, value)? {
            Source::Initial => return Some(Seen::Version(0)),
            Source::Txn(txn) => txn,
        };
        let Found::One(writer) = self.writers.find(key, value?) else { return None };
        if txn == reader {
            let words = format!("it read {:?} as it wrote it only later", self.observed.keys[key]);
            self.inferred.resolved.internal.push((reader, key, words));
            return None;
        }
        Some(match self.inferred.resolved.left_by(key, txn) {
            Some(left) if left.seq == writer.seq => Seen::Version(left.place),
            Some(_) => Seen::Intermediate(txn),
            None => Seen::Aborted(txn),
        })
    }
}

fn committed_ops(observed: &Observed) -> impl Iterator<Item = &Op> {
    observed.txns.iter().filter(|txn| txn.outcome == Outcome::Committed).flat_map(|txn| &txn.ops)
}

/// Which versions come before which, of those whose place is not known: each was written after the one
/// that its writer had read.
fn pairs(order: &[Writer], ordered: usize, upon: &HashMap<Source, Vec<Writer>>) -> Vec<(usize, usize)> {
    let places: HashMap<usize, usize> = order.iter().enumerate().map(|(at, writer)| (writer.txn, at + 1)).collect();
    let mut pairs = Vec::new();
    for (source, writers) in upon {
        let Source::Txn(source) = source else { continue };
        let Some(&from) = places.get(source) else { continue };
        let to = writers.iter().filter_map(|writer| places.get(&writer.txn).copied());
        pairs.extend(to.filter(|to| *to >= ordered && from != *to).map(|to| (from, to)));
    }
    pairs.sort_unstable();
    pairs
}
