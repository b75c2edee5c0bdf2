//! Rows that were read ahead: a stretch of a leaf at a time.

use std::collections::VecDeque;

use bytes::Bytes;
use isolde_types::{Key, RecordCell};
use smallvec::SmallVec;

use crate::leaves::{Entry, bring_near};
use crate::record::{PREFIX_BYTES, ReadAt};

/// How many records are read together: enough for their misses to overlap, few enough that a scan that
/// is left early has not read much in vain.
pub(crate) const STRETCH: usize = 24;

/// Rows that were read and not handed out, in key order.
#[derive(Debug, Default)]
pub struct Rows {
    rows: VecDeque<(RowKey, Bytes)>,
}

/// A key that is made when its row is handed out, from memory that is near by then: two counts of references,
/// up and down, of a block of keys cost more than an allocation does.
#[derive(Debug)]
enum RowKey {
    Short { bytes: [u8; PREFIX_BYTES], len: usize },
    Whole(Key),
}

impl RowKey {
    #[inline]
    fn into_key(self) -> Key {
        match self {
            RowKey::Short { bytes, len } => Key::copy_from_slice(bytes.get(..len).unwrap_or(&bytes)),
            RowKey::Whole(key) => key,
        }
    }
}

impl Rows {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes the first row.
    #[inline]
    pub fn pop_front(&mut self) -> Option<(Key, Bytes)> {
        self.rows.pop_front().map(|(key, value)| (key.into_key(), value))
    }

    /// Takes the last row.
    pub fn pop_back(&mut self) -> Option<(Key, Bytes)> {
        self.rows.pop_back().map(|(key, value)| (key.into_key(), value))
    }

    /// Reads a stretch of records, and keeps the rows that `at` shows.
    ///
    /// The latches of a stretch are held together, so that the values' cache misses overlap and are not
    /// met one by one. Whoever holds one of them asks for no leaf, and for no record but of a larger key.
    pub(crate) fn read<C: RecordCell>(&mut self, stretch: &[Entry<C>], at: ReadAt) {
        bring_near(stretch);
        let latched: SmallVec<[_; STRETCH]> = stretch.iter().map(|entry| entry.record().latch()).collect();
        let near = latched.iter().map(|chain| u64::from(chain.first_byte())).fold(0, |a, b| a ^ b);
        std::hint::black_box(near);
        self.rows.extend(stretch.iter().zip(&latched).filter_map(|(entry, chain)| {
            let value = chain.value(at)?;
            let key = match entry.key_len() {
                len @ 0..=PREFIX_BYTES => RowKey::Short { bytes: entry.prefix().to_be_bytes(), len },
                _ => RowKey::Whole(entry.record().key().clone()),
            };
            Some((key, value))
        }));
    }
}

const _: () = assert!(size_of::<(RowKey, Bytes)>() <= 64, "a row is a cache line");
