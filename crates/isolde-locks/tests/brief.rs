//! Brief locks on one thread: when they are had, and that nothing of them stays.

mod common;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::{All, Record};
use isolde_locks::*;
use isolde_types::sync::Arc;
use isolde_types::{KeyRange as _, LockMode, RecordCell as _, TxnId};

fn manager() -> LockManager<Record> {
    LockManager::new(LockConfig { deadlocks: Deadlocks::TimeoutOnly, max_locks_per_txn: 100 })
}

fn owner(manager: &LockManager<Record>, id: u64) -> Arc<Owner<Record>> {
    manager.owner(OwnerSpec { id: TxnId(id), age: id, label: None, on_wound: None })
}

fn granted(acquire: impl Future<Output = Result<Granted, LockError>>) -> bool {
    matches!(pin!(acquire).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
}

fn records() -> [Record; 3] {
    ["a", "b", "c"].map(Record::new)
}

/// Whether all three records are locked by nobody, and can be locked briefly.
fn all_free(manager: &LockManager<Record>, all: &[Record]) -> bool {
    manager.locks().is_empty() && manager.try_brief(all.into()).is_ok()
}

#[test]
fn free_records_are_had_and_given_back() {
    let (manager, all) = (manager(), records());
    let brief = manager.try_brief(all[..].into()).ok().unwrap();
    assert_eq!(brief.records().len(), 3);
    assert!(!brief.records()[1].cell().try_seal(), "a locked record is not dead");
    assert!(manager.locks().is_empty() && manager.stats().owners == 0, "nobody is known to hold it");
    assert_eq!(brief.release().len(), 3);
    assert!(all_free(&manager, &all));
    drop(manager.try_brief(all[..].into()));
    assert!(all_free(&manager, &all));
    assert!(manager.try_brief(Handles::new()).is_ok());
}

#[test]
fn one_that_is_held_gives_all_back() {
    for mode in LockMode::ALL {
        for held in 0..3 {
            let (manager, all) = (manager(), records());
            let holder = owner(&manager, 1);
            let lock = manager.lock_key(&holder, all[held].clone(), mode, Purpose::Read, WaitPolicy::NoWait);
            assert!(granted(lock));
            assert!(manager.try_brief(all[..].into()).is_err(), "{mode} on {held}");
            let others = all.iter().enumerate().filter(|(place, _)| *place != held).map(|(_, other)| other.clone());
            assert!(manager.try_brief(others.collect()).is_ok(), "the others are free");
            manager.release_all(&holder);
            assert!(all_free(&manager, &all));
        }
    }
}

#[test]
fn a_span_that_is_held_gives_all_back_wherever_it_is() {
    let (manager, all) = (manager(), records());
    let scanner = owner(&manager, 1);
    let span = ("x".."z").into_span();
    let lock = manager.lock_span(&scanner, span, LockMode::Shared, Purpose::Read, WaitPolicy::NoWait, &All(Vec::new()));
    assert!(granted(lock));
    assert!(manager.try_brief(all[..].into()).is_err());
    manager.release_all(&scanner);
    assert!(all_free(&manager, &all));
}

#[test]
fn a_queue_is_not_overtaken() {
    let (manager, all) = (manager(), records());
    let (holder, waiter) = (owner(&manager, 1), owner(&manager, 2));
    let ask = |who, wait| manager.lock_key(who, all[1].clone(), LockMode::Exclusive, Purpose::Write, wait);
    assert!(granted(ask(&holder, WaitPolicy::Wait)));
    let mut waiting = pin!(ask(&waiter, WaitPolicy::Wait));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    manager.release_all(&holder);
    assert!(manager.try_brief(all[..].into()).is_err(), "the one in the queue comes first");
    assert!(waiting.as_mut().poll(&mut cx).is_ready());
    manager.release_all(&waiter);
    assert!(all_free(&manager, &all));
}

#[test]
fn a_dead_record_is_not_had() {
    let (manager, all) = (manager(), records());
    assert!(all[2].cell().try_seal());
    assert!(manager.try_brief(all[..].into()).is_err());
    assert!(all_free(&manager, &all[..2]));
}
