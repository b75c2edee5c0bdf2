//! An ordered map for write sets: few keys in a sorted vector, many in a tree.
//!
//! Most transactions write one to a dozen keys. For them a tree costs more to build, walk and drop
//! than all that is done with it; for ten thousand keys a vector would be quadratic.

use std::collections::BTreeMap;
use std::ops::Bound;

use isolde_types::{Key, Span};

/// From how many keys on the map is a tree.
const MANY: usize = 32;

/// Values by key, in key order; see the module.
pub(crate) struct KeyMap<V> {
    /// Sorted; empty once there are many.
    few: Vec<(Key, V)>,
    many: BTreeMap<Key, V>,
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        KeyMap { few: Vec::new(), many: BTreeMap::new() }
    }
}

impl<V> KeyMap<V> {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }

    /// Where a key stands among the few, or would.
    fn place(&self, key: &[u8]) -> Result<usize, usize> {
        self.few.binary_search_by(|(other, _)| other[..].cmp(key))
    }

    pub fn get(&self, key: &[u8]) -> Option<&V> {
        if !self.many.is_empty() {
            return self.many.get(key);
        }
        let place = self.place(key).ok()?;
        self.few.get(place).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        if !self.many.is_empty() {
            return self.many.get_mut(key);
        }
        let place = self.place(key).ok()?;
        self.few.get_mut(place).map(|(_, value)| value)
    }

    /// Sets a key's value; gives the one before.
    pub fn insert(&mut self, key: Key, value: V) -> Option<V> {
        if !self.many.is_empty() {
            return self.many.insert(key, value);
        }
        match self.place(&key) {
            Ok(place) => self.few.get_mut(place).map(|(_, before)| std::mem::replace(before, value)),
            Err(place) if self.few.len() < MANY => {
                self.few.insert(place, (key, value));
                None
            }
            Err(_) => {
                self.many.extend(std::mem::take(&mut self.few));
                self.many.insert(key, value)
            }
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        if !self.many.is_empty() {
            return self.many.remove(key);
        }
        let place = self.place(key).ok()?;
        Some(self.few.remove(place).1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.few.iter().map(|(key, value)| (key, value)).chain(&self.many)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut V)> {
        self.few.iter_mut().map(|(key, value)| (&*key, value)).chain(&mut self.many)
    }

    /// The keys of a span that is not empty, in order.
    pub fn range<'m>(&'m self, span: &'m Span) -> impl Iterator<Item = (&'m Key, &'m V)> {
        let few = self.few.iter().filter(|(key, _)| span.contains(key)).map(|(key, value)| (key, value));
        let end = span.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        few.chain(self.many.range::<[u8], _>((Bound::Included(&span.start[..]), end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same calls on a tree alone give the same answers, below, at and above the change.
    #[test]
    fn few_and_many_keys_behave_alike() {
        let mut rng = fastrand::Rng::with_seed(7);
        for keys in [3, 31, 32, 33, 200_u8] {
            let (mut map, mut tree) = (KeyMap::default(), BTreeMap::new());
            for value in 0..2_000 {
                let key = Key::copy_from_slice(&[rng.u8(..keys)]);
                match rng.u8(..4) {
                    0 => assert_eq!(map.remove(&key), tree.remove(&key)),
                    1 => assert_eq!(map.get_mut(&key), tree.get_mut(&key)),
                    _ => assert_eq!(map.insert(key.clone(), value), tree.insert(key.clone(), value)),
                }
                assert_eq!((map.get(&key), map.len(), map.is_empty()), (tree.get(&key), tree.len(), tree.is_empty()));
            }
            assert!(map.iter().eq(&tree) && map.iter_mut().eq(&mut tree.clone()));
            let span = Span::new(Key::from_static(&[2]), Some(Key::from_static(&[20])));
            assert!(map.range(&span).eq(tree.iter().filter(|(key, _)| span.contains(key))));
        }
    }
}
