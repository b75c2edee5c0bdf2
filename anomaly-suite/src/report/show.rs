//! One cell, looked at closely: what happened step by step, why it is an anomaly or how it was
//! prevented, and what to do.

use std::fmt::Write as _;

use isolde_history::schedule::{Schedule, StepOutcome, StepReport};

use super::explain::row;
use super::timeline::timeline;
use super::{Style, Tone, place, spoken, wrap};
use crate::suite::{Cell, Report};
use crate::verdict::{Mechanism, Outcome, Trial, reported_code};

/// One cell of a report. `elsewhere` is the same anomaly at every level and mode.
#[must_use]
pub fn show(report: &Report, cell: &Cell, elsewhere: &Report, style: Style) -> String {
    let (entry, dot) = (cell.entry, style.dot());
    let place = place(cell.setting);
    let title = format!("{} {dot} {} {dot} {} {} {dot} {place}", entry.id, entry.name, report.db, report.db_version);
    let mut text = format!("{}\n", style.paint(&title, Tone::Strong));
    match &cell.trial {
        Err(error) => {
            let _ = writeln!(text, "? inconclusive: {error}");
        }
        Ok(trial) => {
            text.push_str(&verdict(cell, trial, style));
            let _ = writeln!(text, "\n{}", wrap(&entry.summary, ""));
            text.push_str(&timeline(&entry.schedule, &trial.replay, style));
            text.push('\n');
            text.push_str(&reasons(&entry.schedule, trial, style));
        }
    }
    section(&mut text, "What stops it", &entry.paragraph("What stops it"), style);
    section(&mut text, "In real life", &entry.paragraph("In real life"), style);
    let _ =
        write!(text, "{}\n{}", style.paint("The same schedule at every level", Tone::Strong), row(elsewhere, style));
    let _ = writeln!(text, "\nmore: anomaly-suite explain {}", entry.id);
    text
}

fn section(text: &mut String, heading: &str, body: &str, style: Style) {
    if !body.is_empty() {
        let _ = writeln!(text, "{}\n{}", style.paint(heading, Tone::Strong), wrap(body, "  "));
    }
}

fn verdict(cell: &Cell, trial: &Trial, style: Style) -> String {
    let (glyph, tone) = match trial.outcome {
        Some(Outcome::Prevented(_)) => (style.prevented(), Tone::Good),
        _ => (style.possible(), Tone::Bad),
    };
    let outcome = trial.outcome.map_or_else(|| "nothing was hunted".to_owned(), |outcome| outcome.to_string());
    let level = spoken(cell.setting.isolation);
    let permitted = if trial.permitted { "permits it" } else { "forbids it" };
    let mut text = style.paint(&format!("{glyph} {outcome}; {level} {permitted}"), tone);
    text.push('\n');
    if let Some(reason) = cell.declared.as_ref().and_then(|declared| declared.reason.as_ref()) {
        text.push_str(&wrap(&format!("why so: {reason}"), "  "));
    }
    for fault in cell.faults() {
        text.push_str(&wrap(&format!("! {fault}"), ""));
    }
    text
}

/// Why what happened is an anomaly, or how it was prevented, and what else is to be said.
pub(super) fn reasons(schedule: &Schedule, trial: &Trial, style: Style) -> String {
    let mut text = String::new();
    if let Some(shown) = trial.hunted(schedule) {
        section(&mut text, "Why no order of the transactions explains this", &shown.words, style);
        for edge in &shown.cycle {
            let _ = writeln!(text, "    {} {} {}", edge.from, style.edge(edge), edge.to);
        }
        text.push('\n');
    }
    if !trial.unmet.is_empty() {
        section(&mut text, "What should have been", &trial.unmet.join("; "), style);
    }
    if let Some(Outcome::Prevented(mechanism)) = trial.outcome {
        section_lines(&mut text, "How it was prevented", &prevention(schedule, trial, mechanism), style);
    }
    let others = trial.evidence.shown.iter().filter(|shown| Some(*shown) != trial.hunted(schedule));
    let others: Vec<String> =
        others.map(|shown| format!("{} ({})", reported_code(shown.anomaly), shown.anomaly.title())).collect();
    section(&mut text, "Found as well", &others.join(", "), style);
    section_lines(&mut text, "Seen by transactions that were then aborted", &trial.evidence.zombies, style);
    section_lines(&mut text, "The records contradict themselves", &trial.evidence.complaints, style);
    section_lines(&mut text, "Broken promises", &trial.broken, style);
    text
}

fn section_lines(text: &mut String, heading: &str, lines: &[String], style: Style) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "{}", style.paint(heading, Tone::Strong));
    lines.iter().for_each(|line| text.push_str(&wrap(line, "  ")));
    text.push('\n');
}

fn prevention(schedule: &Schedule, trial: &Trial, mechanism: Mechanism) -> Vec<String> {
    if mechanism == Mechanism::Invisible {
        return vec!["Nothing waited and nothing failed: no transaction saw the value that would have done it.".into()];
    }
    trial.replay.steps.iter().filter_map(|step| hindered(schedule, step)).collect()
}

/// A step that waited or failed, in words.
fn hindered(schedule: &Schedule, step: &StepReport) -> Option<String> {
    let name = format!("step {}, `{}: {}`,", step.n, schedule.txns[step.txn], step.action);
    let whom = step.waited_for.as_ref().map_or(String::new(), |whom| format!(" for {whom}"));
    let failed = step.failure.as_ref().map(|failure| {
        let ended = if failure.ended { "was aborted" } else { "was refused" };
        format!("{ended}: {}", failure.message)
    });
    let after = step.resumed_after.map_or(String::new(), |n| format!(" until step {n}"));
    match (step.outcome, failed) {
        (StepOutcome::Blocked, None) => Some(format!("{name} waited{whom}{after}.")),
        (StepOutcome::Blocked, Some(failed)) => Some(format!("{name} waited{whom}{after}, then {failed}")),
        (_, Some(failed)) => Some(format!("{name} {failed}")),
        _ => None,
    }
}

/// Text for `replay` of a file that may be in no catalogue.
#[must_use]
pub fn replayed(file: &str, schedule: &Schedule, trial: &Trial, style: Style) -> String {
    let dot = style.dot();
    let place = place(trial.setting);
    let title = if schedule.title.is_empty() { file.to_owned() } else { format!("{file} {dot} {}", schedule.title) };
    let mut text = wrap(&format!("{title} {dot} {place}"), "");
    if let Some(outcome) = trial.outcome {
        let hunts = schedule.hunts.map_or("", |hunt| hunt.code());
        let permitted = if trial.permitted { "permits it" } else { "forbids it" };
        let _ = writeln!(text, "{hunts} {outcome}; {} {permitted}", spoken(trial.setting.isolation));
    }
    let _ = writeln!(text, "\n{}", timeline(schedule, &trial.replay, style));
    text.push_str(&reasons(schedule, trial, style));
    if schedule.hunts.is_none() {
        let found = trial.evidence.shown.iter();
        found.for_each(|shown| text.push_str(&wrap(&format!("{}: {}", reported_code(shown.anomaly), shown.words), "")));
    }
    text
}
