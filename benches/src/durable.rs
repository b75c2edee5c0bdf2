//! What durability costs, beside a bare "write and fdatasync" loop on the same disk.
//!
//! Every figure is a ratio of two rates taken in the same round, one after the other, each at most 0.2 s
//! long; reported is the median of the rounds. The bare loop writes as many bytes as Isolde does for one
//! put, from a block boundary on, into a file that was written before.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isolde::{Db, Durability};

use crate::shape::{Bound, Verdict};
use crate::{VALUE_BYTES, median};

const ROUND: Duration = Duration::from_millis(200);
const THREADS: usize = 64;
const FILE_BYTES: u64 = 64 << 20;
const BLOCK: u64 = 4096;
/// A record's header, a key of 16 bytes, a value, and their lengths.
const RECORD_BYTES: usize = 32 + 16 + VALUE_BYTES + 2;
const KEYS: u64 = 10_000;

/// Writes and perhaps syncs a record at a time.
struct Bare {
    file: File,
    at: u64,
    buffer: Vec<u8>,
}

impl Bare {
    fn new(folder: &Path) -> Bare {
        let options = OpenOptions::new().create(true).truncate(true).write(true).open(folder.join("bare"));
        let mut file = options.expect("the folder can be written");
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES / zeros.len() as u64 {
            file.write_all(&zeros).expect("there is space");
        }
        file.sync_all().expect("the disk syncs");
        Bare { file, at: 0, buffer: vec![7; RECORD_BYTES] }
    }

    fn write(&mut self, step: u64) {
        self.file.write_all_at(&self.buffer, self.at).expect("the file can be written");
        self.at = (self.at + step) % (FILE_BYTES - BLOCK);
    }

    fn write_and_sync(&mut self) {
        self.write(BLOCK);
        self.file.sync_data().expect("the disk syncs");
    }
}

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

/// CPU time that all threads of this process have used, in seconds.
fn cpu_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").expect("the kernel tells of threads");
    let nanos = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e9
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

struct Setting {
    bare: Bare,
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
            bare: Bare::new(folder),
            sync: open("sync", Durability::Sync),
            buffered: open("buffered", Durability::Buffered),
            none: open("none", Durability::None),
            memory: filled(Db::builder().in_memory().open().expect("the options are sound")),
        }
    }

    /// One round: every ratio, and the microseconds of a bare sync.
    fn round(&mut self) -> ([f64; 5], f64) {
        let bare = rate(|_| self.bare.write_and_sync());
        let one = rate(|n| put(&self.sync, n));
        let many = rate_on_threads(|thread, n| put(&self.sync, thread as u64 * 1_000 + n));
        let hot_one = rate(|_| self.sync.increment("hot", 1).expect("the disk holds"));
        let hot_many = rate_on_threads(|_, _| self.sync.increment("hot", 1).expect("the disk holds"));

        const CALLS: u64 = 50_000;
        let memory = cpu_per_call(CALLS, |n| put(&self.memory, n), || ());
        // What its thread writes later belongs to it, too.
        let none = cpu_per_call(CALLS, |n| put(&self.none, n), || self.none.sync().expect("the disk syncs"));
        let buffered = cpu_per_call(CALLS, |n| put(&self.buffered, n), || ());
        let write = cpu_per_call(CALLS, |_| self.bare.write(RECORD_BYTES as u64), || ());
        let ratios = [one / bare, many / one, hot_many / hot_one, none / memory, (buffered - memory) / write];
        (ratios, 1e6 / bare)
    }
}

/// Runs the rounds in a folder on the disk that is to be measured; gives the verdicts and the median
/// microseconds of a bare write and sync.
///
/// # Panics
/// If the disk fails.
#[must_use]
pub fn run(folder: &Path, rounds: usize) -> (Vec<Verdict>, f64) {
    let mut setting = Setting::new(folder);
    let all: Vec<([f64; 5], f64)> = (0..rounds)
        .map(|round| {
            let (ratios, micros) = setting.round();
            println!("round {}: {ratios:.2?}, {micros:.0} us a bare sync", round + 1);
            (ratios, micros)
        })
        .collect();
    let names = [
        ("1 thread, single puts, Sync / bare loop", Bound::AtLeast(0.85)),
        ("64 threads / 1, single puts, Sync", Bound::AtLeast(15.0)),
        ("64 threads / 1, one hot counter, Sync", Bound::AtLeast(8.0)),
        ("None / in memory, CPU of a single put", Bound::AtMost(1.3)),
        ("(Buffered - in memory) / bare pwrite, CPU", Bound::AtMost(1.5)),
    ];
    let ratios = |which: usize| all.iter().map(|(ratios, _)| ratios[which]).collect::<Vec<f64>>();
    let verdict = |(which, (name, bound))| Verdict { name, ratio: median(&ratios(which)), bound };
    let verdicts = names.into_iter().enumerate().map(verdict).collect();
    (verdicts, median(&all.iter().map(|(_, micros)| *micros).collect::<Vec<f64>>()))
}
