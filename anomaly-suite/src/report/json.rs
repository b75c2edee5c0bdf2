//! JSON for programs: stable, versioned by `schema`, one document per call.

use std::collections::BTreeMap;

use isolde_history::schedule::{Output, Schedule, StepOutcome, StepReport, Swap, TxnOutcome};
use isolde_types::{Key, escape_key};
use serde::Serialize;

use crate::evidence::{CycleEdge, Shown};
use crate::hazards::Hazards;
use crate::suite::{Cell, Report};
use crate::verdict::{Outcome, Trial, reported_code};
use crate::versions::versions;

#[derive(Serialize)]
struct ReportDoc<'r> {
    schema: u32,
    suite: &'static str,
    db: DbDoc<'r>,
    cells: Vec<CellDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hazards: Option<Vec<serde_json::Value>>,
}

#[derive(Serialize)]
struct DbDoc<'r> {
    name: &'r str,
    version: &'r str,
}

#[derive(Serialize)]
struct CellDoc {
    anomaly: &'static str,
    level: &'static str,
    mode: &'static str,
    permitted: Option<bool>,
    outcome: &'static str,
    mechanism: Option<&'static str>,
    declared: Option<OutcomeDoc>,
    zombie: bool,
    schedule: Vec<String>,
    cycle: Vec<EdgeDoc>,
}

#[derive(Serialize)]
struct OutcomeDoc {
    outcome: &'static str,
    mechanism: Option<&'static str>,
}

#[derive(Serialize)]
pub(crate) struct EdgeDoc {
    from: String,
    to: String,
    #[serde(rename = "type")]
    kind: &'static str,
    key: String,
}

/// A report as one JSON document; hazards are there if they were run.
#[must_use]
pub fn report(report: &Report, hazards: Option<&Hazards>) -> String {
    let doc = ReportDoc {
        schema: 1,
        suite: env!("CARGO_PKG_VERSION"),
        db: DbDoc { name: report.db, version: &report.db_version },
        cells: report.cells.iter().map(cell).collect(),
        hazards: hazards.map(Hazards::to_json),
    };
    line(&doc)
}

fn line(doc: &impl Serialize) -> String {
    let text = serde_json::to_string(doc);
    text.unwrap_or_else(|error| panic!("strings, numbers and lists are always JSON: {error}")) + "\n"
}

fn cell(cell: &Cell) -> CellDoc {
    let trial = cell.trial.as_ref().ok();
    let schedule = &cell.entry.schedule;
    CellDoc {
        anomaly: cell.entry.id,
        level: cell.setting.isolation.name(),
        mode: cell.setting.mode.name(),
        permitted: trial.map(|trial| trial.permitted),
        outcome: cell.outcome().map_or(if cell.is_absent() { "absent" } else { "inconclusive" }, Outcome::word),
        mechanism: cell.outcome().and_then(Outcome::mechanism).map(|mechanism| mechanism.name()),
        declared: cell.declared.as_ref().map(|declared| outcome(declared.outcome)),
        zombie: trial.is_some_and(|trial| !trial.evidence.zombies.is_empty()),
        schedule: schedule.steps.iter().map(|step| schedule.line(step)).collect(),
        cycle: trial.and_then(|trial| trial.hunted(schedule)).map_or_else(Vec::new, cycle),
    }
}

fn outcome(outcome: Outcome) -> OutcomeDoc {
    OutcomeDoc { outcome: outcome.word(), mechanism: outcome.mechanism().map(|mechanism| mechanism.name()) }
}

pub(crate) fn cycle(shown: &Shown) -> Vec<EdgeDoc> {
    let edge = |edge: &CycleEdge| {
        let CycleEdge { from, to, kind, key } = edge.clone();
        EdgeDoc { from, to, kind, key }
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
