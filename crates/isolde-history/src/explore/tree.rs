//! The tree of choices, gone through depth first.

use std::ops::ControlFlow;

use super::asleep::{Asleep, Effect, Standing, asleep, members};
use super::foresight::{Seen, Spot};
use super::reduce::Steps;
use super::{Explored, MAX_TXNS, Options, Order, Reduction, Resume, Run};
use crate::schedule::{Replay, ReplayError};

/// How many steps each transaction has taken.
pub(super) type Places = [usize; MAX_TXNS];

/// A point of the tree: who was chosen there, and who may be.
#[derive(Clone, Copy)]
pub(super) struct Point {
    /// Who can go on, and who cannot.
    pub state: Standing,
    /// Who is being gone down.
    pub chosen: usize,
    /// Whoever need not be tried here: transactions, as bits.
    pub asleep: u8,
    /// Whoever was gone down here before, or need not be.
    pub tried: u8,
    /// What the steps of those who were gone down here, or sleep, did to others.
    pub effects: [Effect; MAX_TXNS],
    /// Where this point is in what was seen, and where one is from here with a step of a sleeper ahead.
    pub spot: Spot,
    pub beside: [Spot; MAX_TXNS],
    /// Whoever was chosen here though everything behind is known to be left: in builds that look whether it is.
    pub foreseen: u8,
}

impl Point {
    pub fn new(state: Standing, Asleep { txns, effects }: Asleep) -> Point {
        let (spot, beside) = (Spot::default(), [Spot::default(); MAX_TXNS]);
        Point { state, chosen: 0, asleep: txns, tried: 0, effects, spot, beside, foreseen: 0 }
    }

    /// Those who may be gone down, or were.
    pub fn awake(&self) -> impl Iterator<Item = usize> + use<> {
        members(self.state.ready & !self.asleep)
    }

    /// Those who sleep or were gone down here.
    pub fn known(&self) -> u8 {
        self.asleep | self.tried
    }
}

/// The way down the tree.
pub(super) struct Way {
    pub points: Vec<Point>,
    pub steps: Steps,
    pub seen: Seen,
    reduction: Reduction,
}

/// Where a run has come to.
pub(super) enum Arrival {
    /// To a point where somebody is to be chosen, and was.
    Point,
    /// To its end: nobody can go on.
    End,
    /// To where other runs come to the same, whoever is chosen.
    Known,
}

impl Way {
    /// At the root. Without steps, nothing is foreseen.
    pub fn of(options: &Options, steps: Steps) -> Way {
        Way { points: Vec::new(), steps, seen: Seen::default(), reduction: options.reduction }
    }

    /// Takes down where the last choice has led to, and chooses who goes on there.
    pub fn arrive(&mut self, state: Standing, asleep: impl FnOnce(&Way, &Point) -> Asleep) -> Arrival {
        if let Some(parent) = self.points.last_mut() {
            parent.effects[parent.chosen] = parent.state.effect(state);
        }
        let mut point = Point::new(state, Asleep::default());
        if let (Some(parent), Reduction::SleepSets) = (self.points.last(), self.reduction) {
            point = Point::new(state, asleep(self, parent));
            (point.spot, point.beside) = (Spot::default(), self.seen.beside(parent, point.asleep));
        }
        if self.foresees() {
            point.spot = self.note(state);
        }
        if state.ready == 0 {
            return Arrival::End;
        }
        self.points.push(point);
        if self.choose() {
            return Arrival::Point;
        }
        self.points.pop();
        Arrival::Known
    }

    pub fn foresees(&self) -> bool {
        self.reduction == Reduction::SleepSets && !self.steps.is_empty()
    }

    /// Whoever sleeps after the step that was chosen at a point: those that slept or were tried before it, and are
    /// independent of it. `places` already counts that step.
    pub fn asleep_after(&self, parent: &Point, places: &Places) -> Asleep {
        let steps = &self.steps;
        let last = |txn: usize| steps.step(txn, places[txn].checked_sub(1)?);
        asleep(parent, last, |txn| steps.step(txn, places[txn]), |a, b| steps.are_independent(a, b))
    }

    /// How many steps have been taken before the last point.
    fn places(&self) -> Places {
        let mut places = [0; MAX_TXNS];
        self.points.iter().rev().skip(1).for_each(|point| places[point.chosen] += 1);
        places
    }

    /// Chooses who is gone down at the last point: the first who is awake, was not tried, and leads to something
    /// new; `false` if there is none.
    fn choose(&mut self) -> bool {
        let places = if self.foresees() { self.places() } else { [0; MAX_TXNS] };
        let Some(mut point) = self.points.pop() else { return false };
        let mut found = false;
        for txn in point.awake() {
            if point.tried >> txn & 1 == 1 {
                continue;
            }
            point.chosen = txn;
            let foreseen = if self.foresees() { self.foresee(&point, &places) } else { None };
            match foreseen {
                Some(effect) if !cfg!(debug_assertions) => {
                    point.effects[txn] = effect;
                    point.tried |= 1 << txn;
                }
                _ => {
                    point.foreseen |= u8::from(foreseen.is_some()) << txn;
                    found = true;
                    break;
                }
            }
        }
        self.points.push(point);
        found
    }

    /// Goes back to the last point with another choice; `false` when there is none.
    fn backtrack(&mut self) -> bool {
        while let Some(point) = self.points.last_mut() {
            point.tried |= 1 << point.chosen;
            if self.choose() {
                return true;
            }
            self.points.pop();
        }
        false
    }

    fn was_foreseen(&self) -> bool {
        self.points.iter().any(|point| point.foreseen >> point.chosen & 1 == 1)
    }
}

/// How a run down the tree came out.
pub(super) enum Descent {
    /// Everyone who could go on is asleep: another schedule comes to the same.
    Pruned,
    Ended(Result<Replay, ReplayError>),
}

/// Goes through the tree: `descend` runs the choices that the way names, then the first choice at each new point.
pub(super) fn tree(
    options: &Options,
    way: &mut Way,
    mut descend: impl FnMut(&mut Way, &mut Vec<usize>) -> Result<Descent, ReplayError>,
    mut visit: impl FnMut(&Run<'_>) -> ControlFlow<()>,
) -> Result<Explored, ReplayError> {
    let mut explored = Explored::default();
    let mut order = Order::default();
    if let Some(Resume { number, moves }) = &options.resume {
        (explored.first, explored.schedules) = (*number, *number);
        go_to(way, moves, |way| descend(way, &mut Vec::new()))?;
    }
    loop {
        order.again.clear();
        let mut flow = ControlFlow::Continue(());
        match descend(way, &mut order.again)? {
            Descent::Pruned => explored.pruned += 1,
            Descent::Ended(outcome) => {
                assert!(!way.was_foreseen(), "a run was foreseen to be left, and ended");
                let number = explored.schedules;
                explored.schedules += 1;
                order.moves.clear();
                order.moves.extend(way.points.iter().map(|point| point.chosen));
                let run = Run { number, order: &order, outcome: &outcome };
                if number >= options.from {
                    flow = visit(&run);
                }
            }
        }
        if !way.backtrack() {
            return Ok(Explored { complete: true, ..explored });
        }
        if flow.is_break() {
            let moves = way.points.iter().map(|point| point.chosen).collect();
            let next = Some(Resume { number: explored.schedules, moves });
            return Ok(Explored { next, ..explored });
        }
    }
}

/// Goes to where an exploration goes on. At each point on the way, whoever comes before the one who leads there
/// was tried: one run each tells what his step does to others, as sleep sets must know.
fn go_to(
    way: &mut Way,
    moves: &[usize],
    mut descend: impl FnMut(&mut Way) -> Result<Descent, ReplayError>,
) -> Result<(), ReplayError> {
    for (depth, txn) in moves.iter().enumerate() {
        if way.points.len() == depth {
            descend(way)?;
        }
        while way.points.get(depth).ok_or(ReplayError::Elsewhere)?.chosen != *txn {
            way.points.truncate(depth + 1);
            if !way.backtrack() || way.points.len() != depth + 1 {
                return Err(ReplayError::Elsewhere);
            }
            if way.points[depth].chosen != *txn {
                descend(way)?;
            }
        }
    }
    way.points.truncate(moves.len());
    Ok(())
}
