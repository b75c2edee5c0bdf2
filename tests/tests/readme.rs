//! The README's code runs as it stands there.

/// The code blocks of the README that a Rust user would paste, each a program of its own. rustdoc does
/// not run the blocks of test files, so they are kept equal to the examples below by this test.
#[test]
fn its_programs_are_the_ones_that_run_here() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<&str> =
        readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).map(str::trim).collect();
    let here = include_str!("readme.rs");
    for block in blocks {
        let body = block.split("fn main() -> isolde::Result<()> {").nth(1).expect("every block is a program");
        for line in body.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "}") {
            assert!(here.contains(line), "the README's line `{line}` runs nowhere: add it to this file");
        }
    }
}

#[test]
fn the_first_program_runs() -> isolde::Result<()> {
    use isolde::{Db, Isolation, Mode};

    let db = Db::builder().in_memory().open()?;
    db.put("alice", 10_i64.to_be_bytes())?;

    // Begun, run, committed, and retried on conflict. Serializable unless you say otherwise.
    db.transact(|t| {
        t.increment("alice", -3)?;
        t.increment("bob", 3)
    })?;

    // Any level and mode, per transaction.
    let t = db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Pessimistic).label("job").begin()?;
    let job = t.scan(isolde::prefix("job/")).for_update().skip_locked().next().transpose()?;
    assert!(job.is_none());
    t.commit()?;
    Ok(())
}

#[test]
fn the_program_with_a_table_runs() -> isolde::Result<()> {
    use isolde::{Db, Table};

    const SCORES: Table<(String, u32), i64> = Table::new("scores");
    let db = Db::builder().in_memory().open()?;
    db.table(SCORES).put(&("ada".to_owned(), 1), 10)?;
    db.transact(|t| t.table(SCORES).increment(&("ada".to_owned(), 1), 5))?;
    let best = db.begin()?.table(SCORES).scan_prefix(&"ada".to_owned()).next_back().transpose()?;
    assert_eq!(best, Some((("ada".to_owned(), 1), 15)));
    Ok(())
}

#[test]
fn the_recording_program_runs() -> isolde::Result<()> {
    use isolde_history::{assert_levels_kept, assert_serializable};

    let db = isolde::Db::builder().in_memory().open()?;
    let recorder = db.recorder()?;
    db.transact(|t| t.put("x", t.get("y")?.unwrap_or_default()))?;
    let history = recorder.finish();
    assert_levels_kept!(history);
    assert_serializable!(history);
    Ok(())
}

#[test]
fn the_durable_program_runs() -> isolde::Result<()> {
    use isolde::{Db, Durability};

    let folder = tempfile::tempdir().expect("a folder for the example");
    let db = Db::open(folder.path().join("bank.db"))?;
    db.put("alice", 10_i64.to_be_bytes())?;
    db.txn().durability(Durability::Buffered).run(|t| t.increment("visits", 1))?;
    db.backup(folder.path().join("monday"))?; // a consistent copy, while in use
    Ok(())
}
