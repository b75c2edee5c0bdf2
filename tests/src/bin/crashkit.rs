//! A real process to be killed, and what looks at what it has left.
//!
//! ```text
//! crashkit run DIR SEED SYNC     commits until it is killed; prints a line for each commit that was acknowledged
//! crashkit check DIR ACKED       fails unless the database has those commits, and a prefix of all
//! ```
//!
//! `SYNC` is `sync` or `buffered`: what an acknowledged commit is to survive. `tools/crashes` drives it.

use std::io::Write;
use std::process::ExitCode;

use isolde::{Db, Durability, Error};

/// Each commit writes its number to `PAIRS` keys of a ring and to the counter.
const RING: u64 = 50;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["run", dir, seed, durability] => run(dir, seed, durability),
        ["check", dir, acked] => check(dir, acked),
        _ => Err("crashkit run DIR SEED sync|buffered, or crashkit check DIR ACKED".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("crashkit: {why}");
            ExitCode::FAILURE
        }
    }
}

fn open(dir: &str) -> Result<Db, String> {
    let opened = Db::builder().path(dir).log_segment_bytes(256 << 10).checkpoint_after(200 << 10).open();
    opened.map_err(|error| format!("{dir}: {error}"))
}

fn number(db: &Db, key: &str) -> Result<u64, String> {
    let value = db.get(key).map_err(|error| error.to_string())?;
    Ok(value.map_or(0, |value| value[..].try_into().map_or(u64::MAX, u64::from_be_bytes)))
}

/// Commits from several threads; a line for each acknowledged commit: the counter's value that it saw.
fn run(dir: &str, seed: &str, durability: &str) -> Result<(), String> {
    let seed: u64 = seed.parse().map_err(|_| "the seed is a number".to_owned())?;
    let durability = match durability {
        "sync" => Durability::Sync,
        "buffered" => Durability::Buffered,
        other => return Err(format!("{other}: sync or buffered")),
    };
    let db = open(dir)?;
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let db = &db;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed * 10 + thread);
                loop {
                    let size = rng.usize(..300);
                    let committed = db.txn().durability(durability).run(|t| {
                        let before = t.get_for_update("count")?;
                        let count = before.map_or(0, |value| value[..].try_into().map_or(0, u64::from_be_bytes)) + 1;
                        let value = [&count.to_be_bytes()[..], &vec![b'.'; size]].concat();
                        t.put(format!("{}/a", count % RING), &value)?;
                        t.put(format!("{}/b", count % RING), &value)?;
                        t.put("count", count.to_be_bytes())?;
                        Ok::<u64, Error>(count)
                    });
                    match committed {
                        Ok(count) => {
                            // One write, so that a line is there or not.
                            let line = format!("{count}\n");
                            if std::io::stdout().write_all(line.as_bytes()).is_err() {
                                return;
                            }
                        }
                        Err(error) => {
                            eprintln!("crashkit: {error}");
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(())
}

/// The state must be that after exactly so many commits as its counter says, and at least those that
/// were acknowledged.
fn check(dir: &str, acked: &str) -> Result<(), String> {
    let acked: u64 = acked.parse().map_err(|_| "ACKED is a number".to_owned())?;
    let db = open(dir)?;
    db.check()?;
    let count = number(&db, "count")?;
    if count < acked {
        return Err(format!("{count} commits are there, {acked} were acknowledged"));
    }
    for commit in count.saturating_sub(RING - 1).max(1)..=count {
        for half in ["a", "b"] {
            let key = format!("{}/{half}", commit % RING);
            let value = db.get(&key).map_err(|error| error.to_string())?.ok_or(format!("{key} is missing"))?;
            let there = value.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
            if there != Some(commit) {
                return Err(format!("{key} is of commit {there:?}, not {commit}: not a prefix of {count} commits"));
            }
        }
    }
    db.put("after", count.to_be_bytes()).map_err(|error| error.to_string())?;
    db.close().map_err(|error| error.to_string())?;
    println!("{count} commits, {acked} acknowledged");
    Ok(())
}
