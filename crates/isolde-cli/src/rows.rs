//! The rows of a database, in memory: as large as the database itself is when it is open.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use isolde::Ts;
use isolde_wal::{Enough, Redo, TakeRow, WalError};

use crate::progress::Bar;

/// A key or a value.
pub type Key = Box<[u8]>;

/// All rows, as of one time.
#[derive(Default)]
pub struct Rows {
    pub rows: BTreeMap<Key, Key>,
    /// The newest commit that they show.
    pub ts: Ts,
}

impl Rows {
    pub fn key_bytes(&self) -> u64 {
        self.rows.keys().map(|key| key.len() as u64).sum()
    }

    pub fn value_bytes(&self) -> u64 {
        self.rows.values().map(|value| value.len() as u64).sum()
    }
}

/// Gathers rows while files are read.
pub struct Reader<'p> {
    prefix: &'p [u8],
    bar: Bar,
    rows: Mutex<Rows>,
}

impl<'p> Reader<'p> {
    /// One that keeps the rows whose keys begin with `prefix`.
    pub fn new(prefix: &'p [u8], bar: Bar) -> Reader<'p> {
        Reader { prefix, bar, rows: Mutex::default() }
    }

    pub fn finish(self) -> Rows {
        self.rows.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Redo for Reader<'_> {
    fn apply(&self, key: &[u8], value: Option<&[u8]>, _ts: Ts) {
        if !key.starts_with(self.prefix) {
            return;
        }
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => rows.rows.insert(key.into(), value.into()),
            None => rows.rows.remove(key),
        };
    }

    fn progress(&self, done: u64, total: u64) {
        self.bar.set(done, total);
    }
}

/// Gives the rows to a backup.
pub struct Giver<'r> {
    rows: &'r Rows,
    bar: Bar,
    total: u64,
    done: u64,
}

impl<'r> Giver<'r> {
    pub fn new(rows: &'r Rows, bar: Bar) -> Giver<'r> {
        Giver { rows, bar, total: rows.key_bytes() + rows.value_bytes(), done: 0 }
    }
}

impl isolde_wal::Source for Giver<'_> {
    fn partition(&mut self, low: &isolde::Key, row: &mut TakeRow<'_>) -> Result<(Ts, Option<isolde::Key>), WalError> {
        let from: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(low), Bound::Unbounded);
        let mut rows = self.rows.rows.range::<[u8], _>(from);
        while let Some((key, value)) = rows.next() {
            self.done += (key.len() + value.len()) as u64;
            if row(key, value)? == Enough::Yes {
                self.bar.set(self.done, self.total);
                return Ok((self.rows.ts, rows.next().map(|(next, _)| isolde::Bytes::copy_from_slice(next))));
            }
        }
        Ok((self.rows.ts, None))
    }
}
