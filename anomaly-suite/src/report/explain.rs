//! An anomaly in plain words, and the list of all of them.

use std::fmt::Write as _;

use isolde_types::Isolation;

use super::{Style, Tone, modes, pad, short, spoken, wrap};
use crate::catalogue::{self, Entry};
use crate::suite::Report;
use crate::verdict::{Outcome, permits};

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
    let _ =
        writeln!(text, "{}\n{}", style.paint("Which levels forbid it", Tone::Strong), wrap(&forbidden_by(entry), "  "));
    let heading = format!("What {} {} does", report.db, report.db_version);
    let _ = writeln!(text, "{}\n{}", style.paint(&heading, Tone::Strong), row(report, style));
    let _ = writeln!(text, "{}", style.paint("The schedule", Tone::Strong));
    for line in entry.text.lines().filter(|line| !line.starts_with('#')) {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "\nstep by step: anomaly-suite show {} --level snapshot --mode optimistic", entry.id);
    text
}

fn forbidden_by(entry: &Entry) -> String {
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
