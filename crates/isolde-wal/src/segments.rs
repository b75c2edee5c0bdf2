//! Segment files: prepared ahead, recycled, and enough of them for all that was admitted.
//!
//! A segment is written with zeros to its full size before it is used: on most file systems a sync
//! of bytes that were allocated and not written must write the file's own structure, too, and takes
//! twice as long.
//!
//! Admission reserves space for what a transaction may append, before it takes its place in the order
//! of commits; so nothing fails for space afterwards.

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;
use isolde_types::Ts;
use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex};

use crate::error::{Result, WalError};
use crate::format::{BLOCK, is_plausible};
use crate::manifest::create;
use crate::vfs::{Vfs, write_all_at};

/// How many prepared segments are kept when the log is recycled.
const KEEP: usize = 2;
const ZEROS: usize = 1 << 20;

/// What a record reserves at most that may take it from the credit.
const SHORT: u64 = 2 * BLOCK;
/// How much space is made credit of at a time; of a small segment, less.
const CREDIT: u64 = 64 * SHORT;

/// The name of a segment's file.
#[must_use]
pub fn segment_name(segment: u64) -> String {
    format!("log-{segment:016x}")
}

/// The number in a segment's name.
#[must_use]
pub fn segment_number(name: &str) -> Option<u64> {
    numbered(name, "log-")
}

pub(crate) fn spare_number(name: &str) -> Option<u64> {
    numbered(name, "spare-")
}

fn numbered(name: &str, prefix: &str) -> Option<u64> {
    hexadecimal(name.strip_prefix(prefix)?, 16)
}

/// Reads numbers back that were written with so many lower-case hexadecimal digits, and no others.
pub(crate) fn hexadecimal(text: &str, digits: usize) -> Option<u64> {
    let plain = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten().filter(|number| is_plausible(*number))
}

/// See the module.
pub(crate) struct Segments {
    vfs: Arc<dyn Vfs>,
    segment_bytes: u64,
    space: CachePadded<Mutex<Space>>,
    /// What is reserved in `space` and nobody's yet: for short records, without its latch.
    credit: CachePadded<AtomicU64>,
    /// Held by whoever prepares a segment, so that not all do at once.
    preparing: Mutex<()>,
}

#[derive(Default)]
struct Space {
    /// Bytes left in the segment that is written.
    left: u64,
    spares: VecDeque<String>,
    next_spare: u64,
    /// Admitted and not written yet.
    reserved: u64,
    /// The largest reservation since the log was last empty: a segment may end with so much unused.
    largest: u64,
    /// Written segments that may still be needed, oldest first, each with its last commit.
    closed: VecDeque<(u64, Ts)>,
}

impl Space {
    /// Whether so many bytes more fit for sure, in records of which each takes at most `each`, in whatever order
    /// they come.
    ///
    /// A segment ends where the next record does not fit, so it is full but for less than the largest record;
    /// and what it holds is together with that record more than a segment. The last segment may be filled to its
    /// end. So with ever more spares there is ever more space, however large the largest is.
    fn fits(&self, more: u64, each: u64, segment_bytes: u64) -> bool {
        let (needed, largest) = (self.reserved + more, self.largest.max(each));
        let Some(but_one) = (self.spares.len() as u64).checked_sub(1) else { return needed <= self.left };
        let segment = segment_bytes.saturating_sub(2 * BLOCK);
        let by_waste = self.left.saturating_sub(largest) + but_one * segment.saturating_sub(largest) + segment;
        let by_pairs = (but_one / 2 + 1) * segment;
        needed <= self.left || needed <= by_waste.max(by_pairs)
    }

    /// Reserves so much, if it fits for sure.
    fn reserve(&mut self, more: u64, each: u64, segment_bytes: u64) -> bool {
        let fits = self.fits(more, each, segment_bytes);
        if fits {
            self.reserved += more;
            self.largest = self.largest.max(each);
        }
        fits
    }
}

/// Space in the log for one record; given back when dropped.
pub struct Reservation<'s> {
    segments: &'s Segments,
    bytes: u64,
}

impl Reservation<'_> {
    /// Whether it is enough for a record of this length.
    pub(crate) fn holds(&self, record_len: usize) -> bool {
        reservation(record_len) <= self.bytes
    }

    /// The bytes that it keeps.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The record was placed: its space is given back when it is written.
    pub fn placed(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.segments.release(self.bytes);
        }
    }
}

/// What a record reserves: itself, and the way to the next block boundary.
pub(crate) const fn reservation(record_len: usize) -> u64 {
    record_len as u64 + BLOCK
}

impl Segments {
    pub fn new(vfs: Arc<dyn Vfs>, segment_bytes: u64, closed: Vec<(u64, Ts)>) -> Segments {
        let space = Space { closed: closed.into(), ..Space::default() };
        Segments {
            vfs,
            segment_bytes,
            space: CachePadded::new(Mutex::new(space)),
            credit: CachePadded::default(),
            preparing: Mutex::new(()),
        }
    }

    /// The largest record that a segment can hold.
    pub fn record_limit(&self) -> usize {
        usize::try_from(self.segment_bytes.saturating_sub(3 * BLOCK)).unwrap_or(usize::MAX)
    }

    /// Adopts a prepared file that was found at opening.
    pub fn adopt(&self, spare: u64, name: String) {
        let mut space = self.space.lock();
        space.next_spare = space.next_spare.max(spare + 1);
        space.spares.push_back(name);
    }

    /// Reserves space for a record. Prepares a segment if there is none left; that takes a while.
    pub fn reserve(&self, record_len: usize) -> Result<Reservation<'_>> {
        if record_len > self.record_limit() {
            return Err(WalError::TooLarge { bytes: record_len, limit: self.record_limit() });
        }
        let bytes = reservation(record_len);
        while !(self.take_credit(bytes) || self.try_reserve(bytes)) {
            self.prepare(|space| space.fits(bytes, bytes, self.segment_bytes))?;
        }
        Ok(Reservation { segments: self, bytes })
    }

    /// The same from the credit alone: without a latch.
    pub fn reserve_at_once(&self, record_len: usize) -> Option<Reservation<'_>> {
        if record_len > self.record_limit() {
            return None;
        }
        let bytes = reservation(record_len);
        self.take_credit(bytes).then(|| Reservation { segments: self, bytes })
    }

    fn take_credit(&self, bytes: u64) -> bool {
        // Relaxed: the number says nothing about other memory.
        bytes <= SHORT
            && self
                .credit
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| credit.checked_sub(bytes))
                .is_ok()
    }

    fn try_reserve(&self, bytes: u64) -> bool {
        let mut space = self.space.lock();
        if !space.reserve(bytes, bytes, self.segment_bytes) {
            // What is nobody's keeps nobody out.
            space.reserved = space.reserved.saturating_sub(self.credit.swap(0, Ordering::Relaxed));
            return space.reserve(bytes, bytes, self.segment_bytes);
        }
        let credit = CREDIT.min(self.segment_bytes / 4);
        if bytes <= SHORT && space.reserve(credit, SHORT, self.segment_bytes) {
            self.credit.fetch_add(credit, Ordering::Relaxed);
        }
        true
    }

    pub fn release(&self, bytes: u64) {
        self.give_up(&mut self.space.lock(), bytes);
    }

    /// What was written is reserved no more, and so much is left in the segment that is written.
    pub fn settle(&self, left: u64, written: u64) {
        let mut space = self.space.lock();
        space.left = left;
        self.give_up(&mut space, written);
    }

    fn give_up(&self, space: &mut Space, bytes: u64) {
        space.reserved = space.reserved.saturating_sub(bytes);
        // Whoever takes of the credit meanwhile is short.
        if space.reserved <= self.credit.load(Ordering::Relaxed) {
            space.largest = space.reserved.min(SHORT);
        }
    }

    /// Makes sure that the next segment is ready.
    pub fn prepare_ahead(&self) -> Result<()> {
        self.prepare(|space| !space.spares.is_empty())
    }

    /// Prepares one segment, unless by now it is `enough`.
    fn prepare(&self, enough: impl Fn(&Space) -> bool) -> Result<()> {
        let _preparing = self.preparing.lock();
        let name = {
            let mut space = self.space.lock();
            if enough(&space) {
                return Ok(());
            }
            space.next_spare += 1;
            format!("spare-{:016x}", space.next_spare - 1)
        };
        match self.write_zeros(&name) {
            Ok(()) => self.space.lock().spares.push_back(name),
            Err(error) => {
                // Whatever was written must not take the space that others need.
                let _ = self.vfs.remove(&name);
                return Err(error);
            }
        }
        Ok(())
    }

    fn write_zeros(&self, name: &str) -> Result<()> {
        let file = create(&*self.vfs, name)?;
        let zeros = vec![0; ZEROS.min(usize::try_from(self.segment_bytes).unwrap_or(ZEROS))];
        let mut at = 0;
        while at < self.segment_bytes {
            let chunk = (self.segment_bytes - at).min(zeros.len() as u64);
            let chunk = zeros.get(..usize::try_from(chunk).unwrap_or(0)).unwrap_or_default();
            write_all_at(&*file, chunk, at).map_err(WalError::io("preparing", name))?;
            at += chunk.len() as u64;
        }
        file.sync().map_err(WalError::io("syncing", name))
    }

    /// A prepared file for the next segment.
    pub fn take_spare(&self) -> Result<String> {
        loop {
            if let Some(name) = self.space.lock().spares.pop_front() {
                return Ok(name);
            }
            self.prepare_ahead()?;
        }
    }

    /// So much is left in the segment that is written.
    pub fn set_left(&self, left: u64) {
        self.space.lock().left = left;
    }

    /// A segment is full; its last commit is `last`.
    pub fn close(&self, segment: u64, last: Ts) {
        self.space.lock().closed.push_back((segment, last));
    }

    /// The first segment that has a commit after `ts`; `current` if that is the one that is written.
    pub fn first_after(&self, ts: Ts, current: u64) -> u64 {
        let space = self.space.lock();
        space.closed.iter().find(|(_, last)| *last > ts).map_or(current, |(segment, _)| *segment)
    }

    /// Gives segments before `keep_from` back: some become the next ones, the others go.
    pub fn recycle(&self, keep_from: u64) -> Result<()> {
        loop {
            let (segment, spare) = {
                let mut space = self.space.lock();
                match space.closed.front() {
                    Some((segment, _)) if *segment < keep_from => {}
                    _ => return Ok(()),
                }
                let Some((segment, _)) = space.closed.pop_front() else { return Ok(()) };
                let spare = (space.spares.len() < KEEP).then(|| {
                    space.next_spare += 1;
                    space.next_spare - 1
                });
                (segment, spare)
            };
            self.give_back(&segment_name(segment), spare)?;
        }
    }

    fn give_back(&self, name: &str, spare: Option<u64>) -> Result<()> {
        let right_size = || {
            let file = self.vfs.open(name, crate::vfs::OpenMode::Read).ok()?;
            file.len().ok().filter(|len| *len == self.segment_bytes)
        };
        match spare.filter(|_| right_size().is_some()) {
            Some(spare) => {
                let new_name = format!("spare-{spare:016x}");
                self.vfs.rename(name, &new_name).map_err(WalError::io("recycling", name))?;
                self.space.lock().spares.push_back(new_name);
                Ok(())
            }
            None => self.vfs.remove(name).map_err(WalError::io("removing", name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_refused() {
        assert_eq!(segment_number(&segment_name(0xab)), Some(0xab));
        for name in ["log-1", "log-00000000000000AB", "log-+000000000000001", "log-000000000000000g", "LOCK", "log-"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
        assert_eq!(spare_number("spare-ffffffffffffffff"), None, "nobody can count on from there");
    }

    #[test]
    fn a_placed_record_keeps_its_space_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let vfs = Arc::new(crate::RealFs::open(folder.path(), false).unwrap());
        let segments = Segments::new(vfs, 65_536, Vec::new());
        let kept = || segments.space.lock().reserved - segments.credit.load(Ordering::Relaxed);
        let largest = || segments.space.lock().largest;
        for len in [100, 20_000] {
            drop(segments.reserve(len).unwrap());
            assert_eq!(kept(), 0);
            segments.reserve(len).unwrap().placed();
            assert_eq!(kept(), reservation(len), "it is given back when it is written");
            assert!(largest() >= reservation(len));
            segments.release(reservation(len));
            assert_eq!((kept(), largest()), (0, SHORT), "what is nobody's yet will be short");
        }
    }

    #[test]
    fn what_is_nobodys_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let vfs = Arc::new(crate::RealFs::open(folder.path(), false).unwrap());
        let segments = Segments::new(vfs, 65_536, Vec::new());
        let spares = || segments.space.lock().spares.len();
        segments.reserve(100).unwrap().placed();
        assert_eq!((segments.credit.load(Ordering::Relaxed), spares()), (65_536 / 4, 1));
        let large = 65_536 - 2 * BLOCK - reservation(100);
        segments.reserve((large - BLOCK) as usize).unwrap().placed();
        assert_eq!((segments.credit.load(Ordering::Relaxed), spares()), (0, 1), "no second one is prepared");
        assert_eq!(segments.space.lock().reserved, large + reservation(100));
    }

    #[test]
    fn of_credit_each_byte_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let vfs = Arc::new(crate::RealFs::open(folder.path(), false).unwrap());
        let segments = Segments::new(vfs, 1 << 20, Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| segments.reserve(100).unwrap().placed()));
            }
        });
        let credit = segments.credit.load(Ordering::Relaxed);
        assert_eq!(segments.space.lock().reserved, 400 * reservation(100) + credit);
    }

    #[test]
    fn the_largest_record_fits_where_others_stand_before_it() {
        let limit = 65_536 - 2 * BLOCK;
        let mut space = Space { left: 10, ..Space::default() };
        assert!(!space.fits(limit, limit, 65_536));
        space.spares.push_back("spare".into());
        assert!(space.fits(limit, limit, 65_536), "one segment, to its end");
        (space.reserved, space.largest) = (10_000, 5_000);
        let spares = (1..9).find(|_| {
            space.spares.push_back("spare".into());
            space.fits(limit, limit, 65_536)
        });
        assert_eq!(spares, Some(2), "before it, it, and what may come behind it");
    }

    #[test]
    fn a_reservation_counts_what_the_end_of_a_segment_may_waste() {
        let mut space = Space { left: 10_000, largest: 0, ..Space::default() };
        assert!(space.fits(10_000, 10_000, 65_536));
        space.reserved = 6_000;
        assert!(!space.fits(6_000, 6_000, 65_536), "no spare, and no room");
        space.spares.push_back("spare".into());
        assert!(space.fits(6_000, 6_000, 65_536));
        assert!(!space.fits(60_000, 60_000, 65_536));
    }
}
