//! Transactions that are ended from outside, and reads that are certified long after they were made.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use isolde::step::{Retry, Session};
use isolde::{Db, Deadlocks, Durability, ErrorKind, Isolation, Mode, WriteBehind};
use isolde_tests::hooked::{At, Hooked};
use isolde_tests::owned::owned;
use isolde_tests::{configurations, now, open, poll};
use isolde_wal::sim::SimFs;

fn session(db: &Db, isolation: Isolation, mode: Mode) -> Session {
    now(Session::begin(db.txn().isolation(isolation).mode(mode))).unwrap()
}

/// A marked row is certified against the view that returned it, although the scan and its view are
/// gone by then, and the version with them.
#[test]
fn a_marked_row_that_was_deleted_before_it_was_returned_is_a_conflict() {
    for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
        for collects in [false, true] {
            let db = open(|b| b);
            db.put("k", "v").unwrap();
            let txn = db.txn().isolation(isolation).mode(Mode::Optimistic).begin().unwrap();
            let mut scan = txn.scan(..).for_update();
            db.delete("k").unwrap();
            let row = scan.next().unwrap().unwrap();
            assert_eq!(&row.1[..], b"v", "the scan looks at the state as of its creation");
            drop(scan);
            if collects {
                db.collect();
            }
            txn.put("z", "because of k").unwrap();
            let outcome = txn.commit().map_err(|error| error.kind());
            assert_eq!(outcome.err(), Some(ErrorKind::Conflict), "{isolation}, collected: {collects}");
        }
    }
}

/// A retry that is wounded between the grant of the key that it locks first and the poll that fetches
/// it leaves that key free.
#[test]
fn a_wounded_begin_leaves_no_lock_behind() {
    let db = open(|b| b.deadlocks(Deadlocks::WoundWait));
    db.put("k", "0").unwrap();
    let pessimistic = || session(&db, Isolation::Serializable, Mode::Pessimistic);
    let optimistic = || db.txn().isolation(Isolation::Serializable).mode(Mode::Optimistic);
    let (oldest, holder) = (pessimistic(), pessimistic());
    assert!(oldest.id() < holder.id());

    // An optimistic transaction loses on the key; its next attempt locks it first.
    let mut retry = Retry::new(optimistic());
    let attempt = now(retry.begin()).unwrap();
    now(attempt.get("k")).unwrap();
    now(attempt.put("k", "1")).unwrap();
    let age = attempt.age();
    db.put("k", "2").unwrap();
    retry.after(now(attempt.commit()).unwrap_err(), age).unwrap();
    now(holder.put("k", "3")).unwrap();
    let mut begin = retry.begin();
    assert!(poll(&mut begin).is_pending());
    now(holder.commit()).unwrap();

    // It is granted, and not fetched: the oldest wounds it, and gets the key.
    let mut put = oldest.put("k", "4");
    assert!(poll(&mut put).is_pending());
    now(put).unwrap();
    let youngest = pessimistic();
    let mut put = youngest.put("k", "5");
    assert!(poll(&mut put).is_pending());
    assert!(now(begin).is_err());
    now(oldest.commit()).unwrap();
    assert!(poll(&mut put).is_ready(), "waits for one that is no more:\n{}", db.waits_for());
    now(youngest.commit()).unwrap();
    db.check().unwrap();
}

/// A commit that fails after it has locked its writes leaves no lock behind: the record that was made for it
/// is reclaimed, which only one that nobody locks is.
#[test]
fn a_commit_that_fails_leaves_no_lock_behind() {
    let (serializable, snapshot) = (Isolation::Serializable, Isolation::Snapshot);
    // Found after it took its commit_ts; before; and with more keys than are locked briefly.
    let cases = [(snapshot, 0..3), (serializable, 1..3), (serializable, 0..1), (serializable, 0..20)];
    for (isolation, keys) in cases {
        let db = open(|b| b);
        db.put("a", "0").unwrap();
        let txn = session(&db, isolation, Mode::Optimistic);
        now(txn.get("a")).unwrap();
        for n in keys.clone() {
            let key = if n == 0 { "a".to_owned() } else { format!("new {n}") };
            now(txn.put(key, "1")).unwrap();
        }
        db.put("a", "2").unwrap();
        assert_eq!(now(txn.commit()).map_err(|error| error.kind()).err(), Some(ErrorKind::Conflict));
        db.collect();
        assert_eq!(db.stats().records, 1, "{isolation}, {keys:?}: what was made for it goes");
        db.delete("a").unwrap();
        db.collect();
        assert_eq!(db.stats().records, 0, "{isolation}, {keys:?}");
    }
}

// --- killed or closed beside a commit ------------------------------------------------------------------

/// A transaction that is killed while its commit waits for space in the log is not acknowledged.
#[test]
fn a_commit_that_is_killed_in_admission_is_not_acknowledged() {
    let disk = Hooked::new(Arc::new(SimFs::new(1)));
    let write_behind = WriteBehind { write_bytes: 64, ..WriteBehind::default() };
    let options = Db::builder().vfs(Arc::new(disk.clone())).log_segment_bytes(64 << 10);
    let db = options.write_behind(write_behind).no_threads().open().unwrap();
    for (isolation, mode) in configurations() {
        // So much stands unwritten that the next commit writes it before it is admitted.
        db.txn().durability(Durability::None).run(|t| t.put("before", [7; 100])).unwrap();
        let txn = db.txn().isolation(isolation).mode(mode).begin().unwrap();
        txn.put("k", "v").unwrap();
        let (other, id) = (db.clone(), txn.id());
        disk.once(At::Write, move || assert!(other.kill(id)));
        let error = txn.commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TransactionEnded, "{isolation} {mode}");
        assert_eq!(db.get("k").unwrap(), None);
        db.check().unwrap();
    }
}

// --- foreign code in the way of a commit ---------------------------------------------------------------

/// What a value's owner does when nobody sees it any more, a panic included, changes nothing for whoever
/// commits then.
#[test]
fn an_owner_of_bytes_that_panics_when_it_goes_hurts_nobody() {
    for (isolation, mode) in configurations() {
        let db = open(|b| b);
        for round in 0..40 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                db.txn().isolation(isolation).mode(mode).run(|t| {
                    t.put_bytes("k", owned(|| panic!("the owner's own")))?;
                    t.put("n", [round])
                })
            }));
            assert!(matches!(outcome, Ok(Ok(()))), "{isolation} {mode}, round {round}");
            assert_eq!(db.get("n").unwrap().as_deref(), Some(&[round][..]));
            // Given up: what it held is free.
            let given_up = db.txn().isolation(isolation).mode(mode).begin().unwrap();
            given_up.put_bytes("k", owned(|| panic!("the owner's own"))).unwrap();
            given_up.put("n", "").unwrap();
            given_up.rollback();
        }
        db.put("k", "").unwrap();
        db.collect();
        db.check().unwrap();
    }
}

/// It may look at the database.
#[test]
fn an_owner_of_bytes_may_call_the_database_when_it_goes() {
    for (isolation, mode) in configurations() {
        let db = open(|b| b);
        let txn = Arc::new(db.txn().isolation(isolation).mode(mode).begin().unwrap());
        let (weak, other) = (Arc::downgrade(&txn), db.clone());
        let call = move || {
            let _ = weak.upgrade().map(|txn| txn.get("other"));
            assert!(other.transactions().len() <= 1);
            other.collect();
        };
        txn.put_bytes("k", owned(call.clone())).unwrap();
        txn.put_bytes("k", owned(call.clone())).unwrap();
        let savepoint = txn.savepoint();
        txn.put_bytes("k", owned(call.clone())).unwrap();
        txn.rollback_to(savepoint).unwrap();
        txn.put_bytes("j", owned(call)).unwrap();
        drop(txn);
        db.check().unwrap();
    }
}
