//! A record's body: what one transaction wrote, as after-images.
//!
//! Increments and merges are resolved before they come here, so redo only repeats and needs no
//! operator; doing it twice is doing it once.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::cell::Cell;

use isolde_types::LogBody;

use crate::batch::{Placed, SHORT};
use crate::format::{Fields, RECORD_HEADER, put_varints};

/// The operations of a body, one after the other, behind room for the record's header.
///
/// ```text
/// operation   value length + 1 (0: deleted) | key length | key | value      lengths as LEB128
/// ```
#[derive(Debug)]
pub struct BodyWriter {
    bytes: Vec<u8>,
}

thread_local! {
    /// Memory of this thread's last body; empty.
    static MEMORY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Default for BodyWriter {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl BodyWriter {
    /// An empty body with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> BodyWriter {
        let mut room = MEMORY.try_with(Cell::take).unwrap_or_default();
        room.reserve(RECORD_HEADER.saturating_add(bytes));
        room.extend_from_slice(&[0; RECORD_HEADER]);
        BodyWriter { bytes: room }
    }

    /// Keeps the memory of a body whose record was placed, for the next one of this thread: to free it and to
    /// allocate another takes longer than to write it.
    pub fn recycle(mut body: LogBody) {
        if (1..=SHORT).contains(&body.bytes.capacity()) {
            body.bytes.clear();
            // A thread that is ending needs it no more.
            let _ = MEMORY.try_with(|memory| memory.set(body.bytes));
        }
    }

    /// The most that an operation can take in a body.
    #[must_use]
    pub const fn bound(key: usize, value: usize) -> usize {
        const LENGTHS: usize = 20;
        LENGTHS.saturating_add(key).saturating_add(value)
    }

    /// Adds an operation: `key` has this value from now on, or none.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        put_varints(&mut self.bytes, value.map_or(0, |value| (value.len() as u64).saturating_add(1)), key.len() as u64);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// The operations so far.
    #[must_use]
    pub fn operations(&self) -> &[u8] {
        self.bytes.get(RECORD_HEADER..).unwrap_or_default()
    }

    /// The body, ready to be given to the log.
    #[must_use]
    pub fn finish(self) -> LogBody {
        let mut bytes = self.bytes;
        Placed::note_body(&mut bytes);
        LogBody { bytes, reserved: 0, at_once: false }
    }
}

/// What a record with such a body takes in the log.
pub(crate) fn record_len(body: &LogBody) -> usize {
    body.bytes.len()
}

/// The operations of a body, read one after the other; ends with an `Err` where they make no sense.
#[derive(Debug)]
pub struct Operations<'b> {
    rest: &'b [u8],
}

/// An operation could not be read. (The checksum was right, so it was written that way.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl<'b> Operations<'b> {
    /// The operations in `body`.
    #[must_use]
    pub fn new(body: &'b [u8]) -> Operations<'b> {
        Operations { rest: body }
    }

    fn read(&mut self) -> Option<(&'b [u8], Option<&'b [u8]>)> {
        let mut fields = Fields(self.rest);
        let value_len = fields.varint()?;
        let key_len = usize::try_from(fields.varint()?).ok()?;
        let key = fields.take(key_len)?;
        let value = match value_len.checked_sub(1) {
            None => None,
            Some(len) => Some(fields.take(usize::try_from(len).ok()?)?),
        };
        self.rest = fields.0;
        Some((key, value))
    }
}

impl<'b> Iterator for Operations<'b> {
    type Item = Result<(&'b [u8], Option<&'b [u8]>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = self.read().ok_or(Malformed);
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_that_is_used_again_shows_nothing_of_the_body_before() {
        let body = |value: &[u8]| {
            let mut writer = BodyWriter::with_capacity(3 + value.len());
            writer.push(b"k", Some(value));
            writer.finish()
        };
        let mut long = body(&[7; 50]);
        long.bytes[..RECORD_HEADER].fill(9);
        let pointer = long.bytes.as_ptr();
        BodyWriter::recycle(long);
        let short = body(b"v");
        assert_eq!(short.bytes.as_ptr(), pointer, "it is used again");
        assert_eq!(short.bytes[16..RECORD_HEADER], [0; 16], "behind what is known of the record");
        assert_eq!(short.bytes[RECORD_HEADER..], *b"\x02\x01kv");
    }

    proptest! {
        #[test]
        fn operations_come_back(ops in prop::collection::vec((any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 0..20)) {
            let mut writer = BodyWriter::default();
            for (key, value) in &ops {
                let before = writer.bytes.len();
                writer.push(key, value.as_deref());
                let bound = BodyWriter::bound(key.len(), value.as_ref().map_or(0, Vec::len));
                prop_assert!(writer.bytes.len() - before <= bound);
            }
            let read: Result<Vec<_>, _> = Operations::new(writer.operations()).collect();
            let expected: Vec<_> = ops.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
            prop_assert_eq!(read.unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_operations_or_malformed(bytes: Vec<u8>) {
            let mut again = BodyWriter::default();
            let read: Result<Vec<_>, _> = Operations::new(&bytes).collect();
            if let Ok(ops) = read {
                ops.iter().for_each(|(key, value)| again.push(key, *value));
                prop_assert_eq!(again.operations(), bytes, "decoding and encoding gives the same bytes");
            }
        }
    }
}
