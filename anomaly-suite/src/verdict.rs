//! From a run to a verdict: which anomaly was shown, or how it was prevented.
//!
//! The verdict is computed from what was recorded, never looked up: the checker searches the history
//! for the anomaly that the schedule hunts. Beside it stands an oracle that believes no version, only
//! values and outcomes; where the two cannot both be right the trial carries a complaint.

use std::fmt;

use isolde_history::schedule::{
    Action, Hunt, Operation, Replay, ReplayError, Schedule, Setting, StepOutcome, TxnOutcome, replay,
};
use isolde_types::{Anomaly, Isolation};

use crate::engine::Engine;
use crate::evidence::{Evidence, Shown};

/// One schedule, run once.
#[derive(Debug)]
pub struct Trial {
    /// The level and mode of the transactions that name none.
    pub setting: Setting,
    /// What the steps did.
    pub replay: Replay,
    /// What the checker found.
    pub evidence: Evidence,
    /// The expectations of the schedule that were not met, in words.
    pub unmet: Vec<String>,
    /// Whether the hunted anomaly was shown, and how it was prevented if not; `None` for a schedule
    /// that hunts nothing.
    pub outcome: Option<Outcome>,
    /// Whether the level allows what the schedule hunts.
    pub permitted: bool,
    /// The promises that were broken to some transaction by its own level, in words.
    pub broken: Vec<String>,
}

/// Whether an anomaly was shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was found in the history.
    Possible,
    /// It was not, and this is why.
    Prevented(Mechanism),
}

/// How an anomaly was prevented: the first of these that happened to any transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// A transaction was the victim of a deadlock.
    Deadlock,
    /// A step waited.
    Blocked,
    /// A transaction was aborted.
    Aborted,
    /// Nothing waited or failed: the dangerous value was simply not seen.
    Invisible,
}

impl Outcome {
    /// `possible` or `prevented`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Possible => "possible",
            Outcome::Prevented(_) => "prevented",
        }
    }

    /// The mechanism of what was prevented.
    #[must_use]
    pub const fn mechanism(self) -> Option<Mechanism> {
        match self {
            Outcome::Possible => None,
            Outcome::Prevented(mechanism) => Some(mechanism),
        }
    }

    /// The word of an expectation file: `possible`, or the mechanism.
    #[must_use]
    pub const fn declaration(self) -> &'static str {
        match self {
            Outcome::Possible => "possible",
            Outcome::Prevented(mechanism) => mechanism.name(),
        }
    }

    /// The outcome of a word of an expectation file.
    #[must_use]
    pub fn from_declaration(word: &str) -> Option<Outcome> {
        if word == "possible" {
            return Some(Outcome::Possible);
        }
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == word).map(Outcome::Prevented)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Possible => f.write_str("possible"),
            Outcome::Prevented(mechanism) => write!(f, "prevented, {}", mechanism.phrase()),
        }
    }
}

impl Mechanism {
    /// All mechanisms; the first that applies names the cell.
    pub const ALL: [Mechanism; 4] = [Mechanism::Deadlock, Mechanism::Blocked, Mechanism::Aborted, Mechanism::Invisible];

    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::Deadlock => "deadlock",
            Mechanism::Blocked => "blocked",
            Mechanism::Aborted => "aborted",
            Mechanism::Invisible => "invisible",
        }
    }

    /// One letter for the matrix.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Mechanism::Deadlock => 'd',
            Mechanism::Blocked => 'b',
            Mechanism::Aborted => 'a',
            Mechanism::Invisible => 'i',
        }
    }

    /// A few words.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Mechanism::Deadlock => "by a deadlock victim",
            Mechanism::Blocked => "by blocking",
            Mechanism::Aborted => "by aborting",
            Mechanism::Invisible => "never visible",
        }
    }

    fn of(replay: &Replay) -> Mechanism {
        use isolde_history::schedule::{FailureClass, StepReport};
        let any = |found: &dyn Fn(&StepReport) -> bool| replay.steps.iter().any(found);
        let class = |class| move |step: &StepReport| step.failure.as_ref().is_some_and(|f| f.ended && f.class == class);
        if any(&class(FailureClass::Deadlock)) {
            Mechanism::Deadlock
        } else if any(&|step| step.outcome == StepOutcome::Blocked) {
            Mechanism::Blocked
        } else if any(&|step| step.failure.as_ref().is_some_and(|failure| failure.ended)) {
            Mechanism::Aborted
        } else {
            Mechanism::Invisible
        }
    }
}

/// Runs a schedule at a level and mode, and judges what it did.
///
/// # Errors
/// When the schedule cannot be run to its end.
pub fn trial(engine: &dyn Engine, schedule: &Schedule, setting: Setting) -> Result<Trial, ReplayError> {
    if let Some(operation) = lacking(engine, schedule) {
        return Err(ReplayError::Lacks { what: format!("`{operation}`") });
    }
    let mut database = engine.open(schedule)?;
    let replay = replay(schedule, setting, &mut *database)?;
    let evidence = Evidence::of(&replay);
    let unmet = unmet(schedule, &replay);
    let outcome = schedule.hunts.map(|hunt| outcome(hunt, &replay, &evidence, &unmet));
    let permitted = schedule.hunts.is_some_and(|hunt| permits(engine.forbids(setting.isolation), hunt, schedule));
    let promised = |anomaly| Isolation::ALL.iter().any(|level| engine.forbids(*level).contains(&anomaly));
    let broken = evidence.violations.iter().filter(|violation| promised(violation.anomaly));
    let broken = broken.map(|violation| violation.words.clone()).collect();
    Ok(Trial { setting, replay, evidence, unmet, outcome, permitted, broken })
}

/// An operation of a schedule that the database does not have.
fn lacking<'s>(engine: &dyn Engine, schedule: &'s Schedule) -> Option<&'s Operation> {
    schedule.steps.iter().find_map(|step| match &step.action {
        Action::Do(operation) if engine.lacks(operation) => Some(operation),
        _ => None,
    })
}

impl Trial {
    /// The finding that the schedule hunts, if the checker made it.
    #[must_use]
    pub fn hunted(&self, schedule: &Schedule) -> Option<&Shown> {
        let hunt = schedule.hunts?;
        self.evidence.shown.iter().find(|shown| is_hunted(hunt, shown.anomaly))
    }

    /// Whether something was shown that the level forbids, or an expectation was not met, or the
    /// database is at fault.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        let forbidden = self.outcome == Some(Outcome::Possible) && !self.permitted;
        forbidden || !self.unmet.is_empty() || !self.faults().is_empty()
    }

    /// Contradictions in the records, and promises that were broken to some transaction by its own
    /// level, in words: whatever the schedule hunts, a database must have none.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.evidence.complaints.iter().chain(&self.broken).cloned().collect()
    }
}

fn outcome(hunt: Hunt, replay: &Replay, evidence: &Evidence, unmet: &[String]) -> Outcome {
    let shown = evidence.shown.iter().any(|shown| is_hunted(hunt, shown.anomaly));
    if shown || !unmet.is_empty() { Outcome::Possible } else { Outcome::Prevented(Mechanism::of(replay)) }
}

/// Whether a finding is what is hunted. Adya's G-single has one name, on items and on predicates.
fn is_hunted(hunt: Hunt, found: Anomaly) -> bool {
    match hunt {
        Hunt::Anomaly(Anomaly::ReadSkew) => matches!(found, Anomaly::ReadSkew | Anomaly::ReadSkewItem),
        Hunt::Anomaly(hunted) => hunted == found,
        Hunt::FinalState => false,
    }
}

/// Whether a level that forbids these allows what is hunted. Without a scan there is no predicate: then
/// G-single can only be on items, and a long fork is a G2-item. No level may leave another final state
/// than the schedule proves, unless it promises nothing at all.
pub(crate) fn permits(forbidden: &[Anomaly], hunt: Hunt, schedule: &Schedule) -> bool {
    let forbids = |anomaly| forbidden.contains(&anomaly);
    let on_items = !schedule.scans();
    match hunt {
        Hunt::Anomaly(Anomaly::ReadSkew) if on_items => !forbids(Anomaly::ReadSkewItem),
        Hunt::Anomaly(Anomaly::LongFork) if on_items => !forbids(Anomaly::LongFork) && !forbids(Anomaly::WriteSkew),
        Hunt::Anomaly(anomaly) => !forbids(anomaly),
        Hunt::FinalState => forbidden.is_empty(),
    }
}

/// The code under which an anomaly is reported: Adya's, who tells items and predicates apart for G2
/// and not for G-single.
#[must_use]
pub fn reported_code(anomaly: Anomaly) -> &'static str {
    match anomaly {
        Anomaly::ReadSkewItem => Anomaly::ReadSkew.code(),
        other => other.code(),
    }
}

fn unmet(schedule: &Schedule, replay: &Replay) -> Vec<String> {
    let steps = schedule.expect.iter().filter_map(|expectation| {
        let nth = expectation.step - 1;
        let written = schedule.steps.iter().filter(|step| step.txn == expectation.txn).nth(nth)?;
        let begins = usize::from(!begins(schedule, expectation.txn));
        let report = replay.steps.iter().filter(|step| step.txn == expectation.txn).nth(nth + begins)?;
        let read = report.output.as_ref()?.to_string();
        let line = schedule.line(written);
        (read != expectation.reads).then(|| format!("`{line}` read {read}, expected {}", expectation.reads))
    });
    // Whom the database rolled back owes nothing: then the state is compared with the versions alone.
    let whole = replay.txns.iter().all(|txn| !matches!(txn.outcome, TxnOutcome::Aborted | TxnOutcome::Unknown));
    let state = schedule.expect_final.iter().filter(|_| whole).filter_map(|(key, expected)| {
        let present = |value: Option<&bytes::Bytes>| value.map_or("-".into(), |value| value.escape_ascii().to_string());
        let (found, expected) = (present(replay.final_state.get(key)), present(expected.as_ref()));
        let key = isolde_types::escape_key(key);
        (found != expected).then(|| format!("{key} is {found} in the end, expected {expected}"))
    });
    steps.chain(state).collect()
}

/// Whether the transaction's `begin` is written (else the driver issues one before its first step).
fn begins(schedule: &Schedule, txn: usize) -> bool {
    schedule.steps.iter().any(|step| step.txn == txn && matches!(step.action, Action::Begin(_)))
}
