//! The seam for concurrency: every latch, atomic and thread of the engine comes from here.
//!
//! Ordinary builds use parking_lot and the standard library; condition variables with their latches are
//! the standard library's, which wakes all who wait by one call, where parking_lot's wakes them one after the
//! other. With `--cfg shuttle` everything comes
//! from shuttle, with `--cfg loom` from loom, so that those tools can drive every interleaving of
//! the code that uses this module. `Arc` is the standard one everywhere.

pub use std::sync::{Arc, Weak};

#[cfg(not(any(shuttle, loom)))]
mod imp {
    pub use std::hint::spin_loop;
    pub use std::sync::atomic;
    pub use std::sync::{Condvar, Mutex as CondvarMutex};
    pub use std::thread;

    pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
    pub use spin::mutex::SpinMutexGuard as BriefGuard;

    /// Lets others run, of whatever priority.
    pub(super) fn rest() {
        thread::sleep(std::time::Duration::from_micros(50));
    }

    /// A latch that is held for a moment, and left by a plain store: half of what a [`Mutex`] costs that nobody
    /// waits for. Whoever finds it held looks again, as in [`spin_until`](super::spin_until), and does not park.
    #[derive(Debug, Default)]
    pub struct BriefMutex<T>(spin::mutex::SpinMutex<T>);

    impl<T> BriefMutex<T> {
        /// A latch around this.
        pub fn new(value: T) -> Self {
            BriefMutex(spin::mutex::SpinMutex::new(value))
        }

        /// Waits until it is free, and holds it.
        #[inline]
        pub fn lock(&self) -> BriefGuard<'_, T> {
            self.0.try_lock().unwrap_or_else(|| self.wait())
        }

        /// The value, for who has the latch for itself.
        pub fn get_mut(&mut self) -> &mut T {
            self.0.get_mut()
        }

        #[cold]
        fn wait(&self) -> BriefGuard<'_, T> {
            super::spin_until(|| if self.0.is_locked() { None } else { self.0.try_lock() })
        }
    }

    /// The number of this thread, in the order in which threads ask first: for spreading them over shards.
    pub fn thread_number() -> usize {
        use atomic::{AtomicUsize, Ordering};
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        std::thread_local! {
            static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        // A thread that is ending may have lost its number.
        NUMBER.try_with(|number| *number).unwrap_or(0)
    }
}

#[cfg(any(shuttle, loom))]
#[allow(missing_docs, reason = "the interface is parking_lot's")]
mod imp {
    #[cfg(loom)]
    use loom as backend;
    #[cfg(shuttle)]
    use shuttle as backend;

    pub use backend::sync::atomic;
    pub use backend::sync::{Condvar, Mutex as CondvarMutex};
    pub use backend::sync::{MutexGuard, MutexGuard as BriefGuard, RwLockReadGuard, RwLockWriteGuard};
    pub use backend::thread;

    pub(super) fn rest() {
        thread::yield_now();
    }

    /// Lets another thread run: a model checker must not spin.
    pub fn spin_loop() {
        thread::yield_now();
    }

    /// Every thread runs from the same start, so that a run can be repeated.
    pub fn thread_number() -> usize {
        0
    }

    /// A latch with parking_lot's interface over the model checker's.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(backend::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Mutex(backend::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }

        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }

        pub fn into_inner(self) -> T {
            self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
        }

        pub fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner())
        }
    }

    pub use Mutex as BriefMutex;

    /// A readers-writer latch with parking_lot's interface over the model checker's.
    #[derive(Debug, Default)]
    pub struct RwLock<T>(backend::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub fn new(value: T) -> Self {
            RwLock(backend::sync::RwLock::new(value))
        }

        pub fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner())
        }

        pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
            self.0.try_read().ok()
        }

        pub fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
        }
    }
}

use imp::rest;
pub use imp::*;

/// How often somebody looks again before it gives its time slice away. Many who look and give it away in turn
/// keep the one that they wait for from running, if that one has lost its own: so seldom, and longer than it takes.
const SPINS: u32 = 1000;
/// How often it looks before it sleeps in between. Whoever yields lets nobody run of a lower priority, and the one
/// that it waits for may be of such; and what is short as a rule may meet a disk.
const PATIENCE: u32 = SPINS + 100;

/// Asks until there is an answer: for what others do to memory without waiting for anybody who waits here.
pub fn spin_until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let mut tries: u32 = 0;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        tries = tries.saturating_add(1);
        match tries {
            ..SPINS => spin_loop(),
            SPINS..PATIENCE => thread::yield_now(),
            PATIENCE.. => rest(),
        }
    }
}

#[cfg(all(test, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    /// More threads than processors: some lose theirs while they hold it.
    #[test]
    fn one_at_a_time_has_a_brief_latch() {
        const THREADS: u64 = 8;
        const TIMES: u64 = 20_000;
        let pair = BriefMutex::new((0_u64, 0_u64));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..TIMES {
                        let mut pair = pair.lock();
                        pair.0 += 1;
                        assert_eq!(pair.0, pair.1 + 1, "nobody else is here");
                        pair.1 += 1;
                    }
                });
            }
        });
        assert_eq!(*pair.lock(), (THREADS * TIMES, THREADS * TIMES));
    }
}
