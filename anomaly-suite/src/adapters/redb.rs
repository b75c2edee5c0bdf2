//! redb, in memory: one write transaction at a time, and readers with a snapshot. Serializable.
//!
//! *Blocked is known*: whoever begins to write while another write transaction is open waits for its end,
//! by redb's own rule; all of them are begun here. A transaction is a reader if it says so when it begins.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use isolde_history::schedule::{Database, Failure, Operation, Schedule, Setting};
use isolde_types::{Isolation, Key, Mode, Span};
use redb::backends::InMemoryBackend;
use redb::{Database as Redb, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::embedded::{Embedded, Store, lacks, refused};
use super::traced::Traced;
use crate::engine::{Engine, Level, Unreachable};

/// redb, as a kind of database.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedbEngine;

const LEVEL: Level = Level {
    setting: Setting { isolation: Isolation::Serializable, mode: Mode::Pessimistic },
    name: "one writer at a time",
    promises: Isolation::Serializable,
    mode: "",
};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

impl Engine for RedbEngine {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn version(&self) -> String {
        "4.6".to_owned()
    }

    fn levels(&self) -> Vec<Level> {
        vec![LEVEL]
    }

    fn lacks(&self, operation: &Operation) -> bool {
        matches!(operation, Operation::GetForUpdate(_)) || lacks(operation)
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        let db = Redb::builder().create_with_backend(InMemoryBackend::new());
        let db = db.map_err(|error| Unreachable(error.to_string()))?;
        let store = Opened { db, writing: Rc::default() };
        Ok(Box::new(Traced::new(Embedded::new(store, schedule, LEVEL)?, schedule, self.levels())))
    }
}

struct Opened {
    db: Redb,
    /// Whether the one write transaction is open.
    writing: Rc<Cell<bool>>,
}

enum Txn {
    Read(ReadTransaction),
    Write(Box<WriteTransaction>, Turn),
}

/// The turn of the one writer, given back when it is dropped.
struct Turn(Rc<Cell<bool>>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Store for Opened {
    type Txn = Txn;

    fn begin(&mut self, _: Level, read_only: bool) -> Result<Option<Txn>, Failure> {
        if read_only {
            return self.db.begin_read().map(|txn| Some(Txn::Read(txn))).map_err(|error| odd(&error));
        }
        if self.writing.replace(true) {
            return Ok(None);
        }
        let turn = Turn(self.writing.clone());
        let txn = self.db.begin_write().map_err(|error| odd(&error))?;
        txn.open_table(ROWS).map_err(|error| odd(&error))?;
        Ok(Some(Txn::Write(Box::new(txn), turn)))
    }

    fn get(&self, txn: &mut Txn, key: &Key) -> Result<Option<Bytes>, Failure> {
        match txn {
            Txn::Read(txn) => get(&txn.open_table(ROWS).map_err(|error| odd(&error))?, key),
            Txn::Write(txn, _) => get(&txn.open_table(ROWS).map_err(|error| odd(&error))?, key),
        }
    }

    fn scan(&self, txn: &mut Txn, span: &Span) -> Result<Vec<(Key, Bytes)>, Failure> {
        match txn {
            Txn::Read(txn) => scan(&txn.open_table(ROWS).map_err(|error| odd(&error))?, span),
            Txn::Write(txn, _) => scan(&txn.open_table(ROWS).map_err(|error| odd(&error))?, span),
        }
    }

    fn put(&self, txn: &mut Txn, key: &Key, value: Bytes) -> Result<(), Failure> {
        let mut rows = writer(txn)?.open_table(ROWS).map_err(|error| odd(&error))?;
        rows.insert(&key[..], &value[..]).map(drop).map_err(|error| odd(&error))
    }

    fn delete(&self, txn: &mut Txn, key: &Key) -> Result<(), Failure> {
        let mut rows = writer(txn)?.open_table(ROWS).map_err(|error| odd(&error))?;
        rows.remove(&key[..]).map(drop).map_err(|error| odd(&error))
    }

    fn commit(&mut self, txn: Txn) -> Result<(), Failure> {
        match txn {
            Txn::Read(_) => Ok(()),
            Txn::Write(txn, _turn) => txn.commit().map_err(|error| odd(&error)),
        }
    }

    fn rollback(&mut self, txn: Txn) -> Result<(), Failure> {
        match txn {
            Txn::Read(_) => Ok(()),
            Txn::Write(txn, _turn) => txn.abort().map_err(|error| odd(&error)),
        }
    }
}

fn writer(txn: &mut Txn) -> Result<&mut WriteTransaction, Failure> {
    match txn {
        Txn::Read(_) => Err(refused("it was begun read-only")),
        Txn::Write(txn, _) => Ok(txn),
    }
}

fn get(rows: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &Key) -> Result<Option<Bytes>, Failure> {
    let found = rows.get(&key[..]).map_err(|error| odd(&error))?;
    Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
}

fn scan(rows: &impl ReadableTable<&'static [u8], &'static [u8]>, span: &Span) -> Result<Vec<(Key, Bytes)>, Failure> {
    let found = rows.range(&span.start[..]..).map_err(|error| odd(&error))?;
    let row = |row: Result<_, redb::StorageError>| {
        let (key, value): (redb::AccessGuard<'_, &[u8]>, redb::AccessGuard<'_, &[u8]>) =
            row.map_err(|error| odd(&error))?;
        Ok((Key::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())))
    };
    let rows: Result<Vec<(Key, Bytes)>, Failure> = found.map(row).collect();
    Ok(rows?.into_iter().filter(|(key, _)| span.contains(key)).collect())
}

fn odd(error: &impl std::fmt::Display) -> Failure {
    refused(&error.to_string())
}
