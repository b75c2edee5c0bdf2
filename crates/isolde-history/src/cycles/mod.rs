//! Cycles in a group of transactions that reach each other, and what each of them means.
//!
//! In small groups every simple cycle is looked at, so that the smallest of each class is found and
//! none is missed. In large ones a search from each edge finds a short cycle of each class; that a
//! class has some cycle is what counts there.

mod large;

use crate::hash::HashMap;

use isolde_types::Anomaly;

use crate::graph::{EdgeKind, Graph, RawEdge, precedes};
use crate::resolve::Resolved;

/// Groups up to this size are searched completely.
const SMALL: usize = 9;

/// The kinds of edges between two transactions, as bits.
type Kinds = u8;

const WW: Kinds = 1;
const WR: Kinds = 2;
const ITEM: Kinds = 4;
const PREDICATE: Kinds = 8;
const REALTIME: Kinds = 16;
const DATA: Kinds = WW | WR;
const RW: Kinds = ITEM | PREDICATE;

fn bit(kind: EdgeKind) -> Kinds {
    match kind {
        EdgeKind::Ww => WW,
        EdgeKind::Wr => WR,
        EdgeKind::RwItem => ITEM,
        EdgeKind::RwPredicate => PREDICATE,
        EdgeKind::Realtime => REALTIME,
    }
}

/// A cycle of transactions: for each hop, the kinds of edges that the class makes of it.
pub(crate) struct Found {
    pub anomaly: Anomaly,
    pub nodes: Vec<usize>,
    /// What each hop, from a node to the next, may be taken for.
    pub hops: Vec<Kinds>,
}

/// What a class makes of the hops of a cycle, if it is one of that class.
type Class = fn(&[Kinds]) -> Option<Vec<Kinds>>;

/// The classes of cycles, each with what its hops must be.
const CLASSES: [(Anomaly, Class); 8] = [
    (Anomaly::DirtyWrite, |hops| all(hops, WW)),
    (Anomaly::CircularFlow, circular),
    (Anomaly::ReadSkewItem, |hops| single(hops, ITEM)),
    (Anomaly::ReadSkew, |hops| single(hops, PREDICATE)),
    (Anomaly::LongFork, long_fork),
    (Anomaly::WriteSkew, write_skew),
    (Anomaly::PredicateWriteSkew, predicate_write_skew),
    (Anomaly::Realtime, realtime),
];

fn all(hops: &[Kinds], kinds: Kinds) -> Option<Vec<Kinds>> {
    let taken: Vec<Kinds> = hops.iter().map(|hop| hop & kinds).collect();
    taken.iter().all(|hop| *hop != 0).then_some(taken)
}

/// ww and wr, at least one wr.
fn circular(hops: &[Kinds]) -> Option<Vec<Kinds>> {
    let mut taken = all(hops, DATA)?;
    let wr = taken.iter().position(|hop| hop & WR != 0)?;
    taken[wr] = WR;
    Some(taken)
}

/// Exactly one rw, of one kind.
fn single(hops: &[Kinds], kind: Kinds) -> Option<Vec<Kinds>> {
    let must: Vec<usize> = (0..hops.len()).filter(|hop| hops[*hop] & DATA == 0).collect();
    let rw = match must.as_slice() {
        [] => hops.iter().position(|hop| hop & kind != 0)?,
        [one] => *one,
        _ => return None,
    };
    (hops[rw] & kind != 0).then(|| taken_with(hops, &[rw], kind))
}

/// The hops with some taken as rw, the others as ww or wr.
fn taken_with(hops: &[Kinds], rw: &[usize], kind: Kinds) -> Vec<Kinds> {
    let taken = |(number, hop): (usize, &Kinds)| if rw.contains(&number) { hop & kind } else { hop & DATA };
    hops.iter().enumerate().map(taken).collect()
}

/// Two or more rw, all on items.
fn write_skew(hops: &[Kinds]) -> Option<Vec<Kinds>> {
    several(hops, ITEM, |_| true)
}

/// Two or more rw, some on predicates.
fn predicate_write_skew(hops: &[Kinds]) -> Option<Vec<Kinds>> {
    several(hops, RW, |taken| taken.iter().any(|hop| hop & RW == PREDICATE))
}

fn several(hops: &[Kinds], kind: Kinds, accept: impl Fn(&[Kinds]) -> bool) -> Option<Vec<Kinds>> {
    let can: Vec<usize> = (0..hops.len()).filter(|hop| hops[*hop] & kind != 0).collect();
    let others = hops.iter().all(|hop| hop & (kind | DATA) != 0);
    if can.len() < 2 || !others {
        return None;
    }
    let taken = taken_with(hops, &can, kind);
    accept(&taken).then_some(taken)
}

/// Two or more rw, no two of them adjacent.
fn long_fork(hops: &[Kinds]) -> Option<Vec<Kinds>> {
    let size = hops.len();
    if hops.iter().any(|hop| hop & (RW | DATA) == 0) {
        return None;
    }
    let must: Vec<usize> = (0..size).filter(|hop| hops[*hop] & DATA == 0).collect();
    let mut chosen = must.clone();
    for hop in (0..size).filter(|hop| hops[*hop] & RW != 0) {
        let apart = chosen.iter().all(|other| *other != hop && (other + 1) % size != hop && (hop + 1) % size != *other);
        if apart {
            chosen.push(hop);
        }
    }
    let adjacent = chosen.iter().any(|hop| chosen.contains(&((hop + 1) % size)));
    (chosen.len() >= 2 && !adjacent).then(|| taken_with(hops, &chosen, RW))
}

/// A cycle that closes only through real time.
fn realtime(hops: &[Kinds]) -> Option<Vec<Kinds>> {
    let any = all(hops, DATA | RW | REALTIME)?;
    any.contains(&REALTIME).then_some(any)
}

/// The smallest cycle of each class in a group.
pub(crate) fn in_group(
    graph: &Graph,
    resolved: &Resolved<'_>,
    group: &[usize],
    counts: &dyn Fn(&RawEdge) -> bool,
) -> Vec<Found> {
    if group.len() <= SMALL {
        in_small_group(graph, resolved, group, counts)
    } else {
        large::search(graph, resolved, group, counts)
    }
}

/// The kinds of edges between the members.
fn kinds_between(
    graph: &Graph,
    resolved: &Resolved<'_>,
    group: &[usize],
    counts: &dyn Fn(&RawEdge) -> bool,
) -> HashMap<(usize, usize), Kinds> {
    let mut kinds: HashMap<(usize, usize), Kinds> = HashMap::default();
    for from in group {
        for to in group.iter().filter(|to| *to != from) {
            let hop = data_between(graph, *from, *to, counts) | realtime_between(resolved, *from, *to, counts);
            if hop != 0 {
                kinds.insert((*from, *to), hop);
            }
        }
    }
    kinds
}

/// The kinds of edges of data from one transaction to another.
fn data_between(graph: &Graph, from: usize, to: usize, counts: &dyn Fn(&RawEdge) -> bool) -> Kinds {
    let edges = graph.between(from, to).iter().filter(|edge| counts(edge));
    edges.map(|edge| bit(edge.kind)).fold(0, |a, b| a | b)
}

fn realtime_between(resolved: &Resolved<'_>, from: usize, to: usize, counts: &dyn Fn(&RawEdge) -> bool) -> Kinds {
    let edge = RawEdge { from, to, kind: EdgeKind::Realtime, key: 0, places: (0, 0) };
    if precedes(resolved, from, to) && counts(&edge) { REALTIME } else { 0 }
}

fn in_small_group(
    graph: &Graph,
    resolved: &Resolved<'_>,
    group: &[usize],
    counts: &dyn Fn(&RawEdge) -> bool,
) -> Vec<Found> {
    let kinds = kinds_between(graph, resolved, group, counts);
    let mut best: HashMap<Anomaly, Found> = HashMap::default();
    for start in 0..group.len() {
        let mut walk = Walk { group, kinds: &kinds, best: &mut best, path: vec![group[start]] };
        walk.from(start);
    }
    let mut found: Vec<Found> = best.into_values().collect();
    found.sort_by_key(|found| found.anomaly);
    found
}

/// The smallest cycle of each class among those that take an edge. All cycles are looked at: for small
/// groups.
pub(crate) fn through(
    graph: &Graph,
    resolved: &Resolved<'_>,
    group: &[usize],
    edge: &RawEdge,
    counts: &dyn Fn(&RawEdge) -> bool,
) -> Vec<Found> {
    let others = group.iter().copied().filter(|txn| *txn != edge.from);
    let group: Vec<usize> = std::iter::once(edge.from).chain(others).collect();
    let mut kinds = kinds_between(graph, resolved, &group, counts);
    // Whoever goes round from there goes over this edge.
    kinds.retain(|(from, _), _| *from != edge.from);
    kinds.insert((edge.from, edge.to), bit(edge.kind));
    let mut best = HashMap::default();
    Walk { group: &group, kinds: &kinds, best: &mut best, path: vec![edge.from] }.from(0);
    let mut found: Vec<Found> = best.into_values().collect();
    found.sort_by_key(|found| found.anomaly);
    found
}

/// All simple cycles whose smallest member is the one that the walk starts from. The depth is at most
/// the size of a small group.
struct Walk<'w> {
    group: &'w [usize],
    kinds: &'w HashMap<(usize, usize), Kinds>,
    best: &'w mut HashMap<Anomaly, Found>,
    path: Vec<usize>,
}

impl Walk<'_> {
    fn from(&mut self, start: usize) {
        let at = self.path[self.path.len() - 1];
        if self.path.len() > 1 && self.kinds.contains_key(&(at, self.path[0])) {
            self.consider();
        }
        for next in start + 1..self.group.len() {
            let node = self.group[next];
            if !self.path.contains(&node) && self.kinds.contains_key(&(at, node)) {
                self.path.push(node);
                self.from(start);
                self.path.pop();
            }
        }
    }

    fn consider(&mut self) {
        let size = self.path.len();
        let hops: Vec<Kinds> =
            (0..size).map(|hop| self.kinds[&(self.path[hop], self.path[(hop + 1) % size])]).collect();
        for (anomaly, class) in CLASSES {
            let smaller = self.best.get(&anomaly).is_none_or(|found| size < found.nodes.len());
            if smaller && let Some(hops) = class(&hops) {
                self.best.insert(anomaly, Found { anomaly, nodes: self.path.clone(), hops });
            }
        }
    }
}

/// Whether a hop that may be taken for `kinds` can be this edge.
pub(crate) fn fits(kinds: u8, kind: EdgeKind) -> bool {
    kinds & bit(kind) != 0
}
