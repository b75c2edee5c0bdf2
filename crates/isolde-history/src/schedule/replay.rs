//! Running a schedule as it is written.
//!
//! Steps are issued in file order. A `begin` that is not written is issued just before the
//! transaction's first step; a `commit` that is not written is issued after the last line. When a
//! step blocks, its transaction's later steps wait behind it and the other transactions go on; after
//! each step, whoever was woken goes on first. A transaction that the database rolls back skips the
//! rest of its steps. One still blocked at the end is an error of the schedule.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use isolde_types::{Isolation, Key, Mode};

use super::database::Database;
use super::driver::{Driver, StepReport, TxnReport};
use super::notation::{Action, Operation, Schedule};
use crate::History;

/// The level and mode of every transaction that names none itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Setting {
    /// The level.
    pub isolation: Isolation,
    /// The mode.
    pub mode: Mode,
}

impl Setting {
    /// Every level in both modes, weakest level first.
    pub fn all() -> impl DoubleEndedIterator<Item = Setting> {
        Isolation::ALL.into_iter().flat_map(|isolation| Mode::ALL.map(|mode| Setting { isolation, mode }))
    }
}

/// What a schedule did.
#[derive(Clone, PartialEq, Debug)]
pub struct Replay {
    /// Each step, in the order of issue; unwritten begins and commits are among them.
    pub steps: Vec<StepReport>,
    /// Each transaction, in the order of [`Schedule::txns`].
    pub txns: Vec<TxnReport>,
    /// What the database recorded.
    pub history: History,
    /// What was in the database at the end.
    pub final_state: BTreeMap<Key, Bytes>,
    /// What the database found wrong with itself.
    pub complaints: Vec<String>,
}

/// Why a schedule could not be run to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// These transactions were still blocked after the last step.
    Stuck {
        /// Their names.
        txns: Vec<String>,
    },
    /// The value of a step could not be worked out.
    Value {
        /// The step's number.
        n: usize,
        /// The step as written.
        step: String,
        /// What is wrong.
        message: String,
    },
    /// The database does not have what the schedule needs, so that there is nothing to run.
    Lacks {
        /// What it does not have.
        what: String,
    },
    /// It ran, and what was seen does not say which versions were read.
    Unjudged {
        /// What is missing.
        why: String,
    },
    /// The database could not be reached.
    Unreachable {
        /// Its words.
        why: String,
    },
    /// An exploration was to go on at a point that these programs do not come to, at these levels and modes.
    Elsewhere,
    /// A program that is Rust code cannot be explored.
    Program {
        /// Its name.
        txn: String,
        /// What is wrong.
        message: String,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Stuck { txns } => {
                write!(f, "{} still blocked after the last step: whoever they wait for never ends", txns.join(" and "))
            }
            ReplayError::Value { n, step, message } => write!(f, "step {n}, `{step}`: {message}"),
            ReplayError::Elsewhere => f.write_str(
                "the resume point is of other programs, or of another level or mode: they do not come there",
            ),
            ReplayError::Lacks { what } => write!(f, "there is no {what} here"),
            ReplayError::Unjudged { why } => write!(f, "cannot be judged: {why}"),
            ReplayError::Unreachable { why } => write!(f, "cannot be reached: {why}"),
            ReplayError::Program { txn, message } => write!(f, "{txn}: {message}"),
        }
    }
}

impl std::error::Error for ReplayError {}

/// Runs a schedule against a database that holds the schedule's initial state and nothing else.
///
/// # Errors
/// When a transaction is still blocked after the last step, a value cannot be worked out, or the
/// database cannot say enough for a verdict.
pub fn replay(schedule: &Schedule, setting: Setting, database: &mut dyn Database) -> Result<Replay, ReplayError> {
    let mut driver = Driver::new(database, &schedule.txns, setting);
    for step in &schedule.steps {
        driver.issue(step.txn, &step.action)?;
    }
    for txn in unended(schedule) {
        driver.issue(txn, &Action::Do(Operation::Commit))?;
    }
    let txns: Vec<String> = driver.blocked().map(|txn| txn.name.clone()).collect();
    if !txns.is_empty() {
        return Err(ReplayError::Stuck { txns });
    }
    let replay = driver.into_replay();
    match database.doubts().into_iter().next() {
        Some(why) => Err(ReplayError::Unjudged { why }),
        None => Ok(replay),
    }
}

/// The transactions whose end is not written, in the order of their first steps.
fn unended(schedule: &Schedule) -> impl Iterator<Item = usize> {
    let ends = |txn| {
        schedule.steps.iter().any(|step| match &step.action {
            Action::Do(operation) => step.txn == txn && operation.ends(),
            Action::Begin(_) => false,
        })
    };
    (0..schedule.txns.len()).filter(move |txn| !ends(*txn))
}
