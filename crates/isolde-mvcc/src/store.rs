//! The store: both indexes, and collection.
//!
//! A record lives through four steps, in this order: it is entered into the point index, linked into
//! the ordered index, and much later, when it is dead and its lock word could be sealed, unlinked from
//! the ordered index and removed from the point index. Whoever finds a sealed record helps to finish
//! that, and looks the key up again.

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;
use isolde_types::sync::{Arc, BriefMutex};
use isolde_types::{Key, RecordCell, Span, Ts};

use crate::chain::Size;
use crate::leaves::{Cursor, Leaves, prefetch_chains};
use crate::live::Live;
use crate::points::{Points, Prefetched};
use crate::record::{Found, Latest, ReadAt, Record, Settled, Shared};
use crate::rows::Rows;
use crate::status::Status;
use crate::value::Packed;

/// How many records the sweeper takes at once: no more than stay near.
const SWEPT_TOGETHER: usize = 64;
/// How many records a share of sweeping is at most, but for its part of those that wait.
const LARGEST_SHARE: usize = 1024;
/// One in so many of those that wait is looked at with each share.
const BACKLOG_SHARE: usize = 2048;

/// Records by key, and what nobody can see any more.
pub struct Store<C: RecordCell> {
    points: Points<C>,
    leaves: Leaves<C>,
    shared: Arc<Shared>,
    /// What the sweeper is to look at. Changed often, and nobody who looks a key up waits for its cache lines.
    garbage: CachePadded<BriefMutex<Garbage<C>>>,
}

/// Records that the sweeper is to look at.
struct Garbage<C> {
    queue: VecDeque<Arc<Record<C>>>,
    /// How many were noted and not yet part of a [share](Store::sweep_share).
    noted: usize,
}

impl<C> Garbage<C> {
    fn note(&mut self, record: Arc<Record<C>>) {
        self.queue.push_back(record);
        self.noted += 1;
    }

    fn share(&mut self, least: usize) -> usize {
        let noted = self.noted.min(self.queue.len());
        let share = noted.min(LARGEST_SHARE).max(least);
        self.noted = noted.saturating_sub(share);
        share + self.queue.len() / BACKLOG_SHARE
    }
}

/// Whether something in a span has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpanCheck {
    /// Nothing.
    Unchanged,
    /// This key has a version of this time.
    Changed {
        /// The key.
        key: Key,
        /// When it was committed.
        ts: Ts,
    },
    /// A transaction that wrote in the span took this commit_ts and may still fail: ask again.
    Undecided(Ts),
}

/// What a round of collection did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Records that were looked at.
    pub looked_at: usize,
    /// Records of which versions were dropped.
    pub dropped: usize,
    /// Records that were reclaimed.
    pub reclaimed: usize,
}

/// Figures of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStats {
    /// Keys that have a record.
    pub records: usize,
    /// Committed versions, tombstones included.
    pub versions: usize,
    /// Heap bytes of keys, versions, records and indexes, about.
    pub bytes: usize,
}

impl<C: RecordCell> Default for Store<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: RecordCell> Store<C> {
    /// A store without any key.
    #[must_use]
    pub fn new() -> Store<C> {
        Store {
            points: Points::new(),
            leaves: Leaves::new(),
            shared: Arc::default(),
            garbage: CachePadded::new(BriefMutex::new(Garbage { queue: VecDeque::new(), noted: 0 })),
        }
    }

    /// The record of a key, if there is one.
    pub fn find(&self, key: &[u8]) -> Option<Arc<Record<C>>> {
        self.points.find(self.points.hash(key), key)
    }

    /// Prefetches what a change of this key will meet.
    pub fn prefetch(&self, key: &[u8]) -> Prefetched<'_, C> {
        self.points.prefetch(key)
    }

    /// What a view shows of a key: [`Record::read`], for those who do not need the record.
    pub fn read(&self, key: &[u8], at: ReadAt, own: Option<&Arc<Status>>) -> Found {
        self.points.find_with(self.points.hash(key), key, |record| record.read(at, own)).unwrap_or(Found::NOTHING)
    }

    /// The record of a key, made if there is none; it is linked into both indexes.
    pub fn find_or_create(&self, key: &[u8]) -> Arc<Record<C>> {
        let hash = self.points.hash(key);
        loop {
            let record = match self.points.find(hash, key) {
                Some(record) => record,
                None => self.points.find_or_insert(hash, key, || self.create(key, hash)),
            };
            if record.cell().is_sealed() {
                self.unlink(&record);
                continue;
            }
            if !record.is_linked() {
                self.leaves.link(&record);
            }
            return record;
        }
    }

    fn create(&self, key: &[u8], hash: u64) -> Record<C> {
        let record = Record::new(key, hash, &self.shared);
        self.shared.counters.add(hash, own_size(&record, 1));
        record
    }

    /// What recovery found: at `ts`, `key` had this value, or none. Nobody reads meanwhile, and the
    /// changes of one key come in their order.
    pub fn restore(&self, key: &[u8], value: Option<&[u8]>, ts: Ts) {
        match value {
            Some(value) => self.find_or_create(key).restore(ts, Some(Packed::copy(value))),
            None => {
                if let Some(record) = self.find(key) {
                    record.restore(ts, None);
                    self.note_garbage(record);
                }
            }
        }
    }

    /// Takes the rows of a checkpoint, in key order and into keys that nobody has: faster than
    /// [`restore`](Store::restore).
    pub fn load_in_order(&self) -> impl FnMut(&[u8], &[u8], Ts) + '_ {
        let mut near = None;
        move |key, value, ts| {
            let hash = self.points.hash(key);
            let record = self.points.find_or_insert(hash, key, || self.create(key, hash));
            if !record.is_linked() {
                self.leaves.link_after(&record, &mut near);
            }
            record.restore(ts, Some(Packed::copy(value)));
        }
    }

    /// Makes room for so many keys, so that tables need not grow while they come.
    pub fn reserve(&self, keys: usize) {
        self.points.reserve(keys);
    }

    // --- scanning ----------------------------------------------------------------------------------

    /// A cursor over a span. It borrows nothing, and goes from both ends.
    #[must_use]
    pub fn cursor(&self, span: &Span) -> Cursor<C> {
        Cursor::new(span)
    }

    /// Appends the next records of the cursor's span, up to a leaf of them, in ascending order;
    /// `false` when the span is done. Records that come later into a part that was passed are missed.
    pub fn next_batch(&self, cursor: &mut Cursor<C>, out: &mut Vec<Arc<Record<C>>>) -> bool {
        self.leaves.visit_front(cursor, |entries| {
            prefetch_chains(entries);
            out.extend(entries.iter().map(|entry| Arc::clone(entry.record())));
        })
    }

    /// The same from the back, in descending order.
    pub fn next_batch_back(&self, cursor: &mut Cursor<C>, out: &mut Vec<Arc<Record<C>>>) -> bool {
        self.leaves.visit_back(cursor, |entries| {
            prefetch_chains(entries);
            out.extend(entries.iter().rev().map(|entry| Arc::clone(entry.record())));
        })
    }

    /// Reads the next few records of the cursor's span in one go, no more than are wanted, and keeps the rows that
    /// `at` shows, in key order; `false` when the span is done. Call it when the rows before were taken.
    pub fn next_rows(&self, cursor: &mut Cursor<C>, at: ReadAt, wanted: Option<usize>, out: &mut Rows) -> bool {
        self.leaves.rows(cursor, at, wanted, out)
    }

    /// Whether any key of a span has a version after `since` and at or before `at`, other than
    /// `own`'s; tombstones count.
    pub fn span_latest_after(&self, span: &Span, since: Ts, at: Ts, own: Option<&Arc<Status>>) -> SpanCheck {
        let mut cursor = self.cursor(span);
        let mut check = SpanCheck::Unchanged;
        let mut more = true;
        while more && check == SpanCheck::Unchanged {
            more = self.leaves.visit_front(&mut cursor, |entries| {
                prefetch_chains(entries);
                let checks = entries.iter().map(|entry| check_record(entry.record(), since, at, own));
                check = checks.into_iter().find(|check| *check != SpanCheck::Unchanged).unwrap_or(SpanCheck::Unchanged);
            });
        }
        check
    }

    // --- collection ----------------------------------------------------------------------------------

    /// Notes a record for the sweeper: it has history to drop, a tombstone, or nothing at all.
    pub fn note_garbage(&self, record: Arc<Record<C>>) {
        if self.claim_garbage(&record) {
            self.garbage.lock().note(record);
        }
    }

    /// Takes the record's place in the sweeper's queue, for a caller who will [settle](Store::settle_claimed) it himself;
    /// `false` if it stands there already.
    pub fn claim_garbage(&self, record: &Record<C>) -> bool {
        !record.cell().is_sealed() && record.enter_queue()
    }

    /// What the sweeper would do with a record that was claimed.
    pub fn settle_claimed(&self, record: Arc<Record<C>>, live: &Live) {
        if self.collect_claimed(&record, live, &mut Swept::default()) {
            self.garbage.lock().note(record);
        }
    }

    /// Looks at some noted records, at most `budget`: drops what nobody can see, reclaims what is
    /// dead, and notes again what still has something to drop.
    pub fn sweep(&self, live: &Live, budget: usize) -> Swept {
        let mut swept = Swept::default();
        let mut left = budget.min(self.garbage.lock().queue.len());
        while left > 0 {
            let mut noted: Vec<Arc<Record<C>>> = {
                let queue = &mut self.garbage.lock().queue;
                let count = left.min(SWEPT_TOGETHER).min(queue.len());
                queue.drain(..count).collect()
            };
            if noted.is_empty() {
                break;
            }
            left -= noted.len();
            // Before the first of them is waited for: most were written long ago.
            noted.iter().for_each(|record| record.prefetch());
            noted.retain(|record| self.collect_claimed(record, live, &mut swept));
            if !noted.is_empty() {
                self.garbage.lock().queue.extend(noted);
            }
        }
        swept
    }

    /// A committer's share of sweeping: as many records as were noted since the last one, but at least `least` and at most
    /// a thousand or `least`, and a few of those that stand there. Not many more, because whoever writes a record again
    /// drops what was replaced at the least cost.
    pub fn sweep_share(&self, live: &Live, least: usize) -> Swept {
        let share = self.garbage.lock().share(least);
        self.sweep(live, share)
    }

    /// Looks at every record. Takes time in proportion to their number; others go on meanwhile.
    pub fn collect(&self, live: &Live) -> Swept {
        let noted = self.garbage.lock().queue.len();
        let mut swept = self.sweep(live, noted);
        let mut cursor = self.cursor(&Span::all());
        let mut batch = Vec::new();
        let mut more = true;
        while more {
            more = self.next_batch(&mut cursor, &mut batch);
            for record in batch.drain(..) {
                if self.collect_record(&record, live, &mut swept) {
                    self.note_garbage(record);
                }
            }
        }
        self.shared.discard.flush();
        swept
    }

    /// Collects what a claimed record has; whether something is left and it is claimed again, for the queue.
    fn collect_claimed(&self, record: &Arc<Record<C>>, live: &Live, swept: &mut Swept) -> bool {
        record.leave_queue();
        self.collect_record(record, live, swept) && self.claim_garbage(record)
    }

    /// Collects what a record has; whether something is left for later.
    fn collect_record(&self, record: &Arc<Record<C>>, live: &Live, swept: &mut Swept) -> bool {
        swept.looked_at += 1;
        let Settled { dropped, leaves_garbage: garbage } = record.settle(live);
        swept.dropped += usize::from(dropped);
        if garbage && record.seal_if_dead(live) {
            self.unlink(record);
            swept.reclaimed += 1;
            return false;
        }
        garbage && !record.cell().is_sealed()
    }

    /// Finishes the end of a sealed record: leaf, then hash. Idempotent; anyone may help.
    fn unlink(&self, record: &Arc<Record<C>>) {
        self.leaves.unlink(record);
        if self.points.remove(record) {
            record.bury();
            self.shared.counters.add(record.hash(), own_size(record, -1));
        }
    }

    // --- figures ----------------------------------------------------------------------------------

    /// Figures, each of a slightly different instant if others go on meanwhile.
    pub fn stats(&self) -> StoreStats {
        let Size { versions, bytes } = self.shared.counters.sum();
        let queue = self.garbage.lock().queue.capacity() * size_of::<usize>();
        StoreStats {
            records: self.points.len(),
            versions: usize::try_from(versions).unwrap_or(0),
            bytes: usize::try_from(bytes).unwrap_or(0) + self.points.bytes() + self.leaves.bytes() + queue,
        }
    }

    /// Verifies that the indexes agree, that keys and versions are in order (I1), that nothing is
    /// committed beyond `visible` (I2), and that the figures add up. Call it while nothing else runs.
    ///
    /// # Errors
    /// What is broken, in words.
    pub fn check(&self, visible: Ts) -> Result<(), String> {
        let mut cursor = self.cursor(&Span::all());
        let mut records = Vec::new();
        while self.next_batch(&mut cursor, &mut records) {}
        let ordered = records.windows(2).all(|pair| pair[0].key() < pair[1].key());
        if !ordered {
            return Err("the ordered index is out of order".to_owned());
        }
        let mut backwards = Vec::new();
        let mut cursor = self.cursor(&Span::all());
        while self.next_batch_back(&mut cursor, &mut backwards) {}
        backwards.reverse();
        if !backwards.iter().map(Arc::as_ptr).eq(records.iter().map(Arc::as_ptr)) {
            return Err("the ordered index differs from its two ends".to_owned());
        }
        if self.points.len() != records.len() {
            return Err(format!("{} records by hash, {} in order", self.points.len(), records.len()));
        }
        let mut sum = Size::default();
        for record in &records {
            self.check_record(record, visible)?;
            let (own, chain) = (own_size(record, 1), record.chain_size());
            sum = Size { versions: sum.versions + chain.versions, bytes: sum.bytes + own.bytes + chain.bytes };
        }
        let counted = self.shared.counters.sum();
        if counted == sum { Ok(()) } else { Err(format!("counted {counted:?}, and there is {sum:?}")) }
    }

    fn check_record(&self, record: &Arc<Record<C>>, visible: Ts) -> Result<(), String> {
        let key = record.key();
        if !self.find(key).is_some_and(|found| Arc::ptr_eq(&found, record)) {
            return Err(format!("{key:?} is in order and not found by hash"));
        }
        let times = record.timestamps();
        if !times.windows(2).all(|pair| pair[0] > pair[1]) {
            return Err(format!("I1: the versions of {key:?} are out of order: {times:?}"));
        }
        match times.first() {
            Some(newest) if *newest > visible => {
                Err(format!("I2: {key:?} has a version {newest}, visible is {visible}"))
            }
            _ => Ok(()),
        }
    }
}

/// What a record takes itself, counted up or down.
fn own_size<C: RecordCell>(record: &Record<C>, sign: i64) -> Size {
    Size { versions: 0, bytes: sign * i64::try_from(record.own_bytes()).unwrap_or(0) }
}

fn check_record<C: RecordCell>(record: &Record<C>, since: Ts, at: Ts, own: Option<&Arc<Status>>) -> SpanCheck {
    match record.latest_at(at, own) {
        Latest::Committed(ts, _) if ts > since => SpanCheck::Changed { key: record.key().clone(), ts },
        Latest::Undecided(ts) if ts > since => SpanCheck::Undecided(ts),
        _ => SpanCheck::Unchanged,
    }
}
