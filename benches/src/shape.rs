//! The shape of the costs: ratios that must hold whatever the machine.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use isolde::{Db, Isolation, Mode};

use crate::{ShardedMap, key, median, nanos_per_call, value};

/// One figure of a round, in nanoseconds per operation.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    map_get: f64,
    get: f64,
    begin_get_end: f64,
    skip_row: f64,
    row: f64,
    row_unlimited: f64,
    skip_insert: f64,
    update: f64,
    one_thread: f64,
    two_threads: f64,
}

/// A ratio, and what it must be.
pub struct Verdict {
    /// What is compared.
    pub name: &'static str,
    /// The median of the rounds' ratios.
    pub ratio: f64,
    /// What the ratio must not pass.
    pub bound: Bound,
}

/// On which side of its bound a ratio must be.
pub enum Bound {
    /// At most.
    AtMost(f64),
    /// At least.
    AtLeast(f64),
}

impl Verdict {
    /// Whether the ratio is on the right side.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.ratio <= bound,
            Bound::AtLeast(bound) => self.ratio >= bound,
        }
    }
}

/// What is measured: the same keys in each.
struct Subjects {
    db: Db,
    map: ShardedMap,
    skip: SkipMap<Bytes, Bytes>,
    keys: u64,
    next_fresh: u64,
}

/// Runs the rounds, prints the figures, and gives the verdicts.
#[must_use]
pub fn run(keys: u64, rounds: usize) -> Vec<Verdict> {
    println!("filling three tables with {keys} keys of 16 bytes and values of {} bytes", crate::VALUE_BYTES);
    let skip = SkipMap::new();
    for i in 0..keys {
        skip.get_or_insert(Bytes::copy_from_slice(&key(i)), value());
    }
    let mut subjects =
        Subjects { db: crate::filled(keys), map: ShardedMap::filled(keys), skip, keys, next_fresh: keys };
    let rounds: Vec<Round> = (0..rounds).map(|number| subjects.round(number as u64)).collect();
    print_medians(&rounds);
    verdicts(&rounds)
}

fn verdicts(rounds: &[Round]) -> Vec<Verdict> {
    let ratio = |of: fn(&Round) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    vec![
        Verdict {
            name: "a point read / a sharded hash map's get",
            ratio: ratio(|r| r.get / r.map_get),
            bound: Bound::AtMost(3.0),
        },
        Verdict {
            name: "a row through a SkipMap / a scanned row",
            ratio: ratio(|r| r.skip_row / r.row),
            bound: Bound::AtLeast(3.0),
        },
        Verdict {
            name: "a SkipMap insert / an update",
            ratio: ratio(|r| r.skip_insert / r.update),
            bound: Bound::AtLeast(3.0),
        },
        Verdict {
            name: "read-only transactions on 2 threads / on 1",
            ratio: ratio(|r| r.one_thread / r.two_threads),
            bound: Bound::AtLeast(1.6),
        },
    ]
}

fn print_medians(rounds: &[Round]) {
    let figure = |name: &str, of: fn(&Round) -> f64| {
        println!("{name:<58} {:>9.1} ns", median(&rounds.iter().map(of).collect::<Vec<_>>()));
    };
    println!("medians of {} interleaved rounds:", rounds.len());
    figure("get from a sharded hash map", |r| r.map_get);
    figure("get in an open read-only snapshot", |r| r.get);
    figure("begin read-only, get, end", |r| r.begin_get_end);
    figure("row through a SkipMap, scans of 100", |r| r.skip_row);
    figure("scanned row, scans of 100 by `limit`", |r| r.row);
    figure("the same, left after 100 rows", |r| r.row_unlimited);
    figure("insert of a new key into a SkipMap", |r| r.skip_insert);
    figure("update: an optimistic transaction of one put", |r| r.update);
    figure("read-only transaction, 1 thread", |r| r.one_thread);
    figure("read-only transaction, 2 threads (time / all transactions)", |r| r.two_threads);
}

impl Subjects {
    fn round(&mut self, number: u64) -> Round {
        let mut rng = fastrand::Rng::with_seed(number);
        let reads = 200_000;
        let scans = 2_000;
        let (map_get, get) = self.gets(&mut rng, reads);
        let (skip_row, row, row_unlimited) = self.rows(&mut rng, scans);
        let (skip_insert, update) = self.writes(&mut rng, 100_000);
        Round {
            map_get,
            get,
            begin_get_end: nanos_per_call(reads, |_| read_only_transaction(&self.db, rng.u64(..self.keys))),
            skip_row,
            row,
            row_unlimited,
            skip_insert,
            update,
            one_thread: self.threads(1, reads),
            two_threads: self.threads(2, reads),
        }
    }

    fn gets(&self, rng: &mut fastrand::Rng, calls: u64) -> (f64, f64) {
        let map = nanos_per_call(calls, |_| {
            black_box(self.map.get(&key(rng.u64(..self.keys))));
        });
        let snapshot = self.db.snapshot().expect("the database is open");
        let isolde = nanos_per_call(calls, |_| {
            black_box(snapshot.get(key(rng.u64(..self.keys))).expect("reads do not fail"));
        });
        (map, isolde)
    }

    /// Nanoseconds per row of scans of 100 rows from random places.
    fn rows(&self, rng: &mut fastrand::Rng, scans: u64) -> (f64, f64, f64) {
        const ROWS: usize = 100;
        let skip = nanos_per_call(scans, |_| {
            let start = key(rng.u64(..self.keys));
            let mut entry = self.skip.lower_bound(std::ops::Bound::Included(&start[..]));
            for _ in 0..ROWS {
                let Some(at) = entry else { break };
                black_box((at.key().clone(), at.value().clone()));
                entry = at.next();
            }
        });
        let snapshot = self.db.snapshot().expect("the database is open");
        let limited = nanos_per_call(scans, |_| {
            let start = key(rng.u64(..self.keys));
            for row in snapshot.scan(start..).limit(ROWS) {
                black_box(row.expect("reads do not fail"));
            }
        });
        let left = nanos_per_call(scans, |_| {
            let start = key(rng.u64(..self.keys));
            for row in snapshot.scan(start..).take(ROWS) {
                black_box(row.expect("reads do not fail"));
            }
        });
        (skip / ROWS as f64, limited / ROWS as f64, left / ROWS as f64)
    }

    fn writes(&mut self, rng: &mut fastrand::Rng, calls: u64) -> (f64, f64) {
        let fresh = self.next_fresh;
        self.next_fresh += calls;
        let skip = nanos_per_call(calls, |i| {
            self.skip.get_or_insert(Bytes::copy_from_slice(&key(fresh + i)), value());
        });
        // The same size of table in the next round.
        (0..calls).for_each(|i| drop(self.skip.remove(&key(fresh + i)[..])));
        let db = &self.db;
        let update = nanos_per_call(calls, |_| {
            let txn = db
                .txn()
                .isolation(Isolation::Serializable)
                .mode(Mode::Optimistic)
                .begin()
                .expect("the database is open");
            txn.put(key(rng.u64(..self.keys)), [8_u8; crate::VALUE_BYTES]).expect("nobody else writes");
            txn.commit().expect("nobody else writes");
        });
        (skip, update)
    }

    /// Nanoseconds of wall time per transaction, over the transactions of all threads.
    fn threads(&self, threads: u64, calls_each: u64) -> f64 {
        let barrier = Barrier::new(usize::try_from(threads).expect("few threads") + 1);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (barrier, db, keys) = (&barrier, &self.db, self.keys);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(thread);
                    barrier.wait();
                    (0..calls_each).for_each(|_| read_only_transaction(db, rng.u64(..keys)));
                    barrier.wait();
                });
            }
            barrier.wait();
            let start = Instant::now();
            barrier.wait();
            start.elapsed().as_nanos() as f64 / (threads * calls_each) as f64
        })
    }
}

fn read_only_transaction(db: &Db, i: u64) {
    let txn = db.snapshot().expect("the database is open");
    black_box(txn.get(key(i)).expect("reads do not fail"));
    txn.commit().expect("a read-only transaction never aborts");
}
