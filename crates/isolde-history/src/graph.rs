//! The direct serialization graph (Adya 1999): committed transactions, and what forces one before the
//! other.

use isolde_types::Isolation;

use crate::resolve::{Outcome, ReadRec, Resolved, Seen, VersionRec};
use crate::scc::Arcs;

/// Why one transaction comes before another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EdgeKind {
    /// It installed the version before the other's.
    Ww,
    /// It wrote the version that the other read.
    Wr,
    /// It read the version before the other's, by name or as a row of a scan.
    RwItem,
    /// The other added a key to a span that it scanned, or took one out of it.
    RwPredicate,
    /// It ended before the other began.
    Realtime,
}

impl EdgeKind {
    /// `ww`, `wr`, `rw` or `rt`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EdgeKind::Ww => "ww",
            EdgeKind::Wr => "wr",
            EdgeKind::RwItem | EdgeKind::RwPredicate => "rw",
            EdgeKind::Realtime => "rt",
        }
    }

    /// Whether it is a read that the other's write made stale.
    #[must_use]
    pub const fn is_rw(self) -> bool {
        matches!(self, EdgeKind::RwItem | EdgeKind::RwPredicate)
    }
}

/// An edge between two transactions, by their numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RawEdge {
    pub from: usize,
    pub to: usize,
    pub kind: EdgeKind,
    /// The key, by its number; real time has none, and says 0.
    pub key: usize,
    /// The places, in the key's order, of the version of `from`'s access and of `to`'s.
    pub places: (usize, usize),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// By the transaction that they leave, the one that they lead to, and kind.
    edges: Vec<RawEdge>,
    /// Where the edges that leave each transaction begin, and the end.
    starts: Vec<usize>,
    /// How many edges were added of reads whose next version is one of several.
    loose: usize,
    /// Whether some of those were left out, because there are too many.
    pub cut: bool,
}

/// How many rw edges there may be to versions whose order is not known whole: each reader of a version
/// may have one to each version that may be the next, which is no longer linear.
const LOOSE: usize = 4_000_000;

impl Graph {
    pub fn of(resolved: &Resolved<'_>) -> Graph {
        let mut graph = Graph::default();
        for (key, versions) in resolved.versions.each() {
            for (place, version) in versions.iter().enumerate() {
                let Some(from) = version.writer else { continue };
                for next in resolved.versions.following(key, place) {
                    if let Some(to) = versions[next].writer {
                        graph.add(from, to, EdgeKind::Ww, key, (place, next));
                    }
                }
            }
        }
        for (reader, txn) in resolved.committed() {
            for read in &txn.reads {
                graph.add_read(resolved, reader, read);
            }
        }
        graph.prefer_items(resolved.txns.len());
        graph
    }

    fn add_read(&mut self, resolved: &Resolved<'_>, reader: usize, read: &ReadRec<'_>) {
        let Seen::Version(place) = read.seen else { return };
        let versions = resolved.versions.of(read.key);
        if let Some(writer) = versions.get(place).and_then(|version| version.writer) {
            self.add(writer, reader, EdgeKind::Wr, read.key, (place, place));
        }
        if !read.tracked {
            return;
        }
        if read.item {
            let partial = resolved.versions.partial(read.key).is_some();
            for next in resolved.versions.following(read.key, place) {
                if partial && self.loose == LOOSE {
                    self.cut = true;
                    break;
                }
                self.loose += usize::from(partial);
                self.add_overwritten(reader, EdgeKind::RwItem, read.key, (place, next), versions);
            }
        } else if let Some(next) = (place + 1..versions.len()).find(|next| versions[*next].value.is_some()) {
            self.add_overwritten(reader, EdgeKind::RwPredicate, read.key, (place, next), versions);
        }
    }

    fn add_overwritten(
        &mut self,
        reader: usize,
        kind: EdgeKind,
        key: usize,
        places: (usize, usize),
        versions: &[VersionRec<'_>],
    ) {
        if let Some(writer) = versions[places.1].writer {
            self.add(reader, writer, kind, key, places);
        }
    }

    fn add(&mut self, from: usize, to: usize, kind: EdgeKind, key: usize, places: (usize, usize)) {
        if from != to {
            self.edges.push(RawEdge { from, to, kind, key, places });
        }
    }

    /// An edge that is both item and predicate counts as item; and one edge of a kind between two
    /// transactions is enough.
    fn prefer_items(&mut self, txns: usize) {
        self.edges.sort_by_key(|edge| (edge.from, edge.to, edge.key, edge.kind));
        self.edges.dedup_by(|b, a| {
            (a.from, a.to, a.key) == (b.from, b.to, b.key) && (a.kind == b.kind || (a.kind.is_rw() && b.kind.is_rw()))
        });
        self.edges.sort_by_key(|edge| (edge.from, edge.to, edge.kind));
        self.edges.dedup_by_key(|edge| (edge.from, edge.to, edge.kind));
        let mut starts = vec![0; txns + 1];
        self.edges.iter().for_each(|edge| starts[edge.from + 1] += 1);
        for txn in 0..txns {
            starts[txn + 1] += starts[txn];
        }
        self.starts = starts;
    }

    /// All edges, by the transaction that they leave.
    pub fn edges(&self) -> &[RawEdge] {
        &self.edges
    }

    /// The edges that leave a transaction, by the one that they lead to.
    pub fn leaving(&self, from: usize) -> &[RawEdge] {
        &self.edges[self.starts[from]..self.starts[from + 1]]
    }

    /// Groups of transactions that reach each other over edges that `counts` admits; with real time,
    /// also over "ended before the other began" for those whom `strict` admits.
    ///
    /// Real time is a chain of moments, one for each end: a transaction leads to the moment of its
    /// end, a moment to the next one, and to every transaction that begins before that.
    pub fn components(
        &self,
        resolved: &Resolved<'_>,
        counts: impl Fn(&RawEdge) -> bool,
        strict: Option<&dyn Fn(usize) -> bool>,
    ) -> Vec<Vec<usize>> {
        let size = resolved.txns.len();
        let moments = strict.map_or_else(Moments::default, |strict| Moments::of(resolved, strict));
        let data = self.edges.iter().filter(|edge| counts(edge)).map(|edge| (edge.from, edge.to));
        let arcs = Arcs::new(size + moments.count, data.chain(moments.arcs.iter().copied()));
        let mut groups = arcs.components().groups(size);
        groups.sort();
        groups
    }

    /// The edges from one transaction to another.
    pub fn between(&self, from: usize, to: usize) -> &[RawEdge] {
        let leaving = self.leaving(from);
        let first = leaving.partition_point(|edge| edge.to < to);
        let count = leaving[first..].partition_point(|edge| edge.to == to);
        &leaving[first..first + count]
    }
}

/// The moments of real time, as nodes behind the transactions.
#[derive(Default)]
pub(crate) struct Moments {
    pub count: usize,
    pub arcs: Vec<(usize, usize)>,
}

impl Moments {
    pub fn of(resolved: &Resolved<'_>, strict: &dyn Fn(usize) -> bool) -> Moments {
        let mut marks: Vec<(usize, bool, usize)> = Vec::new();
        for (number, txn) in resolved.committed() {
            marks.push((txn.begin, false, number));
            marks.extend(txn.end.map(|end| (end, true, number)));
        }
        marks.sort_unstable();
        let mut moments = Moments::default();
        let first = resolved.txns.len();
        for (_, is_end, txn) in marks {
            if is_end {
                let next = first + moments.count;
                if moments.count > 0 {
                    moments.arcs.push((next - 1, next));
                }
                moments.arcs.push((txn, next));
                moments.count += 1;
            } else if moments.count > 0 && strict(txn) {
                moments.arcs.push((first + moments.count - 1, txn));
            }
        }
        moments
    }
}

/// Whether an edge obliges somebody, in a history where each transaction is owed its own level.
///
/// ww always; wr if the reader is at read committed or above; rw on items if the reader is at
/// repeatable read or serializable, on predicates if it is serializable. (Snapshot transactions are
/// judged by their own two rules.)
pub(crate) fn obliges(resolved: &Resolved<'_>, edge: &RawEdge) -> bool {
    let level = |txn: usize| resolved.txns[txn].isolation;
    match edge.kind {
        EdgeKind::Ww => true,
        EdgeKind::Wr => level(edge.to) != Isolation::ReadUncommitted,
        EdgeKind::RwItem => matches!(level(edge.from), Isolation::RepeatableRead | Isolation::Serializable),
        EdgeKind::RwPredicate => level(edge.from) == Isolation::Serializable,
        EdgeKind::Realtime => level(edge.to) == Isolation::Serializable,
    }
}

/// Whom an edge obliges: the reader, the later one in real time, and both who wrote a key.
pub(crate) fn is_obliged(edge: &RawEdge, txn: usize) -> bool {
    match edge.kind {
        EdgeKind::Ww => txn == edge.from || txn == edge.to,
        EdgeKind::Wr | EdgeKind::Realtime => txn == edge.to,
        EdgeKind::RwItem | EdgeKind::RwPredicate => txn == edge.from,
    }
}

/// Whether a transaction ended before another began.
pub(crate) fn precedes(resolved: &Resolved<'_>, first: usize, second: usize) -> bool {
    let (a, b) = (&resolved.txns[first], &resolved.txns[second]);
    a.outcome == Outcome::Committed && a.end.is_some_and(|end| end < b.begin)
}
