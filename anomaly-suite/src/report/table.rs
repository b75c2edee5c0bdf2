//! The matrix as a table for a terminal: one row per anomaly, one column per level and mode.

use std::fmt::Write as _;

use isolde_types::{Anomaly, Isolation, Mode};

use super::{Style, Tone, modes, pad, short, spoken};
use crate::hazards::{Hazard, Hazards};
use crate::suite::{Cell, Report};
use crate::verdict::Outcome;

const ID: usize = 15;
const CELL: usize = 4;

/// The matrix.
#[must_use]
pub fn table(report: &Report, hazards: Option<&Hazards>, style: Style) -> String {
    let mut text = head(report, style);
    for entry in report.entries() {
        let _ = write!(text, "{}{}", pad(entry.id, ID), pad(&entry.name, name_width(report)));
        for mode in modes(&report.settings) {
            let cells: Vec<&Cell> = report.row(entry).filter(|cell| cell.setting.mode == mode).collect();
            cells.iter().for_each(|cell| text.push_str(&glyphs(cell, style)));
            text.push_str(&" ".repeat(group_width(report, mode) - cells.len() * CELL));
        }
        trim_end_line(&mut text);
    }
    text.push('\n');
    text.push_str(&own_names(report));
    text.push_str(&behaviour(report));
    if let Some(hazards) = hazards {
        text.push_str(&hazard_rows(hazards, style));
    }
    text.push_str(&legend(style));
    text.push_str(&summary(report, hazards, style));
    text
}

fn name_width(report: &Report) -> usize {
    report.entries().iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0) + 2
}

/// The columns of one mode: its cells, and the gap before the next mode.
fn group_width(report: &Report, mode: Mode) -> usize {
    let levels = report.settings.iter().filter(|setting| setting.mode == mode).count();
    (levels * CELL).max(mode_name(report, mode).len()) + 2
}

/// What the database calls one of its two modes; nothing where it has only one way.
fn mode_name(report: &Report, mode: Mode) -> &'static str {
    report.levels.iter().find(|level| level.setting.mode == mode).map_or("", |level| level.mode)
}

fn trim_end_line(text: &mut String) {
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

fn head(report: &Report, style: Style) -> String {
    let dot = style.dot();
    let (rows, columns) = (report.entries().len(), report.settings.len());
    let mut text = format!(
        "{} {} {dot} {rows} {} x {columns} {} {dot} {} {}\n\n",
        report.db,
        report.db_version,
        if rows == 1 { "anomaly" } else { "anomalies" },
        if columns == 1 { "level and mode" } else { "levels and modes" },
        report.cells.len(),
        if report.cells.len() == 1 { "cell" } else { "cells" },
    );
    let margin = " ".repeat(ID + name_width(report));
    if report.levels.iter().any(|level| !level.mode.is_empty()) {
        text.push_str(&margin);
        for mode in modes(&report.settings) {
            let _ = write!(text, "{}", pad(mode_name(report, mode), group_width(report, mode)));
        }
        trim_end_line(&mut text);
    }
    text.push_str(&margin);
    for mode in modes(&report.settings) {
        let settings = report.settings.iter().filter(|setting| setting.mode == mode);
        let heads: String = settings.map(|setting| pad(short(setting.isolation), CELL)).collect();
        let _ = write!(text, "{}", pad(&heads, group_width(report, mode)));
    }
    trim_end_line(&mut text);
    text
}

/// `✓b`, `✗`, `?`; with `!` when the cell is not as it must be.
fn glyphs(cell: &Cell, style: Style) -> String {
    let (mut text, tone) = match cell.outcome() {
        None if cell.is_absent() => ("-".to_owned(), Tone::Faint),
        None => ("?".to_owned(), Tone::Odd),
        Some(Outcome::Possible) => (style.possible().to_owned(), Tone::Bad),
        Some(Outcome::Prevented(mechanism)) => (format!("{}{}", style.prevented(), mechanism.letter()), Tone::Good),
    };
    if !cell.faults().is_empty() {
        text.push('!');
    }
    style.paint(&pad(&text, CELL), tone)
}

/// What the database itself calls its levels, and what each is judged by, where that is not the same.
fn own_names(report: &Report) -> String {
    let mut text = String::new();
    for level in report.levels.iter().filter(|level| level.name != level.setting.isolation.name()) {
        let _ = writeln!(
            text,
            "{} is {}, judged by what {} promises",
            pad(short(level.setting.isolation), CELL - 1).trim_end(),
            level.name,
            spoken(level.promises)
        );
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// For each mode, the level that each level really behaves as, judged by what was shown.
fn behaviour(report: &Report) -> String {
    let mut text = String::new();
    for setting in &report.settings {
        let stronger = behaves_as(report, setting.isolation, setting.mode);
        if !stronger.is_empty() {
            let names: Vec<&str> = stronger.iter().map(|level| spoken(*level)).collect();
            let _ = writeln!(
                text,
                "{} {} showed nothing that {} forbids: stronger than asked",
                setting.mode,
                spoken(setting.isolation),
                names.join(" or ")
            );
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// The levels that forbid more than `asked` and nothing of what was shown; the strongest of them.
fn behaves_as(report: &Report, asked: Isolation, mode: Mode) -> Vec<Isolation> {
    if report.entries().len() != crate::catalogue::all().len() {
        return Vec::new();
    }
    let cells = report.cells.iter().filter(|cell| cell.setting.isolation == asked && cell.setting.mode == mode);
    let shown: Vec<Anomaly> = cells
        .filter_map(|cell| cell.trial.as_ref().ok())
        .flat_map(|trial| trial.evidence.shown.iter().map(|shown| shown.anomaly))
        .collect();
    let kept = |level: &Isolation| level.forbids().iter().all(|forbidden| !shown.contains(forbidden));
    let kept: Vec<Isolation> = Isolation::ALL.into_iter().filter(kept).collect();
    let below = |a: Isolation, b: Isolation| a != b && a.forbids().iter().all(|x| b.forbids().contains(x));
    let strongest = kept.iter().filter(|level| !kept.iter().any(|other| below(**level, *other)));
    // What the catalogue does not show, other programs may: only what is promised is said.
    let ours = report.levels.iter().all(|level| level.name == level.setting.isolation.name());
    let promised = |level: &Isolation| ours && asked.guarantees(mode).keep(*level);
    strongest.copied().filter(|level| *level != asked && !below(*level, asked)).filter(promised).collect()
}

fn hazard_rows(hazards: &Hazards, style: Style) -> String {
    let mut text = format!("{}\n", style.paint("hazards, each without and with what resolves it", Tone::Strong));
    for hazard in &hazards.0 {
        text.push_str(&hazard_row(hazard, style));
    }
    text.push('\n');
    text
}

fn hazard_row(hazard: &Hazard, style: Style) -> String {
    let mut text = format!("{}{}\n", pad(hazard.name, ID), style.paint(hazard.program, Tone::Faint));
    let first = std::iter::once((&hazard.without, Tone::Bad, style.possible()));
    let rest = hazard.with.iter().map(|case| (case, Tone::Good, style.prevented()));
    for (case, tone, glyph) in first.chain(rest) {
        let glyph = if case.as_declared { style.paint(glyph, tone) } else { style.paint("!", Tone::Odd) };
        let _ = writeln!(text, "{}{glyph} {}{}", pad("", ID), pad(&case.mechanism, 38), case.measured());
    }
    text
}

fn legend(style: Style) -> String {
    format!(
        "{} prevented: b by blocking, a by aborting, d by a deadlock victim, i never visible   {} possible\n\
         RU read uncommitted  RC read committed  RR repeatable read  SI snapshot  SER serializable\n",
        style.prevented(),
        style.possible()
    )
}

fn summary(report: &Report, hazards: Option<&Hazards>, style: Style) -> String {
    let mut text = String::new();
    for cell in report.faulty() {
        for fault in cell.faults() {
            let place = format!("{} at {} {}", cell.entry.id, cell.setting.isolation, cell.setting.mode);
            let _ = writeln!(text, "{} {place}: {fault}", style.paint("!", Tone::Odd));
            let _ = writeln!(text, "  look closer: {}{}", look_closer(cell), of_database(report));
        }
    }
    for cell in report.inconclusive() {
        let why = cell.trial.as_ref().err().map_or_else(|| "it hunts nothing".to_owned(), ToString::to_string);
        let place = format!("{} at {} {}", cell.entry.id, cell.setting.isolation, cell.setting.mode);
        let _ = writeln!(text, "{} {place}: {why}", style.paint("?", Tone::Odd));
    }
    let undeclared = report.cells.iter().filter(|cell| cell.declared.is_none() && !cell.is_absent()).count();
    let faulty = report.faulty().count() + hazards.map_or(0, Hazards::faults);
    if faulty == 0 && undeclared == 0 && report.inconclusive().next().is_none() {
        text.push_str("all cells as declared\n");
    } else {
        let inconclusive = report.inconclusive().count();
        let _ = writeln!(text, "{faulty} not as declared, {inconclusive} inconclusive, {undeclared} not declared");
    }
    let example = report.settings.iter().find(|s| s.isolation == Isolation::Snapshot && s.mode == Mode::Optimistic);
    if let Some(setting) = example.or(report.settings.first()) {
        let (isolation, mode) = (setting.isolation, setting.mode);
        let db = of_database(report);
        // What was run, and of that what has most to show.
        let ran = |id: &str| report.cells.iter().any(|cell| cell.entry.id == id);
        let first = report.cells.first().map_or("G2-item", |cell| cell.entry.id);
        let anomaly = if ran("G2-item") { "G2-item" } else { first };
        let _ = writeln!(text, "look closer: anomaly-suite show {anomaly} --level {isolation} --mode {mode}{db}");
    }
    text
}

/// The option that names the database, where it is not the usual one.
fn of_database(report: &Report) -> String {
    if report.db == "isolde" { String::new() } else { format!(" --db {}", report.db) }
}

pub(super) fn look_closer(cell: &Cell) -> String {
    let (isolation, mode) = (cell.setting.isolation, cell.setting.mode);
    format!("anomaly-suite show {} --level {isolation} --mode {mode}", cell.entry.id)
}
