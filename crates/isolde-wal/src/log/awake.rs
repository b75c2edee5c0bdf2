//! Waiting for a batch without going to sleep, where so many wait that the processors have enough to run.
//!
//! To sleep and be woken is most of what a shared sync costs each of many threads. Where more of them wait than
//! the processors can run anyway, a thread that lets the others run, again and again, finds its batch ended after
//! a turn or two. It sleeps after all when it has yielded a few times. Where that happens for a few batches one after the
//! other, the disk is slow, and all sleep at once.
//!
//! Who yields is served after everybody else, where who is woken is served soon. That is no loss while the others are
//! of the same crowd, and a great one if they are not: a thread that only computes keeps the processor for
//! milliseconds. It shows in the time that a yield takes; then all sleep for so many batches, and for twice as many if
//! it shows again soon after.

use std::time::Duration;

use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::sync::{Mutex, thread};
use isolde_types::{Clock, SystemClock};

/// How often a thread lets others run before it sleeps.
const YIELDS: usize = if cfg!(any(shuttle, loom)) { 1 } else { 16 };
/// So many wait, for each processor: fewer leave a processor idle, and a yield gives it to nobody.
const CROWD: usize = 6;
/// Whoever is back so late from a yield has let strangers run.
const LONG: Duration = Duration::from_millis(2);
/// One batch in so many is timed: strangers who are there stay a while, and to time each took 1.2 % of all CPU.
const TIMED: u64 = 4;
/// The disk is slow when so many batches one after the other were yielded for in vain.
const SLOW: u64 = 4;
/// For so many batches all sleep then, the first time and at most.
const ASLEEP: std::ops::RangeInclusive<u64> = 64..=16384;

/// See the module.
pub(super) struct Awake<C = SystemClock> {
    clock: C,
    crowd: usize,
    /// Those who wait for an earlier batch sleep.
    from: AtomicU64,
    /// How many batches were yielded for in vain since the last that was not.
    vain: AtomicU64,
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    /// For how many batches all slept, the last time.
    asleep: u64,
    /// The last batch that was yielded for in vain.
    vain: u64,
}

impl<C: Default> Default for Awake<C> {
    fn default() -> Self {
        let processors: usize = std::thread::available_parallelism().map_or(1, Into::into);
        let crowd = if cfg!(any(shuttle, loom)) { 1 } else { CROWD * processors };
        Awake { clock: C::default(), crowd, from: AtomicU64::new(0), vain: AtomicU64::new(0), past: Mutex::default() }
    }
}

impl<C: Clock> Awake<C> {
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
        let clock = batch.is_multiple_of(TIMED).then_some(&self.clock);
        let mut before = clock.map(Clock::now);
        for _ in 0..YIELDS {
            thread::yield_now();
            let now = clock.map(Clock::now);
            if now.zip(before).is_some_and(|(now, before)| now.saturating_sub(before) > LONG) {
                return self.sleep_after(&mut self.past.lock(), batch);
            }
            if over() {
                if self.vain.load(Ordering::Relaxed) > 0 {
                    self.vain.store(0, Ordering::Relaxed);
                }
                return;
            }
            before = now;
        }
        self.yielded_in_vain(batch);
    }

    #[cold]
    fn yielded_in_vain(&self, batch: u64) {
        let mut past = self.past.lock();
        if batch <= past.vain {
            return; // others have said so
        }
        past.vain = batch;
        if self.vain.fetch_add(1, Ordering::Relaxed) + 1 >= SLOW {
            self.vain.store(0, Ordering::Relaxed);
            self.sleep_after(&mut past, batch);
        }
    }

    /// To be awake for this batch has not paid: all sleep for a while, twice as long as the last time if that is not
    /// long ago.
    #[cold]
    fn sleep_after(&self, past: &mut Past, batch: u64) {
        let from = self.from.load(Ordering::Relaxed);
        if batch < from {
            return; // others have said so of the same time
        }
        let soon = batch - from < past.asleep;
        past.asleep = if soon { (past.asleep * 2).min(*ASLEEP.end()) } else { *ASLEEP.start() };
        self.from.store(batch + past.asleep, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use isolde_types::ManualClock;

    use super::*;

    #[test]
    fn all_sleep_longer_each_time_that_it_still_does_not_pay() {
        let awake = Awake::<ManualClock>::default();
        let from = || awake.from.load(Ordering::Relaxed);
        let sleep_after = |batch| awake.sleep_after(&mut awake.past.lock(), batch);
        sleep_after(1000);
        assert_eq!(from(), 1064, "for the first time");
        sleep_after(1001);
        assert_eq!(from(), 1064, "of the same time");
        sleep_after(1100);
        assert_eq!(from(), 1100 + 128, "soon after");
        sleep_after(1228 + 128);
        assert_eq!(from(), 1228 + 128 + 64, "a while after");
        (0..20).for_each(|_| sleep_after(from()));
        assert_eq!(awake.past.lock().asleep, 16384, "not for ever");
    }

    #[test]
    fn only_a_crowd_waits_awake_and_only_where_it_pays() {
        let awake = Awake::<ManualClock> { crowd: 12, ..Awake::default() };
        awake.from.store(5, Ordering::Relaxed);
        // How often it looks whether a batch has ended, which it does after so many yields.
        let looks = |batch, waiting, yields| {
            let looks = std::cell::Cell::new(0);
            awake.wait(batch, waiting, || looks.replace(looks.get() + 1) + 1 == yields);
            looks.get()
        };
        assert_eq!((looks(5, 11, 3), looks(4, 12, 3)), (0, 0), "too few; it did not pay");
        assert_eq!(looks(5, 12, 3), 3, "until it is over");
        assert_eq!(looks(6, 12, 100), YIELDS, "then it sleeps");

        (7..9).for_each(|batch| assert_eq!(looks(batch, 12, 100), YIELDS));
        assert_eq!(looks(9, 12, 3), 3, "three batches are none too many, if the next one ends soon");
        (0..3).for_each(|_| assert_eq!(looks(10, 12, 100), YIELDS, "followers of one batch"));
        (11..14).for_each(|batch| assert_eq!(looks(batch, 12, 100), YIELDS));
        assert_eq!((looks(13 + 63, 12, 3), looks(13 + 64, 12, 3)), (0, 3), "four are: all slept for a while");

        let strange = Awake::<Late> { crowd: 12, ..Awake::default() };
        strange.wait(8, 12, || unreachable!("it sleeps at once"));
        assert_eq!(strange.from.load(Ordering::Relaxed), 8 + 64, "strangers have run");
    }

    /// Whoever asks is late.
    #[derive(Default)]
    struct Late(ManualClock);

    impl Clock for Late {
        fn now(&self) -> Duration {
            self.0.advance(LONG + Duration::from_nanos(1));
            self.0.now()
        }
    }
}
