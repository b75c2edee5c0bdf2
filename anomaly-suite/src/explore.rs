//! Every interleaving of transaction programs, at a level and mode: the explorer over an [`Engine`].

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isolde_history::explore::{
    Aborted, Begins, Closures, Explored, Invariant, Options, Order, Programs, Reduction, Resume, Survey, explore,
};
use isolde_history::schedule::{BeginWords, ReplayError, Schedule, Setting};
use isolde_types::Key;

use crate::engine::Engine;

/// How to explore.
#[derive(Clone, Debug, Default)]
pub struct Exploring {
    /// Whether schedules that come to the same are run once.
    pub reduction: Reduction,
    /// What must hold in every final state. Transactions that the database aborted are run again before
    /// it is looked at, as a service would.
    pub invariant: Option<Invariant>,
    /// The first schedule to be looked at, counted from 0.
    pub from: u64,
    /// Where to go on, instead of at the first schedule: nothing before it is run.
    pub resume: Option<Resume>,
    /// When to stop, if it takes long.
    pub time_limit: Option<Duration>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Exploration {
    /// The programs, each at its level and mode.
    pub programs: Programs,
    /// When each transaction began.
    pub begins: Vec<Begins>,
    /// How far it came.
    pub explored: Explored,
    /// What the schedules came to.
    pub survey: Survey,
    /// How long it took.
    pub elapsed: Duration,
}

impl Exploration {
    /// The schedule of an order of this exploration.
    #[must_use]
    pub fn schedule(&self, order: &Order) -> Schedule {
        self.programs.schedule(order, &self.begins)
    }
}

/// Runs every interleaving of the programs. Transactions that name no level or mode take them from
/// `settings`, in turn; `progress` is told how many schedules are done.
///
/// ```
/// use anomaly_suite::explore::{Exploring, survey};
/// use anomaly_suite::Isolde;
/// use isolde_history::explore::Programs;
/// use isolde_history::schedule::{Schedule, Setting};
/// use isolde_types::{Anomaly, Isolation, Mode};
///
/// let doctors = Schedule::parse("init: x=1 y=1\nT1: get x\nT1: put y 0\nT2: get y\nT2: put x 0\n")?;
/// let programs = Programs::of(&doctors)?;
/// let at = |isolation| Setting { isolation, mode: Mode::Optimistic };
/// let snapshot = survey(&Isolde, &programs, &[at(Isolation::Snapshot)], &Exploring::default(), |_| ())?;
/// assert!(snapshot.survey.anomalies.contains_key(&Anomaly::WriteSkew));
/// let serializable = survey(&Isolde, &programs, &[at(Isolation::Serializable)], &Exploring::default(), |_| ())?;
/// assert!(serializable.survey.anomalies.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When a value cannot be worked out, such as `$x+1` where x holds a word.
pub fn survey(
    engine: &dyn Engine,
    programs: &Programs,
    settings: &[Setting],
    exploring: &Exploring,
    mut progress: impl FnMut(u64),
) -> Result<Exploration, ReplayError> {
    let programs = programs.at(settings);
    let begins = begins(engine, programs.programs.iter().map(|program| program.begin));
    let options = options(exploring, begins, exploring.invariant.is_some());
    let mut survey = Survey::default();
    let mut watch = Watch { start: Instant::now(), limit: exploring.time_limit, progress: &mut progress };
    let initial = holding(&programs.initial);
    let explored = explore(
        &programs,
        &options,
        || engine.open(&initial).unwrap_or_else(|unreachable| Box::new(unreachable)),
        |run| {
            survey.add(run, exploring.invariant.as_ref());
            watch.goes_on(run.number)
        },
    )?;
    let elapsed = watch.start.elapsed();
    Ok(Exploration { programs, begins: options.begins, explored, survey, elapsed })
}

/// When transactions begin on an engine.
pub(crate) fn begins(engine: &dyn Engine, words: impl IntoIterator<Item = BeginWords>) -> Vec<Begins> {
    let begin = |words: BeginWords| engine.begins(words.isolation.unwrap_or_default(), words.mode.unwrap_or_default());
    words.into_iter().map(begin).collect()
}

// --- programs that are Rust code ----------------------------------------------------------------------

/// What came out of programs that are Rust code.
pub struct ClosureExploration<'e, 'f> {
    engine: &'e dyn Engine,
    closures: Closures<'f>,
    options: Options,
    /// How far it came.
    pub explored: Explored,
    /// What the schedules came to.
    pub survey: Survey,
    /// How long it took.
    pub elapsed: Duration,
}

impl ClosureExploration<'_, '_> {
    /// The schedule of an order of this exploration, with the values that its programs came to: it is run
    /// once more. A file with it can be given to `anomaly-suite replay`.
    ///
    /// # Errors
    /// When a program does something else than before.
    pub fn schedule(&self, order: &Order) -> Result<Schedule, ReplayError> {
        let opened = self.engine.open(&holding(self.closures.initial()));
        let mut database = opened.unwrap_or_else(|unreachable| Box::new(unreachable));
        self.closures.schedule(&self.options, &mut *database, order)
    }
}

/// Runs every interleaving of programs that are Rust code: async closures over a
/// [`Session`](isolde_history::explore::Session), whose course may depend on what they read. All runs on this
/// thread, by polling.
///
/// Two withdrawals from two accounts, each of which looks at the sum first:
///
/// ```
/// use anomaly_suite::Isolde;
/// use anomaly_suite::explore::{Exploring, explore_closures};
/// use isolde_history::explore::{Answer, Closures, Session};
/// use isolde_history::schedule::Setting;
/// use isolde_types::{Anomaly, Isolation, Mode};
///
/// async fn withdraw(s: &Session, from: &str) -> Answer {
///     if s.number("alice").await? + s.number("bob").await? < 100 {
///         return Err(s.give_up("not enough"));
///     }
///     let balance = s.number(from).await?;
///     s.put(from, balance - 100).await
/// }
///
/// let withdrawals = Closures::new()
///     .initially("alice", 70)
///     .initially("bob", 70)
///     .program("T1", async |s| withdraw(s, "alice").await)
///     .program("T2", async |s| withdraw(s, "bob").await)
///     .invariant("alice + bob >= 0", |end| end.number("alice") + end.number("bob") >= 0);
/// let at = |isolation| [Setting { isolation, mode: Mode::Optimistic }];
///
/// let snapshot = explore_closures(&Isolde, &withdrawals, &at(Isolation::Snapshot), &Exploring::default(), |_| ())?;
/// assert!(snapshot.explored.complete && snapshot.survey.anomalies.contains_key(&Anomaly::WriteSkew));
/// let broken = snapshot.survey.broken.as_ref().expect("both take the last hundred");
/// assert_eq!(broken.words, "alice + bob >= 0 is broken: alice=-30 bob=-30");
/// let schedule = snapshot.schedule(&broken.order)?;
/// assert!(schedule.to_string().contains("T1: put alice -30"));
///
/// let serializable =
///     explore_closures(&Isolde, &withdrawals, &at(Isolation::Serializable), &Exploring::default(), |_| ())?;
/// assert!(serializable.survey.broken.is_none() && serializable.survey.anomalies.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When a program cannot be explored: see [`Closures::explore`].
pub fn explore_closures<'e, 'f>(
    engine: &'e dyn Engine,
    closures: &Closures<'f>,
    settings: &[Setting],
    exploring: &Exploring,
    mut progress: impl FnMut(u64),
) -> Result<ClosureExploration<'e, 'f>, ReplayError> {
    let closures = closures.at(settings);
    let invariant = exploring.invariant.as_ref();
    let judged = invariant.is_some() || closures.has_invariant();
    let options = options(exploring, begins(engine, closures.begins()), judged);
    let mut survey = Survey::default();
    let mut watch = Watch { start: Instant::now(), limit: exploring.time_limit, progress: &mut progress };
    let initial = holding(closures.initial());
    let explored = closures.explore(
        &options,
        || engine.open(&initial).unwrap_or_else(|unreachable| Box::new(unreachable)),
        |run| {
            let state = run.outcome.as_ref().ok().map(|replay| &replay.final_state);
            match state.and_then(|state| closures.broken(state)) {
                Some(words) => survey.add_judged(run, Some(words)),
                None => survey.add(run, invariant),
            }
            watch.goes_on(run.number)
        },
    )?;
    let elapsed = watch.start.elapsed();
    Ok(ClosureExploration { engine, closures, options, explored, survey, elapsed })
}

fn holding(initial: &[(Key, Bytes)]) -> Schedule {
    Schedule { initial: initial.to_vec(), ..Schedule::default() }
}

fn options(exploring: &Exploring, begins: Vec<Begins>, judged: bool) -> Options {
    let aborted = if judged { Aborted::RunAgain } else { Aborted::Left };
    let Exploring { reduction, from, ref resume, .. } = *exploring;
    Options { begins, reduction, aborted, from, resume: resume.clone() }
}

/// Tells how far an exploration is, and ends it when it takes too long.
struct Watch<'w> {
    start: Instant,
    limit: Option<Duration>,
    progress: &'w mut dyn FnMut(u64),
}

impl Watch<'_> {
    fn goes_on(&mut self, number: u64) -> ControlFlow<()> {
        if number.is_multiple_of(256) {
            (self.progress)(number);
            if self.limit.is_some_and(|limit| self.start.elapsed() >= limit) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}
