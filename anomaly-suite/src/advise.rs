//! "Which level do I need?": the weakest level and mode at which no interleaving of some programs
//! breaks an invariant.

use std::time::{Duration, Instant};

use isolde_history::explore::{Invariant, Order, Programs, Shown};
use isolde_history::schedule::{ReplayError, Schedule, Setting};
use isolde_types::{Isolation, Mode};

use crate::engine::Engine;
use crate::explore::{Exploration, Exploring, survey};
use crate::verdict::trial;

/// What is advised.
#[derive(Debug)]
pub struct Advice {
    /// An order of whole transactions that breaks the invariant: then no level can keep it.
    pub broken_serially: Option<Schedule>,
    /// Each level and mode, weakest first, and what exploring it came to; none if no level can.
    pub explorations: Vec<(Setting, Exploration)>,
}

impl Advice {
    /// The weakest level and mode at which no interleaving breaks the invariant.
    #[must_use]
    pub fn weakest(&self) -> Option<Setting> {
        self.explorations.iter().find(|(_, exploration)| keeps(exploration)).map(|(setting, _)| *setting)
    }

    /// The weakest level of a mode at which no interleaving breaks the invariant.
    #[must_use]
    pub fn weakest_in(&self, mode: Mode) -> Option<Setting> {
        let mut in_mode = self.explorations.iter().filter(|(setting, _)| setting.mode == mode);
        in_mode.find(|(_, exploration)| keeps(exploration)).map(|(setting, _)| *setting)
    }

    /// The strongest of those that are weaker than `setting` in its mode, and how it breaks the invariant.
    #[must_use]
    pub fn next_weaker(&self, setting: Setting) -> Option<(Setting, &Exploration, &Shown)> {
        let weaker = self
            .explorations
            .iter()
            .rev()
            .filter(|(other, _)| other.mode == setting.mode && (other.isolation as u8) < setting.isolation as u8);
        let mut broken =
            weaker.filter_map(|(other, exploration)| Some((*other, exploration, exploration.survey.broken.as_ref()?)));
        broken.next()
    }
}

/// Whether every interleaving was run, and none broke the invariant or was stuck.
fn keeps(exploration: &Exploration) -> bool {
    exploration.explored.complete && exploration.survey.broken.is_none() && exploration.survey.stuck.is_none()
}

/// Explores the programs at every level and mode, if the invariant holds after every serial order.
///
/// # Errors
/// When a value cannot be worked out, such as `$x+1` where x holds a word.
pub fn advise(
    engine: &dyn Engine,
    programs: &Programs,
    invariant: &Invariant,
    time_limit: Option<Duration>,
    mut progress: impl FnMut(Setting),
) -> Result<Advice, ReplayError> {
    let exploring = Exploring { invariant: Some(invariant.clone()), time_limit, ..Exploring::default() };
    let broken_serially = broken_serially(engine, programs, invariant)?;
    let mut explorations = Vec::new();
    for setting in Setting::all().filter(|_| broken_serially.is_none()) {
        progress(setting);
        explorations.push((setting, survey(engine, programs, &[setting], &exploring, |_| ())?));
    }
    Ok(Advice { broken_serially, explorations })
}

/// An order of whole transactions after which the invariant does not hold.
fn broken_serially(
    engine: &dyn Engine,
    programs: &Programs,
    invariant: &Invariant,
) -> Result<Option<Schedule>, ReplayError> {
    let setting = Setting { isolation: Isolation::Serializable, mode: Mode::Optimistic };
    for order in permutations(programs.programs.len()) {
        let schedule = serially(programs, &order);
        if !invariant.holds(&trial(engine, &schedule, setting)?.replay.final_state) {
            return Ok(Some(schedule));
        }
    }
    Ok(None)
}

/// The transactions one after the other.
fn serially(programs: &Programs, order: &[usize]) -> Schedule {
    let begins = vec![isolde_history::explore::Begins::Scheduled; programs.programs.len()];
    let steps = |txn: &usize| std::iter::repeat_n(*txn, programs.programs[*txn].operations.len() + 1);
    let moves = order.iter().flat_map(steps).collect();
    programs.schedule(&Order { moves, again: Vec::new() }, &begins)
}

/// Every order of the first `count` numbers.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                let rest: Vec<usize> = (0..count).filter(|number| !order.contains(number)).collect();
                rest.into_iter().map(move |next| [order.as_slice(), &[next]].concat())
            })
            .collect();
    }
    all
}

/// Committed transactions a second, of the programs over and over in threads, one thread for each.
///
/// A transaction that fails is run again, as a service would. The keys are the programs' own, so the
/// threads contend as much as the programs do; in memory.
///
/// # Errors
/// When the database cannot be opened.
pub fn cost(programs: &Programs, setting: Setting, time: Duration) -> isolde::Result<f64> {
    let programs = programs.at(&[setting]);
    let db = crate::isolde::open_with(&programs.initial)?;
    let start = Instant::now();
    let committed: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = programs
            .programs
            .iter()
            .map(|program| {
                let db = &db;
                scope.spawn(move || {
                    let mut committed = 0;
                    while start.elapsed() < time {
                        committed += u64::from(crate::perform::perform(db, program.begin, &program.operations).is_ok());
                    }
                    committed
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    Ok(committed as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_all_and_each_once() {
        let all = permutations(4);
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), distinct.len()), (24, 24));
    }
}
