//! Is there an order of the versions that keeps a level?
//!
//! For each two versions of a key whose order is not known, one order or the other must hold, and each
//! brings edges with it. Where one of them would close a cycle the other is inferred, and so on until
//! nothing new follows (as Cobra and PolySI prune). What is left is tried, one pair after the other,
//! with what follows from it; within a budget, since the question is NP-complete (Papadimitriou 1979).

use super::constraints::{Constraints, Mark};
use crate::scc::Components;

/// The largest graph whose reachability is kept as a table: 12,000 nodes are 18 MB.
const NODES: usize = 12_000;

/// The most pairs whose order is asked for.
const PAIRS: usize = 1_000_000;

/// How much work is done before the answer is "unknown": steps of 64 nodes.
const WORK: usize = 1_500_000_000;

/// The answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Some order keeps the level.
    Holds,
    /// What is certain breaks it, or what was inferred from that.
    Violated,
    /// Every order breaks it in some way, found by trying.
    EveryOrder,
    /// There are too many orders to try.
    Unknown,
}

/// Two versions of a key, one before the other.
#[derive(Clone, Copy, Debug)]
struct Pair {
    key: usize,
    one: usize,
    other: usize,
}

impl Pair {
    fn turned(self) -> Pair {
        Pair { key: self.key, one: self.other, other: self.one }
    }
}

/// What one round of inference came to.
enum Round {
    Contradiction,
    Nothing,
}

/// A decision that was tried, to be taken back.
struct Try {
    mark: Mark,
    /// How many pairs had an order.
    settled: usize,
    /// What is left to be tried: the pair in the other order.
    then: Option<(usize, Pair)>,
}

/// Answers for the constraints; they are left with what was inferred, or with the cycle that it made.
pub(super) fn solve(constraints: &mut Constraints<'_>) -> Answer {
    if has_cycle(&constraints.graph().components(), constraints) {
        return Answer::Violated;
    }
    if some_serial_run_fits(constraints) {
        return Answer::Holds;
    }
    if constraints.nodes > NODES {
        return Answer::Unknown;
    }
    let Some(pairs) = open_pairs(constraints) else { return Answer::Unknown };
    let settled = vec![false; pairs.len()];
    Solver { constraints, pairs, settled, trail: Vec::new(), work: 0 }.run()
}

/// Whether the versions can be ordered as in one serial run that agrees with what is known. In histories
/// that keep the level they mostly can, however long the history.
fn some_serial_run_fits(constraints: &mut Constraints<'_>) -> bool {
    let mark = constraints.mark();
    let run = constraints.serial_run();
    constraints.order_as_in(&run);
    let fits = !has_cycle(&constraints.graph().components(), constraints);
    constraints.undo_to(mark);
    fits
}

fn has_cycle(components: &Components, constraints: &Constraints<'_>) -> bool {
    components.count < constraints.nodes
}

/// The pairs whose order is not known; none if they are too many.
fn open_pairs(constraints: &Constraints<'_>) -> Option<Vec<Pair>> {
    let versions = &constraints.resolved.versions;
    let mut pairs = Vec::new();
    for key in versions.partial_keys() {
        let size = versions.of(key).len();
        if size.checked_mul(size).is_none_or(|square| square / 2 + pairs.len() > PAIRS) {
            return None;
        }
        for one in 1..size {
            for other in one + 1..size {
                if !versions.is_newer(key, one, other) && !versions.is_newer(key, other, one) {
                    pairs.push(Pair { key, one, other });
                }
            }
        }
    }
    Some(pairs)
}

struct Solver<'c, 'r> {
    constraints: &'c mut Constraints<'r>,
    pairs: Vec<Pair>,
    /// Which pairs have an order.
    settled: Vec<bool>,
    /// Those pairs, in the order in which they got it.
    trail: Vec<usize>,
    work: usize,
}

impl Solver<'_, '_> {
    fn run(mut self) -> Answer {
        let mut tries: Vec<Try> = Vec::new();
        loop {
            match self.infer() {
                None => return Answer::Unknown,
                Some(Round::Contradiction) if tries.is_empty() => return Answer::Violated,
                Some(Round::Contradiction) => {
                    if !self.take_back(&mut tries) {
                        return Answer::EveryOrder;
                    }
                }
                Some(Round::Nothing) if some_serial_run_fits(self.constraints) => return Answer::Holds,
                Some(Round::Nothing) => self.decide(&mut tries),
            }
        }
    }

    /// Infers until nothing new follows; none if the budget is used up.
    fn infer(&mut self) -> Option<Round> {
        loop {
            let components = self.constraints.graph().components();
            if has_cycle(&components, self.constraints) {
                return Some(Round::Contradiction);
            }
            self.work += self.constraints.arcs.len() * self.constraints.nodes.div_ceil(64) + self.pairs.len();
            if self.work > WORK {
                return None;
            }
            let reach = Reach::of(self.constraints, &components);
            let before = self.trail.len();
            for number in 0..self.pairs.len() {
                let pair = self.pairs[number];
                if self.settled[number] {
                    continue;
                }
                match (self.is_possible(pair, &reach), self.is_possible(pair.turned(), &reach)) {
                    (true, true) => {}
                    // Where neither is possible, adding one of them shows the cycle.
                    (true, false) | (false, false) => self.settle(number, pair),
                    (false, true) => self.settle(number, pair.turned()),
                }
            }
            if self.trail.len() == before {
                return Some(Round::Nothing);
            }
        }
    }

    fn settle(&mut self, number: usize, pair: Pair) {
        self.constraints.order(pair.key, pair.one, pair.other);
        self.settled[number] = true;
        self.trail.push(number);
    }

    /// Whether an order closes no cycle by itself.
    fn is_possible(&self, pair: Pair, reach: &Reach) -> bool {
        let edges = self.constraints.edges_of(pair.key, pair.one, pair.other);
        let mut steps = edges.iter().flat_map(|edge| self.constraints.steps(edge)).flatten();
        !steps.any(|(from, to)| reach.leads(to, from))
    }

    /// Tries an order of a pair: that of a serial run that agrees with what is known.
    fn decide(&mut self, tries: &mut Vec<Try>) {
        let Some(number) = self.settled.iter().position(|settled| !settled) else { return };
        let (run, pair) = (self.constraints.serial_run(), self.pairs[number]);
        let versions = self.constraints.resolved.versions.of(pair.key);
        let place = |place: usize| versions[place].writer.map(|txn| run[self.constraints.node(txn)]);
        let pair = if place(pair.one) <= place(pair.other) { pair } else { pair.turned() };
        let (mark, settled) = (self.constraints.mark(), self.trail.len());
        tries.push(Try { mark, settled, then: Some((number, pair.turned())) });
        self.settle(number, pair);
    }

    /// Goes back to the last decision that can be made the other way; whether there is one.
    fn take_back(&mut self, tries: &mut Vec<Try>) -> bool {
        while let Some(last) = tries.last_mut() {
            if let Some((number, pair)) = last.then.take() {
                self.constraints.undo_to(last.mark);
                self.trail.drain(last.settled..).for_each(|number| self.settled[number] = false);
                self.settle(number, pair);
                return true;
            }
            tries.pop();
        }
        false
    }
}

/// Which node leads to which, as a table of bits.
struct Reach {
    bits: Vec<u64>,
    words: usize,
}

impl Reach {
    /// Of a graph without cycles: by the order of its components, from the last to the first.
    fn of(constraints: &Constraints<'_>, components: &Components) -> Reach {
        let (nodes, words) = (constraints.nodes, constraints.nodes.div_ceil(64));
        let mut reach = Reach { bits: vec![0; nodes * words], words };
        let mut arcs: Vec<(usize, usize)> = constraints.arcs.iter().map(|arc| (arc.from, arc.to)).collect();
        arcs.sort_unstable_by_key(|(from, _)| components.of(*from));
        for (from, to) in arcs {
            reach.bits[from * words + to / 64] |= 1 << (to % 64);
            for word in 0..words {
                reach.bits[from * words + word] |= reach.bits[to * words + word];
            }
        }
        reach
    }

    fn leads(&self, from: usize, to: usize) -> bool {
        self.bits[from * self.words + to / 64] & (1 << (to % 64)) != 0
    }
}
