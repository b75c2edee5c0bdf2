//! Tests of what is private to the log.

use std::task::{Context, Poll};
use std::thread;

use super::*;
use crate::directory::{OpenConfig, Opened, Redo, open};
use crate::error::WalError;
use crate::record::BodyWriter;
use crate::sim::{Failure, Kind, SimFs};

struct Nothing;

impl Redo for Nothing {
    fn apply(&self, _: &[u8], _: Option<&[u8]>, _: Ts) {}
}

fn opened(disk: &SimFs) -> Arc<Log> {
    let config = OpenConfig { segment_bytes: 64 << 10, ..OpenConfig::default() };
    let Opened { log, .. } = open(Arc::new(disk.clone()), &config, &Nothing).unwrap();
    Arc::new(log)
}

fn place(log: &Log, ts: Ts) {
    let mut body = BodyWriter::default();
    body.push(b"key", Some(b"value"));
    log.give(&mut [(ts, &mut body.finish())].into_iter(), &mut || ts);
}

/// A thread's commit, until it is hard.
fn commit(log: &Arc<Log>, ts: Ts, hardness: Hardness, company: Duration) -> Result<()> {
    place(log, ts);
    log.wait_hard(Need { ts, hardness, company })
}

/// Begins a commit that waits for company for ever, on a thread of its own, and returns when it waits.
fn gathering(log: &Arc<Log>) -> thread::JoinHandle<Result<()>> {
    let leader = thread::spawn({
        let log = Arc::clone(log);
        move || commit(&log, Ts(1), Hardness::Synced, Duration::MAX)
    });
    until(|| log.queue.lock().gathering.is_some());
    leader
}

/// Begins a commit with the same patience, and returns when it has joined the batch.
fn joining(log: &Arc<Log>, ts: Ts) -> thread::JoinHandle<Result<()>> {
    let follower = thread::spawn({
        let log = Arc::clone(log);
        move || commit(&log, ts, Hardness::Synced, Duration::MAX)
    });
    until(|| log.queue.lock().wanted_synced == ts);
    follower
}

fn until(happened: impl Fn() -> bool) {
    while !happened() {
        thread::yield_now();
    }
}

#[test]
fn a_batch_that_ends_after_the_log_has_failed_makes_nothing_durable() {
    let log = opened(&SimFs::default());
    log.queue.lock().leading = true;
    log.poison(&WalError::Poisoned("the log's thread panicked".into()));
    log.after_batch(Batch::default(), Ts(7), true, Ok(0));
    assert_eq!(log.durable().get(), Ts::ZERO);
    log.lead(log.queue.lock());
    assert!(!log.queue.lock().leading, "nobody leads any more");
}

#[test]
fn a_leader_that_waits_for_company_goes_on_when_somebody_comes_who_does_not() {
    for hardness in [Hardness::Synced, Hardness::Written] {
        for patience in [Duration::ZERO, Duration::from_secs(3600)] {
            let log = opened(&SimFs::default());
            let leader = gathering(&log);
            commit(&log, Ts(2), hardness, patience).unwrap();
            leader.join().unwrap().unwrap();
            assert_eq!((log.durable().get(), log.stats().syncs), (Ts(2), 1), "in one sync with it");
        }
    }
}

#[test]
fn a_task_beside_a_leader_that_waits_for_company_is_not_delayed_and_does_not_wait_itself() {
    let log = opened(&SimFs::default());
    let leader = gathering(&log);
    place(&log, Ts(2));
    let need = Need { ts: Ts(2), hardness: Hardness::Synced, company: Duration::ZERO };
    let mut place_of_task = HardWait::default();
    let _ = log.poll_hard(need, &mut Context::from_waker(Waker::noop()), &mut place_of_task);
    leader.join().unwrap().unwrap();
    place(&log, Ts(3));
    let need = Need { ts: Ts(3), company: Duration::MAX, ..need };
    let polled = log.poll_hard(need, &mut Context::from_waker(Waker::noop()), &mut place_of_task);
    assert!(matches!(polled, Poll::Ready(Ok(()))), "it would hold up the others of its executor");
}

#[test]
fn syncing_closing_and_what_is_overdue_end_the_wait_for_company() {
    type End<'e> = (&'e str, &'e dyn Fn(&Arc<Log>));
    let overdue = WriteBehind::default().write_after;
    let ends: [End<'_>; 3] = [
        ("sync", &|log| log.flush().unwrap()),
        ("close", &|log| assert!(log.finish().unwrap().is_some())),
        ("the log's thread", &|log| {
            let mut state = Tending::default();
            log.tend(Duration::ZERO, &mut state);
            assert!(log.queue.lock().gathering.is_some(), "nothing is overdue");
            log.tend(overdue, &mut state);
        }),
    ];
    for (what, end) in ends {
        let log = opened(&SimFs::default());
        let leader = gathering(&log);
        end(&log);
        leader.join().unwrap().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((log.durable().get(), log.stats().syncs), (Ts(1), 1), "{what}");
    }
}

#[test]
fn admission_ends_the_wait_for_company_when_too_much_stands_there() {
    let disk = SimFs::default();
    let write_behind = WriteBehind { write_bytes: 1, limit_bytes: 1, ..WriteBehind::default() };
    let config = OpenConfig { segment_bytes: 64 << 10, write_behind, ..OpenConfig::default() };
    let Opened { log, .. } = open(Arc::new(disk), &config, &Nothing).unwrap();
    let log = Arc::new(log);
    let leader = gathering(&log);
    drop(log.admit(10).unwrap());
    leader.join().unwrap().unwrap();
}

#[test]
fn those_who_wait_for_company_share_one_sync() {
    let log = opened(&SimFs::default());
    let members = [gathering(&log), joining(&log, Ts(2)), joining(&log, Ts(3))];
    assert_eq!(log.stats().syncs, 0, "they have the same patience");
    log.flush().unwrap();
    members.into_iter().for_each(|member| member.join().unwrap().unwrap());
    assert_eq!((log.durable().get(), log.stats().syncs, log.stats().batches), (Ts(3), 1, 1));
}

#[test]
fn a_leader_alone_waits_for_company_no_longer_than_it_said() {
    let log = opened(&SimFs::default());
    commit(&log, Ts(1), Hardness::Synced, Duration::from_millis(1)).unwrap();
    assert_eq!(log.durable().get(), Ts(1));
}

#[test]
fn when_a_sync_fails_every_member_of_the_batch_hears_of_it() {
    for kind in [Kind::Write, Kind::Sync] {
        let disk = SimFs::default();
        let log = opened(&disk);
        let members = [gathering(&log), joining(&log, Ts(2)), joining(&log, Ts(3))];
        disk.fail(kind, 0, Failure::Io);
        assert!(log.flush().is_err());
        for member in members {
            let heard = member.join().unwrap();
            assert!(matches!(heard, Err(WalError::Poisoned(_))), "{kind:?}: {heard:?}");
        }
        assert_eq!(log.durable().get(), Ts::ZERO);
    }
}
