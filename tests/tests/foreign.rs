//! Code of the user that runs inside the engine: merge operators, closures, owners of bytes, wakers. None runs
//! under a latch, so all may use the database; a panic of theirs hurts nobody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use isolde::step::Session;
use isolde::{Builder, Cas, Db, ErrorKind, Isolation, Mode};
use isolde_tests::owned::{LONG, owned};
use isolde_tests::{configurations, now, open};

/// All that shows the inside of a database, and all that may be done beside.
fn use_everything(db: &Db) {
    assert!(db.transactions().len() <= 2);
    let _ = (db.stats(), db.locks(), db.waits_for(), db.recent_deadlocks());
    db.get("beside").unwrap();
    db.increment("beside", 1).unwrap();
    db.collect();
}

/// A database with an operator that appends, and does something else before.
fn with_operator(options: impl FnOnce(Builder) -> Builder, also: impl Fn(&Db) + Send + Sync + 'static) -> Db {
    let own: Arc<Mutex<Option<Db>>> = Arc::default();
    let inside = Arc::clone(&own);
    let db = open(|b| {
        options(b).merge_operator("append", move |value, operand| {
            let db = inside.lock().unwrap().clone();
            db.iter().for_each(&also);
            Ok([value.unwrap_or_default(), operand].concat())
        })
    });
    *own.lock().unwrap() = Some(db.clone());
    db
}

#[test]
fn a_merge_operator_may_use_the_database() {
    for (isolation, mode) in configurations() {
        let db = with_operator(|b| b, use_everything);
        db.put("k", "a").unwrap();
        let txn = db.txn().isolation(isolation).mode(mode).begin().unwrap();
        txn.merge("append", "k", "b").unwrap();
        txn.merge("append", "k", "c").unwrap();
        let savepoint = txn.savepoint();
        txn.merge("append", "k", "x").unwrap();
        txn.put("j", "1").unwrap();
        txn.merge("append", "j", "2").unwrap();
        txn.rollback_to(savepoint).unwrap();
        txn.put("j", "3").unwrap();
        txn.merge("append", "j", "4").unwrap();
        txn.merge("append", "i", "5").unwrap();
        txn.increment("n", 6).unwrap();
        txn.commit().unwrap();
        let values = ["k", "j", "i"].map(|key| db.get(key).unwrap().unwrap());
        assert_eq!(values, ["abc", "34", "5"], "{isolation} {mode}");
        db.check().unwrap();
        let both: isolde::Result<_> = db.txn().isolation(isolation).mode(mode).run(|t| {
            t.merge("append", "k", "d")?;
            let scanned: Vec<_> = t.scan("k".."l").collect::<isolde::Result<_>>()?;
            Ok((t.get("k")?, scanned))
        });
        assert_eq!(both.unwrap(), (Some("abcd".into()), vec![("k".into(), "abcd".into())]));
        db.check().unwrap();
    }
}

/// A call of the database inside of an operator is a transaction of its own; one that needs a lock of the
/// transaction around it fails, and the merge with it.
#[test]
fn a_merge_operator_does_not_wait_for_its_own_transaction() {
    for isolation in Isolation::ALL {
        for mode in Mode::ALL {
            let failed = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&failed);
            let db = with_operator(
                |b| b.no_lock_timeout(),
                move |db| {
                    if let Err(error) = db.put("k", "theirs") {
                        assert_eq!(error.kind(), ErrorKind::LockTimeout);
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                },
            );
            let txn = db.txn().isolation(isolation).mode(mode).begin().unwrap();
            txn.merge("append", "k", "b").unwrap();
            txn.commit().unwrap();
            assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"b"[..]));
            assert!(failed.load(Ordering::SeqCst) > 0, "{isolation} {mode}");
            db.check().unwrap();
        }
    }
}

#[test]
fn a_closure_does_not_wait_for_its_own_transaction() {
    let db = open(|b| b.no_lock_timeout());
    let txn = db.txn().mode(Mode::Pessimistic).begin().unwrap();
    let mut kind = None;
    txn.fetch_update("k", |_| {
        kind = db.put("k", "theirs").err().map(|error| error.kind());
        Some("mine".into())
    })
    .unwrap();
    txn.commit().unwrap();
    assert_eq!((kind, db.get("k").unwrap()), (Some(ErrorKind::LockTimeout), Some("mine".into())));
}

#[test]
fn an_operator_that_changes_the_key_that_it_merges_is_refused() {
    for (isolation, mode) in configurations() {
        let own: Arc<Mutex<Option<Arc<isolde::Txn>>>> = Arc::default();
        let inside = Arc::clone(&own);
        let db = open(|b| {
            b.merge_operator("rewrite", move |_, operand| {
                let txn = inside.lock().unwrap().clone();
                txn.iter().try_for_each(|txn| txn.put("k", "again")).unwrap();
                Ok(operand.to_vec())
            })
        });
        let txn = Arc::new(db.txn().isolation(isolation).mode(mode).begin().unwrap());
        *own.lock().unwrap() = Some(Arc::clone(&txn));
        txn.put("k", "a").unwrap();
        assert_eq!(txn.merge("rewrite", "k", "b").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(txn.get("k").unwrap(), Some("again".into()));
        own.lock().unwrap().take();
        drop(txn);
        db.check().unwrap();
    }
}

// --- owners of bytes -------------------------------------------------------------------------------------

/// The last handle of a database takes all values with it, whatever each of their owners does.
#[test]
fn owners_that_panic_when_a_database_goes_hurt_nobody() {
    for (isolation, mode) in configurations() {
        let gone = Arc::new(AtomicUsize::new(0));
        let panics = || {
            let gone = Arc::clone(&gone);
            owned(move || {
                gone.fetch_add(1, Ordering::SeqCst);
                panic!("the owner's own")
            })
        };
        let db = open(|b| b);
        let snapshot = db.snapshot().unwrap();
        for _ in 0..3 {
            db.txn()
                .isolation(isolation)
                .mode(mode)
                .run(|t| (0..5).try_for_each(|n| t.put_bytes([n], panics())))
                .unwrap();
        }
        let open = db.txn().isolation(isolation).mode(mode).begin().unwrap();
        (0..5).for_each(|n| open.put_bytes([10 + n], panics()).unwrap());
        drop((open, snapshot));
        drop(db);
        assert_eq!(gone.load(Ordering::SeqCst), 20, "{isolation} {mode}");
    }
}

/// A write that fails lets its value go when nothing is latched any more.
#[test]
fn an_owner_of_bytes_may_call_the_database_when_a_write_fails() {
    for (isolation, mode) in configurations() {
        let db = open(|b| b.max_write_set_bytes(LONG + 100));
        let txn = db.txn().isolation(isolation).mode(mode).begin().unwrap();
        let called = Arc::new(AtomicUsize::new(0));
        let call = || {
            let (db, called) = (db.clone(), Arc::clone(&called));
            owned(move || {
                assert_eq!(db.transactions().len(), 1);
                called.fetch_add(1, Ordering::SeqCst);
            })
        };
        txn.put_bytes("k", call()).unwrap();
        assert_eq!(txn.put_bytes("j", call()).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(called.load(Ordering::SeqCst), 1, "{isolation} {mode}");
        drop(txn);
        db.check().unwrap();
    }
    // One that comes too late for its snapshot.
    let db = open(|b| b);
    let txn = db.txn().isolation(Isolation::Snapshot).mode(Mode::Pessimistic).begin().unwrap();
    txn.get("k").unwrap();
    db.put("k", "theirs").unwrap();
    let other = db.clone();
    let lost = txn.put_bytes("k", owned(move || assert!(other.transactions().len() <= 1)));
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::Conflict);
}

/// What a full database collects for a write may write in its turn.
#[test]
fn an_owner_of_bytes_may_write_to_a_full_database() {
    const LIMIT: usize = 1 << 20;
    let big = || vec![0; LIMIT / 3 * 2];
    let db = open(|b| b.memory_limit(LIMIT));
    let wrote = Arc::new(AtomicUsize::new(0));
    db.put("big", big()).unwrap();
    for n in 0..8_u8 {
        let (other, wrote) = (db.clone(), Arc::clone(&wrote));
        let writes = owned(move || {
            other.put("small", "").unwrap();
            wrote.fetch_add(1, Ordering::SeqCst);
        });
        let txn = db.begin().unwrap();
        txn.put_bytes([n], writes).unwrap();
        txn.commit().unwrap();
    }
    let snapshot = db.snapshot().unwrap();
    (0..8_u8).for_each(|n| db.delete([n]).unwrap());
    db.put("big", big()).unwrap();
    assert_eq!(db.put("k", "").unwrap_err().kind(), ErrorKind::MemoryLimit);
    assert_eq!(wrote.load(Ordering::SeqCst), 0, "a view holds them all");
    drop(snapshot);
    db.put("k", "").unwrap();
    assert_eq!(wrote.load(Ordering::SeqCst), 8);
    db.check().unwrap();
}

/// A database that is not over its limit when a write begins is not when that write has locked its key.
#[test]
fn what_inserts_and_compares_asks_for_memory_once() {
    const LIMIT: usize = 1 << 20;
    let full = || {
        let db = open(|b| b.memory_limit(LIMIT).mode(Mode::Pessimistic));
        db.put("fill", vec![0; LONG]).unwrap();
        let rest = LIMIT - db.stats().memory_bytes;
        db.put("fill", vec![0; LONG + rest]).unwrap();
        db.collect();
        assert_eq!(db.stats().memory_bytes, LIMIT);
        db
    };
    full().insert("k", "v").unwrap();
    assert_eq!(full().compare_and_set("k", None, Some(b"v")).unwrap(), Cas::Swapped);
    let db = full();
    db.put("k", "v").unwrap();
    assert_eq!(db.insert("j", "v").unwrap_err().kind(), ErrorKind::MemoryLimit);
    assert_eq!(db.compare_and_set("j", None, Some(b"v")).unwrap_err().kind(), ErrorKind::MemoryLimit);
}

// --- wakers ----------------------------------------------------------------------------------------------

/// A task's waker; with its last reference the task goes, and what that holds.
struct Task(Db, Arc<AtomicUsize>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = (self.0.locks(), self.0.waits_for(), self.0.transactions());
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker that goes may take a task with it that rolls a transaction back: it goes under no latch.
#[test]
fn a_waker_may_call_the_database_when_it_goes() {
    let db = open(|b| b);
    let gone = Arc::new(AtomicUsize::new(0));
    let waker = || Waker::from(Arc::new(Task(db.clone(), Arc::clone(&gone))));
    let session = || now(Session::begin(db.txn().mode(Mode::Pessimistic))).unwrap();
    let (holder, waiter, other) = (session(), session(), session());
    now(holder.put("k", "1")).unwrap();
    let mut put = waiter.put("k", "2");
    for _ in 0..3 {
        assert!(put.poll(&mut Context::from_waker(&waker())).is_pending());
    }
    assert_eq!(gone.load(Ordering::SeqCst), 2, "the last one is known");
    let mut given_up = other.put("k", "3");
    assert!(given_up.poll(&mut Context::from_waker(&waker())).is_pending());
    drop(given_up);
    assert_eq!(gone.load(Ordering::SeqCst), 3);
    now(holder.commit()).unwrap();
    now(put).unwrap();
    assert_eq!(gone.load(Ordering::SeqCst), 4);
    now(waiter.commit()).unwrap();
    drop(other);
    db.check().unwrap();
}
