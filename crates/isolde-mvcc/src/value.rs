//! Keys and values as they lie in memory.
//!
//! `Bytes` made from a `Vec` allocates a second time at its first clone, and its count of
//! references then lies apart from the bytes. [`Packed`] copies up to 510 bytes into one
//! allocation that holds the count and the bytes side by side: a clone is one increment, and a
//! read meets one cache line more, not two. Longer ones are kept as they were given, without a
//! copy; they keep alive whatever buffer they are a part of.

use bytes::Bytes;

use crate::discard::let_go_foreign;
use crate::prefetch::prefetch_before;

/// The longest key or value that is copied: the last of the size classes.
const PACKED_MAX: usize = 510;

/// A few bytes, owned by the allocation of a `Bytes`.
struct Inline<const N: usize> {
    len: u16,
    bytes: [u8; N],
}

impl<const N: usize> Inline<N> {
    fn copy(from: &[u8]) -> Bytes {
        let mut bytes = [0; N];
        let len = from.len().min(N);
        if let (Some(to), Some(from)) = (bytes.get_mut(..len), from.get(..len)) {
            to.copy_from_slice(from);
        }
        Bytes::from_owner(Inline { len: u16::try_from(len).unwrap_or(u16::MAX), bytes })
    }
}

impl<const N: usize> AsRef<[u8]> for Inline<N> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }
}

macro_rules! size_classes {
    ($($size:literal)*) => {
        fn copied(bytes: &[u8]) -> Option<Bytes> {
            match bytes.len() {
                $(len if len <= $size => Some(Inline::<$size>::copy(bytes)),)*
                _ => None,
            }
        }

        fn packed_size(len: usize) -> Option<usize> {
            match len {
                $(len if len <= $size => Some(size_of::<(usize, Inline<$size>)>()),)*
                _ => None,
            }
        }
    };
}

size_classes! { 14 22 30 38 46 62 78 94 110 126 158 190 222 254 318 382 446 510 }

/// The same bytes in one allocation of their own; long ones as they are.
fn packed(bytes: Bytes) -> Bytes {
    if bytes.is_empty() { Bytes::new() } else { copied(&bytes).unwrap_or(bytes) }
}

/// A copy, in one allocation.
fn packed_copy(bytes: &[u8]) -> Bytes {
    if bytes.is_empty() { Bytes::new() } else { copied(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes)) }
}

/// A key or a value as it lies in memory. A clone allocates nothing.
///
/// To drop it may run code of whoever owns the buffer. A panic there goes no further: values are dropped many at
/// a time, and a second one while the first unwinds would end the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packed(Bytes);

impl Packed {
    /// A copy.
    #[must_use]
    pub fn copy(bytes: &[u8]) -> Packed {
        Packed(packed_copy(bytes))
    }

    /// The bytes; cloning them allocates nothing.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    /// Whether the bytes were copied here, and are not part of a buffer of somebody else.
    pub(crate) fn is_own_copy(&self) -> bool {
        packed_size(self.0.len()).is_some()
    }

    /// Prefetches the cache line with the count of references, if the bytes were copied here.
    #[inline]
    pub(crate) fn prefetch_count(&self) {
        // Before the bytes are the count, a function, and the length.
        const COUNT_TO_BYTES: usize = 2 * size_of::<usize>() + size_of::<u16>();
        self.0.first().into_iter().for_each(|byte| prefetch_before(byte, COUNT_TO_BYTES));
    }

    /// What this takes of the heap.
    pub(crate) fn heap_size(&self) -> usize {
        heap_size(self.0.len())
    }
}

impl Drop for Packed {
    #[inline]
    fn drop(&mut self) {
        if self.0.len() > PACKED_MAX {
            let_go_foreign(std::mem::take(&mut self.0));
        }
    }
}

/// Copies short bytes; keeps long ones as they are.
impl From<Bytes> for Packed {
    fn from(bytes: Bytes) -> Packed {
        Packed(packed(bytes))
    }
}

impl std::ops::Deref for Packed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What packed bytes of this length take of the heap.
fn heap_size(len: usize) -> usize {
    /// The count of references that `Bytes` keeps for bytes it did not copy.
    const SHARED: usize = 24;
    if len == 0 { 0 } else { packed_size(len).unwrap_or(len + SHARED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_length_survive_packing() {
        for len in 0..PACKED_MAX + 40 {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            assert_eq!(packed(bytes.clone().into()), bytes);
            assert_eq!(packed_copy(&bytes), bytes);
            assert!(heap_size(len) >= len);
        }
    }

    /// Its last reference goes with a panic.
    struct Panics;

    impl AsRef<[u8]> for Panics {
        fn as_ref(&self) -> &[u8] {
            &[1; PACKED_MAX + 1]
        }
    }

    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("the owner's own");
        }
    }

    #[test]
    fn owners_that_panic_are_let_go_many_at_a_time() {
        let values: Vec<Packed> = (0..3).map(|_| Packed::from(Bytes::from_owner(Panics))).collect();
        let copy = values[0].clone();
        drop(values);
        drop(copy);
    }

    #[test]
    fn short_bytes_do_not_keep_a_long_buffer_alive() {
        let long = Bytes::from(vec![7; 1 << 20]);
        let short = packed(long.slice(10..20));
        assert!(long.is_unique(), "{short:?} is a copy");
    }
}
