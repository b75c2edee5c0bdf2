//! Every interleaving of small transaction programs, run on a real database.
//!
//! ```text
//!   T1: get x │ put y │ commit        at each point: which transaction that can go on moves next?
//!   T2: get y │ put x │ commit        depth first; each schedule on a fresh database, by polling
//!
//!              start
//!            T1 /  \ T2                a transaction that waits is no choice until it is woken
//!          T1 /\T2  ...
//!            ...
//! ```
//!
//! A schedule is the order in which transactions were chosen. The database is a black box, so a
//! schedule is run again from its start for each change of its end.
//!
//! **Reduction.** Two steps of different transactions are *independent* if neither can tell which came
//! first; schedules that differ only in the order of neighbours that are independent come to the same,
//! and one of them is enough. *Sleep sets* skip the others: having gone down one choice, a sibling that
//! is independent of it need not be tried first again until something that depends on it has
//! happened. What is independent is judged by keys, and by whom a step was seen to wake or abort, and tested
//! against the unreduced run. Most runs that would come to where everyone sleeps are foreseen, and not run: see
//! `foresight`. Source:
//! Godefroid, "Partial-Order Methods for the Verification of Concurrent Systems" (1996), chapter 5.
//!
//! Worked example: T1 gets x, T2 gets y, and both commit. 2 + 2 steps have 6 orders, and all come to the
//! same: with sleep sets one is run.
//!
//! What it leaves out: time. A wait that would time out is a wait for ever here, and reported as stuck.

mod asleep;
mod closures;
mod foresight;
mod invariant;
mod judge;
mod known;
mod outcome;
mod reduce;
mod resume;
mod session;
mod survey;
mod tree;

use std::ops::ControlFlow;

use bytes::Bytes;
use isolde_types::{Isolation, Key, Mode};

use crate::schedule::{
    Action, BeginWords, Database, Driver, Operation, Replay, ReplayError, Schedule, Setting, Step, TxnOutcome,
};

use asleep::Standing;
use reduce::Steps;
use tree::{Arrival, Descent, Places, Way, tree};

pub use closures::{Closures, MAX_OPERATIONS, State};
pub use invariant::{Invariant, InvariantError};
pub use outcome::Outcome;
pub use resume::Resume;
pub use session::{Answer, Session};
pub use survey::{Shown, Survey};

/// At most this many transactions.
pub const MAX_TXNS: usize = 8;

/// Transaction programs, and the state that they start from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    /// Keys present before the first step.
    pub initial: Vec<(Key, Bytes)>,
    /// The programs.
    pub programs: Vec<Program>,
}

/// One transaction: how it begins, and what it does, its end included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// What its `begin` says.
    pub begin: BeginWords,
    /// Its operations; the last commits or rolls back, and no other does.
    pub operations: Vec<Operation>,
}

impl Programs {
    /// The programs of a schedule, whose order across transactions is not looked at. One whose end is
    /// not written commits.
    ///
    /// # Errors
    /// When there are too many transactions, or one goes on after its end.
    pub fn of(schedule: &Schedule) -> Result<Programs, String> {
        if schedule.txns.len() > MAX_TXNS {
            return Err(format!("{} transactions; at most {MAX_TXNS} can be explored", schedule.txns.len()));
        }
        let program = |txn: usize, name: &String| {
            let mut program = Program { name: name.clone(), begin: BeginWords::default(), operations: Vec::new() };
            for step in schedule.steps.iter().filter(|step| step.txn == txn) {
                match &step.action {
                    Action::Begin(words) => program.begin = *words,
                    Action::Do(operation) => program.operations.push(operation.clone()),
                }
            }
            let end = program.operations.iter().position(Operation::ends);
            match end {
                None => program.operations.push(Operation::Commit),
                Some(end) if end + 1 < program.operations.len() => return Err(format!("{name} goes on after its end")),
                Some(_) => {}
            }
            Ok(program)
        };
        let programs = schedule.txns.iter().enumerate().map(|(txn, name)| program(txn, name));
        Ok(Programs { initial: schedule.initial.clone(), programs: programs.collect::<Result<_, String>>()? })
    }

    /// Whether a key is there before the first step, or is named by any: else it is absent for ever, and was perhaps
    /// misspelt.
    #[must_use]
    pub fn know(&self, key: &Key) -> bool {
        let mut operations = self.programs.iter().flat_map(|program| &program.operations);
        self.initial.iter().any(|(initial, _)| initial == key)
            || operations.any(|operation| operation.key() == Some(key))
    }

    /// The schedule that runs the programs in an order; for `replay`.
    #[must_use]
    pub fn schedule(&self, order: &Order, begins: &[Begins]) -> Schedule {
        let mut places = vec![0; self.programs.len()];
        let first = (0..self.programs.len()).filter(|txn| begins[*txn] == Begins::First);
        let first = first.map(|txn| Step { txn, action: Action::Begin(self.programs[txn].begin) });
        let steps = order.moves.iter().filter_map(|&txn| {
            let action = self.action(txn, places[txn], begins[txn]);
            places[txn] += 1;
            action.map(|action| Step { txn, action })
        });
        let again = order.again.iter().enumerate().flat_map(|(place, &txn)| {
            let number = self.programs.len() + place;
            self.actions(txn).map(move |action| Step { txn: number, action })
        });
        let steps: Vec<Step> = first.chain(steps).chain(again).collect();
        let names = self.programs.iter().map(|program| program.name.clone());
        let again = order.again.iter().map(|txn| again_name(&self.programs[*txn].name));
        renumbered(&self.initial, &names.chain(again).collect::<Vec<_>>(), steps)
    }

    /// All of a program, from its begin to its end.
    fn actions(&self, txn: usize) -> impl Iterator<Item = Action> {
        let program = &self.programs[txn];
        std::iter::once(Action::Begin(program.begin)).chain(program.operations.iter().cloned().map(Action::Do))
    }

    /// How many steps of a transaction are scheduled.
    fn steps(&self, txn: usize, begins: Begins) -> usize {
        self.programs[txn].operations.len() + usize::from(begins == Begins::Scheduled)
    }

    fn action(&self, txn: usize, place: usize, begins: Begins) -> Option<Action> {
        let program = self.programs.get(txn)?;
        match (begins, place) {
            (Begins::Scheduled, 0) => Some(Action::Begin(program.begin)),
            (Begins::Scheduled, _) => program.operations.get(place - 1).cloned().map(Action::Do),
            (Begins::First, _) => program.operations.get(place).cloned().map(Action::Do),
        }
    }

    /// The same programs with every transaction at a level and mode.
    #[must_use]
    pub fn at(&self, settings: &[Setting]) -> Programs {
        let mut programs = self.clone();
        for (program, setting) in programs.programs.iter_mut().zip(settings.iter().cycle()) {
            program.begin.isolation = Some(setting.isolation);
            program.begin.mode = Some(setting.mode);
        }
        programs
    }
}

/// A schedule names its transactions in the order of their first steps.
fn renumbered(initial: &[(Key, Bytes)], names: &[String], mut steps: Vec<Step>) -> Schedule {
    let mut order: Vec<usize> = Vec::new();
    for step in &steps {
        if !order.contains(&step.txn) {
            order.push(step.txn);
        }
    }
    for step in &mut steps {
        step.txn = order.iter().position(|txn| *txn == step.txn).unwrap_or_default();
    }
    Schedule {
        initial: initial.to_vec(),
        txns: order.iter().map(|txn| names[*txn].clone()).collect(),
        steps,
        ..Schedule::default()
    }
}

/// What a transaction is called when it is run again.
fn again_name(name: &str) -> String {
    format!("{name}-again")
}

/// When a transaction begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begins {
    /// Before everything: right where a view is taken by each operation, not by `begin`.
    First,
    /// As a step of its own, that others can come before: where `begin` takes a snapshot.
    Scheduled,
}

/// Whether schedules that come to the same are run once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reduction {
    /// Once, by sleep sets.
    #[default]
    SleepSets,
    /// Each of them.
    None,
}

/// What to explore, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// When each transaction begins.
    pub begins: Vec<Begins>,
    /// Whether schedules that come to the same are run once.
    pub reduction: Reduction,
    /// What becomes of transactions that the database aborted.
    pub aborted: Aborted,
    /// The first schedule to be visited, counted from 0: those before it are run and passed over.
    pub from: u64,
    /// Where to go on, instead of at the first schedule: nothing before it is run.
    pub resume: Option<Resume>,
}

/// What becomes of transactions that the database aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Aborted {
    /// Nothing.
    #[default]
    Left,
    /// When all others have ended they are run again, one after the other, as a service would.
    RunAgain,
}

/// The order of a schedule: who moves when, and who is run again at its end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Order {
    /// The transactions, in the order in which they were chosen.
    pub moves: Vec<usize>,
    /// Those that the database had aborted, and that were run again.
    pub again: Vec<usize>,
}

/// One schedule that was run.
#[derive(Debug)]
pub struct Run<'r> {
    /// Its number, from 0; the same in each exploration of these programs.
    pub number: u64,
    /// Its order.
    pub order: &'r Order,
    /// What it did; or whoever was still blocked at its end. For whom a step waited was not asked, nor for the words
    /// of a failure.
    pub outcome: &'r Result<Replay, ReplayError>,
}

/// How far an exploration came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Explored {
    /// The number of the first schedule that was run: 0, or that of the point where it went on.
    pub first: u64,
    /// How many schedules there are up to here: the number of the next one.
    pub schedules: u64,
    /// How many were left, in the middle, for others that come to the same; those that were foreseen to be were not
    /// run, and do not count.
    pub pruned: u64,
    /// Whether there is nothing left to run.
    pub complete: bool,
    /// Where to go on, if something is left.
    pub next: Option<Resume>,
}

impl Explored {
    /// How many schedules were run to their ends.
    #[must_use]
    pub fn ran(&self) -> u64 {
        self.schedules - self.first
    }
}

/// Runs every interleaving of the programs, each on a database that `open` gives, and shows each to
/// `visit`, until it breaks.
///
/// # Errors
/// When a value cannot be worked out, such as `$x+1` where x holds a word.
pub fn explore(
    programs: &Programs,
    options: &Options,
    mut open: impl FnMut() -> Box<dyn Database>,
    visit: impl FnMut(&Run<'_>) -> ControlFlow<()>,
) -> Result<Explored, ReplayError> {
    let names: Vec<String> = programs.programs.iter().map(|program| program.name.clone()).collect();
    let mut way = Way::of(options, Steps::of(programs, options));
    let run = |way: &mut Way, again: &mut Vec<usize>| descend(programs, options, &names, &mut *open(), way, again);
    tree(options, &mut way, run, visit)
}

/// Runs the choices that the way names, then goes on with the first choice at each new point.
fn descend(
    programs: &Programs,
    options: &Options,
    names: &[String],
    database: &mut dyn Database,
    way: &mut Way,
    again: &mut Vec<usize>,
) -> Result<Descent, ReplayError> {
    let setting = Setting { isolation: Isolation::Serializable, mode: Mode::Optimistic };
    let mut driver = Driver::new(database, names, setting).incurious();
    for txn in (0..names.len()).filter(|txn| options.begins[*txn] == Begins::First) {
        driver.issue_owned(txn, Action::Begin(programs.programs[txn].begin))?;
    }
    let mut places: Places = [0; MAX_TXNS];
    let mut depth = 0;
    loop {
        if depth == way.points.len() {
            let can = |txn| driver.is_ready(txn) && places[txn] < programs.steps(txn, options.begins[txn]);
            let state = Standing::of(&driver, names.len(), can);
            match way.arrive(state, |way, parent| way.asleep_after(parent, &places)) {
                Arrival::Point => {}
                Arrival::End => break,
                Arrival::Known => return Ok(Descent::Pruned),
            }
        }
        let txn = way.points[depth].chosen;
        if let Some(action) = programs.action(txn, places[txn], options.begins[txn]) {
            driver.issue_owned(txn, action)?;
        }
        places[txn] += 1;
        depth += 1;
    }
    if options.aborted == Aborted::RunAgain {
        run_again(programs, &mut driver, again)?;
    }
    Ok(ended(driver))
}

/// What a run came to whose choices are all made.
fn ended(driver: Driver<'_>) -> Descent {
    let blocked: Vec<String> = driver.blocked().map(|txn| txn.name.clone()).collect();
    if !blocked.is_empty() {
        return Descent::Ended(Err(ReplayError::Stuck { txns: blocked }));
    }
    Descent::Ended(Ok(driver.into_replay()))
}

/// Runs those that the database aborted again, one after the other.
fn run_again(programs: &Programs, driver: &mut Driver<'_>, again: &mut Vec<usize>) -> Result<(), ReplayError> {
    let aborted = |txn: &usize| driver.outcome(*txn) == TxnOutcome::Aborted;
    again.extend((0..programs.programs.len()).filter(aborted));
    for &txn in &*again {
        let number = driver.add(&again_name(&programs.programs[txn].name));
        programs.actions(txn).try_for_each(|action| driver.issue_owned(number, action))?;
    }
    Ok(())
}
