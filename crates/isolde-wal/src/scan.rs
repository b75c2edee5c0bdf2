//! Reading a segment back, and telling a torn tail from rot.
//!
//! Both look alike: a record that is none. But every record says up to where the log was on disk when
//! it was written, and so does the next segment by being there. If anything later says that the bad
//! place was on disk, something acknowledged has rotted: [`Corruption`](WalError::Corruption). Else a
//! power cut caught what nobody had been promised: the log ends there.
//!
//! ```text
//! record 1 | record 2 | ?????? | record 4, "durable up to the end of 2"      torn: ends after 2
//! record 1 | record 2 | ?????? | record 4, "durable up to the end of 3"      rot in 3
//! ```
//!
//! What remains: rot in the very last batch, with nothing after it, looks like a torn tail. A clean
//! close and every checkpoint write down how far the log reached.
//!
//! Source: protocol-aware recovery, Alagappan et al., FAST 2018, made local.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::ops::Range;

use isolde_types::{Ts, mutant};

use crate::error::{Result, WalError};
use crate::format::{BLOCK, Lsn, RECORD_HEADER, RecordHeader, RecordKind, SegmentHeader, align_up};

/// A record that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its position.
    pub at: Lsn,
    /// What it says of itself.
    pub header: RecordHeader,
    /// Where its body stands in the segment's bytes.
    pub body: Range<usize>,
}

/// A segment's records.
#[derive(Debug)]
pub struct Scanned {
    /// In their order.
    pub records: Vec<Found>,
    /// After the last record.
    pub end: Lsn,
    /// The records say that the log was on disk up to here.
    pub durable: Lsn,
}

/// A segment in memory.
#[derive(Clone, Copy, Debug)]
pub struct SegmentBytes<'b> {
    /// Its file, for messages.
    pub name: &'b str,
    /// What its first block says.
    pub header: SegmentHeader,
    /// All of it, the header's block included.
    pub bytes: &'b [u8],
}

impl SegmentBytes<'_> {
    /// All records of the segment.
    ///
    /// `ends_at` is where the next segment says that this one ends; without it this is the last one, and
    /// `reaches` is what the log is known to have reached.
    ///
    /// # Errors
    /// `Corruption`.
    pub fn scan(&self, ends_at: Option<Lsn>, reaches: Lsn) -> Result<Scanned> {
        let mut scanned =
            Scanned { records: Vec::new(), end: self.header.lsn(BLOCK), durable: self.header.previous_end };
        let mut last = Ts::ZERO;
        while ends_at != Some(scanned.end) {
            let Some(found) = self.next_after(scanned.end)? else { break };
            scanned.durable = scanned.durable.max(found.header.durable);
            scanned.end = self.header.lsn(found.body.end as u64);
            if found.header.kind == RecordKind::Commit {
                if found.header.commit_ts <= last {
                    return Err(self.corrupt(found.at, "commits are out of order"));
                }
                last = found.header.commit_ts;
            }
            scanned.records.push(found);
        }
        self.check_end(&scanned, ends_at, reaches)?;
        Ok(scanned)
    }

    fn check_end(&self, scanned: &Scanned, ends_at: Option<Lsn>, reaches: Lsn) -> Result<()> {
        let end = scanned.end;
        let rotten = match ends_at {
            Some(ends_at) => end != ends_at,
            None => end < reaches.max(scanned.durable) || self.proof_after(end).is_some(),
        };
        if rotten && !mutant!("recovery-stops-at-first-bad-record") {
            return Err(self.corrupt(end, "a record that was on disk is damaged"));
        }
        // Syncs end where records do. Where the next open must stop there has to be such a place.
        let known = reaches.max(scanned.durable);
        let within = ends_at.is_none() && self.header.lsn(BLOCK) < known && known < end;
        if within && !scanned.records.iter().any(|found| self.header.lsn(found.body.end as u64) == known) {
            return Err(self.corrupt(known, "it is said to have been on disk up to the middle of a record"));
        }
        Ok(())
    }

    /// The record that follows `end`: there, or at the next block if what is before was synced.
    ///
    /// The first of a batch says just that. One of the same batch that happens to begin on the block says
    /// less: then those between are torn, and the log ends before them.
    fn next_after(&self, end: Lsn) -> Result<Option<Found>> {
        if let Some(found) = self.record_at(end) {
            return Ok(Some(found));
        }
        let block = self.block_after(end);
        if block == end {
            return Ok(None);
        }
        match self.record_at(block) {
            Some(found) if found.header.durable > end => Err(self.corrupt(end, "a record that was on disk is damaged")),
            Some(found) if found.header.durable < end && !mutant!("batch-goes-on-behind-a-hole") => Ok(None),
            other => Ok(other),
        }
    }

    fn block_after(&self, end: Lsn) -> Lsn {
        self.header.lsn(align_up(end.0.saturating_sub(self.header.start.0)))
    }

    fn header_at(&self, at: Lsn) -> Option<(RecordHeader, usize)> {
        let offset = usize::try_from(at.0.checked_sub(self.header.start.0)?).ok()?;
        let header = RecordHeader::decode(&self.header, at, self.bytes.get(offset..)?)?;
        Some((header, offset.checked_add(RECORD_HEADER)?))
    }

    fn record_at(&self, at: Lsn) -> Option<Found> {
        let (header, start) = self.header_at(at)?;
        let body = start..start.checked_add(usize::try_from(header.body_len).ok()?)?;
        let bytes = self.bytes.get(body.clone())?;
        let right = crc32c::crc32c(bytes) == header.body_checksum || mutant!("body-checksum-not-checked");
        right.then_some(Found { at, header, body })
    }

    /// A record anywhere later that says that `end` was on disk. Records of later batches begin on
    /// blocks, so only these are looked at.
    fn proof_after(&self, end: Lsn) -> Option<Lsn> {
        let mut at = self.block_after(end);
        while at.0 < self.header.start.0.saturating_add(self.bytes.len() as u64) {
            if self.header_at(at).is_some_and(|(header, _)| header.durable > end) {
                return Some(at);
            }
            at = Lsn(at.0.saturating_add(BLOCK));
        }
        None
    }

    /// Whether records of this segment stand after `end` where the scan ended: parts of batches that a
    /// power cut caught. Such a part whose every header is gone leaves no trace.
    pub fn is_torn_after(&self, end: Lsn) -> bool {
        let mut at = self.block_after(end);
        let mut torn = self.header_at(end).is_some();
        while !torn && at.0 < self.header.start.0.saturating_add(self.bytes.len() as u64) {
            torn = self.header_at(at).is_some();
            at = Lsn(at.0.saturating_add(BLOCK));
        }
        torn
    }

    fn corrupt(&self, at: Lsn, what: &'static str) -> WalError {
        WalError::corrupt(self.name, at.0.saturating_sub(self.header.start.0), what)
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader =
        SegmentHeader { database: 1, epoch: 1, segment: 1, start: Lsn(0), size: 64 << 10, previous_end: Lsn(0) };

    /// A segment of records at these offsets, each with a body of this length and this durable LSN.
    fn segment(records: &[(u64, usize, u64)]) -> Vec<u8> {
        let mut bytes = HEADER.encode();
        bytes.resize(HEADER.size as usize, 0);
        for (index, (at, body_len, durable)) in records.iter().enumerate() {
            let body = vec![7; *body_len];
            let header = RecordHeader {
                kind: RecordKind::Commit,
                body_len: *body_len as u32,
                body_checksum: crc32c::crc32c(&body),
                commit_ts: Ts(index as u64 + 1),
                durable: Lsn(*durable),
            };
            let mut record = Vec::new();
            record.extend_from_slice(&header.encode(&HEADER, Lsn(*at)));
            record.extend_from_slice(&body);
            bytes[*at as usize..*at as usize + record.len()].copy_from_slice(&record);
        }
        bytes
    }

    fn scan(bytes: &[u8], ends_at: Option<u64>, reaches: u64) -> Result<(usize, u64)> {
        let scanned = SegmentBytes { name: "log", header: HEADER, bytes }.scan(ends_at.map(Lsn), Lsn(reaches))?;
        Ok((scanned.records.len(), scanned.end.0))
    }

    // Two records of one batch at 4096 and 4228, one of the next batch at 8192.
    const BATCHES: &[(u64, usize, u64)] = &[(4096, 100, 0), (4228, 100, 0), (8192, 100, 4360)];

    #[test]
    fn records_follow_each_other_or_begin_on_a_block() {
        assert_eq!(scan(&segment(BATCHES), None, 0).unwrap(), (3, 8324));
        assert_eq!(scan(&segment(BATCHES), Some(4360), 0).unwrap(), (2, 4360), "it ends where the next one says");
        assert_eq!(scan(&segment(&[]), None, 0).unwrap(), (0, 4096));
    }

    #[test]
    fn a_bad_record_that_nobody_was_promised_ends_the_log() {
        let mut bytes = segment(BATCHES);
        bytes[8300] ^= 1;
        assert_eq!(scan(&bytes, None, 0).unwrap(), (2, 4360));
        let mut bytes = segment(&[(4096, 100, 0), (4228, 100, 0)]);
        bytes[4100] ^= 1;
        assert_eq!(scan(&bytes, None, 0).unwrap(), (0, 4096), "a hole, and a valid record after it");
    }

    #[test]
    fn a_record_of_the_same_batch_at_a_block_does_not_hide_a_hole_before_it() {
        // One batch; the second record ends where a block does.
        let batch = [(4096, 100, 0), (4228, 3932, 0), (8192, 100, 0), (8324, 100, 0)];
        assert_eq!(scan(&segment(&batch), None, 0).unwrap(), (4, 8456));
        let mut bytes = segment(&batch);
        bytes[4300] ^= 1;
        assert_eq!(scan(&bytes, None, 0).unwrap(), (1, 4228));
        assert!(scan(&bytes, Some(8456), 0).is_err(), "the next segment says that it was on disk");
        assert!(scan(&bytes, None, 8456).is_err(), "the manifest says so");
    }

    #[test]
    fn a_sync_that_ended_within_a_record_is_refused() {
        let lies = segment(&[(4096, 100, 0), (4228, 100, 4300)]);
        assert!(scan(&lies, None, 0).is_err(), "the next open would have to end there");
        assert!(scan(&segment(&[(4096, 100, 0), (4228, 100, 4228)]), None, 0).is_ok());
        assert!(scan(&segment(&BATCHES[..2]), None, 4300).is_err(), "the manifest says so");
    }

    #[test]
    fn a_bad_record_that_was_on_disk_is_rot() {
        for byte in 4096..4360 {
            let mut bytes = segment(BATCHES);
            bytes[byte] ^= 0x10;
            assert!(matches!(scan(&bytes, None, 0), Err(WalError::Corruption { .. })), "byte {byte}");
        }
        let mut bytes = segment(BATCHES);
        bytes[8300] ^= 1;
        assert!(scan(&bytes, Some(8324), 0).is_err(), "the next segment says so");
        assert!(scan(&bytes, None, 8324).is_err(), "the manifest says so");
    }
}
