//! Writing the log: one at a time, the leader of the moment.

use isolde_types::sync::Arc;
use isolde_types::{LogBody, Ts, mutant};

use crate::error::{Result, WalError};
use crate::format::{BLOCK, Lsn, RECORD_HEADER, RecordHeader, RecordKind, SegmentHeader, align_up};
use crate::record::record_len;
use crate::segments::{Segments, segment_name};
use crate::vfs::{OpenMode, Vfs, VfsFile, write_all_at};

/// So much is gathered before it is written, whether or not the batch ends.
const CHUNK: usize = 1 << 20;

/// A record that has its place in the order and not yet in the file.
#[derive(Debug)]
pub(crate) struct Placed {
    pub ts: Ts,
    pub body: LogBody,
}

/// See the module.
pub(crate) struct Writer {
    vfs: Arc<dyn Vfs>,
    segments: Arc<Segments>,
    segment: SegmentHeader,
    file: Box<dyn VfsFile>,
    /// The offset in the segment of the next byte; what `buffer` holds comes from here.
    at: u64,
    buffer: Vec<u8>,
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
        Writer { vfs, segments, segment, file, at, buffer: Vec::new(), durable, unsynced: 0, last_ts }
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
        self.at == BLOCK && self.buffer.is_empty()
    }

    /// Appends records and writes them; syncs only where a segment ends.
    pub fn append(&mut self, records: impl IntoIterator<Item = Placed>) -> Result<()> {
        let mut reserved = 0;
        for Placed { ts, body } in records {
            self.make_room(record_len(&body))?;
            self.encode(RecordKind::Commit, ts, &body);
            self.last_ts = ts;
            reserved += body.reserved;
            if self.buffer.len() >= CHUNK {
                self.write()?;
            }
        }
        self.write()?;
        // Only now: what is left in the segment is known again.
        self.segments.release(reserved);
        Ok(())
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
        let nothing = LogBody { checksum: crc32c::crc32c(&[]), ..LogBody::default() };
        self.make_room(RECORD_HEADER)?;
        self.encode(RecordKind::Marker, self.last_ts, &nothing);
        self.write()?;
        self.sync()
    }

    fn encode(&mut self, kind: RecordKind, commit_ts: Ts, body: &LogBody) {
        let at = self.segment.lsn(self.at + self.buffer.len() as u64);
        let body_len = u32::try_from(body.bytes.len()).unwrap_or(u32::MAX); // admission refused larger ones
        let header = RecordHeader { kind, body_len, body_checksum: body.checksum, commit_ts, durable: self.durable };
        header.encode(&self.segment, at, &mut self.buffer);
        self.buffer.extend_from_slice(&body.bytes);
    }

    /// Goes to the next block if what is before was synced, and to the next segment if this is full.
    fn make_room(&mut self, len: usize) -> Result<()> {
        // What a sync has covered is never written again, not even a part of its sector.
        let synced = self.unsynced == 0 && self.buffer.is_empty();
        let at = if synced { align_up(self.at) } else { self.at };
        if at + self.buffer.len() as u64 + len as u64 <= self.segment.records_end() {
            self.at = at;
            return Ok(());
        }
        self.write()?;
        if !mutant!("no-sync-at-segment-end") {
            self.sync()?;
        }
        self.next_segment()
    }

    fn write(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = write_all_at(&*self.file, &self.buffer, self.at);
        written.map_err(|error| WalError::io("writing", &segment_name(self.segment.segment))(error))?;
        self.at += self.buffer.len() as u64;
        self.unsynced += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(CHUNK);
        self.segments.set_left(self.segment.records_end().saturating_sub(align_up(self.at)));
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
