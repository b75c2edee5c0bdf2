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
    /// The short keys of the newest stretch, side by side.
    short_keys: Bytes,
    rows: VecDeque<(RowKey, Bytes)>,
}

#[derive(Debug)]
enum RowKey {
    /// A part of `short_keys`.
    Short {
        place: usize,
        len: usize,
    },
    Whole(Key),
}

/// The short keys of a stretch, in the allocation that also counts the references to them.
struct ShortKeys([[u8; PREFIX_BYTES]; STRETCH]);

impl AsRef<[u8]> for ShortKeys {
    fn as_ref(&self) -> &[u8] {
        self.0.as_flattened()
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
        let (key, value) = self.rows.pop_front()?;
        Some((self.key(key), value))
    }

    /// Takes the last row.
    pub fn pop_back(&mut self) -> Option<(Key, Bytes)> {
        let (key, value) = self.rows.pop_back()?;
        Some((self.key(key), value))
    }

    #[inline]
    fn key(&self, key: RowKey) -> Key {
        match key {
            RowKey::Short { place, len } => {
                let start = place * PREFIX_BYTES;
                self.short_keys.slice(start..start + len)
            }
            RowKey::Whole(key) => key,
        }
    }

    /// Reads a stretch of records, and keeps the rows that `at` shows. Called when there are none.
    ///
    /// The latches of a stretch are held together, so that the values' cache misses overlap and are not
    /// met one by one. Whoever holds one of them asks for no leaf, and for no record but of a larger key.
    pub(crate) fn read<C: RecordCell>(&mut self, stretch: &[Entry<C>], at: ReadAt) {
        debug_assert!(self.is_empty(), "keys of an earlier stretch are still needed");
        bring_near(stretch);
        let latched: SmallVec<[_; STRETCH]> = stretch.iter().map(|entry| entry.record().latch()).collect();
        let near = latched.iter().map(|chain| u64::from(chain.first_byte())).fold(0, |a, b| a ^ b);
        std::hint::black_box(near);
        let mut short_keys = ShortKeys([[0; PREFIX_BYTES]; STRETCH]);
        self.rows.reserve(stretch.len());
        let places = (0..).zip(&mut short_keys.0);
        for ((entry, chain), (place, short)) in stretch.iter().zip(&latched).zip(places) {
            let Some(value) = chain.value(at) else { continue };
            let key = match entry.key_len() {
                0..=PREFIX_BYTES => {
                    *short = entry.prefix().to_be_bytes();
                    RowKey::Short { place, len: entry.key_len() }
                }
                _ => RowKey::Whole(entry.record().key().clone()),
            };
            self.rows.push_back((key, value));
        }
        self.short_keys = Bytes::from_owner(short_keys);
    }
}
