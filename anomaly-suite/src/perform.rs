//! Programs through Isolde's blocking API: what threads run.

use std::collections::HashMap;

use bytes::Bytes;
use isolde::{Cas, Db, Error, LockMode, Savepoint, Txn};
use isolde_history::schedule::{BeginWords, Operation, Value};
use isolde_types::Key;

use crate::isolde::{decode, encode};

/// Runs one transaction from its begin to its end; rolls back at the first error.
///
/// # Errors
/// The first one. What merely makes no sense, such as an insert of a key that is there, is passed over.
pub(crate) fn perform(db: &Db, begin: BeginWords, operations: &[Operation]) -> isolde::Result<()> {
    let BeginWords { isolation, mode, read_only } = begin;
    let builder = db.txn().isolation(isolation.unwrap_or_default()).mode(mode.unwrap_or_default());
    let txn = if read_only { builder.read_only() } else { builder }.begin()?;
    let mut doing = Doing { txn: &txn, savepoints: HashMap::new(), read: HashMap::new() };
    for operation in operations {
        match operation {
            Operation::Commit => return txn.commit().map(|_| ()),
            Operation::Rollback => break,
            operation => match doing.step(operation) {
                Err(Error::AlreadyExists(_) | Error::SavepointGone) => {}
                outcome => outcome?,
            },
        }
    }
    txn.rollback();
    Ok(())
}

/// A transaction under way.
struct Doing<'t> {
    txn: &'t Txn,
    savepoints: HashMap<String, Savepoint>,
    /// What was last read of each key.
    read: HashMap<Key, Option<Bytes>>,
}

impl Doing<'_> {
    fn step(&mut self, operation: &Operation) -> isolde::Result<()> {
        let txn = self.txn;
        match operation {
            Operation::Get(key) => self.remember(key, txn.get(key)?),
            Operation::GetForUpdate(key) => self.remember(key, txn.get_for_update(key)?),
            Operation::Put(key, value) => txn.put_bytes(key, self.value(value))?,
            Operation::Insert(key, value) => txn.insert(key, self.value(value))?,
            Operation::Delete(key) => txn.delete(key)?,
            Operation::Scan(place) => {
                for row in txn.scan(place.span()) {
                    let (key, value) = row?;
                    self.read.insert(key.into(), Some(value));
                }
            }
            Operation::Increment(key, by) => txn.increment(key, *by)?,
            Operation::Merge { operator, key, value } => txn.merge(operator, key, self.value(value))?,
            Operation::CompareAndSet { key, old, new } => {
                let (old, new) = (old.as_ref().map(|old| self.value(old)), new.as_ref().map(|new| self.value(new)));
                match txn.compare_and_set(key, old.as_deref(), new.as_deref())? {
                    Cas::Swapped | Cas::Current(_) => {}
                }
            }
            Operation::Lock(place) => txn.lock(place.span(), LockMode::Exclusive)?,
            Operation::Savepoint(name) => {
                self.savepoints.insert(name.clone(), txn.savepoint());
            }
            Operation::RollbackTo(name) => {
                if let Some(savepoint) = self.savepoints.get(name) {
                    txn.rollback_to(*savepoint)?;
                }
            }
            Operation::Commit | Operation::Rollback => {}
        }
        Ok(())
    }

    fn remember(&mut self, key: &Key, value: Option<Bytes>) {
        self.read.insert(key.clone(), value);
    }

    /// A value as it is stored. A sum with what is no number, or out of range, is what was read.
    fn value(&self, value: &Value) -> Bytes {
        let (key, plus) = match value {
            Value::Word(word) => return encode(word),
            Value::LastRead { key, plus } => (key, *plus),
        };
        let read = self.read.get(key).cloned().flatten().map_or_else(|| Bytes::from_static(b"0"), |read| decode(&read));
        let sum = std::str::from_utf8(&read).ok().and_then(|text| text.parse::<i64>().ok()?.checked_add(plus));
        encode(&sum.map_or(read, |sum| Bytes::from(sum.to_string())))
    }
}
