//! Keys of tables: encoded so that their bytes stand in the order of the keys.
//!
//! ```text
//! u8 .. u128        big-endian
//! i8 .. i128        the same, with the sign bit turned over
//! bool, Option      one byte 0 or 1, then what is there
//! String, Vec<u8>   its bytes, each 00 followed by ff; then 00 00
//! [u8; N], ()       as it is
//! tuples            one after the other
//! ```
//!
//! No encoding is the beginning of another of the same type, so that parts of a tuple do not run into each
//! other, and all keys that begin with the same parts stand together.

/// What can be encoded as a key.
///
/// The order of the encodings must be the order of the values, and no encoding may be the beginning of
/// another of the same type. A type and what it [borrows](std::borrow::Borrow) as must agree.
pub trait EncodeKey {
    /// Appends the encoding.
    fn encode_key(&self, out: &mut Vec<u8>);
}

/// What can be the key of a [`Table`](crate::Table).
///
/// Implemented for integers, `bool`, `String`, `Vec<u8>`, arrays of bytes, `Option`, and tuples of up to
/// four of them. For a type of your own, encode its parts:
///
/// ```
/// use isolde::{Db, EncodeKey, Table, TableKey};
///
/// #[derive(Clone, Copy, PartialEq, Debug)]
/// struct AccountId(u64);
///
/// impl EncodeKey for AccountId {
///     fn encode_key(&self, out: &mut Vec<u8>) {
///         self.0.encode_key(out);
///     }
/// }
///
/// impl TableKey for AccountId {
///     fn decode_key(input: &mut &[u8]) -> Option<AccountId> {
///         u64::decode_key(input).map(AccountId)
///     }
/// }
///
/// # fn main() -> isolde::Result<()> {
/// const NAMES: Table<AccountId, String> = Table::new("names");
/// let db = Db::builder().in_memory().open()?;
/// db.table(NAMES).put(&AccountId(7), "Ada".to_owned())?;
/// let first = db.begin()?.table(NAMES).first(..)?;
/// assert_eq!(first, Some((AccountId(7), "Ada".to_owned())));
/// # Ok(()) }
/// ```
pub trait TableKey: EncodeKey + Sized {
    /// Takes an encoded key from the beginning of `input`; `None` where there is none.
    fn decode_key(input: &mut &[u8]) -> Option<Self>;
}

/// The first parts of a key that is a tuple: see [`TxnTable::scan_prefix`](crate::TxnTable::scan_prefix).
pub trait KeyPrefix<K>: EncodeKey {}

impl<T: EncodeKey + ?Sized> EncodeKey for &T {
    fn encode_key(&self, out: &mut Vec<u8>) {
        (**self).encode_key(out);
    }
}

macro_rules! integers {
    ($($unsigned:ty, $signed:ty;)*) => {$(
        impl EncodeKey for $unsigned {
            fn encode_key(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
        }

        impl TableKey for $unsigned {
            fn decode_key(input: &mut &[u8]) -> Option<Self> {
                take_array(input).map(<$unsigned>::from_be_bytes)
            }
        }

        impl EncodeKey for $signed {
            fn encode_key(&self, out: &mut Vec<u8>) {
                (self.cast_unsigned() ^ <$signed>::MIN.cast_unsigned()).encode_key(out);
            }
        }

        impl TableKey for $signed {
            fn decode_key(input: &mut &[u8]) -> Option<Self> {
                let turned = <$unsigned>::decode_key(input)?;
                Some((turned ^ <$signed>::MIN.cast_unsigned()).cast_signed())
            }
        }
    )*};
}

integers! { u8, i8; u16, i16; u32, i32; u64, i64; u128, i128; }

impl EncodeKey for bool {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl TableKey for bool {
    fn decode_key(input: &mut &[u8]) -> Option<bool> {
        match u8::decode_key(input)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<T: EncodeKey> EncodeKey for Option<T> {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.is_some().encode_key(out);
        if let Some(inner) = self {
            inner.encode_key(out);
        }
    }
}

impl<T: TableKey> TableKey for Option<T> {
    fn decode_key(input: &mut &[u8]) -> Option<Option<T>> {
        if bool::decode_key(input)? { T::decode_key(input).map(Some) } else { Some(None) }
    }
}

impl EncodeKey for [u8] {
    fn encode_key(&self, out: &mut Vec<u8>) {
        for byte in self {
            out.push(*byte);
            if *byte == 0 {
                out.push(u8::MAX);
            }
        }
        out.extend_from_slice(&[0, 0]);
    }
}

impl EncodeKey for Vec<u8> {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.as_slice().encode_key(out);
    }
}

impl TableKey for Vec<u8> {
    fn decode_key(input: &mut &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            match (u8::decode_key(input)?, input.first()) {
                (0, Some(0)) => break,
                (0, Some(&u8::MAX)) => bytes.push(0),
                (0, _) => return None,
                (byte, _) => {
                    bytes.push(byte);
                    continue;
                }
            }
            *input = input.get(1..)?;
        }
        *input = input.get(1..)?;
        Some(bytes)
    }
}

impl EncodeKey for str {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.as_bytes().encode_key(out);
    }
}

impl EncodeKey for String {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.as_bytes().encode_key(out);
    }
}

impl TableKey for String {
    fn decode_key(input: &mut &[u8]) -> Option<String> {
        String::from_utf8(Vec::decode_key(input)?).ok()
    }
}

impl<const N: usize> EncodeKey for [u8; N] {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<const N: usize> TableKey for [u8; N] {
    fn decode_key(input: &mut &[u8]) -> Option<[u8; N]> {
        take_array(input)
    }
}

impl EncodeKey for () {
    fn encode_key(&self, _: &mut Vec<u8>) {}
}

impl TableKey for () {
    fn decode_key(_: &mut &[u8]) -> Option<()> {
        Some(())
    }
}

macro_rules! tuples {
    ($(($($part:ident $place:tt),+);)*) => {$(
        impl<$($part: EncodeKey),+> EncodeKey for ($($part,)+) {
            fn encode_key(&self, out: &mut Vec<u8>) {
                $(self.$place.encode_key(out);)+
            }
        }

        impl<$($part: TableKey),+> TableKey for ($($part,)+) {
            fn decode_key(input: &mut &[u8]) -> Option<Self> {
                Some(($($part::decode_key(input)?,)+))
            }
        }
    )*};
}

tuples! { (A 0, B 1); (A 0, B 1, C 2); (A 0, B 1, C 2, D 3); }

impl<A: EncodeKey, B> KeyPrefix<(A, B)> for A {}
impl<A: EncodeKey, B, C> KeyPrefix<(A, B, C)> for A {}
impl<A: EncodeKey, B: EncodeKey, C> KeyPrefix<(A, B, C)> for (A, B) {}
impl<A: EncodeKey, B, C, D> KeyPrefix<(A, B, C, D)> for A {}
impl<A: EncodeKey, B: EncodeKey, C, D> KeyPrefix<(A, B, C, D)> for (A, B) {}
impl<A: EncodeKey, B: EncodeKey, C: EncodeKey, D> KeyPrefix<(A, B, C, D)> for (A, B, C) {}

fn take_array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*taken)
}
