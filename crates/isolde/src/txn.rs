//! Transactions for people: the blocking API.

mod call;
mod rows;

use std::time::Duration;

use bytes::Bytes;
use isolde_types::sync::Arc;
use isolde_types::{Isolation, KeyRange, LockMode, Mode, RowKey, Ts, TxnId};

use crate::engine::TxnInner;
use crate::engine::commit::Commit;
use crate::engine::read::Intent;
use crate::engine::scan::ScanCore;
use crate::engine::wait::{Patience, Wait};
use crate::engine::write::{Cas, Savepoint};
use crate::error::{Redact, Result};
pub use call::Call;
use call::block_on_locks;
pub use rows::{Keys, Scan};

/// A transaction.
///
/// Reads see its own writes. It ends with [`commit`](Txn::commit) or [`rollback`](Txn::rollback);
/// dropped, it rolls back. Dropping never blocks and never panics. Operations take `&self`, so that
/// several threads may use one transaction at once, and `commit` takes it by value, so that nothing
/// can use it afterwards.
///
/// *Blocks*: an operation may wait for a lock, in pessimistic mode or in `commit`, for at most the
/// lock timeout; see each. Reads in optimistic mode never wait.
///
/// *Errors*: conflict, deadlock, a wound and a too old snapshot end the transaction, and say so;
/// after any other error it lives on. For all of them see [`Error`](crate::Error), and
/// [`is_retryable`](crate::Error::is_retryable) for whether to run the whole transaction again.
///
/// ```
/// # fn main() -> isolde::Result<()> {
/// let db = isolde::Db::builder().in_memory().open()?;
/// let t = db.begin()?;
/// t.put("k", b"v")?;
/// assert_eq!(t.get("k")?.as_deref(), Some(&b"v"[..]));
/// t.commit()?;
/// # Ok(()) }
/// ```
#[must_use = "a transaction that is dropped rolls back"]
pub struct Txn {
    inner: Arc<TxnInner>,
}

impl Txn {
    pub(crate) fn new(inner: Arc<TxnInner>) -> Txn {
        Txn { inner }
    }

    pub(crate) fn inner(&self) -> &Arc<TxnInner> {
        &self.inner
    }

    /// Its identity; smaller is older.
    #[must_use]
    pub fn id(&self) -> TxnId {
        self.inner.id()
    }

    /// Its level.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.inner.isolation
    }

    /// Its mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.inner.mode
    }

    /// The state that its snapshot shows, at the levels that read one.
    #[must_use]
    pub fn read_ts(&self) -> Option<Ts> {
        self.inner.policy.has_snapshot().then(|| self.inner.read_ts())
    }

    /// The same transaction, for calls that do not wait for locks: where they would, they fail with
    /// [`Error::LockBusy`](crate::Error::LockBusy), and the transaction lives on.
    ///
    /// In optimistic mode no call waits; the locks that a commit takes are waited for as ever.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().mode(isolde::Mode::Pessimistic).open()?;
    /// let (one, two) = (db.begin()?, db.begin()?);
    /// one.put("k", "1")?;
    /// let busy = two.nowait().put("k", "2").unwrap_err();
    /// assert_eq!(busy.kind(), isolde::ErrorKind::LockBusy);
    /// two.put("other", "2")?;
    /// two.commit()?;
    /// # Ok(()) }
    /// ```
    pub fn nowait(&self) -> Call<'_> {
        Call { txn: self, patience: Patience::NoWait }
    }

    /// The same transaction, for calls that wait for a lock at most this long: then they fail with
    /// [`Error::LockTimeout`](crate::Error::LockTimeout), and the transaction lives on.
    pub fn timeout(&self, at_most: Duration) -> Call<'_> {
        Call { txn: self, patience: Patience::AtMost(at_most) }
    }

    pub(crate) fn redact(&self) -> Redact {
        self.inner.core.config.redact
    }

    pub(crate) fn call(&self) -> Call<'_> {
        Call { txn: self, patience: Patience::Default }
    }

    /// The value of a key.
    ///
    /// *Blocks* for a Shared lock at repeatable read and serializable in pessimistic mode. Of a durable database a
    /// read-only transaction's first read may wait for a sync, behind a commit of a weaker durability.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// db.put("k", "v")?;
    /// let t = db.begin()?;
    /// assert_eq!(t.get("k")?.as_deref(), Some(&b"v"[..]));
    /// assert_eq!(t.get("absent")?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for every operation: see [`Txn`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.call().get(key)
    }

    /// The value of a key that this transaction means to write.
    ///
    /// Pessimistic: locks it (Update where reads lock, else Exclusive) and reads the newest committed
    /// value; *blocks* for the lock. Optimistic: marks the read, which is then certified at commit at
    /// any level. In a snapshot view, a commit newer than the snapshot is a conflict at once.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// db.put("stock", "3")?;
    /// // Right at every level, because nobody can buy the same piece between the read and the write.
    /// db.txn().isolation(isolde::Isolation::ReadCommitted).run(|t| {
    ///     let stock = t.get_for_update("stock")?.unwrap_or_default();
    ///     let left: u32 = std::str::from_utf8(&stock).unwrap_or("").parse().unwrap_or(0);
    ///     t.put("stock", left.saturating_sub(1).to_string())
    /// })?;
    /// assert_eq!(db.get("stock")?.as_deref(), Some(&b"2"[..]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for every operation; also `ReadOnly`.
    pub fn get_for_update(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.call().get_for_update(key)
    }

    /// The value of a key that must stay as it is until this transaction ends: a Shared lock, or in
    /// optimistic mode a marked read. Otherwise as [`get_for_update`](Txn::get_for_update).
    ///
    /// # Errors
    /// As for every operation; also `ReadOnly`.
    pub fn get_for_share(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.call().get_for_share(key)
    }

    /// The value of a key, neither locked nor certified: the level promises nothing for this read.
    ///
    /// What is given up: a decision that rests on it may rest on a value that changes before the
    /// commit. Good for hints and displays. Never waits for a lock.
    ///
    /// # Errors
    /// As for every operation: see [`Txn`].
    pub fn get_untracked(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.call().get_with(key.as_ref(), Intent::Untracked)
    }

    /// Whether a key is present; a read like [`get`](Txn::get).
    ///
    /// # Errors
    /// As for every operation: see [`Txn`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.get(key).map(|value| value.is_some())
    }

    /// The values of several keys, in their order. At read committed they come from one view. *Blocks* as
    /// [`get`](Txn::get) does.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// db.put("a", "1")?;
    /// let values = db.begin()?.multi_get(&["a", "b"])?;
    /// assert_eq!(values, [Some("1".into()), None]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for every operation: see [`Txn`].
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        self.call().multi_get(keys)
    }

    /// The rows of a span, in key order, from either end.
    ///
    /// The iterator is `'static`, sees own writes as of its creation, and does its work as it goes.
    /// In pessimistic mode its `next` *blocks*: at repeatable read for a Shared lock on each row, at
    /// serializable for one on the span (first as far as a small first part, then on all the rest).
    ///
    /// ```
    /// # use isolde::{Db, prefix};
    /// # fn main() -> isolde::Result<()> {
    /// let db = Db::builder().in_memory().open()?;
    /// db.put("acct/1", b"10")?;
    /// db.put("acct/2", b"20")?;
    /// let t = db.begin()?;
    /// let keys: Vec<_> = t.scan(prefix("acct/")).keys().rev().collect::<Result<_, _>>()?;
    /// assert_eq!(keys, ["acct/2", "acct/1"]);
    /// # Ok(()) }
    /// ```
    pub fn scan(&self, span: impl KeyRange) -> Scan {
        Scan::new(ScanCore::new(&self.inner, span.into_span()), Patience::Default)
    }

    /// The first row of a span. *Blocks* as [`scan`](Txn::scan) does; what it keeps to the end is what it
    /// looked at, not the whole span.
    ///
    /// # Errors
    /// As for every operation: see [`Txn`].
    pub fn first(&self, span: impl KeyRange) -> Result<Option<(RowKey, Bytes)>> {
        self.scan(span).limit(1).next().transpose()
    }

    /// The last row of a span; otherwise as [`first`](Txn::first).
    ///
    /// # Errors
    /// As for every operation: see [`Txn`].
    pub fn last(&self, span: impl KeyRange) -> Result<Option<(RowKey, Bytes)>> {
        self.scan(span).limit(1).next_back().transpose()
    }

    /// Sets a key. Reads nothing.
    ///
    /// *Blocks* for an Exclusive lock in pessimistic mode.
    ///
    /// # Errors
    /// As for every operation; also `TooLarge`, `MemoryLimit`, `ReadOnly`.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.call().put(key, value)
    }

    /// Sets a key to a value that is not copied. Otherwise as [`put`](Txn::put).
    ///
    /// # Errors
    /// As for [`put`](Txn::put).
    pub fn put_bytes(&self, key: impl AsRef<[u8]>, value: Bytes) -> Result<()> {
        self.call().put_bytes(key, value)
    }

    /// Sets a key that is absent: a read of its absence, kept like any read on which a write depends.
    ///
    /// *Blocks* for an Exclusive lock in pessimistic mode.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// let t = db.begin()?;
    /// t.insert("user/7", "Ada")?;
    /// assert_eq!(t.insert("user/7", "Bob").unwrap_err().kind(), isolde::ErrorKind::AlreadyExists);
    /// t.commit()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `AlreadyExists` if it is present, and the transaction lives on; otherwise as for
    /// [`put`](Txn::put).
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.call().insert(key, value)
    }

    /// Deletes a key, present or not. Reads nothing, so it does not say which.
    ///
    /// *Blocks* for an Exclusive lock in pessimistic mode.
    ///
    /// # Errors
    /// As for [`put`](Txn::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.call().delete(key)
    }

    /// Adds to a counter: 8 bytes, a big-endian `i64`; an absent one is 0.
    ///
    /// It reads nothing, so two increments of one counter commute: in optimistic mode neither aborts
    /// the other. Reading the key in the same transaction makes it an ordinary read and write.
    ///
    /// *Blocks* for an Exclusive lock in pessimistic mode.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// let (one, two) = (db.begin()?, db.begin()?);
    /// one.increment("hits", 1)?;
    /// two.increment("hits", 1)?;
    /// one.commit()?;
    /// two.commit()?; // no conflict
    /// assert_eq!(db.get("hits")?.as_deref(), Some(&2_i64.to_be_bytes()[..]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NotACounter`, `CounterOverflow`, here or at commit: where it is resolved. Otherwise as for
    /// [`put`](Txn::put).
    pub fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<()> {
        self.call().increment(key, by)
    }

    /// Merges an operand into a value with an operator that the builder registered. Blind, like
    /// [`increment`](Txn::increment). See [`Builder::merge_operator`](crate::Builder::merge_operator) for an example.
    ///
    /// *Blocks* for an Exclusive lock in pessimistic mode.
    ///
    /// # Errors
    /// `Merge` if the operator is not registered or refuses. Otherwise as for [`put`](Txn::put).
    pub fn merge(&self, operator: &str, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.call().merge(operator, key, operand)
    }

    /// Sets a key to `new` if its value is `expected`; `None` stands for absent. A lost race is a
    /// value, not an error. A certified read of the key at every level.
    ///
    /// *Blocks* for an Exclusive lock in pessimistic mode.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// use isolde::Cas;
    /// let t = db.begin()?;
    /// assert_eq!(t.compare_and_set("leader", None, Some(b"me"))?, Cas::Swapped);
    /// assert_eq!(t.compare_and_set("leader", None, Some(b"you"))?, Cas::Current(Some("me".into())));
    /// t.commit()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Txn::put).
    pub fn compare_and_set(&self, key: impl AsRef<[u8]>, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<Cas> {
        self.call().compare_and_set(key, expected, new)
    }

    /// Sets a key to what `update` makes of its value (`None`: absent, delete); gives the value
    /// before. A certified read of the key at every level. A panic in `update` changes nothing.
    ///
    /// *Blocks* for an Exclusive lock in pessimistic mode.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// let t = db.begin()?;
    /// let before = t.fetch_update("log", |old| Some([old.unwrap_or_default(), b"x"].concat().into()))?;
    /// assert_eq!(before, None);
    /// t.commit()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for [`put`](Txn::put).
    pub fn fetch_update(
        &self,
        key: impl AsRef<[u8]>,
        update: impl FnOnce(Option<&[u8]>) -> Option<Bytes>,
    ) -> Result<Option<Bytes>> {
        self.call().fetch_update(key, update)
    }

    /// Keeps a span as it is until this transaction ends, keys that are not there included.
    ///
    /// Pessimistic: locks it; *blocks*. Optimistic: marks it; it is certified at commit, and the mode
    /// does not matter.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().mode(isolde::Mode::Pessimistic).open()?;
    /// use isolde::{LockMode, prefix};
    /// // A room is booked if nobody else has it: no key is there to be locked, so its span is.
    /// let t = db.txn().isolation(isolde::Isolation::ReadCommitted).begin()?;
    /// t.lock(prefix("room/7/"), LockMode::Exclusive)?;
    /// if t.first(prefix("room/7/"))?.is_none() {
    ///     t.put("room/7/monday", "Ada")?;
    /// }
    /// t.commit()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for every operation; also `ReadOnly`.
    pub fn lock(&self, span: impl KeyRange, mode: LockMode) -> Result<()> {
        self.call().lock(span, mode)
    }

    /// A place in this transaction to return to: see [`rollback_to`](Txn::rollback_to).
    pub fn savepoint(&self) -> Savepoint {
        self.inner.savepoint()
    }

    /// Undoes the writes since the savepoint, and gives back the locks that they took. What was read
    /// was seen: its locks, and its place in the read set, stay. Later savepoints are gone; this one can be
    /// returned to again. Never waits for a lock.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// let t = db.begin()?;
    /// t.put("order", "lamp")?;
    /// let before_gift = t.savepoint();
    /// t.put("gift", "card")?;
    /// t.rollback_to(before_gift)?;
    /// t.commit()?;
    /// assert_eq!((db.contains_key("order")?, db.contains_key("gift")?), (true, false));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `SavepointGone`; as for every operation.
    pub fn rollback_to(&self, savepoint: Savepoint) -> Result<()> {
        let (call, wait) = (self.call(), Wait::new(Patience::Default));
        call.block(&wait, async { self.inner.rollback_to(savepoint) })
    }

    /// Commits: all of its writes become visible at once, or none.
    ///
    /// *Blocks*, in optimistic mode, for Exclusive locks on the keys written; in either mode until
    /// earlier commits that are being certified have finished, and, of a durable database, until it is as hard
    /// as its [`Durability`](crate::Durability) promises. The locks are given back before that.
    ///
    /// ```
    /// # fn main() -> isolde::Result<()> {
    /// let db = isolde::Db::builder().in_memory().open()?;
    /// let t = db.begin()?;
    /// t.get("k")?;
    /// db.put("k", "theirs")?;
    /// t.put("k", "mine")?;
    /// let lost = t.commit().unwrap_err();
    /// assert!(lost.is_retryable(), "{lost:#}"); // `transact` and `run` begin again by themselves
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `OutcomeUnknown`: of a durable database whose log failed meanwhile; the commit may be there after the next
    /// open. After any other error it is not, and the transaction is rolled back; whether to run it again says
    /// [`is_retryable`](crate::Error::is_retryable).
    pub fn commit(self) -> Result<Commit> {
        let inner = &self.inner;
        inner.commit_at_once().unwrap_or_else(|rest| {
            let wait = Wait::new(Patience::Default);
            block_on_locks(inner, inner.lock_timeout, &wait, inner.commit_rest(&wait, rest))
        })
    }

    /// Rolls back: as if it had never been. Never blocks.
    pub fn rollback(self) {
        drop(self);
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        self.inner.roll_back();
    }
}

impl std::fmt::Debug for Txn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Txn({}, {}, {})", self.id(), self.isolation(), self.mode())
    }
}

const _: () = {
    const fn shared<T: Send + Sync + 'static>() {}
    shared::<Txn>();
};
