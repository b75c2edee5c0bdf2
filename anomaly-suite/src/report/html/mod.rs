//! One HTML page that holds everything and asks for nothing: no script, no font, no image, no link to
//! another host. It is rendered from [`RunDoc`], the document of `run --format json --steps`, so that
//! a run of another database, or of another day, can stand beside one that has just been made.
//!
//! ```text
//!  matrix    one row per anomaly, one column per run, mode and level; each cell links to
//!  panel     <details>: lanes (a table), cycle (SVG), reasons, steps; open panels stand side by side
//!  hazards   a table per hazard
//! ```
//!
//! The templates are in `templates/`; they escape whatever a run or a schedule says.

mod anomaly;
mod cycle;
mod hazards;
mod lanes;
mod matrix;

use askama::Template;
use askama::filters::Safe;

use self::anomaly::AnomalyView;
use self::hazards::HazardsView;
pub use self::hazards::has_faulty as has_faulty_hazard;
use self::matrix::Matrix;
use super::json::{CellDoc, RunDoc};
use super::short;

/// The page of one or several runs, side by side.
#[must_use]
pub fn page(runs: &[RunDoc]) -> String {
    let page = Page {
        title: runs.iter().map(named).collect::<Vec<_>>().join(" beside "),
        suite: env!("CARGO_PKG_VERSION"),
        runs: runs.iter().enumerate().map(|(number, run)| RunView::new(runs, number, run)).collect(),
        matrix: Matrix::new(runs),
        anomalies: anomaly::all(runs),
        hazards: runs.iter().filter_map(HazardsView::of).collect(),
    };
    page.render().unwrap_or_else(|error| panic!("a page in memory can be written: {error}"))
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    title: String,
    suite: &'static str,
    runs: Vec<RunView>,
    matrix: Matrix,
    anomalies: Vec<AnomalyView>,
    hazards: Vec<HazardsView>,
}

/// One run in a sentence, and what is wrong with it.
struct RunView {
    name: String,
    cells: usize,
    possible: usize,
    prevented: usize,
    undecided: usize,
    undeclared: usize,
    faults: Vec<FaultView>,
}

struct FaultView {
    href: String,
    place: String,
    words: String,
}

impl RunView {
    fn new(runs: &[RunDoc], number: usize, run: &RunDoc) -> RunView {
        let count = |outcome: &str| run.cells.iter().filter(|cell| cell.outcome == outcome).count();
        let faulty = run.cells.iter().filter(|cell| cell.is_faulty());
        RunView {
            name: named(run),
            cells: run.cells.len(),
            possible: count("possible"),
            prevented: count("prevented"),
            undecided: run.cells.iter().filter(|cell| !cell.is_decided()).count(),
            undeclared: run.cells.iter().filter(|cell| cell.declared.is_none()).count(),
            faults: faulty.map(|cell| FaultView::new(runs, number, cell)).collect(),
        }
    }
}

impl FaultView {
    fn new(runs: &[RunDoc], number: usize, cell: &CellDoc) -> FaultView {
        let told = cell.told.as_ref().map_or(&[][..], |told| &told.faults);
        let words = if told.is_empty() { "not as declared".to_owned() } else { told.join("; ") };
        FaultView { href: anchor(runs, number, cell), place: format!("{} at {}", cell.anomaly, place(cell)), words }
    }
}

/// What tells a run from the others: its database, with the version where that alone tells them apart.
fn told_apart(runs: &[RunDoc], number: usize) -> String {
    let run = &runs[number];
    let same = |by: &dyn Fn(&RunDoc) -> String| runs.iter().filter(|other| by(other) == by(run)).count() > 1;
    match (runs.len(), same(&|run| run.db.name.clone()), same(&named)) {
        (1, ..) => String::new(),
        (_, false, _) => run.db.name.clone(),
        (_, true, false) => named(run),
        (_, true, true) => format!("{} ({})", named(run), number + 1),
    }
}

fn named(run: &RunDoc) -> String {
    format!("{} {}", run.db.name, run.db.version)
}

/// `snapshot, optimistic`.
fn place(cell: &CellDoc) -> String {
    match cell.mode.as_str() {
        "" => spoken(&cell.level),
        mode => format!("{}, {mode}", spoken(&cell.level)),
    }
}

/// A level in prose; one that only another database has keeps its own name.
fn spoken(level: &str) -> String {
    level.parse().map_or_else(|_| level.to_owned(), |level| super::spoken(level).to_owned())
}

/// A level as the head of a narrow column.
fn abbreviated(level: &str) -> String {
    level.parse().map_or_else(|_| level.to_owned(), |level| short(level).to_owned())
}

/// A text with its `quoted` parts as code, escaped: safe to write as it is.
fn marked(text: &str) -> Safe<String> {
    let parts: Vec<&str> = text.split('`').collect();
    let mut html = String::new();
    for (number, part) in parts.iter().enumerate() {
        let is_quoted = number % 2 == 1 && number + 1 < parts.len();
        let (before, after) = match (is_quoted, number % 2 == 1) {
            (true, _) => ("<code>", "</code>"),
            (false, true) => ("`", ""),
            (false, false) => ("", ""),
        };
        let escaped = askama::filters::escape(part, askama::filters::Html);
        let escaped = escaped.map_or_else(|never| match never {}, |escaped| escaped.to_string());
        html.extend([before, &escaped, after]);
    }
    Safe(html)
}

/// The id of a cell's panel: letters, digits and dashes, whatever the run is called.
fn anchor(runs: &[RunDoc], number: usize, cell: &CellDoc) -> String {
    let run = if runs.len() > 1 { format!("{}-", number + 1) } else { String::new() };
    slug(&format!("{}--{run}{}-{}", cell.anomaly, cell.level, cell.mode))
}

fn slug(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// How a verdict is marked. The class only colours what the glyph and the letter say.
struct Mark {
    class: &'static str,
    glyph: &'static str,
    letter: String,
    words: String,
    faulty: bool,
}

impl Mark {
    fn of(cell: &CellDoc) -> Mark {
        let mechanism = cell.mechanism.as_deref().unwrap_or_default();
        let (class, glyph) = match cell.outcome.as_str() {
            "possible" => ("bad", "✗"),
            "prevented" => ("good", "✓"),
            "absent" => ("none", "–"),
            _ => ("odd", "?"),
        };
        let how = match mechanism {
            "" => cell.outcome.clone(),
            "deadlock" => "prevented, by a deadlock victim".to_owned(),
            "blocked" => "prevented, by blocking".to_owned(),
            "aborted" => "prevented, by aborting".to_owned(),
            "invisible" => "prevented, never visible".to_owned(),
            other => format!("prevented, {other}"),
        };
        let faulty = cell.is_faulty();
        let words = if faulty { format!("{how}, not as it must be") } else { how };
        Mark { class, glyph, letter: mechanism.chars().take(1).collect(), words, faulty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_code_and_everything_is_escaped() {
        for (text, html) in [
            ("step 1, `T1: put <x>`, waited", "step 1, <code>T1: put &#60;x&#62;</code>, waited"),
            ("one ` alone & \"b\"", "one ` alone &#38; &#34;b&#34;"),
            ("`a` and `b", "<code>a</code> and `b"),
            ("", ""),
        ] {
            assert_eq!(marked(text).0, html);
        }
    }
}
