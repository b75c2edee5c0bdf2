//! Crashes and failing disks, simulated: whatever happens at whichever file operation, nothing
//! acknowledged is lost, nothing is there by half, and what is there is a prefix of the commits.

use std::collections::HashSet;

use fastrand::Rng;
use isolde::{Error, ErrorKind};
use isolde_tests::crash::{Promises, builder, run};
use isolde_wal::sim::{Failure, Kind, SimFs};

/// `ISOLDE_CRASHES` multiplies what is tried.
fn times(few: u64) -> u64 {
    let factor: u64 = std::env::var("ISOLDE_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    few * factor
}

fn seed() -> u64 {
    isolde_tests::seed("crash", 1)
}

struct Tally {
    images: u64,
    interesting: u64,
    distinct: HashSet<u64>,
}

impl Tally {
    fn new() -> Tally {
        Tally { images: 0, interesting: 0, distinct: HashSet::new() }
    }

    fn report(&self, what: &str) {
        println!("{what}: {} images, {} distinct, {} interesting", self.images, self.distinct.len(), self.interesting);
        assert!(
            self.interesting * 5 >= self.images,
            "{what}: too few of the images lose one thing and keep a later one"
        );
    }
}

/// Runs the workload of a seed until the power goes at the `nth` operation; the disk, and what was
/// promised. `None` when the workload ends before.
fn until(seed: u64, steps: usize, nth: Option<u64>) -> (SimFs, Promises) {
    let disk = SimFs::new(seed);
    if let Some(nth) = nth {
        disk.crash_at(nth);
    }
    let mut promises = Promises::of_seed(seed);
    let mut rng = Rng::with_seed(seed);
    if let Ok(db) = builder(&disk).open() {
        let _ = run(&db, &mut promises, &mut rng, steps);
        let _ = if rng.bool() { db.close() } else { Ok(()) };
    }
    (disk, promises)
}

/// Recovers, holds the state to the promises, goes on, and recovers again.
fn recover(disk: &SimFs, promises: &Promises, at_least: usize, context: &str) {
    let db = builder(disk).open().unwrap_or_else(|error| panic!("{context}: {error}"));
    let commits = promises.hold(&db, at_least, context);
    let mut promises = promises.clone();
    promises.goes_on_from(commits);
    let mut rng = Rng::with_seed(commits as u64);
    run(&db, &mut promises, &mut rng, 4).unwrap_or_else(|error| panic!("{context}, going on: {error}"));
    drop(db);
    let db = builder(disk).open().unwrap_or_else(|error| panic!("{context}, again: {error}"));
    promises.hold(&db, promises.begun, &format!("{context}, again"));
}

#[test]
fn a_power_cut_at_every_operation() {
    let mut tally = Tally::new();
    for seed in seed()..seed() + times(6) {
        let (whole, _) = until(seed, 25, None);
        for nth in 0..=whole.operations() {
            let (disk, promises) = until(seed, 25, Some(nth));
            for cut in 0..3 {
                let image = disk.crash(nth * 100 + cut);
                tally.images += 1;
                tally.interesting += u64::from(image.interesting);
                tally.distinct.insert(image.disk.fingerprint());
                recover(&image.disk, &promises, promises.synced, &format!("seed {seed}, operation {nth}, cut {cut}"));
            }
        }
    }
    tally.report("power cuts");
}

#[test]
fn a_second_power_cut_while_the_first_is_recovered() {
    let mut tally = Tally::new();
    for seed in 100 * seed()..100 * seed() + times(4) {
        let mut rng = Rng::with_seed(seed);
        let (whole, _) = until(seed, 25, None);
        for _ in 0..12 {
            let nth = rng.u64(..=whole.operations());
            let (disk, promises) = until(seed, 25, Some(nth));
            let first = disk.crash(rng.u64(..));
            let probe = first.disk.copy();
            drop(builder(&probe).open().expect("it recovers"));
            for second in 0..=probe.operations() {
                let disk = first.disk.copy();
                disk.crash_at(second);
                drop(builder(&disk).open());
                let image = disk.crash(second);
                tally.images += 1;
                tally.interesting += u64::from(first.interesting || image.interesting);
                tally.distinct.insert(image.disk.fingerprint());
                let context = format!("seed {seed}, operation {nth}, then {second}");
                recover(&image.disk, &promises, promises.synced, &context);
            }
        }
    }
    tally.report("double cuts");
}

#[test]
fn the_end_of_the_process_at_every_operation() {
    for seed in 200 * seed()..200 * seed() + times(4) {
        let (whole, _) = until(seed, 25, None);
        for nth in 0..=whole.operations() {
            let (disk, promises) = until(seed, 25, Some(nth));
            let left = disk.kill();
            // Then a power cut, once the next process has been told what is there.
            let told = left.copy();
            recover(&left, &promises, promises.written, &format!("seed {seed}, killed at {nth}"));
            let Ok(db) = builder(&told).open() else { panic!("seed {seed}, killed at {nth}: does not open") };
            let commits = promises.hold(&db, promises.written, "told");
            let image = told.crash(nth);
            recover(&image.disk, &promises, commits, &format!("seed {seed}, killed at {nth}, told, and cut"));
        }
    }
}

#[test]
fn a_write_or_sync_that_fails_poisons_and_nothing_acknowledged_is_lost() {
    let failures = [
        (Kind::Sync, Failure::SyncDrops),
        (Kind::Sync, Failure::SyncKeeps),
        (Kind::Sync, Failure::SyncPretends),
        (Kind::Write, Failure::Io),
        (Kind::Write, Failure::Full),
        (Kind::Write, Failure::Short),
        (Kind::Create, Failure::Full),
        (Kind::Rename, Failure::Io),
        (Kind::SyncDir, Failure::SyncDrops),
        (Kind::SyncDir, Failure::SyncKeeps),
        (Kind::SyncDir, Failure::SyncPretends),
        (Kind::SyncParent, Failure::Io),
        (Kind::Remove, Failure::Io),
    ];
    let mut poisoned = 0_u64;
    for seed in 300 * seed()..300 * seed() + times(3) {
        let (whole, _) = until(seed, 25, None);
        for (kind, failure) in failures {
            for nth in 0..whole.operations_of(kind) {
                let context = format!("seed {seed}, {kind:?} {nth}: {failure:?}");
                let disk = SimFs::new(seed);
                disk.fail(kind, nth, failure);
                let mut promises = Promises::of_seed(seed);
                let Ok(db) = builder(&disk).open() else {
                    recover(&disk.kill(), &promises, 0, &context);
                    continue;
                };
                let mut rng = Rng::with_seed(seed);
                // What fails is reported, and the workload goes on as far as the database lets it.
                for _ in 0..25 {
                    if let Err(error) = run(&db, &mut promises, &mut rng, 1) {
                        let storage = matches!(error, Error::Poisoned(_) | Error::OutcomeUnknown | Error::Storage(_));
                        assert!(storage, "{context}: {error}");
                    }
                }
                if let Err(error) = db.sync() {
                    assert_eq!(error.kind(), ErrorKind::Poisoned, "{context}");
                    assert_eq!(db.put("k", "v").unwrap_err().kind(), ErrorKind::Poisoned, "{context}");
                    // What is durable is still served, and nothing else.
                    let snapshot = db.snapshot().unwrap();
                    let served = promises.served(&snapshot);
                    assert!(served >= promises.synced, "{context}: serves {served}");
                    poisoned += 1;
                }
                let cut = disk.copy();
                drop(db);
                // The next process builds upon what it finds, and then the power goes.
                let next = disk.copy();
                let db = builder(&next).open().unwrap_or_else(|error| panic!("{context}: {error}"));
                let commits = promises.hold(&db, promises.synced, &context);
                db.checkpoint().unwrap_or_else(|error| panic!("{context}: {error}"));
                drop(db);
                recover(&next.crash(nth).disk, &promises, commits, &format!("{context}, opened, then cut"));
                recover(&disk.kill(), &promises, promises.synced, &context);
                recover(&cut.crash(nth).disk, &promises, promises.synced, &format!("{context}, then cut"));
            }
        }
    }
    assert!(poisoned > 0);
}

#[test]
fn a_full_disk_is_refused_before_anything_happens_and_writing_goes_on_when_there_is_space() {
    let mut full = 0;
    for seed in 0..times(20) {
        let disk = SimFs::new(seed);
        let db = builder(&disk).open().unwrap();
        let mut promises = Promises::new();
        let mut rng = Rng::with_seed(seed);
        run(&db, &mut promises, &mut rng, 3).unwrap();
        disk.set_quota(Some(rng.u64(..200 << 10)));
        for _ in 0..60 {
            match run(&db, &mut promises, &mut rng, 1) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::DiskFull, "seed {seed}: {error}");
                    full += 1;
                }
            }
        }
        disk.set_quota(None);
        run(&db, &mut promises, &mut rng, 10).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        drop(db);
        let db = builder(&disk).open().unwrap();
        promises.hold(&db, promises.begun, &format!("seed {seed}"));
    }
    assert!(full > 0, "the quota was never met");
}
