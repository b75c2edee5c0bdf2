//! Which runs would be left in the middle, known before they are run.
//!
//! A run that sleep sets leave ends at a point where everyone who can go on is asleep. Whoever sleeps there was
//! tried first at an earlier point, and is independent of all that came since; so the same steps with one of
//! his at the end were run before, in another order. Who could go on then is remembered, by the steps that were
//! taken and the order of those that are dependent.
//!
//! ```text
//!      start        T1's step was gone down first, and is independent of T2's: T1 is asleep after T2.
//!   T1 /  \ T2      `T1 T2` was run. Who could go on after it, T1 aside, is all that can go on after `T2`:
//!  T2 /    \ ?      if that is nobody, or asleep, `T2` need not be run to find that out
//! ```
//!
//! A step of one transaction lets others go on and stops none of them: it may wake who is blocked. So whoever
//! can go on *before* a sleeper's step is among those who can after it.

use super::{Options, Point, Programs, Reduction, Way, asleep_after, reduce};
use crate::hash::HashMap;

/// Programs with more steps than this are run without foresight.
const MAX_STEPS: usize = 64;

/// How many states are kept, so that a long exploration takes no more memory than a short one.
const KEPT: usize = 1 << 16;

/// Who could go on in states that a run came to.
pub(super) struct Foresight {
    /// The number of each transaction's first step.
    first: Vec<usize>,
    /// With which steps of others each step is dependent, as bits; nothing, where nothing is foreseen.
    dependent: Vec<u64>,
    known: HashMap<Box<[u64]>, Known>,
}

/// What is known of a state.
#[derive(Clone, Copy)]
struct Known {
    /// Nobody else can go on.
    at_most: u8,
    /// All of them can.
    exact: bool,
}

/// A state: for each step that was taken, itself and the dependent ones before it, as bits.
#[derive(Clone, Default)]
pub(super) struct State {
    taken: u64,
    steps: Vec<u64>,
    /// How many steps each transaction has taken.
    pub places: Vec<usize>,
}

impl Foresight {
    pub fn new(programs: &Programs, options: &Options) -> Foresight {
        let count = |txn: usize| programs.steps(txn, options.begins[txn]);
        let mut steps = Vec::new();
        let mut first = Vec::new();
        for txn in 0..programs.programs.len() {
            first.push(steps.len());
            steps.extend(
                (0..count(txn)).filter_map(|place| Some((txn, programs.action(txn, place, options.begins[txn])?))),
            );
        }
        let foresees = options.reduction == Reduction::SleepSets && steps.len() <= MAX_STEPS;
        let with = |(txn, action): &(usize, _)| {
            let dependent = |(number, (other, step)): (usize, &(usize, _))| {
                let pair = ((&programs.programs[*txn], action), (&programs.programs[*other], step));
                (txn != other && !reduce::independent(pair.0, pair.1)).then_some(1 << number)
            };
            steps.iter().enumerate().filter_map(dependent).fold(0, |bits: u64, bit: u64| bits | bit)
        };
        let dependent = if foresees { steps.iter().map(with).collect() } else { Vec::new() };
        Foresight { first, dependent, known: HashMap::default() }
    }

    /// The state before the first step.
    pub fn start(&self) -> State {
        State { taken: 0, steps: vec![0; self.dependent.len()], places: vec![0; self.first.len()] }
    }

    /// A transaction takes its next step.
    pub fn step(&self, state: &mut State, txn: usize) {
        let number = self.first[txn] + state.places[txn];
        state.places[txn] += 1;
        if let Some(dependent) = self.dependent.get(number) {
            state.steps[number] = dependent & state.taken | 1 << number;
            state.taken |= 1 << number;
        }
    }

    /// Remembers who can go on in a state that a run has come to.
    pub fn learn(&mut self, state: &State, ready: u8) {
        self.keep(state, Known { at_most: ready, exact: true });
    }

    fn keep(&mut self, state: &State, known: Known) {
        if self.dependent.is_empty() {
            return;
        }
        if self.known.len() == KEPT {
            self.known.clear();
        }
        self.known.insert(state.steps.as_slice().into(), known);
    }

    /// Whether a run down this way is left in the middle. The way is then as if it had been run.
    pub fn leaves(&mut self, programs: &Programs, options: &Options, way: &mut Way) -> bool {
        if self.dependent.is_empty() || way.points.is_empty() || !way.lead.is_empty() {
            return false;
        }
        let given = way.points.len();
        let mut state = self.start();
        way.points.iter().for_each(|point| self.step(&mut state, point.chosen));
        loop {
            let asleep = asleep_after(programs, options, way.points.last(), &state.places);
            let Some(known) = self.look_up(&state, asleep) else { break };
            let awake = known.at_most & !asleep;
            if awake == 0 && asleep != 0 {
                return true;
            }
            // One who may be able to go on is the only choice or none, which comes to the same if the run is left.
            let certain = known.exact || awake.is_power_of_two();
            let point =
                Some(awake).filter(|_| certain).and_then(|awake| Point::new(awake, asleep, None).ok().flatten());
            let Some(point) = point else { break };
            self.step(&mut state, point.chosen);
            way.points.push(point);
        }
        way.points.truncate(given);
        false
    }

    /// What is known of who can go on: from that very state, or from what was there after the step of a sleeper.
    fn look_up(&mut self, state: &State, asleep: u8) -> Option<Known> {
        if let Some(known) = self.known.get(state.steps.as_slice()) {
            return Some(*known);
        }
        let sleepers = (0..self.first.len()).filter(|txn| asleep >> txn & 1 == 1);
        let at_most = sleepers.filter_map(|txn| {
            let mut after = state.clone();
            self.step(&mut after, txn);
            self.known.get(after.steps.as_slice()).map(|known| known.at_most | 1 << txn)
        });
        let known = Known { at_most: at_most.reduce(|one, other| one & other)?, exact: false };
        self.keep(state, known);
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::{Aborted, Begins};
    use crate::schedule::Schedule;

    /// T1 was gone down first, then T2; `ready` could go on then. Whether a run that begins with T2 is foreseen
    /// to be left.
    fn leaves(text: &str, ready: u8) -> bool {
        let programs = Programs::of(&Schedule::parse(text).unwrap()).unwrap();
        let options = Options {
            begins: vec![Begins::First; 2],
            reduction: Reduction::SleepSets,
            aborted: Aborted::Left,
            from: 0,
            resume: None,
        };
        let mut foresight = Foresight::new(&programs, &options);
        let mut state = foresight.start();
        foresight.step(&mut state, 0);
        foresight.step(&mut state, 1);
        foresight.learn(&state, ready);
        let mut way = Way::default();
        way.points.push(Point { choices: vec![1], chosen: 1, asleep: 0, tried: 0b01 });
        let leaves = foresight.leaves(&programs, &options, &mut way);
        assert_eq!(way.points.len(), 1);
        leaves
    }

    #[test]
    fn a_run_is_left_where_nobody_but_sleepers_could_go_on_in_another_order() {
        let independent = "T1: get x\nT1: get x\nT2: get y\nT2: get y\n";
        assert!(leaves(independent, 0b01));
        assert!(leaves(independent, 0b00), "T1 has ended, or waits, after its step: before it T1 sleeps");
        assert!(!leaves(independent, 0b11), "T2 goes on");
        assert!(!leaves("T1: get x\nT1: get x\nT2: put x 1\nT2: get y\n", 0b01), "T1 does not sleep");
    }
}
