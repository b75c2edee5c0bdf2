//! One key: its lock word and its versions.

use bytes::Bytes;
use isolde_types::sync::atomic::{self, AtomicBool};
use isolde_types::sync::{Arc, BriefGuard, BriefMutex};
use isolde_types::{Key, LogBody, RecordCell, Ts, TxnId, mutant};

use crate::chain::{Chain, Garbage, InFlight, Removed, Size};
use crate::counters::Counters;
use crate::discard::{Discard, let_go};
use crate::live::Live;
use crate::prefetch::{prefetch, prefetch_before};
use crate::status::Status;
use crate::timeline::{Timeline, Wakers};
use crate::value::Packed;

/// Which version a read wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadAt {
    /// The newest, in-flight ones of exposed writers included.
    Dirty,
    /// The newest committed one.
    Newest,
    /// The newest committed at or before this.
    At(Ts),
}

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The version.
    pub version: FoundVersion,
    /// Its value; `None` for a tombstone, and where there is no version.
    pub value: Option<Bytes>,
}

impl Found {
    /// Of a key that has no record.
    pub const NOTHING: Found = Found { version: FoundVersion::None, value: None };
}

/// Which version a read found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FoundVersion {
    /// None at all.
    None,
    /// The one that was committed at this time.
    Committed(Ts),
    /// One that is not committed.
    InFlight {
        /// Whose.
        writer: TxnId,
        /// Which of its writes.
        seq: u32,
    },
}

/// The newest version at or before some time, for certification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latest {
    /// There is none.
    Nothing,
    /// It was committed at this time; whether it is a tombstone.
    Committed(Ts, bool),
    /// A transaction took this commit_ts and may still fail: ask again.
    Undecided(Ts),
}

/// What settling a record came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what is left is for Store::note_garbage"]
pub struct Settled {
    /// Something was dropped.
    pub dropped: bool,
    /// Something is left that the sweeper should look at again.
    pub leaves_garbage: bool,
}

/// How many bytes of a key a prefix holds.
pub(crate) const PREFIX_BYTES: usize = size_of::<u128>();

/// The first bytes of a key as a number, in the order of keys; shorter keys are filled up with zeros.
pub(crate) fn prefix(key: &[u8]) -> u128 {
    let mut bytes = [0; PREFIX_BYTES];
    let len = key.len().min(PREFIX_BYTES);
    bytes[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(bytes)
}

/// One key: its lock word and its versions. Made once, found through both indexes, never moved.
///
/// The fields stand in three cache lines: what a key is looked up by, what locks and reads meet, and the rest. So a scan,
/// which knows the key from its leaf, loads one line of each record.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Record<C> {
    /// The first bytes of the key, so that most comparisons need not look for the rest.
    prefix: u128,
    hash: u64,
    key_len: u32,
    /// It stands in the ordered index, or stood there until it was reclaimed.
    linked: AtomicBool,
    /// It waits for the sweeper.
    queued: AtomicBool,
    key: Packed,
    cell: C,
    chain: BriefMutex<Chain>,
    shared: Arc<Shared>,
}

/// What all records of a store share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    pub(crate) discard: Discard,
}

impl<C: RecordCell> Record<C> {
    pub(crate) fn new(key: &[u8], hash: u64, shared: &Arc<Shared>) -> Record<C> {
        Record {
            prefix: prefix(key),
            hash,
            key_len: u32::try_from(key.len()).unwrap_or(u32::MAX),
            linked: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            cell: C::default(),
            chain: BriefMutex::new(Chain::new()),
            shared: Arc::clone(shared),
            key: Packed::copy(key),
        }
    }

    /// The key.
    pub fn key(&self) -> &Key {
        self.key.bytes()
    }

    /// Whether this is the record of a key; `hash` is the key's.
    pub(crate) fn is_of(&self, key: &[u8], key_prefix: u128, hash: u64) -> bool {
        let alike = self.hash == hash && self.prefix == key_prefix;
        match self.key_len {
            len if len as usize <= PREFIX_BYTES => alike && len as usize == key.len(),
            _ => alike && self.key[..] == *key,
        }
    }

    pub(crate) fn prefix(&self) -> u128 {
        self.prefix
    }

    /// The lock word.
    pub fn cell(&self) -> &C {
        &self.cell
    }

    /// What a view shows of this key. In-flight versions of `own` are passed over: a transaction
    /// serves its own writes itself.
    pub fn read(&self, at: ReadAt, own: Option<&Arc<Status>>) -> Found {
        self.chain.lock().read(at, own)
    }

    /// The newest version at or before `at`, other than `own`'s.
    pub fn latest_at(&self, at: Ts, own: Option<&Arc<Status>>) -> Latest {
        self.chain.lock().latest_at(at, own)
    }

    /// Puts an in-flight version here, in place of an earlier one of the same transaction.
    ///
    /// The caller holds the key exclusively, so there is at most one.
    pub fn install(&self, status: &Arc<Status>, seq: u32, value: Option<Packed>) {
        let version = Box::new(InFlight { status: Arc::clone(status), seq, value });
        self.change(|chain, size| chain.install(version, size));
    }

    /// Makes this the record's only version, as recovery found it.
    pub(crate) fn restore(&self, ts: Ts, value: Option<Packed>) {
        self.change(|chain, size| chain.restore(ts, value, size));
    }

    /// Takes the transaction's in-flight version away: it never was.
    pub fn withdraw(&self, status: &Arc<Status>) {
        self.change(|chain, _| chain.withdraw(status));
    }

    /// Stamps a finished in-flight version with its commit_ts, and drops the versions that nobody can
    /// see. What is left is for [`Store::note_garbage`](crate::Store::note_garbage).
    pub fn settle(&self, live: &Live) -> Settled {
        let mut settled = Settled { dropped: false, leaves_garbage: false };
        self.change(|chain, size| {
            let removed = chain.prune(live, size);
            settled = Settled { dropped: removed.committed, leaves_garbage: chain.garbage() == Garbage::Some };
            removed
        });
        settled
    }

    /// Commits a write of this record that is a whole transaction with nothing to certify, in one visit.
    ///
    /// The caller holds the key exclusively, and the commit_ts is taken under the chain's latch: whoever gets a
    /// larger one and looks here (I5), and whoever sees that it is visible (I2), waits until the version stands. `live`
    /// is asked after the order, so that the version before can be dropped at once. What is left of `body` is memory.
    pub fn commit(
        &self,
        value: Option<Packed>,
        timeline: &Timeline,
        body: &mut Option<LogBody>,
        live: impl FnOnce() -> Live,
    ) -> (Ts, Wakers, Settled) {
        let mut order = || timeline.commit_finished(body, |_| {});
        let early = mutant!("order-outside-of-latch").then(&mut order);
        let mut ordered = (Ts::ZERO, Wakers::default());
        let mut settled = Settled { dropped: false, leaves_garbage: false };
        self.change(|chain, size| {
            let order = || {
                ordered = early.unwrap_or_else(order);
                (ordered.0, live())
            };
            let removed = chain.commit(value, order, size);
            settled = Settled { dropped: removed.committed, leaves_garbage: chain.garbage() == Garbage::Some };
            removed
        });
        (ordered.0, ordered.1, settled)
    }

    /// Changes the chain under its latch; drops what was taken out under none.
    fn change(&self, change: impl FnOnce(&mut Chain, &mut Size) -> Removed) {
        let mut size = Size::default();
        let mut removed = change(&mut self.chain.lock(), &mut size);
        removed.take_values(|value| self.shared.discard.discard(value));
        self.shared.counters.add(self.hash, size);
        if removed.has_more() {
            let_go(removed);
        }
    }

    /// Seals the record if nobody can tell it from an absent key and nobody holds its lock.
    pub(crate) fn seal_if_dead(&self, live: &Live) -> bool {
        let chain = self.chain.lock();
        self.is_linked() && chain.is_dead(live) && self.cell.try_seal()
    }

    /// Empties a sealed record; what it held is no longer counted.
    pub(crate) fn bury(&self) {
        self.change(|chain, size| {
            let gone = chain.size();
            *size = Size { versions: -gone.versions, bytes: -gone.bytes };
            *chain = Chain::new();
            Removed::default()
        });
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn is_linked(&self) -> bool {
        // Acquire: pairs with the Release in `set_linked`; who sees it finds the record in its leaf.
        self.linked.load(atomic::Ordering::Acquire)
    }

    pub(crate) fn set_linked(&self) {
        self.linked.store(true, atomic::Ordering::Release);
    }

    /// Prefetches the cache line that most reads meet: the latch, the newest version, and whether one is in flight.
    #[inline]
    pub(crate) fn prefetch_chain(&self) {
        prefetch(&self.chain);
    }

    /// Prefetches all that a look-up, a read or a commit meets: the counts of references before the record, what is
    /// compared, the chain, and what stands behind it.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch_before(&self.prefix, 1);
        prefetch(&self.prefix);
        prefetch(&self.chain);
        prefetch(&self.shared);
    }

    /// The chain, latched, and what a clone of its newest value meets prefetched.
    #[inline]
    pub(crate) fn latch_and_prefetch(&self) -> BriefGuard<'_, Chain> {
        let chain = self.chain.lock();
        chain.prefetch_newest();
        chain
    }

    /// Enters the sweeper's queue; `false` if it is there already.
    pub(crate) fn enter_queue(&self) -> bool {
        // A plain look first: mostly it stands there. Relaxed: whoever asks has changed the chain under its latch, and
        // the sweeper takes the record out before it latches the chain. So this sees that it is out, or the sweeper sees
        // the change.
        !self.queued.load(atomic::Ordering::Relaxed) && !self.queued.swap(true, atomic::Ordering::AcqRel)
    }

    pub(crate) fn leave_queue(&self) {
        self.queued.store(false, atomic::Ordering::Release);
    }

    /// Heap bytes of the record itself, its versions apart.
    pub(crate) fn own_bytes(&self) -> usize {
        // The counts that an `Arc` keeps beside its value: a line of their own.
        let counts = align_of::<Record<C>>();
        size_of::<Record<C>>() + counts + self.key.heap_size()
    }

    pub(crate) fn chain_size(&self) -> Size {
        self.chain.lock().size()
    }

    pub(crate) fn timestamps(&self) -> Vec<Ts> {
        self.chain.lock().timestamps()
    }
}
