//! How long a database takes to open: from a checkpoint, with a log behind it.

use std::fs;
use std::path::Path;
use std::time::Instant;

use isolde::{Db, Durability, Isolation, Mode};

use crate::{VALUE_BYTES, key, median};

/// How long it may take with all files in the page cache, in seconds.
pub const BOUND: f64 = 2.0;

/// What was measured, in seconds, the medians of the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Bytes of the log that were redone.
    pub log_bytes: u64,
    /// With all files in the page cache.
    pub warm: f64,
    /// With an empty page cache, where that can be had.
    pub cold: Option<f64>,
}

fn open(folder: &Path) -> Db {
    let builder = Db::builder().path(folder).durability(Durability::None).checkpoint_after(None);
    builder.open().expect("the folder holds a database or nothing")
}

/// Fills a database with `keys` keys, writes a checkpoint, puts `puts` of them once more, and opens it again
/// and again.
///
/// # Panics
/// If the disk fails.
#[must_use]
pub fn run(folder: &Path, keys: u64, puts: u64, rounds: usize) -> Opening {
    let db = open(folder);
    let fill = |numbers: &[u64], value: u8| {
        let txn = db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Optimistic).begin().expect("it is open");
        for n in numbers {
            txn.put(key(*n), [value; VALUE_BYTES]).expect("nobody else writes");
        }
        txn.commit().expect("nobody else writes");
    };
    (0..keys).collect::<Vec<u64>>().chunks(10_000).for_each(|numbers| fill(numbers, 7));
    db.sync().expect("the disk syncs");
    db.checkpoint().expect("there is space");
    let before = db.log_stats().map_or(0, |stats| stats.bytes);
    let mut rng = fastrand::Rng::with_seed(1);
    (0..puts).for_each(|_| fill(&[rng.u64(..keys)], 8));
    db.sync().expect("the disk syncs");
    let log_bytes = db.log_stats().map_or(0, |stats| stats.bytes) - before;
    db.close().expect("nothing runs");
    drop(db);

    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    timed(folder);
    for round in 1..=rounds {
        warm.push(timed(folder));
        // What is dirty cannot be dropped; a closed database has synced what counts.
        if fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
            cold.push(timed(folder));
        }
        println!("round {round}: warm {:.2} s, cold {:.2?} s", warm[round - 1], cold.get(round - 1));
    }
    Opening { log_bytes, warm: median(&warm), cold: (!cold.is_empty()).then(|| median(&cold)) }
}

fn timed(folder: &Path) -> f64 {
    let start = Instant::now();
    let db = open(folder);
    let seconds = start.elapsed().as_secs_f64();
    db.close().expect("nothing runs");
    seconds
}
