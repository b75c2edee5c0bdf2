//! Helpers that the integration tests share: seeds, databases, and polling by hand.

pub mod crash;
pub mod format;
pub mod hooked;
pub mod images;
pub mod memory;
pub mod owned;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use isolde::step::Op;
use isolde::{Builder, Db, Isolation, Mode, Result};

/// The seed of this run: `ISOLDE_SEED`, or the test's own; printed, so that a failure can be repeated.
///
/// # Panics
/// If `ISOLDE_SEED` is not a number.
#[must_use]
pub fn seed(test: &str, default: u64) -> u64 {
    let seed = std::env::var("ISOLDE_SEED").map_or(default, |text| text.parse().expect("ISOLDE_SEED is a number"));
    println!("{test}: ISOLDE_SEED={seed}");
    seed
}

/// How many rounds a stress test makes: `ISOLDE_ROUNDS`, or its own number.
///
/// # Panics
/// If `ISOLDE_ROUNDS` is not a number.
#[must_use]
pub fn rounds(default: u64) -> u64 {
    std::env::var("ISOLDE_ROUNDS").map_or(default, |text| text.parse().expect("ISOLDE_ROUNDS is a number"))
}

/// An in-memory database with the options that a test sets.
///
/// # Panics
/// If the options make no sense.
#[must_use]
pub fn open(options: impl FnOnce(Builder) -> Builder) -> Db {
    options(Db::builder().in_memory()).open().expect("the test's options are sound")
}

/// Every level in both modes.
pub fn configurations() -> impl Iterator<Item = (Isolation, Mode)> {
    Isolation::ALL.into_iter().flat_map(|isolation| Mode::ALL.map(|mode| (isolation, mode)))
}

/// A waker that remembers being woken.
#[derive(Default)]
pub struct Flag {
    woken: AtomicBool,
}

impl Flag {
    /// Whether it was woken since the last call.
    #[must_use]
    pub fn take(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
    }
}

/// Polls once, with a waker that does nothing.
pub fn poll<T>(op: &mut Op<T>) -> Poll<Result<T>> {
    op.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls an operation that must not wait.
///
/// # Panics
/// If it waits.
pub fn now<T>(mut op: Op<T>) -> Result<T> {
    match poll(&mut op) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("the operation waits: {:?}", op.cause()),
    }
}
