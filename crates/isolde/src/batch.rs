//! Writes that are applied together or not at all.

use bytes::Bytes;
use isolde_types::Key;

use crate::error::Result;
use crate::txn::Txn;

/// A list of writes for [`Db::apply`](crate::Db::apply): all of them become visible at once, or none.
///
/// ```
/// # fn main() -> isolde::Result<()> {
/// # let db = isolde::Db::builder().in_memory().open()?;
/// let batch = isolde::WriteBatch::new().put("a", "1").delete("b").increment("n", 1);
/// db.apply(&batch)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a batch does nothing until it is applied"]
pub struct WriteBatch {
    writes: Vec<BatchWrite>,
}

#[derive(Clone, Debug)]
enum BatchWrite {
    Put(Key, Bytes),
    Delete(Key),
    Increment(Key, i64),
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Sets a key.
    pub fn put(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.writes.push(BatchWrite::Put(copy(key), copy(value)));
        self
    }

    /// Deletes a key.
    pub fn delete(mut self, key: impl AsRef<[u8]>) -> Self {
        self.writes.push(BatchWrite::Delete(copy(key)));
        self
    }

    /// Adds to a counter.
    pub fn increment(mut self, key: impl AsRef<[u8]>, by: i64) -> Self {
        self.writes.push(BatchWrite::Increment(copy(key), by));
        self
    }

    /// How many writes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn apply_to(&self, txn: &Txn) -> Result<()> {
        self.writes.iter().try_for_each(|write| match write {
            BatchWrite::Put(key, value) => txn.put_bytes(key, value.clone()),
            BatchWrite::Delete(key) => txn.delete(key),
            BatchWrite::Increment(key, by) => txn.increment(key, *by),
        })
    }
}

fn copy(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}
