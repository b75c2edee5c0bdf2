//! One cell, looked at closely: what happened step by step, why it is an anomaly or how it was
//! prevented, what stops it, and where else it happens.

use std::fmt::Write as _;

use isolde_history::schedule::Schedule;

use super::explain::row;
use super::story::{Story, failures};
use super::timeline::timeline;
use super::{Style, Tone, pad, place, spoken, wrap};
use crate::evidence::CycleEdge;
use crate::suite::{Cell, Report};
use crate::verdict::{Outcome, Trial, reported_code};

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
            let story = Story::of(&entry.schedule, trial);
            text.push_str(&timeline(&story, style));
            text.push('\n');
            steps(&mut text, &story, style);
            text.push_str(&reasons(&entry.schedule, trial, &story, style));
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

/// What happened, as numbered sentences.
fn steps(text: &mut String, story: &Story, style: Style) {
    let _ = writeln!(text, "{}", style.paint("Step by step", Tone::Strong));
    for (numbers, sentence) in story.sentences() {
        let lines = wrap(&sentence, "         ");
        let _ = write!(text, "  {}{}", pad(&numbers, 7), lines.trim_start());
    }
    text.push('\n');
}

/// Why what happened is an anomaly, or how it was prevented, and what else is to be said.
pub(super) fn reasons(schedule: &Schedule, trial: &Trial, story: &Story, style: Style) -> String {
    let mut text = String::new();
    why(&mut text, story, trial.hunted(schedule).map_or(&[], |shown| &shown.cycle), style);
    section(&mut text, "What should have been", &story.unmet.join("; "), style);
    section_lines(&mut text, "How it was prevented", &story.prevented, style);
    section(&mut text, "Found as well", &story.others.join(", "), style);
    section_lines(&mut text, "Seen by transactions that were then aborted", &story.zombies, style);
    section_lines(&mut text, "The records contradict themselves", &story.complaints, style);
    section_lines(&mut text, "Broken promises", &story.broken, style);
    text
}

/// The contradiction in words and as edges, then every serial order and where it fails.
pub(super) fn why(text: &mut String, story: &Story, cycle: &[CycleEdge], style: Style) {
    if story.why.is_none() && story.orders.is_empty() {
        return;
    }
    let heading = style.paint("Why no order of the transactions explains this", Tone::Strong);
    let _ = writeln!(text, "{heading}");
    if let Some(why) = &story.why {
        let _ = writeln!(text, "{}", wrap(why, "  "));
    }
    for edge in cycle {
        let _ = writeln!(text, "    {} {} {}", edge.from, style.edge(edge), edge.to);
    }
    if !cycle.is_empty() {
        text.push('\n');
    }
    if !story.orders.is_empty() {
        text.push_str("  Run one after the other, it would have been otherwise:\n");
        for order in &story.orders {
            text.push_str(&wrap(&format!("{}: {}.", order.title(), order.words), "    "));
        }
        text.push('\n');
    }
}

fn section_lines(text: &mut String, heading: &str, lines: &[String], style: Style) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "{}", style.paint(heading, Tone::Strong));
    lines.iter().for_each(|line| text.push_str(&wrap(line, "  ")));
    text.push('\n');
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
    let story = Story::of(schedule, trial);
    let _ = writeln!(text, "\n{}", timeline(&story, style));
    text.push_str(&reasons(schedule, trial, &story, style));
    if story.prevented.is_empty() {
        section_lines(&mut text, "What failed", &failures(schedule, trial), style);
    }
    if schedule.hunts.is_none() {
        let found = trial.evidence.shown.iter();
        found.for_each(|shown| text.push_str(&wrap(&format!("{}: {}", reported_code(shown.anomaly), shown.words), "")));
    }
    text
}
