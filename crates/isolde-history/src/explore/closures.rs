//! Programs that are Rust code: async closures, whose course may depend on what they read.
//!
//! ```text
//!   T1 ── get alice ──► plain code ── put alice 40 ──► returns Ok ── commit
//!         pending                     pending                        pending
//! ```
//!
//! A closure is polled until it asks for its next operation. At each point of the tree the explorer
//! chooses one of those operations, runs it, and polls whoever got an answer. Since a closure is run again
//! for every schedule, it must be a function of what it reads: one that does something else the second
//! time is found out, and ends the exploration with an error.
//!
//! The reduction is the one of [`explore()`](super::explore()): what a closure does next is known wherever
//! one must choose, and its end depends on all that it has done until then.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use isolde_types::{Isolation, Key, Mode};

use super::asleep::{Asleep, asleep};
use super::reduce;
use super::session::{Answer, Session};
use super::tree::Point;
use super::{
    Aborted, Arrival, Begins, Descent, Explored, MAX_TXNS, Options, Order, Program, Run, Standing, Steps, Way,
    again_name, ended, renumbered, tree,
};
use crate::schedule::{
    Action, BeginWords, Database, Driver, Operation, ReplayError, Schedule, Setting, Step, StepReport, TxnOutcome,
};

/// Programs that do more operations than this are taken for endless.
pub const MAX_OPERATIONS: usize = 200;

/// Transaction programs that are Rust code, the state that they start from, and what must hold at the end.
///
/// See `anomaly_suite::explore::explore_closures` for an example that runs.
#[derive(Clone, Default)]
pub struct Closures<'f> {
    initial: Vec<(Key, Bytes)>,
    programs: Vec<Body<'f>>,
    invariant: Option<(String, Rc<Holds<'f>>)>,
}

type Running<'f> = Pin<Box<dyn Future<Output = Answer> + 'f>>;
type Holds<'f> = dyn Fn(&State) -> bool + 'f;

#[derive(Clone)]
struct Body<'f> {
    name: String,
    begin: BeginWords,
    run: Rc<dyn Fn(Rc<Session>) -> Running<'f> + 'f>,
}

/// What is in the database at the end of a schedule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State(BTreeMap<Key, Bytes>);

impl State {
    /// What a key holds.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The number that a key holds; an absent one counts as 0, and so does what is no number.
    #[must_use]
    pub fn number(&self, key: &str) -> i64 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// The keys that are there, and what they hold.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Bytes)> {
        self.0.iter()
    }
}

impl fmt::Debug for Closures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.programs.iter().map(|program| program.name.as_str()).collect();
        f.debug_struct("Closures").field("initial", &self.initial).field("programs", &names).finish_non_exhaustive()
    }
}

impl<'f> Closures<'f> {
    /// No programs, and nothing in the database.
    #[must_use]
    pub fn new() -> Closures<'f> {
        Closures::default()
    }

    /// A key that is there before the first step.
    #[must_use]
    pub fn initially(mut self, key: &str, value: impl ToString) -> Self {
        self.initial.push((Key::copy_from_slice(key.as_bytes()), Bytes::from(value.to_string())));
        self
    }

    /// One more transaction: begun, run, and committed when the closure returns `Ok`, else rolled back.
    ///
    /// The closure is run once for every schedule, so it must do the same whenever it reads the same.
    #[must_use]
    pub fn program<F>(self, name: &str, body: F) -> Self
    where
        F: AsyncFn(&Session) -> Answer + 'f,
    {
        self.program_at(name, BeginWords::default(), body)
    }

    /// The same, at a level and mode of its own.
    #[must_use]
    pub fn program_at<F>(mut self, name: &str, begin: BeginWords, body: F) -> Self
    where
        F: AsyncFn(&Session) -> Answer + 'f,
    {
        let body = Rc::new(body);
        let run = move |session: Rc<Session>| -> Running<'f> {
            let body = Rc::clone(&body);
            Box::pin(async move { body(&session).await })
        };
        self.programs.push(Body { name: name.to_owned(), begin, run: Rc::new(run) });
        self
    }

    /// What must hold in every final state. Transactions that the database aborted are run again, one
    /// after the other, before it is looked at.
    #[must_use]
    pub fn invariant(mut self, words: &str, holds: impl Fn(&State) -> bool + 'f) -> Self {
        self.invariant = Some((words.to_owned(), Rc::new(holds)));
        self
    }

    /// The same programs; those that name no level or mode take them from `settings`, in turn.
    #[must_use]
    pub fn at(&self, settings: &[Setting]) -> Closures<'f> {
        let mut closures = self.clone();
        for (program, setting) in closures.programs.iter_mut().zip(settings.iter().cycle()) {
            program.begin.isolation.get_or_insert(setting.isolation);
            program.begin.mode.get_or_insert(setting.mode);
        }
        closures
    }

    /// The keys that are there before the first step.
    #[must_use]
    pub fn initial(&self) -> &[(Key, Bytes)] {
        &self.initial
    }

    /// How each program begins.
    pub fn begins(&self) -> impl Iterator<Item = BeginWords> {
        self.programs.iter().map(|program| program.begin)
    }

    /// Whether there is an invariant.
    #[must_use]
    pub fn has_invariant(&self) -> bool {
        self.invariant.is_some()
    }

    /// How a final state breaks the invariant, in words.
    #[must_use]
    pub fn broken(&self, state: &BTreeMap<Key, Bytes>) -> Option<String> {
        let (words, holds) = self.invariant.as_ref()?;
        (!holds(&State(state.clone()))).then(|| format!("{words} is broken: {}", super::survey::state(state)))
    }

    /// Runs every interleaving of the programs, each on a database that `open` gives, and shows each to
    /// `visit`, until it breaks.
    ///
    /// # Errors
    /// When a program does not do the same whenever it reads the same, does several operations at once,
    /// awaits something that is no operation, or goes on for ever.
    ///
    /// # Panics
    /// When a program does.
    pub fn explore(
        &self,
        options: &Options,
        mut open: impl FnMut() -> Box<dyn Database>,
        visit: impl FnMut(&Run<'_>) -> ControlFlow<()>,
    ) -> Result<Explored, ReplayError> {
        if self.programs.len() > MAX_TXNS {
            let message = format!("{} programs; at most {MAX_TXNS} can be explored", self.programs.len());
            return Err(ReplayError::Program { txn: "exploration".to_owned(), message });
        }
        let mut taken = Vec::new();
        let descend = |way: &mut Way, again: &mut Vec<usize>| {
            let mut database = open();
            let mut descending = self.descending(options, &mut *database)?;
            if let Some(pruned) = descending.go(way, &mut taken)? {
                return Ok(pruned);
            }
            if options.aborted == Aborted::RunAgain {
                descending.run_again(again)?;
            }
            let Descending { driver, .. } = descending;
            Ok(ended(driver))
        };
        tree(options, &mut Way::of(options, Steps::default()), descend, visit)
    }

    /// The schedule that runs the programs in an order, with the values that they came to; for `replay`.
    ///
    /// # Errors
    /// As [`Closures::explore`].
    pub fn schedule(
        &self,
        options: &Options,
        database: &mut dyn Database,
        order: &Order,
    ) -> Result<Schedule, ReplayError> {
        let point = |chosen: &usize| Point { chosen: *chosen, ..Point::new(Standing::default(), Asleep::default()) };
        let mut way = Way::of(options, Steps::default());
        way.points.extend(order.moves.iter().map(point));
        let mut descending = self.descending(options, database)?;
        descending.go(&mut way, &mut Vec::new())?;
        if !order.again.is_empty() {
            descending.run_again(&mut Vec::new())?;
        }
        let steps = descending.driver.steps().iter();
        let steps = steps.map(|StepReport { txn, action, .. }| Step { txn: *txn, action: action.clone() }).collect();
        let names = self.programs.iter().map(|program| program.name.clone());
        let again = order.again.iter().map(|txn| again_name(&self.programs[*txn].name));
        Ok(renumbered(&self.initial, &names.chain(again).collect::<Vec<_>>(), steps))
    }

    fn descending<'c, 'd>(
        &'c self,
        options: &'c Options,
        database: &'d mut dyn Database,
    ) -> Result<Descending<'c, 'f, 'd>, ReplayError> {
        let names: Vec<String> = self.programs.iter().map(|program| program.name.clone()).collect();
        let setting = Setting { isolation: Isolation::Serializable, mode: Mode::Optimistic };
        let driver = Driver::new(database, &names, setting).incurious();
        let actors = (0..names.len()).map(|body| Actor::new(self, body, body)).collect();
        let mut descending = Descending { closures: self, driver, actors };
        for txn in (0..names.len()).filter(|txn| options.begins[*txn] == Begins::First) {
            descending.take(txn)?;
        }
        Ok(descending)
    }
}

/// One run down the tree.
struct Descending<'c, 'f, 'd> {
    closures: &'c Closures<'f>,
    driver: Driver<'d>,
    actors: Vec<Actor<'f>>,
}

/// A program under way.
struct Actor<'f> {
    /// Its number to the driver.
    txn: usize,
    /// Which of the programs it runs.
    body: usize,
    session: Rc<Session>,
    running: Option<Running<'f>>,
    /// What it has done so far.
    done: Program,
    /// What it wants to do next; none while it waits for the database, and when it has ended.
    pending: Option<Action>,
    /// What it has asked of the database last.
    last: Option<Action>,
    /// The step that it waits for.
    step: Option<usize>,
}

impl<'f> Actor<'f> {
    fn new(closures: &Closures<'f>, body: usize, txn: usize) -> Actor<'f> {
        let Body { name, begin, .. } = &closures.programs[body];
        Actor {
            txn,
            body,
            session: Rc::default(),
            running: None,
            done: Program { name: name.clone(), begin: *begin, operations: Vec::new() },
            pending: Some(Action::Begin(*begin)),
            last: None,
            step: None,
        }
    }

    fn error(&self, message: &str) -> ReplayError {
        ReplayError::Program { txn: self.done.name.clone(), message: message.to_owned() }
    }

    /// What it does after its step has ended.
    fn go_on(&mut self, closures: &Closures<'f>, report: &StepReport) -> Result<(), ReplayError> {
        let answer = match (&report.output, &report.failure) {
            (_, Some(failure)) => Err(failure.clone()),
            (Some(output), None) => Ok(output.clone()),
            (None, None) => return Ok(()),
        };
        match &report.action {
            Action::Do(operation) if operation.ends() => return Ok(()),
            Action::Begin(_) if answer.is_err() => return Ok(()),
            Action::Begin(_) => self.running = Some((closures.programs[self.body].run)(Rc::clone(&self.session))),
            Action::Do(_) => self.session.answer(answer),
        }
        self.poll()
    }

    fn poll(&mut self) -> Result<(), ReplayError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let polled = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Some(misuse) = self.session.misuse(polled.is_ready()) {
            return Err(self.error(misuse));
        }
        self.pending = match polled {
            Poll::Ready(_) if self.session.is_over() => None,
            Poll::Ready(Ok(())) => Some(Action::Do(Operation::Commit)),
            Poll::Ready(Err(_)) => Some(Action::Do(Operation::Rollback)),
            Poll::Pending => match self.session.take_asked() {
                Some(_) if self.done.operations.len() >= MAX_OPERATIONS => {
                    return Err(self.error(&format!("it does more than {MAX_OPERATIONS} operations: is it endless?")));
                }
                Some(operation) => Some(Action::Do(operation)),
                None => return Err(self.error("it awaits something that is no operation of its session")),
            },
        };
        if polled.is_ready() {
            self.running = None;
        }
        Ok(())
    }
}

impl Descending<'_, '_, '_> {
    /// Runs the choices that the way names, whose steps were `taken` before, then goes on with the first
    /// choice at each new point, to the end; or finds that another schedule comes to the same.
    fn go(&mut self, way: &mut Way, taken: &mut Vec<Action>) -> Result<Option<Descent>, ReplayError> {
        // The last one is the new choice.
        taken.truncate(way.points.len().saturating_sub(1));
        let mut depth = 0;
        loop {
            if depth == way.points.len() {
                let can = |txn: usize| self.actors[txn].pending.is_some();
                let state = Standing::of(&self.driver, self.actors.len(), can);
                match way.arrive(state, |_, parent| self.asleep(parent)) {
                    Arrival::Point => {}
                    Arrival::End => return Ok(None),
                    Arrival::Known => return Ok(Some(Descent::Pruned)),
                }
            }
            let chosen = way.points[depth].chosen;
            let action = self.take(chosen)?;
            match taken.get(depth) {
                None => taken.push(action),
                Some(before) if *before == action => {}
                Some(_) => return Err(self.actors[way.points[depth].chosen].error(UNSTEADY)),
            }
            depth += 1;
        }
    }

    /// Issues what a program wants to do next, and lets every program go on that has an answer.
    fn take(&mut self, actor: usize) -> Result<Action, ReplayError> {
        let one = &mut self.actors[actor];
        let Some(action) = one.pending.take() else { return Err(one.error(UNSTEADY)) };
        if let Action::Do(operation) = &action {
            one.done.operations.push(operation.clone());
        }
        one.last = Some(action.clone());
        self.driver.issue(one.txn, &action)?;
        one.step = Some(self.driver.steps().len() - 1);
        for actor in &mut self.actors {
            let report = actor.step.map(|step| &self.driver.steps()[step]);
            if let Some(report) = report.filter(|report| report.ended.is_some()) {
                actor.step = None;
                actor.go_on(self.closures, report)?;
            }
        }
        Ok(action)
    }

    fn asleep(&self, parent: &Point) -> Asleep {
        let actors = &self.actors;
        let last = |txn: usize| Some((&actors[txn].done, actors[txn].last.as_ref()?));
        let next = |txn: usize| Some((&actors[txn].done, actors[txn].pending.as_ref()?));
        asleep(parent, last, next, reduce::independent)
    }

    /// Runs those that the database aborted again, one after the other.
    fn run_again(&mut self, again: &mut Vec<usize>) -> Result<(), ReplayError> {
        let bodies = self.closures.programs.len();
        again.extend((0..bodies).filter(|txn| self.driver.outcome(*txn) == TxnOutcome::Aborted));
        for &body in &*again {
            let txn = self.driver.add(&again_name(&self.closures.programs[body].name));
            self.actors.push(Actor::new(self.closures, body, txn));
            let last = self.actors.len() - 1;
            while self.actors[last].pending.is_some() {
                self.take(last)?;
            }
        }
        Ok(())
    }
}

const UNSTEADY: &str = "it does something else when it is run again: it must be a function of what it reads";
