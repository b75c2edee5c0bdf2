//! Looking at a database's files without opening it: everything is read and verified, nothing is written.
//!
//! An open stops at the first thing that is wrong. This goes on, so that one look names every file that
//! is damaged; and it looks closer: rows must be in order and in their partition, epochs must not go back.
//! What it gives is what an open would recover.

use isolde_types::Ts;

use crate::checkpoint::{self, checkpoint_number, load_partition, partition_name};
use crate::directory::{
    LoggedSegment, NEW_SEGMENT, OpenConfig, Redo, chain, missing_successor, read_segment, refuse_others,
};
use crate::error::{Result, WalError};
use crate::format::{Lsn, RecordKind};
use crate::manifest::{MANIFEST, Manifest};
use crate::real::LOCK_FILE;
use crate::redo::redo_records;
use crate::scan::{Found, Scanned, SegmentBytes};
use crate::segments::{segment_name, segment_number, spare_number};
use crate::vfs::{OpenMode, Vfs};

/// What a directory holds, as far as it is whole.
#[derive(Debug)]
pub struct Inspection {
    /// The manifest.
    pub manifest: Manifest,
    /// The checkpoint's files that are whole, in key order.
    pub partitions: Vec<PartitionReport>,
    /// The log's files that are whole, in their order.
    pub segments: Vec<SegmentReport>,
    /// The newest commit that an open would recover.
    pub last: Ts,
    /// Files that hold nothing that is needed, by name; they were not verified.
    pub others: Vec<(String, &'static str)>,
    /// What is damaged or missing, one for each file where it first shows.
    pub faults: Vec<WalError>,
}

/// A file of the checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionReport {
    /// Its name.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
    /// The time as of which they are.
    pub ts: Ts,
}

/// A file of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentReport {
    /// Its name.
    pub file: String,
    /// The epoch that began it.
    pub epoch: u64,
    /// Its length.
    pub bytes: u64,
    /// The offset after its last record.
    pub used: u64,
    /// How many records it has, markers included.
    pub records: u64,
    /// Its first and its last commit.
    pub commits: Option<(Ts, Ts)>,
    /// What stands after its last record.
    pub tail: Tail,
}

/// What stands after the last record of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// Nothing that was ever part of this segment, as far as that can be told.
    Empty,
    /// Records of this segment that were not wholly written, of which nobody was promised anything.
    Torn,
}

/// Reads and verifies a database's files, and gives what they hold to `redo`, on this thread. Writes
/// nothing; takes no lock, so the caller sees to it that nobody else writes meanwhile.
///
/// # Errors
/// `NotADatabase`, `VersionMismatch`, `Io`. `Corruption` and `MissingFile` when it is the manifest:
/// without it nothing else can be judged. Any other damage is in [`Inspection::faults`].
pub fn inspect(vfs: &dyn Vfs, redo: &dyn Redo) -> Result<Inspection> {
    let dir = vfs.describe();
    let names = vfs.list().map_err(WalError::io("listing", &dir))?;
    let Some(manifest) = Manifest::load(vfs)? else {
        let config = OpenConfig { create: false, ..OpenConfig::default() };
        refuse_others(vfs, &dir.as_str().into(), &names, &config)?;
        return Err(WalError::MissingFile { file: MANIFEST.into() });
    };
    let last = manifest.checkpoint_ts();
    let mut look = Look { vfs, redo, manifest: &manifest, done: 0, total: 0, faults: Vec::new() };
    let chain = chain(vfs, &manifest, &names).or_else(|error| look.keep(error).map(|()| Vec::new()))?;
    look.faults.extend(missing_successor(&chain));
    look.total = checkpoint::partition_names(&manifest)
        .chain(chain.iter().map(|segment| segment_name(segment.number)))
        .map(|name| look.len(&name).unwrap_or(0))
        .sum();
    let partitions = look.partitions()?;
    let segments = look.segments(&chain)?;
    let last = segments.iter().filter_map(|segment| segment.commits).map(|(_, last)| last).fold(last, Ts::max);
    let faults = look.faults;
    let others = others(&names, &manifest, &chain);
    Ok(Inspection { partitions, segments, last, others, faults, manifest })
}

struct Look<'l> {
    vfs: &'l dyn Vfs,
    redo: &'l dyn Redo,
    manifest: &'l Manifest,
    done: u64,
    total: u64,
    faults: Vec<WalError>,
}

impl Look<'_> {
    /// Damage is kept; what keeps from looking is an error.
    fn keep(&mut self, error: WalError) -> Result<()> {
        match error {
            WalError::Corruption { .. } | WalError::MissingFile { .. } => {
                self.faults.push(error);
                Ok(())
            }
            other => Err(other),
        }
    }

    fn len(&self, name: &str) -> Result<u64> {
        let file = self.vfs.open(name, OpenMode::Read).map_err(WalError::io("opening", name))?;
        file.len().map_err(WalError::io("measuring", name))
    }

    fn progress(&mut self, bytes: u64) {
        self.done += bytes;
        self.redo.progress(self.done.min(self.total), self.total);
    }

    fn partitions(&mut self) -> Result<Vec<PartitionReport>> {
        let mut whole = Vec::new();
        for index in 0..self.manifest.partitions.len() {
            match self.partition(index) {
                Ok(report) => {
                    self.progress(report.bytes);
                    whole.push(report);
                }
                Err(error) => self.keep(error)?,
            }
        }
        Ok(whole)
    }

    fn partition(&self, index: usize) -> Result<PartitionReport> {
        let manifest = self.manifest;
        let file = partition_name(manifest.checkpoint, index);
        let Some(partition) = manifest.partitions.get(index) else {
            return Err(WalError::MissingFile { file: file.into() });
        };
        let bytes = self.len(&file)?;
        load_partition(self.vfs, manifest, index, partition, self.redo, &|_| {})?;
        Ok(PartitionReport { file, bytes, rows: partition.rows, ts: partition.ts })
    }

    fn segments(&mut self, chain: &[LoggedSegment]) -> Result<Vec<SegmentReport>> {
        let mut whole = Vec::new();
        let (mut epoch, mut last) = (0, Ts::ZERO);
        for (index, segment) in chain.iter().enumerate() {
            let ends_at = chain.get(index + 1).map(|following| following.header.previous_end);
            match self.segment(segment, ends_at, epoch, last) {
                Ok(report) => {
                    last = report.commits.map_or(last, |(_, last)| last);
                    self.progress(report.bytes);
                    whole.push(report);
                }
                Err(error) => self.keep(error)?,
            }
            epoch = epoch.max(segment.header.epoch);
        }
        let behind = chain.last().filter(|_| epoch < self.manifest.epoch);
        if let Some(segment) = behind {
            let name = segment_name(segment.number);
            self.keep(WalError::corrupt(&name, 0, "the manifest knows of a later epoch"))?;
            whole.retain(|report| report.file != name);
        }
        Ok(whole)
    }

    fn segment(&self, segment: &LoggedSegment, ends_at: Option<Lsn>, epoch: u64, last: Ts) -> Result<SegmentReport> {
        let header = segment.header;
        let file = segment_name(segment.number);
        let bytes = read_segment(self.vfs, segment)?;
        let bytes = SegmentBytes { name: &file, header, bytes: &bytes };
        let scanned = bytes.scan(ends_at, self.manifest.log_end)?;
        let commits: Vec<&Found> =
            scanned.records.iter().filter(|found| found.header.kind == RecordKind::Commit).collect();
        let first_and_last = commits.first().zip(commits.last());
        let first_and_last = first_and_last.map(|(first, last)| (first.header.commit_ts, last.header.commit_ts));
        if header.epoch < epoch {
            return Err(WalError::corrupt(&file, 0, "it is of an earlier epoch than the segment before it"));
        }
        if first_and_last.is_some_and(|(first, _)| first <= last) {
            return Err(WalError::corrupt(&file, crate::format::BLOCK, "commits are out of order"));
        }
        redo_records(&bytes, &commits, self.manifest, 1, self.redo)?;
        Ok(SegmentReport {
            epoch: header.epoch,
            bytes: bytes.bytes.len() as u64,
            used: scanned.end.0.saturating_sub(header.start.0),
            records: scanned.records.len() as u64,
            commits: first_and_last,
            tail: tail(&bytes, &scanned, ends_at),
            file,
        })
    }
}

fn tail(segment: &SegmentBytes<'_>, scanned: &Scanned, ends_at: Option<Lsn>) -> Tail {
    // Where a next segment says that this one ends, what follows was written again there.
    if ends_at.is_none() && segment.is_torn_after(scanned.end) { Tail::Torn } else { Tail::Empty }
}

fn others(names: &[String], manifest: &Manifest, chain: &[LoggedSegment]) -> Vec<(String, &'static str)> {
    let verified = |number: u64| chain.iter().any(|segment| segment.number == number);
    let held: Vec<String> = checkpoint::partition_names(manifest).collect();
    let what = |name: &String| match (segment_number(name), checkpoint_number(name)) {
        _ if name == LOCK_FILE || name == MANIFEST || held.contains(name) => None,
        (Some(number), _) if number < manifest.replay_from => Some("a segment of the log that is not needed any more"),
        (Some(number), _) if verified(number) => None,
        (Some(_), _) => Some("a segment of a log that cannot be followed, because of the damage"),
        (_, Some(_)) => Some("a part of another checkpoint, not needed"),
        _ if spare_number(name).is_some() => Some("prepared for the log"),
        _ if name == NEW_SEGMENT || name.starts_with(MANIFEST) => Some("left by a write that was cut off, not needed"),
        _ => Some("not a file of the database"),
    };
    let mut others: Vec<(String, &str)> = names.iter().filter_map(|name| Some((name.clone(), what(name)?))).collect();
    others.sort_unstable();
    others
}
