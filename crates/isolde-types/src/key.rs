//! Keys, half-open key ranges, and the ways to name a range in a call.

use std::fmt;
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use bytes::Bytes;

/// A key: any bytes, the empty string included, ordered byte by byte.
pub type Key = Bytes;

/// A half-open key range `[start, end)`; `end` of `None` is without bound.
///
/// A span whose end is not after its start is empty: it contains nothing and overlaps nothing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The first key of the span.
    pub start: Key,
    /// The first key after the span, or `None` for "to the end".
    pub end: Option<Key>,
}

impl Span {
    /// Every key.
    #[must_use]
    pub const fn all() -> Span {
        Span { start: Bytes::new(), end: None }
    }

    /// The keys from `start` on, before `end`.
    #[must_use]
    pub const fn new(start: Key, end: Option<Key>) -> Span {
        Span { start, end }
    }

    /// The span that holds `key` alone: `[key, key\0)`.
    #[must_use]
    pub fn point(key: &[u8]) -> Span {
        Span { start: Bytes::copy_from_slice(key), end: Some(successor(key)) }
    }

    /// The keys that start with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Span {
        Span { start: Bytes::copy_from_slice(prefix), end: prefix_end(prefix) }
    }

    /// Whether `key` lies in this span.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.ends_after(key)
    }

    /// Whether some key could lie in both spans.
    #[must_use]
    pub fn overlaps(&self, other: &Span) -> bool {
        !self.is_empty() && !other.is_empty() && self.ends_after(&other.start) && other.ends_after(&self.start)
    }

    /// Whether no key can lie in this span.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.ends_after(&self.start)
    }

    fn ends_after(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}..", escape_key(&self.start))?;
        match &self.end {
            Some(end) => write!(f, "{})", escape_key(end)),
            None => write!(f, ")"),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The smallest key after `key`: `key` followed by a zero byte.
#[must_use]
pub fn successor(key: &[u8]) -> Key {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// The first key after all that start with `prefix`; `None` when there is none (all bytes 0xff).
fn prefix_end(prefix: &[u8]) -> Option<Key> {
    let last = prefix.iter().rposition(|&b| b != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end.into())
}

/// A key for people: printable ASCII as it is, other bytes as `\xNN`, cut after 32 bytes.
#[must_use]
pub fn escape_key(key: &[u8]) -> String {
    const SHOWN: usize = 32;
    let shown = key.get(..SHOWN).unwrap_or(key);
    let mut text = shown.escape_ascii().to_string();
    if key.len() > SHOWN {
        text.push_str(&format!("…({} bytes)", key.len()));
    }
    text
}

/// A way to name a span in a call: `..`, `"a".."m"`, `"a"..="m"`, `"a"..`, or [`prefix`]`("acct/")`.
///
/// An inverted range names an empty span. (The standard `RangeBounds` is not used because
/// `scan(..)` would then not infer.)
pub trait KeyRange {
    /// The span that this names.
    fn into_span(self) -> Span;
}

impl KeyRange for Span {
    fn into_span(self) -> Span {
        self
    }
}

impl KeyRange for &Span {
    fn into_span(self) -> Span {
        self.clone()
    }
}

impl KeyRange for RangeFull {
    fn into_span(self) -> Span {
        Span::all()
    }
}

impl<K: AsRef<[u8]>> KeyRange for Range<K> {
    fn into_span(self) -> Span {
        Span::new(copy(&self.start), Some(copy(&self.end)))
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeInclusive<K> {
    fn into_span(self) -> Span {
        let (start, end) = self.into_inner();
        Span::new(copy(&start), Some(successor(end.as_ref())))
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeFrom<K> {
    fn into_span(self) -> Span {
        Span::new(copy(&self.start), None)
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeTo<K> {
    fn into_span(self) -> Span {
        Span::new(Bytes::new(), Some(copy(&self.end)))
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeToInclusive<K> {
    fn into_span(self) -> Span {
        Span::new(Bytes::new(), Some(successor(self.end.as_ref())))
    }
}

impl<K: AsRef<[u8]>> KeyRange for (Bound<K>, Bound<K>) {
    fn into_span(self) -> Span {
        let start = match self.0 {
            Bound::Included(key) => copy(&key),
            Bound::Excluded(key) => successor(key.as_ref()),
            Bound::Unbounded => Bytes::new(),
        };
        let end = match self.1 {
            Bound::Included(key) => Some(successor(key.as_ref())),
            Bound::Excluded(key) => Some(copy(&key)),
            Bound::Unbounded => None,
        };
        Span::new(start, end)
    }
}

fn copy(key: &impl AsRef<[u8]>) -> Key {
    Bytes::copy_from_slice(key.as_ref())
}

/// The keys that start with `p`, for calls that take a [`KeyRange`]: `scan(prefix("acct/"))`.
///
/// ```
/// use isolde_types::prefix;
/// assert!(prefix("acct/").contains(b"acct/7"));
/// assert!(!prefix("acct/").contains(b"acct0"));
/// ```
#[must_use]
pub fn prefix(p: impl AsRef<[u8]>) -> Span {
    Span::prefix(p.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_name_half_open_spans() {
        assert_eq!((..).into_span(), Span::all());
        assert!(("a".."c").into_span().contains(b"b"));
        assert!(!("a".."c").into_span().contains(b"c"));
        assert!(("a"..="c").into_span().contains(b"c"));
        assert!(!("a"..="c").into_span().contains(b"c\0"));
        assert!(("c".."a").into_span().is_empty());
        assert!((.."a").into_span().contains(b""));
    }

    #[test]
    fn prefixes_end_after_the_last_key_that_has_them() {
        assert!(prefix([0xff, 0xff]).contains(&[0xff, 0xff, 0xff]));
        assert_eq!(prefix([0xff]).end, None);
        assert_eq!(prefix([b'a', 0xff]).end.as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix("").into_span(), Span::all());
    }

    #[test]
    fn empty_spans_overlap_nothing() {
        let empty = ("m".."m").into_span();
        assert!(!empty.overlaps(&Span::all()) && !Span::all().overlaps(&empty));
        assert!(Span::point(b"m").overlaps(&("a".."m\0").into_span()));
        assert!(!Span::point(b"m").overlaps(&("a".."m").into_span()));
    }

    #[test]
    fn long_and_odd_keys_are_shown_escaped_and_cut() {
        assert_eq!(escape_key(b"a\x00\"b"), "a\\x00\\\"b");
        assert!(escape_key(&[b'k'; 40]).ends_with("…(40 bytes)"));
    }
}
