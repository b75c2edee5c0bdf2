//! One operation of a transaction, with a patience of its own, run to its end on the calling thread.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use isolde_mvcc::Packed;
use isolde_types::sync::Arc;
use isolde_types::{KeyRange, LockMode};

use super::Txn;
use crate::engine::TxnInner;
use crate::engine::read::Intent;
use crate::engine::wait::{Patience, Wait, block_on_unless};
use crate::engine::write::Cas;
use crate::engine::write_set::Pending;
use crate::error::Result;
use crate::nested;

/// A transaction's operations with another patience: see [`Txn::nowait`] and [`Txn::timeout`]. A scan has
/// methods of its own for that: [`Scan::nowait`](super::Scan::nowait) and [`Scan::timeout`](super::Scan::timeout).
#[derive(Clone, Copy)]
#[must_use]
pub struct Call<'t> {
    pub(super) txn: &'t Txn,
    pub(super) patience: Patience,
}

/// Runs what may wait for locks to its end on this thread; not if it would wait for this thread.
pub(super) fn block_on_locks<T>(
    inner: &Arc<TxnInner>,
    timeout: Option<Duration>,
    wait: &Wait,
    operation: impl Future<Output = Result<T>>,
) -> Result<T> {
    let hopeless = Cell::new(false);
    let look = || {
        hopeless.set(nested::waits_for_own_body(inner));
        hopeless.get()
    };
    let outcome = block_on_unless(&*inner.core.config.clock, timeout, wait, operation, look);
    if hopeless.get() { outcome.map_err(nested::not_for_itself) } else { outcome }
}

impl Call<'_> {
    /// Runs one operation to its end on this thread.
    pub(super) fn block<T>(self, wait: &Wait, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let inner = &self.txn.inner;
        let timeout = match self.patience {
            Patience::AtMost(at_most) => Some(at_most),
            Patience::Default | Patience::NoWait => inner.lock_timeout,
        };
        block_on_locks(inner, timeout, wait, inner.inside(operation).run())
    }

    pub(super) fn get_with(self, key: &[u8], intent: Intent) -> Result<Option<Bytes>> {
        let wait = Wait::new(self.patience);
        self.block(&wait, self.txn.inner.get(&wait, key, intent))
    }

    /// See [`Txn::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.get_with(key.as_ref(), Intent::Plain)
    }

    /// See [`Txn::contains_key`].
    ///
    /// # Errors
    /// As there.
    pub fn contains_key(self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.get(key).map(|value| value.is_some())
    }

    /// See [`Txn::multi_get`].
    ///
    /// # Errors
    /// As there.
    pub fn multi_get<K: AsRef<[u8]>>(self, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        let wait = Wait::new(self.patience);
        self.block(&wait, self.txn.inner.multi_get(&wait, keys))
    }

    /// See [`Txn::get_for_update`].
    ///
    /// # Errors
    /// As there.
    pub fn get_for_update(self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.get_with(key.as_ref(), Intent::Update)
    }

    /// See [`Txn::get_for_share`].
    ///
    /// # Errors
    /// As there.
    pub fn get_for_share(self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.get_with(key.as_ref(), Intent::Share)
    }

    /// See [`Txn::put`].
    ///
    /// # Errors
    /// As there.
    pub fn put(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.change(key.as_ref(), Pending::Value(Some(Packed::copy(value.as_ref()))))
    }

    /// What reads nothing: waits at most for the key's lock.
    fn change(self, key: &[u8], change: Pending) -> Result<()> {
        self.txn.inner.change_unlocked(key, change).unwrap_or_else(|change| {
            let wait = Wait::new(self.patience);
            self.block(&wait, self.txn.inner.change(&wait, key, change))
        })
    }

    /// See [`Txn::put_bytes`].
    ///
    /// # Errors
    /// As there.
    pub fn put_bytes(self, key: impl AsRef<[u8]>, value: Bytes) -> Result<()> {
        self.change(key.as_ref(), Pending::Value(Some(value.into())))
    }

    /// See [`Txn::insert`].
    ///
    /// # Errors
    /// As there.
    pub fn insert(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let wait = Wait::new(self.patience);
        let value = Packed::copy(value.as_ref());
        self.block(&wait, self.txn.inner.insert(&wait, key.as_ref(), value))
    }

    /// See [`Txn::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(self, key: impl AsRef<[u8]>) -> Result<()> {
        self.change(key.as_ref(), Pending::Value(None))
    }

    /// See [`Txn::increment`].
    ///
    /// # Errors
    /// As there.
    pub fn increment(self, key: impl AsRef<[u8]>, by: i64) -> Result<()> {
        self.change(key.as_ref(), Pending::increment(by))
    }

    /// See [`Txn::merge`].
    ///
    /// # Errors
    /// As there.
    pub fn merge(self, operator: &str, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        let wait = Wait::new(self.patience);
        self.block(&wait, self.txn.inner.merge(&wait, operator, key.as_ref(), operand.as_ref()))
    }

    /// See [`Txn::compare_and_set`].
    ///
    /// # Errors
    /// As there.
    pub fn compare_and_set(self, key: impl AsRef<[u8]>, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<Cas> {
        let wait = Wait::new(self.patience);
        let new = new.map(Packed::copy);
        self.block(&wait, self.txn.inner.compare_and_set(&wait, key.as_ref(), expected, new))
    }

    /// See [`Txn::fetch_update`].
    ///
    /// # Errors
    /// As there.
    pub fn fetch_update(
        self,
        key: impl AsRef<[u8]>,
        update: impl FnOnce(Option<&[u8]>) -> Option<Bytes>,
    ) -> Result<Option<Bytes>> {
        let wait = Wait::new(self.patience);
        self.block(&wait, self.txn.inner.fetch_update(&wait, key.as_ref(), update))
    }

    /// See [`Txn::lock`].
    ///
    /// # Errors
    /// As there.
    pub fn lock(self, span: impl KeyRange, mode: LockMode) -> Result<()> {
        let wait = Wait::new(self.patience);
        self.block(&wait, self.txn.inner.lock_whole_span(&wait, span.into_span(), mode))
    }
}
