//! An operation that is dropped wherever it can be pending leaves nothing behind.

use std::sync::Arc;
use std::task::{Context, Waker};

use isolde::step::{Cause, Op, Session};
use isolde::{Db, ErrorKind, Isolation, LockMode, Mode, prefix};
use isolde_tests::{Flag, now, open, poll};

fn session(db: &Db, isolation: Isolation, mode: Mode) -> Session {
    now(Session::begin(db.txn().isolation(isolation).mode(mode))).unwrap()
}

fn database() -> Db {
    let db = open(|b| b.merge_operator("append", |old, new| Ok([old.unwrap_or_default(), new].concat())));
    db.put("k", 1_i64.to_be_bytes()).unwrap();
    db
}

/// Starts an operation that must wait, drops it after `polls` polls or after it was granted, and
/// checks that the waiter holds nothing that it did not hold before and everybody else goes on.
fn check<T>(name: &str, isolation: Isolation, start: impl Fn(&Session) -> Op<T>) {
    for polls in 1..4 {
        for granted_first in [false, true] {
            let db = database();
            let holder = session(&db, Isolation::Serializable, Mode::Pessimistic);
            now(holder.put("k", 2_i64.to_be_bytes())).unwrap();
            let waiter = session(&db, isolation, Mode::Pessimistic);
            let mut op = start(&waiter);
            for _ in 0..polls {
                assert!(poll(&mut op).is_pending(), "{name} did not wait");
                assert_eq!(op.cause(), Some(Cause::Lock), "{name}");
            }
            let mut holder = Some(holder);
            if granted_first {
                now(holder.take().unwrap().commit()).unwrap();
            }
            drop(op);
            if let Some(holder) = holder {
                now(holder.commit()).unwrap();
            }
            let other = session(&db, Isolation::Serializable, Mode::Pessimistic);
            now(other.put("k", 3_i64.to_be_bytes())).unwrap_or_else(|e| panic!("{name} left a lock: {e:#}"));
            now(other.commit()).unwrap();
            now(waiter.commit()).unwrap();
            db.check().unwrap_or_else(|broken| panic!("{name}: {broken}"));
            assert_eq!(db.stats().active, 0, "{name}");
        }
    }
}

#[test]
fn dropped_waits_leave_the_queue_and_hold_nothing() {
    let serializable = Isolation::Serializable;
    check("get", serializable, |s| s.get("k"));
    check("get at repeatable read", Isolation::RepeatableRead, |s| s.get("k"));
    check("get_for_update", serializable, |s| s.get_for_update("k"));
    check("get_for_share", Isolation::ReadCommitted, |s| s.get_for_share("k"));
    check("put", serializable, |s| s.put("k", "x"));
    check("put at read uncommitted", Isolation::ReadUncommitted, |s| s.put("k", "x"));
    check("insert", serializable, |s| s.insert("k", "x"));
    check("delete", serializable, |s| s.delete("k"));
    check("increment", serializable, |s| s.increment("k", 1));
    check("merge", serializable, |s| s.merge("append", "k", "x"));
    check("compare_and_set", serializable, |s| s.compare_and_set("k", None, Some(b"x")));
    check("fetch_update", serializable, |s| s.fetch_update("k", |_| None));
    check("scan", serializable, |s| s.scan(..));
    check("scan of rows", Isolation::RepeatableRead, |s| s.scan(prefix("k")));
    check("scan for update", Isolation::ReadCommitted, |s| s.scan_for_update(..));
    check("lock", Isolation::ReadCommitted, |s| s.lock("a".."z", LockMode::Shared));
    check("lock exclusively", Isolation::ReadCommitted, |s| s.lock(.., LockMode::Exclusive));
}

#[test]
fn a_commit_dropped_while_it_locks_rolls_back() {
    for polls in 0..3 {
        let db = database();
        let holder = session(&db, Isolation::Serializable, Mode::Pessimistic);
        now(holder.get_for_update("k")).unwrap();
        let waiter = session(&db, Isolation::ReadCommitted, Mode::Optimistic);
        now(waiter.put("j", "x")).unwrap();
        now(waiter.put("k", "x")).unwrap();
        let mut commit = waiter.commit();
        for _ in 0..polls {
            assert!(poll(&mut commit).is_pending());
        }
        drop(commit);
        assert_eq!(db.stats().active, 1);
        now(holder.put("k", "y")).unwrap();
        now(holder.commit()).unwrap();
        assert_eq!(db.get("j").unwrap(), None);
        assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"y"[..]));
        db.check().unwrap();
    }
}

#[test]
fn a_wait_that_times_out_leaves_the_transaction_alive() {
    let db = database();
    let holder = session(&db, Isolation::Serializable, Mode::Pessimistic);
    now(holder.put("k", "y")).unwrap();
    let waiter = session(&db, Isolation::Serializable, Mode::Pessimistic);
    now(waiter.put("a", "1")).unwrap();
    let mut op = waiter.get("k");
    assert!(poll(&mut op).is_pending());
    op.time_out();
    let error = match poll(&mut op) {
        std::task::Poll::Ready(outcome) => outcome.unwrap_err(),
        std::task::Poll::Pending => panic!("a timed out wait must end"),
    };
    assert_eq!(error.kind(), ErrorKind::LockTimeout);
    assert!(error.to_string().contains(&holder.id().to_string()), "{error} does not name the holder");
    holder.rollback();
    assert_eq!(now(waiter.get("k")).unwrap().as_deref(), Some(&1_i64.to_be_bytes()[..]));
    now(waiter.commit()).unwrap();
    db.check().unwrap();
}

#[test]
fn waiters_are_woken_in_their_order_when_the_holder_ends() {
    let db = database();
    let holder = session(&db, Isolation::Serializable, Mode::Pessimistic);
    now(holder.put("k", "y")).unwrap();
    let flags: Vec<Arc<Flag>> = (0..3).map(|_| Arc::new(Flag::default())).collect();
    let waiters: Vec<Session> = (0..3).map(|_| session(&db, Isolation::Serializable, Mode::Pessimistic)).collect();
    let mut ops: Vec<Op<()>> = waiters.iter().map(|waiter| waiter.put("k", "z")).collect();
    for (op, flag) in ops.iter_mut().zip(&flags) {
        let waker = Waker::from(Arc::clone(flag));
        assert!(op.poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(holder);
    assert_eq!(flags.iter().map(|flag| flag.take()).collect::<Vec<_>>(), [true, false, false]);
    for ((waiter, mut op), turn) in waiters.into_iter().zip(ops).zip(0..) {
        assert!(poll(&mut op).is_ready(), "waiter {turn} was not granted in its turn");
        now(waiter.commit()).unwrap();
    }
    db.check().unwrap();
}

#[test]
fn a_transaction_killed_from_outside_ends_its_waits() {
    let db = database();
    let holder = session(&db, Isolation::Serializable, Mode::Pessimistic);
    now(holder.put("k", "y")).unwrap();
    let waiter = session(&db, Isolation::Serializable, Mode::Pessimistic);
    let mut op = waiter.get("k");
    assert!(poll(&mut op).is_pending());
    assert!(db.kill(waiter.id()));
    assert!(poll(&mut op).is_ready());
    assert!(db.kill(holder.id()));
    assert_eq!(now(holder.get("k")).unwrap_err().kind(), ErrorKind::TransactionEnded);
    db.check().unwrap();
    assert!(db.locks().is_empty());
}

/// An iterator that is alive and idle blocks neither commit nor rollback.
#[test]
fn an_idle_iterator_blocks_nothing() {
    let db = database();
    let t = db.txn().mode(Mode::Pessimistic).begin().unwrap();
    let mut rows = t.scan(..);
    assert!(rows.next().is_some());
    t.commit().unwrap();
    assert_eq!(rows.next().unwrap().unwrap_err().kind(), ErrorKind::TransactionEnded);
    assert!(rows.next().is_none());
    db.check().unwrap();
}

/// A writer behind readers is not starved by readers that come later.
#[test]
fn a_reader_waits_behind_a_writer_that_waits() {
    let db = database();
    let reader = session(&db, Isolation::Serializable, Mode::Pessimistic);
    now(reader.get("k")).unwrap();
    let writer = session(&db, Isolation::Serializable, Mode::Pessimistic);
    let mut put = writer.put("k", "x");
    assert!(poll(&mut put).is_pending());
    let late = session(&db, Isolation::Serializable, Mode::Pessimistic);
    let mut get = late.get("k");
    assert!(poll(&mut get).is_pending(), "a later reader overtook the waiting writer");
    now(reader.commit()).unwrap();
    assert!(poll(&mut get).is_pending());
    assert!(poll(&mut put).is_ready());
    now(writer.commit()).unwrap();
    assert!(poll(&mut get).is_ready());
    now(late.commit()).unwrap();
    db.check().unwrap();
}

#[test]
fn waits_are_listed_as_table_json_and_dot() {
    let db = database();
    let holder = now(Session::begin(db.txn().mode(Mode::Pessimistic).label("holder"))).unwrap();
    now(holder.put("k", "y")).unwrap();
    let waiter = now(Session::begin(db.txn().mode(Mode::Pessimistic).label("waiter \"w\""))).unwrap();
    let mut op = waiter.put("k", "z");
    assert!(poll(&mut op).is_pending());
    let (locks, waits) = (db.locks(), db.waits_for());
    for text in [locks.to_string(), locks.to_json(), locks.to_dot(), waits.to_string(), waits.to_json(), waits.to_dot()]
    {
        assert!(text.contains("holder") && text.contains("waiter"), "{text}");
    }
    assert_eq!(waits.rows.len(), 1);
    assert_eq!((waits.rows[0].waiter, waits.rows[0].blocker.txn), (waiter.id(), holder.id()));
    assert_eq!(db.transactions().len(), 2);
    drop(op);
    drop(holder);
    drop(waiter);
    assert!(db.locks().is_empty() && db.waits_for().is_empty());
    db.check().unwrap();
}
