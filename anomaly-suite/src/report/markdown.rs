//! The matrix in Markdown, and the block of the README that holds it.

use std::fmt::Write as _;

use super::{modes, short};
use crate::suite::{Cell, Report};
use crate::verdict::Outcome;

/// The line before the generated block of a document.
pub const BEGIN: &str = "<!-- matrix -->";
/// The line after it.
pub const END: &str = "<!-- /matrix -->";
/// The command that writes the block of the README anew.
pub const REGENERATE: &str = "tools/readme-matrix";

/// The matrix as a Markdown table with its legend.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut text = String::from("| anomaly | |");
    for mode in modes(&report.settings) {
        for setting in report.settings.iter().filter(|setting| setting.mode == mode) {
            let _ = write!(text, " {} {} |", short(setting.isolation), mode.name()[..1].to_uppercase());
        }
    }
    let _ = write!(text, "\n| --- | --- |{}\n", " --- |".repeat(report.settings.len()));
    for entry in report.entries() {
        let cells: Vec<String> = report.row(entry).map(glyphs).collect();
        let _ = writeln!(text, "| {} | {} | {} |", entry.id, entry.name, cells.join(" | "));
    }
    text.push_str(LEGEND);
    text
}

const LEGEND: &str = "
✗ possible. ✓ prevented: b by blocking, a by aborting, d by a deadlock victim, i never visible.
RU read uncommitted, RC read committed, RR repeatable read, SI snapshot, SER serializable; P pessimistic, O optimistic.
";

fn glyphs(cell: &Cell) -> String {
    match cell.outcome() {
        None if cell.is_absent() => "–".to_owned(),
        None => "?".to_owned(),
        Some(Outcome::Possible) => "✗".to_owned(),
        Some(Outcome::Prevented(mechanism)) => format!("✓{}", mechanism.letter()),
    }
}

/// What stands between the markers of a document; `None` if it has no markers.
#[must_use]
pub fn block(document: &str) -> Option<&str> {
    let (_, rest) = document.split_once(BEGIN)?;
    let (block, _) = rest.split_once(END)?;
    Some(block.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_stands_between_its_markers() {
        assert_eq!(block("a\n<!-- matrix -->\n| x |\n\n<!-- /matrix -->\nb"), Some("| x |"));
        assert_eq!(block("a <!-- matrix --> b"), None);
    }
}
