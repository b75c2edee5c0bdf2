//! What is damaged, foreign, newer, missing or in use is told apart, and named.

mod tool;

use std::path::Path;

use tool::{Folder, contents, flip};

const LOOKS: [&[&str]; 5] =
    [&["check", "db"], &["stat", "db"], &["dump", "db"], &["backup", "db", "to"], &["restore", "db", "to"]];

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Every look refuses with this code, says these words, and leaves everything as it was.
fn refused(folder: &Folder, code: i32, words: &[&str]) {
    let before = contents(&folder.path("db"));
    for args in LOOKS {
        let said = folder.run(args).expect(code);
        let all = format!("{}{}", said.out, said.err);
        for word in words {
            assert!(all.contains(word), "{args:?} does not say {word:?}: {all}");
        }
        assert!(!folder.path("to").exists(), "{args:?}: nothing is copied");
    }
    assert_eq!(contents(&folder.path("db")), before);
}

#[test]
fn a_flipped_byte_of_the_manifest() {
    let folder = Folder::new();
    folder.make("db");
    flip(&folder.path("db").join("MANIFEST"), 30);
    refused(&folder, 1, &["MANIFEST is damaged", "the checksum is wrong", "restore it from a backup"]);
}

#[test]
fn a_flipped_byte_of_a_checkpoint() {
    let folder = Folder::new();
    folder.make("db");
    let part = folder.files("db", "ckpt-").swap_remove(1);
    flip(&part, 100);
    refused(&folder, 1, &[&name(&part), "at byte 0: a block's checksum is wrong"]);
    std::fs::remove_file(&part).unwrap();
    refused(&folder, 1, &[&name(&part)]);
    assert!(folder.run(&["check", "db"]).expect(1).out.contains("MISSING"));
}

#[test]
fn a_flipped_byte_of_the_log() {
    let folder = Folder::new();
    folder.make("db");
    let last = folder.files("db", "log-").pop().unwrap();
    flip(&last, 4096 + 40);
    refused(&folder, 1, &[&name(&last), "at byte 4096: a record that was on disk is damaged"]);
    flip(&last, 4096 + 40);
    folder.run(&["check", "db"]).expect(0);
    // The very last record has nothing after it: the manifest knows that it was there.
    let end = std::fs::read(&last).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    flip(&last, end);
    refused(&folder, 1, &[&name(&last), "a record that was on disk is damaged"]);
    flip(&last, end);
    flip(&last, 20);
    refused(&folder, 1, &[&name(&last)]);
}

#[test]
fn every_damaged_file_is_named_in_one_look() {
    let folder = Folder::new();
    folder.make("db");
    let parts = folder.files("db", "ckpt-");
    let log = folder.files("db", "log-").pop().unwrap();
    flip(&parts[0], 50);
    flip(&parts[2], 50);
    flip(&log, 4096 + 40);
    let said = folder.run(&["check", "db"]).expect(1);
    assert_eq!(said.out.matches("DAMAGED").count(), 3, "{}", said.out);
    for path in [&parts[0], &parts[2], &log] {
        assert!(said.out.contains(&name(path)), "{}", said.out);
    }
    assert!(said.err.contains("3 files are damaged"), "{}", said.err);
    assert!(said.out.contains("ok: "), "the others are whole: {}", said.out);
}

#[test]
fn a_torn_tail_is_no_damage() {
    let folder = Folder::new();
    let db = folder.open("db");
    db.put("a", "kept").unwrap();
    db.put("b", "torn").unwrap();
    // As if the process had ended here: what is on the disk is copied away, without a clean close.
    std::fs::create_dir(folder.path("copy")).unwrap();
    for (path, bytes) in contents(&folder.path("db")) {
        std::fs::write(folder.path("copy").join(path.file_name().unwrap()), bytes).unwrap();
    }
    drop(db);
    folder.run(&["check", "copy"]).expect(0);
    let log = folder.files("copy", "log-").pop().unwrap();
    flip(&log, 8192 + 33);
    let said = folder.run(&["check", "copy"]).expect(0);
    assert!(said.out.contains("torn at byte"), "{}", said.out);
    assert!(said.out.contains("everything up to commit @1 is there"), "{}", said.out);
    let said = folder.run(&["dump", "copy"]).expect(0);
    assert_eq!(said.out, "{\"key\":\"a\",\"value\":\"kept\"}\n");
    assert!(said.err.contains("the log ends torn"), "{}", said.err);
    assert_eq!(folder.stat("copy")["log"]["segments"][0]["torn"], true);
    // The first of the two was on disk when the second was written: that is rot.
    flip(&log, 8192 + 33);
    flip(&log, 4096 + 33);
    folder.run(&["check", "copy"]).expect(1);
}

#[test]
fn a_damaged_database_is_not_loaded_into() {
    let folder = Folder::new();
    folder.make("db");
    flip(&folder.files("db", "ckpt-")[0], 100);
    std::fs::write(folder.path("rows"), "{\"key\":\"k\",\"value\":\"v\"}\n").unwrap();
    let said = folder.run(&["load", "db", "rows"]).expect(1);
    assert!(said.err.contains("nothing was loaded"), "{}", said.err);
}

#[test]
fn directories_that_are_no_databases() {
    let folder = Folder::new();
    std::fs::write(folder.path("rows"), "{\"key\":\"k\",\"value\":\"v\"}\n").unwrap();
    for args in LOOKS {
        assert!(folder.run(args).expect(3).err.contains("db: there is no such directory"));
        assert!(!folder.path("db").exists(), "{args:?}: nothing is made");
    }
    std::fs::create_dir(folder.path("db")).unwrap();
    refused(&folder, 3, &["db is not a database: it holds no database"]);
    std::fs::write(folder.path("db").join("letter.txt"), "dear").unwrap();
    refused(&folder, 3, &["db is not a database: it holds other files"]);
    let said = folder.run(&["load", "db", "rows"]).expect(3);
    assert!(said.err.contains("it holds other files"), "{}", said.err);
    assert!(folder.run(&["check", "rows"]).expect(3).err.contains("is not a directory"));
}

#[test]
fn a_database_whose_manifest_is_gone_is_damaged() {
    let folder = Folder::new();
    folder.make("db");
    std::fs::remove_file(folder.path("db").join("MANIFEST")).unwrap();
    refused(&folder, 1, &["MANIFEST is missing"]);
}

#[test]
fn a_newer_version_is_refused_and_named() {
    let folder = Folder::new();
    folder.make("db");
    let path = folder.path("db").join("MANIFEST");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    let body = bytes.len() - 4;
    let checksum = crc32c::crc32c(&bytes[..body]).to_le_bytes();
    bytes[body..].copy_from_slice(&checksum);
    std::fs::write(&path, bytes).unwrap();
    refused(&folder, 3, &["MANIFEST has format version 9", "reads up to 1", "use a newer one"]);
}

#[test]
fn a_database_that_is_in_use_is_refused() {
    let folder = Folder::new();
    folder.make("db");
    std::fs::write(folder.path("rows"), "{\"key\":\"k\",\"value\":\"v\"}\n").unwrap();
    let db = folder.open("db");
    for args in LOOKS.into_iter().chain([&["load", "db", "rows"][..]]) {
        let said = folder.run(args).expect(3);
        assert!(said.err.contains("db is open in another process"), "{args:?}: {}", said.err);
        assert!(said.err.contains("Db::backup"), "{args:?}: {}", said.err);
    }
    assert_eq!(db.get("k").unwrap(), None);
    db.close().unwrap();
    folder.run(&["check", "db"]).expect(0);
}

#[test]
fn files_that_are_not_needed_are_named_and_are_no_damage() {
    let folder = Folder::new();
    folder.make("db");
    std::fs::write(folder.path("db").join("notes.txt"), "mine").unwrap();
    std::fs::write(folder.path("db").join("ckpt-00000000000000ff-000000"), "left").unwrap();
    let said = folder.run(&["check", "db"]).expect(0);
    assert!(said.out.contains("not a file of the database"), "{}", said.out);
    assert!(said.out.contains("a part of another checkpoint, not needed"), "{}", said.out);
}
