//! Threads through the manager, every schedule that shuttle finds.
#![cfg(shuttle)]

mod common;

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use common::{All, Record};
use isolde_locks::*;
use isolde_types::sync::{Arc, Mutex, thread};
use isolde_types::{KeyRange as _, LockMode, RecordCell as _, Span, TxnId};
use shuttle::rand::Rng as _;

fn granted(acquire: impl Future<Output = Result<Granted, LockError>>) -> bool {
    matches!(pin!(acquire).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
}

fn race(with_third: bool) {
    let config = LockConfig { deadlocks: Deadlocks::TimeoutOnly, max_locks_per_txn: 100 };
    let manager = Arc::new(LockManager::<Record>::new(config));
    let record = Record::new("b");
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
            granted(manager.lock_span(
                &owner,
                span,
                LockMode::Shared,
                Purpose::Read,
                WaitPolicy::NoWait,
                &All(vec![record]),
            ))
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
            let manager = Arc::new(LockManager::<Record>::new(config));
            let record = Record::new("b");
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
            let records = All(vec![record.clone()]);
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

/// What somebody was granted and has not begun to give back.
#[derive(Clone)]
struct Held {
    owner: u64,
    span: Span,
    mode: LockMode,
    purpose: Purpose,
}

/// What all parties of a run share.
struct Stage {
    manager: LockManager<Record>,
    records: Vec<Record>,
    held: Mutex<Vec<Held>>,
}

fn pick(below: usize) -> usize {
    shuttle::rand::thread_rng().gen_range(0..below)
}

impl Stage {
    fn new(deadlocks: Deadlocks) -> Stage {
        let config = LockConfig { deadlocks, max_locks_per_txn: 100 };
        Stage {
            manager: LockManager::new(config),
            records: ["b", "c"].map(Record::new).to_vec(),
            held: Mutex::default(),
        }
    }

    /// Asks for a key or a span at random, and gives up, waits, or waits for a moment.
    fn ask(&self, owner: &Arc<Owner<Record>>, patience: WaitPolicy) -> Result<(), LockError> {
        let mode = LockMode::ALL[pick(3)];
        let choice = pick(4);
        let purpose = if mode == LockMode::Exclusive && choice < 2 { Purpose::Write } else { Purpose::Read };
        let (span, acquire) = match choice {
            0 | 1 => {
                let record = self.records[choice].clone();
                (Span::point(record.key()), self.manager.lock_key(owner, record, mode, purpose, patience))
            }
            _ => {
                let span = if choice == 2 { ("a".."d").into_span() } else { ("c".."d").into_span() };
                let records = All(self.records.clone());
                (span.clone(), self.manager.lock_span(owner, span, mode, purpose, patience, &records))
            }
        };
        if patience == WaitPolicy::NoWait || pick(2) == 0 {
            // One look; what is still pending is dropped, and so cancelled.
            if !granted(acquire) {
                return Ok(());
            }
        } else {
            shuttle::future::block_on(acquire)?;
        }
        self.enter(Held { owner: owner.id().0, span, mode, purpose });
        Ok(())
    }

    /// Whatever is granted must not conflict with what another holds.
    fn enter(&self, lock: Held) {
        let mut held = self.held.lock();
        let conflict = held.iter().find(|other| {
            other.owner != lock.owner && other.span.overlaps(&lock.span) && other.mode.conflicts(lock.mode)
        });
        assert!(conflict.is_none(), "two transactions hold what conflicts");
        held.push(lock);
    }

    /// Locks, perhaps goes back to a savepoint, locks again, and gives all back.
    fn party(&self, id: u64, patience: WaitPolicy) {
        let spec = OwnerSpec { id: TxnId(id), age: id, label: None, on_wound: None };
        let owner = self.manager.owner(spec);
        let mark = self.manager.mark(&owner);
        let mut outcome = self.ask(&owner, patience);
        if outcome.is_ok() && pick(3) == 0 {
            self.held.lock().retain(|lock| lock.owner != id || lock.purpose == Purpose::Read);
            self.manager.release_to(&owner, &mark);
        }
        if outcome.is_ok() {
            outcome = self.ask(&owner, patience);
        }
        assert!(matches!(outcome, Ok(()) | Err(LockError::Deadlock(_))));
        self.held.lock().retain(|lock| lock.owner != id);
        self.manager.release_all(&owner);
    }
}

impl Stage {
    /// Commits twice, with brief locks on one key or both.
    fn brief_party(&self, id: u64) {
        for _ in 0..2 {
            let records = match pick(3) {
                2 => &self.records[..],
                one => &self.records[one..=one],
            };
            let Ok(brief) = self.manager.try_brief(records.into()) else { continue };
            for record in brief.records() {
                let (span, mode, purpose) = (Span::point(record.key()), LockMode::Exclusive, Purpose::Write);
                self.enter(Held { owner: id, span, mode, purpose });
            }
            thread::yield_now();
            self.held.lock().retain(|lock| lock.owner != id);
            brief.release();
        }
    }
}

/// Parties 1 to `parties` on one stage, each in a thread; in the end no trace of a lock is left.
fn all_at_once(deadlocks: Deadlocks, parties: u64, party: impl Fn(&Stage, u64) + Copy + Send + 'static) {
    let stage = Arc::new(Stage::new(deadlocks));
    let parties = (1..=parties).map(|id| {
        let stage = stage.clone();
        thread::spawn(move || party(&stage, id))
    });
    parties.collect::<Vec<_>>().into_iter().for_each(|party| party.join().unwrap());
    for record in &stage.records {
        assert!(record.cell().try_seal(), "a lock stayed behind: {:?}", record.cell());
    }
}

/// Two transactions lock keys and spans, beside two commits with brief locks.
fn parties_and_commits(deadlocks: Deadlocks, patience: WaitPolicy) {
    all_at_once(deadlocks, 4, move |stage, id| if id <= 2 { stage.party(id, patience) } else { stage.brief_party(id) });
}

#[test]
fn nor_beside_commits_with_brief_locks() {
    check(|| parties_and_commits(Deadlocks::TimeoutOnly, WaitPolicy::NoWait));
}

#[test]
fn nor_when_they_wait_beside_commits_with_brief_locks() {
    check(|| parties_and_commits(Deadlocks::Detect { victim: Victim::Youngest }, WaitPolicy::Wait));
}

/// A record is sealed, or locked briefly, never both.
#[test]
fn a_record_that_is_locked_briefly_is_not_sealed() {
    check(|| {
        let (manager, record, _) = setting();
        let commit = {
            let record = record.clone();
            thread::spawn(move || {
                let Ok(brief) = manager.try_brief([record].into_iter().collect()) else { return };
                thread::yield_now();
                assert!(!brief.records()[0].cell().is_sealed(), "sealed under a lock");
            })
        };
        let sealed = record.cell().try_seal();
        commit.join().unwrap();
        assert_eq!(sealed, record.cell().is_sealed());
    });
}

/// Three transactions lock keys and spans; in the end no trace of a lock is left.
fn three_parties(deadlocks: Deadlocks, patience: WaitPolicy) {
    all_at_once(deadlocks, 3, move |stage, id| stage.party(id, patience));
}

/// Runs a program under many schedules, or `ISOLDE_SCHEDULES` of them.
fn check(program: impl Fn() + Copy + Send + Sync + 'static) {
    let schedules = std::env::var("ISOLDE_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(50_000);
    shuttle::check_random(program, schedules);
    shuttle::check_pct(program, schedules / 2, 3);
}

#[test]
fn three_parties_never_hold_what_conflicts() {
    check(|| three_parties(Deadlocks::TimeoutOnly, WaitPolicy::NoWait));
}

#[test]
fn nor_when_they_wait_and_give_up_waiting() {
    check(|| three_parties(Deadlocks::Detect { victim: Victim::Youngest }, WaitPolicy::Wait));
}

fn setting() -> (Arc<LockManager<Record>>, Record, [Arc<Owner<Record>>; 3]) {
    let config = LockConfig { deadlocks: Deadlocks::TimeoutOnly, max_locks_per_txn: 100 };
    let manager = Arc::new(LockManager::<Record>::new(config));
    let record = Record::new("b");
    let owner = |id| manager.owner(OwnerSpec { id: TxnId(id), age: id, label: None, on_wound: None });
    let owners = [owner(1), owner(2), owner(3)];
    (manager, record, owners)
}

/// Asks once, and says whether it was granted; given up if it was not.
fn tries(
    manager: &Arc<LockManager<Record>>,
    owner: &Arc<Owner<Record>>,
    record: &Record,
    mode: LockMode,
) -> thread::JoinHandle<bool> {
    let (manager, owner, record) = (manager.clone(), owner.clone(), record.clone());
    thread::spawn(move || granted(manager.lock_key(&owner, record, mode, Purpose::Write, WaitPolicy::NoWait)))
}

/// A scanner that waits, and two operations of a writer: one of them found a reader in the word, and
/// asks the table when the reader has gone; the other takes the word at that moment.
fn two_operations_a_reader_and_a_scanner() {
    let (manager, record, [writer, scanner, reader]) = setting();
    assert!(granted(manager.lock_key(&reader, record.clone(), LockMode::Shared, Purpose::Read, WaitPolicy::NoWait)));
    let leaves = {
        let (manager, reader) = (manager.clone(), reader.clone());
        thread::spawn(move || manager.release_all(&reader))
    };
    let operations = [(); 2].map(|()| tries(&manager, &writer, &record, LockMode::Exclusive));
    let span = ("a".."c").into_span();
    let records = All(vec![record.clone()]);
    let mut scan = manager.lock_span(&scanner, span, LockMode::Shared, Purpose::Read, WaitPolicy::Wait, &records);
    let mut cx = Context::from_waker(Waker::noop());
    let mut scanned = Pin::new(&mut scan).poll(&mut cx).is_ready();
    let written = operations.map(|operation| operation.join().unwrap()).contains(&true);
    leaves.join().unwrap();
    scanned = scanned || Pin::new(&mut scan).poll(&mut cx).is_ready();
    assert!(!(written && scanned), "X on a key and S on a span around it are both granted");
    assert_eq!(written, manager.held_mode(&writer, &record).is_some(), "granted is what is held");
    drop(scan);
    manager.release_all(&writer);
    manager.release_all(&scanner);
    assert!(manager.locks().is_empty());
}

#[test]
fn nor_when_one_operation_asks_the_table_while_another_takes_the_word() {
    shuttle::check_random(two_operations_a_reader_and_a_scanner, 50_000);
    shuttle::check_pct(two_operations_a_reader_and_a_scanner, 50_000, 4);
}

/// A lock goes into the table, back into its word and into the table again, while its holder gives it
/// back: whoever waits for it gets it.
fn a_release_beside_one_that_tries_and_one_that_waits() {
    let (manager, record, [holder, first, second]) = setting();
    assert!(granted(manager.lock_key(&holder, record.clone(), LockMode::Shared, Purpose::Read, WaitPolicy::NoWait)));
    let tries = tries(&manager, &first, &record, LockMode::Exclusive);
    let releases = {
        let manager = manager.clone();
        thread::spawn(move || manager.release_all(&holder))
    };
    let mut waits = manager.lock_key(&second, record, LockMode::Exclusive, Purpose::Write, WaitPolicy::Wait);
    let mut cx = Context::from_waker(Waker::noop());
    let waited = Pin::new(&mut waits).poll(&mut cx).is_pending();
    let got = tries.join().unwrap();
    releases.join().unwrap();
    assert!(waited || !got, "X is granted twice");
    manager.release_all(&first);
    let through = !waited || Pin::new(&mut waits).poll(&mut cx).is_ready();
    assert!(through, "waits for one that is no more:\n{}", manager.waits_for());
    manager.release_all(&second);
    assert!(manager.locks().is_empty(), "left behind:\n{}", manager.locks());
}

#[test]
fn what_is_given_back_between_table_and_word_is_free() {
    shuttle::check_random(a_release_beside_one_that_tries_and_one_that_waits, 50_000);
    shuttle::check_pct(a_release_beside_one_that_tries_and_one_that_waits, 50_000, 4);
}
