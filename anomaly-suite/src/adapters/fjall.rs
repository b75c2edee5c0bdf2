//! fjall's optimistic transactions, in a private directory: serializable, certified at commit.

use bytes::Bytes;
use fjall::{KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace, OptimisticWriteTx, Readable};
use isolde_history::schedule::{Database, Failure, Operation, Schedule, Setting};
use isolde_types::{Isolation, Key, Mode, Span};
use tempfile::TempDir;

use super::embedded::{Embedded, Store, conflict, lacks, refused};
use super::traced::Traced;
use crate::engine::{Engine, Level, Unreachable};

/// fjall, as a kind of database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fjall;

const LEVEL: Level = Level {
    setting: Setting { isolation: Isolation::Serializable, mode: Mode::Optimistic },
    name: "OptimisticTxDatabase",
    promises: Isolation::Serializable,
    mode: "",
};

impl Engine for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn version(&self) -> String {
        "3.1".to_owned()
    }

    fn levels(&self) -> Vec<Level> {
        vec![LEVEL]
    }

    fn lacks(&self, operation: &Operation) -> bool {
        matches!(operation, Operation::GetForUpdate(_)) || lacks(operation)
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        let store = Opened::new().map_err(Unreachable)?;
        Ok(Box::new(Traced::new(Embedded::new(store, schedule, LEVEL)?, schedule, self.levels())))
    }
}

struct Opened {
    db: OptimisticTxDatabase,
    rows: OptimisticTxKeyspace,
    /// Deleted last, with everything in it.
    _folder: TempDir,
}

impl Opened {
    fn new() -> Result<Opened, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let db = OptimisticTxDatabase::builder(folder.path()).open().map_err(|error| error.to_string())?;
        let rows = db.keyspace("rows", KeyspaceCreateOptions::default).map_err(|error| error.to_string())?;
        Ok(Opened { db, rows, _folder: folder })
    }
}

impl Store for Opened {
    type Txn = OptimisticWriteTx;

    fn begin(&mut self, _: Level, _: bool) -> Result<Option<OptimisticWriteTx>, Failure> {
        self.db.write_tx().map(Some).map_err(|error| odd(&error))
    }

    fn get(&self, txn: &mut OptimisticWriteTx, key: &Key) -> Result<Option<Bytes>, Failure> {
        let value = txn.get(&self.rows, key).map_err(|error| odd(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, txn: &mut OptimisticWriteTx, span: &Span) -> Result<Vec<(Key, Bytes)>, Failure> {
        use std::ops::Bound;
        let end = span.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.clone()));
        let rows = txn.range(&self.rows, (Bound::Included(span.start.clone()), end));
        rows.map(|row| {
            let (key, value) = row.into_inner().map_err(|error| odd(&error))?;
            Ok((Key::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
        })
        .collect()
    }

    fn put(&self, txn: &mut OptimisticWriteTx, key: &Key, value: Bytes) -> Result<(), Failure> {
        txn.insert(&self.rows, key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&self, txn: &mut OptimisticWriteTx, key: &Key) -> Result<(), Failure> {
        txn.remove(&self.rows, key.to_vec());
        Ok(())
    }

    fn commit(&mut self, txn: OptimisticWriteTx) -> Result<(), Failure> {
        txn.commit().map_err(|error| odd(&error))?.map_err(|error| conflict(&error.to_string()))
    }

    fn rollback(&mut self, txn: OptimisticWriteTx) -> Result<(), Failure> {
        txn.rollback();
        Ok(())
    }
}

fn odd(error: &fjall::Error) -> Failure {
    refused(&error.to_string())
}
