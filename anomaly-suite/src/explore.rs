//! Every interleaving of transaction programs, at a level and mode: the explorer over an [`Engine`].

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use isolde_history::explore::{
    Aborted, Begins, Explored, Invariant, Options, Order, Programs, Reduction, Survey, explore,
};
use isolde_history::schedule::{ReplayError, Schedule, Setting};

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
    let begins = begins(engine, &programs);
    let aborted = if exploring.invariant.is_some() { Aborted::RunAgain } else { Aborted::Left };
    let options = Options { begins: begins.clone(), reduction: exploring.reduction, aborted, from: exploring.from };
    let start = Instant::now();
    let mut survey = Survey::default();
    let initial = Schedule { initial: programs.initial.clone(), ..Schedule::default() };
    let explored = explore(
        &programs,
        &options,
        || engine.open(&initial).unwrap_or_else(|unreachable| Box::new(unreachable)),
        |run| {
            survey.add(run, exploring.invariant.as_ref());
            if run.number % 256 == 0 {
                progress(run.number);
                if exploring.time_limit.is_some_and(|limit| start.elapsed() >= limit) {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(Exploration { programs, begins, explored, survey, elapsed: start.elapsed() })
}

fn begins(engine: &dyn Engine, programs: &Programs) -> Vec<Begins> {
    let begin = |words: &isolde_history::schedule::BeginWords| {
        engine.begins(words.isolation.unwrap_or_default(), words.mode.unwrap_or_default())
    };
    programs.programs.iter().map(|program| begin(&program.begin)).collect()
}
