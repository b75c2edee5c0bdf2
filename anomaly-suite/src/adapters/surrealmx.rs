//! SurrealMX, in memory: snapshot isolation, and with the read set tracked, serializable.

use bytes::Bytes;
use isolde_history::schedule::{Database, Failure, Operation, Schedule, Setting};
use isolde_types::{Isolation, Key, Mode, Span};
use surrealmx::{Database as Surreal, Error, Transaction};

use super::embedded::{Embedded, Store, conflict, lacks, refused};
use super::traced::Traced;
use crate::engine::{Engine, Level, Unreachable};

/// SurrealMX, as a kind of database.
#[derive(Clone, Copy, Debug, Default)]
pub struct SurrealMx;

const fn level(isolation: Isolation, name: &'static str) -> Level {
    Level { setting: Setting { isolation, mode: Mode::Optimistic }, name, promises: isolation, mode: "" }
}

const SNAPSHOT: Level = level(Isolation::Snapshot, "SnapshotIsolation");
const SERIALIZABLE: Level = level(Isolation::Serializable, "SerializableSnapshotIsolation");

impl Engine for SurrealMx {
    fn name(&self) -> &'static str {
        "surrealmx"
    }

    fn version(&self) -> String {
        "1.1".to_owned()
    }

    fn levels(&self) -> Vec<Level> {
        vec![SNAPSHOT, SERIALIZABLE]
    }

    fn lacks(&self, operation: &Operation) -> bool {
        lacks(operation)
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        let sessions = Embedded::new(Opened(Surreal::new()), schedule, SERIALIZABLE)?;
        Ok(Box::new(Traced::new(sessions, schedule, self.levels())))
    }
}

struct Opened(Surreal);

/// A key after every key of a schedule: a scan needs an end.
const END: &[u8] = &[0xff; 8];

impl Store for Opened {
    type Txn = Transaction;

    fn begin(&mut self, level: Level, read_only: bool) -> Result<Option<Transaction>, Failure> {
        let txn = self.0.transaction(!read_only);
        Ok(Some(match level.setting.isolation {
            Isolation::Snapshot => txn.with_snapshot_isolation(),
            _ => txn.with_serializable_snapshot_isolation(),
        }))
    }

    fn get(&self, txn: &mut Transaction, key: &Key) -> Result<Option<Bytes>, Failure> {
        let value = txn.get(&key[..]).map_err(|error| failed(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn get_for_update(&self, txn: &mut Transaction, key: &Key) -> Result<Option<Bytes>, Failure> {
        let value = txn.get_for_update(&key[..]).map_err(|error| failed(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, txn: &mut Transaction, span: &Span) -> Result<Vec<(Key, Bytes)>, Failure> {
        let range = &span.start[..]..span.end.as_deref().unwrap_or(END);
        let rows = txn.scan(range, None, None).map_err(|error| failed(&error))?;
        let row = |(key, value): (surrealmx::ByteSlice, surrealmx::ByteSlice)| {
            (Key::copy_from_slice(&key), Bytes::copy_from_slice(&value))
        };
        Ok(rows.into_iter().map(row).collect())
    }

    fn put(&self, txn: &mut Transaction, key: &Key, value: Bytes) -> Result<(), Failure> {
        txn.set(&key[..], &value[..]).map_err(|error| failed(&error))
    }

    fn delete(&self, txn: &mut Transaction, key: &Key) -> Result<(), Failure> {
        txn.del(&key[..]).map_err(|error| failed(&error))
    }

    fn commit(&mut self, mut txn: Transaction) -> Result<(), Failure> {
        txn.commit().map_err(|error| failed(&error))
    }

    fn rollback(&mut self, mut txn: Transaction) -> Result<(), Failure> {
        txn.cancel().map_err(|error| failed(&error))
    }
}

fn failed(error: &Error) -> Failure {
    match error {
        Error::KeyReadConflict | Error::KeyWriteConflict | Error::TxTooOld => conflict(&error.to_string()),
        _ => refused(&error.to_string()),
    }
}
