//! Building a database and a transaction: every option, and its default.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use isolde_locks::{Deadlocks, LockCell, LockConfig, Victim};
use isolde_mvcc::Store;
use isolde_types::sync::Arc;
use isolde_types::{Clock, Isolation, Mode, SystemClock, Ts};
use isolde_wal::{BLOCK, CheckpointConfig, OpenConfig, Opened, RealFs, Redo, Rows, Vfs, WriteBehind};

use crate::db::Db;
use crate::engine::core::{Config, Limits};
use crate::engine::durable::{Disk, Durability};
use crate::engine::wait::{Patience, Wait, block_on};
use crate::engine::write_set::MergeOperator;
use crate::engine::{Begin, Core, TxnInner};
use crate::error::{Error, Redact, Result, StorageError};
use crate::isolation::Access;
use crate::retry::{RetryEvent, RetryHook, RetryPolicy};
use crate::trace;
use crate::txn::Txn;

/// Smaller log files would be all header and padding.
const SMALLEST_SEGMENT: u64 = 64 << 10;
const LARGEST_SEGMENT: u64 = 4 << 30;

/// Options of a database; see each method for its default.
///
/// ```
/// # use std::time::Duration;
/// use isolde::{Db, Deadlocks, Isolation, Mode, Victim};
/// # fn main() -> isolde::Result<()> {
/// let db = Db::builder()
///     .in_memory()
///     .isolation(Isolation::Serializable)
///     .mode(Mode::Pessimistic)
///     .lock_timeout(Duration::from_millis(500))
///     .deadlocks(Deadlocks::Detect { victim: Victim::Youngest })
///     .open()?;
/// # db.close() }
/// ```
#[must_use = "a builder does nothing until `open`"]
pub struct Builder {
    place: Option<Place>,
    durability: Durability,
    log: OpenConfig,
    checkpoints: CheckpointConfig,
    checkpoint_after: Option<u64>,
    background: bool,
    on_recovery: Option<RecoveryHook>,
    isolation: Isolation,
    mode: Mode,
    lock_timeout: Option<Duration>,
    deadlocks: Deadlocks,
    retry: RetryPolicy,
    merge_operators: HashMap<Arc<str>, MergeOperator>,
    on_retry: Option<RetryHook>,
    limits: Limits,
    redact: Redact,
    clock: Option<Arc<dyn Clock>>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            place: None,
            durability: Durability::default(),
            log: OpenConfig { threads: cores(), ..OpenConfig::default() },
            checkpoints: CheckpointConfig::default(),
            checkpoint_after: Some(64 << 20),
            background: true,
            on_recovery: None,
            isolation: Isolation::default(),
            mode: Mode::default(),
            lock_timeout: Some(Duration::from_secs(10)),
            deadlocks: Deadlocks::Detect { victim: Victim::Youngest },
            retry: RetryPolicy::default(),
            merge_operators: HashMap::new(),
            on_retry: None,
            limits: Limits {
                key_bytes: 64 << 10,
                value_bytes: 64 << 20,
                write_set_bytes: 1 << 30,
                memory_bytes: None,
                snapshot_age: None,
                locks: 10_000_000,
            },
            redact: Redact::Show,
            clock: None,
        }
    }
}

/// How many cores there are. Asked once: the operating system reads several files to answer, which takes longer
/// than to open a database in memory.
fn cores() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, |n| n.get()));
    *CORES
}

impl Builder {
    /// Keeps the database in memory: it is gone when its last handle is.
    pub fn in_memory(mut self) -> Self {
        self.place = Some(Place::Memory);
        self
    }

    /// Keeps the database in this directory, which is made if it is not there; the one above it is not.
    /// It belongs to the process that opens it: a child of `fork` is refused every write (`Forked`).
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.place = Some(Place::Path(path.as_ref().to_path_buf()));
        self
    }

    /// Keeps the database in any [`Vfs`]: for tests of crashes and failing disks.
    #[doc(hidden)]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.place = Some(Place::Vfs(vfs));
        self
    }

    /// What transactions survive that say nothing else. Default: `Durability::Sync`. A database in memory
    /// has no use for it.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The size of a log file, at most 4 GiB; a transaction must fit into one. Default: 64 MiB.
    pub fn log_segment_bytes(mut self, bytes: u64) -> Self {
        self.log.segment_bytes = bytes;
        self
    }

    /// A checkpoint is written when the log has grown by so many bytes; `None`: only when
    /// [`Db::checkpoint`] is called. More means fewer checkpoints, and a longer next open. Default: 64 MiB.
    pub fn checkpoint_after(mut self, log_bytes: impl Into<Option<u64>>) -> Self {
        self.checkpoint_after = log_bytes.into();
        self
    }

    /// How fast a checkpoint may be written, in bytes a second, so that commits keep the disk: it
    /// pauses after each [partition](Self::checkpoint_partition_bytes). Default: no limit.
    pub fn checkpoint_bytes_per_second(mut self, bytes: u64) -> Self {
        self.checkpoints.bytes_per_second = Some(bytes);
        self
    }

    /// About how large a file of a checkpoint becomes. Default: 16 MiB.
    pub fn checkpoint_partition_bytes(mut self, bytes: u64) -> Self {
        self.checkpoints.partition_bytes = bytes;
        self
    }

    /// Is told of progress while the database is opened: bytes done, and bytes in all.
    pub fn on_recovery(mut self, hook: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        self.on_recovery = Some(Box::new(hook));
        self
    }

    /// Without threads of its own a database writes what nobody waits for when somebody else writes: for
    /// tests that must be the same from run to run.
    #[doc(hidden)]
    pub fn no_threads(mut self) -> Self {
        self.background = false;
        self.log.threads = 1;
        self
    }

    /// When the log's thread writes and syncs what nobody waits for.
    #[doc(hidden)]
    pub fn write_behind(mut self, write_behind: WriteBehind) -> Self {
        self.log.write_behind = write_behind;
        self
    }

    /// The level of transactions that name none. Default: serializable.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// The mode of transactions that name none. Default: optimistic.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// How long one lock is waited for, where a transaction or call says nothing else. Default: 10 s.
    pub fn lock_timeout(mut self, at_most: Duration) -> Self {
        self.lock_timeout = Some(at_most);
        self
    }

    /// Waits for locks without limit. Deadlocks are still broken by the policy; under
    /// `Deadlocks::TimeoutOnly` this combination is refused by [`open`](Builder::open).
    pub fn no_lock_timeout(mut self) -> Self {
        self.lock_timeout = None;
        self
    }

    /// What is done about deadlocks. Default: detect at once, the youngest gives way.
    pub fn deadlocks(mut self, deadlocks: Deadlocks) -> Self {
        self.deadlocks = deadlocks;
        self
    }

    /// How bodies are retried. Default: 16 attempts, random pauses of up to 20 ms, pessimistic after three losses.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use isolde::{Db, RetryPolicy};
    /// # fn main() -> isolde::Result<()> {
    /// let patient = RetryPolicy::default().with_max_attempts(100).with_max_elapsed(Duration::from_secs(5));
    /// let db = Db::builder().in_memory().retry(patient).open()?;
    /// # db.close() }
    /// ```
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Registers a merge operator: from the value, if there is one, and the operand, the new value.
    ///
    /// It runs at commit (or at once under the lock in pessimistic mode) and must depend on nothing
    /// but its arguments. It may run more than once for one merge, and never under a latch of the database. An
    /// error fails the call that ran it, or the commit, which then rolls back; a panic goes through to the caller.
    /// A call of the database in it is a transaction of its own, which does not wait for the one around it.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder()
    ///     .in_memory()
    ///     .merge_operator("append", |old, new| Ok([old.unwrap_or_default(), new].concat()))
    ///     .open()?;
    /// db.merge("append", "log", "a")?;
    /// db.merge("append", "log", "b")?;
    /// assert_eq!(db.get("log")?.as_deref(), Some(&b"ab"[..]));
    /// # Ok(()) }
    /// ```
    pub fn merge_operator<F>(mut self, name: &str, operator: F) -> Self
    where
        F: Fn(Option<&[u8]>, &[u8]) -> std::result::Result<Vec<u8>, Box<dyn StdError + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        let name: Arc<str> = name.into();
        self.merge_operators.insert(Arc::clone(&name), MergeOperator { name, function: Arc::new(operator) });
        self
    }

    /// Is told before a body runs again: to count, or to log why. It runs on the body's thread, between two
    /// attempts; a panic in it goes through to the caller.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder()
    ///     .in_memory()
    ///     .on_retry(|retry| eprintln!("{:?}, attempt {}: {:#}", retry.label, retry.attempt, retry.error))
    ///     .open()?;
    /// # db.close() }
    /// ```
    pub fn on_retry(mut self, hook: impl Fn(&RetryEvent<'_>) + Send + Sync + 'static) -> Self {
        self.on_retry = Some(Arc::new(hook));
        self
    }

    /// The longest key, in bytes. Default: 64 KiB.
    pub fn max_key_bytes(mut self, bytes: usize) -> Self {
        self.limits.key_bytes = bytes;
        self
    }

    /// The longest value, in bytes. Default: 64 MiB.
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.limits.value_bytes = bytes;
        self
    }

    /// The largest write set of one transaction, in bytes of keys and values. Default: 1 GiB.
    pub fn max_write_set_bytes(mut self, bytes: usize) -> Self {
        self.limits.write_set_bytes = bytes;
        self
    }

    /// How many locks one transaction may hold. Default: 10 million.
    pub fn max_locks_per_transaction(mut self, locks: usize) -> Self {
        self.limits.locks = locks;
        self
    }

    /// How much memory versions, keys and indexes may take, in bytes; writes over it fail with
    /// `MemoryLimit`. Deletes go through, so that there is a way back. Default: no limit.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.limits.memory_bytes = Some(bytes);
        self
    }

    /// How long a snapshot may be open before its transaction is ended with `SnapshotTooOld`: an old
    /// snapshot keeps old versions in memory. Looked at on the side of commits. Default: no limit.
    pub fn max_snapshot_age(mut self, age: Duration) -> Self {
        self.limits.snapshot_age = Some(age);
        self
    }

    /// Whether messages show a hash instead of the key: errors, in every form, and events of `tracing`. Default:
    /// keys are shown, escaped and cut. [`Db::locks`], [`Db::waits_for`] and [`Db::recent_deadlocks`] are not
    /// messages, and have the keys in clear.
    pub fn redact_keys(mut self, redact: bool) -> Self {
        self.redact = if redact { Redact::Hash } else { Redact::Show };
        self
    }

    /// Where timeouts and ages take the time from. Default: the system's monotonic clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Opens the database; a durable one recovers what its directory holds.
    ///
    /// *Blocks* for as long as that takes: about as long as reading the checkpoint and the log after it.
    ///
    /// # Errors
    /// `Config` when an option makes no sense; the message says which and why. `Storage`: another process
    /// has the directory open, it holds something else, or its files are damaged; see
    /// [`kind`](Error::kind).
    pub fn open(self) -> Result<Db> {
        self.check()?;
        let keep_age = self.deadlocks != Deadlocks::Detect { victim: Victim::Oldest };
        let config = Config {
            isolation: self.isolation,
            mode: self.mode,
            lock_timeout: self.lock_timeout,
            locks: LockConfig { deadlocks: self.deadlocks, max_locks_per_txn: self.limits.locks },
            keep_age,
            retry: self.retry,
            merge_operators: self.merge_operators,
            on_retry: self.on_retry,
            limits: self.limits,
            redact: self.redact,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
        };
        let began = config.clock.now();
        let path = match &self.place {
            Some(Place::Path(path)) => path.display().to_string(),
            _ => String::new(),
        };
        let vfs: Arc<dyn Vfs> = match self.place {
            None | Some(Place::Memory) => return Ok(Db::new(Arc::new(Core::new(config)))),
            Some(Place::Path(path)) => {
                let open = RealFs::open(&path, true);
                Arc::new(open.map_err(|source| StorageError::Io {
                    doing: match source.kind() {
                        ErrorKind::NotFound => "making (the directory above it must be there)",
                        _ => "opening",
                    },
                    file: path.display().to_string().into(),
                    source: Arc::new(source),
                })?)
            }
            Some(Place::Vfs(vfs)) => vfs,
        };
        let clock = Arc::clone(&config.clock);
        let recovering = Recovering { store: Store::new(), hook: self.on_recovery };
        let Opened { directory, log, last } = isolde_wal::open(vfs, &self.log, &recovering)?;
        let after = self.checkpoint_after.filter(|_| self.background);
        let log = Arc::new(log);
        let disk = Disk::new(Arc::clone(&log), directory, self.durability, self.checkpoints, after);
        let core = Arc::new(Core::recovered(config, recovering.store, last, disk));
        if let Some(disk) = core.disk.as_ref().filter(|_| self.background) {
            disk.keep(log.start_thread(clock)?);
            core.start_checkpoints()?;
        }
        trace::opened(&path, last, core.config.clock.now().saturating_sub(began));
        Ok(Db::new(core))
    }

    fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Error::Config(why.into()));
        if self.place.is_none() {
            return refuse("say where: path(..), or in_memory()");
        }
        if matches!(&self.place, Some(Place::Path(path)) if path.as_os_str().is_empty()) {
            return refuse("the path is empty: name a directory");
        }
        if self.log.segment_bytes < SMALLEST_SEGMENT || !self.log.segment_bytes.is_multiple_of(BLOCK) {
            return refuse("log_segment_bytes must be a multiple of 4096, and at least 65536");
        }
        if self.log.segment_bytes > LARGEST_SEGMENT {
            return refuse("log_segment_bytes must be at most 4 GiB: a record's length has 32 bits");
        }
        if self.retry.max_attempts == 0 {
            return refuse("RetryPolicy::max_attempts is 0: a body runs at least once");
        }
        if self.deadlocks == Deadlocks::TimeoutOnly && self.lock_timeout.is_none() {
            return refuse("Deadlocks::TimeoutOnly needs a lock_timeout: else a deadlock lasts for ever");
        }
        if self.limits.locks == 0 {
            return refuse("max_locks_per_transaction is 0: no transaction could write");
        }
        Ok(())
    }
}

/// Where a database is kept.
enum Place {
    Memory,
    Path(PathBuf),
    Vfs(Arc<dyn Vfs>),
}

type RecoveryHook = Box<dyn Fn(u64, u64) + Send + Sync>;

/// The records, while the log gives them back.
struct Recovering {
    store: Store<LockCell>,
    hook: Option<RecoveryHook>,
}

impl Redo for Recovering {
    fn apply(&self, key: &[u8], value: Option<&[u8]>, ts: Ts) {
        self.store.restore(key, value, ts);
    }

    fn expect(&self, rows: u64) {
        self.store.reserve(usize::try_from(rows).unwrap_or(0));
    }

    fn rows(&self) -> Rows<'_> {
        Box::new(self.store.load_in_order())
    }

    fn progress(&self, done: u64, total: u64) {
        if let Some(hook) = &self.hook {
            hook(done, total);
        }
    }
}

/// Options of one transaction, from [`Db::txn`].
#[derive(Clone)]
#[must_use = "a transaction's options do nothing until `begin` or `run`"]
pub struct TxnBuilder<'d> {
    db: &'d Db,
    begin: Begin,
}

impl<'d> TxnBuilder<'d> {
    pub(crate) fn new(db: &'d Db) -> Self {
        let config = &db.core().config;
        let begin = Begin {
            isolation: config.isolation,
            mode: config.mode,
            access: Access::ReadWrite,
            label: None,
            lock_timeout: None,
            durability: db.core().default_durability(),
            age: None,
            lock_first: None,
        };
        TxnBuilder { db, begin }
    }

    /// Its level.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.begin.isolation = isolation;
        self
    }

    /// Its mode.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.begin.mode = mode;
        self
    }

    /// Reads only: from repeatable read up it reads one snapshot, takes no lock and never aborts.
    /// Writes and locks fail with `ReadOnly`.
    pub fn read_only(mut self) -> Self {
        self.begin.access = Access::ReadOnly;
        self
    }

    /// What messages, `transactions()` and histories call it.
    pub fn label(mut self, label: &str) -> Self {
        self.begin.label = Some(label.into());
        self
    }

    /// What its commit survives. In memory it makes no difference.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.begin.durability = durability;
        self
    }

    /// How long one lock is waited for.
    pub fn lock_timeout(mut self, at_most: Duration) -> Self {
        self.begin.lock_timeout = Some(at_most);
        self
    }

    /// Begins. Never waits.
    ///
    /// # Errors
    /// `Closed`.
    pub fn begin(self) -> Result<Txn> {
        self.db.begin_with(&self.begin).map(Txn::new)
    }

    /// Begins, runs `body`, commits, and retries on conflict.
    ///
    /// The body's error type is its own; it needs `From<isolde::Error>`, so that `?` works.
    ///
    /// ```
    /// # use isolde::{Db, Isolation};
    /// #[derive(Debug)]
    /// enum ShopError { SoldOut, Db(isolde::Error) }
    /// impl From<isolde::Error> for ShopError {
    ///     fn from(error: isolde::Error) -> Self { ShopError::Db(error) }
    /// }
    ///
    /// fn buy(db: &Db) -> Result<(), ShopError> {
    ///     db.txn().isolation(Isolation::RepeatableRead).label("buy").run(|t| {
    ///         let stock = t.get("stock")?.ok_or(ShopError::SoldOut)?;
    ///         t.put("sold", stock)?;
    ///         t.delete("stock")?;
    ///         Ok(())
    ///     })
    /// }
    /// # fn main() -> isolde::Result<()> {
    /// let db = Db::builder().in_memory().open()?;
    /// assert!(matches!(buy(&db), Err(ShopError::SoldOut)));
    /// # db.close() }
    /// ```
    ///
    /// The body may run several times; what it does outside the transaction it does each time. An
    /// error rolls back. It is retried if the last thing that the transaction did was to fail with a
    /// retryable error, or if the commit failed with one. A panic rolls back and goes on unwinding. For calls of
    /// the database inside the body, and when it blocks, see [`Db::transact`].
    ///
    /// # Errors
    /// The body's own error; `RetriesExhausted` when no attempt came through; as [`Txn::commit`].
    pub fn run<T, E: From<Error>>(self, body: impl Fn(&Txn) -> Result<T, E>) -> Result<T, E> {
        self.db.run_body(self.begin, body)
    }

    pub(crate) fn into_parts(self) -> (&'d Db, Begin) {
        (self.db, self.begin)
    }
}

impl Db {
    pub(crate) fn begin_with(&self, begin: &Begin) -> Result<Arc<TxnInner>> {
        let core = self.share();
        if begin.lock_first.is_none() {
            return TxnInner::begin_at_once(core, begin);
        }
        let wait = Wait::new(Patience::Default);
        let timeout = begin.lock_timeout.or(core.config.lock_timeout);
        block_on(&*core.config.clock, timeout, &wait, TxnInner::begin(core, &wait, begin))
    }
}
