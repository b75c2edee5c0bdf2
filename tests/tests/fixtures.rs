//! Files of every format version that was ever written open, and hold what they held.
//!
//! `tests/fixtures/v<version>-<name>/` is a database's directory, and `v<version>-<name>.rows` says what
//! is in it. They are made once, by
//! `cargo test -p isolde-tests --test fixtures -- --ignored`, which leaves alone what is there; from then
//! on they never change.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isolde::{Db, Durability};
use isolde_tests::format::{self, Rows};
use isolde_tests::images::images;
use isolde_tests::memory::{Files, MemoryFs};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A line for each row: the key, the length of the value, and its checksum.
fn told(rows: &Rows) -> String {
    rows.iter().fold(String::new(), |mut text, (key, value)| {
        writeln!(text, "\"{}\" {} {:08x}", key.escape_ascii(), value.len(), crc32c::crc32c(value)).unwrap();
        text
    })
}

fn files(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let file =
        |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), Arc::new(fs::read(entry.path()).unwrap()));
    entries.map(file).collect()
}

fn write(folder: &Path, files: &Files) {
    fs::create_dir(folder).unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(folder.join(name), &**bytes).unwrap());
}

fn rows(db: &Db) -> Rows {
    let snapshot = db.snapshot().unwrap();
    let rows = snapshot.scan(..).map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())));
    rows.collect::<Result<_, _>>().unwrap()
}

fn check(name: &str) {
    let folder = fixtures().join(name);
    let files = files(&folder);
    let expected = fs::read_to_string(folder.with_extension("rows")).unwrap();
    assert_eq!(told(&format::rows(&files)), expected, "{name}: the second reader");
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("db");
    write(&path, &files);
    for round in 0..3_u8 {
        let db = Db::builder().path(&path).log_segment_bytes(64 << 10).open().unwrap();
        let mut rows = rows(&db);
        assert_eq!(rows.remove(&b"round"[..]), round.checked_sub(1).map(|round| vec![round]), "{name}");
        assert_eq!(told(&rows), expected, "{name}, opened {round} times before");
        db.check().unwrap();
        db.put("round", [round]).unwrap();
        match round {
            0 => drop(db),
            1 => db.checkpoint().unwrap(),
            _ => db.close().unwrap(),
        }
    }
}

#[test]
fn every_fixture_opens_and_has_its_rows() {
    let mut found = 0;
    for entry in fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap()) {
        if entry.path().is_dir() {
            check(entry.file_name().to_str().unwrap());
            found += 1;
        }
    }
    assert!(found >= 3, "fixtures are missing: {found}");
}

/// A database that was made by the library's own calls, in threads, with every kind of write.
fn of_all_calls() -> Files {
    let fs = MemoryFs::new(&Files::new());
    let open = || Db::builder().vfs(fs.clone()).no_threads().log_segment_bytes(64 << 10).open().unwrap();
    let db = open();
    db.put("", "the empty key").unwrap();
    db.put([0, 255, 128], "a key that is no text").unwrap();
    db.put("empty value", "").unwrap();
    db.put("deleted before the checkpoint", "x").unwrap();
    db.put("deleted after the checkpoint", "x").unwrap();
    db.delete("deleted before the checkpoint").unwrap();
    db.increment("counter", 40).unwrap();
    db.checkpoint().unwrap();
    db.increment("counter", 2).unwrap();
    db.delete("deleted after the checkpoint").unwrap();
    db.transact(|t| (0..20_u8).try_for_each(|n| t.put(format!("many/{n:02}"), [n; 33]))).unwrap();
    db.put("long value", vec![7; 20_000]).unwrap();
    db.close().unwrap();
    let db = open();
    db.put("second epoch", "1").unwrap();
    db.txn().durability(Durability::Buffered).run(|t| t.put("buffered", "2")).unwrap();
    db.txn().durability(Durability::Buffered).run(|t| t.put("buffered too", "3")).unwrap();
    fs.files() // as a crash leaves it
}

#[test]
#[ignore = "makes the fixtures that are not there"]
fn make_fixtures() {
    let mut all: Vec<(&str, Files)> = vec![("v1-all-calls", of_all_calls())];
    for image in images() {
        match image.name {
            "cut off in the first epoch" => all.push(("v1-first-epoch", image.files)),
            "closed" => all.push(("v1-closed", image.files)),
            _ => {}
        }
    }
    fs::create_dir_all(fixtures()).unwrap();
    for (name, mut files) in all {
        let folder = fixtures().join(name);
        if !folder.exists() {
            files.retain(|name, _| !name.starts_with("spare-"));
            write(&folder, &files);
            fs::write(folder.with_extension("rows"), told(&format::rows(&files))).unwrap();
        }
    }
}
