//! Code of the user that runs inside the engine: owners of bytes. None runs
//! under a latch, so all may use the database; a panic of theirs hurts nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use isolde::{Bytes, ErrorKind};
use isolde_tests::{configurations, open};

/// Longer than what is copied.
const LONG: usize = 600;

/// Bytes whose owner does something when the last reference goes.
struct Owner(Option<Box<dyn FnOnce() + Send>>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &[9; LONG]
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(drop) = self.0.take() {
            drop();
        }
    }
}

fn owned(drop: impl FnOnce() + Send + 'static) -> Bytes {
    Bytes::from_owner(Owner(Some(Box::new(drop))))
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
