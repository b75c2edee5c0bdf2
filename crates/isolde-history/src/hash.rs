//! Hash maps for the checker's tables, most of which are small or keyed by numbers.

/// A map with a hash function that is fast for short keys. Its seed differs from process to process, so nothing
/// may depend on the order of its entries.
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
