//! Short cycles in large groups.
//!
//! A cycle of a class is one edge of a kind that it needs and a way back over kinds that it allows, so
//! it lies within one component of those kinds: most edges are ruled out before any search. A search
//! goes only where the way back can still be, by the order of the components of the way's kinds.

use std::collections::VecDeque;

use isolde_types::Anomaly;

use super::{CLASSES, DATA, Found, ITEM, Kinds, PREDICATE, REALTIME, RW, WR, WW, bit, data_between, realtime_between};
use crate::graph::{Graph, RawEdge};
use crate::resolve::Resolved;
use crate::scc::{Arcs, Components};

/// How many edges a search starts from, for each class.
const STARTS: usize = 2_000;

/// How many edges the searches for one class may pass.
const STEPS: usize = 5_000_000;

/// For each class: the kinds of the edge that a search starts from, and those of the way back.
const SEARCHES: [(Anomaly, Kinds, Kinds); 7] = [
    (Anomaly::DirtyWrite, WW, WW),
    (Anomaly::CircularFlow, WR, DATA),
    (Anomaly::ReadSkewItem, ITEM, DATA),
    (Anomaly::ReadSkew, PREDICATE, DATA),
    (Anomaly::LongFork, RW, RW | DATA),
    (Anomaly::WriteSkew, ITEM, ITEM | DATA),
    (Anomaly::PredicateWriteSkew, PREDICATE, RW | DATA),
];

/// A short cycle of each class that the group has.
pub(super) fn search(
    graph: &Graph,
    resolved: &Resolved<'_>,
    group: &[usize],
    counts: &dyn Fn(&RawEdge) -> bool,
) -> Vec<Found> {
    let local = Local::of(graph, group, counts);
    let found = SEARCHES.into_iter().filter_map(|(anomaly, first, rest)| {
        let (_, class) = CLASSES.iter().find(|(name, _)| *name == anomaly)?;
        let mut best: Option<Found> = None;
        for nodes in local.cycles(first, rest) {
            let smaller = best.as_ref().is_none_or(|best| nodes.len() < best.nodes.len());
            if smaller && let Some(hops) = class(&hops_of(graph, &nodes, counts)) {
                // No cycle is smaller than two.
                let smallest = nodes.len() == 2;
                best = Some(Found { anomaly, nodes, hops });
                if smallest {
                    break;
                }
            }
        }
        best
    });
    let mut found: Vec<Found> = found.collect();
    found.extend(stale(graph, resolved, &local, counts));
    found
}

/// A short cycle that closes only through real time.
///
/// One step of real time is enough: of two steps in a cycle, a ► b and c ► d, either a ended before d
/// began or c before b did, and then a shorter cycle has one of them less. So a way over data is searched
/// from each transaction to one that ended before it began, where there can be one.
fn stale(
    graph: &Graph,
    resolved: &Resolved<'_>,
    local: &Local<'_>,
    counts: &dyn Fn(&RawEdge) -> bool,
) -> Option<Found> {
    let order = local.components(DATA | RW);
    let ends = local.earliest_ends(resolved, &order);
    let mut search = Search::new(local, DATA | RW, order);
    let mut best: Option<Vec<usize>> = None;
    let begins = |member: usize| resolved.txns[local.group[member]].begin;
    let stale = (0..local.group.len()).filter(|member| ends[search.order.of(*member)] < begins(*member));
    for start in stale.take(STARTS).collect::<Vec<_>>() {
        let to = local.group[start];
        let closes = |end: usize| {
            let from = local.group[end];
            realtime_between(resolved, from, to, counts) != 0 && data_between(graph, from, to, counts) == 0
        };
        let way = search.way(start, closes);
        if let Some(way) = way.filter(|way| best.as_ref().is_none_or(|best| way.len() < best.len())) {
            let smallest = way.len() == 2;
            best = Some(way);
            if smallest {
                break;
            }
        }
    }
    let nodes = best?;
    let mut hops = hops_of(graph, &nodes, counts);
    *hops.last_mut()? = REALTIME;
    Some(Found { anomaly: Anomaly::Realtime, nodes, hops })
}

fn hops_of(graph: &Graph, nodes: &[usize], counts: &dyn Fn(&RawEdge) -> bool) -> Vec<Kinds> {
    let size = nodes.len();
    (0..size).map(|hop| data_between(graph, nodes[hop], nodes[(hop + 1) % size], counts)).collect()
}

/// An edge within the group, by places in it.
#[derive(Clone, Copy)]
struct Arc {
    from: usize,
    to: usize,
    kind: Kinds,
}

/// The group as a graph of its own.
struct Local<'g> {
    group: &'g [usize],
    arcs: Vec<Arc>,
    /// Where the arcs that leave each member begin, and the end.
    starts: Vec<usize>,
}

impl<'g> Local<'g> {
    fn of(graph: &Graph, group: &'g [usize], counts: &dyn Fn(&RawEdge) -> bool) -> Local<'g> {
        let mut local = Local { group, arcs: Vec::new(), starts: vec![0] };
        for (from, txn) in group.iter().enumerate() {
            for edge in graph.leaving(*txn).iter().filter(|edge| counts(edge)) {
                if let Ok(to) = group.binary_search(&edge.to) {
                    local.arcs.push(Arc { from, to, kind: bit(edge.kind) });
                }
            }
            local.starts.push(local.arcs.len());
        }
        local
    }

    fn leaving(&self, from: usize) -> &[Arc] {
        &self.arcs[self.starts[from]..self.starts[from + 1]]
    }

    fn components(&self, kinds: Kinds) -> Components {
        let arcs = self.arcs.iter().filter(|arc| arc.kind & kinds != 0).map(|arc| (arc.from, arc.to));
        Arcs::new(self.group.len(), arcs).components()
    }

    /// For each component: when the first of all ended that it leads to.
    fn earliest_ends(&self, resolved: &Resolved<'_>, components: &Components) -> Vec<usize> {
        let mut ends = vec![usize::MAX; components.count];
        for (member, txn) in self.group.iter().enumerate() {
            let end = &mut ends[components.of(member)];
            *end = resolved.txns[*txn].end.unwrap_or(usize::MAX).min(*end);
        }
        let mut between: Vec<(usize, usize)> =
            self.arcs.iter().map(|arc| (components.of(arc.from), components.of(arc.to))).collect();
        // A component has a larger number than those it leads to.
        between.sort_unstable();
        between.into_iter().for_each(|(from, to)| ends[from] = ends[from].min(ends[to]));
        ends
    }

    /// Cycles of an edge of the first kinds and a shortest way back over the others.
    fn cycles(&self, first: Kinds, rest: Kinds) -> impl Iterator<Item = Vec<usize>> {
        let (around, back) = (self.components(first | rest), self.components(rest));
        let mut starts = Vec::new();
        for arc in self.arcs.iter().filter(|arc| arc.kind & first != 0) {
            let may_close = around.of(arc.from) == around.of(arc.to) && back.of(arc.to) >= back.of(arc.from);
            if may_close && starts.len() < STARTS {
                starts.push(*arc);
            }
        }
        let mut search = Search::new(self, rest, back);
        starts.into_iter().filter_map(move |arc| search.way_back(arc))
    }
}

/// Breadth-first searches that share their memory.
struct Search<'l> {
    local: &'l Local<'l>,
    kinds: Kinds,
    /// By the components of those kinds: a way never leads to a larger number.
    order: Components,
    /// The search that reached each member last, and from where.
    reached: Vec<(u32, usize)>,
    round: u32,
    steps: usize,
}

impl<'l> Search<'l> {
    fn new(local: &'l Local<'l>, kinds: Kinds, order: Components) -> Search<'l> {
        let reached = vec![(0, 0); local.group.len()];
        Search { local, kinds, order, reached, round: 0, steps: 0 }
    }

    /// A shortest way from an edge's end back to its beginning, as transactions from that beginning on.
    fn way_back(&mut self, arc: Arc) -> Option<Vec<usize>> {
        self.round += 1;
        self.reached[arc.to] = (self.round, arc.from);
        let mut frontier = VecDeque::from([arc.to]);
        while let Some(node) = frontier.pop_front() {
            if node == arc.from {
                return Some(self.path(arc.from));
            }
            for next in self.local.leaving(node) {
                self.steps += 1;
                let leads_back = self.order.of(next.to) >= self.order.of(arc.from);
                if next.kind & self.kinds != 0 && leads_back && self.reached[next.to].0 != self.round {
                    self.reached[next.to] = (self.round, node);
                    frontier.push_back(next.to);
                }
            }
            if self.steps > STEPS {
                return None;
            }
        }
        None
    }

    /// A shortest way from a member to another that `ends` it, as transactions.
    fn way(&mut self, start: usize, ends: impl Fn(usize) -> bool) -> Option<Vec<usize>> {
        self.round += 1;
        self.reached[start] = (self.round, start);
        let mut frontier = VecDeque::from([start]);
        while let Some(node) = frontier.pop_front() {
            if node != start && ends(node) {
                self.reached[start].1 = node;
                return Some(self.path(start));
            }
            for next in self.local.leaving(node) {
                self.steps += 1;
                if self.reached[next.to].0 != self.round {
                    self.reached[next.to] = (self.round, node);
                    frontier.push_back(next.to);
                }
            }
            if self.steps > STEPS {
                return None;
            }
        }
        None
    }

    fn path(&self, end: usize) -> Vec<usize> {
        let mut path = Vec::new();
        let mut at = self.reached[end].1;
        while at != end {
            path.push(self.local.group[at]);
            at = self.reached[at].1;
        }
        path.push(self.local.group[end]);
        path.reverse();
        path
    }
}
