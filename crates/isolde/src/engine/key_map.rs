//! An ordered map for write sets: few keys in a sorted vector, many in a tree.
//!
//! Most transactions write one to a dozen keys. For them a tree costs more to build, walk and drop
//! than all that is done with it; for ten thousand keys a vector would be quadratic.

use std::collections::BTreeMap;
use std::ops::Bound;

use isolde_types::Span;
use smallvec::SmallVec;

/// A key in a write set: a short one needs no allocation.
pub(crate) type SetKey = SmallVec<[u8; 24]>;

/// From how many keys on the map is a tree.
const MANY: usize = 32;

/// Values by key, in key order; see the module.
pub(crate) enum KeyMap<V> {
    /// Sorted; the most usual write set, of one key, needs no allocation.
    Few(SmallVec<[(SetKey, V); 1]>),
    Many(BTreeMap<SetKey, V>),
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        KeyMap::Few(SmallVec::new())
    }
}

/// Where a key stands among the few, or would.
fn place<V>(few: &[(SetKey, V)], key: &[u8]) -> Result<usize, usize> {
    few.binary_search_by(|(other, _)| other[..].cmp(key))
}

impl<V> KeyMap<V> {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        match self {
            KeyMap::Few(few) => few.len(),
            KeyMap::Many(many) => many.len(),
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&V> {
        match self {
            KeyMap::Few(few) => few.get(place(few, key).ok()?).map(|(_, value)| value),
            KeyMap::Many(many) => many.get(key),
        }
    }

    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        match self {
            KeyMap::Few(few) => {
                let place = place(few, key).ok()?;
                few.get_mut(place).map(|(_, value)| value)
            }
            KeyMap::Many(many) => many.get_mut(key),
        }
    }

    /// Sets a key's value; gives the one before.
    pub fn insert(&mut self, key: SetKey, value: V) -> Option<V> {
        let few = match self {
            KeyMap::Few(few) => few,
            KeyMap::Many(many) => return many.insert(key, value),
        };
        match place(few, &key) {
            Ok(place) => few.get_mut(place).map(|(_, before)| std::mem::replace(before, value)),
            Err(place) if few.len() < MANY => {
                few.insert(place, (key, value));
                None
            }
            Err(_) => {
                let mut many: BTreeMap<SetKey, V> = std::mem::take(few).into_iter().collect();
                let before = many.insert(key, value);
                *self = KeyMap::Many(many);
                before
            }
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        match self {
            KeyMap::Few(few) => {
                let place = place(few, key).ok()?;
                Some(few.remove(place).1)
            }
            KeyMap::Many(many) => many.remove(key),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SetKey, &V)> {
        let (few, many) = match self {
            KeyMap::Few(few) => (&few[..], None),
            KeyMap::Many(many) => (&[][..], Some(many)),
        };
        few.iter().map(|(key, value)| (key, value)).chain(many.into_iter().flatten())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&SetKey, &mut V)> {
        let (few, many) = match self {
            KeyMap::Few(few) => (&mut few[..], None),
            KeyMap::Many(many) => (&mut [][..], Some(many)),
        };
        few.iter_mut().map(|(key, value)| (&*key, value)).chain(many.into_iter().flatten())
    }

    /// The keys of a span that is not empty, in order.
    pub fn range<'m>(&'m self, span: &'m Span) -> impl Iterator<Item = (&'m SetKey, &'m V)> {
        let end = span.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (few, many) = match self {
            KeyMap::Few(few) => (&few[..], None),
            KeyMap::Many(many) => (&[][..], Some(many.range::<[u8], _>((Bound::Included(&span.start[..]), end)))),
        };
        let few = few.iter().filter(|(key, _)| span.contains(key)).map(|(key, value)| (key, value));
        few.chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use isolde_types::Key;

    use super::*;

    /// The same calls on a tree alone give the same answers, below, at and above the change.
    #[test]
    fn few_and_many_keys_behave_alike() {
        let mut rng = fastrand::Rng::with_seed(7);
        for keys in [3, 31, 32, 33, 200_u8] {
            let (mut map, mut tree) = (KeyMap::default(), BTreeMap::new());
            for value in 0..2_000 {
                let key = SetKey::from_slice(&[rng.u8(..keys)]);
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
