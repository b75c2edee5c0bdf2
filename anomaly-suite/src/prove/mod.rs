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

mod programs;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use isolde_history::explore::Programs;
use isolde_history::schedule::{ReplayError, Schedule, Setting};
use isolde_types::Anomaly;

use self::programs::{triples, weight};
use self::work::{Job, Part};
use crate::engine::Engine;
use crate::suite::Suite;
use crate::verdict::{Outcome, trial};

pub(crate) use self::programs::small_pairs;

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
    /// All pairs, and a sample of triples that takes about as long.
    pub const FULL: Extent = Extent { every: 1, triples: 100, seed: 1 };
    /// What takes about a minute on one core.
    pub const QUICK: Extent = Extent { every: 60, triples: 4, seed: 1 };
}

/// In how many threads, and when to end before all is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort<'e> {
    /// In how many threads. What comes out does not depend on it.
    pub threads: usize,
    /// Not much longer than this.
    pub time_limit: Option<Duration>,
    /// Ends soon after this is set.
    pub interrupted: &'e AtomicBool,
}

/// What was run, and what it showed.
#[derive(Clone, Debug)]
pub struct Proof {
    /// How many pairs of programs.
    pub pairs: Share,
    /// How many triples.
    pub triples: Share,
    /// How many schedules in all.
    pub schedules: u64,
    /// In how many threads.
    pub threads: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// One for each level and mode, in the order of the matrix.
    pub levels: Vec<LevelProof>,
}

/// How many of how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// So many are done.
    pub done: usize,
    /// So many were to be done.
    pub all: usize,
}

impl Share {
    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.done == self.all
    }
}

/// A part of the proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Pairs of programs.
    Pairs,
    /// Triples of the sample.
    Triples,
    /// The catalogue, for what needs more transactions.
    Catalogue,
}

/// What is told while the proof goes on.
#[derive(Clone, Copy, Debug)]
pub enum News<'n> {
    /// A stage begins: so many programs.
    Begins(Stage, usize),
    /// Programs of a stage are done.
    Goes(Stage, Progress),
    /// A stage has ended.
    Ends(Stage, Progress),
    /// Something is wrong at a level and mode; told once for each.
    Fault(Setting, &'n str),
}

/// How far the proof is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Progress {
    /// How many programs of the stage are done.
    pub programs: Share,
    /// How many schedules were run, in all.
    pub schedules: u64,
    /// How long it took up to now.
    pub elapsed: Duration,
    /// How long the rest will take, if it goes on so.
    pub rest: Duration,
}

/// What was shown at one level and mode.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    /// Whether all was run that was to be run.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.pairs.is_whole() && self.triples.is_whole()
    }

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

/// Runs the proof on an engine, and tells `news` how it goes.
///
/// # Errors
/// When a program cannot be run.
pub fn prove(
    engine: &dyn Engine,
    extent: Extent,
    effort: Effort<'_>,
    news: &mut dyn FnMut(News<'_>),
) -> Result<Proof, ReplayError> {
    let pairs: Vec<Programs> = small_pairs().step_by(extent.every.max(1)).collect();
    let triples: Vec<Programs> = triples(extent.seed).take(extent.triples).collect();
    let all = pairs.iter().chain(&triples);
    let start = Instant::now();
    let mut proving = Proving {
        engine,
        effort,
        start,
        schedules: 0,
        weight_done: 0.0,
        weight_left: all.map(weight).sum(),
        levels: Setting::all().map(LevelProof::new).collect(),
        news,
    };
    let pairs = proving.stage(Stage::Pairs, &pairs)?;
    let triples = proving.stage(Stage::Triples, &triples)?;
    proving.ask_catalogue()?;
    let Proving { schedules, levels, .. } = proving;
    Ok(Proof { pairs, triples, schedules, threads: effort.threads.max(1), elapsed: start.elapsed(), levels })
}

impl LevelProof {
    fn new(setting: Setting) -> LevelProof {
        LevelProof { setting, shown: BTreeSet::new(), by_catalogue: BTreeSet::new(), faults: BTreeMap::new() }
    }
}

/// The proof, under way.
struct Proving<'p> {
    engine: &'p dyn Engine,
    effort: Effort<'p>,
    start: Instant,
    schedules: u64,
    /// What is done, and what is left to do, in [`weight`]s.
    weight_done: f64,
    weight_left: f64,
    levels: Vec<LevelProof>,
    news: &'p mut dyn FnMut(News<'_>),
}

impl Proving<'_> {
    /// Explores programs in threads, and takes what they show in the order of the programs.
    fn stage(&mut self, stage: Stage, programs: &[Programs]) -> Result<Share, ReplayError> {
        let mut share = Share { done: 0, all: programs.len() };
        let deadline = self.effort.time_limit.map(|limit| self.start + limit);
        let job = Job { engine: self.engine, programs, deadline, interrupted: self.effort.interrupted };
        if programs.is_empty() || job.is_over() {
            return Ok(share);
        }
        (self.news)(News::Begins(stage, programs.len()));
        job.run(self.effort.threads, &mut |number, part| {
            if part.is_whole {
                share.done += 1;
                let weight = weight(&programs[number]);
                self.weight_done += weight;
                self.weight_left -= weight;
            }
            self.take(part);
            let progress = self.progress(share);
            (self.news)(News::Goes(stage, progress));
        })?;
        let progress = self.progress(share);
        (self.news)(News::Ends(stage, progress));
        Ok(share)
    }

    fn take(&mut self, part: Part) {
        self.schedules += part.schedules;
        for (level, more) in self.levels.iter_mut().zip(part.levels) {
            level.shown.extend(more.shown);
            for (what, words) in more.faults {
                if !level.faults.contains_key(&what) {
                    (self.news)(News::Fault(level.setting, &what));
                    level.faults.insert(what, words);
                }
            }
        }
    }

    fn progress(&self, programs: Share) -> Progress {
        let elapsed = self.start.elapsed();
        let pace = elapsed.as_secs_f64() / self.weight_done.max(f64::MIN_POSITIVE);
        let rest = Duration::try_from_secs_f64(self.weight_left.max(0.0) * pace).unwrap_or(Duration::MAX);
        Progress { programs, schedules: self.schedules, elapsed, rest }
    }

    /// What needs more transactions than programs have here.
    fn ask_catalogue(&mut self) -> Result<(), ReplayError> {
        (self.news)(News::Begins(Stage::Catalogue, WITNESSES.len()));
        let report = Suite::new(self.engine).run();
        for level in &mut self.levels {
            let cells = report.cells.iter().filter(|cell| cell.setting == level.setting);
            let possible = cells.filter(|cell| cell.outcome() == Some(Outcome::Possible));
            let trials = possible.filter_map(|cell| cell.trial.as_ref().ok());
            let shown = trials.flat_map(|trial| trial.evidence.shown.iter().map(|shown| shown.anomaly));
            level.by_catalogue = shown.filter(|anomaly| !level.shown.contains(anomaly)).collect();
            for text in WITNESSES {
                let Ok(witness) = Schedule::parse(text) else { continue };
                let shown = trial(self.engine, &witness, level.setting)?.evidence.shown;
                let more =
                    shown.into_iter().map(|shown| shown.anomaly).filter(|anomaly| !level.shown.contains(anomaly));
                level.by_catalogue.extend(more);
            }
        }
        Ok(())
    }
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
}
