//! Memory that is wanted soon: its loads begin, and nobody waits for them.
//!
//! A load from memory that is far away is waited for at the latest by the next atomic operation, and a transaction
//! has one every two hundred instructions. What is asked for here is not.

use prefetch_index::prefetch_index;

/// Begins to load where this begins.
#[inline]
pub(crate) fn expect<T>(what: &T) {
    prefetch_index(std::slice::from_ref(what), 0);
}

/// Begins to load what lies right before this, as far as one more of its kind would reach.
#[inline]
pub(crate) fn expect_before<T>(what: &T) {
    prefetch_index(std::slice::from_ref(what), usize::MAX);
}
