//! Typed tables: keys and values of your types, in key order, in a part of the database of their own.
//!
//! ```text
//! key in the database    encoded name of the table | encoded key
//! ```
//!
//! A table is a name and two types; it takes no memory and needs no declaration to the database. Everything
//! else - levels, locks, conflicts - is as for the keys that it stands for.

mod key;
mod rows;
mod value;

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use bytes::Bytes;
use isolde_types::{Key, LockMode, RowKey, Span};

pub use self::key::{EncodeKey, KeyPrefix, TableKey};
pub use self::rows::{TableKeys, TableScan};
#[cfg(feature = "json")]
pub use self::value::Json;
pub use self::value::{CodecError, ValueCodec};
use crate::error::{BadRow, Error, KeyText, Redact, Result, RowPart};
use crate::txn::Call;
use crate::{Cas, Db, Txn};

/// A table: its name, and the types of its keys and values. See [`Txn::table`] and [`Db::table`].
///
/// Two tables of one name are the same keys; then the types must be the same, too. Without the types, the
/// keys are those that begin with [`span`](Table::span)'s.
///
/// ```
/// use isolde::{Db, Table};
///
/// const SCORES: Table<(String, u32), i64> = Table::new("scores");
///
/// # fn main() -> isolde::Result<()> {
/// let db = Db::builder().in_memory().open()?;
/// db.transact(|t| {
///     let scores = t.table(SCORES);
///     scores.put(&("ada".to_owned(), 1), 10)?;
///     scores.put(&("ada".to_owned(), 2), 20)?;
///     scores.put(&("bob".to_owned(), 1), 5)?;
///     scores.increment(&("ada".to_owned(), 2), 3)
/// })?;
/// let t = db.begin()?;
/// let of_ada: Vec<i64> =
///     t.table(SCORES).scan_prefix(&"ada".to_owned()).map(|row| Ok(row?.1)).collect::<isolde::Result<_>>()?;
/// assert_eq!(of_ada, [10, 23]);
/// # Ok(()) }
/// ```
pub struct Table<K, V> {
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Table<K, V> {}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({:?})", self.name)
    }
}

impl<K, V> Table<K, V> {
    /// A table of this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Table<K, V> {
        Table { name, types: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// All its keys as they stand in the database, present or not.
    #[must_use]
    pub fn span(&self) -> Span {
        Span::prefix(&self.prefix())
    }

    fn prefix(&self) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(self.name.len() + 32);
        self.name.encode_key(&mut prefix);
        prefix
    }
}

impl<K: TableKey, V: ValueCodec> Table<K, V> {
    fn key_of<Q: EncodeKey + ?Sized>(&self, key: &Q) -> Vec<u8> {
        let mut bytes = self.prefix();
        key.encode_key(&mut bytes);
        bytes
    }

    fn span_of(&self, range: &impl RangeBounds<K>) -> Span {
        let all = self.span();
        let after = |key: &K| {
            let mut bytes = self.key_of(key);
            bytes.push(0);
            Key::from(bytes)
        };
        // No encoding is the beginning of another: nothing else lies between a key and its successor.
        let start = match range.start_bound() {
            Bound::Included(key) => self.key_of(key).into(),
            Bound::Excluded(key) => after(key),
            Bound::Unbounded => all.start,
        };
        let end = match range.end_bound() {
            Bound::Included(key) => Some(after(key)),
            Bound::Excluded(key) => Some(self.key_of(key).into()),
            Bound::Unbounded => all.end,
        };
        Span::new(start, end)
    }

    fn encode(&self, key: &[u8], value: &V::Value, redact: Redact) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        V::encode(value, &mut bytes).map_err(|why| self.bad_row(RowPart::NewValue, key, Some(why), redact))?;
        Ok(bytes)
    }

    fn decode(&self, key: &[u8], value: &[u8], redact: Redact) -> Result<V::Value> {
        V::decode(value).map_err(|why| self.bad_row(RowPart::Value, key, Some(why), redact))
    }

    fn decode_some(&self, key: &[u8], value: Option<Bytes>, redact: Redact) -> Result<Option<V::Value>> {
        value.map(|value| self.decode(key, &value, redact)).transpose()
    }

    fn decode_row(&self, (key, value): (RowKey, Bytes), redact: Redact) -> Result<(K, V::Value)> {
        Ok((self.decode_key(&key, redact)?, self.decode(&key, &value, redact)?))
    }

    fn decode_key(&self, key: &[u8], redact: Redact) -> Result<K> {
        let decoded = key.strip_prefix(&*self.prefix()).and_then(|mut rest| {
            let key = K::decode_key(&mut rest)?;
            rest.is_empty().then_some(key)
        });
        decoded.ok_or_else(|| self.bad_row(RowPart::Key, key, None, redact))
    }

    fn bad_row(&self, part: RowPart, key: &[u8], why: Option<CodecError>, redact: Redact) -> Error {
        Error::BadRow(Box::new(BadRow { table: self.name, part, key: KeyText::new(key, redact), why }))
    }
}

impl Txn {
    /// The rows of a table, in this transaction.
    pub fn table<K: TableKey, V: ValueCodec>(&self, table: Table<K, V>) -> TxnTable<'_, K, V> {
        TxnTable { txn: self, call: self.call(), table }
    }
}

/// A table in a transaction: see [`Txn::table`].
///
/// Its calls do what the transaction's calls of the same name do, with the same locks, waits and errors; and
/// fail with `BadRow` where bytes are not what the table's types make: the transaction lives on then.
#[must_use]
pub struct TxnTable<'t, K, V> {
    txn: &'t Txn,
    call: Call<'t>,
    table: Table<K, V>,
}

impl<'t, K: TableKey, V: ValueCodec> TxnTable<'t, K, V> {
    fn redact(&self) -> Redact {
        self.txn.redact()
    }

    /// The same, for calls that do not wait for locks: see [`Txn::nowait`].
    pub fn nowait(self) -> TxnTable<'t, K, V> {
        TxnTable { call: self.txn.nowait(), ..self }
    }

    /// The same, for calls that wait for a lock at most this long.
    pub fn timeout(self, at_most: Duration) -> TxnTable<'t, K, V> {
        TxnTable { call: self.txn.timeout(at_most), ..self }
    }

    /// The value of a key; see [`Txn::get`].
    ///
    /// # Errors
    /// As there; `BadRow`.
    pub fn get<Q: EncodeKey + ?Sized>(&self, key: &Q) -> Result<Option<V::Value>>
    where
        K: Borrow<Q>,
    {
        let key = self.table.key_of(key);
        self.table.decode_some(&key, self.call.get(&key)?, self.redact())
    }

    /// The value of a key that this transaction means to write; see [`Txn::get_for_update`].
    ///
    /// # Errors
    /// As there; `BadRow`.
    pub fn get_for_update<Q: EncodeKey + ?Sized>(&self, key: &Q) -> Result<Option<V::Value>>
    where
        K: Borrow<Q>,
    {
        let key = self.table.key_of(key);
        self.table.decode_some(&key, self.call.get_for_update(&key)?, self.redact())
    }

    /// The value of a key that must stay as it is; see [`Txn::get_for_share`].
    ///
    /// # Errors
    /// As there; `BadRow`.
    pub fn get_for_share<Q: EncodeKey + ?Sized>(&self, key: &Q) -> Result<Option<V::Value>>
    where
        K: Borrow<Q>,
    {
        let key = self.table.key_of(key);
        self.table.decode_some(&key, self.call.get_for_share(&key)?, self.redact())
    }

    /// Whether a key is present; see [`Txn::contains_key`].
    ///
    /// # Errors
    /// As there.
    pub fn contains_key<Q: EncodeKey + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.call.get(self.table.key_of(key)).map(|value| value.is_some())
    }

    /// Sets a key; see [`Txn::put`].
    ///
    /// # Errors
    /// As there; `BadRow` if the value cannot be encoded.
    pub fn put<Q: EncodeKey + ?Sized>(&self, key: &Q, value: impl Borrow<V::Value>) -> Result<()>
    where
        K: Borrow<Q>,
    {
        let key = self.table.key_of(key);
        let value = self.table.encode(&key, value.borrow(), self.redact())?;
        self.call.put(&key, &value)
    }

    /// Sets a key that is absent; see [`Txn::insert`].
    ///
    /// # Errors
    /// `AlreadyExists`; as there; `BadRow` if the value cannot be encoded.
    pub fn insert<Q: EncodeKey + ?Sized>(&self, key: &Q, value: impl Borrow<V::Value>) -> Result<()>
    where
        K: Borrow<Q>,
    {
        let key = self.table.key_of(key);
        let value = self.table.encode(&key, value.borrow(), self.redact())?;
        self.call.insert(&key, &value)
    }

    /// Deletes a key, present or not; see [`Txn::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete<Q: EncodeKey + ?Sized>(&self, key: &Q) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.call.delete(self.table.key_of(key))
    }

    /// Sets a key if its value is what is expected, compared as bytes; see [`Txn::compare_and_set`].
    ///
    /// # Errors
    /// As there; `BadRow` if a value cannot be encoded.
    pub fn compare_and_set<Q: EncodeKey + ?Sized>(
        &self,
        key: &Q,
        expected: Option<&V::Value>,
        new: Option<&V::Value>,
    ) -> Result<Cas<V::Value>>
    where
        K: Borrow<Q>,
    {
        let key = self.table.key_of(key);
        let encode = |value: Option<&V::Value>| value.map(|v| self.table.encode(&key, v, self.redact())).transpose();
        let (expected, new) = (encode(expected)?, encode(new)?);
        Ok(match self.call.compare_and_set(&key, expected.as_deref(), new.as_deref())? {
            Cas::Swapped => Cas::Swapped,
            Cas::Current(value) => Cas::Current(self.table.decode_some(&key, value, self.redact())?),
        })
    }

    /// Sets a key to what `update` makes of its value (`None`: absent, delete); gives the value before. See
    /// [`Txn::fetch_update`].
    ///
    /// # Errors
    /// As there; `BadRow`.
    pub fn fetch_update<Q: EncodeKey + ?Sized>(
        &self,
        key: &Q,
        update: impl FnOnce(Option<&V::Value>) -> Option<V::Value>,
    ) -> Result<Option<V::Value>>
    where
        K: Borrow<Q>,
    {
        // What fetch_update does to bytes: a read that is kept, and a write.
        let before = self.get_for_update(key)?;
        match update(before.as_ref()) {
            Some(value) => self.put(key, value)?,
            None => self.delete(key)?,
        }
        Ok(before)
    }

    /// The rows of a range, in key order, from either end; see [`Txn::scan`].
    pub fn scan(&self, range: impl RangeBounds<K>) -> TableScan<K, V> {
        TableScan::new(self.txn.scan(self.table.span_of(&range)), self.table, self.redact())
    }

    /// The rows whose keys, which are tuples, begin with these parts.
    pub fn scan_prefix<P: KeyPrefix<K>>(&self, parts: &P) -> TableScan<K, V> {
        let span = Span::prefix(&self.table.key_of(parts));
        TableScan::new(self.txn.scan(span), self.table, self.redact())
    }

    /// The first row of a range.
    ///
    /// # Errors
    /// As for every operation: see [`Txn`]; `BadRow`.
    pub fn first(&self, range: impl RangeBounds<K>) -> Result<Option<(K, V::Value)>> {
        self.scan(range).limit(1).next().transpose()
    }

    /// The last row of a range.
    ///
    /// # Errors
    /// As for every operation: see [`Txn`]; `BadRow`.
    pub fn last(&self, range: impl RangeBounds<K>) -> Result<Option<(K, V::Value)>> {
        self.scan(range).limit(1).next_back().transpose()
    }

    /// Keeps a range as it is until this transaction ends, keys that are not there included; see
    /// [`Txn::lock`].
    ///
    /// # Errors
    /// As there.
    pub fn lock(&self, range: impl RangeBounds<K>, mode: LockMode) -> Result<()> {
        self.call.lock(self.table.span_of(&range), mode)
    }
}

impl<K: TableKey> TxnTable<'_, K, i64> {
    /// Adds to a counter, reading nothing; see [`Txn::increment`].
    ///
    /// # Errors
    /// As there.
    pub fn increment<Q: EncodeKey + ?Sized>(&self, key: &Q, by: i64) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.call.increment(self.table.key_of(key), by)
    }
}

impl Db {
    /// The rows of a table; each call is a transaction of its own, retried.
    pub fn table<K: TableKey, V: ValueCodec>(&self, table: Table<K, V>) -> DbTable<'_, K, V> {
        DbTable { db: self, table }
    }
}

/// A table of a database: see [`Db::table`]. For ranges, begin a transaction.
#[must_use]
pub struct DbTable<'d, K, V> {
    db: &'d Db,
    table: Table<K, V>,
}

impl<K: TableKey, V: ValueCodec> DbTable<'_, K, V> {
    /// The value of a key.
    ///
    /// # Errors
    /// As [`Db::get`]; `BadRow`.
    pub fn get<Q: EncodeKey + ?Sized>(&self, key: &Q) -> Result<Option<V::Value>>
    where
        K: Borrow<Q>,
    {
        let key = self.table.key_of(key);
        self.table.decode_some(&key, self.db.get(&key)?, self.db.core().config.redact)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// As [`Db::put`]; `BadRow` if the value cannot be encoded.
    pub fn put<Q: EncodeKey + ?Sized>(&self, key: &Q, value: impl Borrow<V::Value>) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.db.transact(|t| t.table(self.table).put(key, value.borrow()))
    }

    /// Sets a key that is absent.
    ///
    /// # Errors
    /// As [`Db::insert`]; `BadRow` if the value cannot be encoded.
    pub fn insert<Q: EncodeKey + ?Sized>(&self, key: &Q, value: impl Borrow<V::Value>) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.db.transact(|t| t.table(self.table).insert(key, value.borrow()))
    }

    /// Deletes a key, present or not.
    ///
    /// # Errors
    /// As [`Db::delete`].
    pub fn delete<Q: EncodeKey + ?Sized>(&self, key: &Q) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.db.delete(self.table.key_of(key))
    }

    /// Sets a key if its value is what is expected, compared as bytes.
    ///
    /// # Errors
    /// As [`Db::compare_and_set`]; `BadRow` if a value cannot be encoded.
    pub fn compare_and_set<Q: EncodeKey + ?Sized>(
        &self,
        key: &Q,
        expected: Option<&V::Value>,
        new: Option<&V::Value>,
    ) -> Result<Cas<V::Value>>
    where
        K: Borrow<Q>,
    {
        self.db.transact(|t| t.table(self.table).compare_and_set(key, expected, new))
    }

    /// Sets a key to what `update` makes of its value; gives the value before.
    ///
    /// # Errors
    /// As [`Db::fetch_update`]; `BadRow`.
    pub fn fetch_update<Q: EncodeKey + ?Sized>(
        &self,
        key: &Q,
        update: impl Fn(Option<&V::Value>) -> Option<V::Value>,
    ) -> Result<Option<V::Value>>
    where
        K: Borrow<Q>,
    {
        self.db.transact(|t| t.table(self.table).fetch_update(key, &update))
    }
}

impl<K: TableKey> DbTable<'_, K, i64> {
    /// Adds to a counter.
    ///
    /// # Errors
    /// As [`Db::increment`].
    pub fn increment<Q: EncodeKey + ?Sized>(&self, key: &Q, by: i64) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.db.increment(self.table.key_of(key), by)
    }
}
