//! Waiting is a value: every operation is a future whose causes for being pending have names.
//!
//! An operation carries a [`Wait`]: the leaf that cannot go on notes there why. The blocking API
//! parks its thread until it is woken or the lock timeout has passed; a driver polls by hand.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use isolde_types::Clock;
use isolde_types::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use isolde_types::sync::{Arc, spin_loop, thread};

/// Why an operation is pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// It waits for a lock.
    Lock,
    /// It waits until earlier commits have finished, so that what it returns is visible: memory
    /// work of others, never a lock.
    Visibility,
    /// A commit waits for operations of its own transaction that still run.
    Draining,
    /// It waits until what it wrote or read is as hard as its durability promises.
    Log,
}

/// How long a lock may be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// As long as the transaction, or else the database, says.
    Default,
    /// Not at all.
    NoWait,
    /// At most this long.
    AtMost(Duration),
}

/// What an operation and whoever polls it tell each other.
#[derive(Debug)]
pub(crate) struct Wait {
    pub patience: Patience,
    cause: AtomicU8,
    /// Counts lock waits, so that each has its own deadline.
    lock_waits: AtomicU64,
    expired: AtomicBool,
    /// A thread runs the operation to its end, and parks while it is pending.
    parked: AtomicBool,
}

impl Wait {
    pub fn new(patience: Patience) -> Wait {
        Wait {
            patience,
            cause: AtomicU8::new(0),
            lock_waits: AtomicU64::new(0),
            expired: AtomicBool::new(false),
            parked: AtomicBool::new(false),
        }
    }

    /// A new lock wait begins: its deadline counts from now.
    pub fn begin_lock_wait(&self) {
        self.lock_waits.fetch_add(1, Ordering::Relaxed);
        self.expired.store(false, Ordering::Relaxed);
    }

    /// The operation is pending for this reason.
    pub fn pending(&self, cause: Cause) {
        self.cause.store(cause as u8 + 1, Ordering::Relaxed);
    }

    pub fn cause(&self) -> Option<Cause> {
        match self.cause.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Cause::Lock),
            2 => Some(Cause::Visibility),
            3 => Some(Cause::Draining),
            _ => Some(Cause::Log),
        }
    }

    /// The current lock wait is over: the operation must fail at its next poll.
    pub fn expire(&self) {
        self.expired.store(true, Ordering::Relaxed);
    }

    pub fn take_expired(&self) -> bool {
        self.expired.swap(false, Ordering::Relaxed)
    }

    /// Whether whoever polls does so again as soon as it is woken: a task may be dropped, or forgotten.
    pub fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Relaxed)
    }
}

/// Runs an operation to its end on this thread, parked while it is pending.
///
/// `timeout` bounds each lock wait. Nothing is allocated and no clock is read unless it must wait.
pub(crate) fn block_on<F: Future>(
    clock: &dyn Clock,
    timeout: Option<Duration>,
    wait: &Wait,
    operation: F,
) -> F::Output {
    block_on_unless(clock, timeout, wait, operation, || false)
}

/// The same; where a lock wait is hopeless, it is over before it begins.
pub(crate) fn block_on_unless<F: Future>(
    clock: &dyn Clock,
    timeout: Option<Duration>,
    wait: &Wait,
    operation: F,
    hopeless: impl Fn() -> bool,
) -> F::Output {
    wait.parked.store(true, Ordering::Relaxed);
    let mut operation = std::pin::pin!(operation);
    let mut cx = Context::from_waker(Waker::noop());
    match operation.as_mut().poll(&mut cx) {
        Poll::Ready(output) => output,
        Poll::Pending => park_until_ready(clock, timeout, wait, operation, hopeless),
    }
}

fn park_until_ready<F: Future>(
    clock: &dyn Clock,
    timeout: Option<Duration>,
    wait: &Wait,
    mut operation: Pin<&mut F>,
    hopeless: impl Fn() -> bool,
) -> F::Output {
    let parker = Arc::new(Parker { thread: thread::current(), notified: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&parker));
    let mut deadline = Deadline::default();
    let mut looked_at = 0;
    loop {
        if let Poll::Ready(output) = operation.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let lock_wait = wait.lock_waits.load(Ordering::Relaxed);
        if wait.cause() == Some(Cause::Lock) && std::mem::replace(&mut looked_at, lock_wait) != lock_wait && hopeless()
        {
            wait.expire();
            continue;
        }
        match deadline.remaining(clock, timeout, wait) {
            Some(Duration::ZERO) => wait.expire(),
            // A sync takes far longer than it pays to look for.
            remaining => parker.park(remaining, if wait.cause() == Some(Cause::Log) { 0 } else { SPINS }),
        }
    }
}

/// When the current lock wait is over; armed only when a thread really parks.
#[derive(Default)]
struct Deadline {
    lock_wait: u64,
    at: Option<Duration>,
}

impl Deadline {
    fn remaining(&mut self, clock: &dyn Clock, timeout: Option<Duration>, wait: &Wait) -> Option<Duration> {
        let timeout = timeout.filter(|_| wait.cause() == Some(Cause::Lock))?;
        let now = clock.now();
        let lock_wait = wait.lock_waits.load(Ordering::Relaxed);
        if self.at.is_none() || self.lock_wait != lock_wait {
            *self = Deadline { lock_wait, at: Some(now.saturating_add(timeout)) };
        }
        self.at.map(|at| at.saturating_sub(now))
    }
}

/// How often a thread looks whether it was woken before it parks. To be parked and woken again costs
/// about as much as ten short transactions; who holds a hot key is done before that.
const SPINS: u32 = if cfg!(any(shuttle, loom)) { 0 } else { 100 };

/// A parked thread as a waker.
struct Parker {
    thread: thread::Thread,
    notified: AtomicBool,
}

impl Parker {
    /// Returns when woken, or after `remaining`, or spuriously; looks so many times before it parks.
    fn park(&self, remaining: Option<Duration>, spins: u32) {
        // Acquire: pairs with the Release in `wake`; what the waker did is seen by the next poll.
        for _ in 0..spins {
            if self.notified.load(Ordering::Relaxed) && self.notified.swap(false, Ordering::Acquire) {
                return;
            }
            spin_loop();
        }
        if self.notified.swap(false, Ordering::Acquire) {
            return;
        }
        match remaining {
            Some(remaining) => thread::park_timeout(remaining),
            None => thread::park(),
        }
        self.notified.swap(false, Ordering::Acquire);
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notified.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
