//! The database handle: one-liners, bodies with retry, and a look inside.

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use isolde_locks::{DeadlockReport, LockView, WaitsForView};
use isolde_mvcc::ReadAt;
use isolde_types::sync::Arc;
use isolde_types::sync::atomic::Ordering;
use isolde_types::{Isolation, KeyRange, Mode, RowKey, Ts, TxnId};

use isolde_wal::LogStats;

use crate::batch::WriteBatch;
use crate::builder::{Builder, TxnBuilder};
use crate::engine::commit::Commit;
use crate::engine::durable::{Disk, Durability};
use crate::engine::wait::{Patience, Wait, block_on};
use crate::engine::write::Cas;
use crate::engine::{Begin, Core, CoreRef, Shares};
use crate::error::{Error, Result};
use crate::nested::{self, InBody};
use crate::retry::{Attempts, pause};
use crate::stats::{Stats, TxnInfo};
use crate::trace;
use crate::txn::Txn;

/// A database. Cloning gives another handle to the same one.
///
/// It lives as long as a handle, a transaction or an iterator of it does; dropping the last handle
/// while transactions are open is safe.
///
/// ```
/// use isolde::Db;
/// # fn main() -> isolde::Result<()> {
/// let db = Db::builder().in_memory().open()?;
/// db.put("alice", 10_i64.to_be_bytes())?;
/// let left = db.transact(|t| {
///     t.increment("alice", -3)?;
///     t.increment("bob", 3)?;
///     t.get("alice")
/// })?;
/// assert_eq!(left.as_deref(), Some(&7_i64.to_be_bytes()[..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Db {
    core: Arc<Core>,
    shares: Arc<Shares>,
}

impl Db {
    /// Opens the database in a directory, or makes one there: serializable, optimistic, synced on
    /// commit. See [`Builder::open`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("bank.db");
    /// let db = isolde::Db::open(&path)?;
    /// db.put("alice", "10")?;
    /// drop(db);
    /// assert_eq!(isolde::Db::open(&path)?.get("alice")?.as_deref(), Some(&b"10"[..]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Db::builder().path(path).open()
    }

    /// Options for a database.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(core: Arc<Core>) -> Db {
        Db { core, shares: Arc::default() }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The core, for a transaction to hold.
    pub(crate) fn share(&self) -> &CoreRef {
        self.shares.of_this_thread(&self.core)
    }

    /// Options for one transaction: level, mode, label, read-only.
    pub fn txn(&self) -> TxnBuilder<'_> {
        TxnBuilder::new(self)
    }

    /// Begins a transaction at the database's level and mode. Never waits.
    ///
    /// By hand there is no retry: a conflict is an error of the commit, or of the call that met it. See
    /// [`transact`](Db::transact) for the other way.
    ///
    /// # Errors
    /// `Closed`.
    pub fn begin(&self) -> Result<Txn> {
        self.txn().begin()
    }

    /// Begins, runs `body`, commits, and retries on conflict; see [`TxnBuilder::run`], which is the
    /// same for bodies with an error type of their own.
    ///
    /// Inside the body use `t`. A call of the database there is a transaction of its own: it does not see what
    /// `t` has written, stays when `t` rolls back, and one that needs a lock of `t` fails with `LockTimeout`, at
    /// once and not to be retried.
    ///
    /// *Blocks* as the calls in it and [`Txn::commit`] do, and between attempts for the pauses of the
    /// [`RetryPolicy`](crate::RetryPolicy).
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// let left = db.transact(|t| {
    ///     t.increment("alice", -3)?;
    ///     t.increment("bob", 3)?;
    ///     t.get("alice")
    /// })?;
    /// assert_eq!(left.as_deref(), Some(&(-3_i64).to_be_bytes()[..]));
    ///
    /// // An error of one's own rolls back, and is not retried.
    /// let refused = db.transact(|t| {
    ///     t.put("k", "v")?;
    ///     Err::<(), _>(isolde::Error::abort("not today"))
    /// });
    /// assert_eq!(refused.unwrap_err().to_string(), "not today");
    /// assert_eq!(db.get("k")?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The body's own error; `RetriesExhausted` when no attempt came through; as [`Txn::commit`].
    pub fn transact<T>(&self, body: impl Fn(&Txn) -> Result<T>) -> Result<T> {
        self.txn().run(body)
    }

    pub(crate) fn run_body<T, E: From<Error>>(
        &self,
        begin: Begin,
        body: impl Fn(&Txn) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempts = Attempts::new(&self.core, begin);
        let mut pending_age = None;
        loop {
            let _span = trace::attempt(&attempts.begin, attempts.number());
            let txn = match self.begin_with(&attempts.begin) {
                Ok(txn) => Txn::new(txn),
                Err(error) => {
                    let age = pending_age.unwrap_or(u64::MAX);
                    pause(attempts.after(&self.core, error, age)?);
                    continue;
                }
            };
            let inner = Arc::clone(txn.inner());
            let outcome = {
                let _inside = InBody::of(&inner);
                body(&txn)
            };
            let error = match outcome {
                Ok(value) => match txn.commit() {
                    Ok(_) => return Ok(value),
                    Err(error) => error,
                },
                Err(own) => {
                    txn.rollback();
                    // A wait for its own thread was retryable to whoever counted it as a timeout.
                    let hopeless = nested::take_waited_for_itself();
                    match inner.take_retryable().filter(|_| !hopeless) {
                        Some(retryable) => retryable,
                        None => {
                            // What was read decided this result: it must be hard before it is given away.
                            let wait = Wait::new(Patience::Default);
                            block_on(&*self.core.config.clock, None, &wait, inner.harden_reads(&wait))?;
                            return Err(own);
                        }
                    }
                }
            };
            let age = inner.age();
            pending_age = Some(age);
            pause(attempts.after(&self.core, error, age)?);
        }
    }

    fn wait_hard(&self, ts: Ts, durability: Durability) -> Result<()> {
        let wait = Wait::new(Patience::Default);
        block_on(&*self.core.config.clock, None, &wait, self.core.hard(&wait, ts, durability))
    }

    // --- one-liners, each its own transaction --------------------------------------------------

    /// The committed value of a key. Waits for no lock; *blocks* for the log where it must not show what could
    /// be gone: for a sync behind a commit of a weaker durability, for a write under `Buffered`.
    ///
    /// # Errors
    /// `Closed`; `Poisoned`, where the log has failed meanwhile.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.check_open()?;
        if self.core.tap.is_open() {
            return self.txn().read_only().run(|t| t.get(key.as_ref()));
        }
        // One key at one instant is serializable by itself: no transaction is needed.
        let durability = self.core.default_durability();
        let (view, first) = self.core.view_to_read(durability);
        let view = self.core.views.keep(view);
        if first > Ts::ZERO {
            self.wait_hard(first, Durability::Sync)?;
        }
        let record = self.core.find(key.as_ref());
        let value = record.and_then(|record| record.0.read(ReadAt::At(view.ts()), None).value);
        if self.core.hardens_view(durability) {
            self.wait_hard(view.ts(), durability)?;
        }
        Ok(value)
    }

    /// Whether a key is present. Waits as [`get`](Db::get) does.
    ///
    /// # Errors
    /// As [`get`](Db::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.get(key).map(|value| value.is_some())
    }

    /// Sets a key; a transaction of its own, retried.
    ///
    /// # Errors
    /// As [`Txn::put`] and [`transact`](Db::transact).
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let value = Bytes::copy_from_slice(value.as_ref());
        self.transact(|t| t.put_bytes(key.as_ref(), value.clone()))
    }

    /// Sets a key that is absent; a transaction of its own, retried.
    ///
    /// # Errors
    /// `AlreadyExists`; as [`Txn::insert`] and [`transact`](Db::transact).
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.transact(|t| t.insert(key.as_ref(), value.as_ref()))
    }

    /// Deletes a key, present or not; a transaction of its own, retried.
    ///
    /// # Errors
    /// As [`Txn::delete`] and [`transact`](Db::transact).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.transact(|t| t.delete(key.as_ref()))
    }

    /// Adds to a counter; a transaction of its own, retried.
    ///
    /// # Errors
    /// As [`Txn::increment`] and [`transact`](Db::transact).
    pub fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<()> {
        self.transact(|t| t.increment(key.as_ref(), by))
    }

    /// Merges an operand; a transaction of its own, retried.
    ///
    /// # Errors
    /// As [`Txn::merge`] and [`transact`](Db::transact).
    pub fn merge(&self, operator: &str, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.transact(|t| t.merge(operator, key.as_ref(), operand.as_ref()))
    }

    /// Sets a key if it has the expected value; a transaction of its own, retried.
    ///
    /// # Errors
    /// As [`Txn::compare_and_set`] and [`transact`](Db::transact).
    pub fn compare_and_set(&self, key: impl AsRef<[u8]>, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<Cas> {
        self.transact(|t| t.compare_and_set(key.as_ref(), expected, new))
    }

    /// Sets a key to what `update` makes of its value; a transaction of its own, retried. Gives the
    /// value before.
    ///
    /// # Errors
    /// As [`Txn::fetch_update`] and [`transact`](Db::transact).
    pub fn fetch_update(
        &self,
        key: impl AsRef<[u8]>,
        update: impl Fn(Option<&[u8]>) -> Option<Bytes>,
    ) -> Result<Option<Bytes>> {
        self.transact(|t| t.fetch_update(key.as_ref(), &update))
    }

    /// The first row of a span. Waits as [`get`](Db::get) does.
    ///
    /// # Errors
    /// As [`get`](Db::get).
    pub fn first(&self, span: impl KeyRange) -> Result<Option<(RowKey, Bytes)>> {
        self.snapshot()?.first(span)
    }

    /// The last row of a span. Waits as [`get`](Db::get) does.
    ///
    /// # Errors
    /// As [`get`](Db::get).
    pub fn last(&self, span: impl KeyRange) -> Result<Option<(RowKey, Bytes)>> {
        self.snapshot()?.last(span)
    }

    /// Applies a batch: all of it, or nothing; a transaction of its own, retried.
    ///
    /// # Errors
    /// As the operations in it and [`transact`](Db::transact).
    pub fn apply(&self, batch: &WriteBatch) -> Result<()> {
        self.transact(|t| batch.apply_to(t))
    }

    /// A read-only transaction on the state that is visible now: of a durable database, under `Sync` and
    /// `Group`, on the state that is durable. It locks nothing and never aborts; as long as it is open, what it
    /// sees stays in memory.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// db.put("k", "before")?;
    /// let report = db.snapshot()?;
    /// db.put("k", "after")?;
    /// assert_eq!(report.get("k")?.as_deref(), Some(&b"before"[..]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Closed`.
    pub fn snapshot(&self) -> Result<Txn> {
        self.txn().isolation(Isolation::Snapshot).mode(Mode::Optimistic).read_only().begin()
    }

    // --- looking inside ------------------------------------------------------------------------

    /// Figures about this database since it was opened.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// db.put("k", "v")?;
    /// let stats = db.stats();
    /// assert_eq!((stats.committed, stats.conflicts, stats.records), (1, 0, 1));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.core)
    }

    /// Sets the gauges `isolde_active_transactions`, `isolde_records`, `isolde_versions`,
    /// `isolde_memory_bytes`, `isolde_views` and `isolde_visible_ts` of the crate `metrics` to what
    /// [`stats`](Db::stats) says now. Call it when metrics are collected, or now and then.
    #[cfg(feature = "metrics")]
    pub fn report_gauges(&self) {
        crate::meter::gauges(&self.stats());
    }

    /// Figures of the log since it was opened; `None` in memory.
    #[must_use]
    pub fn log_stats(&self) -> Option<LogStats> {
        self.core.disk.as_ref().map(|disk| disk.log.stats())
    }

    /// The active transactions, oldest first. [`kill`](Db::kill) ends one.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// let t = db.txn().label("import").begin()?;
    /// t.put("k", "v")?;
    /// assert_eq!(db.transactions()[0].to_string(), "T1 serializable optimistic \"import\", 1 writes");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn transactions(&self) -> Vec<TxnInfo> {
        TxnInfo::all(&self.core)
    }

    /// Who holds and awaits which locks, at one instant: a table (`{}`), [JSON](LockView::to_json), or
    /// [DOT](LockView::to_dot). Keys are in clear, also where messages redact them.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().mode(isolde::Mode::Pessimistic).open()?;
    /// let t = db.txn().label("job").begin()?;
    /// t.put("k", "v")?;
    /// assert_eq!(db.locks().to_string(), "transaction  mode  target  state\nT1 \"job\"     X     \"k\"     held\n");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn locks(&self) -> LockView {
        self.core.locks.locks()
    }

    /// Who waits for whom, at one instant: a table (`{}`), [JSON](WaitsForView::to_json), or
    /// [DOT](WaitsForView::to_dot). Keys are in clear, also where messages redact them. The example `inspect`
    /// shows all of these.
    #[must_use]
    pub fn waits_for(&self) -> WaitsForView {
        self.core.locks.waits_for()
    }

    /// The last 64 deadlocks, oldest first; under [`Deadlocks::WaitDie`](crate::Deadlocks::WaitDie) the waits that were refused, too.
    /// `{}` of one is a line, `{:#}` tells who waited for whom, and why. Keys are in clear.
    #[must_use]
    pub fn recent_deadlocks(&self) -> Vec<Arc<DeadlockReport>> {
        self.core.locks.recent_deadlocks()
    }

    /// Drops every version and record that nobody can see. Seldom needed: updates prune what they touch.
    ///
    /// An in-memory database collects on the side of commits; this does all of it now, in time
    /// proportional to the number of keys. Other calls go on meanwhile. What an open snapshot still
    /// sees stays.
    ///
    /// A durable database syncs first, because what is durable stays readable: *blocks* for that.
    pub fn collect(&self) {
        if let Some(disk) = &self.core.disk {
            // After a failure of the log, what is durable stays, and no more goes.
            let _ = disk.log.flush();
        }
        self.core.collect();
    }

    /// Verifies the database's own invariants: order and agreement of the indexes, order and
    /// uniqueness of versions, and that a database without transactions holds no lock and no view.
    ///
    /// For tests and for suspicion; it looks at everything. Call it while nothing else runs.
    ///
    /// # Errors
    /// What is broken, in words.
    pub fn check(&self) -> std::result::Result<(), String> {
        self.core.store.check(self.core.timeline.visible())?;
        if !self.core.registry.active().is_empty() {
            return Ok(());
        }
        let locks = self.core.locks.locks();
        if !locks.is_empty() {
            return Err(format!("no transaction is active, but locks are held:\n{locks}"));
        }
        match self.core.views.count() {
            0 => Ok(()),
            views => Err(format!("no transaction is active, but {views} views are registered")),
        }
    }

    /// Writes a checkpoint, and recycles the log before it. Commits go on meanwhile.
    ///
    /// A durable database does this by itself when its log has grown. *Blocks* for as long as it takes
    /// to write all rows once.
    ///
    /// # Errors
    /// `Unsupported` in memory; `Poisoned`, `Closed`; `Storage`: the checkpoint before holds then; or the new one, and
    /// only a part of the log before it could not be recycled, which goes at the next open.
    pub fn checkpoint(&self) -> Result<()> {
        self.check_open()?;
        self.core.checkpoint().map(|_| ())
    }

    /// Makes every commit up to now durable, whatever its own durability. *Blocks* for a sync.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`. A database in memory has nothing to do.
    pub fn sync(&self) -> Result<()> {
        self.check_open()?;
        self.core.disk.as_ref().map_or(Ok(()), |disk| Ok(disk.log.flush()?))
    }

    /// Writes a copy of the state as of now into a new or empty directory. It can be opened like any
    /// database. Commits go on meanwhile; the copy has all of a transaction or nothing.
    ///
    /// *Blocks* for as long as it takes to write all rows once.
    ///
    /// # Errors
    /// `NotADatabase` when the directory is not empty; `Closed`, `Poisoned`, `Storage`.
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        self.check_open()?;
        self.sync()?;
        self.core.backup(path.as_ref())
    }

    /// Closes the database for all handles: open transactions are rolled back, later calls fail with
    /// `Closed`. What was committed is made durable, and the directory can be opened again. A commit at the same
    /// time is either durable, or fails with `Closed` or `TransactionEnded` and is not in the log.
    ///
    /// Dropping the last handle does the same, but cannot tell of errors, and while a checkpoint is being
    /// written it ends a little later.
    ///
    /// # Errors
    /// `Unsupported` from inside a transaction body of this thread: the body could not go on.
    /// `Poisoned`, `Storage`: it is closed, and what was acknowledged is safe all the same.
    pub fn close(&self) -> Result<()> {
        if InBody::is_inside(&self.core) {
            return Err(Error::Unsupported("close from inside a transaction body: return from it first"));
        }
        self.core.closed.store(true, Ordering::Release);
        for txn in self.core.registry.active() {
            txn.roll_back();
        }
        let closed = self.core.disk.as_ref().map_or(Ok(()), Disk::close);
        trace::closed(&closed);
        closed
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.core.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// The state that a transaction begun now would see.
    #[must_use]
    pub fn visible_ts(&self) -> Ts {
        self.core.timeline.visible()
    }

    /// Rolls back an active transaction, whoever has it; `false` if there is none of that identity.
    /// Its owner's next call, or the one that waits now, fails with `TransactionEnded`; but a commit that
    /// waits for nothing any more, or only for the log, is not stopped.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().mode(isolde::Mode::Pessimistic).open()?;
    /// let stuck = db.txn().label("forgotten").begin()?;
    /// stuck.put("k", "v")?;
    /// for info in db.transactions().iter().filter(|info| info.label.as_deref() == Some("forgotten")) {
    ///     assert!(db.kill(info.id));
    /// }
    /// assert_eq!(stuck.commit().unwrap_err().kind(), isolde::ErrorKind::TransactionEnded);
    /// # Ok(()) }
    /// ```
    pub fn kill(&self, id: TxnId) -> bool {
        let found = self.core.registry.active().into_iter().find(|txn| txn.known_id() == Some(id));
        found.inspect(|txn| txn.roll_back()).is_some()
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({} {}, visible {})", self.core.config.isolation, self.core.config.mode, self.visible_ts())
    }
}

const _: () = {
    const fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Db>();
    const fn sent<T: Send + Sync>() {}
    sent::<Commit>();
};
