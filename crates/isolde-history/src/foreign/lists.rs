//! Lists: every read shows the order of the versions so far (Kingsbury and Alvaro 2020).
//!
//! The longest read of a key is its order as far as anyone saw it, and every other read must be a
//! beginning of it. Appends that nobody saw come after all that was seen, in an order that is not known.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use isolde_types::Anomaly;

use super::infer::{Found, Inferred, Writer, Writers, add_versions, last_writes, transactions};
use super::observed::{Observed, Op};
use crate::check::{Edge, Finding};
use crate::graph::EdgeKind;
use crate::resolve::{Outcome, Partial, ReadRec, Resolved, Seen};

/// How many elements of a list are shown.
const SHOWN: usize = 6;

/// The texts that the versions are shown with.
pub(super) struct Texts {
    /// Each value by itself, as the end of a list that nobody saw.
    values: Vec<Bytes>,
    /// For each key the beginnings of its order, from the empty one on.
    beginnings: Vec<Vec<Bytes>>,
}

/// What was read of a key, without what the reader itself had appended.
struct Look<'o> {
    reader: usize,
    key: usize,
    base: &'o [u32],
}

/// The order of each key as far as it was seen.
struct Orders<'o> {
    longest: Vec<&'o [u32]>,
    /// Who read it.
    reader: Vec<Option<usize>>,
}

/// The reads and orders of a history of lists, from which its versions are inferred.
pub(super) struct Lists<'o> {
    observed: &'o Observed,
    writers: Writers,
    outcomes: Vec<Outcome>,
    reads: Vec<Look<'o>>,
    orders: Orders<'o>,
    /// Reads of a transaction that lack what it had appended itself: the reader, the key, in words.
    internal: Vec<(usize, usize, String)>,
}

impl<'o> Lists<'o> {
    pub fn of(observed: &'o Observed) -> Lists<'o> {
        let writers = Writers::of(observed);
        let outcomes = writers.outcomes(observed);
        let (reads, internal) = reads(observed);
        let orders = Orders::of(&reads, observed.keys.len());
        Lists { observed, writers, outcomes, reads, orders, internal }
    }

    pub fn texts(&self) -> Texts {
        let show = |order: &[u32]| {
            let names = order.iter().rev().take(SHOWN).map(|value| self.value(*value as usize));
            let mut names: Vec<&str> = names.collect();
            if order.len() > SHOWN {
                names.push("..");
            }
            names.reverse();
            Bytes::from(format!("[{}]", names.join(" ")))
        };
        let beginnings = |order: &&[u32]| (0..=order.len()).map(|length| show(&order[..length])).collect();
        let unseen = |value: &String| Bytes::from(format!("[.. {value}]"));
        Texts {
            values: self.observed.values.iter().map(unseen).collect(),
            beginnings: self.orders.longest.iter().map(beginnings).collect(),
        }
    }

    fn value(&self, value: usize) -> &'o str {
        &self.observed.values[value]
    }

    fn name(&self, txn: usize) -> &'o str {
        &self.observed.txns[txn].name
    }

    fn key(&self, key: usize) -> String {
        self.observed.keys[key].escape_ascii().to_string()
    }

    pub fn infer(&self, texts: &'o Texts) -> Inferred<'o> {
        let txns = transactions(self.observed, &self.outcomes, |value| &texts.values[value]);
        let keys = self.observed.keys.iter().collect();
        let mut inferred = Inferred {
            resolved: Resolved { txns, keys, ..Resolved::default() },
            findings: vec![],
            doubts: vec![],
            assumptions: vec![],
        };
        inferred.resolved.internal.clone_from(&self.internal);
        let last = last_writes(&inferred.resolved.txns, self.observed.keys.len());
        for (key, last) in last.into_iter().enumerate() {
            self.add_key(key, last, texts, &mut inferred);
        }
        inferred.resolved.versions.finish();
        self.add_reads(texts, &mut inferred);
        inferred
    }

    /// The versions of a key: those that were seen, in order; then the others.
    fn add_key(&self, key: usize, last: Vec<Writer>, texts: &'o Texts, inferred: &mut Inferred<'o>) {
        let order = self.orders.longest[key];
        self.check_order(key, order, inferred);
        let mut places: HashMap<usize, usize> = HashMap::new();
        for (place, value) in order.iter().enumerate() {
            if let Found::One(writer) = self.writers.find(key, *value as usize) {
                places.insert(writer.txn, place);
            }
        }
        let is_last =
            |writer: &Writer, place: usize| self.writers.find(key, order[place] as usize) == Found::One(*writer);
        let place = |writer: &Writer| places.get(&writer.txn).copied().filter(|place| is_last(writer, *place));
        let (mut seen, unseen): (Vec<Writer>, Vec<Writer>) = last.into_iter().partition(|w| place(w).is_some());
        seen.sort_by_key(place);
        let ordered = seen.len() + 1;
        let partial = Partial { ordered, anchor: ordered - 1, pairs: Vec::new() };
        // One that nobody saw still has its place: the last.
        let partial = (unseen.len() > 1).then_some(partial);
        let beginnings = &texts.beginnings[key];
        let shown = seen.iter().map(|writer| (*writer, &beginnings[place(writer).map_or(0, |place| place + 1)]));
        let txns = &inferred.resolved.txns;
        let hidden: Vec<(Writer, &Bytes)> = unseen
            .iter()
            .filter_map(|writer| Some((*writer, txns[writer.txn].writes[writer.seq as usize - 1].value?)))
            .collect();
        let versions: Vec<(Writer, &Bytes)> = shown.chain(hidden).collect();
        add_versions(&mut inferred.resolved, key, Some(&beginnings[0]), versions.into_iter(), partial);
    }

    /// What the order of a key itself shows: elements that stand twice or that nobody appended, writes of
    /// one transaction that another's came between, or that stand in another order.
    fn check_order(&self, key: usize, order: &[u32], inferred: &mut Inferred<'o>) {
        let name = self.key(key);
        let mut known = HashSet::new();
        let mut run: Option<usize> = None;
        let mut next: HashMap<usize, usize> = HashMap::new();
        for value in order {
            let shown = self.value(*value as usize);
            if !known.insert(*value) {
                inferred.resolved.complaints.push(format!("{shown} stands twice in {name}"));
                continue;
            }
            match self.writers.find(key, *value as usize) {
                Found::Nobody => inferred.doubts.push(format!("nobody appended {shown} to {name}, and it was read")),
                Found::Several(a, b) => inferred.doubts.push(format!(
                    "{} and {} both appended {shown} to {name}: whose was read is not known",
                    self.name(a),
                    self.name(b)
                )),
                Found::One(writer) if self.outcomes[writer.txn] == Outcome::Committed => {
                    self.check_run(key, writer, run, &mut next, inferred);
                    run = Some(writer.txn);
                }
                Found::One(_) => {}
            }
        }
        self.check_unfinished(key, run, &next, inferred);
    }

    fn check_run(
        &self,
        key: usize,
        writer: Writer,
        run: Option<usize>,
        next: &mut HashMap<usize, usize>,
        inferred: &mut Inferred<'o>,
    ) {
        let appends = next.entry(writer.txn).or_default();
        if let (Some(other), true) = (run.filter(|run| *run != writer.txn), *appends > 0) {
            inferred.findings.push(self.interleaved(key, writer.txn, other));
        }
        let mut own = inferred.resolved.txns[writer.txn].writes.iter().filter(|write| write.key == key);
        if own.nth(*appends).map(|write| write.seq) != Some(writer.seq) {
            let words = format!("what {} appended to {} stands in another order", self.name(writer.txn), self.key(key));
            inferred.resolved.complaints.push(words);
        }
        *appends += 1;
    }

    /// Transactions of whose appends only some were seen, with others after them: the rest comes later.
    fn check_unfinished(
        &self,
        key: usize,
        last: Option<usize>,
        seen: &HashMap<usize, usize>,
        inferred: &mut Inferred<'o>,
    ) {
        let Some(last) = last else { return };
        let mut cut: Vec<usize> = seen.keys().copied().filter(|txn| *txn != last).collect();
        cut.sort_unstable();
        for txn in cut {
            let own = inferred.resolved.txns[txn].writes.iter().filter(|write| write.key == key).count();
            if own > seen[&txn] {
                inferred.findings.push(self.interleaved(key, txn, last));
            }
        }
    }

    /// G0: another's append between two of a transaction's.
    fn interleaved(&self, key: usize, txn: usize, other: usize) -> Finding {
        let (a, b, name) = (self.name(txn), self.name(other), self.key(key));
        let edge = |from: &str, to: &str, words: &str| Edge {
            from: from.to_owned(),
            to: to.to_owned(),
            kind: EdgeKind::Ww,
            key: self.observed.keys[key].clone(),
            words: words.to_owned(),
        };
        let (first, second) =
            (format!("{a} appended to {name}, and {b} after it"), format!("{a} appended again after {b}"));
        Finding {
            anomaly: Anomaly::DirtyWrite,
            words: format!(
                "{a} is before {b}, because {first}; but {b} is before {a}, because {second}: a contradiction."
            ),
            cycle: vec![edge(a, b, &first), edge(b, a, &second)],
        }
    }

    fn add_reads(&self, texts: &'o Texts, inferred: &mut Inferred<'o>) {
        let mut incompatible = HashSet::new();
        for read in &self.reads {
            let order = self.orders.longest[read.key];
            if !order.starts_with(read.base) {
                if incompatible.insert(read.key) {
                    inferred.findings.push(self.incompatible(read));
                }
                continue;
            }
            inferred.findings.extend(self.aborted_element(read));
            if let Some(seen) = self.seen(read, &inferred.resolved) {
                let value = Some(&texts.beginnings[read.key][read.base.len()]);
                let record = ReadRec { key: read.key, seen, value, tracked: true, item: true };
                inferred.resolved.txns[read.reader].reads.push(record);
            }
        }
    }

    /// The version that a read saw: that of the last element. None if that is not known.
    fn seen(&self, read: &Look<'_>, resolved: &Resolved<'_>) -> Option<Seen> {
        let Some(last) = read.base.last() else { return Some(Seen::Version(0)) };
        let Found::One(writer) = self.writers.find(read.key, *last as usize) else { return None };
        Some(match resolved.left_by(read.key, writer.txn) {
            Some(left) if left.seq == writer.seq => Seen::Version(left.place),
            Some(_) => Seen::Intermediate(writer.txn),
            None => Seen::Aborted(writer.txn),
        })
    }

    /// G1a: an element of an aborted transaction before the last one (the last is found by its version).
    fn aborted_element(&self, read: &Look<'_>) -> Option<Finding> {
        let (_, before) = read.base.split_last()?;
        let (value, writer) = before.iter().find_map(|value| match self.writers.find(read.key, *value as usize) {
            Found::One(writer) if self.outcomes[writer.txn] == Outcome::Aborted => Some((*value, writer)),
            _ => None,
        })?;
        let (who, from) = (self.name(read.reader), self.name(writer.txn));
        let what = format!("{} in {}", self.value(value as usize), self.key(read.key));
        let words = format!("{from} appended {what}, and {who} read it");
        Some(Finding {
            anomaly: Anomaly::AbortedRead,
            words: format!("{who} read {what}, which {from} appended and then undid, and on which others built."),
            cycle: vec![self.wr(writer.txn, read, words)],
        })
    }

    /// Two reads of which neither is a beginning of the other: of versions in one order, one at least was
    /// never a version (G1a).
    fn incompatible(&self, read: &Look<'_>) -> Finding {
        let other = self.orders.reader[read.key].unwrap_or(read.reader);
        let (a, b, name) = (self.name(read.reader), self.name(other), self.key(read.key));
        let common = read.base.iter().zip(self.orders.longest[read.key]).take_while(|(a, b)| a == b).count();
        let at = |order: &[u32]| order.get(common).map_or("its end", |value| self.value(*value as usize));
        let (here, there) = (at(read.base), at(self.orders.longest[read.key]));
        let words = format!(
            "{a} and {b} read {name} in orders that cannot both be: after {common} equal elements {a} read {here} and \
             {b} read {there}; one of them read what was never a version."
        );
        Finding { anomaly: Anomaly::AbortedRead, cycle: vec![self.wr(other, read, words.clone())], words }
    }

    fn wr(&self, from: usize, read: &Look<'_>, words: String) -> Edge {
        Edge {
            from: self.name(from).to_owned(),
            to: self.name(read.reader).to_owned(),
            kind: EdgeKind::Wr,
            key: self.observed.keys[read.key].clone(),
            words,
        }
    }
}

impl<'o> Orders<'o> {
    fn of(reads: &[Look<'o>], keys: usize) -> Orders<'o> {
        let mut orders = Orders { longest: vec![&[]; keys], reader: vec![None; keys] };
        for read in reads {
            if read.base.len() > orders.longest[read.key].len() {
                orders.longest[read.key] = read.base;
                orders.reader[read.key] = Some(read.reader);
            }
        }
        orders
    }
}

/// What the committed transactions read of others, and where they did not read their own appends.
fn reads(observed: &Observed) -> (Vec<Look<'_>>, Vec<(usize, usize, String)>) {
    let (mut reads, mut internal) = (Vec::new(), Vec::new());
    for (reader, txn) in observed.txns.iter().enumerate().filter(|(_, txn)| txn.outcome == Outcome::Committed) {
        let mut own: HashMap<usize, Vec<u32>> = HashMap::new();
        for op in &txn.ops {
            let (key, values): (usize, &[u32]) = match op {
                Op::Append { key, value } => {
                    own.entry(*key).or_default().extend(u32::try_from(*value));
                    continue;
                }
                Op::ReadList { key, values } => (*key, values),
                Op::Read { key, .. } => (*key, &[]),
                Op::Write { .. } => continue,
            };
            let appended = own.get(&key).map_or(&[][..], Vec::as_slice);
            if let Some(base) = values.strip_suffix(appended) {
                reads.push(Look { reader, key, base });
            } else {
                let words = format!("it read {:?} without what it had appended itself", observed.keys[key]);
                internal.push((reader, key, words));
            }
        }
    }
    (reads, internal)
}
