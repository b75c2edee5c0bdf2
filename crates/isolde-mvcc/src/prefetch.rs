//! Prefetching: loads from memory that begin now, and that nobody waits for.
//!
//! A plain load from memory that is far away is waited for at the latest by the next atomic operation, and a
//! transaction has one every two hundred instructions. A prefetch is not, and an address that is nobody's does no harm.

use prefetch_index::prefetch_index;

/// Prefetches the cache line where this begins.
#[inline]
pub(crate) fn prefetch<T>(what: &T) {
    prefetch_behind(what, 0);
}

/// Prefetches the cache line so many of its kind further on.
#[inline]
pub(crate) fn prefetch_behind<T>(what: &T, count: usize) {
    prefetch_index(std::slice::from_ref(what), count);
}

/// Prefetches the cache line so many of its kind before it; the address wraps around.
#[inline]
pub(crate) fn prefetch_before<T>(what: &T, count: usize) {
    prefetch_behind(what, 0_usize.wrapping_sub(count));
}
