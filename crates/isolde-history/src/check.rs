//! The checker: which anomalies a history shows, and why.
//!
//! Committed transactions are nodes of a graph. An edge says that one must come before another:
//!
//! ```text
//!   ww  T1 ──► T2   T2 installed the next version of a key after T1's
//!   wr  T1 ──► T2   T2 read a version that T1 wrote
//!   rw  T1 ──► T2   T1 read a version, and T2 installed the next one
//! ```
//!
//! A serial order exists exactly when the graph has no cycle. Which anomaly a cycle is depends on its
//! edges. Write skew, for example: T1 and T2 both read x and y; T1 writes x, T2 writes y.
//!
//! ```text
//!   T1 read y before T2 overwrote it:   T1 ──rw y──► T2
//!   T2 read x before T1 overwrote it:   T2 ──rw x──► T1      a cycle of two rw: G2-item
//! ```
//!
//! Each class is searched on its own, since the smallest cycle of one may hide another. Some anomalies
//! are no cycles: a read of a write that was undone (G1a) or overwritten by its own writer (G1b), an
//! older version after a newer one of the same writer (OTV), a lost update (P4).
//!
//! Besides the anomalies the report has *complaints*, contradictions in the records that no history
//! can have (an engine that reports wrong versions), *zombies*, impossible states that transactions saw
//! which were then aborted, and *violations*: anomalies that a transaction's own level forbids, where
//! levels are mixed.
//!
//! Time is linear in the history where it is clean. Sources: Adya, "Weak Consistency" (1999); Kingsbury
//! and Alvaro, "Elle" (2020).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use isolde_types::{Anomaly, Key};

use crate::cycles::{self, Found, fits};
use crate::explain;
use crate::graph::{EdgeKind, Graph, RawEdge, obliges};
use crate::levels;
use crate::model::History;
use crate::resolve::{Outcome, ReadRec, Resolved, Seen, Txn};

/// An edge of a reported cycle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// The transaction that comes first.
    pub from: String,
    /// The one that comes after it.
    pub to: String,
    /// Why.
    pub kind: EdgeKind,
    /// The key; empty for real time.
    pub key: Key,
    /// The edge in words: "T1 read y=1, and T2 overwrote it".
    pub words: String,
}

/// An anomaly, and what shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Which.
    pub anomaly: Anomaly,
    /// The smallest cycle that shows it, or the accesses that do.
    pub cycle: Vec<Edge>,
    /// Why it is one, in words.
    pub words: String,
}

/// An anomaly that a transaction's own level forbids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What was broken.
    pub anomaly: Anomaly,
    /// How, in words.
    pub words: String,
}

/// What a history shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The anomalies, gravest first; one finding for each class.
    pub findings: Vec<Finding>,
    /// What breaks the promise of some transaction's own level.
    pub violations: Vec<Violation>,
    /// Impossible states that aborted transactions had seen, in words.
    pub zombies: Vec<String>,
    /// Contradictions in the records, in words.
    pub complaints: Vec<String>,
    /// How many transactions committed.
    pub committed: usize,
}

impl Report {
    /// The anomalies that were found, gravest first.
    #[must_use]
    pub fn anomalies(&self) -> Vec<Anomaly> {
        self.findings.iter().map(|finding| finding.anomaly).collect()
    }

    /// The finding of one anomaly.
    #[must_use]
    pub fn finding(&self, anomaly: Anomaly) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.anomaly == anomaly)
    }

    /// Whether some serial order that agrees with real time explains everything.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        self.findings.is_empty() && self.complaints.is_empty()
    }

    /// Whether every transaction got what its own level promises, and the records make sense.
    #[must_use]
    pub fn keeps_its_levels(&self) -> bool {
        self.violations.is_empty() && self.complaints.is_empty()
    }
}

/// Searches a history for anomalies; see the module.
///
/// ```
/// use isolde_history::{History, check};
/// assert!(check(&History::default()).is_serializable());
/// ```
#[must_use]
pub fn check(history: &History) -> Report {
    let resolved = Resolved::of(history);
    let graph = Graph::of(&resolved);
    Report {
        findings: findings(&resolved, &graph, Vec::new()),
        violations: violations(&resolved, &graph),
        zombies: zombies(&resolved),
        committed: resolved.committed().count(),
        complaints: resolved.complaints,
    }
}

/// The anomalies of a history, those among them that are known already.
pub(crate) fn findings(resolved: &Resolved<'_>, graph: &Graph, known: Vec<Finding>) -> Vec<Finding> {
    let mut findings = Findings::default();
    known.into_iter().for_each(|finding| findings.add(finding));
    find_bad_reads(resolved, &mut findings);
    find_vanishing(resolved, &mut findings);
    find_lost_updates(resolved, &mut findings);
    find_cycles(resolved, graph, &mut findings);
    findings.0.into_values().collect()
}

/// One finding for each class: the smallest.
#[derive(Default)]
struct Findings(BTreeMap<Anomaly, Finding>);

impl Findings {
    fn add(&mut self, finding: Finding) {
        let smaller = self.0.get(&finding.anomaly).is_none_or(|known| finding.cycle.len() < known.cycle.len());
        if smaller {
            self.0.insert(finding.anomaly, finding);
        }
    }
}

// --- reads of what should not be seen --------------------------------------------------------------

fn find_bad_reads(resolved: &Resolved<'_>, findings: &mut Findings) {
    for (reader, txn) in resolved.committed() {
        for read in &txn.reads {
            let (anomaly, writer) = match read.seen {
                Seen::Aborted(writer) => (Anomaly::AbortedRead, writer),
                Seen::Intermediate(writer) => (Anomaly::IntermediateRead, writer),
                Seen::Version(_) | Seen::Own => continue,
            };
            findings.add(explain::bad_read(resolved, anomaly, reader, writer, read));
        }
    }
    for (reader, key, words) in &resolved.internal {
        if resolved.txns[*reader].outcome == Outcome::Committed {
            findings.add(explain::internal(resolved, *reader, resolved.keys[*key], words));
        }
    }
}

/// The writers whose versions a transaction read, each with the first key of it, in order.
fn observed(resolved: &Resolved<'_>, txn: &Txn<'_>) -> Vec<(usize, usize)> {
    let mut writers = Vec::new();
    let mut known = HashSet::new();
    for read in &txn.reads {
        if let Seen::Version(place) = read.seen
            && let Some(writer) = resolved.versions.of(read.key)[place].writer
            && known.insert(writer)
        {
            writers.push((writer, read.key));
        }
    }
    writers
}

/// Whether a read saw an older version than the one that a transaction left of that key.
fn is_older(resolved: &Resolved<'_>, read: &ReadRec<'_>, writer: usize) -> bool {
    let Seen::Version(place) = read.seen else { return false };
    resolved.version_by(read.key, writer).is_some_and(|newer| resolved.versions.is_newer(read.key, newer, place))
}

/// Whether some read of a transaction saw an older version than some writer left whose versions it
/// also read. The cheaper side is walked: the reads, or what the writer left.
fn saw_something_vanish(resolved: &Resolved<'_>, txn: &Txn<'_>) -> bool {
    let mut oldest: Vec<(usize, usize)> = Vec::with_capacity(txn.reads.len());
    let mut writers: Vec<usize> = Vec::with_capacity(txn.reads.len());
    for read in &txn.reads {
        if let Seen::Version(place) = read.seen {
            oldest.push((read.key, place));
            writers.extend(resolved.versions.of(read.key)[place].writer);
        }
    }
    if oldest.len() < 2 {
        return false;
    }
    oldest.sort_unstable();
    oldest.dedup_by_key(|(key, _)| *key);
    writers.sort_unstable();
    writers.dedup();
    writers.into_iter().any(|writer| {
        let left = &resolved.txns[writer].left;
        if left.len() <= oldest.len() {
            let read = |key: usize| oldest.binary_search_by_key(&key, |(key, _)| *key).ok().map(|at| oldest[at].1);
            left.iter().any(|left| read(left.key).is_some_and(|place| left.place > place))
        } else {
            oldest.iter().any(|(key, place)| resolved.version_by(*key, writer) > Some(*place))
        }
    })
}

/// OTV: after one version of a transaction, an older version of another key that it also wrote.
fn find_vanishing(resolved: &Resolved<'_>, findings: &mut Findings) {
    let readers = resolved.committed().filter(|(_, txn)| saw_something_vanish(resolved, txn));
    let mut found = readers.filter_map(|(reader, txn)| vanishing(resolved, reader, txn));
    // All such cycles are of two: the first is as small as any.
    if let Some(finding) = found.next() {
        findings.add(finding);
    }
}

pub(crate) fn vanishing(resolved: &Resolved<'_>, reader: usize, txn: &Txn<'_>) -> Option<Finding> {
    let mut seen: Vec<(usize, usize)> = Vec::new();
    let mut known = HashSet::new();
    for read in &txn.reads {
        let Seen::Version(place) = read.seen else { continue };
        // A key that a scan did not find was not read: that is a matter of predicates.
        let mut before = seen.iter().filter(|(_, first)| read.item && *first != read.key);
        if let Some((writer, first)) = before.find(|(writer, _)| is_older(resolved, read, *writer)) {
            let first = resolved.keys[*first];
            return Some(explain::vanishing(resolved, reader, *writer, first, read, place));
        }
        if let Some(writer) = resolved.versions.of(read.key)[place].writer
            && writer != reader
            && known.insert(writer)
        {
            seen.push((writer, read.key));
        }
    }
    None
}

/// P4: two committed transactions read one version of a key, and both wrote the key.
fn find_lost_updates(resolved: &Resolved<'_>, findings: &mut Findings) {
    let mut readers: Vec<(usize, usize, usize)> = Vec::new();
    for (reader, txn) in resolved.committed() {
        for read in txn.reads.iter().filter(|read| read.item && read.tracked) {
            if let Seen::Version(place) = read.seen
                && resolved.left_by(read.key, reader).is_some()
            {
                readers.push((read.key, place, reader));
            }
        }
    }
    readers.sort_unstable();
    readers.dedup();
    let lost = readers.windows(2).find(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1));
    if let Some(&[(key, place, one), (_, _, other)]) = lost {
        findings.add(explain::lost_update(resolved, key, place, one, other));
    }
}

// --- cycles ----------------------------------------------------------------------------------------

fn find_cycles(resolved: &Resolved<'_>, graph: &Graph, findings: &mut Findings) {
    let any = |_: &RawEdge| true;
    for group in graph.components(resolved, any, Some(&|_| true)) {
        // Small groups are searched for every class at once; in large ones each class has its edges.
        for found in cycles::in_group(graph, resolved, &group, &any) {
            findings.add(finding(resolved, graph, &found));
        }
    }
}

pub(crate) fn finding(resolved: &Resolved<'_>, graph: &Graph, found: &Found) -> Finding {
    let size = found.nodes.len();
    let hop = |number: usize| {
        let (from, to) = (found.nodes[number], found.nodes[(number + 1) % size]);
        let edge = graph.between(from, to).iter().find(|edge| fits(found.hops[number], edge.kind));
        explain::edge(resolved, from, to, edge)
    };
    let cycle: Vec<Edge> = (0..size).map(hop).collect();
    Finding { anomaly: found.anomaly, words: explain::cycle(&cycle), cycle }
}

// --- promises ----------------------------------------------------------------------------------------

fn violations(resolved: &Resolved<'_>, graph: &Graph) -> Vec<Violation> {
    let mut violations = levels::bad_reads(resolved);
    violations.extend(levels::snapshots(resolved));
    let counts = |edge: &RawEdge| obliges(resolved, edge);
    let strict = |txn: usize| resolved.txns[txn].isolation.forbids().contains(&Anomaly::Realtime);
    for group in graph.components(resolved, counts, Some(&strict)) {
        let found = cycles::in_group(graph, resolved, &group, &counts);
        let worst = found.iter().min_by_key(|found| (found.nodes.len(), found.anomaly));
        violations.push(match worst {
            Some(found) => {
                let finding = finding(resolved, graph, found);
                Violation { anomaly: finding.anomaly, words: finding.words }
            }
            None => Violation {
                anomaly: Anomaly::Realtime,
                words: format!("{} transactions precede each other", group.len()),
            },
        });
    }
    violations
}

/// States that cannot have been, seen by transactions that were then aborted: parts of one
/// transaction's writes beside versions from before it.
fn zombies(resolved: &Resolved<'_>) -> Vec<String> {
    let mut words = BTreeSet::new();
    let ended = resolved.txns.iter().filter(|txn| txn.outcome != Outcome::Committed);
    for txn in ended.filter(|txn| saw_something_vanish(resolved, txn)) {
        for (writer, key) in observed(resolved, txn) {
            for read in txn.reads.iter().filter(|read| read.key != key) {
                if is_older(resolved, read, writer) {
                    let (seen, missed) = (resolved.keys[key], resolved.keys[read.key]);
                    words.insert(explain::zombie(resolved, txn, writer, seen, missed));
                }
            }
        }
    }
    words.into_iter().collect()
}

impl Edge {
    pub(crate) fn new(
        resolved: &Resolved<'_>,
        from: usize,
        to: usize,
        kind: EdgeKind,
        key: &Key,
        words: String,
    ) -> Edge {
        let name = |txn: usize| resolved.txns[txn].name.to_owned();
        Edge { from: name(from), to: name(to), kind, key: key.clone(), words }
    }
}
