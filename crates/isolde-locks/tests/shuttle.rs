//! Threads through the manager, every schedule that shuttle finds.
#![cfg(shuttle)]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use isolde_locks::*;
use isolde_types::sync::{Arc, thread};
use isolde_types::{Key, KeyRange as _, LockMode, Span, TxnId};

#[derive(Clone)]
struct Rec(Arc<(Key, LockCell)>);

impl Handle for Rec {
    fn key(&self) -> &Key {
        &self.0.0
    }
    fn cell(&self) -> &LockCell {
        &self.0.1
    }
}

struct One(Rec);

impl SpanRecords<Rec> for One {
    fn each(&self, span: &Span, visit: &mut dyn FnMut(Rec)) {
        if span.contains(self.0.key()) {
            visit(self.0.clone());
        }
    }
}

fn granted(acquire: impl Future<Output = Result<Granted, LockError>>) -> bool {
    matches!(pin!(acquire).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
}

fn race(with_third: bool) {
    let config = LockConfig { deadlocks: Deadlocks::TimeoutOnly, max_locks_per_txn: 100 };
    let manager = Arc::new(LockManager::<Rec>::new(config));
    let record = Rec(Arc::new((Key::from_static(b"b"), LockCell::default())));
    let owner = |id| manager.owner(OwnerSpec { id: TxnId(id), age: id, label: None, on_wound: None });
    let (o1, o2, o3) = (owner(1), owner(2), owner(3));

    let writer = {
        let (manager, owner, record) = (manager.clone(), o1.clone(), record.clone());
        thread::spawn(move || {
            granted(manager.lock_key(&owner, record, LockMode::Exclusive, Purpose::Write, WaitPolicy::NoWait))
        })
    };
    let scanner = {
        let (manager, owner, record) = (manager.clone(), o2.clone(), record.clone());
        thread::spawn(move || {
            let span = ("a".."c").into_span();
            granted(manager.lock_span(&owner, span, LockMode::Shared, Purpose::Read, WaitPolicy::NoWait, &One(record)))
        })
    };
    if with_third {
        let (manager, owner, record) = (manager.clone(), o3.clone(), record.clone());
        thread::spawn(move || {
            granted(manager.lock_key(&owner, record, LockMode::Shared, Purpose::Read, WaitPolicy::NoWait))
        })
        .join()
        .unwrap();
    }
    let (writer, scanner) = (writer.join().unwrap(), scanner.join().unwrap());
    assert!(!(writer && scanner), "X on a key and S on a span around it are both granted");
    for owner in [&o1, &o2, &o3] {
        manager.release_all(owner);
    }
}

#[test]
fn a_scanner_and_a_writer_are_not_both_granted() {
    shuttle::check_random(|| race(false), 50_000);
}

#[test]
fn nor_when_a_reader_inflates_the_writers_word() {
    shuttle::check_random(|| race(true), 50_000);
}

/// Two operations of one transaction ask for the same key while a scanner comes by.
#[test]
fn nor_when_two_operations_of_the_writer_race() {
    shuttle::check_random(
        || {
            let config = LockConfig { deadlocks: Deadlocks::TimeoutOnly, max_locks_per_txn: 100 };
            let manager = Arc::new(LockManager::<Rec>::new(config));
            let record = Rec(Arc::new((Key::from_static(b"b"), LockCell::default())));
            let owner = |id| manager.owner(OwnerSpec { id: TxnId(id), age: id, label: None, on_wound: None });
            let (o1, o2) = (owner(1), owner(2));
            let write = || {
                let (manager, owner, record) = (manager.clone(), o1.clone(), record.clone());
                thread::spawn(move || {
                    granted(manager.lock_key(&owner, record, LockMode::Exclusive, Purpose::Write, WaitPolicy::NoWait))
                })
            };
            let (a, b) = (write(), write());
            let span = ("a".."c").into_span();
            let records = One(record.clone());
            let scanner =
                granted(manager.lock_span(&o2, span, LockMode::Shared, Purpose::Read, WaitPolicy::NoWait, &records));
            let writer = [a.join().unwrap(), b.join().unwrap()].contains(&true);
            assert!(!(writer && scanner), "X on a key and S on a span around it are both granted");
            assert_eq!(writer, manager.held_mode(&o1, &record).is_some(), "granted is what is held");
            for owner in [&o1, &o2] {
                manager.release_all(owner);
            }
        },
        50_000,
    );
}
