//! The contract of mixed levels: what a transaction at one level and mode can see beside a transaction
//! at another, for every ordered pair.
//!
//! ```text
//!              one side ──────────┐        ┌────────── the other, beside it
//!   PROGRAMS   T1: get x │ put x  │        │  T2: get x │ put x
//!                                 ▼        ▼
//!                 every interleaving, at all 10 x 10 levels and modes
//!                                 │
//!               who of the two sees which anomaly; whether a promise is broken
//! ```
//!
//! Each side plays each part: the pair (A, B) is explored with A as T1 and with A as T2.
//!
//! A side *sees* an anomaly if in some interleaving it commits, and the history has a cycle of that class
//! through a read (or a write over a write) of that side that its own level lets be; or through edges that
//! the levels of both forbid, and then a promise is broken. A dirty, intermediate or vanishing read is
//! seen by its reader, a lost update by the one that overwrites. So a side is never said to see what only
//! the other one's level let happen to the other one. (What that one wrote then is there all the same: a
//! level does not keep others from writing what they should not.)

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use isolde_history::explore::{Programs, Shown};
use isolde_history::schedule::{NotationError, ReplayError, Schedule, Setting};
use isolde_types::Anomaly;

use crate::engine::Engine;
use crate::explore::{Exploration, Exploring, survey};
use crate::prove::small_pairs;

/// The programs: two transactions each, T1 and T2. Each shows at least one anomaly where nothing prevents it.
pub const PROGRAMS: [(&str, &str); 14] = [
    ("writes", "init: x=1 y=2\nT1: put x 11\nT1: put y 12\nT2: put x 21\nT2: put y 22\n"),
    ("a write that is undone", "init: x=1\nT1: get x\nT2: put x 21\nT2: rollback\n"),
    ("a write that is corrected", "init: x=1\nT1: get x\nT2: put x 21\nT2: put x 22\n"),
    ("each reads what the other writes", "init: x=1 y=2\nT1: put x 11\nT1: get y\nT2: put y 22\nT2: get x\n"),
    ("two reads beside two writes", "init: x=1 y=2\nT1: get x\nT1: get y\nT2: put x 21\nT2: put y 22\n"),
    ("two updates of one key", "init: x=1\nT1: get x\nT1: put x $x+10\nT2: get x\nT2: put x $x+20\n"),
    ("an update beside a write", "init: x=1\nT1: get x\nT1: put x $x+10\nT2: put x 21\n"),
    ("each decides by the other's key", "init: x=1 y=2\nT1: get x\nT1: put y 12\nT2: get y\nT2: put x 21\n"),
    ("each creates what the other missed", "T1: get x\nT1: insert y 12\nT2: get y\nT2: insert x 21\n"),
    ("two scans beside an insert", "init: x=1\nT1: scan x..\nT1: scan x..\nT2: insert z 23\n"),
    ("a scan and a write beside a delete", "init: x=1 y=2\nT1: scan x..y\nT1: put y 12\nT2: delete x\nT2: put y 22\n"),
    ("a scan and a write beside an insert", "init: y=2\nT1: scan a*\nT1: put y 12\nT2: insert a1 21\nT2: put y 22\n"),
    ("own writes", "init: x=1\nT1: put x 11\nT1: get x\nT1: scan x..\nT2: put x 21\n"),
    ("each inserts into what both scanned", "T1: scan a*\nT1: insert a1 11\nT2: scan a*\nT2: insert a2 22\n"),
];

/// The classes of anomalies that two transactions can show. A long fork needs four, and a cycle that
/// closes through real time alone needs three where commits come one after another.
pub const OF_TWO: [Anomaly; 11] = [
    Anomaly::DirtyWrite,
    Anomaly::AbortedRead,
    Anomaly::IntermediateRead,
    Anomaly::CircularFlow,
    Anomaly::TransactionVanishes,
    Anomaly::ReadSkewItem,
    Anomaly::ReadSkew,
    Anomaly::LostUpdate,
    Anomaly::WriteSkew,
    Anomaly::PredicateWriteSkew,
    Anomaly::Internal,
];

/// What was explored, and what it showed.
#[derive(Clone, Debug)]
pub struct Contract {
    /// How many schedules of each of the programs, in their order.
    pub schedules: Vec<u64>,
    /// How many small programs of the sample beside them, and how many schedules of those.
    pub sampled: (usize, u64),
    /// One for each ordered pair, by the side, then by what is beside it, in the order of the matrix.
    pub cells: Vec<Cell>,
}

/// What one side sees beside another.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The side that sees.
    pub side: Setting,
    /// What the other transaction runs at.
    pub beside: Setting,
    /// What it sees, each with a schedule.
    pub seen: BTreeMap<Anomaly, Witness>,
    /// Whatever is wrong between the two, by what it is: in words, with a schedule.
    pub faults: BTreeMap<String, String>,
}

/// A schedule that shows an anomaly to a side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witness {
    /// The name of the programs, or that they are of the sample.
    pub programs: &'static str,
    /// Which of the two transactions is the side.
    pub txn: String,
    /// The smallest schedule of these programs.
    pub schedule: Schedule,
    /// Why, in words.
    pub words: String,
}

/// Small programs beside [`PROGRAMS`], from all those of the [`proof`](crate::prove), by a seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// How many pairs of them.
    pub pairs: usize,
    /// The seed.
    pub seed: u64,
}

impl Sample {
    /// None.
    pub const NONE: Sample = Sample { pairs: 0, seed: 1 };
}

/// Why there is no contract.
#[derive(Debug, thiserror::Error)]
pub enum MixedError {
    /// The programs are no schedule.
    #[error("{0}")]
    Notation(#[from] NotationError),
    /// They are schedules, and no programs.
    #[error("{0}")]
    Programs(String),
    /// A value cannot be worked out.
    #[error("{0}")]
    Replay(#[from] ReplayError),
}

impl Contract {
    /// What a side sees beside another.
    #[must_use]
    pub fn cell(&self, side: Setting, beside: Setting) -> Option<&Cell> {
        self.cells.iter().find(|cell| (cell.side, cell.beside) == (side, beside))
    }

    /// How many schedules in all.
    #[must_use]
    pub fn explored(&self) -> u64 {
        self.schedules.iter().sum::<u64>() + self.sampled.1
    }

    /// Whether every transaction got its own level's promise, whatever was beside it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.cells.iter().all(|cell| cell.faults.is_empty())
    }

    /// What a side sees beside some other.
    #[must_use]
    pub fn seen_by(&self, side: Setting) -> BTreeSet<Anomaly> {
        self.cells.iter().filter(|cell| cell.side == side).flat_map(|cell| cell.seen.keys().copied()).collect()
    }
}

/// What a level and mode do not promise to keep two transactions from showing.
pub fn permitted(setting: Setting) -> impl Iterator<Item = Anomaly> {
    let forbidden = setting.isolation.guarantees(setting.mode).forbidden;
    OF_TWO.into_iter().filter(|anomaly| !forbidden.contains(anomaly))
}

/// Explores all programs and a sample at every ordered pair of `settings`; tells `progress` how many of how many pairs
/// are done.
///
/// # Errors
/// When a program cannot be run.
pub fn mixed(
    engine: &dyn Engine,
    settings: &[Setting],
    sample: Sample,
    mut progress: impl FnMut(usize, usize),
) -> Result<Contract, MixedError> {
    let (programs, sampled) = (programs()?, sampled(sample));
    let pairs = || settings.iter().flat_map(|side| settings.iter().map(|beside| (*side, *beside)));
    let cells = pairs().map(Cell::new).collect();
    let mut contract = Contract { schedules: vec![0; programs.len()], sampled: (sampled.len(), 0), cells };
    for (done, (one, other)) in pairs().enumerate() {
        progress(done, contract.cells.len());
        let explore = |programs: &Programs| survey(engine, programs, &[one, other], &Exploring::default(), |_| ());
        for (number, (name, programs)) in programs.iter().enumerate() {
            let exploration = explore(programs)?;
            contract.schedules[number] += exploration.explored.schedules;
            contract.add(name, [one, other], &exploration);
        }
        for programs in &sampled {
            let exploration = explore(programs)?;
            contract.sampled.1 += exploration.explored.schedules;
            contract.add("of the sample", [one, other], &exploration);
        }
    }
    Ok(contract)
}

/// Any pair may come, and one may come twice: there are tens of thousands.
fn sampled(sample: Sample) -> Vec<Programs> {
    let mut rng = Rng::with_seed(sample.seed);
    let all: Vec<Programs> = if sample.pairs > 0 { small_pairs().collect() } else { Vec::new() };
    (0..sample.pairs).filter_map(|_| rng.choice(&all).cloned()).collect()
}

fn programs() -> Result<Vec<(&'static str, Programs)>, MixedError> {
    let programs = |(name, text)| Ok((name, Programs::of(&Schedule::parse(text)?).map_err(MixedError::Programs)?));
    PROGRAMS.into_iter().map(programs).collect()
}

impl Contract {
    /// T1 ran at the first of the settings, T2 at the second.
    fn add(&mut self, name: &'static str, settings: [Setting; 2], exploration: &Exploration) {
        let [one, other] = settings;
        for cell in &mut self.cells {
            if (cell.side, cell.beside) == (one, other) {
                cell.add(name, "T1", exploration);
            }
            if (cell.side, cell.beside) == (other, one) {
                cell.add(name, "T2", exploration);
            }
        }
    }
}

impl Cell {
    fn new((side, beside): (Setting, Setting)) -> Cell {
        Cell { side, beside, seen: BTreeMap::new(), faults: BTreeMap::new() }
    }

    fn add(&mut self, programs: &'static str, txn: &str, exploration: &Exploration) {
        let survey = &exploration.survey;
        let seen = survey.seen.iter().filter(|((name, _), _)| name == txn);
        let seen: Vec<(Anomaly, &Shown)> = seen.map(|((_, anomaly), shown)| (*anomaly, shown)).collect();
        for (anomaly, shown) in &seen {
            let witness = || Witness {
                programs,
                txn: txn.to_owned(),
                schedule: exploration.schedule(&shown.order),
                words: shown.words.clone(),
            };
            self.seen.entry(*anomaly).or_insert_with(witness);
        }
        let forbidden = self.side.isolation.guarantees(self.side.mode).forbidden;
        let seen = seen.into_iter().filter(|(anomaly, _)| forbidden.contains(anomaly));
        let seen = seen.map(|(anomaly, shown)| (format!("{txn} sees {anomaly}"), shown));
        let faults = survey.faults.iter().map(|(what, shown)| (what.clone(), shown));
        let stuck = survey.stuck.iter().map(|shown| ("stuck".to_owned(), shown));
        for (what, shown) in faults.chain(stuck).chain(seen) {
            let words = || format!("{}\n{}", shown.words, exploration.schedule(&shown.order));
            self.faults.entry(what).or_insert_with(words);
        }
    }
}
