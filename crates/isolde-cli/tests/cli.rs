//! The command line, as a person uses it: exit codes, what is printed, and what is left on the disk.

mod tool;

use isolde::Durability;
use tool::{Folder, contents, isolde};

#[test]
fn check_says_what_every_file_holds_and_changes_nothing() {
    let folder = Folder::new();
    folder.make("db");
    let before = contents(&folder.path("db"));
    let checked = folder.run(&["check", "db"]).expect(0);
    assert!(checked.out.starts_with("MANIFEST"), "{}", checked.out);
    assert_eq!(checked.out.matches("rows as of").count(), 3, "{}", checked.out);
    assert!(checked.out.contains("3 records, commits @32 to @33"), "{}", checked.out);
    assert!(checked.out.ends_with("ok: everything up to commit @33 is there\n"), "{}", checked.out);
    assert_eq!(checked.err, "", "no progress bar where there is no terminal");
    folder.run(&["stat", "db"]).expect(0);
    folder.run(&["dump", "db"]).expect(0);
    folder.run(&["backup", "db", "copy"]).expect(0);
    assert_eq!(contents(&folder.path("db")), before, "nothing was changed, made or removed");
}

#[test]
fn a_database_on_a_read_only_disk_can_be_looked_at() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    folder.make("db");
    let rights = |dir, file| {
        for entry in std::fs::read_dir(folder.path("db")).unwrap() {
            std::fs::set_permissions(entry.unwrap().path(), PermissionsExt::from_mode(file)).unwrap();
        }
        std::fs::set_permissions(folder.path("db"), PermissionsExt::from_mode(dir)).unwrap();
    };
    rights(0o500, 0o400);
    folder.run(&["check", "db"]).expect(0);
    folder.run(&["dump", "db"]).expect(0);
    rights(0o700, 0o600);
}

#[test]
fn a_dump_has_every_row_and_loads_again() {
    let folder = Folder::new();
    folder.make("db");
    let dump = folder.run(&["dump", "db"]).expect(0).out;
    let lines: Vec<&str> = dump.lines().collect();
    assert_eq!(lines[0], r#"{"key_base64":"AP8=","value":"bytes as a key"}"#);
    assert_eq!(lines[1], r#"{"key":"bytes","value_base64":"AAEC/w=="}"#);
    assert_eq!(lines[2], r#"{"key":"empty","value":""}"#);
    assert_eq!(lines.len(), 33 - 1, "the one that was deleted is not there");
    assert!(!dump.contains("row/03"));

    folder.run(&["dump", "db", "-o", "rows.jsonl"]).expect(0);
    assert_eq!(std::fs::read_to_string(folder.path("rows.jsonl")).unwrap(), dump);
    let loaded = folder.run(&["load", "again", "rows.jsonl", "--log-segment-bytes", "65536"]).expect(0);
    assert_eq!(loaded.out, "32 rows loaded into a new database, again\n");
    assert_eq!(folder.run(&["dump", "again"]).expect(0).out, dump);
    let loaded = folder.run_with(&["load", "again", "-", "--log-segment-bytes", "65536"], dump.as_bytes()).expect(0);
    assert_eq!(loaded.out, "32 rows loaded into an existing database, again\n");
    assert_eq!(folder.run(&["dump", "again"]).expect(0).out, dump);
    folder.run(&["check", "again"]).expect(0);

    let some = folder.run(&["dump", "db", "--prefix", "row/1"]).expect(0).out;
    assert_eq!(some.lines().count(), 10);
    assert!(some.lines().all(|line| line.starts_with(r#"{"key":"row/1"#)), "{some}");
    assert_eq!(folder.run(&["dump", "db", "--prefix-base64", "AA=="]).expect(0).out.lines().count(), 1);
    assert_eq!(folder.run(&["dump", "db", "--prefix", "nothing"]).expect(0).out, "");
}

#[test]
fn rows_are_loaded_in_batches_that_fit_the_log() {
    let folder = Folder::new();
    let line = |n: usize| format!("{{\"key\":\"{n:05}\",\"value\":\"{}\"}}\n\n", "x".repeat(n % 200));
    let rows: String = (0..2_500).map(line).collect();
    std::fs::write(folder.path("rows.jsonl"), rows).unwrap();
    let loaded = folder.run(&["load", "db", "rows.jsonl", "--log-segment-bytes", "65536"]).expect(0);
    assert!(loaded.out.starts_with("2500 rows"), "{}", loaded.out);
    assert_eq!(folder.stat("db")["keys"], 2_500);
    let large = format!("{{\"key\":\"k\",\"value\":\"{}\"}}", "x".repeat(70_000));
    std::fs::write(folder.path("large.jsonl"), format!("{{\"key\":\"a\",\"value\":\"\"}}\n{large}")).unwrap();
    let refused = folder.run(&["load", "new", "large.jsonl", "--log-segment-bytes", "65536"]).expect(3);
    assert!(refused.err.contains("line 2 not loaded: value too large"), "{}", refused.err);
    assert!(refused.err.contains("loaded, and on disk: 1 row, up to line 1; nothing after that"), "{}", refused.err);
    assert!(refused.err.contains("see --log-segment-bytes"), "{}", refused.err);
    assert_eq!(folder.stat("new")["keys"], 1);
}

#[test]
fn a_malformed_line_is_named_and_what_was_loaded_is_said() {
    let folder = Folder::new();
    let good = |n: u32| format!("{{\"key\":\"{n}\",\"value\":\"v\"}}\n");
    let mut rows: String = (1..=1_200).map(good).collect();
    rows.push_str("{\"key\":\"1201\",\"val\":\"v\"}\n");
    rows.push_str(&good(1_202));
    std::fs::write(folder.path("bad.jsonl"), &rows).unwrap();
    let refused = folder.run(&["load", "db", "bad.jsonl"]).expect(3);
    assert!(refused.err.starts_with("isolde: bad.jsonl:1201: unknown field `val`"), "{}", refused.err);
    assert!(refused.err.contains(r#"expected {"key": TEXT, "value": TEXT}"#), "{}", refused.err);
    assert!(refused.err.contains("nothing was loaded"), "{}", refused.err);
    assert!(!folder.path("db").exists(), "nothing was made");

    let args = ["load", "db", "-", "--log-segment-bytes", "65536"];
    let refused = folder.run_with(&args, rows.as_bytes()).expect(3);
    assert!(refused.err.starts_with("isolde: the standard input:1201:"), "{}", refused.err);
    assert!(refused.err.contains("on disk: 1200 rows, up to line 1200;"), "{}", refused.err);
    assert!(refused.err.contains("a new database"), "{}", refused.err);
    assert_eq!(folder.stat("db")["keys"], 1_200);
    let refused = folder.run_with(&args, b"[1]\n").expect(3);
    assert!(refused.err.contains("nothing was loaded before"), "{}", refused.err);
    assert!(folder.run(&["load", "db", "no.jsonl"]).expect(3).err.contains("opening no.jsonl"));
    assert!(folder.run(&["load", "no/such/db", "bad.jsonl"]).expect(3).err.contains("nothing was loaded"));
    std::fs::write(folder.path("good.jsonl"), good(1)).unwrap();
    let refused = folder.run(&["load", "no/such/db", "good.jsonl"]).expect(3);
    assert!(refused.err.contains("the directory above it does not exist\nnothing was loaded"), "{}", refused.err);
    let refused = folder.run(&["dump", "db", "-o", "no/such/file"]).expect(3);
    assert_eq!(refused.err, "isolde: writing no/such/file: the directory above it does not exist\n");
}

#[test]
fn stat_agrees_with_the_database() {
    let folder = Folder::new();
    folder.make("db");
    let stat = folder.stat("db");
    assert_eq!(stat["format_version"], 1);
    assert_eq!(stat["epoch"], 2);
    assert_eq!(stat["database_id"].as_str().unwrap().len(), 16);
    assert_eq!(stat["checkpoint"]["partitions"], 3);
    assert_eq!(stat["checkpoint"]["newest_ts"], 31);
    assert_eq!(stat["last_commit_ts"], 33);
    assert_eq!(stat["keys"], 32);
    let segments = stat["log"]["segments"].as_array().unwrap();
    assert_eq!(segments.last().unwrap()["first_commit_ts"], 32);
    assert_eq!(segments.last().unwrap()["last_commit_ts"], 33);
    let (mut keys, mut values) = (0, 0);
    let db = folder.open("db");
    for row in db.snapshot().unwrap().scan(..) {
        let (key, value) = row.unwrap();
        keys += key.len();
        values += value.len();
    }
    drop(db);
    assert_eq!((&stat["key_bytes"], &stat["value_bytes"]), (&keys.into(), &values.into()));
    let text = folder.run(&["stat", "db"]).expect(0).out;
    assert!(text.contains("format version 1, epoch 3"), "{text}");
    assert!(text.contains(&format!("32 keys, {keys} bytes of keys, {values} bytes of values")), "{text}");
}

#[test]
fn a_backup_and_what_is_restored_from_it_have_the_same_rows() {
    let folder = Folder::new();
    folder.make("db");
    let dump = folder.run(&["dump", "db"]).expect(0).out;
    let said = folder.run(&["backup", "db", "copy"]).expect(0).out;
    assert_eq!(said, "db: 32 rows, up to commit @33, backed up to copy\n");
    let said = folder.run(&["restore", "copy", "back"]).expect(0).out;
    assert_eq!(said, "copy: 32 rows, up to commit @33, restored to back\n");
    for name in ["copy", "back"] {
        folder.run(&["check", name]).expect(0);
        assert_eq!(folder.run(&["dump", name]).expect(0).out, dump, "{name}");
    }
    let id = |name| folder.stat(name)["database_id"].clone();
    assert!(id("db") != id("copy") && id("copy") != id("back"), "a database of its own");
    let db = folder.open("back");
    let commit = db.txn().begin().and_then(|txn| txn.put("k", "v").and_then(|()| txn.commit())).unwrap();
    assert!(commit.ts.0 > 33, "commits go on after the last");
    db.check().unwrap();
    // What the library copied while the database was in use can be restored, too.
    db.backup(folder.path("library")).unwrap();
    folder.run(&["restore", "library", "third"]).expect(0);
    assert_eq!(folder.stat("third")["keys"], 33);
}

#[test]
fn an_empty_database_and_one_of_many_partitions_are_copied() {
    let folder = Folder::new();
    drop(folder.open("empty"));
    folder.run(&["check", "empty"]).expect(0);
    assert_eq!(folder.run(&["dump", "empty"]).expect(0).out, "");
    folder.run(&["backup", "empty", "empty-copy"]).expect(0);
    assert_eq!(folder.stat("empty-copy")["keys"], 0);

    let db = isolde::Db::builder().path(folder.path("large")).durability(Durability::None).open().unwrap();
    for n in 0..20_u8 {
        db.put([n], vec![n; 1 << 20]).unwrap();
    }
    db.close().unwrap();
    folder.run(&["backup", "large", "large-copy"]).expect(0);
    let stat = folder.stat("large-copy");
    assert_eq!((&stat["checkpoint"]["partitions"], &stat["keys"]), (&2.into(), &20.into()));
}

#[test]
fn copies_go_into_new_directories_only() {
    let folder = Folder::new();
    folder.make("db");
    folder.make("other");
    let before = contents(&folder.path("other"));
    for command in ["backup", "restore"] {
        let refused = folder.run(&[command, "db", "other"]).expect(3);
        assert!(refused.err.contains("other is not empty"), "{}", refused.err);
        let refused = folder.run(&[command, "db", "db"]).expect(3);
        assert!(refused.err.contains("db is not empty"), "{}", refused.err);
        let refused = folder.run(&[command, "db", "no/such/parent"]).expect(3);
        assert!(
            refused.err.contains("making no/such/parent: the directory above it does not exist"),
            "{}",
            refused.err
        );
        // In the directory of the database itself, whatever that is called.
        let before = contents(&folder.path("db"));
        for inside in ["db/copy", "./other/../db/copy"] {
            let refused = folder.run(&[command, "db", inside]).expect(3);
            assert!(refused.err.contains("name a directory beside it"), "{}", refused.err);
        }
        assert_eq!(contents(&folder.path("db")), before);
    }
    assert_eq!(contents(&folder.path("other")), before);
    std::fs::create_dir(folder.path("fresh")).unwrap();
    folder.run(&["backup", "db", "fresh"]).expect(0);
}

#[test]
fn a_dump_that_cannot_be_written_leaves_the_file_as_it_was() {
    let folder = Folder::new();
    folder.make("db");
    std::fs::write(folder.path("old"), "old").unwrap();
    tool::flip(&folder.path("db").join("MANIFEST"), 20);
    folder.run(&["dump", "db", "-o", "old"]).expect(1);
    assert_eq!(std::fs::read_to_string(folder.path("old")).unwrap(), "old");
    folder.make("db2");
    let refused = folder.run(&["dump", "db2", "-o", "no/such/file"]).expect(3);
    assert!(refused.err.contains("writing no/such/file"), "{}", refused.err);
    folder.run(&["dump", "db2", "-o", "db2"]).expect(3);
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    let folder = Folder::new();
    for args in [
        &["mend", "db"][..],
        &["check"],
        &["dump", "db", "--prefix", "a", "--prefix-base64", "YQ=="],
        &["dump", "db", "--prefix-base64", "?"],
        &["load", "db", "f", "--log-segment-bytes", "100"],
        &[],
    ] {
        folder.run(args).expect(2);
    }
    assert!(folder.run(&["--help"]).expect(0).out.contains("Exit codes"));
    assert!(isolde().get_program().to_string_lossy().contains("isolde"));
}
