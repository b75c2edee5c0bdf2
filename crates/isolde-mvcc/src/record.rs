//! One key: its lock word and its versions.

use std::cmp::Ordering;

use bytes::Bytes;
use isolde_types::sync::atomic::{self, AtomicBool};
use isolde_types::sync::{Arc, Mutex, MutexGuard};
use isolde_types::{Key, RecordCell, Ts, TxnId};

use crate::chain::{Chain, Garbage, InFlight, Removed, Size};
use crate::counters::Counters;
use crate::live::Live;
use crate::status::Status;
use crate::value::{heap_size, packed, packed_copy};

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

/// How many bytes of a key a prefix holds.
const PREFIX_BYTES: usize = size_of::<u128>();

/// The first bytes of a key as a number, in the order of keys; shorter keys are filled up with zeros.
pub(crate) fn prefix(key: &[u8]) -> u128 {
    let mut bytes = [0; PREFIX_BYTES];
    let len = key.len().min(PREFIX_BYTES);
    bytes[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(bytes)
}

/// One key: its lock word and its versions. Made once, found through both indexes, never moved.
#[derive(Debug)]
pub struct Record<C> {
    /// The first bytes of the key, so that most comparisons need not look for the rest.
    prefix: u128,
    key: Key,
    hash: u64,
    cell: C,
    counters: Arc<Counters>,
    /// It stands in the ordered index, or stood there until it was reclaimed.
    linked: AtomicBool,
    /// It waits for the sweeper.
    queued: AtomicBool,
    chain: Mutex<Chain>,
}

impl<C: RecordCell> Record<C> {
    pub(crate) fn new(key: &[u8], hash: u64, counters: &Arc<Counters>) -> Record<C> {
        Record {
            prefix: prefix(key),
            key: packed_copy(key),
            hash,
            cell: C::default(),
            counters: Arc::clone(counters),
            linked: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            chain: Mutex::new(Chain::new()),
        }
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether this is the record of a key; `hash` is the key's.
    pub(crate) fn is_of(&self, key: &[u8], key_prefix: u128, hash: u64) -> bool {
        let alike = self.hash == hash && self.prefix == key_prefix && self.key.len() == key.len();
        alike && (key.len() <= PREFIX_BYTES || self.key[..] == *key)
    }

    /// The order of this record's key and another key.
    pub(crate) fn cmp_key(&self, key: &[u8], key_prefix: u128) -> Ordering {
        // Equal prefixes of short keys may still differ in zero bytes at their ends.
        self.prefix.cmp(&key_prefix).then_with(|| match self.key.len().min(key.len()) {
            0..=PREFIX_BYTES => self.key.len().cmp(&key.len()),
            _ => self.key[..].cmp(key),
        })
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
    pub fn install(&self, status: &Arc<Status>, seq: u32, value: Option<Bytes>) {
        let version = Box::new(InFlight { status: Arc::clone(status), seq, value: value.map(packed) });
        self.change(|chain, size| chain.install(version, size));
    }

    /// Takes the transaction's in-flight version away: it never was.
    pub fn withdraw(&self, status: &Arc<Status>) {
        self.change(|chain, size| chain.withdraw(status, size));
    }

    /// Stamps a finished in-flight version with its commit_ts, and drops the versions that nobody can
    /// see. Says whether something is left that the sweeper should look at again.
    #[must_use = "what is left is for Store::note_garbage"]
    pub fn settle(&self, live: &Live) -> bool {
        let mut garbage = Garbage::None;
        self.change(|chain, size| {
            let removed = chain.prune(live, size);
            garbage = chain.garbage();
            removed
        });
        garbage == Garbage::Some
    }

    /// Changes the chain under its latch; drops what was taken out under none.
    fn change(&self, change: impl FnOnce(&mut Chain, &mut Size) -> Removed) {
        let mut size = Size::default();
        let removed = change(&mut self.chain.lock(), &mut size);
        drop(removed);
        self.counters.add(self.hash, size);
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

    /// Loads a little of the record and of its key.
    pub(crate) fn touch(&self) -> u64 {
        let key = self.key.first().copied().map_or(0, u64::from);
        key ^ u64::from(self.queued.load(atomic::Ordering::Relaxed))
    }

    /// The chain, latched.
    pub(crate) fn latch(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock()
    }

    /// Enters the sweeper's queue; `false` if it is there already.
    pub(crate) fn enter_queue(&self) -> bool {
        !self.queued.swap(true, atomic::Ordering::AcqRel)
    }

    pub(crate) fn leave_queue(&self) {
        self.queued.store(false, atomic::Ordering::Release);
    }

    /// Heap bytes of the record itself, its versions apart.
    pub(crate) fn own_bytes(&self) -> usize {
        /// The two counts that an `Arc` keeps beside its value.
        const COUNTS: usize = 2 * size_of::<usize>();
        size_of::<Record<C>>() + COUNTS + heap_size(self.key.len())
    }

    pub(crate) fn chain_size(&self) -> Size {
        self.chain.lock().size()
    }

    pub(crate) fn timestamps(&self) -> Vec<Ts> {
        self.chain.lock().timestamps()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct NoCell;

    impl RecordCell for NoCell {
        fn try_seal(&self) -> bool {
            false
        }
        fn is_sealed(&self) -> bool {
            false
        }
    }

    #[test]
    fn keys_compare_as_their_bytes_do_whatever_their_length() {
        let zeros = [0_u8; 20];
        let long = b"a key of more than sixteen bytes";
        let mut keys: Vec<&[u8]> = vec![b"", b"a", b"a\0", b"a\0\0", b"b", &zeros[..15], &zeros[..16], &zeros[..17]];
        keys.extend([&long[..16], &long[..17], &long[..], b"a key of more that"]);
        for a in &keys {
            let record: Record<NoCell> = Record::new(a, 1, &Arc::default());
            for b in &keys {
                assert_eq!(record.cmp_key(b, prefix(b)), a.cmp(b), "{a:?} {b:?}");
                assert_eq!(record.is_of(b, prefix(b), 1), a == b, "{a:?} {b:?}");
            }
        }
    }
}
