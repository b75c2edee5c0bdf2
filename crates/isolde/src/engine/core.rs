//! What all transactions of one database share.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use isolde_locks::{Handle, LockCell, LockConfig, LockManager, SpanRecords};
use isolde_mvcc::{Exposure, Live, ReadAt, Record, Rows, Status, Store, Swept, Timeline, View, Views, hold_back};
use isolde_types::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex};
use isolde_types::{Clock, Isolation, Key, Mode, Places, Span, Ts, TxnId};

use super::durable::Disk;
use super::registry::{RecentCommits, Registry};
use super::tap::Tap;
use super::write_set::MergeOperator;
use crate::error::{Error, Redact, Result, TooLarge};
use crate::retry::{RetryHook, RetryPolicy};

/// Every this many commits, and after each that wrote as many records, a committer does some collection on the side.
const SWEEP_EVERY: u64 = 16;
/// At least so many records it looks at then, or as many as it wrote: a few more than commits can note that each write
/// one, so that what was left behind goes, too.
const SWEEP_LEAST: usize = 18;
/// After rounds that found nothing to drop it does so less often, down to a share of this power of two:
/// what live views hold is held for long, and each look at it is a look at memory that is far away.
const SWEEP_RARELY: u32 = 6;
/// How many records a full database looks at for a write where nothing has changed.
const FULL_BUDGET: usize = 64;

/// A record as the lock manager holds it.
#[derive(Clone)]
pub(crate) struct RecordRef(pub Arc<Record<LockCell>>);

impl Handle for RecordRef {
    fn key(&self) -> &Key {
        self.0.key()
    }

    fn cell(&self) -> &LockCell {
        self.0.cell()
    }
}

/// Limits, with the names of the builder methods that set them.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub key_bytes: usize,
    pub value_bytes: usize,
    pub write_set_bytes: usize,
    pub memory_bytes: Option<usize>,
    pub snapshot_age: Option<Duration>,
    pub locks: usize,
}

/// What the builder set.
pub(crate) struct Config {
    pub isolation: Isolation,
    pub mode: Mode,
    pub lock_timeout: Option<Duration>,
    pub locks: LockConfig,
    pub keep_age: bool,
    pub retry: RetryPolicy,
    pub merge_operators: HashMap<Arc<str>, MergeOperator>,
    pub on_retry: Option<RetryHook>,
    pub limits: Limits,
    pub redact: Redact,
    pub clock: Arc<dyn Clock>,
}

/// See the module.
pub(crate) struct Core {
    pub store: Store<LockCell>,
    pub timeline: Timeline,
    pub views: Arc<Views>,
    pub locks: LockManager<RecordRef>,
    pub registry: Registry,
    pub recent: RecentCommits,
    pub config: Config,
    pub tap: Tap,
    pub closed: AtomicBool,
    /// The log and its directory; a database in memory has none.
    pub disk: Option<Disk>,
    next_id: AtomicU64,
    /// How many rounds of collection in a row found nothing, at most `SWEEP_RARELY`.
    vain_sweeps: AtomicU32,
    /// What was live when all was collected last because of the memory limit.
    collected_at: Mutex<Option<Live>>,
}

impl Core {
    pub fn new(config: Config) -> Core {
        Self::with(config, Store::new(), Timeline::new(), Views::new(), None)
    }

    /// A database that goes on where its log ends.
    pub fn recovered(config: Config, store: Store<LockCell>, last: Ts, disk: Disk) -> Core {
        let log: Arc<dyn Places> = disk.log.clone();
        let views = Views::sparing(Arc::clone(disk.log.durable()));
        Self::with(config, store, Timeline::recovered(last, log), views, Some(disk))
    }

    fn with(config: Config, store: Store<LockCell>, timeline: Timeline, views: Views, disk: Option<Disk>) -> Core {
        Core {
            store,
            timeline,
            views: Arc::new(views),
            locks: LockManager::new(config.locks.clone()),
            registry: Registry::default(),
            recent: RecentCommits::default(),
            tap: Default::default(),
            closed: AtomicBool::new(false),
            disk,
            next_id: AtomicU64::new(1),
            vain_sweeps: AtomicU32::new(0),
            collected_at: Mutex::default(),
            config,
        }
    }

    /// An identity for a transaction that needs one: the first write, lock, or message.
    pub fn next_id(&self) -> TxnId {
        TxnId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// The record of a key, if there is one.
    pub fn find(&self, key: &[u8]) -> Option<RecordRef> {
        self.store.find(key).map(RecordRef)
    }

    /// Puts rows into a database in memory that nobody has used: as recovery does, committed by one transaction that
    /// is gone.
    pub fn fill<'r>(&self, rows: impl IntoIterator<Item = (&'r [u8], Bytes)>) {
        assert!(self.disk.is_none() && self.timeline.last() == Ts::ZERO, "I1: only an unused database is filled");
        let (ts, wakers) = self.timeline.commit_at_once(&Status::new(self.next_id(), Exposure::Private), None);
        rows.into_iter().for_each(|(key, value)| self.store.restore(key, Some(&value), ts));
        wakers.wake();
    }

    /// All rows that a view shows.
    pub fn rows(&self, view: &View) -> Vec<(Key, Bytes)> {
        let mut cursor = self.store.cursor(&Span::all());
        let (mut all, mut stretch, mut more) = (Vec::new(), Rows::default(), true);
        while more {
            more = self.store.next_rows(&mut cursor, ReadAt::At(view.ts()), None, &mut stretch);
            all.extend(std::iter::from_fn(|| stretch.pop_front()).map(|(key, value)| (key.into(), value)));
        }
        all
    }

    pub fn check_key(&self, key: &[u8]) -> Result<()> {
        within("key", key.len(), self.config.limits.key_bytes, "max_key_bytes")
    }

    pub fn check_value(&self, value: &[u8]) -> Result<()> {
        within("value", value.len(), self.config.limits.value_bytes, "max_value_bytes")
    }

    /// Refuses a write when the database is over its memory limit even after collection.
    pub fn check_memory(&self) -> Result<()> {
        let Some(limit_bytes) = self.config.limits.memory_bytes else { return Ok(()) };
        if self.store.stats().bytes <= limit_bytes {
            return Ok(());
        }
        self.make_room();
        if self.store.stats().bytes <= limit_bytes { Ok(()) } else { Err(Error::MemoryLimit { limit_bytes }) }
    }

    /// Collects what the memory limit asks for: everything, where views have ended since it was done last; what was
    /// noted as garbage, where only commits were made since; else hardly anything, since a database that is full
    /// may refuse many writes.
    fn make_room(&self) -> Swept {
        self.expire_snapshots();
        // One at a time, so that not everybody looks at everything. What an owner of bytes does when they go, it
        // does when the latch is left: it may be to write, and so to come here again.
        let _foreign = hold_back();
        let live = self.views.live(&self.timeline);
        let mut collected_at = self.collected_at.lock();
        match &*collected_at {
            Some(before) if *before == live => return self.store.sweep(&live, FULL_BUDGET),
            Some(before) if before.holds_as_much_as(&live) => {
                let swept = self.store.sweep(&live, usize::MAX);
                *collected_at = Some(live);
                return swept;
            }
            _ => {}
        }
        let swept = self.store.collect(&live);
        *collected_at = Some(live);
        swept
    }

    /// Does a share of collection, every so many commits and after large ones; this one is at `ts` and wrote so many
    /// records.
    pub fn after_commit(&self, ts: Ts, written: usize) {
        let number = ts.0;
        if number % SWEEP_EVERY != SWEEP_EVERY - 1 && written < SWEEP_EVERY as usize {
            return;
        }
        self.expire_snapshots();
        // Relaxed: it decides when to do optional work.
        let before = self.vain_sweeps.load(Ordering::Relaxed);
        if (number / SWEEP_EVERY).trailing_zeros() < before {
            return;
        }
        let swept = self.store.sweep_share(&self.views.cached_live(&self.timeline), written.max(SWEEP_LEAST));
        let vain = if swept.dropped + swept.reclaimed > 0 { 0 } else { (before + 1).min(SWEEP_RARELY) };
        if vain != before {
            self.vain_sweeps.store(vain, Ordering::Relaxed);
        }
    }

    /// Drops what nobody can see of a record that was [claimed](Store::claim_garbage).
    pub fn settle_claimed(&self, record: RecordRef) {
        self.store.settle_claimed(record.0, &self.views.cached_live(&self.timeline));
    }

    /// Drops every version and record that nobody can see.
    pub fn collect(&self) {
        self.expire_snapshots();
        self.store.collect(&self.views.live(&self.timeline));
    }

    /// Rolls back transactions whose snapshot is older than allowed.
    fn expire_snapshots(&self) {
        let Some(limit) = self.config.limits.snapshot_age else { return };
        let now = self.config.clock.now();
        for txn in self.registry.active() {
            txn.expire_if_older(limit, now);
        }
    }
}

impl SpanRecords<RecordRef> for Core {
    fn each(&self, span: &Span, visit: &mut dyn FnMut(RecordRef)) {
        let mut cursor = self.store.cursor(span);
        let mut batch = Vec::new();
        let mut more = true;
        while more {
            more = self.store.next_batch(&mut cursor, &mut batch);
            batch.drain(..).for_each(|record| visit(RecordRef(record)));
        }
    }
}

pub(crate) fn within(what: &'static str, size: usize, limit: usize, option: &'static str) -> Result<()> {
    if size <= limit { Ok(()) } else { Err(Error::TooLarge(Box::new(TooLarge { what, size, limit, option }))) }
}

#[cfg(test)]
mod tests {
    use crate::Db;

    #[test]
    fn a_full_database_does_not_look_at_every_key_for_every_write_that_it_refuses() {
        const KEYS: usize = 1_000;
        let db = Db::builder().in_memory().open().unwrap();
        let core = db.core();
        let key = |n: usize| n.to_be_bytes();
        (0..KEYS).for_each(|n| db.put(key(n), "value").unwrap());
        assert!(core.make_room().looked_at >= KEYS, "the first looks at all");
        for _ in 0..10 {
            assert!(core.make_room().looked_at <= super::FULL_BUDGET, "nothing has changed");
        }
        let snapshot = db.snapshot().unwrap();
        (0..100).for_each(|n| db.delete(key(n)).unwrap());
        core.make_room();
        let swept = core.make_room();
        assert!((swept.reclaimed, swept.looked_at <= super::FULL_BUDGET) == (0, true), "a view holds all: {swept:?}");
        drop(snapshot);
        let before = core.store.stats().records;
        core.make_room();
        assert_eq!(core.store.stats().records, before - 100, "a view has ended: what it held goes");
        (100..200).for_each(|n| db.delete(key(n)).unwrap());
        let swept = core.make_room();
        assert!(swept.looked_at <= 100 + super::FULL_BUDGET, "{swept:?}");
        assert_eq!(core.store.stats().records, before - 200, "what was deleted since goes at once");
    }

    #[test]
    fn what_large_transactions_delete_is_swept_as_fast_as_it_comes() {
        for size in [1, 15, 16, 100, 2_000] {
            let db = Db::builder().in_memory().open().unwrap();
            let key = |n: usize| n.to_be_bytes();
            for round in 0..30 {
                let write = |t: &crate::Txn| {
                    (0..size).try_for_each(|n| t.put(key((round + 1) * size + n), "value"))?;
                    (0..size).try_for_each(|n| t.delete(key(round * size + n)))
                };
                db.txn().run(write).unwrap();
            }
            let records = db.stats().records;
            assert!(records <= 4 * size + 64, "{records} records, {size} keys");
        }
    }

    #[test]
    fn what_a_snapshot_has_held_is_swept_by_as_many_small_commits() {
        const KEYS: usize = 5_000;
        let db = Db::builder().in_memory().open().unwrap();
        let write_all = || db.txn().run(|t| (0..KEYS).try_for_each(|n| t.put(n.to_be_bytes(), "value")));
        write_all().unwrap();
        let snapshot = db.snapshot().unwrap();
        write_all().unwrap();
        assert_eq!(db.stats().versions, 2 * KEYS, "the snapshot needs them");
        drop(snapshot);
        (0..KEYS).for_each(|_| db.put("other", "value").unwrap());
        assert_eq!(db.stats().versions, KEYS + 1);
    }
}
