//! What was worked out before, found again by all that it was made of, written down as bytes.

use std::hash::Hasher;
use std::rc::Rc;

use crate::hash::HashMap;

/// How many are kept, so that a long exploration takes no more memory than a short one.
pub(super) const KEPT: usize = 4096;

/// What is hashed, written down instead of mixed: `Hash` of all that is in a thing writes lengths and variants
/// too, so that different things write different bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Written(pub Vec<u8>);

/// From here on a number is written as this byte and all of its own; a smaller one is one byte.
const LONG: u8 = u8::MAX;

impl Written {
    /// A number, most of which are small: so that a thing is written, hashed and compared in fewer bytes.
    #[inline]
    fn number(&mut self, number: u64) {
        match u8::try_from(number) {
            Ok(small) if small < LONG => self.0.push(small),
            _ => self.long(number),
        }
    }

    #[cold]
    fn long(&mut self, number: u64) {
        self.0.push(LONG);
        self.0.extend_from_slice(&number.to_ne_bytes());
    }
}

impl Hasher for Written {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.0.push(byte);
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.number(number);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.number(number as u64);
    }

    // What derives write of variants: small and not negative.
    #[inline]
    fn write_isize(&mut self, number: isize) {
        self.number(number as u64);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Known<T> {
    kept: HashMap<Box<[u8]>, Rc<T>>,
    written: Written,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Known { kept: self.kept.clone(), written: self.written.clone() }
    }
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Known { kept: HashMap::default(), written: Written::default() }
    }
}

/// What is known follows from what was asked, and tells no two surveys apart.
impl<T> PartialEq for Known<T> {
    fn eq(&self, _: &Known<T>) -> bool {
        true
    }
}

impl<T> Eq for Known<T> {}

impl<T> Known<T> {
    /// What is known of that which `write` writes down; else what `make` makes of it, and that is kept if it is
    /// `worth_keeping`.
    pub fn of(
        &mut self,
        write: impl FnOnce(&mut Written),
        make: impl FnOnce() -> T,
        worth_keeping: impl FnOnce(&T) -> bool,
    ) -> Rc<T> {
        self.written.0.clear();
        write(&mut self.written);
        if let Some(known) = self.kept.get(self.written.0.as_slice()) {
            return Rc::clone(known);
        }
        let made = Rc::new(make());
        if worth_keeping(&made) {
            if self.kept.len() == KEPT {
                self.kept.clear();
            }
            self.kept.insert(self.written.0.as_slice().into(), Rc::clone(&made));
        }
        made
    }

    /// How many are kept now.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.kept.len()
    }
}
