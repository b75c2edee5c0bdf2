//! JSON for programs: stable, versioned by `schema`, one document per call.

use std::collections::BTreeMap;

use isolde_history::schedule::{Output, Schedule, StepOutcome, StepReport, Swap, TxnOutcome};
use isolde_types::{Key, escape_key};
use serde::{Deserialize, Serialize};

use super::story::Story;
use crate::evidence::{CycleEdge, Shown};
use crate::hazards::Hazards;
use crate::suite::{Cell, Report};
use crate::verdict::{Outcome, Trial, reported_code};
use crate::versions::versions;

/// How much a document tells of each cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// The verdict, the schedule and the cycle.
    Verdicts,
    /// What each step did as well: what another run needs to draw this one beside itself.
    Steps,
}

/// A run of the suite, as `run --format json` writes it and `report --beside` reads it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunDoc {
    schema: u32,
    /// The version of the suite that ran.
    pub suite: String,
    /// The database.
    pub db: DbDoc,
    /// The cells; all of an anomaly stand together.
    pub cells: Vec<CellDoc>,
    /// The hazards, if they were run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hazards: Option<Vec<serde_json::Value>>,
}

/// The database of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DbDoc {
    /// What reports call it.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One cell of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellDoc {
    /// The anomaly's id.
    pub anomaly: String,
    /// The level.
    pub level: String,
    /// The mode.
    pub mode: String,
    /// Whether the level allows it; unknown where the run came to no end.
    pub permitted: Option<bool>,
    /// `possible`, `prevented`, or why there is no verdict.
    pub outcome: String,
    /// How it was prevented.
    pub mechanism: Option<String>,
    /// What it is declared to be.
    pub declared: Option<OutcomeDoc>,
    zombie: bool,
    schedule: Vec<String>,
    /// The smallest cycle that shows it.
    pub cycle: Vec<EdgeDoc>,
    /// What each step did, with [`Detail::Steps`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<ToldDoc>,
}

/// What is told of a cell beyond its verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToldDoc {
    /// Why it is declared so, where one could wonder.
    pub reason: Option<String>,
    /// What is wrong with it, in words.
    pub faults: Vec<String>,
    /// Why the schedule came to no end.
    pub error: Option<String>,
    /// What happened.
    pub story: Option<Story>,
}

/// A verdict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutcomeDoc {
    /// `possible` or `prevented`.
    pub outcome: String,
    /// How it was prevented.
    pub mechanism: Option<String>,
}

/// An edge of a cycle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EdgeDoc {
    /// The one that comes first.
    pub from: String,
    /// The one that comes after it.
    pub to: String,
    /// `ww`, `wr` or `rw`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The key.
    pub key: String,
}

const SCHEMA: u32 = 1;

impl RunDoc {
    /// The document of a run; hazards are there if they were run.
    #[must_use]
    pub fn of(report: &Report, hazards: Option<&Hazards>, detail: Detail) -> RunDoc {
        RunDoc {
            schema: SCHEMA,
            suite: env!("CARGO_PKG_VERSION").to_owned(),
            db: DbDoc { name: report.db.to_string(), version: report.db_version.to_string() },
            cells: report.cells.iter().map(|one| cell(one, detail)).collect(),
            hazards: hazards.map(Hazards::to_json),
        }
    }

    /// Reads what [`report`] wrote.
    ///
    /// # Errors
    /// When it is no such document, in words.
    pub fn read(text: &str) -> Result<RunDoc, String> {
        let expected = "expected what `run --format json --steps` writes";
        let doc: RunDoc = serde_json::from_str(text).map_err(|error| format!("{error}: {expected}"))?;
        match doc.schema {
            SCHEMA => Ok(doc),
            other => Err(format!("schema {other} is not known, {SCHEMA} is: {expected}")),
        }
    }
}

impl CellDoc {
    /// Whether it is not as it must be. The run itself has said so, if it told its steps; else it is one
    /// that was shown and is forbidden, or that came out otherwise than declared.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        if let Some(told) = &self.told {
            return !told.faults.is_empty();
        }
        let forbidden = self.outcome == "possible" && self.permitted == Some(false);
        let is = OutcomeDoc { outcome: self.outcome.clone(), mechanism: self.mechanism.clone() };
        let otherwise = self.is_decided() && self.declared.as_ref().is_some_and(|declared| *declared != is);
        forbidden || otherwise
    }

    /// Whether there is a verdict.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.outcome == "possible" || self.outcome == "prevented"
    }
}

/// A report as one JSON document; hazards are there if they were run.
#[must_use]
pub fn report(report: &Report, hazards: Option<&Hazards>, detail: Detail) -> String {
    line(&RunDoc::of(report, hazards, detail))
}

fn line(doc: &impl Serialize) -> String {
    let text = serde_json::to_string(doc);
    text.unwrap_or_else(|error| panic!("strings, numbers and lists are always JSON: {error}")) + "\n"
}

fn cell(cell: &Cell, detail: Detail) -> CellDoc {
    let trial = cell.trial.as_ref().ok();
    let schedule = &cell.entry.schedule;
    CellDoc {
        anomaly: cell.entry.id.to_owned(),
        level: cell.setting.isolation.name().to_owned(),
        mode: cell.setting.mode.name().to_owned(),
        permitted: trial.map(|trial| trial.permitted),
        outcome: cell
            .outcome()
            .map_or(if cell.is_absent() { "absent" } else { "inconclusive" }, Outcome::word)
            .to_owned(),
        mechanism: cell.outcome().and_then(mechanism),
        declared: cell.declared.as_ref().map(|declared| outcome(declared.outcome)),
        zombie: trial.is_some_and(|trial| !trial.evidence.zombies.is_empty()),
        schedule: schedule.steps.iter().map(|step| schedule.line(step)).collect(),
        cycle: trial.and_then(|trial| trial.hunted(schedule)).map_or_else(Vec::new, cycle),
        told: (detail == Detail::Steps).then(|| told(cell)),
    }
}

fn told(cell: &Cell) -> ToldDoc {
    ToldDoc {
        reason: cell.declared.as_ref().and_then(|declared| declared.reason.clone()),
        faults: cell.faults(),
        error: cell.trial.as_ref().err().map(ToString::to_string),
        story: cell.trial.as_ref().ok().map(|trial| Story::of(&cell.entry.schedule, trial)),
    }
}

fn mechanism(outcome: Outcome) -> Option<String> {
    outcome.mechanism().map(|mechanism| mechanism.name().to_owned())
}

fn outcome(outcome: Outcome) -> OutcomeDoc {
    OutcomeDoc { outcome: outcome.word().to_owned(), mechanism: mechanism(outcome) }
}

pub(crate) fn cycle(shown: &Shown) -> Vec<EdgeDoc> {
    let edge = |edge: &CycleEdge| {
        let CycleEdge { from, to, kind, key } = edge.clone();
        EdgeDoc { from, to, kind: kind.to_owned(), key }
    };
    shown.cycle.iter().map(edge).collect()
}

#[derive(Serialize)]
struct ReplayDoc<'r> {
    schema: u32,
    file: &'r str,
    level: &'static str,
    mode: &'static str,
    hunts: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    mechanism: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permitted: Option<bool>,
    zombie: bool,
    steps: Vec<StepDoc>,
    txns: BTreeMap<&'r str, &'static str>,
    anomalies: Vec<&'static str>,
    cycle: Vec<EdgeDoc>,
    r#final: BTreeMap<String, String>,
    versions: BTreeMap<String, Vec<(String, Option<String>)>>,
}

#[derive(Serialize)]
struct StepDoc {
    n: usize,
    txn: String,
    op: String,
    outcome: &'static str,
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<(String, String)>>,
    resumed_after: Option<usize>,
    error: Option<String>,
}

/// One replayed file as one line of JSON.
#[must_use]
pub fn replay(file: &str, schedule: &Schedule, trial: &Trial) -> String {
    let shown = trial.hunted(schedule).or(trial.evidence.shown.first());
    let mut anomalies: Vec<&'static str> = trial.evidence.shown.iter().map(|s| reported_code(s.anomaly)).collect();
    anomalies.dedup();
    line(&ReplayDoc {
        schema: 1,
        file,
        level: trial.setting.isolation.name(),
        mode: trial.setting.mode.name(),
        hunts: schedule.hunts.map(|hunt| hunt.code()),
        outcome: trial.outcome.map(Outcome::word),
        mechanism: trial.outcome.and_then(Outcome::mechanism).map(|mechanism| mechanism.name()),
        permitted: schedule.hunts.map(|_| trial.permitted),
        zombie: !trial.evidence.zombies.is_empty(),
        steps: trial.replay.steps.iter().map(|step| step_doc(schedule, step)).collect(),
        txns: trial.replay.txns.iter().map(|txn| (txn.name.as_str(), txn_outcome(txn.outcome))).collect(),
        anomalies,
        cycle: shown.map_or_else(Vec::new, cycle),
        r#final: trial.replay.final_state.iter().map(|(key, value)| (word(key), word(value))).collect(),
        versions: version_docs(trial),
    })
}

fn step_doc(schedule: &Schedule, step: &StepReport) -> StepDoc {
    let (value, rows) = match &step.output {
        Some(Output::Value(value) | Output::CompareAndSet { found: value, .. }) => (value.as_ref().map(word), None),
        Some(Output::Rows(rows)) => (None, Some(rows.iter().map(|(key, value)| (word(key), word(value))).collect())),
        Some(Output::Done) | None => (None, None),
    };
    StepDoc {
        n: step.n,
        txn: schedule.txns[step.txn].clone(),
        op: step.action.to_string(),
        outcome: step_outcome(step.outcome),
        value,
        rows,
        resumed_after: step.resumed_after,
        error: step.failure.as_ref().map(|failure| failure.message.clone()).or_else(|| cas_error(step)),
    }
}

/// A compare-and-set that found another value has done its work; the error says what came of it.
fn cas_error(step: &StepReport) -> Option<String> {
    let refused = matches!(step.output, Some(Output::CompareAndSet { swap: Swap::Refused, .. }));
    refused.then(|| "not set: the key holds another value".to_owned())
}

const fn step_outcome(outcome: StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Ok => "ok",
        StepOutcome::Blocked => "blocked",
        StepOutcome::Aborted => "aborted",
        StepOutcome::Skipped => "skipped",
    }
}

pub(super) const fn txn_outcome(outcome: TxnOutcome) -> &'static str {
    match outcome {
        TxnOutcome::Committed => "committed",
        TxnOutcome::RolledBack => "rolled-back",
        TxnOutcome::Aborted => "aborted",
        TxnOutcome::Unknown => "unknown",
        TxnOutcome::Active => "active",
    }
}

fn version_docs(trial: &Trial) -> BTreeMap<String, Vec<(String, Option<String>)>> {
    let docs = versions(&trial.replay.history).into_iter().map(|(key, versions)| {
        let versions = versions.into_iter().map(|version| (version.writer, version.value.as_ref().map(word)));
        (word(&key), versions.collect())
    });
    docs.collect()
}

/// A key or value as text; schedules write them as words, so nothing needs escaping.
fn word(word: &Key) -> String {
    std::str::from_utf8(word).map_or_else(|_| escape_key(word), str::to_owned)
}
