//! A run, told: what happened in which order, and why it is an anomaly or how it was prevented.
//!
//! `show`, the HTML report and `run --steps` all tell the same story; they differ in how it looks.
//! A story holds words and numbers only, so that it can be written as JSON by one run and drawn
//! beside another one later.

use std::collections::BTreeMap;

use bytes::Bytes;
use isolde_history::oracle;
use isolde_history::schedule::{Action, FailureClass, Operation, Output, Schedule, StepOutcome, StepReport, Swap};
use isolde_types::{Key, Mode, escape_key};
use serde::{Deserialize, Serialize};

use super::narrate::{Narrator, ends_badly};
use crate::verdict::{Mechanism, Outcome, Trial, reported_code};
use crate::versions::written_by;

/// What a run did and what it means.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Story {
    /// The transactions, in the order of their first steps.
    pub lanes: Vec<Lane>,
    /// The committed state before the first step.
    pub start: String,
    /// What happened, in the order in which it happened.
    pub moments: Vec<Moment>,
    /// Why no order of the transactions explains it, if the anomaly was shown.
    pub why: Option<String>,
    /// Each serial order, and the first thing in it that did not happen.
    pub orders: Vec<Order>,
    /// What the schedule expected and did not get.
    pub unmet: Vec<String>,
    /// How it was prevented, if it was.
    pub prevented: Vec<String>,
    /// Other anomalies that were found.
    pub others: Vec<String>,
    /// Impossible states, seen by transactions that were then aborted.
    pub zombies: Vec<String>,
    /// Contradictions in the records.
    pub complaints: Vec<String>,
    /// Promises that were broken to some transaction by its own level.
    pub broken: Vec<String>,
}

/// A transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// How it ended: `committed`, `rolled-back`, `aborted`.
    pub outcome: String,
}

/// Something that happened in one lane: a step, or the end of its waiting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moment {
    /// The number of the step.
    pub n: usize,
    /// The place of its transaction among the lanes.
    pub lane: usize,
    /// The step as it is written, without its transaction.
    pub op: String,
    /// What came of it.
    pub what: What,
    /// What it returned, or the class of its failure, or for whom it waits.
    pub result: Option<String>,
    /// The same as a sentence without its subject.
    pub tells: String,
    /// The committed state after it, if it is a commit.
    pub state: Option<String>,
}

/// What came of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It ran at once.
    Done,
    /// It has to wait.
    Waits,
    /// It waited, and ran.
    GoesOn,
    /// It failed, at once or after a wait, and its transaction goes on.
    Refused,
    /// It failed, at once or after a wait, and its transaction is over.
    Aborted,
}

/// A serial order that does not explain what happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The transactions, first to last.
    pub order: Vec<String>,
    /// The first thing in it that did not happen.
    pub words: String,
}

impl Order {
    /// `T1 first, then T2`; `T2 alone`.
    #[must_use]
    pub fn title(&self) -> String {
        match self.order.as_slice() {
            [one] => format!("{one} alone"),
            [first, rest @ ..] => format!("{first} first, then {}", rest.join(", then ")),
            [] => String::new(),
        }
    }
}

/// The orders of so many transactions can still be read; those of more would fill a page.
const ORDERS_TOLD: usize = 3;

impl Story {
    /// The story of a run of a schedule.
    #[must_use]
    pub fn of(schedule: &Schedule, trial: &Trial) -> Story {
        let replay = &trial.replay;
        let lane = |txn: &isolde_history::schedule::TxnReport| Lane {
            name: txn.name.clone(),
            outcome: super::json::txn_outcome(txn.outcome).to_owned(),
        };
        let (start, moments) = moments(schedule, trial);
        let hunted = trial.hunted(schedule);
        let others = trial.evidence.shown.iter().filter(|shown| Some(*shown) != hunted);
        let possible = trial.outcome == Some(Outcome::Possible);
        let orders = if possible { orders(trial) } else { Vec::new() };
        Story {
            lanes: replay.txns.iter().map(lane).collect(),
            start,
            moments,
            why: hunted.map(|shown| shown.words.clone()),
            orders,
            unmet: trial.unmet.clone(),
            prevented: match trial.outcome {
                Some(Outcome::Prevented(mechanism)) => prevention(schedule, trial, mechanism),
                _ => Vec::new(),
            },
            others: others
                .map(|shown| format!("{} ({})", reported_code(shown.anomaly), shown.anomaly.title()))
                .collect(),
            zombies: trial.evidence.zombies.clone(),
            complaints: trial.evidence.complaints.clone(),
            broken: trial.broken.clone(),
        }
    }

    /// What happened as numbered sentences: steps of one transaction that follow each other are one.
    #[must_use]
    pub fn sentences(&self) -> Vec<(String, String)> {
        let mut sentences: Vec<(usize, Vec<&Moment>)> = Vec::new();
        for moment in &self.moments {
            let quiet = |moment: &Moment| moment.what == What::Done;
            match sentences.last_mut() {
                Some((lane, told))
                    if *lane == moment.lane && told.len() < 4 && quiet(moment) && told.iter().all(|m| quiet(m)) =>
                {
                    told.push(moment);
                }
                _ => sentences.push((moment.lane, vec![moment])),
            }
        }
        let numbers = |told: &[&Moment]| match told {
            [first, .., last] => format!("{}-{}", first.n, last.n),
            _ => told.first().map_or(String::new(), |one| one.n.to_string()),
        };
        let words =
            |told: &[&Moment]| told.iter().map(|moment| moment.tells.as_str()).collect::<Vec<_>>().join(", then ");
        let sentence = |(lane, told): (usize, Vec<&Moment>)| {
            (numbers(&told), format!("{} {}.", self.lanes[lane].name, words(&told)))
        };
        sentences.into_iter().map(sentence).collect()
    }
}

/// The committed state at the start, and everything that happened.
fn moments(schedule: &Schedule, trial: &Trial) -> (String, Vec<Moment>) {
    let replay = &trial.replay;
    let mut happened: Vec<(usize, Happened<'_>)> = replay.steps.iter().flat_map(happened).collect();
    happened.sort_by_key(|(moment, _)| *moment);
    let mut state: BTreeMap<Key, Bytes> = schedule.initial.iter().cloned().collect();
    let (start, written) = (shown_state(&state), written_by(&replay.history));
    let mut narrator = Narrator::new(schedule, &replay.steps);
    let moment = |(_, one): (usize, Happened<'_>)| {
        let (step, what) = (one.step, one.what);
        let commits = step.action == Action::Do(Operation::Commit) && matches!(what, What::Done | What::GoesOn);
        let writes = written.get(&schedule.txns[step.txn]);
        if commits {
            for (key, value) in writes.into_iter().flatten() {
                match value {
                    Some(value) => state.insert(key.clone(), value.clone()),
                    None => state.remove(key),
                };
            }
        }
        let committed = commits.then(|| shown_state(&state));
        let told = committed.as_deref().filter(|_| writes.is_some());
        Moment {
            n: step.n,
            lane: step.txn,
            op: step.action.to_string(),
            what,
            result: result(step, what),
            tells: narrator.tells(step, what, told),
            state: committed,
        }
    };
    (start, happened.into_iter().map(moment).collect())
}

struct Happened<'r> {
    step: &'r StepReport,
    what: What,
}

/// When and what: a step that blocked happens twice, when it waits and when it no longer does.
fn happened(step: &StepReport) -> Vec<(usize, Happened<'_>)> {
    let end = match &step.failure {
        Some(failure) if failure.ended => What::Aborted,
        Some(_) => What::Refused,
        None if step.outcome == StepOutcome::Blocked => What::GoesOn,
        None => What::Done,
    };
    let at = |moment: Option<usize>, what| moment.map(|moment| (moment, Happened { step, what }));
    if step.outcome == StepOutcome::Blocked {
        at(step.started, What::Waits).into_iter().chain(at(step.ended, end)).collect()
    } else {
        at(step.started, end).into_iter().collect()
    }
}

/// What a step returned, how it failed, or for whom it waits.
fn result(step: &StepReport, what: What) -> Option<String> {
    if what == What::Waits {
        // Only who: the sentence about what he has stands below the lanes.
        return step.waited_for.as_ref().and_then(|whom| whom.split(',').next()).map(str::to_owned);
    }
    if let Some(failure) = &step.failure {
        return Some(failure.class.name().to_owned());
    }
    match step.output.as_ref()? {
        Output::Done => None,
        Output::CompareAndSet { swap: Swap::Done, .. } => Some("set".to_owned()),
        Output::CompareAndSet { swap: Swap::Refused, found } => {
            Some(format!("not set, holds {}", Output::Value(found.clone())))
        }
        output => Some(output.to_string()),
    }
}

fn shown_state(state: &BTreeMap<Key, Bytes>) -> String {
    let pairs: Vec<String> =
        state.iter().map(|(key, value)| format!("{}={}", escape_key(key), value.escape_ascii())).collect();
    if pairs.is_empty() { "(nothing)".to_owned() } else { pairs.join(" ") }
}

fn orders(trial: &Trial) -> Vec<Order> {
    let replay = &trial.replay;
    let refutations = oracle::refutations(&replay.history, Some(&replay.final_state), ORDERS_TOLD);
    let order = |oracle::Refutation { order, words }| Order { order, words };
    refutations.unwrap_or_default().into_iter().map(order).collect()
}

fn prevention(schedule: &Schedule, trial: &Trial, mechanism: Mechanism) -> Vec<String> {
    let mut lines = vec![mechanism_words(trial, mechanism)];
    lines.extend(trial.replay.steps.iter().filter_map(|step| hindered(schedule, step)));
    lines.extend(as_if(trial));
    lines
}

/// What a mechanism does, as far as this run shows it.
fn mechanism_words(trial: &Trial, mechanism: Mechanism) -> String {
    let ended = |step: &&StepReport| step.failure.as_ref().is_some_and(|failure| failure.ended);
    let aborted = trial.replay.steps.iter().find(ended);
    let waited_in_vain = aborted.is_some_and(|step| step.outcome == StepOutcome::Blocked);
    let at_commit = aborted.is_some_and(|step| step.action == Action::Do(Operation::Commit));
    let words = match mechanism {
        Mechanism::Deadlock => {
            "Each waited for another, and that would never have ended. The database saw the circle, chose a \
             victim and rolled it back, so that the others could go on. The victim is to be begun again: it then \
             sees what the others have left."
        }
        Mechanism::Blocked if waited_in_vain => {
            "Whoever came second had to wait, and found in the end that the other had changed what it relied on: \
             it was rolled back. It is to be begun again: it then sees what the other has left."
        }
        Mechanism::Blocked if aborted.is_some() => {
            "One transaction had to wait until another had ended. One was rolled back, because what it relied on \
             had changed; it is to be begun again."
        }
        Mechanism::Blocked => {
            "Whoever came second had to wait. When it could go on, the other had ended, and what it then saw or \
             overwrote was final."
        }
        Mechanism::Aborted if at_commit && trial.setting.mode == Mode::Optimistic => {
            "Nobody waited: in optimistic mode each works on what it saw, keeps its writes to itself, and is \
             checked when it commits. By then another had committed a change of what this one relied on, so it \
             was rolled back. It is to be begun again: it then sees what the other has left."
        }
        Mechanism::Aborted => {
            "Nobody waited. What a transaction relied on had been changed by another that committed first; the \
             database noticed and rolled it back. It is to be begun again: it then sees what the other has left."
        }
        Mechanism::Invisible => {
            "Nothing waited and nothing failed: no transaction saw, or overwrote, the value that would have done it."
        }
    };
    words.to_owned()
}

/// The serial order that explains a run, in words.
fn as_if(trial: &Trial) -> Option<String> {
    let replay = &trial.replay;
    let oracle::Verdict::Serial(order) = oracle::serializable(&replay.history, Some(&replay.final_state)) else {
        return None;
    };
    match order.as_slice() {
        [] => None,
        [one] => Some(format!("It came out as if {one} had run alone.")),
        [first, rest @ ..] => Some(format!("It came out as if {first} had run alone, then {}.", rest.join(", then "))),
    }
}

/// The steps that failed, in words.
pub(super) fn failures(schedule: &Schedule, trial: &Trial) -> Vec<String> {
    let steps = trial.replay.steps.iter().filter(|step| step.failure.is_some());
    steps.filter_map(|step| hindered(schedule, step)).collect()
}

/// A step that waited or failed, in words.
fn hindered(schedule: &Schedule, step: &StepReport) -> Option<String> {
    let name = format!("step {}, `{}: {}`,", step.n, schedule.txns[step.txn], step.action);
    let whom = step.waited_for.as_ref().map_or(String::new(), |whom| format!(" for {whom}"));
    let failed = step.failure.as_ref().map(|failure| {
        let ended = if failure.ended { "was aborted" } else { "was refused" };
        format!("{ended}: {}", ends_badly(&failure.message))
    });
    let after = step.resumed_after.map_or(String::new(), |n| format!(", until step {n}"));
    match (step.outcome, failed) {
        (StepOutcome::Blocked, None) => Some(format!("{name} waited{whom}{after}.")),
        (StepOutcome::Blocked, Some(failed)) => Some(format!("{name} waited{whom}{after}, then {failed}")),
        (_, Some(failed)) => Some(format!("{name} {failed}")),
        _ => None,
    }
}

/// The class of a failure as a reason, after "the database".
pub(super) const fn failure_words(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Conflict => "finds a conflict",
        FailureClass::Deadlock => "finds a deadlock",
        FailureClass::Timeout => "gives up waiting",
        FailureClass::Refused => "refuses",
        FailureClass::Unknown => "does not answer",
    }
}
