//! Damage to the files of a closed database: each byte, blocks, lengths, whole files.
//!
//! What must come out: a typed error, or a state that the database had, with everything that what was
//! not damaged proves to have been on disk. Never a panic, never another state.
//!
//! `ISOLDE_ROUNDS` says how many values each byte is given; above 1, every byte of padding gets as many,
//! too, and not only each sixteenth.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use isolde::{Db, ErrorKind};
use isolde_tests::format::{self, Record, Rows};
use isolde_tests::images::{Image, SEGMENT, images, recover};
use isolde_tests::memory::{Files, MemoryFs};
use isolde_tests::{rounds, seed};
use isolde_wal::WalError;

/// An image, and where its records stand.
struct Subject {
    image: Image,
    records: Vec<Record>,
    log_end: u64,
}

/// How often each came out.
#[derive(Default, Debug)]
struct Outcomes {
    refused: u64,
    whole: u64,
    shorter: u64,
}

impl Subject {
    fn all() -> Vec<Subject> {
        let subject = |image: Image| {
            let manifest = format::manifest(&image.files);
            let records = format::log(&image.files, &manifest);
            Subject { image, records, log_end: manifest.log_end }
        };
        images().into_iter().map(subject).collect()
    }

    fn with(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Files {
        let mut files = self.image.files.clone();
        change(Arc::make_mut(files.get_mut(name).unwrap()));
        files
    }

    /// Whether a byte is more than padding, or of a block that nothing was written to.
    fn has_meaning(&self, file: &str, at: usize) -> bool {
        match file.split('-').next() {
            Some("spare") => false,
            Some("log") => {
                at < 72 || self.records.iter().any(|record| record.file == file && record.bytes.contains(&at))
            }
            _ => true,
        }
    }

    /// The last commit that must be there although these bytes of this file are damaged.
    fn floor(&self, file: &str, damaged: &Range<usize>) -> u64 {
        let all = self.image.states.len() as u64 - 1;
        if !file.starts_with("log-") {
            return all;
        }
        let overlaps = |record: &Record| {
            record.file == file && record.bytes.start < damaged.end && damaged.start < record.bytes.end
        };
        let sound = self.records.iter().filter(|record| !overlaps(record));
        let proven = sound.map(|record| record.durable).max().unwrap_or(0).max(self.log_end);
        let Some(first) = self.records.iter().find(|record| overlaps(record)) else { return all };
        if first.lsn < proven {
            return all; // nothing but an error, or all
        }
        let before = self.records.iter().filter(|record| record.lsn < first.lsn).filter_map(|record| record.commit_ts);
        before.max().unwrap_or(0)
    }

    /// Opens damaged files; they must be refused, or hold a state from `floor` on.
    fn check(&self, files: &Files, floor: u64, outcomes: &mut Outcomes, what: impl Fn() -> String) -> Option<WalError> {
        let (rows, last, _) = match recover(files) {
            Err(error) => {
                assert_typed(&error, &what);
                outcomes.refused += 1;
                return Some(error);
            }
            Ok(recovered) => recovered,
        };
        let name = self.image.name;
        assert!(last.0 >= floor, "{name}, {}: recovered to {last}, and {floor} was on disk", what());
        assert!(self.image.states.get(last.0 as usize) == Some(&rows), "{name}, {}: no state at {last} was so", what());
        if last.0 as usize + 1 == self.image.states.len() {
            outcomes.whole += 1
        } else {
            outcomes.shorter += 1
        }
        None
    }
}

fn assert_typed(error: &WalError, what: &impl Fn() -> String) {
    use WalError::{Corruption, MissingFile, NotADatabase, VersionMismatch};
    let typed = matches!(error, Corruption { .. } | MissingFile { .. } | NotADatabase { .. } | VersionMismatch { .. });
    assert!(typed, "{}: {error:?}", what());
}

#[test]
fn images_are_what_they_are_said_to_be() {
    for subject in Subject::all() {
        let Subject { image, records, .. } = &subject;
        let bytes: usize = image.files.values().map(|bytes| bytes.len()).sum();
        let segments = image.files.keys().filter(|name| name.starts_with("log-")).count();
        println!(
            "{}: {bytes} bytes, {segments} segments, {} records, {:?}",
            image.name,
            records.len(),
            image.files.keys()
        );
        let newest = image.states.last().unwrap();
        assert!(format::rows(&image.files) == *newest, "{}: the second reader", image.name);
        let (rows, _, after) = recover(&image.files).unwrap();
        assert!(rows == *newest && format::rows(&after) == *newest, "{}", image.name);
        assert!(recover(&after).unwrap().0 == *newest, "{}: opened twice", image.name);
    }
}

#[test]
fn each_damaged_byte_is_noticed_or_does_not_matter() {
    let (seed, rounds) = (seed("rot", 1), rounds(1));
    for subject in Subject::all() {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut outcomes: BTreeMap<String, Outcomes> = BTreeMap::new();
        for (name, bytes) in &subject.image.files {
            let kind = outcomes.entry(name.split('-').next().unwrap().to_owned()).or_default();
            for at in (0..bytes.len()).filter(|at| rounds > 1 || at % 16 == 0 || subject.has_meaning(name, *at)) {
                let floor = subject.floor(name, &(at..at + 1));
                for _ in 0..rounds {
                    // One bit, or any value.
                    let flip = if random.bool() { 1 << random.u8(..8) } else { random.u8(1..) };
                    let files = subject.with(name, |bytes| bytes[at] ^= flip);
                    let error = subject.check(&files, floor, kind, || format!("{name} byte {at} ^ {flip:#x}"));
                    let must_refuse =
                        name == "MANIFEST" || name.starts_with("ckpt") || name.starts_with("log") && at < 72;
                    assert!(error.is_some() || !must_refuse, "{name} byte {at} ^ {flip:#x} went unnoticed");
                }
            }
        }
        println!("{}: {outcomes:?}", subject.image.name);
        assert_eq!(outcomes.get("spare").map_or(0, |outcomes| outcomes.refused + outcomes.shorter), 0);
        let log = &outcomes["log"];
        assert!(
            log.refused > 0
                && log.whole > 0
                && (log.shorter > 0) == (subject.log_end == 0 || subject.image.name != "closed")
        );
    }
}

#[test]
fn damaged_blocks_are_noticed() {
    for subject in Subject::all() {
        let mut outcomes = Outcomes::default();
        for (name, bytes) in &subject.image.files {
            for size in [512, 4096] {
                for at in (0..bytes.len()).step_by(size) {
                    let damaged = at..(at + size).min(bytes.len());
                    let floor = subject.floor(name, &damaged);
                    let zeroed = subject.with(name, |bytes| bytes[damaged.clone()].fill(0));
                    subject.check(&zeroed, floor, &mut outcomes, || format!("{name} zeroed {damaged:?}"));
                    // Swapped with the one after it, and with the same place of every other file.
                    if damaged.end + size <= bytes.len() {
                        let both = at..damaged.end + size;
                        let swapped = subject.with(name, |bytes| bytes[both.clone()].rotate_left(size));
                        let floor = subject.floor(name, &both);
                        subject.check(&swapped, floor, &mut outcomes, || format!("{name} swapped {both:?}"));
                    }
                    for (other, others) in &subject.image.files {
                        let Some(foreign) = others.get(damaged.clone()).filter(|_| other != name) else { continue };
                        let files = subject.with(name, |bytes| bytes[damaged.clone()].copy_from_slice(foreign));
                        subject.check(&files, floor, &mut outcomes, || format!("{name} {damaged:?} from {other}"));
                    }
                }
            }
        }
        println!("{}: {outcomes:?}", subject.image.name);
        assert!(outcomes.refused > 0 && outcomes.whole > 0);
    }
}

#[test]
fn a_file_of_another_length_is_refused() {
    for subject in Subject::all() {
        let mut outcomes = Outcomes::default();
        let needed = |name: &str| name == "MANIFEST" || name.starts_with("ckpt") || name.starts_with("log");
        for (name, bytes) in subject.image.files.iter().filter(|(name, _)| needed(name)) {
            let lengths = (0..bytes.len()).step_by(if name.starts_with("log") { 37 } else { 1 });
            for len in lengths.chain([bytes.len() - 1]) {
                let files = subject.with(name, |bytes| bytes.truncate(len));
                let error = subject.check(&files, 0, &mut outcomes, || format!("{name} cut to {len}"));
                assert!(error.is_some(), "{name} cut to {len} bytes went unnoticed");
            }
            let longer = subject.with(name, |bytes| bytes.push(0));
            let error = subject.check(&longer, 0, &mut outcomes, || format!("{name} grown"));
            assert!(error.is_some(), "{name} grown went unnoticed");
        }
    }
}

#[test]
fn missing_files_are_named() {
    for subject in Subject::all() {
        for name in subject.image.files.keys() {
            let mut files = subject.image.files.clone();
            files.remove(name);
            let mut outcomes = Outcomes::default();
            let error = subject.check(&files, 0, &mut outcomes, || format!("{name} is missing"));
            let is_needed = name == "MANIFEST" || name.starts_with("ckpt") || name.starts_with("log");
            assert_eq!(error.is_some(), is_needed, "{}: {name}: {error:?}", subject.image.name);
        }
    }
}

#[test]
fn extra_files_of_a_database_are_removed_and_others_left_alone() {
    for subject in Subject::all() {
        let mut files = subject.image.files.clone();
        for name in [
            "ckpt-00000000000000ff-000000",
            "log-0000000000000000",
            "spare-0000000000000077",
            "MANIFEST.new",
            "new-log",
            "letter.txt",
        ] {
            files.insert(name.to_owned(), Arc::new(vec![7; 100]));
        }
        let (rows, _, after) = recover(&files).unwrap();
        assert!(rows == *subject.image.states.last().unwrap());
        assert!(after.contains_key("letter.txt"));
        let nearly = ["spare-ffffffffffffffff", "log-ffffffffffffffff", "ckpt-+000000000000001-000000"];
        files.extend(nearly.map(|name| (name.to_owned(), Arc::new(vec![7; SEGMENT as usize]))));
        let (_, _, after) = recover(&files).unwrap();
        assert!(nearly.iter().all(|name| after.contains_key(*name)), "nobody here gives such names");
        assert!(!after.contains_key("log-0000000000000000") && !after.contains_key("ckpt-00000000000000ff-000000"));
        // A segment that nobody wrote, right behind the newest or far away.
        for number in [subject.image.files.len() as u64 + 1, 1 << 40] {
            let mut files = subject.image.files.clone();
            files.insert(format!("log-{number:016x}"), Arc::new(vec![0; SEGMENT as usize]));
            assert!(recover(&files).is_err());
        }
    }
}

#[test]
fn files_of_another_database_or_another_place_are_refused() {
    let subjects = Subject::all();
    let other: Files = Subject::all().remove(2).image.files;
    let other = renumbered(&other);
    assert!(recover(&other).unwrap().0 == *subjects[2].image.states.last().unwrap(), "it is a database of its own");
    for subject in &subjects {
        let mut outcomes = Outcomes::default();
        for name in subject.image.files.keys().filter(|name| !name.starts_with("spare") && *name != "LOCK") {
            for (from, bytes) in other.iter().chain(&subject.image.files).filter(|(from, _)| !from.starts_with("spare"))
            {
                if from == name && Arc::ptr_eq(bytes, &subject.image.files[name]) {
                    continue;
                }
                let files = subject.with(name, |target| target.clone_from(bytes));
                let error = subject.check(&files, 0, &mut outcomes, || format!("{from} in place of {name}"));
                assert!(
                    error.is_some() || **bytes == *subject.image.files[name],
                    "{from} in place of {name} went unnoticed"
                );
            }
        }
    }
}

/// The same database under another number: every checksum is another.
fn renumbered(files: &Files) -> Files {
    let manifest = format::manifest(files);
    let rows = format::rows(files);
    assert!(!rows.is_empty() && manifest.database != 0);
    let fs = MemoryFs::new(&Files::new());
    let db = Db::builder().vfs(fs.clone()).no_threads().open().unwrap();
    db.transact(|t| rows.iter().try_for_each(|(key, value)| t.put(key, value))).unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    fs.files()
}

#[test]
fn empty_files_and_empty_directories() {
    for subject in Subject::all() {
        let empty: Files = subject.image.files.keys().map(|name| (name.clone(), Arc::default())).collect();
        assert!(recover(&empty).is_err());
        let mut nothing_but_logs = subject.image.files.clone();
        nothing_but_logs.retain(|name, _| name.starts_with("log-"));
        assert!(matches!(recover(&nothing_but_logs), Err(WalError::MissingFile { .. })), "never silently empty");
    }
    let (rows, last, _) = recover(&Files::new()).unwrap();
    assert_eq!((rows, last.0), (Rows::new(), 0));
    let strange = Files::from([("letter.txt".to_owned(), Arc::new(b"dear".to_vec()))]);
    assert!(matches!(recover(&strange), Err(WalError::NotADatabase { .. })));
}

#[test]
fn other_versions_are_named() {
    for subject in Subject::all() {
        for version in [0_u8, 2, 255] {
            let manifest = subject.with("MANIFEST", |bytes| {
                bytes[8] = version;
                let end = bytes.len() - 4;
                let checksum = crc32c::crc32c(&bytes[..end]);
                bytes[end..].copy_from_slice(&checksum.to_le_bytes());
            });
            let segment = format!("log-{:016x}", format::manifest(&subject.image.files).replay_from);
            let log = subject.with(&segment, |bytes| {
                bytes[8] = version;
                let checksum = crc32c::crc32c(&bytes[..68]);
                bytes[68..72].copy_from_slice(&checksum.to_le_bytes());
            });
            for files in [manifest, log] {
                let error = recover(&files).unwrap_err();
                let expected = u32::from(version);
                assert!(
                    matches!(error, WalError::VersionMismatch { found, supported: 1, .. } if found == expected),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn a_database_says_what_is_damaged_and_serves_what_is_not() {
    for subject in Subject::all() {
        let open =
            |files: &Files| Db::builder().vfs(MemoryFs::new(files)).no_threads().log_segment_bytes(64 << 10).open();
        let db = open(&subject.image.files).unwrap();
        let snapshot = db.snapshot().unwrap();
        let rows = snapshot.scan(..).map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())));
        let rows: Rows = rows.collect::<Result<_, _>>().unwrap();
        drop(snapshot);
        assert!(rows == *subject.image.states.last().unwrap());
        db.put("more", "x").unwrap();
        db.check().unwrap();
        let name = format!("log-{:016x}", format::manifest(&subject.image.files).replay_from);
        let error = open(&subject.with(&name, |bytes| bytes[20] ^= 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(&name), "{error}");
    }
}
