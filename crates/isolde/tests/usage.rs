//! What people get wrong, and what they are told.

use std::time::Duration;

use isolde::{Db, Error, ErrorKind, Isolation, Mode, prefix};

/// A day: whoever waits for a lock here has failed the test.
fn db() -> Db {
    Db::builder().in_memory().lock_timeout(Duration::from_secs(86_400)).open().unwrap()
}

fn refused(error: &Error) {
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::LockTimeout, false), "{error}");
    assert!(format!("{error:#}").contains("inside a body use its transaction"), "{error:#}");
}

#[test]
fn a_call_inside_a_body_does_not_wait_for_that_body() {
    for inner in Mode::ALL {
        let db = db();
        let attempts = std::cell::Cell::new(0);
        let end = db.txn().mode(Mode::Pessimistic).label("outer").run(|t| {
            attempts.set(attempts.get() + 1);
            t.put("k", "outer")?;
            db.txn().mode(inner).label("inner").run(|u| u.put("k", "inner"))
        });
        refused(&end.unwrap_err());
        assert_eq!(attempts.get(), 1, "{inner}: there is no use in trying again");
        db.put("k", "after").unwrap();
        db.check().unwrap();
    }
}

#[test]
fn nor_by_hand_in_a_scan_or_behind_somebody_who_waits_for_it() {
    let db = db();
    let begin = |label| db.txn().mode(Mode::Pessimistic).label(label).begin().unwrap();
    db.put("k", "v").unwrap();
    let end = db.txn().mode(Mode::Pessimistic).run(|t| {
        t.put("k", "outer")?;
        let by_hand = begin("by hand");
        refused(&by_hand.get("k").unwrap_err());
        refused(&by_hand.scan(..).next().unwrap().unwrap_err());
        // By hand it lives on, as after any timeout.
        by_hand.put("other", "x")?;
        by_hand.commit()?;

        // Another thread holds `j` and waits for `k`: whoever wants `j` here waits for this body, too.
        let between = begin("between");
        between.put("j", "x")?;
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || between.put("k", "between"));
            while db.waits_for().is_empty() {
                std::thread::yield_now();
            }
            refused(&begin("behind").put("j", "x").unwrap_err());
            db.kill(db.transactions().iter().find(|txn| txn.label.as_deref() == Some("between")).unwrap().id);
            assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::TransactionEnded);
        });
        Ok::<_, Error>(())
    });
    end.unwrap();
    db.check().unwrap();
}

#[test]
fn a_call_inside_a_body_waits_for_others_and_goes_on() {
    let db = db();
    let other = db.txn().mode(Mode::Pessimistic).begin().unwrap();
    other.put("log", "x").unwrap();
    std::thread::scope(|scope| {
        let body = scope.spawn(|| {
            db.txn().mode(Mode::Pessimistic).run(|t| {
                t.put("k", "outer")?;
                db.txn().mode(Mode::Pessimistic).run(|u| u.put("log", "inner"))
            })
        });
        while db.waits_for().is_empty() {
            std::thread::yield_now();
        }
        other.commit().unwrap();
        body.join().unwrap().unwrap();
    });
    assert_eq!(db.get("log").unwrap().as_deref(), Some(&b"inner"[..]));
    // Another database's transactions have numbers of their own.
    let second =
        Db::builder().in_memory().mode(Mode::Pessimistic).lock_timeout(Duration::from_nanos(1)).open().unwrap();
    let holder = second.begin().unwrap();
    holder.put("k", "x").unwrap();
    let end = db.txn().mode(Mode::Pessimistic).run(|t| {
        t.put("k", "x")?;
        Ok::<_, Error>(second.begin()?.put("k", "y").unwrap_err().is_retryable())
    });
    assert!(end.unwrap(), "a timeout is a timeout");
}

#[test]
fn skipping_what_is_locked_takes_a_lock() {
    let db = db();
    db.put("job/1", "mail").unwrap();
    for isolation in Isolation::ALL {
        for mode in Mode::ALL {
            let t = db.txn().isolation(isolation).mode(mode).begin().unwrap();
            let mut scan = t.scan(prefix("job/")).skip_locked();
            assert_eq!(scan.next().unwrap().unwrap_err().kind(), ErrorKind::Unsupported, "{isolation} {mode}");
            assert!(scan.next().is_none());
        }
    }
}

#[test]
fn redacted_keys_stay_out_of_every_form_of_an_error() {
    let db = Db::builder().in_memory().redact_keys(true).open().unwrap();
    let forms = |error: &Error| {
        let all = format!("{error}\n{error:#}\n{error:?}\n{error:#?}");
        assert!(!all.contains("secret"), "{all}");
        assert!(format!("{error}").contains('#'), "{error}: nothing tells which key");
    };
    let t = db.begin().unwrap();
    t.get("secret").unwrap();
    db.put("secret", "1").unwrap();
    t.put("secret", "2").unwrap();
    forms(&t.commit().unwrap_err());

    let t = db.begin().unwrap();
    assert_eq!(t.scan("secret/".."secret0").count(), 0);
    db.put("secret/1", "1").unwrap();
    t.put("x", "2").unwrap();
    forms(&t.commit().unwrap_err());

    let begin = || db.txn().mode(Mode::Pessimistic).begin().unwrap();
    let (one, two) = (begin(), begin());
    one.put("secret/1", "x").unwrap();
    forms(&two.nowait().put("secret/1", "x").unwrap_err());
    two.lock("secret/2".."secret/3", isolde::LockMode::Exclusive).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| one.put("secret/2", "x"));
        while db.waits_for().is_empty() {
            std::thread::yield_now();
        }
        let deadlock = two.put("secret/1", "x").unwrap_err();
        assert_eq!(deadlock.kind(), ErrorKind::Deadlock);
        forms(&deadlock);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn every_error_says_what_to_do() {
    let db = Db::builder().in_memory().merge_operator("refuse", |_, _| Err("never".into())).open().unwrap();
    db.put("k", "v").unwrap();
    db.put("n", i64::MAX.to_be_bytes()).unwrap();
    let t = db.begin().unwrap();
    let (first, second) = (t.savepoint(), t.savepoint());
    t.rollback_to(first).unwrap();
    let ended = db.begin().unwrap();
    db.kill(ended.id());
    let small = Db::builder().in_memory().memory_limit(1).open().unwrap();
    let closed = Db::builder().in_memory().open().unwrap();
    closed.close().unwrap();
    let errors = [
        db.insert("k", "w").unwrap_err(),
        db.increment("k", 1).unwrap_err(),
        db.increment("n", 1).unwrap_err(),
        db.merge("refuse", "k", "x").unwrap_err(),
        db.merge("unknown", "k", "x").unwrap_err(),
        db.put(vec![0; 100_000], "v").unwrap_err(),
        db.snapshot().unwrap().put("k", "v").unwrap_err(),
        t.rollback_to(second).unwrap_err(),
        ended.get("k").unwrap_err(),
        (0..100).find_map(|i| small.put([i], [0; 100]).err()).unwrap(),
        closed.get("k").unwrap_err(),
    ];
    for error in errors {
        assert!(format!("{error:#}").contains("\n  what to do: "), "{error:#}");
        assert_eq!(format!("{error}").lines().count(), 1);
    }
}

#[test]
fn a_full_database_can_be_emptied() {
    for mode in Mode::ALL {
        let db = Db::builder().in_memory().memory_limit(100_000).mode(mode).open().unwrap();
        let fill = |from: usize| (from..).find(|i| db.put(format!("{i:06}"), [0; 500]).is_err()).unwrap();
        let full = fill(0);
        for refused in [db.put("k", "v"), db.insert("k", "v"), db.increment("k", 1)] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::MemoryLimit);
        }
        db.delete("000000").unwrap();
        db.compare_and_set("000001", Some(&[0; 500]), None).unwrap();
        db.fetch_update("000002", |_| None).unwrap();
        (3..full).for_each(|i| db.delete(format!("{i:06}")).unwrap());
        assert!(fill(full) > full + full / 2, "{mode}: what was deleted is free again");
        db.check().unwrap();
    }
}

#[test]
fn the_last_sixty_four_deadlocks_are_remembered() {
    let db = db();
    let begin = || db.txn().mode(Mode::Pessimistic).begin().unwrap();
    for round in 0..66 {
        let (one, two) = (begin(), begin());
        one.put("a", "x").unwrap();
        two.put(format!("{round}"), "x").unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| one.put(format!("{round}"), "x"));
            while db.waits_for().is_empty() {
                std::thread::yield_now();
            }
            assert_eq!(two.put("a", "x").unwrap_err().kind(), ErrorKind::Deadlock);
            waiting.join().unwrap().unwrap();
        });
    }
    let recent = db.recent_deadlocks();
    assert_eq!(recent.len(), 64);
    assert!(recent[0].to_string().contains("\"2\""), "{}", recent[0]);
    assert!(recent[63].to_string().contains("\"65\""), "{}", recent[63]);
    assert_eq!(db.stats().locks.deadlocks, 66);
}
