//! Threads at every level and mode, with the recorder on and the checker as the oracle.
//!
//! Timing decides what happens and never whether the test passes: whatever the interleaving, every
//! transaction must get what its own level promises.

use std::sync::Barrier;

use isolde::{Db, Isolation, Mode, Result, Txn};
use isolde_history::check;
use isolde_tests::{configurations, open, rounds, seed};

const THREADS: u64 = 3;
const TRANSACTIONS: u64 = 120;
const KEYS: u64 = 5;

fn key(rng: &mut fastrand::Rng) -> String {
    format!("k{}", rng.u64(..KEYS))
}

/// A few random operations; values are unique, so that reads name their writers.
fn body(txn: &Txn, rng: &mut fastrand::Rng, unique: &str) -> Result<()> {
    for step in 0..rng.u32(2..6) {
        let value = format!("{unique}.{step}");
        match rng.u32(..12) {
            0..=3 => drop(txn.get(key(rng))?),
            4 | 5 => txn.put(key(rng), value)?,
            6 => txn.delete(key(rng))?,
            7 => {
                let (from, to) = (rng.u64(..KEYS), rng.u64(..=KEYS));
                txn.scan(format!("k{from}")..format!("k{to}")).collect::<Result<Vec<_>>>()?;
            }
            8 => drop(txn.get_for_update(key(rng))?),
            9 => {
                let at = key(rng);
                txn.get(&at)?;
                txn.put(at, value)?;
            }
            10 => {
                let savepoint = txn.savepoint();
                txn.put(key(rng), value)?;
                txn.rollback_to(savepoint)?;
            }
            _ => drop(txn.first(..)?),
        }
    }
    Ok(())
}

/// Runs transactions in several threads, each at a level and mode of the list, then checks what was
/// recorded. Gives how many committed.
fn run(name: &str, seed: u64, configurations: &[(Isolation, Mode)]) -> usize {
    let db = open(|b| b);
    (0..KEYS).for_each(|i| db.put(format!("k{i}"), "start").unwrap());
    let recorder = db.recorder().unwrap();
    let barrier = Barrier::new(usize::try_from(THREADS).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, barrier) = (db.clone(), &barrier);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed ^ (thread << 32));
                barrier.wait();
                for number in 0..TRANSACTIONS {
                    let (isolation, mode) = configurations[rng.usize(..configurations.len())];
                    one(&db, isolation, mode, &mut rng, &format!("t{thread}.{number}"));
                }
            });
        }
    });
    let history = recorder.finish();
    let report = check(&history);
    assert!(report.keeps_its_levels(), "{name}, seed {seed}:\n{report}");
    db.collect();
    db.check().unwrap();
    report.committed
}

fn one(db: &Db, isolation: Isolation, mode: Mode, rng: &mut fastrand::Rng, unique: &str) {
    let builder = db.txn().isolation(isolation).mode(mode);
    let read_only = rng.u32(..8) == 0;
    if read_only {
        let txn = builder.read_only().begin().unwrap();
        let reads = txn.get(key(rng)).and_then(|_| txn.scan(..).collect::<Result<Vec<_>>>());
        reads.unwrap();
        txn.commit().unwrap();
        return;
    }
    let txn = builder.begin().unwrap();
    let outcome = body(&txn, rng, unique);
    match outcome {
        Ok(()) if rng.u32(..10) > 0 => drop(txn.commit()),
        // An abandoned or failed transaction leaves nothing.
        Ok(()) | Err(_) => txn.rollback(),
    }
}

#[test]
fn every_level_keeps_its_promise_by_itself() {
    let seed = seed("every_level_keeps_its_promise_by_itself", 1);
    for (number, (isolation, mode)) in configurations().enumerate() {
        for round in 0..rounds(4) {
            let seed = seed + 1_000 * round + number as u64;
            let committed = run(&format!("{isolation} {mode}"), seed, &[(isolation, mode)]);
            assert!(committed > 0, "{isolation} {mode}: nobody committed");
        }
    }
}

#[test]
fn every_level_keeps_its_promise_whatever_the_others_run_at() {
    let seed = seed("every_level_keeps_its_promise_whatever_the_others_run_at", 2);
    let all: Vec<_> = configurations().collect();
    for round in 0..rounds(20) {
        run("mixed", seed + round, &all);
    }
}

#[test]
fn serializable_in_both_modes_is_serial_in_commit_order() {
    let seed = seed("serializable_in_both_modes_is_serial_in_commit_order", 3);
    let modes = Mode::ALL.map(|mode| (Isolation::Serializable, mode));
    for round in 0..rounds(20) {
        run("serializable, both modes", seed + round, &modes);
    }
}

/// The race that a level below snapshot allows, and the four ways out of it.
#[test]
fn counters_lose_updates_only_where_nothing_prevents_it() {
    type Add = fn(&Db) -> Result<()>;
    let by_increment: Add = |db| db.increment("n", 1);
    let by_cas: Add = |db| loop {
        let old = db.get("n")?;
        let new = number(old.as_deref()) + 1;
        if db.compare_and_set("n", old.as_deref(), Some(&new.to_be_bytes()))? == isolde::Cas::Swapped {
            return Ok(());
        }
    };
    let by_lock: Add = |db| {
        db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Pessimistic).run(|t| {
            let old = number(t.get_for_update("n")?.as_deref());
            t.put("n", (old + 1).to_be_bytes())
        })
    };
    let optimistic: Add = |db| add_serializably(db, Mode::Optimistic);
    let pessimistic: Add = |db| add_serializably(db, Mode::Pessimistic);
    for add in [by_increment, by_cas, by_lock, optimistic, pessimistic] {
        let retry = isolde::RetryPolicy::default().with_max_attempts(10_000);
        let db = open(|b| b.retry(retry));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| add(&db).unwrap()));
            }
        });
        assert_eq!(number(db.get("n").unwrap().as_deref()), 200, "an update was lost");
        db.check().unwrap();
    }
}

fn number(value: Option<&[u8]>) -> i64 {
    value.map_or(0, |bytes| i64::from_be_bytes(bytes.try_into().unwrap()))
}

fn add_serializably(db: &Db, mode: Mode) -> Result<()> {
    db.txn().mode(mode).run(|t| {
        let old = number(t.get("n")?.as_deref());
        t.put("n", (old + 1).to_be_bytes())
    })
}
