//! Rows that were read ahead: a stretch of a leaf at a time.

use std::collections::VecDeque;

use bytes::Bytes;
use isolde_types::{RecordCell, RowKey};
use smallvec::SmallVec;

use crate::leaves::{Entry, prefetch_chains};
use crate::record::{PREFIX_BYTES, ReadAt};

/// How many records are read together: enough for their misses to overlap, few enough that a scan that is left
/// early has not read much in vain.
pub(crate) const STRETCH: usize = 24;

/// The same where few records would be left over for another stretch.
pub(crate) const STRETCH_MAX: usize = 32;

/// Rows that were read and not handed out.
#[derive(Debug, Default)]
pub struct Rows {
    /// In key order.
    rows: VecDeque<(RowKey, Bytes)>,
}

impl Rows {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes the first row.
    #[inline]
    pub fn pop_front(&mut self) -> Option<(RowKey, Bytes)> {
        self.rows.pop_front()
    }

    /// Takes the last row.
    pub fn pop_back(&mut self) -> Option<(RowKey, Bytes)> {
        self.rows.pop_back()
    }

    /// Makes room for the longest stretch of a scan of which so many rows are wanted.
    pub(crate) fn reserve(&mut self, wanted: Option<usize>) {
        self.rows.reserve_exact(wanted.map_or(STRETCH_MAX, |wanted| wanted.min(STRETCH_MAX)));
    }

    /// Reads a stretch of records, and keeps the rows that `at` shows; those before were taken. The records are
    /// prefetched already; those that will be asked for next are now.
    ///
    /// The latches of a stretch are held together, so that the values' cache misses overlap and are not
    /// met one by one. Whoever holds one of them asks for no leaf, and for no record but of a larger key.
    /// A processor has room for some ten misses and then stands still: so values are prefetched one with each latch,
    /// the next records one with each row, and what is asked for first is met first.
    pub(crate) fn read<C: RecordCell>(&mut self, stretch: &[Entry<C>], next: &[Entry<C>], at: ReadAt) {
        debug_assert!(self.is_empty(), "rows are taken before more are read");
        let latched: SmallVec<[_; STRETCH_MAX]> =
            stretch.iter().map(|entry| entry.record().latch_and_prefetch()).collect();
        let mut next = next.iter();
        for (entry, chain) in stretch.iter().zip(&latched) {
            prefetch_chains(next.next().map_or(&[], std::slice::from_ref));
            // That it is looked at here spares each row a way over the stack: pushing cannot come to grow the memory.
            assert!(self.rows.len() < self.rows.capacity(), "there is room for a stretch");
            let Some(value) = chain.value(at) else { continue };
            let key = match entry.key_len() {
                len @ 0..=PREFIX_BYTES => RowKey::inline(entry.prefix().to_be_bytes(), len),
                _ => RowKey::from(entry.record().key().clone()),
            };
            self.rows.push_back((key, value));
        }
        prefetch_chains(next.as_slice());
    }
}

const _: () = assert!(size_of::<(RowKey, Bytes)>() <= 64, "a row is a cache line");
