//! The write set: what a transaction has written and not yet committed, in key order.

use bytes::Bytes;
use isolde_mvcc::Packed;
use isolde_types::sync::Arc;
use isolde_types::{Key, Span};

use super::RecordRef;
use super::key_map::{KeyMap, SetKey};
use crate::error::{Error, KeyText, MergeError, Redact, Result};

/// A registered merge operator: from the value, if there is one, and the operand, the new value.
pub(crate) type MergeFn = dyn Fn(Option<&[u8]>, &[u8]) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>
    + Send
    + Sync;

/// A merge operator and its name.
#[derive(Clone)]
pub(crate) struct MergeOperator {
    pub name: Arc<str>,
    pub function: Arc<MergeFn>,
}

/// One blind change: it reads nothing, and is resolved against the newest committed value.
#[derive(Clone)]
pub(crate) enum BlindOp {
    Increment(i64),
    Merge(MergeOperator, Bytes),
}

impl BlindOp {
    /// What this makes of `base`.
    fn apply(&self, key: &[u8], base: Option<&[u8]>, redact: Redact) -> Result<Packed> {
        match self {
            BlindOp::Increment(by) => increment(key, base, *by, redact),
            BlindOp::Merge(operator, operand) => {
                (operator.function)(base, operand).map(|value| Packed::from(Bytes::from(value))).map_err(|reason| {
                    Error::Merge(Box::new(MergeError {
                        operator: (&*operator.name).into(),
                        key: KeyText::new(key, redact),
                        reason: Some(reason.to_string().into()),
                    }))
                })
            }
        }
    }
}

/// A counter is 8 bytes, a big-endian `i64`; an absent one is 0.
fn increment(key: &[u8], base: Option<&[u8]>, by: i64, redact: Redact) -> Result<Packed> {
    let shown = || Box::new(KeyText::new(key, redact));
    let value = match base {
        None => 0,
        Some(bytes) => i64::from_be_bytes(bytes.try_into().map_err(|_| Error::NotACounter(shown()))?),
    };
    let sum = value.checked_add(by).ok_or_else(|| Error::CounterOverflow(shown()))?;
    Ok(Packed::copy(&sum.to_be_bytes()))
}

/// What a key is to become.
#[derive(Clone)]
pub(crate) enum Pending {
    /// This value, or nothing: a put or a delete.
    Value(Option<Packed>),
    /// What these changes, in order, make of the newest committed value.
    Blind(Vec<BlindOp>),
}

impl Pending {
    /// So much more.
    pub fn increment(by: i64) -> Pending {
        Pending::Blind(vec![BlindOp::Increment(by)])
    }

    /// The value over `base`, which is what the key would have without this transaction.
    pub fn resolve(&self, key: &[u8], base: Option<&[u8]>, redact: Redact) -> Result<Option<Packed>> {
        match self {
            Pending::Value(value) => Ok(value.clone()),
            Pending::Blind(ops) => {
                let mut value: Option<Packed> = None;
                for op in ops {
                    let before = value.as_deref().or(base);
                    value = Some(op.apply(key, before, redact)?);
                }
                Ok(value)
            }
        }
    }

    /// The same, by the commit, which is the last to ask.
    pub fn take(&mut self, key: &[u8], base: Option<&[u8]>, redact: Redact) -> Result<Option<Packed>> {
        match self {
            Pending::Value(value) => Ok(value.take()),
            Pending::Blind(_) => self.resolve(key, base, redact),
        }
    }

    /// Whether to resolve it runs an operator, which is code of the user: never under a latch.
    pub fn merges(&self) -> bool {
        matches!(self, Pending::Blind(ops) if ops.iter().any(|op| matches!(op, BlindOp::Merge(..))))
    }

    /// What a key that was to become `earlier` is to become after `change`.
    pub fn combined(earlier: Option<&Pending>, key: &[u8], change: Pending, redact: Redact) -> Result<Pending> {
        match (&change, earlier) {
            (Pending::Value(_), _) | (_, None) => Ok(change),
            (Pending::Blind(_), Some(Pending::Value(value))) => {
                Ok(Pending::Value(change.resolve(key, value.as_deref(), redact)?))
            }
            (Pending::Blind(ops), Some(Pending::Blind(earlier))) => {
                Ok(Pending::Blind(earlier.iter().chain(ops).cloned().collect()))
            }
        }
    }

    pub fn is_blind(&self) -> bool {
        matches!(self, Pending::Blind(_))
    }

    /// At most so many bytes, as far as that can be told before it is resolved: what a merge operator
    /// makes is known only then.
    pub fn size_bound(&self) -> usize {
        match self {
            Pending::Value(_) => self.size(),
            Pending::Blind(_) => self.size() + size_of::<i64>(),
        }
    }

    pub fn size(&self) -> usize {
        match self {
            Pending::Value(value) => value.as_ref().map_or(0, |value| value.len()),
            Pending::Blind(ops) => ops
                .iter()
                .map(|op| match op {
                    BlindOp::Increment(_) => size_of::<i64>(),
                    BlindOp::Merge(_, operand) => operand.len(),
                })
                .sum(),
        }
    }
}

/// One key of the write set.
#[derive(Clone)]
pub(crate) struct Write {
    pub pending: Pending,
    /// The number of the newest change within the transaction.
    pub seq: u32,
    /// The record, once it is known: in pessimistic mode the in-flight version stands in it.
    pub record: Option<RecordRef>,
}

/// One change of the write set, as it was before: undone by a rollback to a savepoint.
struct Undo {
    key: SetKey,
    before: Option<Write>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct WriteSet {
    writes: KeyMap<Write>,
    undo: Vec<Undo>,
    /// Undo is only kept while there is a savepoint to return to.
    keep_undo: bool,
    bytes: usize,
}

impl WriteSet {
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Bytes of keys and values, for the limit.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, key: &[u8]) -> Option<&Write> {
        self.writes.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Write)> {
        self.writes.iter().map(|(key, write)| (&key[..], write))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&[u8], &mut Write)> {
        self.writes.iter_mut().map(|(key, write)| (&key[..], write))
    }

    /// Remembers another record of a key.
    pub fn set_record(&mut self, record: &RecordRef) {
        if let Some(write) = self.writes.get_mut(record.0.key()) {
            write.record = Some(record.clone());
        }
    }

    /// Remembers the records of all keys, in key order.
    pub fn set_records(&mut self, records: &[RecordRef]) {
        for ((_, write), record) in self.writes.iter_mut().zip(records) {
            write.record.get_or_insert_with(|| record.clone());
        }
    }

    /// The writes in `span`, in key order.
    pub fn within(&self, span: &Span) -> Vec<(Key, Pending, u32)> {
        if self.writes.is_empty() || span.is_empty() {
            return Vec::new();
        }
        let copy = |(key, write): (&SetKey, &Write)| (Key::copy_from_slice(key), write.pending.clone(), write.seq);
        self.writes.range(span).map(copy).collect()
    }

    /// Sets what the key is to become; gives what it was to become before, to be dropped under no latch.
    pub fn set(&mut self, key: &[u8], write: Write) -> Option<Write> {
        self.bytes += key.len() + write.pending.size();
        let before = self.writes.insert(SetKey::from_slice(key), write);
        if let Some(before) = &before {
            self.bytes -= key.len() + before.pending.size();
        }
        if !self.keep_undo {
            return before;
        }
        self.undo.push(Undo { key: SetKey::from_slice(key), before });
        None
    }

    /// A place to return to.
    pub fn mark(&mut self) -> usize {
        self.keep_undo = true;
        self.undo.len()
    }

    /// Undoes all changes since the mark, newest first; tells each key's write before and after. Gives those
    /// that are gone, to be dropped under no latch.
    pub fn rollback_to(&mut self, mark: usize, mut undone: impl FnMut(&[u8], &Write, Option<&Write>)) -> Vec<Write> {
        let mut gone = Vec::new();
        for Undo { key, before } in self.undo.drain(mark..).rev() {
            let after = match before {
                Some(before) => {
                    self.bytes += key.len() + before.pending.size();
                    self.writes.insert(key.clone(), before)
                }
                None => self.writes.remove(&key),
            };
            if let Some(after) = after {
                self.bytes -= key.len() + after.pending.size();
                undone(&key, &after, self.writes.get(&key));
                gone.push(after);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &'static str, seq: u32) -> Write {
        Write { pending: Pending::Value(Some(Packed::copy(value.as_bytes()))), seq, record: None }
    }

    #[test]
    fn blind_changes_add_up_and_settle_over_an_own_write() {
        let mut writes = WriteSet::default();
        let add = |n| Pending::Blind(vec![BlindOp::Increment(n)]);
        let combined = |writes: &WriteSet, key: &[u8], change| {
            Pending::combined(writes.get(key).map(|write| &write.pending), key, change, Redact::Show).unwrap()
        };
        let first = combined(&writes, b"n", add(2));
        let _ = writes.set(b"n", Write { pending: first, seq: 1, record: None });
        let both = combined(&writes, b"n", add(3));
        let base = 10_i64.to_be_bytes();
        let value = both.resolve(b"n", Some(&base), Redact::Show).unwrap();
        assert_eq!(value.as_deref(), Some(&15_i64.to_be_bytes()[..]));

        let _ = writes.set(b"m", Write { pending: Pending::Value(None), seq: 2, record: None });
        let over_delete = combined(&writes, b"m", add(7));
        assert!(matches!(over_delete, Pending::Value(Some(v)) if v[..] == 7_i64.to_be_bytes()));
    }

    #[test]
    fn a_rollback_restores_what_was_and_the_byte_count() {
        let mut writes = WriteSet::default();
        let _ = writes.set(b"a", put("1", 1));
        let (bytes, mark) = (writes.bytes(), writes.mark());
        let _ = writes.set(b"a", put("22", 2));
        let _ = writes.set(b"b", put("333", 3));
        let mut undone = Vec::new();
        let _ = writes
            .rollback_to(mark, |key, after, before| undone.push((key.to_vec(), after.seq, before.map(|w| w.seq))));
        assert_eq!(undone, [("b".into(), 3, None), ("a".into(), 2, Some(1))]);
        assert_eq!(writes.bytes(), bytes);
        assert_eq!(writes.len(), 1);
    }

    #[test]
    fn counters_refuse_other_lengths_and_overflow() {
        let key = Key::from_static(b"n");
        assert!(matches!(increment(&key, Some(b"abc"), 1, Redact::Show), Err(Error::NotACounter(_))));
        let max = i64::MAX.to_be_bytes();
        assert!(matches!(increment(&key, Some(&max), 1, Redact::Show), Err(Error::CounterOverflow(_))));
        assert_eq!(&increment(&key, None, -4, Redact::Show).unwrap()[..], &(-4_i64).to_be_bytes());
    }
}
