//! The matrix: all anomalies at all levels and modes, of all runs.

use super::{Mark, abbreviated, anchor, named, place, slug, spoken};
use crate::catalogue;
use crate::report::json::{CellDoc, RunDoc};

pub(super) struct Matrix {
    /// The runs, if there are several.
    pub runs: Vec<Head>,
    pub modes: Vec<Head>,
    pub levels: Vec<Head>,
    pub rows: Vec<Row>,
}

/// A head over some columns; `first` where a new run or mode begins.
pub(super) struct Head {
    pub text: String,
    pub long: String,
    pub span: usize,
    pub first: bool,
}

pub(super) struct Row {
    pub id: String,
    pub slug: String,
    pub name: String,
    pub cells: Vec<MatrixCell>,
}

pub(super) struct MatrixCell {
    pub href: String,
    pub place: String,
    /// `None` where a run does not have the cell.
    pub mark: Option<Mark>,
    pub first: bool,
}

/// A column: a run, a mode and a level.
struct Column<'r> {
    run: usize,
    mode: &'r str,
    level: &'r str,
}

impl Matrix {
    pub fn new(runs: &[RunDoc]) -> Matrix {
        let columns = columns(runs);
        let by_run = heads(&columns, |column| (column.run, ""), |column| named(&runs[column.run]));
        let modes = heads(&columns, |column| (column.run, column.mode), |column| column.mode.to_owned());
        let levels = columns.iter().enumerate().map(|(number, column)| Head {
            text: abbreviated(column.level),
            long: spoken(column.level),
            span: 1,
            first: is_first(&columns, number),
        });
        let row = |id: &String| Row {
            id: id.clone(),
            slug: slug(id),
            name: catalogue::find(id).map_or(String::new(), |entry| entry.name.clone()),
            cells: columns
                .iter()
                .enumerate()
                .map(|(n, column)| cell(runs, id, column, is_first(&columns, n)))
                .collect(),
        };
        Matrix {
            runs: if runs.len() > 1 { by_run } else { Vec::new() },
            modes,
            levels: levels.collect(),
            rows: anomalies(runs).iter().map(row).collect(),
        }
    }
}

/// The ids of all anomalies that some run has, in the order of the catalogue; unknown ones last.
pub(super) fn anomalies(runs: &[RunDoc]) -> Vec<String> {
    let has = |id: &str| runs.iter().any(|run| run.cells.iter().any(|cell| cell.anomaly == id));
    let mut ids: Vec<String> = catalogue::all().iter().map(|entry| entry.id.to_owned()).filter(|id| has(id)).collect();
    for cell in runs.iter().flat_map(|run| &run.cells) {
        if !ids.contains(&cell.anomaly) {
            ids.push(cell.anomaly.clone());
        }
    }
    ids
}

fn columns(runs: &[RunDoc]) -> Vec<Column<'_>> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for (run, doc) in runs.iter().enumerate() {
        for CellDoc { mode, level, .. } in &doc.cells {
            if !columns.iter().any(|known| (known.run, known.mode, known.level) == (run, mode, level)) {
                columns.push(Column { run, mode, level });
            }
        }
    }
    columns
}

/// Neighbours of one group under one head.
fn heads<'r>(
    columns: &[Column<'r>],
    group: impl Fn(&Column<'r>) -> (usize, &'r str),
    text: impl Fn(&Column<'r>) -> String,
) -> Vec<Head> {
    let groups = columns.chunk_by(|one, next| group(one) == group(next));
    groups.map(|some| Head { text: text(&some[0]), long: String::new(), span: some.len(), first: true }).collect()
}

fn is_first(columns: &[Column<'_>], number: usize) -> bool {
    let group = |column: &Column<'_>| (column.run, column.mode.to_owned());
    number == 0 || group(&columns[number - 1]) != group(&columns[number])
}

fn cell(runs: &[RunDoc], id: &str, column: &Column<'_>, first: bool) -> MatrixCell {
    let is_here = |cell: &&CellDoc| {
        (cell.anomaly.as_str(), cell.mode.as_str(), cell.level.as_str()) == (id, column.mode, column.level)
    };
    match runs[column.run].cells.iter().find(is_here) {
        None => MatrixCell { href: String::new(), place: String::new(), mark: None, first },
        Some(cell) => {
            MatrixCell { href: anchor(runs, column.run, cell), place: place(cell), mark: Some(Mark::of(cell)), first }
        }
    }
}
