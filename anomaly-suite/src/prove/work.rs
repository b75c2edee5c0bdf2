//! The work of a proof, shared by threads: each takes the next programs that nobody has taken.
//!
//! What they find is handed over in the order of the programs, so that it does not depend on which thread
//! was when done with what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use isolde_history::explore::{Programs, Shown};
use isolde_history::schedule::{ReplayError, Setting};
use isolde_types::{Isolation, Mode};

use super::LevelProof;
use crate::engine::Engine;
use crate::explore::{Exploration, Exploring, survey};

/// Programs, each to be explored at every level, all in one mode and in both.
pub(super) struct Job<'j> {
    pub engine: &'j dyn Engine,
    pub programs: &'j [Programs],
    pub deadline: Option<Instant>,
    pub interrupted: &'j AtomicBool,
}

/// What some programs showed.
pub(super) struct Part {
    pub schedules: u64,
    /// One for each level and mode, in the order of the matrix.
    pub levels: Vec<LevelProof>,
    /// Whether they were explored at every level and mode.
    pub is_whole: bool,
}

impl Job<'_> {
    /// Gives the part of each of the programs to `take`, in their order.
    pub fn run(&self, threads: usize, take: &mut dyn FnMut(usize, Part)) -> Result<(), ReplayError> {
        let next = AtomicUsize::new(0);
        let (sender, parts) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    while !self.is_over() {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(programs) = self.programs.get(number) else { return };
                        // Nobody listens any more after an error: then there is nothing to do.
                        if sender.send((number, self.part(programs))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let (mut early, mut expected) = (BTreeMap::new(), 0);
            for (number, part) in parts {
                early.insert(number, part?);
                while let Some(part) = early.remove(&expected) {
                    take(expected, part);
                    expected += 1;
                }
            }
            Ok(())
        })
    }

    /// Whether to end before all is done.
    pub fn is_over(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn part(&self, programs: &Programs) -> Result<Part, ReplayError> {
        let levels = Setting::all().map(LevelProof::new).collect();
        let mut part = Part { schedules: 0, levels, is_whole: false };
        for isolation in Isolation::ALL {
            let at = Mode::ALL.map(|mode| Setting { isolation, mode });
            let [pessimistic, optimistic] = at;
            for settings in [[pessimistic; 2], [optimistic; 2], at, [optimistic, pessimistic]] {
                if self.is_over() {
                    return Ok(part);
                }
                let exploration = survey(self.engine, programs, &settings, &Exploring::default(), |_| ())?;
                part.schedules += exploration.explored.schedules;
                part.judge(&settings, &exploration);
            }
        }
        part.is_whole = true;
        Ok(part)
    }
}

impl Part {
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
}
