//! The rows of a table, one after the other, from either end.

use std::time::Duration;

use super::{Table, TableKey, ValueCodec};
use crate::error::{Redact, Result};
use crate::txn::{Keys, Scan};

/// The rows of a range of a table: see [`TxnTable::scan`](crate::TxnTable::scan).
///
/// It does what [`Scan`] does. A row that is not what the table's types make is yielded as `BadRow`, and the
/// next call goes on behind it.
#[must_use = "iterators do nothing unless consumed"]
pub struct TableScan<K, V> {
    rows: Scan,
    table: Table<K, V>,
    redact: Redact,
}

impl<K: TableKey, V: ValueCodec> TableScan<K, V> {
    pub(super) fn new(rows: Scan, table: Table<K, V>, redact: Redact) -> TableScan<K, V> {
        TableScan { rows, table, redact }
    }

    /// See [`Scan::for_update`].
    pub fn for_update(self) -> TableScan<K, V> {
        TableScan { rows: self.rows.for_update(), ..self }
    }

    /// See [`Scan::for_share`].
    pub fn for_share(self) -> TableScan<K, V> {
        TableScan { rows: self.rows.for_share(), ..self }
    }

    /// See [`Scan::nowait`].
    pub fn nowait(self) -> TableScan<K, V> {
        TableScan { rows: self.rows.nowait(), ..self }
    }

    /// See [`Scan::skip_locked`].
    pub fn skip_locked(self) -> TableScan<K, V> {
        TableScan { rows: self.rows.skip_locked(), ..self }
    }

    /// See [`Scan::limit`].
    pub fn limit(self, rows: usize) -> TableScan<K, V> {
        TableScan { rows: self.rows.limit(rows), ..self }
    }

    /// See [`Scan::timeout`].
    pub fn timeout(self, at_most: Duration) -> TableScan<K, V> {
        TableScan { rows: self.rows.timeout(at_most), ..self }
    }

    /// The keys alone: no value is decoded.
    pub fn keys(self) -> TableKeys<K, V> {
        TableKeys { keys: self.rows.keys(), table: self.table, redact: self.redact }
    }
}

impl<K: TableKey, V: ValueCodec> Iterator for TableScan<K, V> {
    type Item = Result<(K, V::Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(row.and_then(|row| self.table.decode_row(row, self.redact)))
    }
}

impl<K: TableKey, V: ValueCodec> DoubleEndedIterator for TableScan<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let row = self.rows.next_back()?;
        Some(row.and_then(|row| self.table.decode_row(row, self.redact)))
    }
}

/// The keys of a range of a table: see [`TableScan::keys`].
#[must_use = "iterators do nothing unless consumed"]
pub struct TableKeys<K, V> {
    keys: Keys,
    table: Table<K, V>,
    redact: Redact,
}

impl<K: TableKey, V: ValueCodec> TableKeys<K, V> {
    /// See [`Scan::limit`].
    pub fn limit(self, rows: usize) -> TableKeys<K, V> {
        TableKeys { keys: self.keys.limit(rows), ..self }
    }
}

impl<K: TableKey, V: ValueCodec> Iterator for TableKeys<K, V> {
    type Item = Result<K>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.keys.next()?;
        Some(key.and_then(|key| self.table.decode_key(&key, self.redact)))
    }
}

impl<K: TableKey, V: ValueCodec> DoubleEndedIterator for TableKeys<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let key = self.keys.next_back()?;
        Some(key.and_then(|key| self.table.decode_key(&key, self.redact)))
    }
}
