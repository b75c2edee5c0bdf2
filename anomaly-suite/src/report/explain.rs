//! An anomaly in plain words, and the list of all of them.

use std::fmt::Write as _;

use isolde_history::schedule::Setting;
use isolde_types::Isolation;

use super::show::why;
use super::story::Story;
use super::timeline::timeline;
use super::{Style, Tone, modes, pad, place, short, spoken, wrap};
use crate::catalogue::{self, Entry};
use crate::engine::Control;
use crate::suite::Report;
use crate::verdict::{Outcome, Trial, permits, trial};

/// What an anomaly is, when it happens, what stops it, and its schedule. `report` is the anomaly at
/// every level and mode.
#[must_use]
pub fn explain(entry: &Entry, report: &Report, style: Style) -> String {
    let mut text = format!("{}\n", style.paint(&format!("{} {} {}", entry.id, style.dot(), entry.name), Tone::Strong));
    if !entry.aliases.is_empty() {
        let _ = writeln!(text, "also called {}", entry.aliases.join(", "));
    }
    let _ = writeln!(text, "\n{}", wrap(&entry.summary, ""));
    for paragraph in entry.paragraphs() {
        let heading = style.paint(&paragraph.heading, Tone::Strong);
        let _ = writeln!(text, "{heading}\n{}", wrap(&paragraph.text, "  "));
    }
    text.push_str(&example(entry, report, style));
    let _ =
        writeln!(text, "{}\n{}", style.paint("Which levels forbid it", Tone::Strong), wrap(&forbidden_by(entry), "  "));
    let heading = format!("What {} {} does", report.db, report.db_version);
    let _ = writeln!(text, "{}\n{}", style.paint(&heading, Tone::Strong), row(report, style));
    let _ = writeln!(text, "{}", style.paint("The schedule", Tone::Strong));
    for line in entry.text.lines().filter(|line| !line.starts_with('#')) {
        let _ = writeln!(text, "  {line}");
    }
    let shown = report.cells.iter().find(|cell| cell.outcome() == Some(Outcome::Possible));
    let at =
        shown.map_or(String::new(), |cell| format!(" --level {} --mode {}", cell.setting.isolation, cell.setting.mode));
    let _ = writeln!(text, "\nstep by step: anomaly-suite show {}{at}", entry.id);
    text
}

/// A run in which it goes wrong: at the weakest level that shows it here, else without any control.
fn example(entry: &Entry, report: &Report, style: Style) -> String {
    let possible = |trial: &&Trial| trial.outcome == Some(Outcome::Possible);
    let here = report.cells.iter().find_map(|cell| cell.trial.as_ref().ok().filter(possible));
    let without = if here.is_none() { trial(&Control, &entry.schedule, Setting::default()).ok() } else { None };
    let Some(shown) = here.or(without.as_ref().filter(possible)) else { return String::new() };
    let place = if here.is_some() { place(shown.setting) } else { "on an engine without control".to_owned() };
    let heading = style.paint(&format!("How it goes wrong: {place}"), Tone::Strong);
    let story = Story::of(&entry.schedule, shown);
    let mut text = format!("{heading}\n");
    timeline(&story, style).lines().for_each(|line| {
        let _ = writeln!(text, "  {line}");
    });
    text.push('\n');
    why(&mut text, &story, shown.hunted(&entry.schedule).map_or(&[], |shown| &shown.cycle), style);
    text
}

pub(super) fn forbidden_by(entry: &Entry) -> String {
    let levels: Vec<&str> = forbidding(entry).into_iter().map(spoken).collect();
    match levels.as_slice() {
        [] => "None by itself.".to_owned(),
        levels if levels.len() == Isolation::ALL.len() => "All of them.".to_owned(),
        levels => format!("By definition: {}. A mode may be stronger than its level asks.", levels.join(", ")),
    }
}

/// The levels whose definition forbids what an anomaly's schedule hunts.
fn forbidding(entry: &Entry) -> Vec<Isolation> {
    let hunt = entry.schedule.hunts;
    let permits = |level: &Isolation| hunt.is_some_and(|hunt| permits(level.forbids(), hunt, &entry.schedule));
    Isolation::ALL.into_iter().filter(|level| !permits(level)).collect()
}

/// One anomaly at every level and mode, as a small table.
pub(super) fn row(report: &Report, style: Style) -> String {
    let mut text = format!("  {}", " ".repeat(13));
    let mode = report.settings.first().map(|setting| setting.mode);
    let levels = report.settings.iter().filter(|setting| Some(setting.mode) == mode);
    levels.for_each(|setting| text.push_str(&pad(short(setting.isolation), 5)));
    text.truncate(text.trim_end().len());
    text.push('\n');
    for mode in modes(&report.settings) {
        let _ = write!(text, "  {}", pad(mode.name(), 13));
        for cell in report.cells.iter().filter(|cell| cell.setting.mode == mode) {
            let (glyph, tone) = match cell.outcome() {
                None if cell.is_absent() => ("-".to_owned(), Tone::Faint),
                None => ("?".to_owned(), Tone::Odd),
                Some(Outcome::Possible) => (style.possible().to_owned(), Tone::Bad),
                Some(Outcome::Prevented(how)) => (format!("{}{}", style.prevented(), how.letter()), Tone::Good),
            };
            text.push_str(&style.paint(&pad(&glyph, 5), tone));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// Every anomaly on one line: id, name, the levels that forbid it, other names.
#[must_use]
pub fn list(style: Style) -> String {
    let mut text = String::new();
    let width = catalogue::all().iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0) + 2;
    let _ = writeln!(text, "{}{}{}also called", pad("id", 16), pad("anomaly", width), pad("forbidden by", 14));
    for entry in catalogue::all() {
        let levels = forbidding(entry);
        let levels = match levels.len() {
            5 => "every level".to_owned(),
            _ => levels.into_iter().map(short).collect::<Vec<_>>().join(" "),
        };
        let aliases = style.paint(&entry.aliases.join(", "), Tone::Faint);
        let _ = writeln!(text, "{}{}{}{aliases}", pad(entry.id, 16), pad(&entry.name, width), pad(&levels, 14));
    }
    text
}
