//! Writing the log: one at a time, the leader of the moment.

use isolde_types::sync::Arc;
use isolde_types::{Ts, mutant};

use crate::batch::{Batch, Placed, Run};
use crate::error::{Result, WalError};
use crate::format::{BLOCK, Lsn, RECORD_HEADER, RecordHeader, RecordKind, SegmentHeader, align_up};
use crate::record::BodyWriter;
use crate::segments::{Segments, segment_name};
use crate::vfs::{OpenMode, Vfs, VfsFile, write_all_at};

/// So much is written at once at most, or one record.
const CHUNK: usize = 1 << 20;

/// See the module.
pub(crate) struct Writer {
    vfs: Arc<dyn Vfs>,
    segments: Arc<Segments>,
    segment: SegmentHeader,
    /// Of `segment`.
    shared_seed: u32,
    file: Box<dyn VfsFile>,
    /// The offset in the segment of the next byte to be written.
    at: u64,
    /// Everything before is on disk.
    durable: Lsn,
    /// Bytes were written since the last sync.
    unsynced: u64,
    last_ts: Ts,
}

impl Writer {
    /// Writes on in a segment whose bytes before `at` are on disk.
    pub fn new(
        vfs: Arc<dyn Vfs>,
        segments: Arc<Segments>,
        segment: SegmentHeader,
        file: Box<dyn VfsFile>,
        at: u64,
        last_ts: Ts,
    ) -> Writer {
        let durable = segment.lsn(at);
        segments.set_left(segment.records_end().saturating_sub(align_up(at)));
        let shared_seed = segment.shared_seed();
        Writer { vfs, segments, segment, shared_seed, file, at, durable, unsynced: 0, last_ts }
    }

    /// Everything before is on disk.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Bytes that were written and not synced.
    pub fn unsynced(&self) -> u64 {
        self.unsynced
    }

    /// The segment that is written.
    pub fn segment(&self) -> u64 {
        self.segment.segment
    }

    /// Whether the segment has no record.
    pub fn is_unused(&self) -> bool {
        self.at == BLOCK
    }

    /// Bytes left in the segment, from the next block on.
    fn left(&self) -> u64 {
        self.segment.records_end().saturating_sub(align_up(self.at))
    }

    /// Appends records and writes them; syncs only where a segment ends.
    pub fn append(&mut self, runs: &mut [Run]) -> Result<()> {
        let mut reserved = 0;
        for run in runs {
            self.append_run(RecordKind::Commit, run)?;
            reserved += run.reserved;
        }
        // Only now, and together: what is reserved is in no segment yet, and what is left in this one is known again.
        self.segments.settle(self.left(), reserved);
        Ok(())
    }

    /// Fills in the headers of a run, and writes it: in one piece, where it is short and fits.
    fn append_run(&mut self, kind: RecordKind, run: &mut Run) -> Result<()> {
        let (mut from, mut to) = (0, 0);
        while to < run.bytes.len() {
            let placed = Placed::read(&run.bytes[to..]);
            if !self.make_room(to - from, placed.len) {
                self.write(&run.bytes[from..to])?;
                from = to;
                if !mutant!("no-sync-at-segment-end") {
                    self.sync()?;
                }
                self.next_segment()?;
            }
            let header = self.header(kind, &placed, self.at + (to - from) as u64);
            run.bytes[to..][..RECORD_HEADER].as_chunks_mut().0.copy_from_slice(&header);
            to += placed.len;
            self.last_ts = placed.ts;
            if to - from >= CHUNK {
                self.write(&run.bytes[from..to])?;
                from = to;
            }
        }
        self.write(&run.bytes[from..to])
    }

    /// Goes to the next block if all before is synced; whether so many bytes more fit into the segment,
    /// behind those that are ready to be written.
    fn make_room(&mut self, ready: usize, len: usize) -> bool {
        // What a sync has covered is never written again, not even a part of its sector.
        let synced = self.unsynced == 0 && ready == 0;
        let at = if synced { align_up(self.at) } else { self.at };
        let fits = at + ready as u64 + len as u64 <= self.segment.records_end();
        if fits {
            self.at = at;
        }
        fits
    }

    fn header(&self, kind: RecordKind, placed: &Placed, at: u64) -> [[u8; 8]; RECORD_HEADER / 8] {
        let body_len = u32::try_from(placed.len - RECORD_HEADER).unwrap_or(u32::MAX); // admission refused larger ones
        let (body_checksum, commit_ts, durable) = (placed.body_checksum, placed.ts, self.durable);
        RecordHeader { kind, body_len, body_checksum, commit_ts, durable }
            .encode_seeded(self.shared_seed, self.segment.lsn(at))
    }

    /// Makes everything that was appended durable.
    pub fn sync(&mut self) -> Result<()> {
        if self.unsynced == 0 {
            return Ok(());
        }
        let name = || segment_name(self.segment.segment);
        let mut synced = self.file.sync().map_err(|error| WalError::io("syncing", &name())(error));
        if mutant!("sync-is-retried") && synced.is_err() {
            synced = self.file.sync().map_err(|error| WalError::io("syncing", &name())(error));
        }
        synced?;
        self.unsynced = 0;
        self.durable = self.segment.lsn(self.at);
        Ok(())
    }

    /// Writes the marker of a clean close: everything before it is known to be on disk.
    pub fn mark(&mut self) -> Result<()> {
        self.sync()?;
        let mut batch = Batch::default();
        batch.push(self.last_ts, &mut BodyWriter::default().finish(), &mut Vec::new());
        batch.runs.iter_mut().try_for_each(|run| self.append_run(RecordKind::Marker, run))?;
        self.sync()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = write_all_at(&*self.file, bytes, self.at);
        written.map_err(|error| WalError::io("writing", &segment_name(self.segment.segment))(error))?;
        self.at += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        Ok(())
    }

    fn next_segment(&mut self) -> Result<()> {
        let spare = self.segments.take_spare()?;
        let file = self.vfs.open(&spare, OpenMode::Write).map_err(WalError::io("opening", &spare))?;
        let size = file.len().map_err(WalError::io("measuring", &spare))?;
        let header = SegmentHeader {
            segment: self.segment.segment + 1,
            start: self.segment.lsn(self.segment.size),
            size,
            previous_end: self.segment.lsn(self.at),
            ..self.segment
        };
        write_all_at(&*file, &header.encode(), 0).map_err(WalError::io("writing", &spare))?;
        // Before it has its name: so a segment without a header was damaged, whatever cut the power.
        file.sync().map_err(WalError::io("syncing", &spare))?;
        let name = segment_name(header.segment);
        self.vfs.rename(&spare, &name).map_err(WalError::io("renaming", &spare))?;
        self.vfs.sync_dir().map_err(WalError::io("syncing the directory of", &name))?;
        if !mutant!("no-successor-note") {
            // Before anything in the new one is acknowledged, and before this one can be recycled.
            note_successor(&*self.file, &self.segment)?;
        }
        self.segments.close(self.segment.segment, self.last_ts);
        self.file = file;
        self.segment = header;
        self.shared_seed = header.shared_seed();
        self.at = BLOCK;
        self.unsynced = 0;
        self.durable = header.lsn(BLOCK);
        self.segments.set_left(header.records_end().saturating_sub(BLOCK));
        Ok(())
    }
}

/// Writes into a segment that another one follows, which must be on disk, name and all.
pub(crate) fn note_successor(file: &dyn VfsFile, segment: &SegmentHeader) -> Result<()> {
    let name = || segment_name(segment.segment);
    let written = write_all_at(file, &segment.successor_note(), segment.records_end());
    written.map_err(|error| WalError::io("writing", &name())(error))?;
    file.sync().map_err(|error| WalError::io("syncing", &name())(error))
}
