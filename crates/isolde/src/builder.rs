//! Building a database and a transaction: every option, and its default.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::time::Duration;

use isolde_locks::{Deadlocks, LockConfig, Victim};
use isolde_types::sync::Arc;
use isolde_types::{Clock, Isolation, Mode, SystemClock};

use crate::db::Db;
use crate::engine::core::{Config, Limits};
use crate::engine::wait::{Patience, Wait, block_on};
use crate::engine::write_set::MergeOperator;
use crate::engine::{Begin, Core, TxnInner};
use crate::error::{Error, Redact, Result};
use crate::isolation::Access;
use crate::retry::{RetryEvent, RetryHook, RetryPolicy};
use crate::txn::Txn;

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
    in_memory: bool,
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
            in_memory: false,
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

impl Builder {
    /// Keeps the database in memory: it is gone when its last handle is.
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
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

    /// How bodies are retried.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Registers a merge operator: from the value, if there is one, and the operand, the new value.
    ///
    /// It runs at commit (or at once under the lock in pessimistic mode) and must depend on nothing
    /// but its arguments. An error, or a panic, rolls the transaction back.
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

    /// Is told before a body runs again.
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
    /// `MemoryLimit`. Default: no limit.
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

    /// Whether messages show a hash instead of the key. Default: keys are shown, escaped and cut.
    pub fn redact_keys(mut self, redact: bool) -> Self {
        self.redact = if redact { Redact::Hash } else { Redact::Show };
        self
    }

    /// Where timeouts and ages take the time from. Default: the system's monotonic clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Opens the database.
    ///
    /// # Errors
    /// `Config` when an option makes no sense; the message says which and why.
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
        Ok(Db::new(Arc::new(Core::new(config))))
    }

    fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Error::Config(why.into()));
        if !self.in_memory {
            return refuse("say in_memory(): this version keeps databases in memory only");
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
    /// The body may run several times; what it does outside the transaction it does each time. An
    /// error rolls back. It is retried if the last thing that the transaction did was to fail with a
    /// retryable error, or if the commit failed with one. A panic rolls back and goes on unwinding.
    ///
    /// # Errors
    /// The body's own error; `RetriesExhausted` when no attempt came through.
    pub fn run<T, E: From<Error>>(self, body: impl Fn(&Txn) -> Result<T, E>) -> Result<T, E> {
        self.db.run_body(self.begin, body)
    }

    pub(crate) fn into_parts(self) -> (&'d Db, Begin) {
        (self.db, self.begin)
    }
}

impl Db {
    pub(crate) fn begin_with(&self, begin: &Begin) -> Result<Arc<TxnInner>> {
        let core = self.core();
        let wait = Wait::new(Patience::Default);
        let timeout = begin.lock_timeout.or(core.config.lock_timeout);
        block_on(&*core.config.clock, timeout, &wait, TxnInner::begin(core, &wait, begin))
    }
}
