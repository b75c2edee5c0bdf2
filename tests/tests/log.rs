//! What the log promises where batches, failures and reads meet: each test is one interleaving or one
//! crash point that is easily got wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use isolde::step::{Cause, Op, Session};
use isolde::{Builder, Db, Durability, ErrorKind, Isolation, Mode};
use isolde_tests::hooked::{At, Hooked};
use isolde_tests::images::{Collected, config};
use isolde_tests::{Flag, now, seed};
use isolde_types::{ManualClock, Places, Ts};
use isolde_wal::sim::{Failure, Kind, SimFs};
use isolde_wal::{BodyWriter, HardWait, Hardness, Log, Need, Opened, Tending, Vfs};

fn builder(vfs: impl Vfs) -> Builder {
    Db::builder().vfs(Arc::new(vfs)).log_segment_bytes(64 << 10).no_threads()
}

fn put(db: &Db, durability: Durability, key: &str, value: impl AsRef<[u8]>) {
    db.txn().durability(durability).run(|t| t.put(key, value.as_ref())).unwrap();
}

fn keys(db: &Db) -> Vec<String> {
    let snapshot = db.snapshot().unwrap();
    snapshot.scan(..).map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap()).collect()
}

/// From read committed up, in both modes.
fn configurations() -> impl Iterator<Item = (Isolation, Mode)> {
    isolde_tests::configurations().filter(|(isolation, _)| *isolation != Isolation::ReadUncommitted)
}

// --- torn tails -------------------------------------------------------------------------------------

/// Records whose ends meet block boundaries: behind a torn one, the next block begins with a whole one.
#[test]
fn a_batch_that_a_power_cut_tears_leaves_no_hole() {
    const RECORDS: usize = 200;
    let mut torn = 0;
    for seed in seed("torn", 1)..seed("torn", 1) + 40 {
        let disk = SimFs::new(seed);
        let db = builder(disk.clone()).open().unwrap();
        for n in 0..RECORDS {
            // 32 bytes of header, 2 of lengths, 16 of key, 78 of value: 128.
            put(&db, Durability::None, &format!("{n:016}"), [7; 78]);
        }
        put(&db, Durability::Buffered, "written", "");
        let image = disk.crash(seed);
        let kept = keys(&builder(image.disk).open().unwrap());
        let numbers: Vec<String> = (0..RECORDS).map(|n| format!("{n:016}")).chain(["written".to_owned()]).collect();
        let hole = kept.iter().zip(&numbers).find(|(kept, number)| kept != number);
        assert_eq!(hole, None, "seed {seed}: a commit without the one before it");
        torn += usize::from(!kept.is_empty() && kept.len() <= RECORDS);
    }
    assert!(torn > 0, "no batch was torn");
}

/// What was deleted while somebody still saw it stays deleted: behind collection, a checkpoint, and what recovery
/// redoes.
#[test]
fn a_deleted_key_does_not_come_back() {
    for checkpointed_before in [false, true] {
        let disk = SimFs::new(1);
        let db = builder(disk.clone()).open().unwrap();
        put(&db, Durability::Sync, "kept", "");
        put(&db, Durability::Sync, "deleted", "");
        if checkpointed_before {
            db.checkpoint().unwrap();
        }
        let snapshot = db.snapshot().unwrap();
        db.delete("deleted").unwrap();
        db.collect();
        assert!(snapshot.get("deleted").unwrap().is_some());
        drop(snapshot);
        db.collect();
        assert_eq!(keys(&db), ["kept"]);
        assert_eq!(keys(&builder(disk.copy()).open().unwrap()), ["kept"], "redone");
        db.checkpoint().unwrap();
        assert_eq!(keys(&builder(disk.crash(1).disk).open().unwrap()), ["kept"]);
    }
}

/// A transaction is one record: recovery has all of it or nothing.
#[test]
fn a_transaction_is_recovered_whole() {
    let disk = SimFs::new(1);
    let db = builder(disk.clone()).open().unwrap();
    db.transact(|t| ["a", "b", "c"].iter().try_for_each(|key| t.put(*key, ""))).unwrap();
    assert_eq!(keys(&builder(disk.crash(1).disk).open().unwrap()), ["a", "b", "c"]);
}

// --- reads ------------------------------------------------------------------------------------------

/// A scan decides a result as a get does: what it showed must be there after a power cut.
#[test]
fn what_a_scan_showed_is_promised() {
    for (isolation, mode) in configurations() {
        for deleted in [false, true] {
            let disk = SimFs::new(1);
            let db = builder(disk.clone()).open().unwrap();
            put(&db, Durability::Sync, "a", "old");
            db.txn()
                .durability(Durability::None)
                .run(|t| if deleted { t.delete("a") } else { t.put("a", "new") })
                .unwrap();
            let seen = db
                .txn()
                .isolation(isolation)
                .mode(mode)
                .run(|t| t.scan(..).map(|row| row.map(|row| row.1)).collect::<isolde::Result<Vec<_>>>())
                .unwrap();
            assert_eq!(seen, if deleted { vec![] } else { vec!["new"] });
            let db = builder(disk.crash(1).disk).open().unwrap();
            let there = db.get("a").unwrap();
            assert_eq!(there.as_deref(), (!deleted).then_some(&b"new"[..]), "{isolation} {mode}, deleted: {deleted}");
        }
    }
}

/// A get of its own promises as much as a transaction with that get in it.
#[test]
fn what_a_get_showed_survives_the_end_of_the_process_if_it_is_buffered() {
    let disk = SimFs::new(1);
    let db = builder(disk.clone()).durability(Durability::Buffered).open().unwrap();
    put(&db, Durability::None, "k", "v");
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    let db = builder(disk.kill()).open().unwrap();
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"v"[..]));
}

/// What a get has shown, none that is begun later goes back behind.
#[test]
fn nobody_goes_back_behind_what_a_get_has_shown() {
    let disk = Hooked::new(Arc::new(SimFs::new(1)));
    let db = builder(disk.clone()).durability(Durability::None).open().unwrap();
    let (other, later) = (db.clone(), Arc::new(AtomicU64::new(0)));
    let result = Arc::clone(&later);
    disk.once(At::Sync, move || {
        // The commit is visible and written, and not synced.
        assert!(other.get("k").unwrap().is_some());
        let later = other.txn().durability(Durability::Sync).isolation(Isolation::Snapshot).read_only();
        result.store(later.begin().unwrap().read_ts().unwrap().0, Ordering::SeqCst);
    });
    put(&db, Durability::Sync, "k", "v");
    assert_eq!(Ts(later.load(Ordering::SeqCst)), db.visible_ts());
}

// --- after a failure ----------------------------------------------------------------------------------

/// After a failed sync nothing is shown that may be gone after the next open.
#[test]
fn after_a_failed_sync_no_scan_shows_what_is_not_durable() {
    for (isolation, mode) in configurations() {
        for begun_before in [false, true] {
            let disk = SimFs::new(1);
            let db = builder(disk.clone()).open().unwrap();
            put(&db, Durability::Sync, "a", "old");
            put(&db, Durability::None, "a", "new");
            let txn = db.txn().isolation(isolation).mode(mode).begin().unwrap();
            let before = begun_before.then(|| txn.scan(..));
            disk.fail(Kind::Sync, 0, Failure::SyncPretends);
            assert_eq!(db.sync().unwrap_err().kind(), ErrorKind::Poisoned);
            let row = before.unwrap_or_else(|| txn.scan(..)).next().unwrap();
            match row {
                Ok((_, value)) => assert_eq!(&value[..], b"old", "{isolation} {mode}, begun before: {begun_before}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Poisoned),
            }
        }
    }
}

/// A checkpoint that fails gives its space back, wherever it fails.
/// Nobody is there to be told of a panic in a thread of the database: the log fails, and says why.
#[test]
fn a_panic_of_the_thread_of_checkpoints_fails_the_log() {
    let hooked = Hooked::new(Arc::new(SimFs::new(1)));
    hooked.once(At::Checkpoint, || panic!("broken on purpose"));
    let opened = Db::builder().vfs(Arc::new(hooked)).log_segment_bytes(64 << 10).checkpoint_after(1).open();
    let db = opened.unwrap();
    // However long it takes: without a failure this does not end.
    while db.put("k", "v").is_ok() {
        std::thread::yield_now();
    }
    let refused = db.put("k", "v").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned);
    assert!(refused.to_string().contains("checkpoints panicked: broken on purpose"), "{refused}");
    db.close().unwrap_err();
}

#[test]
fn a_failed_checkpoint_leaves_no_files() {
    for (kind, nth) in [(Kind::Create, 0), (Kind::Create, 1), (Kind::Sync, 0), (Kind::Sync, 1), (Kind::SyncDir, 0)] {
        let disk = SimFs::new(1);
        let db = builder(disk.clone()).open().unwrap();
        put(&db, Durability::Sync, "k", "v");
        disk.fail(kind, nth, Failure::Full);
        db.checkpoint().unwrap_err();
        let names = disk.list().unwrap();
        assert!(!names.iter().any(|name| name.starts_with("ckpt-")), "{kind:?} {nth}: {names:?}");
        put(&db, Durability::Sync, "k", "w");
        db.checkpoint().unwrap();
        assert_eq!(builder(disk.crash(1).disk).open().unwrap().get("k").unwrap().as_deref(), Some(&b"w"[..]));
    }
}

#[test]
fn a_segment_in_which_a_length_does_not_fit_is_refused() {
    let disk = SimFs::new(1);
    disk.set_quota(Some(1 << 20)); // it is refused before anything is written
    let error = builder(disk).log_segment_bytes(8 << 30).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

// --- who leads ----------------------------------------------------------------------------------------

/// Polls with a flag for a waker; it must wait for the log.
fn waits(op: &mut Op<isolde::Commit>) -> Arc<Flag> {
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    assert!(op.poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(op.cause(), Some(Cause::Log));
    flag
}

/// Those who wait behind a batch are tasks: the first of them is dropped, and the next one goes on.
#[test]
fn a_dropped_task_takes_nobody_with_it() {
    let disk = Hooked::new(Arc::new(SimFs::new(1)));
    let db = builder(disk.clone()).open().unwrap();
    let commit = |key: &str| {
        let session = now(Session::begin(db.txn())).unwrap();
        now(session.put(key, "v")).unwrap();
        session.commit()
    };
    let (mut first, mut second) = (commit("first"), commit("second"));
    let (tell, told) = channel();
    disk.once(At::Sync, move || {
        let flags = [waits(&mut first), waits(&mut second)];
        tell.send((first, second, flags)).unwrap();
    });
    put(&db, Durability::Sync, "leader", "v");
    let (first, mut second, [_, flag]) = told.recv().unwrap();
    drop(first);
    assert!(flag.take(), "nobody leads, and the next one is not woken");
    let polled = second.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(_))));
}

/// A log of its own, and what commits to it.
struct Bare {
    log: Arc<Log>,
    disk: Hooked,
}

impl Bare {
    fn new() -> Bare {
        let disk = Hooked::new(Arc::new(SimFs::new(1)));
        let Opened { log, .. } = isolde_wal::open(Arc::new(disk.clone()), &config(), &Collected::default()).unwrap();
        Bare { log: Arc::new(log), disk }
    }

    fn place(log: &Arc<Log>, ts: u64) {
        let mut body = BodyWriter::default();
        body.push(b"k", Some(b"v"));
        let mut body = body.finish();
        log.admit(body.bytes.len()).and_then(|space| log.fit(space, &mut body)).unwrap().placed();
        assert!(log.give(&mut std::iter::once((Ts(ts), &mut body)), &mut || Ts(ts)).is_empty());
    }

    /// Leads: nobody else does.
    fn lead(log: &Arc<Log>, ts: u64, hardness: Hardness) {
        log.wait_hard(Need { ts: Ts(ts), hardness, company: Duration::ZERO }).unwrap();
    }

    /// Waits, as a task: woken it is not polled, and only tells.
    fn wait(log: &Arc<Log>, ts: u64, tell: &Sender<()>) -> HardWait {
        let hardness = Hardness::Synced;
        let need = Need { ts: Ts(ts), hardness, company: Duration::ZERO };
        let (waker, mut wait) = (Waker::from(Arc::new(Tell(tell.clone()))), HardWait::default());
        assert!(log.poll_hard(need, &mut Context::from_waker(&waker), &mut wait).is_pending());
        wait
    }
}

struct Tell(Sender<()>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// A task that was woken may never be polled: the log's thread leads for those behind it.
#[test]
fn the_logs_thread_leads_where_only_tasks_wait() {
    let Bare { log, disk } = Bare::new();
    // Time stands still: nothing is ever overdue.
    let thread = log.start_thread(Arc::new(ManualClock::default())).unwrap();
    Bare::place(&log, 1);
    let ((tell, told), (tell_woken, woken)) = (channel(), channel());
    let inside = Arc::clone(&log);
    disk.once(At::Sync, move || {
        let waits = [2, 3].map(|ts| {
            Bare::place(&inside, ts);
            Bare::wait(&inside, ts, &tell_woken)
        });
        tell.send(waits).unwrap();
    });
    Bare::lead(&log, 1, Hardness::Synced);
    let waits = told.recv().unwrap();
    for _ in &waits {
        woken.recv_timeout(Duration::from_secs(60)).expect("nobody leads for them");
    }
    assert_eq!(log.durable().get(), Ts(3));
    log.stop_thread();
    thread.join().unwrap();
}

/// Whoever else writes all the time: what is unsynced for long is synced.
#[test]
fn a_sync_that_is_overdue_is_not_put_off_because_somebody_writes() {
    let Bare { log, disk } = Bare::new();
    let state = Arc::new(std::sync::Mutex::new(Tending::default()));
    let tend = |log: &Log, state: &std::sync::Mutex<Tending>, secs: u64| {
        log.tend(Duration::from_secs(secs), &mut state.lock().unwrap());
    };
    Bare::place(&log, 1);
    Bare::lead(&log, 1, Hardness::Written);
    tend(&log, &state, 100);
    assert_eq!(log.durable().get(), Ts::ZERO, "it is not overdue yet");
    Bare::place(&log, 2);
    let (inside, its_state) = (Arc::clone(&log), Arc::clone(&state));
    disk.once(At::Write, move || tend(&inside, &its_state, 111));
    Bare::lead(&log, 2, Hardness::Written);
    tend(&log, &state, 112);
    assert_eq!(log.durable().get(), Ts(2), "it is unsynced for 12 seconds");
}

// --- limits -------------------------------------------------------------------------------------------

/// A transaction that is as large as a segment takes, where the one that is written has little room left: it
/// needs the next segment and no more.
#[test]
fn the_largest_transaction_takes_one_segment() {
    let limit = (64 << 10) - 3 * 4096;
    for less in [0, 1, 31, 32, 33, 64, 4096, 20_000, 30_000] {
        let disk = SimFs::new(1);
        let db = builder(disk.clone()).open().unwrap();
        put(&db, Durability::Sync, "first", vec![1; 20_000]);
        disk.set_quota(Some(1 << 20)); // or it would go on for ever
        let mut value = limit - less;
        // What the key, the lengths and the header take is found by trying.
        while let Err(error) = db.put("largest", vec![2; value]) {
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
            value -= 1;
        }
        for round in 0..6 {
            db.put("largest", vec![round; value]).unwrap();
            put(&db, Durability::Sync, "first", vec![1; 20_000]);
        }
        let files: Vec<String> = disk.list().unwrap();
        let spares = files.iter().filter(|name| name.starts_with("spare-")).count();
        assert!(spares <= 3, "{value} bytes: {files:?}");
        let db = builder(disk.crash(1).disk).open().unwrap();
        assert_eq!(db.get("largest").unwrap().map(|value| value.len()), Some(value));
    }
}
