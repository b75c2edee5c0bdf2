//! What a schedule came to, in words that are made once for all schedules that came to the same.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::rc::Rc;

use bytes::Bytes;
use isolde_types::Key;

use super::known::{Known, Written};
use crate::schedule::{Replay, StepReport, TxnOutcome};

/// What one schedule came to, as far as programs can tell: what each read, how each ended, and what is in
/// the database.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Outcome {
    /// What each transaction read, step by step, and how it ended.
    pub txns: Vec<String>,
    /// What is in the database at the end.
    pub final_state: BTreeMap<Key, Bytes>,
}

/// The outcomes that were told, by what they tell of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Outcomes {
    told: Known<Outcome>,
}

impl Outcomes {
    pub fn of(&mut self, replay: &Replay) -> Rc<Outcome> {
        self.told.of(|to| write_down(replay, to), || Outcome::of(replay), |_| true)
    }
}

/// All that an outcome is made of: the steps of each transaction, in their order within it.
fn write_down(replay: &Replay, to: &mut Written) {
    replay.final_state.hash(to);
    for (number, txn) in replay.txns.iter().enumerate() {
        (&txn.name, txn.outcome).hash(to);
        for step in replay.steps.iter().filter(|step| step.txn == number) {
            let failure = step.failure.as_ref().map(|failure| (failure.class, failure.ended));
            (true, &step.action, &step.output, failure).hash(to);
        }
        false.hash(to);
    }
}

impl Outcome {
    fn of(replay: &Replay) -> Outcome {
        let txn = |number: usize| {
            let mut words: Vec<String> = Vec::new();
            // By start: the order within a transaction.
            let steps = replay.steps.iter().filter(|step| step.txn == number);
            words.extend(steps.filter_map(seen));
            words.push(ending(replay.txns[number].outcome).to_owned());
            words.join(", ")
        };
        let txns = (0..replay.txns.len()).map(|number| format!("{}: {}", replay.txns[number].name, txn(number)));
        Outcome { txns: txns.collect(), final_state: replay.final_state.clone() }
    }
}

/// What a step showed its transaction.
fn seen(step: &StepReport) -> Option<String> {
    let output = step.output.as_ref().map(ToString::to_string).filter(|text| !text.is_empty());
    let refused = step.failure.as_ref().filter(|failure| !failure.ended).map(|failure| failure.class.name().to_owned());
    output.or(refused).map(|text| format!("{} = {text}", step.action))
}

const fn ending(outcome: TxnOutcome) -> &'static str {
    match outcome {
        TxnOutcome::Committed => "committed",
        TxnOutcome::RolledBack => "rolled back",
        TxnOutcome::Aborted => "aborted",
        TxnOutcome::Unknown => "unknown",
        TxnOutcome::Active => "never ended",
    }
}
