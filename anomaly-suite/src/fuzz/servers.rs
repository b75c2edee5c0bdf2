//! Random transactions in threads at database servers, or at the nodes of a cluster. Nothing can be
//! repeated by its seed there, so everything is kept: the search goes on to its limit, each anomaly
//! keeps its smallest finding, and the first history that broke a promise is made small.

use std::collections::BTreeMap;
use std::time::Instant;

use isolde_history::model::Event;
use isolde_history::{Finding, History, check};
use isolde_types::Anomaly;

use super::threads::smallest;
use super::{Limit, Shape, Tally};
use crate::adapters::{Concurrent, Observed, TRANSACTIONS};
use crate::engine::{Level, Unreachable};

/// What random histories of a database showed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Sighting {
    /// What was run; [`Tally::shown`] counts what the level forbids too.
    pub tally: Tally,
    /// How many transactions have an unknown outcome.
    pub unknown: u64,
    /// The smallest finding of each anomaly, and the seed of its case.
    pub found: BTreeMap<Anomaly, (u64, Finding)>,
    /// How many cases contradict themselves; no anomaly is looked for in those.
    pub contradictory: u64,
    /// Contradictions that no level can have, in words, and the seed of their case.
    pub complaints: Vec<(u64, String)>,
    /// The first history that broke what the level promises: its seed, and the transactions that show it.
    pub history: Option<(u64, History)>,
}

/// Runs cases from `seed` on until the limit is reached; tells `progress` after each.
///
/// # Errors
/// When the database cannot be reached.
pub fn servers(
    database: &dyn Concurrent,
    level: Level,
    threads: usize,
    shape: Shape,
    seed: u64,
    limit: Limit,
    mut progress: impl FnMut(&Tally),
) -> Result<Sighting, Unreachable> {
    let (mut sighting, start) = (Sighting::default(), Instant::now());
    while !limit.is_reached(sighting.tally.cases, start) {
        let seed = seed.wrapping_add(sighting.tally.cases);
        let observed = database.case(level, threads, shape, seed)?;
        sighting.tally.transactions += (threads * TRANSACTIONS) as u64;
        sighting.add(seed, observed);
        progress(&sighting.tally);
    }
    Ok(sighting)
}

impl Sighting {
    fn add(&mut self, seed: u64, Observed { history, mut complaints }: Observed) {
        let mut report = check(&history);
        complaints.append(&mut report.complaints);
        let count = |is: fn(&Event) -> bool| history.events.iter().filter(|event| is(event)).count() as u64;
        self.tally.cases += 1;
        self.tally.committed += count(|event| matches!(event, Event::Commit { .. }));
        self.tally.aborted += count(|event| matches!(event, Event::Abort { .. }));
        self.unknown += count(|event| matches!(event, Event::Unknown { .. }));
        if !complaints.is_empty() {
            // A version that is missing leaves the places of the others open: no cycle is believed here.
            self.contradictory += 1;
            self.complaints.extend(complaints.into_iter().map(|words| (seed, words)));
            return;
        }
        let breaks = !report.keeps_its_levels();
        for finding in report.findings {
            *self.tally.shown.entry(finding.anomaly).or_default() += 1;
            let known = self.found.get(&finding.anomaly);
            if known.is_none_or(|(_, known)| finding.cycle.len() < known.cycle.len()) {
                self.found.insert(finding.anomaly, (seed, finding));
            }
        }
        if breaks && self.history.is_none() {
            self.history = Some((seed, smallest(history)));
        }
    }

    /// Whether the database kept what a level promises.
    #[must_use]
    pub fn keeps(&self, level: Level) -> bool {
        let forbids = level.promises.forbids();
        self.history.is_none() && self.complaints.is_empty() && self.found.keys().all(|found| !forbids.contains(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Control;
    use crate::verdict::trial;
    use isolde_history::schedule::{Schedule, Setting};
    use isolde_types::{Isolation, Mode};

    /// A database whose history is that of a write skew, or of its two halves one after the other.
    struct Fixed(History);

    impl Concurrent for Fixed {
        fn case(&self, _: Level, _: usize, _: Shape, _: u64) -> Result<Observed, Unreachable> {
            Ok(Observed { history: self.0.clone(), complaints: Vec::new() })
        }
    }

    fn level() -> Level {
        Level::of(Setting { isolation: Isolation::Serializable, mode: Mode::Pessimistic })
    }

    fn sighting(steps: &str) -> Sighting {
        let schedule = Schedule::parse(&format!("init: x=1 y=1\nT1: begin\nT2: begin\n{steps}")).unwrap();
        let setting = Setting { isolation: Isolation::Serializable, mode: Mode::Pessimistic };
        let history = trial(&Control, &schedule, setting).unwrap().replay.history;
        servers(&Fixed(history), level(), 2, Shape::default(), 7, Limit::Cases(3), |_| ()).unwrap()
    }

    #[test]
    fn write_skew_is_found_with_its_smallest_cycle_and_the_seed_of_its_case() {
        let skew = sighting("T1: get x\nT2: get y\nT1: put y 2\nT2: put x 2\nT1: commit\nT2: commit\n");
        assert!(!skew.keeps(level()));
        assert_eq!(skew.tally.shown.get(&Anomaly::WriteSkew), Some(&3));
        let (seed, finding) = &skew.found[&Anomaly::WriteSkew];
        assert_eq!((*seed, finding.cycle.len()), (7, 2));
        assert_eq!((skew.tally.cases, skew.tally.committed), (3, 6));
        assert!(skew.history.is_some());
    }

    /// A write that was committed and is gone: that is said, and nothing else is made of the history.
    #[test]
    fn a_history_that_contradicts_itself_breaks_every_level_and_shows_no_anomaly() {
        let mut sighting = Sighting::default();
        sighting.add(9, Observed { complaints: vec!["a write is lost".to_owned()], ..Observed::default() });
        assert!(!sighting.keeps(level()));
        assert_eq!((sighting.contradictory, sighting.found.len()), (1, 0));
        assert_eq!(sighting.complaints, [(9, "a write is lost".to_owned())]);
    }

    #[test]
    fn one_after_the_other_shows_nothing() {
        let serial = sighting("T1: get x\nT1: put y 2\nT1: commit\nT2: get y\nT2: put x 2\nT2: commit\n");
        assert!(serial.keeps(level()), "{serial:?}");
        assert!(serial.found.is_empty());
    }
}
