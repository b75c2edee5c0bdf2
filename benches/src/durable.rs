//! What durability costs, beside a bare "write and fdatasync" loop on the same disk.
//!
//! Every figure is a ratio of two rates taken in the same round, one after the other, each at most 0.2 s
//! long; reported is the median of the rounds. The bare loop writes as many bytes as Isolde does for one
//! put, from a block boundary on, into a file that was written before.
//!
//! How many times as fast 64 threads can be as one depends on the disk and on what the system needs to wake a
//! thread. So the same is measured of threads that share syncs and do nothing else, and of threads that hand a
//! lock on in the order in which they came before they do: as data, with no bound.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isolde::{Db, Durability};
use rustix::time::{ClockId, clock_gettime};

use crate::bare::{Bare, Crowd};
use crate::shape::{Bound, Verdict};
use crate::{VALUE_BYTES, median};

const ROUND: Duration = Duration::from_millis(200);
const THREADS: usize = 64;
/// A record's header, a key of 16 bytes, a value, and their lengths.
pub(crate) const RECORD_BYTES: usize = 32 + 16 + VALUE_BYTES + 2;
const KEYS: u64 = 10_000;

/// Calls a second of `work` on one thread.
fn rate(mut work: impl FnMut(u64)) -> f64 {
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed() < ROUND {
        work(calls);
        calls += 1;
    }
    calls as f64 / start.elapsed().as_secs_f64()
}

/// Calls a second of `work` on all threads together.
fn rate_on_threads(work: impl Fn(usize, u64) + Sync) -> f64 {
    let (stop, calls, start) = (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(THREADS + 1));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (stop, calls, start, work) = (&stop, &calls, &start, &work);
            scope.spawn(move || {
                start.wait();
                let mut own = 0;
                while !stop.load(Ordering::Relaxed) {
                    work(thread, own);
                    own += 1;
                }
                calls.fetch_add(own, Ordering::Relaxed);
            });
        }
        start.wait();
        std::thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
    });
    calls.load(Ordering::Relaxed) as f64 / ROUND.as_secs_f64()
}

/// CPU time that this process has used, in seconds: by threads that have ended, too, and in the kernel.
fn cpu_seconds() -> f64 {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("no time is negative").as_secs_f64()
}

/// Seconds of CPU for one call of `work`.
fn cpu_per_call(calls: u64, mut work: impl FnMut(u64), then: impl FnOnce()) -> f64 {
    let before = cpu_seconds();
    (0..calls).for_each(&mut work);
    then();
    (cpu_seconds() - before) / calls as f64
}

fn key(n: u64) -> [u8; 16] {
    crate::key(n % KEYS)
}

fn put(db: &Db, n: u64) {
    db.put(key(n), [7; VALUE_BYTES]).expect("the disk holds");
}

fn filled(db: Db) -> Db {
    (0..KEYS)
        .for_each(|n| db.txn().durability(Durability::None).run(|t| t.put(key(n), [7; VALUE_BYTES])).expect("space"));
    db.sync().expect("the disk syncs");
    db
}

/// The ratios of a round that have a bound, and those that are there to compare with.
struct Round {
    bound: [f64; 5],
    reference: [f64; 3],
    sync_micros: f64,
}

struct Setting {
    bare: Bare,
    crowd: Crowd,
    sync: Db,
    buffered: Db,
    none: Db,
    memory: Db,
}

impl Setting {
    fn new(folder: &Path) -> Setting {
        let open = |name: &str, durability| {
            filled(Db::builder().path(folder.join(name)).durability(durability).open().expect("the folder can be used"))
        };
        Setting {
            bare: Bare::new(folder, "bare"),
            crowd: Crowd::new(Bare::new(folder, "crowd")),
            sync: open("sync", Durability::Sync),
            buffered: open("buffered", Durability::Buffered),
            none: open("none", Durability::None),
            memory: filled(Db::builder().in_memory().open().expect("the options are sound")),
        }
    }

    fn round(&mut self) -> Round {
        let bare = rate(|_| self.bare.write_and_sync());
        let one = rate(|n| put(&self.sync, n));
        let many = rate_on_threads(|thread, n| put(&self.sync, thread as u64 * 1_000 + n));
        let shared = rate_on_threads(|_, _| self.crowd.sync());
        let hot_one = rate(|_| self.sync.increment("hot", 1).expect("the disk holds"));
        let hot_many = rate_on_threads(|_, _| self.sync.increment("hot", 1).expect("the disk holds"));

        let handed_on = rate_on_threads(|_, _| self.crowd.take_turns_and_sync());

        const CALLS: u64 = 50_000;
        let memory = cpu_per_call(CALLS, |n| put(&self.memory, n), || ());
        // What its thread writes later belongs to it, too.
        let none = cpu_per_call(CALLS, |n| put(&self.none, n), || self.none.sync().expect("the disk syncs"));
        let buffered = cpu_per_call(CALLS, |n| put(&self.buffered, n), || ());
        let write = cpu_per_call(CALLS, |_| self.bare.write(RECORD_BYTES as u64), || ());
        Round {
            bound: [one / bare, many / one, hot_many / hot_one, none / memory, (buffered - memory) / write],
            reference: [shared / bare, handed_on / bare, many / shared],
            sync_micros: 1e6 / bare,
        }
    }
}

/// What was measured: medians of the rounds.
pub struct Figures {
    /// What has a bound.
    pub verdicts: Vec<Verdict>,
    /// How fast threads are that do nothing else, beside the bare loop and beside Isolde.
    pub references: [(&'static str, f64); 3],
    /// Microseconds of a bare write and sync.
    pub sync_micros: f64,
}

/// Runs the rounds in a folder on the disk that is to be measured.
///
/// # Panics
/// If the disk fails.
#[must_use]
pub fn run(folder: &Path, rounds: usize) -> Figures {
    let mut setting = Setting::new(folder);
    let all: Vec<Round> = (0..rounds)
        .map(|number| {
            let round = setting.round();
            let Round { bound, reference, sync_micros } = &round;
            println!("round {}: {bound:.2?}, bare {reference:.2?}, {sync_micros:.0} us a bare sync", number + 1);
            round
        })
        .collect();
    let names = [
        ("1 thread, single puts, Sync / bare loop", Bound::AtLeast(0.85)),
        ("64 threads / 1, single puts, Sync", Bound::AtLeast(15.0)),
        ("64 threads / 1, one hot counter, Sync", Bound::AtLeast(8.0)),
        ("None / in memory, CPU of a single put", Bound::AtMost(1.3)),
        ("(Buffered - in memory) / bare pwrite, CPU", Bound::AtMost(1.5)),
    ];
    let median_of = |figure: &dyn Fn(&Round) -> f64| median(&all.iter().map(figure).collect::<Vec<f64>>());
    let verdict =
        |(which, (name, bound))| Verdict { name, ratio: median_of(&|round: &Round| round.bound[which]), bound };
    let verdicts = names.into_iter().enumerate().map(verdict).collect();
    let references = [
        ("64 threads that only share syncs / bare loop", median_of(&|round| round.reference[0])),
        ("64 threads that hand a lock on, too / bare loop", median_of(&|round| round.reference[1])),
        ("64 threads, Sync / 64 that only share syncs", median_of(&|round| round.reference[2])),
    ];
    Figures { verdicts, references, sync_micros: median_of(&|round| round.sync_micros) }
}
