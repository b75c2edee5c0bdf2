//! Group commit under shuttle, on a simulated disk: random interleavings of threads that commit, read and
//! wait for the log, with the power going at any operation.
//!
//! Run by `tools/shuttle`. A hang is found by shuttle itself: nobody can go on.
#![cfg(shuttle)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use isolde::{Db, Durability, ErrorKind, Mode};
use isolde_tests::crash::builder;
use isolde_wal::sim::{Failure, Kind, SimFs};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

/// Schedules per test: random ones, and as many of probabilistic concurrency testing (depth 3).
const SCHEDULES: usize = 3_000;

fn explore(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), SCHEDULES);
    shuttle::check_pct(test, SCHEDULES, 3);
}

fn number(value: Option<isolde::Bytes>) -> i64 {
    value.map_or(0, |bytes| i64::from_be_bytes(bytes[..].try_into().unwrap()))
}

/// A leader that waits for company for ever goes on when somebody comes who does not wait: another commit,
/// a sync, or the end.
#[test]
fn a_leader_that_waits_for_company_holds_up_nobody() {
    explore(|| {
        let db = builder(&SimFs::new(1)).open().unwrap();
        let patient = Durability::Group { max_delay: std::time::Duration::MAX };
        let writers = [patient, patient, Durability::Sync].map(|durability| {
            let db = db.clone();
            thread::spawn(move || {
                // By hand: whoever is in a body may not close, and all run on one thread here.
                let begun = db.txn().durability(durability).begin();
                let done = begun.and_then(|t| t.increment("n", 1).and_then(|()| t.commit()));
                // Refused, or rolled back, by `close`.
                let ended =
                    |error: isolde::Error| matches!(error.kind(), ErrorKind::Closed | ErrorKind::TransactionEnded);
                assert!(done.map_or_else(ended, |_| true));
            })
        });
        if thread_rng().r#gen() {
            db.sync().unwrap();
        }
        // Whoever came after the last impatient one waits until here.
        db.close().unwrap();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
}

/// What threads were promised: so many increments of the counter are there after a power cut.
#[derive(Default)]
struct Promised {
    own: [AtomicI64; 3],
    seen: AtomicI64,
}

impl Promised {
    /// Each thread's own counter, and the one that all share, hold at least what was promised.
    fn hold(&self, db: &Db) {
        db.check().unwrap();
        let mut sum = 0;
        for (thread, own) in self.own.iter().enumerate() {
            let there = number(db.get(format!("own/{thread}")).unwrap());
            assert!(there >= own.load(Ordering::SeqCst), "thread {thread}: {there}, promised {own:?}");
            sum += there;
        }
        let all = number(db.get("all").unwrap());
        assert_eq!(all, sum, "a transaction is there by half");
        assert!(all >= self.seen.load(Ordering::SeqCst), "{all}, and {:?} was seen", self.seen);
    }
}

/// Commits twice, and counts what was acknowledged as durable.
fn commit_twice(db: &Db, thread: usize, durability: Durability, mode: Mode, promised: &Promised) {
    for _ in 0..2 {
        let done = db.txn().durability(durability).mode(mode).run(|t| {
            t.increment(format!("own/{thread}"), 1)?;
            t.increment("all", 1)
        });
        if done.is_ok() && durability == Durability::Sync {
            promised.own[thread].fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn three_parties(break_disk: impl Fn(&SimFs) + Send + Sync + Clone + 'static) {
    let parties = [
        [Durability::Sync, Durability::Sync, Durability::Sync],
        [Durability::Sync, Durability::Buffered, Durability::Sync],
        [Durability::Sync, Durability::None, Durability::Buffered],
    ];
    explore(move || {
        let disk = SimFs::new(thread_rng().r#gen());
        let db = builder(&disk).open().unwrap();
        break_disk(&disk);
        let promised = Arc::new(Promised::default());
        let durabilities = parties[thread_rng().gen_range(0..parties.len())];
        let writers: Vec<_> = (0..3)
            .map(|party| {
                let (db, promised, durability) = (db.clone(), Arc::clone(&promised), durabilities[party]);
                let mode = Mode::ALL[party % 2];
                thread::spawn(move || commit_twice(&db, party, durability, mode, &promised))
            })
            .collect();
        // What a read shows is promised, too, whether it was begun read-only or not.
        let read_only = db.txn().durability(Durability::Sync).read_only().run(|t| {
            let all = t.get("all")?;
            let own = (0..3).map(|party| t.get(format!("own/{party}")).map(number)).sum::<isolde::Result<i64>>()?;
            assert_eq!(number(all.clone()), own, "a snapshot shows half of a transaction");
            Ok(all)
        });
        let read = db.txn().durability(Durability::Sync).mode(Mode::Pessimistic).run(|t| t.get("all"));
        for seen in [read_only, read].into_iter().flatten() {
            promised.seen.fetch_max(number(seen), Ordering::SeqCst);
        }
        for writer in writers {
            writer.join().unwrap();
        }
        let image = disk.crash(thread_rng().r#gen());
        drop(db);
        promised.hold(&builder(&image.disk).open().unwrap());
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    three_parties(|disk| disk.crash_at(thread_rng().gen_range(0..16)));
}

#[test]
fn nothing_acknowledged_is_lost_when_a_sync_fails() {
    three_parties(|disk| {
        let failures = [Failure::SyncDrops, Failure::SyncKeeps, Failure::SyncPretends];
        disk.fail(Kind::Sync, thread_rng().gen_range(0..4), failures[thread_rng().gen_range(0..3)]);
    });
}

/// Checkpoints beside commits: what is recovered from both is what was committed.
#[test]
fn a_checkpoint_beside_commits_holds_a_durable_state() {
    explore(|| {
        let disk = SimFs::new(thread_rng().r#gen());
        // Each row is a partition of its own, as of a time of its own.
        let db = builder(&disk).checkpoint_partition_bytes(1).open().unwrap();
        let promised = Arc::new(Promised::default());
        let writers: Vec<_> = [Durability::Sync, Durability::None]
            .into_iter()
            .enumerate()
            .map(|(party, durability)| {
                let (db, promised) = (db.clone(), Arc::clone(&promised));
                thread::spawn(move || commit_twice(&db, party, durability, Mode::Optimistic, &promised))
            })
            .collect();
        if thread_rng().r#gen() {
            disk.crash_at(thread_rng().gen_range(0..30));
        }
        let _ = db.checkpoint();
        for writer in writers {
            writer.join().unwrap();
        }
        let image = disk.crash(thread_rng().r#gen());
        drop(db);
        promised.hold(&builder(&image.disk).open().unwrap());
    });
}

/// Whoever closes gives the directory back, and nothing is acknowledged that the next one to open it does not
/// find.
#[test]
fn a_close_beside_commits_loses_nothing_that_is_acknowledged() {
    explore(|| {
        let disk = SimFs::new(thread_rng().r#gen());
        let db = builder(&disk).open().unwrap();
        let acknowledged = Arc::new(AtomicI64::new(0));
        let writers: Vec<_> = [Durability::Sync, Durability::Buffered, Durability::None]
            .into_iter()
            .enumerate()
            .map(|(party, durability)| {
                let (db, acknowledged) = (db.clone(), Arc::clone(&acknowledged));
                thread::spawn(move || {
                    // By hand: whoever is in a body may not close, and all run on one thread here.
                    let txn = db.txn().durability(durability).mode(Mode::ALL[party % 2]).begin();
                    match txn.and_then(|t| t.increment("all", 1).and_then(|()| t.commit())) {
                        Ok(_) => drop(acknowledged.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => {
                            let kinds = [ErrorKind::Closed, ErrorKind::TransactionEnded];
                            assert!(kinds.contains(&error.kind()), "{error}");
                        }
                    }
                })
            })
            .collect();
        if thread_rng().r#gen() {
            let other = db.clone();
            thread::spawn(move || other.close().unwrap());
        }
        db.close().unwrap();
        let next = builder(&disk).open().expect("the directory was given back");
        next.put("next", "there").unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
        let image = disk.crash(thread_rng().r#gen());
        drop(next);
        let next = builder(&image.disk).open().unwrap();
        assert!(next.get("next").unwrap().is_some());
        let there = number(next.get("all").unwrap());
        let promised = acknowledged.load(Ordering::SeqCst);
        assert_eq!(there, promised, "{promised} were acknowledged");
    });
}
