//! Random concurrent transactions, judged by the checker; what fails is shrunk to a schedule.
//!
//! ```text
//!  seed ──► case: programs at random levels and modes, in a random order of steps
//!             │ run on one thread, by polling             (`cases`)
//!             │ or by threads, with the recorder on       (`threads`)
//!             │ or by threads at database servers         (`servers`)
//!             ▼
//!           history ──► checker: what each transaction's own level promises, contradictions,
//!             │                  values that no serial order explains, transactions stuck for ever
//!             ▼ fails
//!           shrink: leave out transactions, steps, differences of level, as long as it still fails
//!             ▼
//!           a schedule for `anomaly-suite replay`
//! ```
//!
//! A case is a function of its seed, so a failure is repeated by its seed alone. Source of the idea:
//! random histories and a checker, Kingsbury and Alvaro, "Elle" (2020); shrinking by leaving out,
//! Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002).

mod case;
mod servers;
mod shrink;
mod threads;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isolde_history::schedule::{ReplayError, Schedule, Setting, StepOutcome, TxnOutcome};
use isolde_types::Anomaly;

use crate::engine::Engine;
use crate::verdict::{Trial, trial};

pub use case::Shape;
pub use servers::{Sighting, servers};
pub use threads::{ThreadedFailure, threads};

/// How long to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// This many cases.
    Cases(u64),
    /// Until this has passed.
    Time(Duration),
}

impl Limit {
    pub(crate) fn is_reached(self, cases: u64, since: Instant) -> bool {
        match self {
            Limit::Cases(limit) => cases >= limit,
            Limit::Time(limit) => since.elapsed() >= limit,
        }
    }
}

/// What was run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// How many cases.
    pub cases: u64,
    /// How many transactions in them.
    pub transactions: u64,
    /// How many of these committed.
    pub committed: u64,
    /// How many the database aborted.
    pub aborted: u64,
    /// How many steps had to wait.
    pub blocked: u64,
    /// In how many cases each anomaly was shown, permitted as it was.
    pub shown: BTreeMap<Anomaly, u64>,
}

/// A case that failed.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    /// The seed of the case.
    pub seed: u64,
    /// What is wrong, in words; of the shrunk schedule.
    pub faults: Vec<String>,
    /// How many steps the case had.
    pub steps: usize,
    /// The smallest schedule found that still fails.
    pub schedule: Schedule,
}

/// Runs cases from `seed` on, seed after seed, until one fails or the limit is reached; tells
/// `progress` after each.
pub fn cases(
    engine: &dyn Engine,
    shape: Shape,
    seed: u64,
    limit: Limit,
    mut progress: impl FnMut(&Tally),
) -> (Tally, Option<Failure>) {
    let (mut tally, start) = (Tally::default(), Instant::now());
    while !limit.is_reached(tally.cases, start) {
        let seed = seed.wrapping_add(tally.cases);
        let schedule = case::random(shape, seed);
        let outcome = trial(engine, &schedule, Setting::default());
        tally.add(&outcome);
        if !faults(&outcome).is_empty() {
            return (tally, Some(failure(engine, seed, &schedule)));
        }
        progress(&tally);
    }
    (tally, None)
}

fn failure(engine: &dyn Engine, seed: u64, case: &Schedule) -> Failure {
    let faults = |schedule: &Schedule| faults(&trial(engine, schedule, Setting::default()));
    let can_be_written = |schedule: &Schedule| Schedule::parse(&schedule.to_string()).is_ok();
    let mut schedule = shrink::shrink(case, |smaller| can_be_written(smaller) && !faults(smaller).is_empty());
    schedule.title = format!("fails; shrunk from the {} steps of seed {seed}", case.steps.len());
    Failure { seed, faults: faults(&schedule), steps: case.steps.len(), schedule }
}

/// What is wrong with a run. Everyone's end is among the steps, so nobody may still be blocked.
fn faults(outcome: &Result<Trial, ReplayError>) -> Vec<String> {
    match outcome {
        Ok(trial) => trial.faults(),
        Err(error @ ReplayError::Stuck { .. }) => vec![error.to_string()],
        // A sum with a word, or nothing that could be judged: the database did nothing wrong.
        Err(_) => Vec::new(),
    }
}

impl Tally {
    fn add(&mut self, outcome: &Result<Trial, ReplayError>) {
        self.cases += 1;
        let Ok(trial) = outcome else { return };
        let ended = |how| trial.replay.txns.iter().filter(|txn| txn.outcome == how).count() as u64;
        self.transactions += trial.replay.txns.len() as u64;
        self.committed += ended(TxnOutcome::Committed);
        self.aborted += ended(TxnOutcome::Aborted);
        self.blocked += trial.replay.steps.iter().filter(|step| step.outcome == StepOutcome::Blocked).count() as u64;
        for shown in &trial.evidence.shown {
            *self.shown.entry(shown.anomaly).or_default() += 1;
        }
    }
}
