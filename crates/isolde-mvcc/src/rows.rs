//! Rows that were read ahead: a stretch of a leaf at a time.

use std::collections::VecDeque;

use bytes::Bytes;
use isolde_types::{Key, RecordCell};
use smallvec::SmallVec;

use crate::leaves::{Entry, bring_near};
use crate::record::{PREFIX_BYTES, ReadAt};

/// How many records are read together: enough for their misses to overlap, few enough that a scan that
/// is left early has not read much in vain.
pub(crate) const STRETCH: usize = 16;

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
    Short { place: u16, len: u16 },
    Whole(Key),
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
                let start = usize::from(place) * PREFIX_BYTES;
                self.short_keys.slice(start..start + usize::from(len))
            }
            RowKey::Whole(key) => key,
        }
    }

    /// Reads a stretch of records, and keeps the rows that `at` shows. Called when there are none.
    ///
    /// The latches of a stretch are held together, so that the values' cache misses overlap and are not
    /// met one by one. Whoever holds one of them takes no other latch, and all who take several take
    /// them in key order.
    pub(crate) fn read<C: RecordCell>(&mut self, stretch: &[Entry<C>], at: ReadAt) {
        debug_assert!(self.is_empty(), "keys of an earlier stretch are still needed");
        bring_near(stretch);
        let latched: SmallVec<[_; STRETCH]> = stretch.iter().map(|entry| entry.record().latch()).collect();
        let near = latched.iter().map(|chain| u64::from(chain.first_byte())).fold(0, |a, b| a ^ b);
        std::hint::black_box(near);
        let mut short_keys = Vec::with_capacity(stretch.len() * PREFIX_BYTES);
        for (entry, chain) in stretch.iter().zip(&latched) {
            let Some(value) = chain.value(at) else { continue };
            let key = match u16::try_from(entry.key_len()) {
                Ok(len) if usize::from(len) <= PREFIX_BYTES => {
                    let place = u16::try_from(short_keys.len() / PREFIX_BYTES).unwrap_or(0);
                    short_keys.extend_from_slice(&entry.prefix().to_be_bytes());
                    RowKey::Short { place, len }
                }
                _ => RowKey::Whole(entry.record().key().clone()),
            };
            self.rows.push_back((key, value));
        }
        self.short_keys = short_keys.into();
    }
}
