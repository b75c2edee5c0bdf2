//! The direct serialization graph (Adya 1999): committed transactions, and what forces one before the
//! other.

use std::collections::HashMap;

use isolde_types::{Isolation, Key};
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::resolve::{Outcome, Resolved, Seen};

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
    pub key: Key,
    /// The places, in the key's order, of the version of `from`'s access and of `to`'s.
    pub places: (usize, usize),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub edges: Vec<RawEdge>,
    /// The edges that leave a transaction.
    pub out: Vec<Vec<usize>>,
}

impl Graph {
    pub fn of(resolved: &Resolved) -> Graph {
        let mut graph = Graph { edges: Vec::new(), out: vec![Vec::new(); resolved.txns.len()] };
        for (key, versions) in &resolved.versions {
            for (place, pair) in versions.windows(2).enumerate() {
                if let (Some(from), Some(to)) = (pair[0].writer, pair[1].writer) {
                    graph.add(from, to, EdgeKind::Ww, key, (place, place + 1));
                }
            }
        }
        for (reader, txn) in resolved.committed() {
            for read in &txn.reads {
                let Seen::Version(place) = read.seen else { continue };
                let Some(versions) = resolved.versions.get(&read.key) else { continue };
                if let Some(writer) = versions.get(place).and_then(|version| version.writer) {
                    graph.add(writer, reader, EdgeKind::Wr, &read.key, (place, place));
                }
                if !read.tracked {
                    continue;
                }
                let next = if read.item {
                    (place + 1 < versions.len()).then_some(place + 1)
                } else {
                    (place + 1..versions.len()).find(|next| versions[*next].value.is_some())
                };
                if let Some(next) = next
                    && let Some(writer) = versions[next].writer
                {
                    let kind = if read.item { EdgeKind::RwItem } else { EdgeKind::RwPredicate };
                    graph.add(reader, writer, kind, &read.key, (place, next));
                }
            }
        }
        graph.prefer_items();
        graph
    }

    fn add(&mut self, from: usize, to: usize, kind: EdgeKind, key: &Key, places: (usize, usize)) {
        if from != to {
            self.edges.push(RawEdge { from, to, kind, key: key.clone(), places });
        }
    }

    /// An edge that is both item and predicate counts as item; and one edge of a kind between two
    /// transactions is enough.
    fn prefer_items(&mut self) {
        self.edges.sort_by(|a, b| (a.from, a.to, &a.key, a.kind).cmp(&(b.from, b.to, &b.key, b.kind)));
        self.edges.dedup_by(|b, a| {
            (a.from, a.to, &a.key) == (b.from, b.to, &b.key) && (a.kind == b.kind || (a.kind.is_rw() && b.kind.is_rw()))
        });
        self.edges.sort_by_key(|edge| (edge.from, edge.to, edge.kind));
        self.edges.dedup_by_key(|edge| (edge.from, edge.to, edge.kind));
        for (number, edge) in self.edges.iter().enumerate() {
            self.out[edge.from].push(number);
        }
    }

    /// Groups of transactions that reach each other over edges that `counts` admits; with real time,
    /// also over "ended before the other began" for those whom `strict` admits.
    ///
    /// Real time is a chain of moments, one for each end: a transaction leads to the moment of its
    /// end, a moment to the next one, and to every transaction that begins before that.
    pub fn components(
        &self,
        resolved: &Resolved,
        counts: impl Fn(&RawEdge) -> bool,
        strict: Option<&dyn Fn(usize) -> bool>,
    ) -> Vec<Vec<usize>> {
        let size = resolved.txns.len();
        let mut graph: DiGraph<(), ()> = DiGraph::with_capacity(size, self.edges.len());
        let nodes: Vec<NodeIndex> = (0..size).map(|_| graph.add_node(())).collect();
        for edge in self.edges.iter().filter(|edge| counts(edge)) {
            graph.add_edge(nodes[edge.from], nodes[edge.to], ());
        }
        if let Some(strict) = strict {
            add_moments(&mut graph, &nodes, resolved, strict);
        }
        let components = kosaraju_scc(&graph).into_iter().filter(|component| component.len() > 1);
        let mut groups: Vec<Vec<usize>> = components
            .map(|component| {
                let mut members: Vec<usize> =
                    component.into_iter().map(NodeIndex::index).filter(|node| *node < size).collect();
                members.sort_unstable();
                members
            })
            .filter(|members| members.len() > 1)
            .collect();
        groups.sort();
        groups
    }

    /// The kinds of edges from one transaction to another.
    pub fn between(&self, from: usize, to: usize) -> impl Iterator<Item = &RawEdge> {
        self.out[from].iter().map(|edge| &self.edges[*edge]).filter(move |edge| edge.to == to)
    }
}

fn add_moments(graph: &mut DiGraph<(), ()>, nodes: &[NodeIndex], resolved: &Resolved, strict: &dyn Fn(usize) -> bool) {
    let mut marks: HashMap<usize, (bool, usize)> = HashMap::new();
    for (number, txn) in resolved.committed() {
        marks.insert(txn.begin, (false, number));
        if let Some(end) = txn.end {
            marks.insert(end, (true, number));
        }
    }
    let mut order: Vec<usize> = marks.keys().copied().collect();
    order.sort_unstable();
    let mut moment: Option<NodeIndex> = None;
    for at in order {
        match marks[&at] {
            (true, ended) => {
                let next = graph.add_node(());
                if let Some(earlier) = moment {
                    graph.add_edge(earlier, next, ());
                }
                graph.add_edge(nodes[ended], next, ());
                moment = Some(next);
            }
            (false, begun) => {
                if let Some(moment) = moment.filter(|_| strict(begun)) {
                    graph.add_edge(moment, nodes[begun], ());
                }
            }
        }
    }
}

/// Whether an edge obliges somebody, in a history where each transaction is owed its own level.
///
/// ww always; wr if the reader is at read committed or above; rw on items if the reader is at
/// repeatable read or serializable, on predicates if it is serializable. (Snapshot transactions are
/// judged by their own two rules.)
pub(crate) fn obliges(resolved: &Resolved, edge: &RawEdge) -> bool {
    let level = |txn: usize| resolved.txns[txn].isolation;
    match edge.kind {
        EdgeKind::Ww => true,
        EdgeKind::Wr => level(edge.to) != Isolation::ReadUncommitted,
        EdgeKind::RwItem => matches!(level(edge.from), Isolation::RepeatableRead | Isolation::Serializable),
        EdgeKind::RwPredicate => level(edge.from) == Isolation::Serializable,
        EdgeKind::Realtime => level(edge.to) == Isolation::Serializable,
    }
}

/// Whether a transaction ended before another began.
pub(crate) fn precedes(resolved: &Resolved, first: usize, second: usize) -> bool {
    let (a, b) = (&resolved.txns[first], &resolved.txns[second]);
    a.outcome == Outcome::Committed && a.end.is_some_and(|end| end < b.begin)
}
