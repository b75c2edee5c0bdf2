//! What a transaction has locked, in order: so that a savepoint can give some of it back.
//!
//! A rollback to a savepoint gives back the locks that *writes* took since; what was read was seen,
//! so the locks of reads stay. A key that was locked by both keeps the mode that the reads need.

use isolde_types::{Key, LockMode, Span};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// What a lock is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A read, for update or share included: kept when a savepoint is returned to.
    Read,
    /// A write: given back when a savepoint before it is returned to.
    Write,
}

/// A place in the order of a transaction's locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockMark(usize);

/// What was locked: a record, or a span.
#[derive(Clone)]
pub(crate) enum Locked<H> {
    Key(H),
    Span(Span),
}

/// How many acquisitions need no allocation.
const INLINE: usize = 2;

/// One acquisition.
struct Entry<H> {
    locked: Locked<H>,
    mode: LockMode,
    purpose: Purpose,
}

/// The acquisitions of one transaction, oldest first.
pub(crate) struct Ledger<H> {
    entries: SmallVec<[Entry<H>; INLINE]>,
    marked: bool,
    /// Locks taken by the word that met a span, and were inflated before they could be taken back:
    /// each with the mode held before. Until that is done no other request may build on them.
    pub tentative: Vec<(H, Option<LockMode>)>,
}

impl<H> Default for Ledger<H> {
    fn default() -> Self {
        Ledger { entries: SmallVec::new(), marked: false, tentative: Vec::new() }
    }
}

impl<H: crate::Handle> Ledger<H> {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn push(&mut self, locked: Locked<H>, mode: LockMode, purpose: Purpose) {
        self.entries.push(Entry { locked, mode, purpose });
    }

    /// A lock that is held already was asked for again: that matters only if a savepoint could take
    /// it away from a read.
    pub fn push_again(&mut self, locked: impl FnOnce() -> Locked<H>, mode: LockMode, purpose: Purpose) {
        if self.marked && purpose == Purpose::Read {
            self.push(locked(), mode, purpose);
        }
    }

    pub fn mark(&mut self) -> LockMark {
        self.marked = true;
        LockMark(self.entries.len())
    }

    /// Forgets the writes' locks since the mark; gives what each of them is now to be held in.
    pub fn undo_to(&mut self, mark: LockMark) -> Vec<(Locked<H>, Option<LockMode>)> {
        let since: Vec<_> = self.entries.drain(mark.0.min(self.entries.len())..).collect();
        let (reads, writes): (Vec<_>, Vec<_>) = since.into_iter().partition(|entry| entry.purpose == Purpose::Read);
        self.entries.extend(reads);
        let mut keys: HashMap<Key, Option<LockMode>, RandomState> = HashMap::default();
        for entry in &writes {
            if let Locked::Key(handle) = &entry.locked {
                keys.insert(handle.key().clone(), None);
            }
        }
        for entry in &self.entries {
            if let Locked::Key(handle) = &entry.locked
                && let Some(mode) = keys.get_mut(handle.key())
            {
                *mode = (*mode).max(Some(entry.mode));
            }
        }
        let once = writes.into_iter().filter_map(|entry| match entry.locked {
            Locked::Key(handle) => keys.remove(handle.key()).map(|mode| (Locked::Key(handle), mode)),
            // Spans are locked to read them; a write never takes one.
            Locked::Span(span) => Some((Locked::Span(span), None)),
        });
        once.collect()
    }

    /// Everything, to be given back.
    pub fn take(&mut self) -> impl Iterator<Item = Locked<H>> + use<H> {
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.locked)
    }

    /// The records locked so far.
    pub fn handles(&self) -> impl Iterator<Item = &H> {
        self.entries.iter().filter_map(|entry| match &entry.locked {
            Locked::Key(handle) => Some(handle),
            Locked::Span(_) => None,
        })
    }
}
