//! Waiting for a batch without going to sleep, where so many wait that the processors have enough to run.
//!
//! To sleep and be woken is most of what a shared sync costs each of many threads. Where more of them wait than
//! the processors can run anyway, a thread that lets the others run, again and again, finds its batch ended after
//! a turn or two. It sleeps after all when it has yielded a few times; so nobody spins for a slow disk.
//!
//! Who yields is served after everybody else, where who is woken is served soon. That is no loss while the others are
//! of the same crowd, and a great one if they are not: a thread that only computes keeps the processor for
//! milliseconds. It shows in the time that a yield takes; then all sleep for so many batches, and for twice as many if
//! it shows again soon after.

use std::time::Duration;

use isolde_types::sync::Mutex;
use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::sync::thread;
use isolde_types::{Clock, SystemClock};

/// How often a thread lets others run before it sleeps.
const YIELDS: usize = if cfg!(any(shuttle, loom)) { 1 } else { 16 };
/// So many wait, for each processor: fewer leave a processor idle, and a yield gives it to nobody.
const CROWD: usize = 6;
/// Whoever is back so late from a yield has let strangers run.
const LONG: Duration = Duration::from_millis(2);
/// For so many batches all sleep then, the first time and at most.
const ASLEEP: std::ops::RangeInclusive<u64> = 64..=16384;

/// See the module.
pub(super) struct Awake {
    clock: SystemClock,
    crowd: usize,
    /// Those who wait for an earlier batch sleep.
    from: AtomicU64,
    /// For how many batches that was, the last time.
    asleep: Mutex<u64>,
}

impl Default for Awake {
    fn default() -> Self {
        let processors: usize = std::thread::available_parallelism().map_or(1, Into::into);
        let crowd = if cfg!(any(shuttle, loom)) { 1 } else { CROWD * processors };
        Awake { clock: SystemClock::new(), crowd, from: AtomicU64::new(0), asleep: Mutex::new(0) }
    }
}

impl Awake {
    /// Whether so many who wait keep the processors busy.
    pub fn is_crowd(&self, waiting: usize) -> bool {
        waiting >= self.crowd
    }

    /// Lets others run until `over` holds; not often, and not at all if that does not pay for this batch, for which
    /// so many wait. Whether it holds, the caller asks again.
    pub fn wait(&self, batch: u64, waiting: usize, over: impl Fn() -> bool) {
        // Relaxed: a stale answer is as good.
        if !self.is_crowd(waiting) || batch < self.from.load(Ordering::Relaxed) {
            return;
        }
        let mut before = self.clock.now();
        for _ in 0..YIELDS {
            thread::yield_now();
            let now = self.clock.now();
            if now.saturating_sub(before) > LONG {
                return self.took_long(batch);
            }
            if over() {
                return;
            }
            before = now;
        }
    }

    /// Somebody let others run, while it waited for this batch, and strangers did.
    #[cold]
    fn took_long(&self, batch: u64) {
        let mut asleep = self.asleep.lock();
        let from = self.from.load(Ordering::Relaxed);
        if batch < from {
            return; // others have said so of the same time
        }
        let soon = batch - from < *asleep;
        *asleep = if soon { (*asleep * 2).min(*ASLEEP.end()) } else { *ASLEEP.start() };
        self.from.store(batch + *asleep, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_met_strangers_sleeps_longer_each_time_that_they_are_still_there() {
        let awake = Awake::default();
        let from = || awake.from.load(Ordering::Relaxed);
        awake.took_long(1000);
        assert_eq!(from(), 1064, "for the first time");
        awake.took_long(1001);
        assert_eq!(from(), 1064, "of the same time");
        awake.took_long(1100);
        assert_eq!(from(), 1100 + 128, "soon after");
        awake.took_long(1228 + 128);
        assert_eq!(from(), 1228 + 128 + 64, "a while after");
        let mut batch = from();
        for _ in 0..10 {
            awake.took_long(batch);
            batch = from();
        }
        assert_eq!(from() - *awake.asleep.lock(), batch - 16384, "not for ever");
    }

    #[test]
    fn only_a_crowd_waits_awake() {
        let awake = Awake { crowd: 12, ..Awake::default() };
        awake.from.store(5, Ordering::Relaxed);
        let looks = |batch, waiting| {
            let looks = std::cell::Cell::new(0);
            awake.wait(batch, waiting, || looks.replace(looks.get() + 1) == 2);
            looks.get()
        };
        assert_eq!((looks(5, 11), looks(4, 12)), (0, 0), "too few; strangers were met");
        assert_eq!(looks(5, 12), 3, "until it is over");
        let endless = std::cell::Cell::new(0);
        awake.wait(5, 12, || endless.replace(endless.get() + 1) > 1000);
        assert_eq!(endless.get(), YIELDS, "then it sleeps");
    }
}
