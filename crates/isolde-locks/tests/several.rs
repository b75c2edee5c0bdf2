//! Several requests of one transaction at once, some of them dropped, some ended from outside.

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::Record;
use isolde_locks::table::{Answer, Party, Table, Target};
use isolde_locks::{
    Acquire, Deadlocks, Granted, LockConfig, LockError, LockManager, Owner, OwnerSpec, Purpose, Victim, WaitPolicy,
};
use isolde_types::{Key, LockMode, Span, TxnId};

fn record() -> Record {
    Record::new("k")
}

fn manager() -> LockManager<Record> {
    LockManager::new(LockConfig { deadlocks: Deadlocks::Detect { victim: Victim::Youngest }, max_locks_per_txn: 100 })
}

fn owner(manager: &LockManager<Record>, id: u64) -> Arc<Owner<Record>> {
    manager.owner(OwnerSpec { id: TxnId(id), age: id, label: None, on_wound: None })
}

fn ask<'a>(
    manager: &'a LockManager<Record>,
    owner: &'a Arc<Owner<Record>>,
    record: &Record,
    mode: LockMode,
) -> Acquire<'a, Record> {
    manager.lock_key(owner, record.clone(), mode, Purpose::Write, WaitPolicy::Wait)
}

fn poll(acquire: &mut Acquire<'_, Record>) -> Poll<Result<Granted, LockError>> {
    Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
}

/// A request is made by polling it: one that is dropped before leaves the key free.
#[test]
fn a_request_that_was_never_polled_holds_nothing() {
    let (manager, record) = (manager(), record());
    let (first, second) = (owner(&manager, 1), owner(&manager, 2));
    drop(ask(&manager, &first, &record, LockMode::Exclusive));
    assert_eq!(manager.held_mode(&first, &record), None);
    assert!(poll(&mut ask(&manager, &second, &record, LockMode::Exclusive)).is_ready());
    manager.release_all(&second);
    assert!(manager.locks().is_empty());
}

/// "A wait dropped after its grant returns the key to the transaction's earlier mode, unless another
/// of its requests asked for it."
#[test]
fn what_a_second_request_was_granted_stays_when_the_first_is_dropped() {
    let (manager, record) = (manager(), record());
    let (first, second) = (owner(&manager, 1), owner(&manager, 2));
    assert!(poll(&mut ask(&manager, &first, &record, LockMode::Exclusive)).is_ready());
    let mut waits = ask(&manager, &second, &record, LockMode::Exclusive);
    assert!(poll(&mut waits).is_pending());
    manager.release_all(&first);
    // The lock is there, and not fetched; another request of the same transaction is told so.
    for mode in [LockMode::Shared, LockMode::Update] {
        assert!(matches!(poll(&mut ask(&manager, &second, &record, mode)), Poll::Ready(Ok(_))));
    }
    drop(waits);
    assert_eq!(manager.held_mode(&second, &record), Some(LockMode::Update), "it was granted, and is not held");
    manager.release_all(&second);
    assert!(manager.locks().is_empty());
}

/// A transaction that ends with a grant that it has not fetched gets nothing by fetching it.
#[test]
fn a_grant_that_is_fetched_after_the_end_is_no_grant() {
    let (manager, record) = (manager(), record());
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|id| owner(&manager, id));
    assert!(poll(&mut ask(&manager, &first, &record, LockMode::Exclusive)).is_ready());
    let mut ended = ask(&manager, &second, &record, LockMode::Shared);
    let mut other = ask(&manager, &third, &record, LockMode::Shared);
    assert!(poll(&mut ended).is_pending() && poll(&mut other).is_pending());
    manager.release_all(&first);
    manager.release_all(&second);
    assert!(matches!(poll(&mut ended), Poll::Ready(Err(LockError::Ended))));
    assert!(poll(&mut other).is_ready());
    let mut writer = ask(&manager, &fourth, &record, LockMode::Exclusive);
    assert!(poll(&mut writer).is_pending());
    manager.release_all(&third);
    assert!(poll(&mut writer).is_ready(), "waits for one that is no more:\n{}", manager.waits_for());
}

/// Whoever gives a lock back no longer stands before those who waited for it, and may wait for them.
///
/// ```text
///   T1 holds a; waits for m, held by T2.    T3 waits for [a, z): for T1 (a) and for T4 (n).
///   T4 waits for T1 (b). So T3 waits for T1: T1 does not queue behind it, though it came later.
///   T1 gives a back: it queues behind T3, which waits for T4, which waits for T1.
/// ```
#[test]
fn a_deadlock_that_comes_of_giving_back_is_found() {
    let mut table = Table::new(Deadlocks::Detect { victim: Victim::Youngest });
    for txn in 1..5 {
        table.enter(TxnId(txn), &Party { age: txn, label: None });
    }
    let key = |name: &'static str| Target::Key(Key::from_static(name.as_bytes()));
    let span = Target::Span(Span::new(Key::from_static(b"a"), Some(Key::from_static(b"z"))));
    let mut x = |txn, target| table.acquire(TxnId(txn), target, LockMode::Exclusive, WaitPolicy::Wait).0;
    for (txn, name) in [(1, "a"), (1, "zz"), (2, "m"), (4, "n")] {
        assert_eq!(x(txn, key(name)), Answer::Granted);
    }
    let Answer::Waits(_) = x(3, span) else { panic!("T3 waits for T1 and T4") };
    let Answer::Waits(_) = x(4, key("zz")) else { panic!("T4 waits for T1") };
    let Answer::Waits(m) = x(1, key("m")) else { panic!("T1 waits for T2") };
    let _ = table.set_mode(TxnId(1), &key("a"), None);
    let _ = table.release(TxnId(2));
    let found = table.recent().count() > 0;
    let through = table.collect(m).is_some();
    assert!(found || through, "T1 waits for T3, T3 for T4, T4 for T1, and nobody notices");
}
