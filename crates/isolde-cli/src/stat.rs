//! `stat`: what a database holds.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use isolde_wal::{Inspection, Tail, segment_name};
use serde::Serialize;

use crate::failure::{Done, Failure};
use crate::rows::Rows;
use crate::source::Source;
use crate::words::counted;

#[derive(Serialize)]
struct Stat {
    path: String,
    format_version: u32,
    /// Hexadecimal: JSON's numbers are not exact to 64 bits everywhere.
    database_id: String,
    epoch: u64,
    checkpoint: Option<Checkpoint>,
    log: Log,
    last_commit_ts: u64,
    keys: u64,
    key_bytes: u64,
    value_bytes: u64,
}

#[derive(Serialize)]
struct Checkpoint {
    number: u64,
    partitions: u64,
    rows: u64,
    bytes: u64,
    /// Partitions are written one after the other, each as of a time of its own.
    oldest_ts: u64,
    newest_ts: u64,
}

#[derive(Serialize)]
struct Log {
    replay_from: String,
    bytes: u64,
    records: u64,
    segments: Vec<Segment>,
}

#[derive(Serialize)]
struct Segment {
    file: String,
    epoch: u64,
    bytes: u64,
    used_bytes: u64,
    records: u64,
    first_commit_ts: Option<u64>,
    last_commit_ts: Option<u64>,
    torn: bool,
}

pub fn run(dir: &Path, json: bool) -> Done {
    let source = Source::open(dir)?;
    let (inspection, rows) = source.rows(&[])?;
    let stat = stat(source.dir.clone(), &inspection, &rows);
    let said = if json {
        let text = serde_json::to_string_pretty(&stat).map_err(Failure::refused)?;
        format!("{text}\n")
    } else {
        describe(&stat)
    };
    std::io::stdout().write_all(said.as_bytes()).map_err(Failure::output)
}

fn stat(path: String, inspection: &Inspection, rows: &Rows) -> Stat {
    let manifest = &inspection.manifest;
    let segments = inspection.segments.iter().map(|segment| Segment {
        file: segment.file.clone(),
        epoch: segment.epoch,
        bytes: segment.bytes,
        used_bytes: segment.used,
        records: segment.records,
        first_commit_ts: segment.commits.map(|(first, _)| first.0),
        last_commit_ts: segment.commits.map(|(_, last)| last.0),
        torn: segment.tail == Tail::Torn,
    });
    let parts = &inspection.partitions;
    Stat {
        path,
        format_version: isolde_wal::VERSION,
        database_id: format!("{:016x}", manifest.database),
        epoch: inspection.segments.iter().map(|segment| segment.epoch).fold(manifest.epoch, u64::max),
        checkpoint: (manifest.checkpoint > 0).then(|| Checkpoint {
            number: manifest.checkpoint,
            partitions: parts.len() as u64,
            rows: parts.iter().map(|part| part.rows).sum(),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            oldest_ts: parts.iter().map(|part| part.ts.0).min().unwrap_or(0),
            newest_ts: parts.iter().map(|part| part.ts.0).max().unwrap_or(0),
        }),
        log: Log {
            replay_from: segment_name(manifest.replay_from),
            bytes: inspection.segments.iter().map(|segment| segment.bytes).sum(),
            records: inspection.segments.iter().map(|segment| segment.records).sum(),
            segments: segments.collect(),
        },
        last_commit_ts: inspection.last.0,
        keys: rows.rows.len() as u64,
        key_bytes: rows.key_bytes(),
        value_bytes: rows.value_bytes(),
    }
}

fn describe(stat: &Stat) -> String {
    let mut out = String::new();
    let mut say = |what: &str, text: String| {
        let _ = writeln!(out, "{what:12} {text}");
    };
    say("database", format!("{}, format version {}, epoch {}", stat.database_id, stat.format_version, stat.epoch));
    match &stat.checkpoint {
        None => say("checkpoint", "none yet".to_owned()),
        Some(Checkpoint { number, partitions, rows, bytes, oldest_ts, newest_ts }) => {
            let of = format!(
                "number {number}: {} in {}, {bytes} bytes",
                counted(*rows, "row"),
                counted(*partitions, "partition")
            );
            say("checkpoint", format!("{of}, as of @{oldest_ts} to @{newest_ts}"));
        }
    }
    let Log { segments, bytes, records, .. } = &stat.log;
    say("log", format!("{}, {bytes} bytes, {}", counted(segments.len(), "segment"), counted(*records, "record")));
    for segment in segments {
        let commits = match (segment.first_commit_ts, segment.last_commit_ts) {
            (Some(first), Some(last)) => format!("commits @{first} to @{last}"),
            _ => "no commits".to_owned(),
        };
        let torn = if segment.torn { ", torn at its end" } else { "" };
        let Segment { file, epoch, bytes, used_bytes, records, .. } = segment;
        let of = format!("{file}: epoch {epoch}, {used_bytes} of {bytes} bytes used, {}", counted(*records, "record"));
        say("", format!("{of}, {commits}{torn}"));
    }
    say("last commit", format!("@{}", stat.last_commit_ts));
    let (keys, key_bytes, value_bytes) = (stat.keys, stat.key_bytes, stat.value_bytes);
    say("rows", format!("{}, {key_bytes} bytes of keys, {value_bytes} bytes of values", counted(keys, "key")));
    out
}
