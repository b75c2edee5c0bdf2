//! What the schedules of an exploration came to: outcomes, anomalies, broken invariants and promises,
//! each with the smallest schedule that shows it.

use std::collections::BTreeMap;

use bytes::Bytes;
use isolde_types::{Anomaly, Key, escape_key};

use super::judge::Judge;
use super::outcome::{Outcome, Outcomes};
use super::{Invariant, Order, Run};

/// How often something came, and the smallest schedule that shows it: the one with the fewest changes
/// from one transaction to another, among those the one in which earlier transactions come first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// In how many schedules.
    pub schedules: u64,
    /// The smallest.
    pub order: Order,
    /// What it shows, in words.
    pub words: String,
}

/// What all schedules came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// How many schedules were looked at.
    pub schedules: u64,
    /// The outcomes.
    pub outcomes: BTreeMap<Outcome, Shown>,
    /// The anomalies.
    pub anomalies: BTreeMap<Anomaly, Shown>,
    /// The anomalies that a transaction sees, by its name: where its own level lets it, or where nobody's
    /// does and a promise is broken.
    pub seen: BTreeMap<(String, Anomaly), Shown>,
    /// What breaks a promise, by what is broken; contradictions in the records, too.
    pub faults: BTreeMap<String, Shown>,
    /// Final states that break the invariant.
    pub broken: Option<Shown>,
    /// Transactions that wait for each other, or for nobody, for ever.
    pub stuck: Option<Shown>,
    judge: Judge,
    told: Outcomes,
}

impl Survey {
    /// Takes a schedule into account.
    pub fn add(&mut self, run: &Run<'_>, invariant: Option<&Invariant>) {
        let broken = invariant
            .filter(|invariant| run.outcome.as_ref().is_ok_and(|replay| !invariant.holds(&replay.final_state)));
        let words = broken.zip(run.outcome.as_ref().ok());
        let words = words.map(|(invariant, replay)| format!("{invariant} is broken: {}", state(&replay.final_state)));
        self.add_judged(run, words);
    }

    /// Takes a schedule into account whose final state was judged: how it is broken, if it is.
    pub fn add_judged(&mut self, run: &Run<'_>, broken: Option<String>) {
        self.schedules += 1;
        let replay = match run.outcome {
            Ok(replay) => replay,
            Err(error) => return note(&mut self.stuck, run.order, || error.to_string()),
        };
        let outcome = self.told.of(replay);
        if let Some(words) = broken {
            note(&mut self.broken, run.order, || words);
        }
        count(&mut self.outcomes, &*outcome, run.order, String::new);
        let judgement = self.judge.judge(&replay.history);
        for (seen, finding) in &judgement.seen {
            count(&mut self.seen, seen, run.order, || finding.words.clone());
        }
        let report = &judgement.report;
        for finding in &report.findings {
            count(&mut self.anomalies, &finding.anomaly, run.order, || finding.words.clone());
        }
        let complaints = report.complaints.iter().chain(&replay.complaints).chain(&judgement.untracked);
        let complaints = complaints.map(|words| ("contradiction".to_owned(), words));
        let violations =
            report.violations.iter().map(|violation| (violation.anomaly.code().to_owned(), &violation.words));
        for (what, words) in complaints.chain(violations) {
            count(&mut self.faults, &what, run.order, || words.clone());
        }
    }
}

/// Fewest changes first, then earlier transactions first.
fn size(order: &Order) -> (usize, &[usize]) {
    (order.moves.windows(2).filter(|pair| pair[0] != pair[1]).count(), &order.moves)
}

impl Shown {
    fn new(order: &Order, words: impl FnOnce() -> String) -> Shown {
        Shown { schedules: 1, order: order.clone(), words: words() }
    }

    /// One more schedule shows it.
    fn add(&mut self, order: &Order, words: impl FnOnce() -> String) {
        self.schedules += 1;
        if size(order) < size(&self.order) {
            self.order = order.clone();
            self.words = words();
        }
    }
}

fn note(slot: &mut Option<Shown>, order: &Order, words: impl FnOnce() -> String) {
    match slot {
        None => *slot = Some(Shown::new(order, words)),
        Some(shown) => shown.add(order, words),
    }
}

fn count<K: Ord + Clone>(map: &mut BTreeMap<K, Shown>, key: &K, order: &Order, words: impl FnOnce() -> String) {
    match map.get_mut(key) {
        Some(shown) => shown.add(order, words),
        None => drop(map.insert(key.clone(), Shown::new(order, words))),
    }
}

/// A state in one line.
pub(super) fn state(state: &BTreeMap<Key, Bytes>) -> String {
    let pairs: Vec<String> =
        state.iter().map(|(key, value)| format!("{}={}", escape_key(key), String::from_utf8_lossy(value))).collect();
    pairs.join(" ")
}
