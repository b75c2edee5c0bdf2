//! What the bytes of the log mean. `docs/format.md` says the same in words.
//!
//! ```text
//! segment   | header, one block of 4096 bytes | record record ... | record ... (a batch begins on a block)
//! record    | header, 32 bytes                | body: operations                       |
//! ```
//!
//! A record's header has a checksum of its own, seeded by where it stands: database, epoch, segment
//! and LSN. So bytes of a recycled file, of an earlier epoch, or in the wrong place are no records.
//! All numbers are little-endian. Nothing here trusts a byte before its checksum was verified, and
//! nothing allocates by what a length field says.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use isolde_types::{Ts, mutant};

use crate::error::{Result, WalError};

/// The format that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Batches begin at multiples of this, and a segment's header takes one.
pub const BLOCK: u64 = 4096;
/// The bytes before a record's body.
pub const RECORD_HEADER: usize = 32;
const CHECKSUM: usize = size_of::<u32>();

const SEGMENT_MAGIC: [u8; 8] = *b"ISOLDLOG";
const SEGMENT_HEADER: usize = 72;
/// The bytes of a segment's header before its checksum, of which the last have no meaning yet.
const SEGMENT_CHECKED: usize = 68;
const SEGMENT_RESERVED: usize = 8;
const SUCCESSOR_MAGIC: [u8; 8] = *b"ISOLDNXT";
/// The bytes of the note that another segment follows.
pub const SUCCESSOR_NOTE: usize = 12;
/// The bytes of a record's place in its segment.
const PLACE: usize = size_of::<u64>();
/// No position, number or time gets so far. So what comes from a file can be counted on with.
const LIMIT: u64 = 1 << 62;

/// Whether a position, a number or a time in a file can be meant.
pub(crate) const fn is_plausible(number: u64) -> bool {
    number < LIMIT
}

/// A position in the log: bytes since its beginning, through all segments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

/// The next block boundary at or after `offset`.
#[must_use]
pub const fn align_up(offset: u64) -> u64 {
    match offset.checked_next_multiple_of(BLOCK) {
        Some(aligned) => aligned,
        None => u64::MAX,
    }
}

/// Reads numbers off the front of bytes.
pub(crate) struct Fields<'b>(pub &'b [u8]);

impl<'b> Fields<'b> {
    pub fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An unsigned LEB128 number of at most 10 bytes.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // The shortest form alone, so that decoding and encoding gives the same bytes.
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Two of them: mostly both are short.
pub(crate) fn put_varints(out: &mut Vec<u8>, first: u64, second: u64) {
    match (u8::try_from(first), u8::try_from(second)) {
        (Ok(first @ ..0x80), Ok(second @ ..0x80)) => out.extend_from_slice(&[first, second]),
        _ => {
            put_varint(out, first);
            put_varint(out, second);
        }
    }
}

/// What a segment's first block says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Which database it belongs to: a random number given at creation.
    pub database: u64,
    /// Raised at every open.
    pub epoch: u64,
    /// The segment's number.
    pub segment: u64,
    /// The position of its first byte.
    pub start: Lsn,
    /// Its size in bytes, the header's block included.
    pub size: u64,
    /// Where the log ends in the segment before it. Everything up to there was on disk before this
    /// header was written.
    pub previous_end: Lsn,
}

impl SegmentHeader {
    /// The header's block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK as usize);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.database, self.epoch, self.segment, self.start.0, self.size, self.previous_end.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.resize(SEGMENT_CHECKED, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.resize(BLOCK as usize, 0);
        out
    }

    /// Reads a header; `None` where there is none whose checksum is right.
    ///
    /// # Errors
    /// `VersionMismatch` for one of another format.
    pub fn decode(file: &str, bytes: &[u8]) -> Result<Option<SegmentHeader>> {
        let Some(mut fields) = bytes.get(..SEGMENT_HEADER).map(Fields) else { return Ok(None) };
        let checksum = bytes.get(..SEGMENT_CHECKED).map(crc32c::crc32c);
        let mut decode = || {
            let magic: [u8; 8] = fields.array()?;
            let version = fields.u32()?;
            let header = SegmentHeader {
                database: fields.u64()?,
                epoch: fields.u64()?,
                segment: fields.u64()?,
                start: Lsn(fields.u64()?),
                size: fields.u64()?,
                previous_end: Lsn(fields.u64()?),
            };
            let _reserved = fields.take(SEGMENT_RESERVED)?;
            (magic == SEGMENT_MAGIC && fields.u32() == checksum).then_some((version, header))
        };
        match decode() {
            Some((version, _)) if version != VERSION => {
                Err(WalError::VersionMismatch { file: file.into(), found: version, supported: VERSION })
            }
            Some((_, header)) => Ok(header.is_plausible().then_some(header)),
            None => Ok(None),
        }
    }

    fn is_plausible(&self) -> bool {
        let numbers = [self.epoch, self.segment, self.start.0, self.size, self.previous_end.0];
        self.size >= BLOCK && numbers.into_iter().all(is_plausible)
    }

    /// Where records end at the latest: the last block is for the [note](Self::successor_note).
    #[must_use]
    pub fn records_end(&self) -> u64 {
        self.size.saturating_sub(BLOCK)
    }

    /// What is written at [`records_end`](Self::records_end) once the next segment is part of the log, and
    /// is on disk before anything in that one is acknowledged: so a newest segment that is missing is missed.
    #[must_use]
    pub fn successor_note(&self) -> [u8; SUCCESSOR_NOTE] {
        let checksum = crc32c::crc32c_append(self.seed(self.lsn(self.records_end())), &SUCCESSOR_MAGIC);
        let mut note = [0; SUCCESSOR_NOTE];
        let (magic, check) = note.split_at_mut(SUCCESSOR_MAGIC.len());
        magic.copy_from_slice(&SUCCESSOR_MAGIC);
        check.copy_from_slice(&checksum.to_le_bytes());
        note
    }

    /// The seed of the checksums of records at `at`.
    pub(crate) fn seed(&self, at: Lsn) -> u32 {
        crc32c::crc32c_append(self.shared_seed(), &within(at).to_le_bytes())
    }

    /// The part of it that all records of this segment share.
    pub(crate) fn shared_seed(&self) -> u32 {
        let numbers = if mutant!("epoch-left-out-of-seed") {
            [self.database, 0, self.segment]
        } else if mutant!("checksum-excludes-lsn") {
            [self.database, self.epoch, 0]
        } else {
            [self.database, self.epoch, self.segment]
        };
        crc32c::crc32c(numbers.map(u64::to_le_bytes).as_flattened())
    }

    /// The position of a byte of this segment.
    #[must_use]
    pub fn lsn(&self, offset: u64) -> Lsn {
        Lsn(self.start.0.saturating_add(offset))
    }
}

/// What is summed for a header, where loads of whole words need not look at two lines.
#[repr(align(8))]
struct Words([[u8; 8]; 5]);

/// Two numbers behind one another.
fn two(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

/// What tells a record at `at` from the same bytes elsewhere in its segment.
fn within(at: Lsn) -> u64 {
    if mutant!("checksum-excludes-lsn") { 0 } else { at.0 }
}

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// The writes of one transaction.
    Commit,
    /// No writes: it carries a durable LSN, and is written at a clean close.
    Marker,
}

/// What stands before a record's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// What it is.
    pub kind: RecordKind,
    /// The length of the body in bytes.
    pub body_len: u32,
    /// The checksum of the body.
    pub body_checksum: u32,
    /// The commit's place in the order of all.
    pub commit_ts: Ts,
    /// Up to where the log was on disk when this was written.
    pub durable: Lsn,
}

impl RecordHeader {
    /// The header of a record at `at`.
    #[must_use]
    pub fn encode(&self, segment: &SegmentHeader, at: Lsn) -> [u8; RECORD_HEADER] {
        let mut header = [0; RECORD_HEADER];
        header.copy_from_slice(self.encode_seeded(segment.shared_seed(), at).as_flattened());
        header
    }

    /// The same, in a segment of which that is the [`shared_seed`](SegmentHeader::shared_seed).
    pub(crate) fn encode_seeded(&self, shared_seed: u32, at: Lsn) -> [[u8; 8]; RECORD_HEADER / 8] {
        let kind: u32 = match self.kind {
            RecordKind::Commit => 1,
            RecordKind::Marker => 2,
        };
        // The place before the fields, so that one call makes the checksum: a call costs more than the bytes. As words,
        // because a processor waits for what is read in other pieces than it was written in.
        let (ts, durable) = (self.commit_ts.0, self.durable.0);
        let checked = [
            within(at),
            two(self.body_len, self.body_checksum),
            u64::from(kind) | ts << 32,
            ts >> 32 | durable << 32,
            durable >> 32,
        ];
        let checked = Words(checked.map(u64::to_le_bytes));
        let checked = checked.0.as_flattened().split_at(PLACE + RECORD_HEADER - CHECKSUM).0;
        let checksum = crc32c::crc32c_append(shared_seed, checked);
        let words = [two(checksum, self.body_len), two(self.body_checksum, kind), ts, durable];
        words.map(u64::to_le_bytes)
    }

    /// Reads a header at `at`; `None` where no record was written there.
    #[must_use]
    pub fn decode(segment: &SegmentHeader, at: Lsn, bytes: &[u8]) -> Option<RecordHeader> {
        let mut fields = Fields(bytes.get(..RECORD_HEADER)?);
        let checksum = fields.u32()?;
        if checksum != crc32c::crc32c_append(segment.seed(at), fields.0) {
            return None;
        }
        let (body_len, body_checksum) = (fields.u32()?, fields.u32()?);
        let kind = match fields.u32()? {
            1 => RecordKind::Commit,
            2 => RecordKind::Marker,
            _ => return None,
        };
        let commit_ts = Ts(fields.u64()?);
        let durable = Lsn(fields.u64()?);
        if !(is_plausible(commit_ts.0) && is_plausible(durable.0)) {
            return None;
        }
        Some(RecordHeader { kind, body_len, body_checksum, commit_ts, durable })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn segment() -> SegmentHeader {
        SegmentHeader { database: 7, epoch: 3, segment: 5, start: Lsn(1 << 20), size: 1 << 16, previous_end: Lsn(77) }
    }

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_noticed() {
        let bytes = segment().encode();
        assert_eq!(bytes.len() as u64, BLOCK);
        assert_eq!(SegmentHeader::decode("log", &bytes).unwrap(), Some(segment()));
        for bit in 0..SEGMENT_HEADER * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode("log", &broken).unwrap(), None, "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode("log", &bytes[..40]).unwrap(), None);
    }

    #[test]
    fn another_format_is_named() {
        for version in [0, 2] {
            let mut bytes = segment().encode();
            bytes[8] = version;
            let checksum = crc32c::crc32c(&bytes[..SEGMENT_CHECKED]).to_le_bytes();
            bytes[SEGMENT_CHECKED..SEGMENT_HEADER].copy_from_slice(&checksum);
            let error = SegmentHeader::decode("log", &bytes).unwrap_err();
            let WalError::VersionMismatch { found, supported: 1, .. } = error else { panic!("{error}") };
            assert_eq!(found, u32::from(version));
        }
    }

    #[test]
    fn numbers_that_nobody_can_count_on_with_are_no_header() {
        for header in [
            SegmentHeader { epoch: u64::MAX, ..segment() },
            SegmentHeader { segment: u64::MAX, ..segment() },
            SegmentHeader { start: Lsn(u64::MAX - 8192), ..segment() },
            SegmentHeader { size: 0, ..segment() },
            SegmentHeader { previous_end: Lsn(LIMIT), ..segment() },
        ] {
            assert_eq!(SegmentHeader::decode("log", &header.encode()).unwrap(), None, "{header:?}");
        }
    }

    #[test]
    fn a_record_is_one_only_where_it_was_written() {
        let header = RecordHeader {
            kind: RecordKind::Commit,
            body_len: 10,
            body_checksum: 1,
            commit_ts: Ts(9),
            durable: Lsn(4),
        };
        let bytes = header.encode(&segment(), Lsn(4096)).to_vec();
        assert_eq!(RecordHeader::decode(&segment(), Lsn(4096), &bytes), Some(header));
        assert_eq!(RecordHeader::decode(&segment(), Lsn(8192), &bytes), None, "another place");
        for other in [
            SegmentHeader { epoch: 4, ..segment() },
            SegmentHeader { segment: 6, ..segment() },
            SegmentHeader { database: 8, ..segment() },
        ] {
            assert_eq!(RecordHeader::decode(&other, Lsn(4096), &bytes), None, "{other:?}");
        }
        assert_eq!(RecordHeader::decode(&segment(), Lsn(0), &[0; RECORD_HEADER]), None, "zeros are no record");
    }

    #[test]
    fn numbers_of_any_size_come_back_and_only_in_their_shortest_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(Fields(&out).varint(), Some(value));
        }
        assert_eq!(Fields(&[0x80, 0x00]).varint(), None);
        assert_eq!(Fields(&[0xff; 11]).varint(), None);
        assert_eq!(Fields(&[0x80]).varint(), None);
    }
}
