//! Bytes of somebody else's: their owner does something when the last reference goes.

use isolde::Bytes;

/// How many bytes an owner has: more than the engine copies.
pub const LONG: usize = 600;

struct Owner(Option<Box<dyn FnOnce() + Send>>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &[9; LONG]
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(drop) = self.0.take() {
            drop();
        }
    }
}

/// Bytes whose owner does this when the last reference goes.
#[must_use]
pub fn owned(drop: impl FnOnce() + Send + 'static) -> Bytes {
    Bytes::from_owner(Owner(Some(Box::new(drop))))
}
