//! Deadlock policies, retries and limits, through the whole engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use isolde::step::Session;
use isolde::{Deadlocks, Error, ErrorKind, Isolation, ManualClock, Mode, RetryPolicy, Victim};
use isolde_tests::{now, open, poll, seed};

const POLICIES: [Deadlocks; 7] = [
    Deadlocks::Detect { victim: Victim::Youngest },
    Deadlocks::Detect { victim: Victim::Oldest },
    Deadlocks::Detect { victim: Victim::FewestLocks },
    Deadlocks::Detect { victim: Victim::Requester },
    Deadlocks::WoundWait,
    Deadlocks::WaitDie,
    Deadlocks::NoWait,
];

/// Threads that lock a few hot keys in random orders: every transaction comes through in the end, no
/// wait lasts, and no money is made or lost.
#[test]
fn a_storm_of_deadlocks_is_resolved_under_every_policy() {
    const KEYS: u64 = 4;
    const TRANSFERS: u64 = 40;
    let seed = seed("a_storm_of_deadlocks_is_resolved_under_every_policy", 5);
    for policy in POLICIES {
        let retry = RetryPolicy::default().with_max_attempts(100_000);
        let db = open(|b| b.deadlocks(policy).no_lock_timeout().retry(retry));
        (0..KEYS).for_each(|i| db.put([i as u8], 100_i64.to_be_bytes()).unwrap());
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let db = &db;
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed + thread);
                    for _ in 0..TRANSFERS {
                        let (from, to) = (rng.u64(..KEYS), rng.u64(..KEYS));
                        let moved = db.txn().mode(Mode::Pessimistic).run(|t| {
                            let read = |key| -> isolde::Result<i64> {
                                Ok(i64::from_be_bytes(t.get([key])?.unwrap()[..].try_into().unwrap()))
                            };
                            let balance = read(from as u8)?;
                            t.put([from as u8], (balance - 1).to_be_bytes())?;
                            let balance = read(to as u8)?;
                            t.put([to as u8], (balance + 1).to_be_bytes())
                        });
                        moved.unwrap_or_else(|error| panic!("{policy:?}: {error:#}"));
                    }
                });
            }
        });
        let rows = db.snapshot().unwrap().scan(..).collect::<isolde::Result<Vec<_>>>().unwrap();
        let sum: i64 = rows.iter().map(|(_, v)| i64::from_be_bytes(v[..].try_into().unwrap())).sum();
        assert_eq!(sum, 100 * i64::try_from(KEYS).unwrap(), "{policy:?}: money was made or lost");
        db.check().unwrap();
    }
}

#[test]
fn an_idle_transaction_is_wounded_at_once_and_learns_of_it_at_its_next_call() {
    let db = open(|b| b.deadlocks(Deadlocks::WoundWait));
    let older = now(Session::begin(db.txn().mode(Mode::Pessimistic))).unwrap();
    let id = older.id();
    let younger = now(Session::begin(db.txn().mode(Mode::Pessimistic))).unwrap();
    now(younger.put("k", "young")).unwrap();
    let mut put = older.put("k", "old");
    let granted = poll(&mut put);
    assert!(granted.is_ready() || poll(&mut put).is_ready(), "the younger one was not rolled back");
    let error = now(younger.get("k")).unwrap_err();
    assert!(matches!(&error, Error::Wounded(wound) if wound.by == id), "{error}");
    assert!(error.is_retryable());
    now(older.commit()).unwrap();
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"old"[..]));
    db.check().unwrap();
}

#[test]
fn a_deadlock_names_its_cycle_and_is_remembered() {
    let db = open(|b| b);
    let sessions =
        ["left", "right"].map(|label| now(Session::begin(db.txn().mode(Mode::Pessimistic).label(label))).unwrap());
    now(sessions[0].put("a", "1")).unwrap();
    now(sessions[1].put("b", "1")).unwrap();
    let mut waits = sessions[0].put("b", "2");
    assert!(poll(&mut waits).is_pending());
    let error = now(sessions[1].put("a", "2")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    let text = format!("{error:#}");
    for part in ["left", "right", "\"a\"", "\"b\"", "what to do"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(poll(&mut waits).is_ready(), "the victim kept its locks");
    assert_eq!(db.recent_deadlocks().len(), 1);
}

#[test]
fn retries_are_counted_told_of_and_exhausted() {
    let told = Arc::new(AtomicU32::new(0));
    let hook = Arc::clone(&told);
    let retry = RetryPolicy::default().with_max_attempts(3).with_delays(Duration::ZERO, Duration::ZERO);
    let db = open(|b| {
        b.retry(retry).on_retry(move |event| {
            assert_eq!(event.label, Some("mine"));
            hook.fetch_add(1, Ordering::SeqCst);
        })
    });
    let runs = AtomicU32::new(0);
    let end = db.txn().isolation(Isolation::Snapshot).label("mine").run(|t| {
        runs.fetch_add(1, Ordering::SeqCst);
        t.get("k")?;
        // Somebody else is always faster, on another key each time.
        let key = format!("k{}", runs.load(Ordering::SeqCst));
        db.put(&key, "other")?;
        t.put(&key, "mine")
    });
    let error = end.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RetriesExhausted);
    assert!(error.conflict().is_some());
    assert_eq!((runs.load(Ordering::SeqCst), told.load(Ordering::SeqCst)), (3, 2));
    assert_eq!(db.stats().retries, 2);
    db.check().unwrap();
}

#[test]
fn an_optimistic_body_that_loses_too_often_escalates() {
    let retry = RetryPolicy::default().with_escalate_after(2).with_delays(Duration::ZERO, Duration::ZERO);
    let db = open(|b| b.retry(retry));
    let modes = std::cell::RefCell::new(Vec::new());
    db.transact(|t| {
        modes.borrow_mut().push((t.isolation(), t.mode()));
        t.get("fixed")?;
        if t.mode() == Mode::Optimistic {
            db.put(format!("other{}", modes.borrow().len()), "x")?;
            t.scan("other".."otherz").count();
            db.put(format!("other{}", modes.borrow().len()), "y")?;
        }
        t.put("fixed", "done")
    })
    .unwrap();
    let optimistic = (Isolation::Serializable, Mode::Optimistic);
    assert_eq!(*modes.borrow(), [optimistic, optimistic, (Isolation::Serializable, Mode::Pessimistic)]);
    db.check().unwrap();
}

#[test]
fn snapshots_that_are_too_old_are_ended() {
    let clock = Arc::new(ManualClock::default());
    let db = open(|b| b.clock(Arc::clone(&clock) as Arc<dyn isolde::Clock>).max_snapshot_age(Duration::from_secs(5)));
    db.put("k", "v").unwrap();
    let old = db.snapshot().unwrap();
    clock.advance(Duration::from_secs(6));
    let young = db.snapshot().unwrap();
    db.collect();
    assert_eq!(old.get("k").unwrap_err().kind(), ErrorKind::SnapshotTooOld);
    assert!(young.get("k").unwrap().is_some());
}

/// Whoever is rolled back gives locks back, which can wound the next one: that must not need a stack as deep
/// as the queue is long.
#[test]
fn a_long_queue_of_the_young_is_wounded_at_once() {
    const YOUNG: usize = 1_000;
    let db = open(|b| b.deadlocks(Deadlocks::WoundWait));
    let begin = || now(Session::begin(db.txn().mode(Mode::Pessimistic))).unwrap();
    let oldest = begin();
    let young: Vec<Session> = (0..YOUNG).map(|_| begin()).collect();
    assert!(young.iter().all(|session| oldest.id() < session.id()));
    let mut puts: Vec<_> = young.iter().map(|session| session.put("k", "young")).collect();
    let granted = puts.iter_mut().map(poll).filter(Poll::is_ready).count();
    assert_eq!(granted, 1, "the first has it, and the others wait");
    let mut put = oldest.put("k", "old");
    assert!(poll(&mut put).is_pending(), "it wounds, and asks again");
    now(put).unwrap();
    now(oldest.commit()).unwrap();
    let ended = puts[1..].iter_mut().map(poll).filter(|polled| matches!(polled, Poll::Ready(Err(_)))).count();
    assert_eq!(ended, YOUNG - 1, "all were wounded");
    drop((puts, young));
    assert_eq!(db.stats().locks.owners, 0);
    db.check().unwrap();
}

/// The end took everything away; a savepoint after it must not bring a lock owner back.
#[test]
fn a_savepoint_after_the_end_leaves_nothing_behind() {
    let clock = Arc::new(ManualClock::default());
    let db = open(|b| b.clock(Arc::clone(&clock) as Arc<dyn isolde::Clock>).max_snapshot_age(Duration::from_secs(5)));
    let old = db.txn().isolation(Isolation::Snapshot).mode(Mode::Pessimistic).begin().unwrap();
    clock.advance(Duration::from_secs(6));
    db.collect();
    assert_eq!(old.get("k").unwrap_err().kind(), ErrorKind::SnapshotTooOld);
    let savepoint = old.savepoint();
    assert_eq!(old.rollback_to(savepoint).unwrap_err().kind(), ErrorKind::SnapshotTooOld);
    assert_eq!(db.stats().locks.owners, 0, "{:?}", db.stats());
    drop(old);
    db.check().unwrap();
}

#[test]
fn memory_over_its_limit_refuses_writes_and_is_freed_by_deletes() {
    let db = open(|b| b.memory_limit(400_000));
    let full = (0..100_000_u32).find_map(|i| db.put(i.to_be_bytes(), [0_u8; 200]).err().map(|error| (i, error)));
    let (count, error) = full.expect("the limit is never reached");
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    assert!(count > 100, "only {count} rows fitted");
    assert!(db.get(0_u32.to_be_bytes()).unwrap().is_some());
    db.check().unwrap();
}

#[test]
fn reads_of_a_snapshot_never_wait() {
    let db = open(|b| b);
    let writer = now(Session::begin(db.txn().mode(Mode::Pessimistic))).unwrap();
    now(writer.put("k", "v")).unwrap();
    for isolation in Isolation::ALL {
        let reader = now(Session::begin(db.txn().isolation(isolation).mode(Mode::Optimistic))).unwrap();
        assert!(matches!(poll(&mut reader.get("k")), Poll::Ready(Ok(_))));
        assert!(matches!(poll(&mut reader.scan(..)), Poll::Ready(Ok(_))));
    }
}

#[test]
fn skip_locked_takes_what_is_free_and_is_refused_where_it_is_unsound() {
    let db = open(|b| b);
    (0..3).for_each(|i| db.put(format!("job/{i}"), "x").unwrap());
    let begin = |isolation| now(Session::begin(db.txn().isolation(isolation).mode(Mode::Pessimistic))).unwrap();
    let first = begin(Isolation::ReadCommitted);
    now(first.get_for_update("job/0")).unwrap();
    let second = begin(Isolation::Snapshot);
    let free: Vec<_> = now(second.scan_skip_locked(..)).unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(free, ["job/1", "job/2"]);
    for isolation in [Isolation::RepeatableRead, Isolation::Serializable] {
        let refused = now(begin(isolation).scan_skip_locked(..)).unwrap_err();
        assert!(matches!(refused, Error::Unsupported(why) if why.contains("level")), "{refused}");
    }
    for isolation in Isolation::ALL {
        let optimistic = now(Session::begin(db.txn().isolation(isolation).mode(Mode::Optimistic))).unwrap();
        let refused = now(optimistic.scan_skip_locked(..)).unwrap_err();
        assert!(matches!(refused, Error::Unsupported(why) if why.contains("mode")), "{refused}");
    }
}

#[test]
fn a_conflict_is_counted_once_whether_a_call_or_the_commit_meets_it() {
    for mode in Mode::ALL {
        let db = open(|b| b);
        let loser = now(Session::begin(db.txn().isolation(Isolation::Snapshot).mode(mode))).unwrap();
        now(loser.get("k")).unwrap();
        db.put("k", "newer").unwrap();
        let outcome = now(loser.put("k", "mine")).and_then(|()| now(loser.commit()).map(drop));
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(db.stats().conflicts, 1, "{mode:?}");
    }
}
