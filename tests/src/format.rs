//! A second reader of the database's files, written from `docs/format.md` and not from the library.
//!
//! It reads undamaged files, says where everything stands, and panics on anything else.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::memory::Files;

/// The rows of a state.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A record of the log, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The segment's file.
    pub file: String,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
    /// Its position in the log.
    pub lsn: u64,
    /// Its commit; `None` for a marker.
    pub commit_ts: Option<u64>,
    /// The log was on disk up to here.
    pub durable: u64,
    /// What it wrote.
    pub operations: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The database's number.
    pub database: u64,
    /// An epoch that was begun.
    pub epoch: u64,
    /// The checkpoint's number.
    pub checkpoint: u64,
    /// The first segment that is needed.
    pub replay_from: u64,
    /// The log reaches to here.
    pub log_end: u64,
    /// First key, time and number of rows of each partition.
    pub partitions: Vec<(Vec<u8>, u64, u64)>,
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn take(&mut self, len: usize) -> &'b [u8] {
        self.at += len;
        &self.bytes[self.at - len..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn string(&mut self) -> Vec<u8> {
        let len = self.varint() as usize;
        self.take(len).to_vec()
    }

    fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }
}

fn seeded(numbers: [u64; 4]) -> u32 {
    numbers.iter().fold(0, |seed, number| crc32c::crc32c_append(seed, &number.to_le_bytes()))
}

/// Reads the manifest.
///
/// # Panics
/// If it is damaged or missing.
#[must_use]
pub fn manifest(files: &Files) -> Manifest {
    let (bytes, checksum) = files["MANIFEST"].split_last_chunk::<4>().unwrap();
    assert_eq!(crc32c::crc32c(bytes).to_le_bytes(), *checksum);
    let mut reader = Reader { bytes, at: 0 };
    assert_eq!((reader.take(8), reader.u32()), (&b"ISOLDMAN"[..], 1));
    let mut manifest = Manifest {
        database: reader.u64(),
        epoch: reader.u64(),
        checkpoint: reader.u64(),
        replay_from: reader.u64(),
        log_end: reader.u64(),
        partitions: Vec::new(),
    };
    for _ in 0..reader.varint() {
        manifest.partitions.push((reader.string(), reader.varint(), reader.varint()));
    }
    assert!(reader.is_done());
    manifest
}

/// Reads the rows of the checkpoint, each with the time of its partition.
///
/// # Panics
/// If a file is damaged or missing.
#[must_use]
pub fn checkpoint(files: &Files, manifest: &Manifest) -> Rows {
    let mut rows = Rows::new();
    for (index, (low, _, expected)) in manifest.partitions.iter().enumerate() {
        let before = rows.len() as u64;
        let name = format!("ckpt-{:016x}-{index:06x}", manifest.checkpoint);
        let mut reader = Reader { bytes: &files[&name], at: 0 };
        for block in 0.. {
            let header = &reader.bytes[reader.at..][..8];
            let (len, count, checksum) = (reader.u32(), reader.u32(), reader.u32());
            let len = if count == 0 { 8 } else { len as usize };
            let body = reader.take(len);
            let seed = seeded([manifest.database, manifest.checkpoint, index as u64, block]);
            assert_eq!(crc32c::crc32c_append(crc32c::crc32c_append(seed, header), body), checksum, "{name}");
            let mut body = Reader { bytes: body, at: 0 };
            if count == 0 {
                assert_eq!((body.u64(), *expected), (rows.len() as u64 - before, rows.len() as u64 - before));
                break;
            }
            for _ in 0..count {
                let (key, value) = (body.string(), body.string());
                assert!(key >= *low);
                rows.insert(key, value);
            }
            assert!(body.is_done());
        }
        assert!(reader.is_done());
    }
    rows
}

/// Reads all records of the log from the segment on that the manifest names, up to the first that is none.
///
/// # Panics
/// If a segment's header is damaged, or a segment is missing.
#[must_use]
pub fn log(files: &Files, manifest: &Manifest) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for segment in manifest.replay_from.. {
        let name = format!("log-{segment:016x}");
        let Some(bytes) = files.get(&name) else {
            assert!(segment > manifest.replay_from, "{name} is missing");
            break;
        };
        let mut header = Reader { bytes, at: 0 };
        assert_eq!((header.take(8), header.u32()), (&b"ISOLDLOG"[..], 1));
        let (database, epoch, number) = (header.u64(), header.u64(), header.u64());
        let (start, size, previous_end) = (header.u64(), header.u64(), header.u64());
        header.take(8);
        assert_eq!(header.u32(), crc32c::crc32c(&bytes[..68]));
        assert_eq!((database, number, size), (manifest.database, segment, bytes.len() as u64));
        // What the segment before holds beyond its end was written again here.
        records.retain(|record| record.lsn < previous_end);
        let mut at = 4096_usize;
        loop {
            let seed = |at: usize| seeded([database, epoch, segment, start + at as u64]);
            let gap_ends = |found: &Record| found.durable == start + at as u64;
            let behind_gap = || record(bytes, at.next_multiple_of(4096), &seed).filter(gap_ends);
            let found = record(bytes, at, &seed).or_else(behind_gap);
            let Some(found) = found else { break };
            at = found.bytes.end;
            records.push(Record { file: name.clone(), lsn: start + found.bytes.start as u64, ..found });
        }
    }
    records
}

fn record(bytes: &[u8], at: usize, seed: &dyn Fn(usize) -> u32) -> Option<Record> {
    let header = bytes.get(at..at + 32)?;
    let mut reader = Reader { bytes: header, at: 0 };
    if reader.u32() != crc32c::crc32c_append(seed(at), &header[4..]) {
        return None;
    }
    let (len, checksum, kind) = (reader.u32() as usize, reader.u32(), reader.u32());
    let (commit_ts, durable) = (reader.u64(), reader.u64());
    let body = bytes.get(at + 32..at + 32 + len).filter(|body| crc32c::crc32c(body) == checksum)?;
    let mut operations = Vec::new();
    let mut body = Reader { bytes: body, at: 0 };
    while !body.is_done() {
        let (value_len, key_len) = (body.varint() as usize, body.varint() as usize);
        let key = body.take(key_len).to_vec();
        operations.push((key, value_len.checked_sub(1).map(|len| body.take(len).to_vec())));
    }
    let commit_ts = match kind {
        1 => Some(commit_ts),
        2 => None,
        kind => panic!("a record of kind {kind}"),
    };
    Some(Record { file: String::new(), bytes: at..at + 32 + len, lsn: 0, commit_ts, durable, operations })
}

/// The state that undamaged files hold: the checkpoint, and what the log has that is newer.
///
/// # Panics
/// If they are damaged.
#[must_use]
pub fn rows(files: &Files) -> Rows {
    let manifest = manifest(files);
    let mut rows = checkpoint(files, &manifest);
    for record in log(files, &manifest) {
        let Some(commit_ts) = record.commit_ts else { continue };
        for (key, value) in record.operations {
            let partition = manifest.partitions.iter().rev().find(|(low, _, _)| *low <= key);
            if partition.is_some_and(|(_, ts, _)| commit_ts <= *ts) {
                continue;
            }
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }
    rows
}
