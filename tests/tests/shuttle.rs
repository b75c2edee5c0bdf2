//! The whole commit path under shuttle: random interleavings of threads, at every latch and atomic.
//!
//! Run by `tools/shuttle`. Polling on one thread cannot see faults inside a commit; this can.
#![cfg(shuttle)]

use std::sync::Arc;

use isolde::{Db, Isolation, Mode, Result, Txn};
use shuttle::thread;

/// Schedules per test: random ones, and as many of probabilistic concurrency testing (depth 3).
const SCHEDULES: usize = 1_500;

fn explore(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), SCHEDULES);
    shuttle::check_pct(test, SCHEDULES, 3);
}

fn db() -> Db {
    Db::builder().in_memory().no_lock_timeout().open().unwrap()
}

fn begin(db: &Db, isolation: Isolation, mode: Mode) -> Txn {
    db.txn().isolation(isolation).mode(mode).begin().unwrap()
}

fn number(value: Option<isolde::Bytes>) -> i64 {
    value.map_or(0, |bytes| i64::from_be_bytes(bytes[..].try_into().unwrap()))
}

fn set(txn: &Txn, key: &str, value: i64) -> Result<()> {
    txn.put(key, value.to_be_bytes())
}

/// Runs one body once in each thread, and gives how many of them committed.
fn all_at_once(bodies: Vec<Box<dyn FnOnce() -> bool + Send>>) -> usize {
    let threads: Vec<_> = bodies.into_iter().map(|body| thread::spawn(body)).collect();
    threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
}

/// No update is lost: the counter is what those who committed added.
fn counter(isolation: Isolation, modes: [Mode; 3]) {
    explore(move || {
        let db = db();
        let bodies = modes
            .map(|mode| {
                let db = db.clone();
                Box::new(move || {
                    let add_one = || {
                        let txn = begin(&db, isolation, mode);
                        let before = number(txn.get("n")?);
                        set(&txn, "n", before + 1)?;
                        txn.commit()
                    };
                    add_one().is_ok()
                }) as Box<dyn FnOnce() -> bool + Send>
            })
            .into_iter()
            .collect();
        let committed = all_at_once(bodies);
        assert_eq!(number(db.get("n").unwrap()), i64::try_from(committed).unwrap(), "an update was lost");
        assert!(committed > 0, "everybody gave way to everybody");
        db.check().unwrap();
    });
}

#[test]
fn no_update_is_lost_among_optimistic_transactions() {
    counter(Isolation::Serializable, [Mode::Optimistic; 3]);
}

#[test]
fn no_update_is_lost_among_pessimistic_transactions() {
    counter(Isolation::Serializable, [Mode::Pessimistic; 3]);
}

#[test]
fn no_update_is_lost_when_modes_mix() {
    counter(Isolation::Serializable, [Mode::Optimistic, Mode::Pessimistic, Mode::Optimistic]);
    counter(Isolation::RepeatableRead, [Mode::Optimistic, Mode::Pessimistic, Mode::Optimistic]);
    counter(Isolation::Snapshot, [Mode::Optimistic, Mode::Pessimistic, Mode::Optimistic]);
}

/// A transaction is seen whole or not at all, in whatever view.
#[test]
fn commits_become_visible_at_once() {
    explore(|| {
        let db = db();
        let mut bodies: Vec<Box<dyn FnOnce() -> bool + Send>> = Vec::new();
        for (amount, mode) in [(1, Mode::Optimistic), (2, Mode::Pessimistic)] {
            let db = db.clone();
            bodies.push(Box::new(move || {
                let txn = begin(&db, Isolation::ReadCommitted, mode);
                let both = set(&txn, "x", amount).and_then(|()| set(&txn, "y", -amount));
                both.and_then(|()| txn.commit()).is_ok()
            }));
        }
        for isolation in [Isolation::Snapshot, Isolation::Serializable] {
            let db = db.clone();
            bodies.push(Box::new(move || {
                let txn = db.txn().isolation(isolation).read_only().begin().unwrap();
                let (x, y) = (number(txn.get("x").unwrap()), number(txn.get("y").unwrap()));
                assert_eq!(x + y, 0, "half of a commit was seen");
                let rows: Vec<i64> = txn.scan(..).map(|row| number(Some(row.unwrap().1))).collect();
                assert_eq!(rows.iter().sum::<i64>(), 0, "half of a commit was scanned");
                txn.commit().is_ok()
            }));
        }
        all_at_once(bodies);
        db.check().unwrap();
    });
}

/// A snapshot is a prefix of finished commits: it never changes under its reader, though a commit that
/// is still being certified has a smaller commit_ts than one that has finished.
#[test]
fn a_snapshot_never_changes_under_its_reader() {
    explore(|| {
        let db = db();
        db.put("x", 0_i64.to_be_bytes()).unwrap();
        let mut bodies: Vec<Box<dyn FnOnce() -> bool + Send>> = Vec::new();
        let certified = db.clone();
        bodies.push(Box::new(move || {
            let txn = begin(&certified, Isolation::Serializable, Mode::Optimistic);
            txn.get("z").unwrap();
            set(&txn, "x", 1).unwrap();
            txn.commit().is_ok()
        }));
        let blind = db.clone();
        bodies.push(Box::new(move || blind.put("w", 1_i64.to_be_bytes()).is_ok()));
        let reader = db.clone();
        bodies.push(Box::new(move || {
            let txn = reader.snapshot().unwrap();
            let both = || ["x", "w"].map(|key| number(txn.get(key).unwrap()));
            let first = both();
            thread::yield_now();
            assert_eq!(both(), first, "I2: a snapshot changed");
            true
        }));
        all_at_once(bodies);
        db.check().unwrap();
    });
}

/// What a commit acknowledged, the next transaction of the same thread sees, whoever else commits.
#[test]
fn an_acknowledged_commit_is_visible_to_whoever_begins_later() {
    explore(|| {
        let db = db();
        let writers = ["a", "b", "c"].map(|key| {
            let db = db.clone();
            Box::new(move || {
                let txn = begin(&db, Isolation::Serializable, Mode::Optimistic);
                // A read of another key: so that there is something to certify.
                let outcome = txn.get("z").and_then(|_| set(&txn, key, 1)).and_then(|()| txn.commit());
                if let Ok(commit) = outcome {
                    assert!(db.visible_ts() >= commit.ts, "I2: acknowledged before it was visible");
                    assert_eq!(number(db.get(key).unwrap()), 1, "I2: an own commit was not seen");
                }
                true
            }) as Box<dyn FnOnce() -> bool + Send>
        });
        all_at_once(writers.into_iter().collect());
        db.check().unwrap();
    });
}

/// Two doctors, at least one of whom stays: at serializable, in both modes and mixed.
#[test]
fn write_skew_never_commits_at_serializable() {
    for modes in [[Mode::Optimistic; 2], [Mode::Pessimistic; 2], [Mode::Optimistic, Mode::Pessimistic]] {
        explore(move || {
            let db = db();
            db.put("x", 1_i64.to_be_bytes()).unwrap();
            db.put("y", 1_i64.to_be_bytes()).unwrap();
            let bodies = [("x", modes[0]), ("y", modes[1])].map(|(mine, mode)| {
                let db = db.clone();
                Box::new(move || {
                    let leave = || {
                        let txn = begin(&db, Isolation::Serializable, mode);
                        let on_call = number(txn.get("x")?) + number(txn.get("y")?);
                        if on_call > 1 {
                            set(&txn, mine, 0)?;
                        }
                        txn.commit()
                    };
                    leave().is_ok()
                }) as Box<dyn FnOnce() -> bool + Send>
            });
            all_at_once(bodies.into_iter().collect());
            let on_call = number(db.get("x").unwrap()) + number(db.get("y").unwrap());
            assert!(on_call >= 1, "both left");
            db.check().unwrap();
        });
    }
}

/// The same with spans: each inserts only if the span is empty.
#[test]
fn predicate_write_skew_never_commits_at_serializable() {
    for modes in [[Mode::Optimistic; 2], [Mode::Pessimistic; 2], [Mode::Optimistic, Mode::Pessimistic]] {
        explore(move || {
            let db = db();
            let bodies = [("a/1", modes[0]), ("a/2", modes[1])].map(|(mine, mode)| {
                let db = db.clone();
                Box::new(move || {
                    let book = || {
                        let txn = begin(&db, Isolation::Serializable, mode);
                        if txn.scan(isolde::prefix("a/")).count() == 0 {
                            set(&txn, mine, 1)?;
                        }
                        txn.commit()
                    };
                    book().is_ok()
                }) as Box<dyn FnOnce() -> bool + Send>
            });
            all_at_once(bodies.into_iter().collect());
            assert!(db.snapshot().unwrap().scan(..).count() <= 1, "both booked");
            db.check().unwrap();
        });
    }
}

/// Whoever gets a lock sees the outcome of whoever had it before (I4).
#[test]
fn a_lock_is_given_on_only_when_its_holders_outcome_is_visible() {
    explore(|| {
        let db = db();
        let bodies = (0..3).map(|_| {
            let db = db.clone();
            Box::new(move || {
                let txn = begin(&db, Isolation::ReadCommitted, Mode::Pessimistic);
                let before = number(txn.get_for_update("n").unwrap());
                assert!(before <= number(db.get("n").unwrap()), "I2: a locked read was ahead of what is visible");
                set(&txn, "n", before + 1).unwrap();
                txn.commit().is_ok()
            }) as Box<dyn FnOnce() -> bool + Send>
        });
        let committed = all_at_once(bodies.collect());
        assert_eq!((committed, number(db.get("n").unwrap())), (3, 3), "I4: released before the outcome");
        db.check().unwrap();
    });
}

/// Increments commute, in both modes.
#[test]
fn increments_are_never_lost_and_never_abort() {
    explore(|| {
        let db = db();
        let bodies = [Mode::Optimistic, Mode::Pessimistic, Mode::Optimistic].map(|mode| {
            let db = db.clone();
            Box::new(move || {
                let txn = begin(&db, Isolation::Serializable, mode);
                txn.increment("n", 1).unwrap();
                txn.commit().unwrap();
                true
            }) as Box<dyn FnOnce() -> bool + Send>
        });
        all_at_once(bodies.into_iter().collect());
        assert_eq!(number(db.get("n").unwrap()), 3);
        db.check().unwrap();
    });
}

/// Collection beside readers and writers takes nothing that a view still sees.
#[test]
fn collection_takes_nothing_that_a_view_sees() {
    explore(|| {
        let db = db();
        db.put("k", 0_i64.to_be_bytes()).unwrap();
        let stop = Arc::new(());
        let mut bodies: Vec<Box<dyn FnOnce() -> bool + Send>> = Vec::new();
        for _ in 0..2 {
            let (db, _stop) = (db.clone(), Arc::clone(&stop));
            bodies.push(Box::new(move || {
                let txn = db.snapshot().unwrap();
                let first = txn.get("k").unwrap();
                assert!(first.is_some(), "I7: the version that a view sees was collected");
                assert_eq!(txn.get("k").unwrap(), first, "I1: a snapshot changed");
                true
            }));
        }
        let writer = db.clone();
        bodies.push(Box::new(move || {
            (1..3_i64).for_each(|i| writer.put("k", i.to_be_bytes()).unwrap());
            writer.collect();
            true
        }));
        all_at_once(bodies);
        db.collect();
        assert_eq!(db.stats().versions, 1);
        db.check().unwrap();
    });
}

/// A commit that is dropped while it waits to become visible is committed all the same.
#[test]
fn a_commit_dropped_before_it_is_visible_is_committed() {
    use std::task::{Context, Poll, Waker};

    use isolde::step::{Cause, Session};

    explore(|| {
        let db = db();
        let mut bodies: Vec<Box<dyn FnOnce() -> bool + Send>> = Vec::new();
        let certified = db.clone();
        bodies.push(Box::new(move || {
            let txn = begin(&certified, Isolation::Serializable, Mode::Optimistic);
            txn.get("z").unwrap();
            set(&txn, "x", 1).unwrap();
            txn.commit().is_ok()
        }));
        let dropped = db.clone();
        bodies.push(Box::new(move || {
            let mut cx = Context::from_waker(Waker::noop());
            let txn = dropped.txn().isolation(Isolation::ReadCommitted).mode(Mode::Optimistic);
            let Poll::Ready(Ok(session)) = Session::begin(txn).poll(&mut cx) else { panic!("a begin waited") };
            assert!(session.put("w", 1_i64.to_be_bytes()).poll(&mut cx).is_ready());
            let mut commit = session.commit();
            if commit.poll(&mut cx).is_pending() {
                assert_eq!(commit.cause(), Some(Cause::Visibility));
            }
            true
        }));
        all_at_once(bodies);
        assert_eq!(number(db.get("w").unwrap()), 1, "it had taken its place in the order");
        db.check().unwrap();
    });
}

/// A write under a lock on a span around its key, while the collector finds the key dead.
#[test]
fn a_write_under_a_span_lock_is_not_lost_to_the_collector() {
    explore(|| {
        let db = db();
        set_deleted(&db, "b");
        let collector = {
            let db = db.clone();
            thread::spawn(move || db.collect())
        };
        let txn = begin(&db, Isolation::Serializable, Mode::Pessimistic);
        txn.lock("a".."c", isolde::LockMode::Exclusive).unwrap();
        set(&txn, "b", 7).unwrap();
        txn.commit().unwrap();
        collector.join().unwrap();
        assert_eq!(number(db.get("b").unwrap()), 7, "a committed write is gone");
        db.check().unwrap();
    });
}

/// Leaves a record behind that nobody can tell from an absent key.
fn set_deleted(db: &Db, key: &str) {
    db.put(key, b"gone").unwrap();
    db.delete(key).unwrap();
}

/// A commit beside an operation of its own transaction that fails: it is refused, or all of it is there.
#[test]
fn a_commit_beside_an_operation_that_ends_the_transaction_is_all_or_nothing() {
    explore(|| {
        let db = db();
        db.put("x", 0_i64.to_be_bytes()).unwrap();
        let txn = begin(&db, Isolation::Snapshot, Mode::Pessimistic);
        db.put("x", 1_i64.to_be_bytes()).unwrap();
        set(&txn, "y", 1).unwrap();
        let mut scan = txn.scan("x".."y").for_update();
        // A conflict: the row is newer than the snapshot.
        let scanner = thread::spawn(move || drop(scan.next()));
        let committed = txn.commit().is_ok();
        scanner.join().unwrap();
        assert_eq!(db.get("y").unwrap().is_some(), committed, "acknowledged, and rolled back");
        assert!(db.locks().is_empty());
        db.check().unwrap();
    });
}

/// The age of a snapshot passes its limit while its transaction commits, and another thread asks.
#[test]
fn a_commit_beside_an_iterator_that_is_too_old_is_all_or_nothing() {
    use std::time::Duration;

    explore(|| {
        let clock = Arc::new(isolde::ManualClock::default());
        let builder = Db::builder().in_memory().no_lock_timeout().clock(clock.clone());
        let db = builder.max_snapshot_age(Duration::from_secs(1)).open().unwrap();
        let txn = begin(&db, Isolation::Serializable, Mode::Optimistic);
        txn.get("z").unwrap();
        set(&txn, "y", 1).unwrap();
        let mut scan = txn.scan("a".."b");
        let collector = {
            let db = db.clone();
            thread::spawn(move || {
                clock.advance(Duration::from_secs(2));
                db.collect();
                drop(scan.next());
            })
        };
        let committed = txn.commit().is_ok();
        collector.join().unwrap();
        assert_eq!(db.get("y").unwrap().is_some(), committed, "acknowledged, and rolled back");
        assert!(db.locks().is_empty());
        db.check().unwrap();
    });
}

/// A return to a savepoint beside a write of the same transaction: the write is undone, or is under
/// its lock.
#[test]
fn a_write_beside_a_rollback_to_a_savepoint_is_undone_or_locked() {
    explore(|| {
        let db = db();
        let txn = Arc::new(begin(&db, Isolation::ReadCommitted, Mode::Pessimistic));
        let savepoint = txn.savepoint();
        txn.increment("n", 1).unwrap();
        let other = {
            let db = db.clone();
            thread::spawn(move || db.increment("n", 10).unwrap())
        };
        let returns = {
            let txn = Arc::clone(&txn);
            thread::spawn(move || txn.rollback_to(savepoint).unwrap())
        };
        let writes = {
            let txn = Arc::clone(&txn);
            thread::spawn(move || txn.increment("n", 100).unwrap())
        };
        returns.join().unwrap();
        writes.join().unwrap();
        Arc::into_inner(txn).unwrap().commit().unwrap();
        other.join().unwrap();
        let n = number(db.get("n").unwrap());
        assert!(n == 10 || n == 110, "{n}");
        db.check().unwrap();
    });
}

/// In a snapshot view a locked span has nothing newer than the snapshot: what it shows is current
/// when its transaction commits.
#[test]
fn a_span_locked_in_a_snapshot_view_is_current() {
    explore(|| {
        let db = db();
        let certified = {
            let db = db.clone();
            thread::spawn(move || {
                let txn = begin(&db, Isolation::Serializable, Mode::Optimistic);
                txn.get("z").unwrap();
                set(&txn, "w", 1).unwrap();
                txn.commit().unwrap();
            })
        };
        let writer = {
            let db = db.clone();
            thread::spawn(move || {
                let txn = begin(&db, Isolation::ReadCommitted, Mode::Pessimistic);
                set(&txn, "k/1", 1).unwrap();
                txn.commit().unwrap().ts
            })
        };
        let txn = begin(&db, Isolation::Snapshot, Mode::Pessimistic);
        let decides = || {
            txn.lock(isolde::prefix("k/"), isolde::LockMode::Shared)?;
            let seen = number(txn.get("k/1")?);
            set(&txn, "out", seen)?;
            Ok::<_, isolde::Error>(seen)
        };
        let seen = decides();
        let decided = seen.and_then(|seen| Ok((seen, txn.commit()?.ts)));
        certified.join().unwrap();
        let written = writer.join().unwrap();
        if let Ok((seen, ts)) = decided {
            assert_eq!(seen == 1, written < ts, "I9: read {seen}, committed @{ts}, written @{written}");
        }
        db.check().unwrap();
    });
}

/// A savepoint beside a write: the write and its lock are both before it, or the write is after it.
#[test]
fn a_write_beside_a_savepoint_keeps_its_lock() {
    explore(|| {
        let db = db();
        let txn = Arc::new(begin(&db, Isolation::ReadCommitted, Mode::Pessimistic));
        let writes = {
            let txn = Arc::clone(&txn);
            thread::spawn(move || txn.increment("n", 1).unwrap())
        };
        let savepoint = txn.savepoint();
        writes.join().unwrap();
        txn.rollback_to(savepoint).unwrap();
        let other = {
            let db = db.clone();
            thread::spawn(move || db.increment("n", 10).unwrap())
        };
        Arc::into_inner(txn).unwrap().commit().unwrap();
        other.join().unwrap();
        let n = number(db.get("n").unwrap());
        assert!(n == 10 || n == 11, "{n}");
        db.check().unwrap();
    });
}

/// A transaction that is killed beside its commit is committed whole and acknowledged, or neither; and
/// whoever kills or closes is not hurt.
#[test]
fn a_kill_beside_a_commit_leaves_all_or_nothing() {
    for (isolation, mode) in [
        (Isolation::Serializable, Mode::Optimistic),
        (Isolation::Serializable, Mode::Pessimistic),
        (Isolation::ReadCommitted, Mode::Optimistic),
    ] {
        for closes in [false, true] {
            explore(move || {
                let db = db();
                let txn = begin(&db, isolation, mode);
                let id = txn.id();
                let killer = db.clone();
                let killed = thread::spawn(move || if closes { killer.close().is_ok() } else { killer.kill(id) });
                let body = || {
                    txn.get("other")?;
                    set(&txn, "x", 1)?;
                    set(&txn, "y", 1)
                };
                let committed = body().and_then(|()| txn.commit()).is_ok();
                // Whoever comes later finds no lock, and all of it or nothing.
                if closes {
                    killed.join().unwrap();
                } else {
                    let after = begin(&db, Isolation::Serializable, Mode::Pessimistic);
                    let (x, y) = (number(after.get("x").unwrap()), number(after.get("y").unwrap()));
                    assert_eq!((x, y), (i64::from(committed), i64::from(committed)));
                    set(&after, "x", 2).unwrap();
                    after.commit().unwrap();
                    killed.join().unwrap();
                }
                db.check().unwrap();
            });
        }
    }
}
