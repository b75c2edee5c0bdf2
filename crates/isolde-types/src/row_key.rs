//! The key of a row that was scanned.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

use crate::Key;

/// The key of a row that was scanned: its bytes, compared, ordered and hashed as such.
///
/// A key of up to [`RowKey::INLINE`] bytes stands in the value itself: nothing is allocated or counted for it.
/// Others are a part of shared memory, as [`Bytes`] are. To keep one as `Bytes`: `Bytes::from(key)`.
///
/// ```
/// # use isolde_types::RowKey;
/// let key = RowKey::from(bytes::Bytes::from("seat/7"));
/// assert_eq!(key, "seat/7");
/// assert!(key.starts_with(b"seat/"));
/// assert_eq!(bytes::Bytes::from(key), "seat/7");
/// ```
#[derive(Clone)]
pub struct RowKey(Repr);

#[derive(Clone)]
enum Repr {
    Inline { bytes: [u8; RowKey::INLINE], len: usize },
    Shared(Key),
}

impl RowKey {
    /// How many bytes need no memory of their own.
    pub const INLINE: usize = 16;

    /// The first `len` of these bytes.
    #[must_use]
    #[inline]
    pub const fn inline(bytes: [u8; RowKey::INLINE], len: usize) -> RowKey {
        RowKey(Repr::Inline { bytes, len })
    }
}

impl Deref for RowKey {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { bytes, len } => bytes.get(..*len).unwrap_or(bytes),
            Repr::Shared(key) => key,
        }
    }
}

/// Copies.
impl From<&[u8]> for RowKey {
    fn from(key: &[u8]) -> RowKey {
        let mut bytes = [0; RowKey::INLINE];
        match bytes.get_mut(..key.len()) {
            Some(inline) => {
                inline.copy_from_slice(key);
                RowKey::inline(bytes, key.len())
            }
            None => RowKey(Repr::Shared(Key::copy_from_slice(key))),
        }
    }
}

/// Copies.
impl From<&str> for RowKey {
    fn from(key: &str) -> RowKey {
        RowKey::from(key.as_bytes())
    }
}

impl From<Key> for RowKey {
    fn from(key: Key) -> RowKey {
        RowKey(Repr::Shared(key))
    }
}

/// Copies a short key; shares a long one.
impl From<RowKey> for Bytes {
    fn from(key: RowKey) -> Bytes {
        match key.0 {
            Repr::Inline { .. } => Bytes::copy_from_slice(&key),
            Repr::Shared(key) => key,
        }
    }
}

impl From<RowKey> for Vec<u8> {
    fn from(key: RowKey) -> Vec<u8> {
        key.to_vec()
    }
}

impl AsRef<[u8]> for RowKey {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Sound for maps: it is compared and hashed as its bytes.
impl Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// As [`Bytes`] are shown.
impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Bytes::copy_from_slice(self), f)
    }
}

impl Eq for RowKey {}

impl Ord for RowKey {
    fn cmp(&self, other: &RowKey) -> Ordering {
        self[..].cmp(&other[..])
    }
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &RowKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for RowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl<B: AsRef<[u8]> + ?Sized> PartialEq<B> for RowKey {
    fn eq(&self, other: &B) -> bool {
        self[..] == *other.as_ref()
    }
}

impl PartialEq<RowKey> for Bytes {
    fn eq(&self, other: &RowKey) -> bool {
        self[..] == other[..]
    }
}

impl PartialEq<RowKey> for &str {
    fn eq(&self, other: &RowKey) -> bool {
        *self.as_bytes() == other[..]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    /// The same bytes, kept in each way that they can be.
    fn kept(bytes: &[u8]) -> Vec<RowKey> {
        let mut keys = vec![RowKey::from(bytes), RowKey::from(Bytes::copy_from_slice(bytes))];
        if bytes.len() <= RowKey::INLINE {
            let mut inline = [0xff; RowKey::INLINE];
            inline[..bytes.len()].copy_from_slice(bytes);
            keys.push(RowKey::inline(inline, bytes.len()));
        }
        keys
    }

    #[test]
    fn it_is_its_bytes_however_it_is_kept() {
        let texts: [&[u8]; 6] = [b"", b"\0", b"a", b"a\0", b"0123456789abcdef", b"0123456789abcdefg"];
        for one in texts {
            for other in texts {
                for (a, b) in kept(one).iter().flat_map(|a| kept(other).into_iter().map(move |b| (a, b))) {
                    assert_eq!(a.cmp(&b), one.cmp(other));
                    assert_eq!(*a == b, one == other);
                    assert_eq!(HashSet::from([a.clone(), b.clone()]).len(), HashSet::from([one, other]).len());
                    assert_eq!(BTreeMap::from([(a.clone(), 1)]).contains_key(other), one == other);
                }
            }
            for key in kept(one) {
                assert_eq!(key, one);
                assert_eq!(format!("{key:?}"), format!("{:?}", Bytes::copy_from_slice(one)));
                assert_eq!(Bytes::from(key.clone()), one);
                assert_eq!(Vec::from(key), one);
            }
        }
    }

    #[test]
    fn a_length_that_is_too_long_is_cut() {
        assert_eq!(RowKey::inline([7; RowKey::INLINE], RowKey::INLINE + 1), [7; RowKey::INLINE]);
    }

    #[test]
    fn it_is_as_small_as_bytes() {
        assert_eq!(size_of::<RowKey>(), size_of::<Bytes>());
    }
}
