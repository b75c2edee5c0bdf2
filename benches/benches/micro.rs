//! Micro-benchmarks of each call, per level and mode where it matters.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use isolde::{Db, Isolation, Mode, Txn};
use isolde_bench::{filled, key};

const KEYS: u64 = 100_000;
const MANY: u64 = 1_000_000;

fn configurations() -> impl Iterator<Item = (Isolation, Mode, String)> {
    Isolation::ALL
        .into_iter()
        .flat_map(|isolation| Mode::ALL.map(|mode| (isolation, mode, format!("{isolation}/{mode}"))))
}

fn begin(db: &Db, isolation: Isolation, mode: Mode) -> Txn {
    db.txn().isolation(isolation).mode(mode).begin().expect("the database is open")
}

fn begins(c: &mut Criterion) {
    let db = filled(KEYS);
    let mut group = c.benchmark_group("begin and drop");
    for (isolation, mode, name) in configurations() {
        group.bench_function(name, |b| b.iter(|| drop(black_box(begin(&db, isolation, mode)))));
    }
    group.bench_function("read-only", |b| b.iter(|| drop(black_box(db.snapshot()))));
}

fn gets(c: &mut Criterion) {
    let db = filled(MANY);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut group = c.benchmark_group("get, 1 M keys, open snapshot");
    let snapshot = db.snapshot().expect("the database is open");
    group.bench_function("hit", |b| b.iter(|| snapshot.get(key(rng.u64(..MANY)))));
    group.bench_function("miss", |b| b.iter(|| snapshot.get(key(MANY + rng.u64(..MANY)))));
    group.bench_function("hot (1,000 keys)", |b| b.iter(|| snapshot.get(key(rng.u64(..1_000)))));
    group.bench_function("Db::get", |b| b.iter(|| db.get(key(rng.u64(..MANY)))));
    group.bench_function("scan of 100 rows", |b| {
        b.iter(|| snapshot.scan(key(rng.u64(..MANY))..).take(100).map(|row| row.map(|_| 1).unwrap_or(0)).sum::<u32>());
    });
    group.finish();
}

fn commits(c: &mut Criterion) {
    let db = filled(KEYS);
    let mut rng = fastrand::Rng::with_seed(2);
    for (what, keys) in [("update 1 key", 1_u64), ("update 4 keys", 4)] {
        let mut group = c.benchmark_group(what);
        for (isolation, mode, name) in configurations() {
            group.bench_function(name, |b| {
                b.iter(|| {
                    let txn = begin(&db, isolation, mode);
                    for _ in 0..keys {
                        txn.put(key(rng.u64(..KEYS)), [1_u8; 100]).expect("nobody else writes");
                    }
                    txn.commit().expect("nobody else writes")
                });
            });
        }
    }
    let mut group = c.benchmark_group("read and write 1 key");
    for (isolation, mode, name) in configurations() {
        group.bench_function(name, |b| {
            b.iter(|| {
                let txn = begin(&db, isolation, mode);
                let at = key(rng.u64(..KEYS));
                let value = txn.get(at).expect("nobody else writes").unwrap_or_default();
                txn.put_bytes(at, value).expect("nobody else writes");
                txn.commit().expect("nobody else writes")
            });
        });
    }
}

fn inserts(c: &mut Criterion) {
    let mut group = c.benchmark_group("insert of new keys");
    for mode in Mode::ALL {
        let db = filled(KEYS);
        let mut next = KEYS;
        group.bench_function(mode.name(), |b| {
            b.iter(|| {
                next += 1;
                let txn = begin(&db, Isolation::Serializable, mode);
                txn.insert(key(next), [1_u8; 100]).expect("the key is new");
                txn.commit().expect("nobody else writes")
            });
        });
    }
    group.bench_function("put, read committed", |b| {
        let db = filled(KEYS);
        let mut next = KEYS;
        b.iter(|| {
            next += 1;
            let txn = begin(&db, Isolation::ReadCommitted, Mode::Optimistic);
            txn.put(key(next), [1_u8; 100]).expect("nobody else writes");
            txn.commit().expect("nobody else writes")
        });
    });
}

fn locks(c: &mut Criterion) {
    let db = filled(KEYS);
    let mut rng = fastrand::Rng::with_seed(3);
    c.bench_function("uncontended lock (get_for_update, pessimistic read committed)", |b| {
        let mut txn = begin(&db, Isolation::ReadCommitted, Mode::Pessimistic);
        let mut taken = 0;
        b.iter(|| {
            txn.get_for_update(key(rng.u64(..KEYS))).expect("nobody else locks");
            taken += 1;
            if taken % 1_000 == 0 {
                txn = begin(&db, Isolation::ReadCommitted, Mode::Pessimistic);
            }
        });
    });
    c.bench_function("contended hand-off (2 threads, one key)", |b| {
        b.iter_custom(|iterations| {
            contended(&db, iterations, |db| {
                let txn = begin(db, Isolation::ReadCommitted, Mode::Pessimistic);
                txn.put("hot", "x").expect("one key cannot deadlock");
                txn.commit().expect("one key cannot deadlock");
            })
        });
    });
}

/// The time of `iterations` runs of `work`, while another thread does the same all the time.
fn contended(db: &Db, iterations: u64, work: impl Fn(&Db) + Copy + Send + 'static) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let other = std::thread::spawn({
        let (db, stop) = (db.clone(), Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::Relaxed) {
                work(&db);
            }
        }
    });
    let start = Instant::now();
    (0..iterations).for_each(|_| work(db));
    let elapsed = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    other.join().expect("the other thread does the same work");
    elapsed
}

fn counters(c: &mut Criterion) {
    let mut group = c.benchmark_group("hot counter, 2 threads");
    let db = Db::builder().in_memory().open().expect("the options are sound");
    group.bench_function("increment", |b| {
        b.iter_custom(|n| contended(&db, n, |db| db.increment("hits", 1).expect("increments commute")));
    });
    for mode in Mode::ALL {
        group.bench_function(BenchmarkId::new("read-modify-write, serializable", mode), |b| {
            b.iter_custom(|n| {
                contended(&db, n, move |db| {
                    db.txn()
                        .mode(mode)
                        .run(|t| {
                            let count = t.get_for_update("count")?.map_or(0, |v| v[0]);
                            t.put("count", [count.wrapping_add(1)])
                        })
                        .expect("retries come through");
                })
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500))
        .sample_size(20);
    targets = begins, gets, commits, inserts, locks, counters
}
criterion_main!(benches);
