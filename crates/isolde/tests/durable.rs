//! A database in a directory: what it keeps, what it refuses, and what it says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use isolde::{Db, Durability, ErrorKind, Isolation, Mode};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn small(path: &std::path::Path) -> isolde::Builder {
    Db::builder().path(path).log_segment_bytes(64 << 10)
}

fn rows(db: &Db) -> Vec<(Vec<u8>, Vec<u8>)> {
    let snapshot = db.snapshot().unwrap();
    snapshot.scan(..).map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

#[test]
fn what_was_committed_is_there_after_the_next_open() {
    let folder = folder();
    let path = folder.path().join("db");
    for round in 0..5_u64 {
        let db = small(&path).open().unwrap();
        assert_eq!(
            db.get("round").unwrap().map(|value| value.to_vec()),
            round.checked_sub(1).map(|r| r.to_be_bytes().to_vec())
        );
        db.put("round", round.to_be_bytes()).unwrap();
        db.increment("sum", 10).unwrap();
        db.put(format!("gone/{round}"), "x").unwrap();
        db.transact(|t| {
            t.delete(format!("gone/{round}"))?;
            t.put("empty", "")
        })
        .unwrap();
        let epoch = db.txn().begin().unwrap().commit().unwrap().epoch;
        assert_eq!(epoch, round + 1);
        if round % 2 == 0 { db.close().unwrap() } else { drop(db) }
    }
    let db = small(&path).open().unwrap();
    assert_eq!(db.get("sum").unwrap().as_deref(), Some(&50_i64.to_be_bytes()[..]));
    assert_eq!(rows(&db).len(), 3);
    db.check().unwrap();
}

#[test]
fn every_durability_is_there_after_a_clean_close() {
    let folder = folder();
    let kinds = [
        Durability::Sync,
        Durability::Group { max_delay: Duration::from_millis(1) },
        Durability::Buffered,
        Durability::None,
    ];
    let path = folder.path().join("db");
    let db = small(&path).durability(Durability::None).open().unwrap();
    for (index, durability) in kinds.into_iter().enumerate() {
        db.txn().durability(durability).run(|t| t.put(format!("{index}"), "v")).unwrap();
    }
    db.close().unwrap();
    assert_eq!(rows(&small(&path).open().unwrap()).len(), kinds.len());
}

#[test]
fn a_log_of_many_segments_with_checkpoints_in_between() {
    let folder = folder();
    let path = folder.path().join("db");
    let db = small(&path).checkpoint_after(None).checkpoint_partition_bytes(2_000).open().unwrap();
    for n in 0..400_u64 {
        db.txn().durability(Durability::None).run(|t| t.put(format!("k{:03}", n % 150), vec![n as u8; 900])).unwrap();
        if n == 200 {
            db.checkpoint().unwrap();
            let logs = std::fs::read_dir(&path)
                .unwrap()
                .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("log-"))
                .count();
            assert!(logs <= 2, "the log before a checkpoint goes: {logs}");
        }
    }
    let before = rows(&db);
    assert_eq!(before.len(), 150);
    drop(db);
    let seen = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&seen);
    let db = small(&path)
        .on_recovery(move |done, total| {
            assert!(done <= total);
            told.store(done, Ordering::Relaxed);
        })
        .open()
        .unwrap();
    assert!(seen.load(Ordering::Relaxed) > 0);
    assert_eq!(rows(&db), before);
    db.check().unwrap();
    db.checkpoint().unwrap();
    drop(db);
    assert_eq!(rows(&small(&path).open().unwrap()), before);
}

#[test]
fn one_process_and_one_handle_at_a_time() {
    let folder = folder();
    let path = folder.path().join("db");
    let db = small(&path).open().unwrap();
    let second = small(&path).open().unwrap_err();
    assert_eq!(second.kind(), ErrorKind::AlreadyOpen, "{second}");
    let other_handle = db.clone();
    db.close().unwrap();
    small(&path).open().unwrap();
    assert_eq!(other_handle.put("k", "v").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn directories_of_others_are_refused_and_stay_as_they_are() {
    let folder = folder();
    std::fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    let error = small(folder.path()).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADatabase, "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let file = folder.path().join("letter.txt");
    assert_eq!(small(&file).open().unwrap_err().kind(), ErrorKind::Io);
    let error = small(&folder.path().join("no/such")).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}

#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = folder.path().join("db");
    let db = small(&path).open().unwrap();
    db.put("k", "v").unwrap();
    db.checkpoint().unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_backup_opens_and_has_all_of_a_transaction_or_nothing() {
    let folder = folder();
    let db = Arc::new(small(&folder.path().join("db")).durability(Durability::None).open().unwrap());
    let stop = Arc::new(AtomicU64::new(0));
    let start = Arc::new(Barrier::new(2));
    let writer = std::thread::spawn({
        let (db, stop, start) = (Arc::clone(&db), Arc::clone(&stop), Arc::clone(&start));
        move || {
            start.wait();
            let mut n = 0_u64;
            while stop.load(Ordering::Relaxed) == 0 {
                db.transact(|t| (0..20).try_for_each(|key| t.put(format!("{key}"), n.to_be_bytes()))).unwrap();
                n += 1;
            }
        }
    });
    db.transact(|t| (0..20).try_for_each(|key| t.put(format!("{key}"), [0; 8]))).unwrap();
    start.wait();
    for round in 0..3 {
        let path = folder.path().join(format!("backup-{round}"));
        db.backup(&path).unwrap();
        let copy = small(&path).open().unwrap();
        let rows = rows(&copy);
        assert_eq!(rows.len(), 20);
        assert!(rows.iter().all(|row| row.1 == rows[0].1), "{rows:?}");
        copy.put("more", "x").unwrap();
        copy.check().unwrap();
    }
    stop.store(1, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(db.backup(folder.path().join("backup-0")).unwrap_err().kind(), ErrorKind::NotADatabase);
}

#[test]
fn a_transaction_larger_than_a_segment_is_refused_before_anything_happens() {
    let folder = folder();
    let db = small(&folder.path().join("db")).open().unwrap();
    let error = db.put("k", vec![0; 64 << 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("log_segment_bytes"), "{error}");
    db.put("k", vec![0; 50_000]).unwrap();
    db.put("k", vec![1; 50_000]).unwrap();
    db.check().unwrap();
}

#[test]
fn threads_share_syncs_and_lose_nothing() {
    let folder = folder();
    let path = folder.path().join("db");
    let db = small(&path).open().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let db = &db;
            scope.spawn(move || {
                for n in 0..50 {
                    db.put(format!("{thread}/{n}"), "v").unwrap();
                    db.increment("all", 1).unwrap();
                }
            });
        }
    });
    let stats = db.log_stats().unwrap();
    assert_eq!(stats.records, 800);
    assert!(stats.syncs < 800, "{stats:?}");
    // Not closed: as if the process had ended here.
    std::mem::forget(db.clone());
    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let db = small(&copy).open().unwrap();
    assert_eq!(rows(&db).len(), 401);
    assert_eq!(db.get("all").unwrap().as_deref(), Some(&400_i64.to_be_bytes()[..]));
}

#[test]
fn every_level_and_mode_is_durable() {
    let folder = folder();
    let path = folder.path().join("db");
    let db = small(&path).open().unwrap();
    for isolation in Isolation::ALL {
        for mode in Mode::ALL {
            db.txn()
                .isolation(isolation)
                .mode(mode)
                .run(|t| {
                    t.get("seed")?;
                    t.put(format!("{isolation}/{mode}"), "v")?;
                    t.increment("n", 1)
                })
                .unwrap();
        }
    }
    drop(db);
    assert_eq!(rows(&small(&path).open().unwrap()).len(), 11);
}

#[test]
fn opening_again_and_again_adds_no_files() {
    let folder = folder();
    let path = folder.path().join("db");
    small(&path).open().unwrap().put("k", "v").unwrap();
    let files = || std::fs::read_dir(&path).unwrap().count();
    small(&path).open().unwrap().close().unwrap();
    let before = files();
    for _ in 0..5 {
        let db = small(&path).open().unwrap();
        assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    }
    assert!(files() <= before + 1, "{before} files, then {}", files());
}

#[test]
fn a_path_that_leads_nowhere_is_refused_with_the_reason() {
    let folder = folder();
    let nowhere = Db::open(folder.path().join("not/there")).unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Io);
    assert!(nowhere.to_string().contains("the directory above it must be there"), "{nowhere}");
    let empty = Db::open("").unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Config);
    assert!(empty.to_string().contains("empty"), "{empty}");
}
