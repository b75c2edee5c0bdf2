//! One anomaly: what it is, its schedule, and a panel for each cell.

use askama::filters::Safe;

use super::cycle::CycleView;
use super::lanes::Lanes;
use super::{Mark, anchor, marked, matrix, place, slug, spoken, told_apart};
use crate::catalogue::{self, Paragraph};
use crate::report::explain::forbidden_by;
use crate::report::json::{CellDoc, RunDoc};
use crate::report::story::{Order, Story};

pub(super) struct AnomalyView {
    pub id: String,
    pub slug: String,
    pub name: String,
    pub aliases: String,
    pub summary: String,
    pub paragraphs: Vec<Paragraph>,
    pub forbidden_by: String,
    pub schedule: String,
    pub panels: Vec<Panel>,
}

/// One cell, looked at closely.
pub(super) struct Panel {
    pub anchor: String,
    pub open: bool,
    /// The database, if there are several runs.
    pub db: String,
    pub place: String,
    pub mark: Mark,
    pub permits: String,
    pub reason: Option<String>,
    pub faults: Vec<String>,
    pub error: Option<String>,
    pub told: Option<Told>,
    pub cycle: Option<CycleView>,
}

/// A story, laid out.
pub(super) struct Told {
    pub lanes: Lanes,
    pub why: Option<String>,
    pub orders: Vec<Order>,
    pub prevented: Vec<Safe<String>>,
    pub notes: Vec<Note>,
    pub steps: Vec<(String, Safe<String>)>,
}

pub(super) struct Note {
    pub heading: &'static str,
    pub words: String,
}

pub(super) fn all(runs: &[RunDoc]) -> Vec<AnomalyView> {
    matrix::anomalies(runs).iter().map(|id| view(runs, id)).collect()
}

fn view(runs: &[RunDoc], id: &str) -> AnomalyView {
    let of_run = |(number, run): (usize, &RunDoc)| {
        let cells: Vec<(usize, CellDoc)> =
            run.cells.iter().filter(|cell| cell.anomaly == id).map(|cell| (number, cell.clone())).collect();
        cells
    };
    let cells: Vec<(usize, CellDoc)> = runs.iter().enumerate().flat_map(of_run).collect();
    let open = opened(&cells);
    let panels = cells.iter().enumerate().map(|(place, (run, cell))| panel(runs, *run, cell, open.contains(&place)));
    let panels = panels.collect();
    let slug = slug(id);
    match catalogue::find(id) {
        None => AnomalyView {
            id: id.to_owned(),
            slug,
            name: String::new(),
            aliases: String::new(),
            summary: "This version of the suite does not know it.".to_owned(),
            paragraphs: Vec::new(),
            forbidden_by: String::new(),
            schedule: String::new(),
            panels,
        },
        Some(entry) => AnomalyView {
            id: id.to_owned(),
            slug,
            name: entry.name.clone(),
            aliases: entry.aliases.join(", "),
            summary: entry.summary.clone(),
            paragraphs: entry.paragraphs(),
            forbidden_by: forbidden_by(entry),
            schedule: entry.text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"),
            panels,
        },
    }
}

/// The two cells that stand side by side at first: one where it goes wrong, and the nearest that shows
/// how it does not. Of several runs, the first level and mode at which they differ.
fn opened(cells: &[(usize, CellDoc)]) -> Vec<usize> {
    let outcome = |place: usize| cells[place].1.outcome.as_str();
    let differ = (0..cells.len()).find_map(|one| {
        let same = |other: &usize| {
            let (a, b) = (&cells[one], &cells[*other]);
            a.0 < b.0 && (&a.1.level, &a.1.mode) == (&b.1.level, &b.1.mode)
        };
        let other = (0..cells.len()).find(same)?;
        (outcome(one) != outcome(other)).then_some(vec![one, other])
    });
    let found = |outcome: &str| cells.iter().position(|(_, cell)| cell.outcome == outcome);
    let wrong = found("possible");
    let right = match wrong.map(|wrong| &cells[wrong]) {
        None => found("prevented"),
        Some((run, wrong)) => {
            let near =
                |(r, cell): &(usize, CellDoc)| cell.outcome == "prevented" && (*r, &cell.mode) == (*run, &wrong.mode);
            cells.iter().position(near).or_else(|| found("prevented"))
        }
    };
    differ.unwrap_or_else(|| wrong.into_iter().chain(right).collect())
}

fn panel(runs: &[RunDoc], run: usize, cell: &CellDoc, open: bool) -> Panel {
    let told = cell.told.as_ref();
    let level = match told_apart(runs, run).as_str() {
        "" => spoken(&cell.level),
        db => format!("{} of {db}", spoken(&cell.level)),
    };
    let permits = match cell.permitted {
        None => String::new(),
        Some(true) => format!("; {level} permits it"),
        Some(false) => format!("; {level} forbids it"),
    };
    Panel {
        anchor: anchor(runs, run, cell),
        open,
        db: told_apart(runs, run),
        place: place(cell),
        mark: Mark::of(cell),
        permits,
        reason: told.and_then(|told| told.reason.clone()),
        faults: told.map_or_else(Vec::new, |told| told.faults.clone()),
        error: told.and_then(|told| told.error.clone()),
        told: told.and_then(|told| told.story.as_ref()).map(tell),
        cycle: CycleView::of(&cell.cycle),
    }
}

fn tell(story: &Story) -> Told {
    let note = |heading, lines: &[String], between: &str| Note { heading, words: lines.join(between) };
    let notes = [
        note("What should have been", &story.unmet, "; "),
        note("Found as well", &story.others, ", "),
        note("Seen by transactions that were then aborted", &story.zombies, "; "),
        note("The records contradict themselves", &story.complaints, "; "),
        note("Broken promises", &story.broken, "; "),
    ];
    Told {
        lanes: Lanes::of(story),
        why: story.why.clone(),
        orders: story.orders.clone(),
        prevented: story.prevented.iter().map(|line| marked(line)).collect(),
        notes: notes.into_iter().filter(|note| !note.words.is_empty()).collect(),
        steps: story.sentences().into_iter().map(|(numbers, words)| (numbers, marked(&words))).collect(),
    }
}
