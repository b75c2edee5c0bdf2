//! The seam between the order of commits and the log: who is how far, and who takes what is placed.

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{Ts, mutant};

/// The encoded writes of one transaction, on their way into the log.
#[derive(Debug, Default)]
pub struct LogBody {
    /// Room for the record's header, then after-images, as the log's crate encodes them.
    pub bytes: Vec<u8>,
    /// How much space in the log was reserved for it; given back when it is written.
    pub reserved: u64,
    /// It waits for no write and no sync: with its place it is as good as acknowledged.
    pub at_once: bool,
}

/// Takes log records in commit_ts order. Called inside the sequencer: never waits, never fails.
pub trait Places: Send + Sync + 'static {
    /// Takes the records of a finished prefix, in commit_ts order, and calls `publish`, which makes
    /// that prefix visible and tells it, so that nobody sees the one without the other. Gives wakers
    /// of those who need wait no longer.
    ///
    /// The memory of a body may stay with the caller, to be freed or used again under no latch.
    fn give(
        &self,
        records: &mut dyn Iterator<Item = (Ts, &mut LogBody)>,
        publish: &mut dyn FnMut() -> Ts,
    ) -> Vec<std::task::Waker>;
}

/// Up to where commits are durable, and up to where a sync in progress will make them so.
///
/// Both are views that the collector must spare. The log writes them, in the order in which
/// [`protected`](Durable::protected) relies on.
#[derive(Debug)]
pub struct Durable {
    durable: CachePadded<AtomicU64>,
    syncing: AtomicU64,
}

const NO_SYNC: u64 = u64::MAX;

impl Durable {
    /// Everything up to `ts` is durable.
    #[must_use]
    pub fn new(ts: Ts) -> Durable {
        Durable { durable: CachePadded::new(AtomicU64::new(ts.0)), syncing: AtomicU64::new(NO_SYNC) }
    }

    /// durable_ts: every commit up to it is on disk.
    #[must_use]
    pub fn get(&self) -> Ts {
        // SeqCst: a durable view is announced between two loads of this; see `Views`.
        Ts(self.durable.load(Ordering::SeqCst))
    }

    /// A write or sync begins that may make this the new durable_ts.
    pub fn announce(&self, captured: Ts) {
        self.syncing.store(captured.0, Ordering::SeqCst);
    }

    /// durable_ts moves; never back.
    pub fn advance(&self, to: Ts) {
        self.durable.fetch_max(to.0, Ordering::SeqCst);
    }

    /// What was announced is over; durable_ts has moved, or will not.
    pub fn withdraw(&self) {
        self.syncing.store(NO_SYNC, Ordering::SeqCst);
    }

    /// The timestamps that must stay readable: durable_ts, and what a sync in progress will make it.
    ///
    /// The one in progress is read first: if it is gone by then, durable_ts has moved already.
    #[must_use]
    pub fn protected(&self) -> [Option<Ts>; 2] {
        if mutant!("collector-ignores-durable") {
            return [None, None];
        }
        let syncing = Some(self.syncing.load(Ordering::SeqCst)).filter(|ts| *ts != NO_SYNC).map(Ts);
        [syncing, Some(self.get())]
    }
}
