//! A directory: that of a real database with any changes, with their checksums made right or not; and
//! files of any name and any bytes.

#![no_main]

use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use isolde_fuzz::{open_and_verify, recover_and_verify, sealed, seed};
use isolde_tests::format::{self, Record};
use isolde_tests::images::{Image, images};
use isolde_tests::memory::Files;
use libfuzzer_sys::fuzz_target;

/// The databases, and where their records stand.
static BASES: LazyLock<Vec<(Image, Vec<Record>)>> = LazyLock::new(|| {
    let with_records = |image: Image| {
        let records = format::log(&image.files, &format::manifest(&image.files));
        (image, records)
    };
    images().into_iter().map(with_records).collect()
});

const NAMES: [&str; 14] = [
    "LOCK",
    "MANIFEST",
    "MANIFEST.new",
    "new-log",
    "log-0000000000000000",
    "log-0000000000000001",
    "log-0000000000000002",
    "log-0000000000000008",
    "log-ffffffffffffffff",
    "spare-0000000000000001",
    "spare-ffffffffffffffff",
    "ckpt-0000000000000001-000000",
    "ckpt-ffffffffffffffff-ffffff",
    "letter.txt",
];

#[derive(Arbitrary, Debug)]
struct Input {
    base: u8,
    with_database: bool,
    edits: Vec<Edit>,
}

#[derive(Arbitrary, Debug)]
enum Edit {
    /// Bytes anywhere.
    Put {
        file: u8,
        at: u32,
        bytes: Vec<u8>,
    },
    /// Fields of a segment's header, with its checksum.
    Header {
        file: u8,
        field: u8,
        value: u64,
    },
    /// Fields of a record, with its checksums.
    Record {
        record: u8,
        field: u8,
        value: u64,
    },
    /// A record's body, with its checksums.
    Body {
        record: u8,
        at: u16,
        bytes: Vec<u8>,
    },
    /// Fields of the manifest, with its checksum.
    Manifest {
        at: u8,
        bytes: Vec<u8>,
    },
    Cut {
        file: u8,
        len: u32,
    },
    Grow {
        file: u8,
        by: u16,
    },
    Swap {
        a: u8,
        b: u8,
    },
    Rename {
        file: u8,
        name: u8,
    },
    Add {
        name: u8,
        bytes: Vec<u8>,
    },
    Remove {
        file: u8,
    },
}

fn name(files: &Files, file: u8) -> Option<String> {
    let names: Vec<&String> = files.keys().collect();
    names.get(usize::from(file) % names.len().max(1)).map(|name| (*name).clone())
}

fn change(files: &mut Files, name: Option<String>, with: impl FnOnce(&mut Vec<u8>)) {
    if let Some(bytes) = name.and_then(|name| files.get_mut(&name)) {
        with(Arc::make_mut(bytes));
    }
}

fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    for (target, byte) in target.iter_mut().skip(at).zip(bytes) {
        *target = *byte;
    }
}

/// Makes a record's checksums right for what the segment's header says and its fields say.
fn seal_record(bytes: &mut [u8], at: usize) {
    let number =
        |bytes: &[u8], at: usize| bytes.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()));
    let (database, epoch, segment, start) =
        (number(bytes, 12), number(bytes, 20), number(bytes, 28), number(bytes, 36));
    let len = (number(bytes, at + 4) & 0xffff_ffff) as usize;
    if let Some(body) = bytes.get(at + 32..).and_then(|rest| rest.get(..len)) {
        let checksum = crc32c::crc32c(body);
        put(bytes, at + 8, &checksum.to_le_bytes());
    }
    let seed = seed([database, epoch, segment, start.wrapping_add(at as u64)]);
    if let Some(fields) = bytes.get(at + 4..at + 32) {
        let checksum = crc32c::crc32c_append(seed, fields);
        put(bytes, at, &checksum.to_le_bytes());
    }
}

fn apply(edit: &Edit, files: &mut Files, records: &[Record]) {
    let record = |number: u8| &records[usize::from(number) % records.len()];
    match edit {
        Edit::Put { file, at, bytes } => change(files, name(files, *file), |target| put(target, *at as usize, bytes)),
        Edit::Header { file, field, value } => change(files, name(files, *file), |target| {
            put(target, 12 + usize::from(*field % 6) * 8, &value.to_le_bytes());
            let checksum = target.get(..68).map_or(0, crc32c::crc32c);
            put(target, 68, &checksum.to_le_bytes());
        }),
        Edit::Record { record: number, field, value } => {
            let record = record(*number);
            change(files, Some(record.file.clone()), |target| {
                let at = record.bytes.start;
                match field % 4 {
                    0 => put(target, at + 4, &(*value as u32).to_le_bytes()),
                    1 => put(target, at + 12, &(*value as u32).to_le_bytes()),
                    2 => put(target, at + 16, &value.to_le_bytes()),
                    _ => put(target, at + 24, &value.to_le_bytes()),
                }
                seal_record(target, at);
            });
        }
        Edit::Body { record: number, at, bytes } => {
            let record = record(*number);
            change(files, Some(record.file.clone()), |target| {
                let len = record.bytes.len().saturating_sub(32).max(1);
                put(target, record.bytes.start + 32 + usize::from(*at) % len, bytes);
                seal_record(target, record.bytes.start);
            });
        }
        Edit::Manifest { at, bytes } => change(files, Some("MANIFEST".to_owned()), |target| {
            target.truncate(target.len().saturating_sub(4));
            put(target, usize::from(*at), bytes);
            *target = sealed(std::mem::take(target));
        }),
        Edit::Cut { file, len } => change(files, name(files, *file), |target| target.truncate(*len as usize)),
        Edit::Grow { file, by } => change(files, name(files, *file), |target| {
            target.resize(target.len() + usize::from(*by), 0);
        }),
        Edit::Swap { a, b } => {
            if let (Some(a), Some(b)) = (name(files, *a), name(files, *b)) {
                let (left, right) = (files[&a].clone(), files[&b].clone());
                files.insert(a, right);
                files.insert(b, left);
            }
        }
        Edit::Rename { file, name: to } => {
            if let Some(bytes) = name(files, *file).and_then(|name| files.remove(&name)) {
                files.insert(NAMES[usize::from(*to) % NAMES.len()].to_owned(), bytes);
            }
        }
        Edit::Add { name, bytes } => {
            files.insert(NAMES[usize::from(*name) % NAMES.len()].to_owned(), Arc::new(bytes.clone()));
        }
        Edit::Remove { file } => {
            if let Some(name) = name(files, *file) {
                files.remove(&name);
            }
        }
    }
}

fuzz_target!(|input: Input| {
    let nothing = (Files::new(), &[][..]);
    let base = BASES.get(usize::from(input.base) % (BASES.len() + 1));
    let (mut files, records) = base.map_or(nothing, |(image, records)| (image.files.clone(), &records[..]));
    let of_records = |edit: &Edit| matches!(edit, Edit::Record { .. } | Edit::Body { .. });
    for edit in input.edits.iter().filter(|edit| !records.is_empty() || !of_records(edit)) {
        apply(edit, &mut files, records);
    }
    if input.with_database {
        open_and_verify(&files);
    } else {
        let _ = recover_and_verify(&files); // without the database it is faster
    }
});
