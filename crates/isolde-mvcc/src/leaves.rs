//! The ordered index: sorted leaves of records, linked to the right, found through fences.
//!
//! ```text
//!   fences    ""            "g"                 "p"          (may lag behind splits)
//!              │             │                   │
//!   leaves   ["" .. "g") ──► ["g" .. "k") ──► ["k" .. "p") ──► ["p" .. )
//!                             split: "k" has no fence yet; who lands left walks right
//! ```
//!
//! A leaf covers the keys from its low fence to `high`. It is split under its latch, the new right
//! half linked and fenced before the latch is left. A leaf that becomes empty is unlinked under its
//! left neighbour's latch and its own, and marked dead; who meets a dead leaf starts again. Latches
//! are taken from left to right. The leftmost leaf stays for ever.
//!
//! Source: Lehman and Yao (1981), the part about walking right.

use std::cmp;
use std::ops::Bound;

use isolde_types::sync::atomic::{AtomicUsize, Ordering};
use isolde_types::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use isolde_types::{Key, RecordCell, Span};
use smallvec::SmallVec;

use crate::fences::Fences;
use crate::prefetch::prefetch_behind;
use crate::record::{PREFIX_BYTES, ReadAt, Record, prefix};
use crate::rows::{Rows, STRETCH, STRETCH_MAX};

/// How many records a leaf holds at most.
const LEAF_RECORDS: usize = if cfg!(any(shuttle, loom)) { 2 } else { 64 };

/// How many cache lines the first records of a leaf take, with what stands before them.
const LINES_OF_A_STRETCH: usize = 15;

/// How many cache lines a leaf takes that is as full as most.
const LINES_OF_A_LEAF: usize = 25;

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Edge>() == 64, "a leaf is prefetched in steps of its low edge: a cache line");

type Entries<C> = SmallVec<[Entry<C>; LEAF_RECORDS]>;

/// The fields stand in the order in which they are met: [`Leaf::prefetch`].
#[repr(C)]
pub(crate) struct Leaf<C> {
    low: Edge,
    inside: RwLock<Inside<C>>,
}

#[repr(C)]
struct Inside<C> {
    dead: bool,
    next: Option<Arc<Leaf<C>>>,
    /// The first key after this leaf; `None` for the last leaf.
    high: Option<Edge>,
    /// In the leaf itself: whoever comes to it has one place less to wait for.
    entries: Entries<C>,
}

/// A key where a leaf or a scan begins or ends. Of a short key it is a copy, so that neither comparing
/// nor cloning one looks at memory that is far away.
#[derive(Clone)]
struct Edge {
    prefix: u128,
    len: usize,
    /// The whole, if it is longer than its prefix.
    long: Option<Key>,
}

/// A record as its leaf knows it: with enough of the key to compare and to return short keys without
/// a look at the record.
pub(crate) struct Entry<C> {
    prefix: u128,
    key_len: usize,
    record: Arc<Record<C>>,
}

/// A key that is looked for.
#[derive(Clone, Copy)]
struct Sought<'k> {
    prefix: u128,
    len: usize,
    /// The whole, if it is longer than its prefix.
    long: &'k [u8],
}

impl<'k> Sought<'k> {
    fn new(key: &'k [u8]) -> Sought<'k> {
        Sought { prefix: prefix(key), len: key.len(), long: key }
    }

    /// The order of another key, given by its first bytes, its length, and a way to see the whole, and
    /// this one.
    fn cmp_to<'o>(&self, prefix: u128, len: usize, whole: impl FnOnce() -> &'o [u8]) -> cmp::Ordering {
        // Equal prefixes of short keys may still differ in zero bytes at their ends.
        prefix.cmp(&self.prefix).then_with(|| match len.min(self.len) {
            0..=PREFIX_BYTES => len.cmp(&self.len),
            _ => whole().cmp(self.long),
        })
    }
}

impl Edge {
    /// At a key, of which the whole is asked for only if it is long.
    fn new(prefix: u128, len: usize, whole: impl FnOnce() -> Key) -> Edge {
        Edge { prefix, len, long: (len > PREFIX_BYTES).then(whole) }
    }

    fn at(key: &Key) -> Edge {
        Edge::new(prefix(key), key.len(), || key.clone())
    }

    fn key(&self) -> Key {
        let short = || self.prefix.to_be_bytes().get(..self.len).map(Key::copy_from_slice);
        self.long.clone().or_else(short).unwrap_or_default()
    }

    fn sought(&self) -> Sought<'_> {
        Sought { prefix: self.prefix, len: self.len, long: self.long.as_deref().unwrap_or_default() }
    }

    fn cmp(&self, sought: Sought<'_>) -> cmp::Ordering {
        sought.cmp_to(self.prefix, self.len, || self.long.as_deref().unwrap_or_default())
    }
}

impl<C: RecordCell> Entry<C> {
    fn new(record: &Arc<Record<C>>) -> Entry<C> {
        Entry { prefix: record.prefix(), key_len: record.key().len(), record: Arc::clone(record) }
    }

    /// The record.
    pub(crate) fn record(&self) -> &Arc<Record<C>> {
        &self.record
    }

    pub(crate) fn prefix(&self) -> u128 {
        self.prefix
    }

    pub(crate) fn key_len(&self) -> usize {
        self.key_len
    }

    /// The order of this key and the other.
    fn cmp(&self, sought: Sought<'_>) -> cmp::Ordering {
        sought.cmp_to(self.prefix, self.key_len, || self.record.key())
    }

    fn edge(&self) -> Edge {
        Edge::new(self.prefix, self.key_len, || self.record.key().clone())
    }
}

impl<C> Inside<C> {
    fn ends_before(&self, key: Sought<'_>) -> bool {
        self.high.as_ref().is_some_and(|high| high.cmp(key).is_le())
    }
}

/// Where a scan of a span is: what is left of it, from both ends. It borrows nothing.
pub struct Cursor<C> {
    start: Edge,
    end: Option<Edge>,
    done: bool,
    /// The leaf where the front goes on, if it is known.
    leaf: Option<Arc<Leaf<C>>>,
}

/// Records in key order.
pub(crate) struct Leaves<C: RecordCell> {
    fences: Fences<Arc<Leaf<C>>>,
    first: Arc<Leaf<C>>,
    /// How many leaves there are.
    count: AtomicUsize,
}

impl<C: RecordCell> Leaves<C> {
    pub fn new() -> Leaves<C> {
        let first = Arc::new(Leaf::new(Edge::at(&Key::new()), Entries::new(), None, None));
        Leaves { fences: Fences::new(), first, count: AtomicUsize::new(1) }
    }

    /// The leaf whose fence is the last within the bound.
    fn at_fence(&self, bound: Bound<&[u8]>) -> Arc<Leaf<C>> {
        let found = |leaf: &Arc<Leaf<C>>| {
            leaf.prefetch(LINES_OF_A_LEAF);
            Arc::clone(leaf)
        };
        let fenced = || self.fences.last_below(bound, found).unwrap_or_else(|| Arc::clone(&self.first));
        self.only_leaf().unwrap_or_else(fenced)
    }

    /// The first leaf, if there seems to be no other: a small database has no fences to look at, and whoever
    /// lands left of his key walks right.
    fn only_leaf(&self) -> Option<Arc<Leaf<C>>> {
        // Relaxed: a hint.
        (self.count.load(Ordering::Relaxed) == 1).then(|| Arc::clone(&self.first))
    }

    // --- linking -----------------------------------------------------------------------------------

    /// Links a record, unless it was sealed meanwhile. Idempotent; in place of a sealed one.
    pub fn link(&self, record: &Arc<Record<C>>) {
        self.link_from(self.at_fence(Bound::Included(&record.key()[..])), record);
    }

    /// The same for records in key order: begins where the last one was linked, which saves the search.
    pub fn link_after(&self, record: &Arc<Record<C>>, near: &mut Option<Arc<Leaf<C>>>) {
        let before = near.take().filter(|leaf| leaf.low.cmp(Sought::new(record.key())).is_le());
        let leaf = before.unwrap_or_else(|| self.at_fence(Bound::Included(&record.key()[..])));
        *near = Some(self.link_from(leaf, record));
    }

    /// Begins at a leaf that is not right of the record's, and gives that which it was linked into, or one
    /// left of it.
    fn link_from(&self, mut leaf: Arc<Leaf<C>>, record: &Arc<Record<C>>) -> Arc<Leaf<C>> {
        loop {
            let inside = leaf.inside.write();
            if inside.dead {
                drop(inside);
                leaf = self.at_fence(Bound::Included(&record.key()[..]));
            } else if inside.ends_before(Sought::new(record.key())) {
                let next = inside.next.clone();
                drop(inside);
                leaf = next.unwrap_or_else(|| Arc::clone(&self.first));
            } else {
                self.link_into(inside, record);
                record.set_linked();
                return leaf;
            }
        }
    }

    fn link_into(&self, mut inside: RwLockWriteGuard<'_, Inside<C>>, record: &Arc<Record<C>>) {
        // Seal, leaf, hash: a record that was unlinked is sealed, and stays unlinked.
        if record.cell().is_sealed() {
            return;
        }
        let (entry, sought) = (Entry::new(record), Sought::new(record.key()));
        match inside.entries.binary_search_by(|other| other.cmp(sought)) {
            Ok(place) => inside.entries[place] = entry,
            Err(place) if inside.entries.len() < LEAF_RECORDS => inside.entries.insert(place, entry),
            Err(place) => self.split(&mut inside, place, entry),
        }
    }

    /// Moves the upper half of a full leaf to a new one on its right, with the new record in one of
    /// them. A record that comes last in the last leaf opens a new leaf alone: keys that are inserted
    /// in order leave full leaves behind.
    fn split(&self, inside: &mut Inside<C>, place: usize, entry: Entry<C>) {
        let appends = place == inside.entries.len() && inside.next.is_none();
        let middle = if appends { place } else { inside.entries.len() / 2 };
        let mut right: Entries<C> = inside.entries.drain(middle..).collect();
        if place >= middle && (appends || place > middle) {
            right.insert(place - middle, entry);
        } else {
            inside.entries.insert(place, entry);
        }
        let Some(low) = right.first().map(Entry::edge) else { return };
        let leaf = Arc::new(Leaf::new(low.clone(), right, inside.high.take(), inside.next.take()));
        inside.high = Some(low.clone());
        inside.next = Some(Arc::clone(&leaf));
        // Under the latch: once it is left, the new leaf may empty and its fence be removed.
        self.fences.insert(low.key(), leaf);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a sealed record out. Idempotent.
    pub fn unlink(&self, record: &Arc<Record<C>>) {
        let mut leaf = self.at_fence(Bound::Included(&record.key()[..]));
        loop {
            let mut inside = leaf.inside.write();
            if inside.dead {
                drop(inside);
                leaf = self.at_fence(Bound::Included(&record.key()[..]));
            } else if inside.ends_before(Sought::new(record.key())) {
                let next = inside.next.clone();
                drop(inside);
                leaf = next.unwrap_or_else(|| Arc::clone(&self.first));
            } else {
                inside.entries.retain(|other| !Arc::ptr_eq(&other.record, record));
                let empty = inside.entries.is_empty();
                drop(inside);
                if empty {
                    self.remove_if_empty(&leaf);
                }
                return;
            }
        }
    }

    /// Unlinks an empty leaf; the one on its left takes over its keys.
    fn remove_if_empty(&self, leaf: &Arc<Leaf<C>>) {
        if Arc::ptr_eq(leaf, &self.first) {
            return;
        }
        let low = leaf.low.key();
        let mut left = self.at_fence(Bound::Excluded(&low[..]));
        loop {
            let mut before = left.inside.write();
            let next = before.next.clone();
            match next {
                _ if before.dead => {
                    drop(before);
                    left = self.at_fence(Bound::Excluded(&low[..]));
                }
                Some(next) if Arc::ptr_eq(&next, leaf) => {
                    let mut inside = leaf.inside.write();
                    if inside.entries.is_empty() && !inside.dead {
                        inside.dead = true;
                        before.next = inside.next.take();
                        before.high = inside.high.take();
                        self.fences.remove(&low);
                        self.count.fetch_sub(1, Ordering::Relaxed);
                    }
                    return;
                }
                Some(next) if next.low.cmp(leaf.low.sought()).is_lt() => {
                    drop(before);
                    left = next;
                }
                // Somebody else removed it.
                Some(_) | None => return,
            }
        }
    }

    // --- scanning ------------------------------------------------------------------------------------

    /// The leaf in which `edge` belongs, latched, from a hint or the fences.
    fn with_leaf<R>(
        &self,
        hint: Option<Arc<Leaf<C>>>,
        edge: &Edge,
        visit: impl FnOnce(&Arc<Leaf<C>>, &RwLockReadGuard<'_, Inside<C>>) -> R,
    ) -> R {
        let from_fences = || match self.only_leaf() {
            Some(only) => only,
            None => self.at_fence(Bound::Included(&edge.key()[..])),
        };
        let mut leaf = hint.unwrap_or_else(from_fences);
        loop {
            let inside = leaf.inside.read();
            if inside.dead {
                drop(inside);
                leaf = from_fences();
            } else if inside.ends_before(edge.sought()) {
                let next = inside.next.clone();
                drop(inside);
                leaf = next.unwrap_or_else(|| Arc::clone(&self.first));
            } else {
                return visit(&leaf, &inside);
            }
        }
    }

    /// Visits the records of a leaf at the front of the cursor's span, in order, under the leaf's
    /// latch; `false` when the span is done.
    pub fn visit_front(&self, cursor: &mut Cursor<C>, mut visit: impl FnMut(&[Entry<C>])) -> bool {
        self.visit_some(cursor, |entries| {
            visit(entries);
            entries.len()
        })
    }

    /// The same, for a visitor that says how many of the records it took: the cursor goes on after them.
    fn visit_some(&self, cursor: &mut Cursor<C>, mut visit: impl FnMut(&[Entry<C>]) -> usize) -> bool {
        if cursor.done {
            return false;
        }
        let Cursor { start, end, leaf, .. } = cursor;
        let (from, next) = self.with_leaf(leaf.take(), start, |leaf, inside| {
            let entries = within(leaf, inside, start, end.as_ref());
            if let Some(next) = &inside.next {
                next.prefetch(LINES_OF_A_STRETCH);
            }
            match entries.get(visit(entries)) {
                Some(left) => (Some(left.edge()), Some(Arc::clone(leaf))),
                None => (inside.high.clone(), inside.next.clone()),
            }
        });
        match from {
            Some(from) if end.as_ref().is_none_or(|end| from.cmp(end.sought()).is_lt()) => {
                *start = from;
                *leaf = next;
            }
            _ => cursor.done = true,
        }
        !cursor.done
    }

    /// The same from the back; the records come in ascending order too.
    pub fn visit_back(&self, cursor: &mut Cursor<C>, mut visit: impl FnMut(&[Entry<C>])) -> bool {
        if cursor.done {
            return false;
        }
        let end = cursor.end.as_ref().map(Edge::key);
        let bound = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut leaf = self.at_fence(bound);
        loop {
            let inside = leaf.inside.read();
            // The leaf on the left of `end`: it ends there or beyond.
            let ends_early = match (&inside.high, &cursor.end) {
                (Some(high), Some(end)) => high.cmp(end.sought()).is_lt(),
                (Some(_), None) => true,
                (None, _) => false,
            };
            if inside.dead {
                drop(inside);
                leaf = self.at_fence(bound);
            } else if ends_early {
                let next = inside.next.clone();
                drop(inside);
                leaf = next.unwrap_or_else(|| Arc::clone(&self.first));
            } else {
                visit(within(&leaf, &inside, &cursor.start, cursor.end.as_ref()));
                break;
            }
        }
        if leaf.low.cmp(cursor.start.sought()).is_gt() {
            cursor.end = Some(leaf.low.clone());
        } else {
            cursor.done = true;
        }
        !cursor.done
    }

    /// Reads the next records of the cursor's span, at most a stretch of one leaf and no more than are wanted, in key
    /// order; `false` when the span is done.
    pub fn rows(&self, cursor: &mut Cursor<C>, at: ReadAt, wanted: Option<usize>, out: &mut Rows) -> bool {
        out.reserve(wanted);
        let begins = cursor.leaf.is_none();
        let mut left = wanted;
        let more = self.visit_some(cursor, |entries| {
            let (stretch, behind) = next_stretch(entries, wanted);
            left = wanted.map(|wanted| wanted - stretch.len());
            if begins {
                prefetch_chains(stretch);
            }
            out.read(stretch, next_stretch(behind, left).0, at);
            stretch.len()
        });
        if let Some(leaf) = cursor.leaf.as_ref().filter(|_| left != Some(0)) {
            leaf.prefetch_records(left);
        }
        more
    }

    /// Heap bytes of leaves and fences.
    pub fn bytes(&self) -> usize {
        let leaf = size_of::<Leaf<C>>() + 2 * size_of::<usize>();
        self.count.load(Ordering::Relaxed) * leaf + self.fences.bytes()
    }
}

impl<C> Leaf<C> {
    fn new(low: Edge, entries: Entries<C>, high: Option<Edge>, next: Option<Arc<Leaf<C>>>) -> Leaf<C> {
        Leaf { low, inside: RwLock::new(Inside { entries, high, next, dead: false }) }
    }

    /// Prefetches the records that a scan meets first. A hint: nothing is waited for, the leaf's latch neither.
    fn prefetch_records(&self, wanted: Option<usize>)
    where
        C: RecordCell,
    {
        if let Some(inside) = self.inside.try_read() {
            prefetch_chains(next_stretch(&inside.entries, wanted).0);
        }
    }

    /// Prefetches so many cache lines of the leaf, from its beginning.
    fn prefetch(&self, lines: usize) {
        (0..lines).for_each(|line| prefetch_behind(&self.low, line));
    }
}

impl<C: RecordCell> Drop for Leaves<C> {
    /// One leaf after the other, so that a long chain does not need a deep stack.
    fn drop(&mut self) {
        let mut next = self.first.inside.write().next.take();
        while let Some(leaf) = next {
            next = leaf.inside.write().next.take();
        }
    }
}

impl<C> Cursor<C> {
    pub(crate) fn new(span: &Span) -> Cursor<C> {
        let (start, end) = (Edge::at(&span.start), span.end.as_ref().map(Edge::at));
        Cursor { start, end, done: span.is_empty(), leaf: None }
    }
}

/// Prefetches all of the records before any of them is latched: the misses overlap.
pub(crate) fn prefetch_chains<C: RecordCell>(entries: &[Entry<C>]) {
    entries.iter().for_each(|entry| entry.record.prefetch_chain());
}

/// The first few of the records, to be read in one go and no more than are wanted, and those behind. A few that
/// would be left over are read with the others.
fn next_stretch<C>(entries: &[Entry<C>], wanted: Option<usize>) -> (&[Entry<C>], &[Entry<C>]) {
    let len = wanted.map_or(entries.len(), |wanted| entries.len().min(wanted));
    entries.split_at(if len <= STRETCH_MAX { len } else { STRETCH })
}

/// The entries of a leaf from one key to before another. Looks only for those that lie inside of the leaf.
fn within<'e, C: RecordCell>(
    leaf: &Leaf<C>,
    inside: &'e Inside<C>,
    start: &Edge,
    end: Option<&Edge>,
) -> &'e [Entry<C>] {
    let entries = &inside.entries;
    let before = |edge: &Edge| entries.partition_point(|entry| entry.cmp(edge.sought()).is_lt());
    let from = if leaf.low.cmp(start.sought()).is_ge() { 0 } else { before(start) };
    let to = match (end, &inside.high) {
        (None, _) => entries.len(),
        (Some(end), Some(high)) if high.cmp(end.sought()).is_le() => entries.len(),
        (Some(end), _) => before(end),
    };
    entries.get(from..to).unwrap_or_default()
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
            let record: Arc<Record<NoCell>> = Arc::new(Record::new(a, 1, &Arc::default()));
            let entry = Entry::new(&record);
            for b in &keys {
                assert_eq!(entry.cmp(Sought::new(b)), a.cmp(b), "{a:?} {b:?}");
                assert_eq!(
                    Edge::at(&Key::copy_from_slice(a)).cmp(Edge::at(&Key::copy_from_slice(b)).sought()),
                    a.cmp(b),
                    "{a:?} {b:?}"
                );
                assert_eq!(record.is_of(b, prefix(b), 1), a == b, "{a:?} {b:?}");
            }
        }
    }
}
