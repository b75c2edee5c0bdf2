//! `check`: every file is verified, and that what they hold agrees.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use isolde::Ts;
use isolde_wal::{Inspection, Redo, Tail, WalError};

use crate::failure::{Done, Failure};
use crate::progress::Bar;
use crate::source::Source;
use crate::words::counted;

/// Reads everything, keeps nothing.
struct Watch(Bar);

impl Redo for Watch {
    fn apply(&self, _key: &[u8], _value: Option<&[u8]>, _ts: Ts) {}

    fn progress(&self, done: u64, total: u64) {
        self.0.set(done, total);
    }
}

pub fn run(dir: &Path) -> Done {
    let source = Source::open(dir)?;
    let watch = Watch(Bar::new("checking"));
    let inspection = source.inspect(&watch)?;
    drop(watch);
    std::io::stdout().write_all(describe(&inspection).as_bytes()).map_err(Failure::output)?;
    match inspection.faults.len() {
        0 => Ok(()),
        1 => Err(Failure::Damaged(format!("{}: 1 file is damaged; restore the database from a backup", source.dir))),
        n => {
            Err(Failure::Damaged(format!("{}: {n} files are damaged; restore the database from a backup", source.dir)))
        }
    }
}

fn describe(inspection: &Inspection) -> String {
    let mut lines: Vec<(&str, String)> = vec![("MANIFEST", "ok".to_owned())];
    for part in &inspection.partitions {
        lines.push((&part.file, format!("ok: {} as of {}", counted(part.rows, "row"), part.ts)));
    }
    for segment in &inspection.segments {
        let records = counted(segment.records, "record");
        let commits = match segment.commits {
            Some((first, last)) => format!("{records}, commits {first} to {last}"),
            None => format!("{records}, no commits"),
        };
        let tail = match segment.tail {
            Tail::Empty => String::new(),
            Tail::Torn => format!(
                "; torn at byte {}: what was being written there had been promised to nobody, and is left out",
                segment.used
            ),
        };
        lines.push((&segment.file, format!("ok: {commits}{tail}")));
    }
    for fault in &inspection.faults {
        lines.push(match fault {
            WalError::Corruption { file, offset, what } => (file, format!("DAMAGED at byte {offset}: {what}")),
            WalError::MissingFile { file } => (file, "MISSING".to_owned()),
            other => ("", other.to_string()),
        });
    }
    for (name, what) in &inspection.others {
        lines.push((name, format!("not verified: {what}")));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, what) in &lines {
        let _ = writeln!(out, "{name:width$}  {what}");
    }
    if inspection.faults.is_empty() {
        let _ = writeln!(out, "ok: everything up to commit {} is there", inspection.last);
    }
    out
}
