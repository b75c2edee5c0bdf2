//! What a level asks of the order of transactions, as a graph that must have no cycle.
//!
//! Serializable (and repeatable read, on items): transactions are nodes, and every edge counts. Snapshot
//! allows cycles in which two rw edges follow each other (Fekete et al. 2005), so that each transaction
//! is two nodes: reached over ww or wr, from where every edge may follow, and reached over rw, from where
//! only ww and wr may.
//!
//! ```text
//!   ww, wr  T1 ──► T2     (T1, any) ──► (T2, any)     (T1, after rw) ──► (T2, any)
//!   rw      T1 ──► T2     (T1, any) ──► (T2, after rw)
//! ```

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use crate::graph::{EdgeKind, Graph, Moments, RawEdge};
use crate::resolve::{Resolved, Seen};
use crate::scc::Arcs;

/// What the graph of a level is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// No cycle over data, predicates apart.
    Items,
    /// No cycle over data.
    Serial,
    /// No cycle over data and real time.
    Strict,
    /// No cycle without two rw edges that follow each other.
    Snapshot,
}

/// Why an arc is there.
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// An edge that is certain.
    Certain(RawEdge),
    /// An edge of an order of versions that was inferred or tried.
    Ordered(RawEdge),
    /// A step of real time.
    Time,
}

#[derive(Clone, Debug)]
pub(super) struct Arc {
    pub from: usize,
    pub to: usize,
    /// Its number among the reasons.
    why: usize,
}

/// How many arcs and reasons there were.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    arcs: usize,
    reasons: usize,
}

/// See the module.
pub(super) struct Constraints<'r> {
    pub resolved: &'r Resolved<'r>,
    rule: Rule,
    pub nodes: usize,
    pub arcs: Vec<Arc>,
    reasons: Vec<Why>,
    /// Who read each version of the keys whose order is not known whole.
    readers: HashMap<(usize, usize), Vec<usize>>,
}

impl<'r> Constraints<'r> {
    /// The graph of what is certain. `sessions` are pairs of transactions that follow each other.
    pub fn of(resolved: &'r Resolved<'r>, graph: &Graph, rule: Rule, sessions: &[(usize, usize)]) -> Constraints<'r> {
        let txns = resolved.txns.len();
        let nodes = if rule == Rule::Snapshot { 2 * txns } else { txns };
        let (arcs, reasons, readers) = (Vec::new(), Vec::new(), readers(resolved));
        let mut constraints = Constraints { resolved, rule, nodes, arcs, reasons, readers };
        let counts = |edge: &&RawEdge| rule != Rule::Items || edge.kind != EdgeKind::RwPredicate;
        for edge in graph.edges().iter().filter(counts) {
            constraints.add(Why::Certain(edge.clone()), edge);
        }
        if rule == Rule::Strict {
            let moments = Moments::of(resolved, &|_| true);
            constraints.nodes += moments.count;
            constraints.reasons.push(Why::Time);
            let why = constraints.reasons.len() - 1;
            let time = moments.arcs.iter().chain(sessions);
            constraints.arcs.extend(time.map(|&(from, to)| Arc { from, to, why }));
        }
        constraints
    }

    fn add(&mut self, why: Why, edge: &RawEdge) {
        self.reasons.push(why);
        let why = self.reasons.len() - 1;
        for (from, to) in self.steps(edge).into_iter().flatten() {
            self.arcs.push(Arc { from, to, why });
        }
    }

    /// The arcs of an edge.
    pub fn steps(&self, edge: &RawEdge) -> [Option<(usize, usize)>; 2] {
        let (from, to) = (edge.from, edge.to);
        match (self.rule, edge.kind.is_rw()) {
            (Rule::Items | Rule::Serial | Rule::Strict, _) => [Some((from, to)), None],
            (Rule::Snapshot, true) => [Some((2 * from, 2 * to + 1)), None],
            (Rule::Snapshot, false) => [Some((2 * from, 2 * to)), Some((2 * from + 1, 2 * to))],
        }
    }

    /// The edges that hold if one version of a key comes before another.
    pub fn edges_of(&self, key: usize, first: usize, second: usize) -> Vec<RawEdge> {
        let versions = self.resolved.versions.of(key);
        let Some(to) = versions[second].writer else { return Vec::new() };
        let edge = |from, kind| RawEdge { from, to, kind, key, places: (first, second) };
        let written = versions[first].writer.map(|from| edge(from, EdgeKind::Ww));
        let readers = self.readers.get(&(key, first)).into_iter().flatten();
        let read = readers.filter(|reader| **reader != to).map(|reader| edge(*reader, EdgeKind::RwItem));
        written.into_iter().chain(read).collect()
    }

    /// Adds an order that was inferred or tried.
    pub fn order(&mut self, key: usize, first: usize, second: usize) {
        for edge in self.edges_of(key, first, second) {
            self.add(Why::Ordered(edge.clone()), &edge);
        }
    }

    /// What there is now, for [`undo_to`](Constraints::undo_to).
    pub fn mark(&self) -> Mark {
        Mark { arcs: self.arcs.len(), reasons: self.reasons.len() }
    }

    /// Takes back what was added since.
    pub fn undo_to(&mut self, mark: Mark) {
        self.arcs.truncate(mark.arcs);
        self.reasons.truncate(mark.reasons);
    }

    /// The node of a transaction from which every edge may follow.
    pub fn node(&self, txn: usize) -> usize {
        if self.rule == Rule::Snapshot { 2 * txn } else { txn }
    }

    /// The transaction of a node; none for a moment.
    pub fn txn(&self, node: usize) -> Option<usize> {
        let txn = if self.rule == Rule::Snapshot { node / 2 } else { node };
        (txn < self.resolved.txns.len()).then_some(txn)
    }

    /// The place of each node in one serial run of what is known: where nothing else decides, whoever
    /// ended first comes first.
    ///
    /// Databases that keep a level mostly order transactions by their ends, so that this run is a good
    /// guess at the orders that are not known. There must be no cycle.
    pub fn serial_run(&self) -> Vec<usize> {
        let graph = self.graph();
        let mut waits_for = vec![0_u32; self.nodes];
        self.arcs.iter().for_each(|arc| waits_for[arc.to] += 1);
        let ended = |node: usize| {
            let txn = self.txn(node).map(|txn| &self.resolved.txns[txn]);
            txn.map_or(0, |txn| txn.end.unwrap_or(txn.begin))
        };
        let free = (0..self.nodes).filter(|node| waits_for[*node] == 0);
        let mut ready: BinaryHeap<Reverse<(usize, usize)>> = free.map(|node| Reverse((ended(node), node))).collect();
        let mut run = vec![0; self.nodes];
        let mut place = 0;
        while let Some(Reverse((_, node))) = ready.pop() {
            run[node] = place;
            place += 1;
            for next in graph.from(node) {
                waits_for[next] -= 1;
                if waits_for[next] == 0 {
                    ready.push(Reverse((ended(next), next)));
                }
            }
        }
        run
    }

    /// Orders all versions of the keys whose order is not known whole as in a serial run: each before the
    /// next, from which the rest follows.
    pub fn order_as_in(&mut self, run: &[usize]) {
        let versions = &self.resolved.versions;
        for key in versions.partial_keys() {
            let of_key = versions.of(key);
            let mut places: Vec<usize> = (0..of_key.len()).collect();
            places.sort_by_key(|place| of_key[*place].writer.map(|txn| run[self.node(txn)]));
            for pair in places.windows(2) {
                self.order(key, pair[0], pair[1]);
            }
        }
    }

    pub fn graph(&self) -> Arcs {
        Arcs::new(self.nodes, self.arcs.iter().map(|arc| (arc.from, arc.to)))
    }

    /// A short cycle, as transactions and the reasons that lead from each to the next; none if there is
    /// no cycle.
    pub fn cycle(&self) -> Option<Vec<(usize, &Why)>> {
        let groups = self.graph().components().groups(self.nodes);
        let group = groups.iter().min_by_key(|group| group.len())?;
        let within = |node: usize| group.binary_search(&node).is_ok();
        let mut out: HashMap<usize, Vec<&Arc>> = HashMap::new();
        for arc in self.arcs.iter().filter(|arc| within(arc.from) && within(arc.to)) {
            out.entry(arc.from).or_default().push(arc);
        }
        let starts = group.iter().take(STARTS).filter(|node| self.txn(**node).is_some());
        let cycles = starts.filter_map(|start| way_around(*start, &out));
        let shortest = cycles.min_by_key(Vec::len)?;
        // A way through moments is one step of real time, from who ended to who began.
        let steps = shortest.into_iter().filter_map(|arc| Some((self.txn(arc.from)?, &self.reasons[arc.why])));
        Some(steps.collect())
    }
}

/// From how many nodes a short cycle is looked for.
const STARTS: usize = 200;

/// A shortest way from a node back to it.
fn way_around<'a>(start: usize, out: &HashMap<usize, Vec<&'a Arc>>) -> Option<Vec<&'a Arc>> {
    let mut parents: HashMap<usize, &Arc> = HashMap::new();
    let mut frontier = VecDeque::from([start]);
    while let Some(node) = frontier.pop_front() {
        for arc in out.get(&node).into_iter().flatten() {
            if let Entry::Vacant(parent) = parents.entry(arc.to) {
                parent.insert(arc);
                frontier.push_back(arc.to);
            }
        }
        if parents.contains_key(&start) {
            break;
        }
    }
    let mut way = vec![*parents.get(&start)?];
    while let Some(first) = way.last().filter(|arc| arc.from != start) {
        way.push(parents.get(&first.from)?);
    }
    way.reverse();
    Some(way)
}

fn readers(resolved: &Resolved<'_>) -> HashMap<(usize, usize), Vec<usize>> {
    let mut readers: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
    for (reader, txn) in resolved.committed() {
        for read in txn.reads.iter().filter(|read| resolved.versions.partial(read.key).is_some()) {
            let Seen::Version(place) = read.seen else { continue };
            let known = readers.entry((read.key, place)).or_default();
            if known.last() != Some(&reader) {
                known.push(reader);
            }
        }
    }
    readers
}
