//! Operations as values that a driver polls by hand, on one thread, without sleeping.
//!
//! For the anomaly suite, the explorer, and tests of cancellation; not part of the stable API. The
//! blocking API runs the same futures, parked; see the inside of `engine::wait`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use isolde_mvcc::Packed;
use isolde_types::sync::Arc;
use isolde_types::{Key, KeyRange, LockMode, TxnId};

use crate::builder::TxnBuilder;
use crate::db::Db;
use crate::engine::commit::Commit;
use crate::engine::inside::poll_inside;
use crate::engine::read::Intent;
use crate::engine::scan::{End, OnLocked, ScanCore};
use crate::engine::wait::{Patience, Wait};
use crate::engine::write::{Cas, Savepoint};
use crate::engine::write_set::Pending;
use crate::engine::{Begin, CoreRef, TxnInner};
use crate::error::{Error, Result};
use crate::isolation::WriteTiming;
use crate::retry::Attempts;

pub use crate::engine::wait::Cause;

/// A transaction whose operations are polled by hand. Dropped, it rolls back.
pub struct Session {
    inner: Arc<TxnInner>,
}

/// Puts rows into a database in memory that nobody has used, as if one transaction had committed them: what an
/// explorer opens for each of its runs is filled fast.
pub fn fill<'r>(db: &Db, rows: impl IntoIterator<Item = (&'r [u8], Bytes)>) {
    db.core().fill(rows);
}

/// All rows that are visible now, in key order, without a transaction.
#[must_use]
pub fn rows(db: &Db) -> Vec<(Key, Bytes)> {
    db.core().rows(&db.core().view())
}

/// The attempts of one body: what `transact` does between them, as values. The caller decides what a
/// pause is.
pub struct Retry {
    core: CoreRef,
    attempts: Attempts,
}

impl Retry {
    /// The attempts of a body that begins like this.
    #[must_use]
    pub fn new(txn: TxnBuilder<'_>) -> Retry {
        let (db, begin) = txn.into_parts();
        let core = db.share().clone();
        Retry { attempts: Attempts::new(&core, begin), core }
    }

    /// Begins the next attempt; pending while it waits for the key that the last one lost on.
    pub fn begin(&self) -> Op<Session> {
        begin(&self.core, self.attempts.begin.clone())
    }

    /// After an attempt of this age has failed: how long to pause before the next.
    ///
    /// # Errors
    /// The error itself if it is not retryable, `RetriesExhausted` if there is no next attempt.
    pub fn after(&mut self, error: Error, age: u64) -> Result<Duration> {
        self.attempts.after(&self.core, error, age)
    }
}

fn begin(core: &CoreRef, begin: Begin) -> Op<Session> {
    let core = core.clone();
    Op::new(Patience::Default, |wait| async move {
        TxnInner::begin(&core, &wait, &begin).await.map(|inner| Session { inner })
    })
}

/// One operation. Dropped while it is pending it is cancelled: it leaves its queue and holds nothing.
#[must_use = "operations do nothing unless polled"]
pub struct Op<T> {
    future: Pin<Box<dyn Future<Output = Result<T>> + Send>>,
    /// Inside whose gate the operation is whenever it is polled. Not a future around the operation: that would
    /// copy it once more for each layer, and operations are large.
    inside: Option<Arc<TxnInner>>,
    wait: Arc<Wait>,
}

impl<T> Op<T> {
    fn new<F>(patience: Patience, operation: impl FnOnce(Arc<Wait>) -> F) -> Op<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let wait = Arc::new(Wait::new(patience));
        Op { future: Box::pin(operation(Arc::clone(&wait))), inside: None, wait }
    }

    /// Goes on with the operation; `Pending` is known to wait for somebody, see [`Op::cause`].
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &self.inside {
            Some(txn) => poll_inside(txn, self.future.as_mut(), cx),
            None => self.future.as_mut().poll(cx),
        }
    }

    /// Why the operation was pending when it was last polled.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.wait.cause()
    }

    /// The lock timeout has passed: the next poll fails the lock wait.
    pub fn time_out(&mut self) {
        self.wait.expire();
    }
}

impl Session {
    /// Begins; ready at once unless a retry locks a key first.
    pub fn begin(txn: TxnBuilder<'_>) -> Op<Session> {
        let (db, options) = txn.into_parts();
        begin(db.share(), options)
    }

    /// Its age: smaller is older. A retry keeps that of the first attempt.
    #[must_use]
    pub fn age(&self) -> u64 {
        self.inner.age()
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> TxnId {
        self.inner.id()
    }

    fn op<T, F>(&self, patience: Patience, operation: impl FnOnce(Arc<TxnInner>, Arc<Wait>) -> F) -> Op<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let op = Op::new(patience, |wait| operation(Arc::clone(&self.inner), wait));
        Op { inside: Some(Arc::clone(&self.inner)), ..op }
    }

    /// What reads nothing, by the ways of the blocking API: without the gate where the change locks nothing, else
    /// inside it.
    fn change(&self, key: impl AsRef<[u8]>, change: Pending) -> Op<()> {
        let key = copy(key);
        if self.inner.policy.writes == WriteTiming::AtOnce {
            return self.op(Patience::Default, |inner, wait| async move { inner.change(&wait, &key, change).await });
        }
        let inner = Arc::clone(&self.inner);
        Op::new(Patience::Default, |wait| async move {
            match inner.change_unlocked(&key, change) {
                Ok(outcome) => outcome,
                Err(change) => inner.inside(inner.change(&wait, &key, change)).run().await,
            }
        })
    }

    fn get_with(&self, key: impl AsRef<[u8]>, intent: Intent) -> Op<Option<Bytes>> {
        let key = copy(key);
        self.op(Patience::Default, |inner, wait| async move { inner.get(&wait, &key, intent).await })
    }

    /// See [`Txn::get`](crate::Txn::get).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Op<Option<Bytes>> {
        self.get_with(key, Intent::Plain)
    }

    /// See [`Txn::get_for_update`](crate::Txn::get_for_update).
    pub fn get_for_update(&self, key: impl AsRef<[u8]>) -> Op<Option<Bytes>> {
        self.get_with(key, Intent::Update)
    }

    /// See [`Txn::get_for_share`](crate::Txn::get_for_share).
    pub fn get_for_share(&self, key: impl AsRef<[u8]>) -> Op<Option<Bytes>> {
        self.get_with(key, Intent::Share)
    }

    /// See [`Txn::get_untracked`](crate::Txn::get_untracked).
    pub fn get_untracked(&self, key: impl AsRef<[u8]>) -> Op<Option<Bytes>> {
        self.get_with(key, Intent::Untracked)
    }

    /// All rows of a span, in key order.
    pub fn scan(&self, span: impl KeyRange) -> Op<Vec<(Key, Bytes)>> {
        self.collect(span, Intent::Plain, OnLocked::Wait)
    }

    /// All rows of a span, locked or marked to be written.
    pub fn scan_for_update(&self, span: impl KeyRange) -> Op<Vec<(Key, Bytes)>> {
        self.collect(span, Intent::Update, OnLocked::Wait)
    }

    /// All rows of a span that nobody else has locked, locked to be written.
    pub fn scan_skip_locked(&self, span: impl KeyRange) -> Op<Vec<(Key, Bytes)>> {
        self.collect(span, Intent::Update, OnLocked::Skip)
    }

    fn collect(&self, span: impl KeyRange, intent: Intent, on_locked: OnLocked) -> Op<Vec<(Key, Bytes)>> {
        let span = span.into_span();
        self.op(Patience::Default, |inner, wait| async move {
            let mut scan = ScanCore::new(&inner, span);
            scan.intent = intent;
            scan.on_locked = on_locked;
            let mut rows = Vec::new();
            while let Some((key, value)) = scan.next(&wait, End::Front).await? {
                rows.push((key.into(), value));
            }
            Ok(rows)
        })
    }

    /// See [`Txn::put`](crate::Txn::put).
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op<()> {
        self.change(key, Pending::Value(Some(Packed::copy(value.as_ref()))))
    }

    /// See [`Txn::insert`](crate::Txn::insert).
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op<()> {
        let (key, value) = (copy(key), copy(value));
        self.op(Patience::Default, |inner, wait| async move { inner.insert(&wait, &key, value.into()).await })
    }

    /// See [`Txn::delete`](crate::Txn::delete).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Op<()> {
        self.change(key, Pending::Value(None))
    }

    /// See [`Txn::increment`](crate::Txn::increment).
    pub fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Op<()> {
        self.change(key, Pending::increment(by))
    }

    /// See [`Txn::merge`](crate::Txn::merge).
    pub fn merge(&self, operator: &str, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Op<()> {
        let (operator, key, operand) = (operator.to_owned(), copy(key), copy(operand));
        self.op(Patience::Default, |inner, wait| async move { inner.merge(&wait, &operator, &key, &operand).await })
    }

    /// See [`Txn::compare_and_set`](crate::Txn::compare_and_set).
    pub fn compare_and_set(&self, key: impl AsRef<[u8]>, expected: Option<&[u8]>, new: Option<&[u8]>) -> Op<Cas> {
        let (key, expected, new) = (copy(key), expected.map(copy), new.map(copy));
        self.op(Patience::Default, |inner, wait| async move {
            inner.compare_and_set(&wait, &key, expected.as_deref(), new.map(Into::into)).await
        })
    }

    /// See [`Txn::fetch_update`](crate::Txn::fetch_update).
    pub fn fetch_update(
        &self,
        key: impl AsRef<[u8]>,
        update: impl FnOnce(Option<&[u8]>) -> Option<Bytes> + Send + 'static,
    ) -> Op<Option<Bytes>> {
        let key = copy(key);
        self.op(Patience::Default, |inner, wait| async move { inner.fetch_update(&wait, &key, update).await })
    }

    /// See [`Txn::lock`](crate::Txn::lock).
    pub fn lock(&self, span: impl KeyRange, mode: LockMode) -> Op<()> {
        let span = span.into_span();
        self.op(Patience::Default, move |inner, wait| async move { inner.lock_whole_span(&wait, span, mode).await })
    }

    /// See [`Txn::savepoint`](crate::Txn::savepoint).
    pub fn savepoint(&self) -> Savepoint {
        self.inner.savepoint()
    }

    /// See [`Txn::rollback_to`](crate::Txn::rollback_to).
    pub fn rollback_to(&self, savepoint: Savepoint) -> Op<()> {
        self.op(Patience::Default, move |inner, _| async move { inner.rollback_to(savepoint) })
    }

    /// See [`Txn::commit`](crate::Txn::commit). Dropped while it is pending: in draining or waiting for
    /// a lock it rolls back; waiting to become visible it is committed.
    pub fn commit(self) -> Op<Commit> {
        let inner = Arc::clone(&self.inner);
        Op::new(Patience::Default, |wait| async move {
            // The session stays until the commit has taken over: dropped unpolled, it rolls back.
            let session = self;
            let outcome = inner.commit(&wait).await;
            drop(session);
            outcome
        })
    }

    /// See [`Txn::rollback`](crate::Txn::rollback).
    pub fn rollback(self) {
        drop(self);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.inner.roll_back();
    }
}

fn copy(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}
