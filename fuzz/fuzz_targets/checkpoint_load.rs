//! A checkpoint's files: blocks with right checksums whose lengths, counts and rows are any.

#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use isolde_fuzz::{open_and_verify, seed};
use isolde_tests::memory::Files;
use isolde_types::Ts;
use isolde_wal::{BLOCK, Lsn, Manifest, Partition, SegmentHeader, partition_name, segment_name};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    parts: Vec<Part>,
    flips: Vec<(u8, u16, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Part {
    low: Vec<u8>,
    ts: u64,
    rows: Option<u64>,
    blocks: Vec<Block>,
    last: Option<Vec<u8>>,
    after: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Block {
    rows: Rows,
    len: Option<u32>,
    count: Option<u32>,
}

#[derive(Arbitrary, Debug)]
enum Rows {
    Some(Vec<(Vec<u8>, Vec<u8>)>),
    Raw(Vec<u8>),
}

const DATABASE: u64 = 1;

fn put(out: &mut Vec<u8>, body: &[u8], len: u32, count: u32, partition: usize, block: usize) {
    let mut header = len.to_le_bytes().to_vec();
    header.extend_from_slice(&count.to_le_bytes());
    let seeded = crc32c::crc32c_append(seed([DATABASE, 1, partition as u64, block as u64]), &header);
    out.extend_from_slice(&header);
    out.extend_from_slice(&crc32c::crc32c_append(seeded, body).to_le_bytes());
    out.extend_from_slice(body);
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The file, and how many rows it has.
fn file(part: &Part, partition: usize) -> (Vec<u8>, u64) {
    let (mut out, mut total) = (Vec::new(), 0);
    for (index, block) in part.blocks.iter().enumerate() {
        let mut body = Vec::new();
        let rows = match &block.rows {
            Rows::Raw(raw) => {
                body.extend_from_slice(raw);
                1
            }
            Rows::Some(rows) => {
                for part in rows.iter().flat_map(|(key, value)| [key, value]) {
                    varint(&mut body, part.len());
                    body.extend_from_slice(part);
                }
                rows.len() as u32
            }
        };
        let count = block.count.unwrap_or(rows);
        total += u64::from(count);
        put(&mut out, &body, block.len.unwrap_or(body.len() as u32), count, partition, index);
    }
    let last = part.last.clone().unwrap_or(total.to_le_bytes().to_vec());
    put(&mut out, &last, 0, 0, partition, part.blocks.len());
    out.extend_from_slice(&part.after);
    (out, total)
}

fuzz_target!(|input: Input| {
    let mut files = Files::new();
    let mut partitions = Vec::new();
    for (index, part) in input.parts.iter().take(4).enumerate() {
        let (mut bytes, rows) = file(part, index);
        for (which, at, flip) in input.flips.iter().filter(|(which, ..)| usize::from(*which) == index) {
            let _ = which;
            if let Some(byte) = bytes.get_mut(usize::from(*at)) {
                *byte ^= flip;
            }
        }
        files.insert(partition_name(1, index), Arc::new(bytes));
        let low = if index == 0 { Vec::new() } else { part.low.clone() };
        partitions.push(Partition { low: low.into(), ts: Ts(part.ts), rows: part.rows.unwrap_or(rows) });
    }
    let manifest =
        Manifest { database: DATABASE, epoch: 1, checkpoint: 1, replay_from: 1, log_end: Lsn(0), partitions };
    files.insert("MANIFEST".to_owned(), Arc::new(manifest.encode()));
    let header = SegmentHeader {
        database: DATABASE,
        epoch: 1,
        segment: 1,
        start: Lsn(0),
        size: 2 * BLOCK,
        previous_end: Lsn(0),
    };
    let mut segment = header.encode();
    segment.resize(2 * BLOCK as usize, 0);
    files.insert(segment_name(1), Arc::new(segment));
    open_and_verify(&files);
});
