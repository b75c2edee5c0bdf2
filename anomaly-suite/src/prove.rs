//! The levels, proved on small programs: every interleaving of every pair of them.
//!
//! **Programs.** Two transactions of one to three operations each: get or put of two keys that are there
//! (x, y) and one that is not (z), and at most one scan of everything in both together. Pairs that differ
//! in the names of x and y or in the order of the transactions alone count once. Beside them a seeded
//! sample of three transactions of three operations. Each at every level and mode, and at every level
//! with one transaction in each mode.
//!
//! **Sound**: no transaction sees what its own level, in its mode, forbids; nothing contradicts itself;
//! nobody is stuck. **Sharp**: what a level does not promise to forbid is shown: by a pair, by a triple
//! of the sample, or, where more transactions are needed, by a schedule of the catalogue or of a few beside.
//!
//! This is a proof for these programs, not for all; that small programs show most of what can go wrong
//! is Jackson's "small scope hypothesis" ("Software Abstractions", 2006).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use isolde_history::explore::{Program, Programs, Shown};
use isolde_history::schedule::{BeginWords, Operation, Place, ReplayError, Schedule, Setting, Value};
use isolde_types::{Anomaly, Isolation, Key, Mode};

use crate::explore::{Exploration, Exploring, survey};
use crate::isolde::Isolde;
use crate::suite::Suite;
use crate::verdict::{Outcome, trial};

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Of all pairs, every so many-th.
    pub every: usize,
    /// How many triples of the sample.
    pub triples: usize,
    /// The seed of the sample.
    pub seed: u64,
}

impl Extent {
    /// All pairs, and a sample that takes some minutes.
    pub const FULL: Extent = Extent { every: 1, triples: 100, seed: 1 };
    /// What takes less than two minutes.
    pub const QUICK: Extent = Extent { every: 60, triples: 4, seed: 1 };
}

/// What was run, and what it showed.
#[derive(Clone, Debug)]
pub struct Proof {
    /// How many pairs of programs.
    pub pairs: usize,
    /// How many triples.
    pub triples: usize,
    /// How many schedules in all.
    pub schedules: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// One for each level and mode, in the order of the matrix.
    pub levels: Vec<LevelProof>,
}

/// What was shown at one level and mode.
#[derive(Clone, Debug)]
pub struct LevelProof {
    /// The level and mode.
    pub setting: Setting,
    /// The anomalies that were shown, by pairs and triples; beside the other mode too.
    pub shown: BTreeSet<Anomaly>,
    /// Those that only a schedule of the catalogue shows: they need more transactions.
    pub by_catalogue: BTreeSet<Anomaly>,
    /// Whatever is wrong, by what it is: in words, with the first programs that show it.
    pub faults: BTreeMap<String, String>,
}

impl LevelProof {
    /// The anomalies that are neither promised away nor shown.
    #[must_use]
    pub fn not_shown(&self) -> Vec<Anomaly> {
        let forbidden = self.setting.isolation.guarantees(self.setting.mode).forbidden;
        let missing = |anomaly: &Anomaly| {
            !forbidden.contains(anomaly) && !self.shown.contains(anomaly) && !self.by_catalogue.contains(anomaly)
        };
        Anomaly::ALL.into_iter().filter(missing).collect()
    }

    /// Whether nothing forbidden was shown, and nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

impl Proof {
    /// Whether no level let anything through that it forbids.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.levels.iter().all(LevelProof::is_sound)
    }

    /// Whether every level shows all that it does not promise to forbid.
    #[must_use]
    pub fn is_sharp(&self) -> bool {
        self.levels.iter().all(|level| level.not_shown().is_empty())
    }
}

/// Schedules beside the catalogue's, for what the weaker levels let through with scans alone: a cycle
/// that closes through real time only, and a long fork.
const WITNESSES: [&str; 3] = [
    "init: x=1 y=1\nT1: begin\nT1: get x\nT2: put x 2\nT2: commit\nT3: begin\nT3: get y\nT3: commit\nT1: put y 2\nT1: commit\n",
    "init: y=1\nT1: begin\nT1: scan a*\nT2: put a1 1\nT2: commit\nT3: begin\nT3: get y\nT3: commit\nT1: put y 2\nT1: commit\n",
    "T1: begin\nT1: scan a*\nT2: put a1 1\nT2: commit\nT3: begin\nT3: get a1\nT3: scan b*\nT4: put b1 1\nT4: put c 1\n\
     T4: commit\nT3: commit\nT1: put c 2\nT1: commit\n",
];

/// Runs the proof; tells `progress` how many of how many programs are done.
///
/// # Errors
/// When a program cannot be run.
pub fn prove(extent: Extent, mut progress: impl FnMut(usize, usize)) -> Result<Proof, ReplayError> {
    let start = Instant::now();
    let pairs: Vec<Programs> = small_pairs().step_by(extent.every.max(1)).collect();
    let triples: Vec<Programs> = triples(extent.seed).take(extent.triples).collect();
    let mut proving = Proving { schedules: 0, levels: Setting::all().map(LevelProof::new).collect() };
    let total = pairs.len() + triples.len();
    for (done, programs) in pairs.iter().chain(&triples).enumerate() {
        progress(done, total);
        proving.run(programs)?;
    }
    proving.ask_catalogue()?;
    Ok(Proof {
        pairs: pairs.len(),
        triples: triples.len(),
        schedules: proving.schedules,
        elapsed: start.elapsed(),
        levels: proving.levels,
    })
}

impl LevelProof {
    fn new(setting: Setting) -> LevelProof {
        LevelProof { setting, shown: BTreeSet::new(), by_catalogue: BTreeSet::new(), faults: BTreeMap::new() }
    }
}

struct Proving {
    schedules: u64,
    levels: Vec<LevelProof>,
}

impl Proving {
    /// Explores the programs at every level, all in one mode and in both.
    fn run(&mut self, programs: &Programs) -> Result<(), ReplayError> {
        for isolation in Isolation::ALL {
            let at = Mode::ALL.map(|mode| Setting { isolation, mode });
            let [pessimistic, optimistic] = at;
            for settings in [[pessimistic; 2], [optimistic; 2], at, [optimistic, pessimistic]] {
                let exploration = survey(&Isolde, programs, &settings, &Exploring::default(), |_| ())?;
                self.schedules += exploration.explored.schedules;
                self.judge(&settings, &exploration);
            }
        }
        Ok(())
    }

    fn judge(&mut self, settings: &[Setting; 2], exploration: &Exploration) {
        let survey = &exploration.survey;
        let alike = settings[0] == settings[1];
        let faults = survey.faults.iter().map(|(what, shown)| (what.clone(), shown));
        let stuck = survey.stuck.iter().map(|shown| ("stuck".to_owned(), shown));
        let forbidden = settings[0].isolation.guarantees(settings[0].mode).forbidden;
        let seen = survey.anomalies.iter().filter(|(anomaly, _)| alike && forbidden.contains(anomaly));
        let seen = seen.map(|(anomaly, shown)| (anomaly.code().to_owned(), shown));
        let faults: Vec<(String, &Shown)> = faults.chain(stuck).chain(seen).collect();
        for level in self.levels.iter_mut().filter(|level| settings.contains(&level.setting)) {
            level.shown.extend(survey.anomalies.keys());
            for (what, shown) in &faults {
                let words = || format!("{}\n{}", shown.words, exploration.schedule(&shown.order));
                level.faults.entry(what.clone()).or_insert_with(words);
            }
        }
    }

    /// What needs more transactions than programs have here.
    fn ask_catalogue(&mut self) -> Result<(), ReplayError> {
        let report = Suite::new(&Isolde).run();
        for level in &mut self.levels {
            let cells = report.cells.iter().filter(|cell| cell.setting == level.setting);
            let possible = cells.filter(|cell| cell.outcome() == Some(Outcome::Possible));
            let trials = possible.filter_map(|cell| cell.trial.as_ref().ok());
            let shown = trials.flat_map(|trial| trial.evidence.shown.iter().map(|shown| shown.anomaly));
            level.by_catalogue = shown.filter(|anomaly| !level.shown.contains(anomaly)).collect();
            for text in WITNESSES {
                let Ok(witness) = Schedule::parse(text) else { continue };
                let shown = trial(&Isolde, &witness, level.setting)?.evidence.shown;
                let more =
                    shown.into_iter().map(|shown| shown.anomaly).filter(|anomaly| !level.shown.contains(anomaly));
                level.by_catalogue.extend(more);
            }
        }
        Ok(())
    }
}

// --- programs ---------------------------------------------------------------------------------------

/// An operation of a small program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Op {
    Get(u8),
    Put(u8),
    Scan,
}

/// x and y are there; z is not.
const KEYS: [&str; 3] = ["x", "y", "z"];
const MAX_OPERATIONS: usize = 3;

fn alphabet() -> Vec<Op> {
    (0..3).map(Op::Get).chain((0..3).map(Op::Put)).chain([Op::Scan]).collect()
}

/// Every program of one to three operations with at most one scan, in order.
fn small_programs() -> Vec<Vec<Op>> {
    let mut all: Vec<Vec<Op>> = Vec::new();
    let mut longest: Vec<Vec<Op>> = vec![Vec::new()];
    for _ in 0..MAX_OPERATIONS {
        let longer = |program: &Vec<Op>| {
            let program = program.clone();
            alphabet().into_iter().map(move |op| [program.as_slice(), &[op]].concat())
        };
        longest = longest.iter().flat_map(longer).filter(|program| scans(program) <= 1).collect();
        all.extend(longest.iter().cloned());
    }
    all
}

fn scans(program: &[Op]) -> usize {
    program.iter().filter(|op| **op == Op::Scan).count()
}

/// The same program with x and y exchanged.
fn renamed(program: &[Op]) -> Vec<Op> {
    let other = |key: u8| if key < 2 { 1 - key } else { key };
    let op = |op: &Op| match op {
        Op::Get(key) => Op::Get(other(*key)),
        Op::Put(key) => Op::Put(other(*key)),
        Op::Scan => Op::Scan,
    };
    program.iter().map(op).collect()
}

/// Every pair of programs, up to the names of x and y and the order of the two.
pub(crate) fn small_pairs() -> impl Iterator<Item = Programs> {
    let all = small_programs();
    let pairs: Vec<(usize, usize)> = (0..all.len()).flat_map(|a| (a..all.len()).map(move |b| (a, b))).collect();
    pairs.into_iter().filter_map(move |(a, b)| {
        let (a, b) = (&all[a], &all[b]);
        let (other_a, other_b) = (renamed(a), renamed(b));
        let other = if other_a <= other_b { (other_a, other_b) } else { (other_b, other_a) };
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let is_first = (low, high) <= (&other.0, &other.1);
        (is_first && scans(a) + scans(b) <= 1).then(|| programs(&[low.clone(), high.clone()]))
    })
}

/// Three transactions of three operations each, from a seed.
fn triples(seed: u64) -> impl Iterator<Item = Programs> {
    let mut rng = Rng::with_seed(seed);
    let alphabet = alphabet();
    std::iter::repeat_with(move || {
        let mut program = || (0..MAX_OPERATIONS).map(|_| alphabet[rng.usize(..alphabet.len())]).collect();
        programs(&[program(), program(), program()])
    })
}

fn programs(programs: &[Vec<Op>]) -> Programs {
    let key = |key: u8| Key::from_static(KEYS[usize::from(key)].as_bytes());
    let program = |(number, ops): (usize, &Vec<Op>)| {
        let operation = |(place, op): (usize, &Op)| match op {
            Op::Get(at) => Operation::Get(key(*at)),
            Op::Put(at) => Operation::Put(key(*at), Value::Word(Bytes::from(format!("w{}.{place}", number + 1)))),
            Op::Scan => Operation::Scan(Place::Between { start: Key::new(), end: None }),
        };
        let operations = ops.iter().enumerate().map(operation).chain([Operation::Commit]).collect();
        Program { name: format!("T{}", number + 1), begin: BeginWords::default(), operations }
    };
    let initial = KEYS[..2].iter().map(|key| (Key::from_static(key.as_bytes()), Bytes::from(format!("i{key}"))));
    Programs { initial: initial.collect(), programs: programs.iter().enumerate().map(program).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witnesses_are_schedules() {
        for text in WITNESSES {
            assert!(Schedule::parse(text).is_ok_and(|schedule| schedule.txns.len() >= 3), "{text}");
        }
    }

    #[test]
    fn the_programs_are_all_and_each_once() {
        // Without a scan 6 + 36 + 216, with one 1 + 12 + 108.
        assert_eq!(small_programs().len(), 258 + 121);
        let all: Vec<String> = small_pairs().map(|pair| format!("{:?}", pair.programs)).collect();
        let distinct: BTreeSet<&String> = all.iter().collect();
        assert_eq!(all.len(), distinct.len());
        // Pairs without order: 258 * 259 / 2 + 258 * 121; those that renaming leaves alone count once.
        let without_order = 258 * 259 / 2 + 258 * 121;
        assert!((without_order / 2..without_order / 2 + 500).contains(&all.len()), "{}", all.len());
    }
}
