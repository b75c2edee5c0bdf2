//! What nobody can see is collected, and the figures tell the truth: measured by an allocator that
//! counts.
//!
//! One test in a process of its own, so that nothing else allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

use isolde::{Db, Mode, RetryPolicy};
use isolde_tests::open;

struct Counting;

static BYTES: AtomicI64 = AtomicI64::new(0);

// The one place of the workspace with unsafe code: a test's allocator, which only counts.
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(i64::try_from(layout.size()).unwrap_or(0), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(i64::try_from(layout.size()).unwrap_or(0), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KEYS: u64 = 10_000;
const UPDATES: u64 = 1_000_000;

fn key(i: u64) -> [u8; 16] {
    u128::from(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes()
}

fn update(db: &Db, i: u64) {
    let txn = db.txn().mode(Mode::Optimistic).begin().unwrap();
    txn.put(key(i), [7_u8; 100]).unwrap();
    txn.commit().unwrap();
}

/// Bytes that the allocator gave out since `before`, and what the database says of itself.
fn agree(db: &Db, before: i64, when: &str) {
    let counted = (BYTES.load(Ordering::Relaxed) - before) as f64;
    let said = db.stats().memory_bytes as f64;
    println!("{when}: the allocator counts {counted} bytes, the database says {said}");
    assert!((0.9..=1.1).contains(&(said / counted)), "{when}: {said} is not within 10 % of {counted}");
}

#[test]
fn memory_is_bounded_by_what_can_be_seen() {
    // Warm up what a first database allocates once.
    update(&open(|b| b), 0);
    let before = BYTES.load(Ordering::Relaxed);
    let db = open(|b| b.retry(RetryPolicy::default()));
    let mut rng = fastrand::Rng::with_seed(7);
    (0..KEYS).for_each(|i| update(&db, i));

    for _ in 0..UPDATES / 2 {
        update(&db, rng.u64(..KEYS));
    }
    db.collect();
    let versions = db.stats().versions as u64;
    assert!(versions <= KEYS * 11 / 10, "{versions} versions of {KEYS} keys after collection");
    agree(&db, before, "after half a million updates and collection");

    let long = db.snapshot().unwrap();
    let seen = long.get(key(1)).unwrap();
    for i in 0..UPDATES / 2 {
        update(&db, rng.u64(..KEYS));
        if i % 10_000 == 0 {
            let versions = db.stats().versions as u64;
            assert!(versions <= 2 * KEYS, "{versions} versions of {KEYS} keys beside one long snapshot");
        }
    }
    assert_eq!(long.get(key(1)).unwrap(), seen, "I7: the long snapshot lost what it sees");
    drop(long);
    db.collect();
    let versions = db.stats().versions as u64;
    assert!(versions <= KEYS * 11 / 10, "{versions} versions of {KEYS} keys after the snapshot ended");
    agree(&db, before, "after a million updates and collection");

    for i in 0..KEYS {
        db.delete(key(i)).unwrap();
    }
    for chunk in 0..100 {
        let txn = db.txn().mode(Mode::Pessimistic).begin().unwrap();
        for i in 0..10_000 {
            assert_eq!(txn.get(key(1_000_000 + chunk * 10_000 + i)).unwrap(), None);
        }
        txn.commit().unwrap();
    }
    db.collect();
    assert_eq!((db.stats().records, db.stats().versions), (0, 0), "keys that nobody can see stay");
    db.check().unwrap();
}
