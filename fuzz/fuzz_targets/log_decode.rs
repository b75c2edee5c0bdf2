//! A segment's bytes: any, and records with right checksums whose fields are any.

#![no_main]

use arbitrary::Arbitrary;
use isolde_types::Ts;
use isolde_wal::{BLOCK, BodyWriter, Lsn, Operations, RecordHeader, RecordKind, SegmentBytes, SegmentHeader};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    header: Header,
    pieces: Vec<Piece>,
    ends_at: Option<u16>,
    reaches: u16,
    flips: Vec<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
enum Header {
    Small { epoch: u8, segment: u8 },
    Any([u64; 6]),
    Raw(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Piece {
    Record { align: bool, is_marker: bool, ts: Number, durable: Number, len: Option<u32>, body: Body },
    Raw(Vec<u8>),
    Zeros(u16),
}

#[derive(Arbitrary, Debug)]
enum Number {
    /// What a log would have there, or a little less or more.
    Near(i8),
    Any(u64),
}

#[derive(Arbitrary, Debug)]
enum Body {
    Operations(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Raw(Vec<u8>),
}

impl Number {
    fn near(&self, expected: u64) -> u64 {
        match self {
            Number::Near(by) => expected.saturating_add_signed(i64::from(*by)),
            Number::Any(number) => *number,
        }
    }
}

impl Header {
    fn bytes(&self) -> Vec<u8> {
        let header = match self {
            Header::Raw(bytes) => {
                let mut bytes = bytes.clone();
                bytes.resize(BLOCK as usize, 0);
                return bytes;
            }
            Header::Small { epoch, segment } => SegmentHeader {
                database: 1,
                epoch: u64::from(*epoch),
                segment: u64::from(*segment),
                start: Lsn(u64::from(*segment) << 16),
                size: 1 << 16,
                previous_end: Lsn(0),
            },
            Header::Any([database, epoch, segment, start, size, end]) => SegmentHeader {
                database: *database,
                epoch: *epoch,
                segment: *segment,
                start: Lsn(*start),
                size: *size,
                previous_end: Lsn(*end),
            },
        };
        header.encode()
    }
}

fn put(bytes: &mut Vec<u8>, header: &SegmentHeader, piece: &Piece, number: u64) {
    let (align, is_marker, ts, durable, len, body) = match piece {
        Piece::Record { align, is_marker, ts, durable, len, body } => (align, is_marker, ts, durable, len, body),
        Piece::Raw(raw) => return bytes.extend_from_slice(raw),
        Piece::Zeros(count) => return bytes.resize(bytes.len() + usize::from(*count), 0),
    };
    if *align {
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    }
    let body = match body {
        Body::Raw(raw) => raw.clone(),
        Body::Operations(operations) => {
            let mut writer = BodyWriter::default();
            operations.iter().for_each(|(key, value)| writer.push(key, value.as_deref()));
            writer.operations().to_vec()
        }
    };
    let at = header.lsn(bytes.len() as u64);
    let record = RecordHeader {
        kind: if *is_marker { RecordKind::Marker } else { RecordKind::Commit },
        body_len: len.unwrap_or(body.len() as u32),
        body_checksum: crc32c::crc32c(&body),
        commit_ts: Ts(ts.near(number)),
        durable: Lsn(durable.near(at.0)),
    };
    bytes.extend_from_slice(&record.encode(header, at));
    bytes.extend_from_slice(&body);
}

fuzz_target!(|input: Input| {
    let mut bytes = input.header.bytes();
    if let Ok(Some(header)) = SegmentHeader::decode("log", &bytes) {
        for (number, piece) in input.pieces.iter().enumerate() {
            put(&mut bytes, &header, piece, number as u64 + 1);
        }
    }
    for (at, flip) in &input.flips {
        if let Some(byte) = bytes.get_mut(usize::from(*at)) {
            *byte ^= flip;
        }
    }
    let Ok(Some(header)) = SegmentHeader::decode("log", &bytes) else { return };
    let mut encoded = header.encode();
    encoded.truncate(60);
    assert!(bytes.starts_with(&encoded), "a header encodes to what it was decoded from");
    let ends_at = input.ends_at.map(|offset| header.lsn(u64::from(offset)));
    let segment = SegmentBytes { name: "log", header, bytes: &bytes };
    let Ok(scanned) = segment.scan(ends_at, header.lsn(u64::from(input.reaches))) else { return };
    let mut last = BLOCK as usize;
    for found in &scanned.records {
        let start = (found.at.0 - header.start.0) as usize;
        assert!(start == last || start == last.next_multiple_of(BLOCK as usize), "records follow each other");
        last = found.body.end;
        let encoded = found.header.encode(&header, found.at);
        assert!(bytes[start..].starts_with(&encoded), "a record encodes to what it was decoded from");
        let body = &bytes[found.body.clone()];
        assert_eq!(start + encoded.len() + body.len(), found.body.end);
        if let Ok(operations) = Operations::new(body).collect::<Result<Vec<_>, _>>() {
            let mut again = BodyWriter::default();
            operations.iter().for_each(|(key, value)| again.push(key, *value));
            assert_eq!(again.operations(), body, "a body encodes to what it was decoded from");
        }
    }
    assert_eq!(scanned.end, header.lsn(last as u64));
});
