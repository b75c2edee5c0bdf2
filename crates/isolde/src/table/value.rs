//! Values of tables.

use std::error::Error as StdError;

use bytes::Bytes;

/// How the values of a [`Table`](crate::Table) are written as bytes.
///
/// Implemented for `String`, `Vec<u8>`, `Bytes`, `bool`, `()`, and integers, which are big-endian, so that an
/// `i64` is a counter; and, with the feature `json`, by `Json` for whatever serde knows. A codec
/// of your own is a type, not a value:
///
/// ```
/// use isolde::{CodecError, Table, ValueCodec};
///
/// struct Celsius;
///
/// impl ValueCodec for Celsius {
///     type Value = f64;
///     fn encode(value: &f64, out: &mut Vec<u8>) -> Result<(), CodecError> {
///         out.extend_from_slice(&value.to_be_bytes());
///         Ok(())
///     }
///     fn decode(bytes: &[u8]) -> Result<f64, CodecError> {
///         Ok(f64::from_be_bytes(bytes.try_into()?))
///     }
/// }
///
/// const TEMPERATURES: Table<(u32, u64), Celsius> = Table::new("temperatures");
/// # assert_eq!(TEMPERATURES.name(), "temperatures");
/// ```
pub trait ValueCodec {
    /// What is encoded.
    type Value;

    /// Appends the encoding.
    ///
    /// # Errors
    /// Why the value has none.
    fn encode(value: &Self::Value, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads it back.
    ///
    /// # Errors
    /// Why the bytes are no value.
    fn decode(bytes: &[u8]) -> Result<Self::Value, CodecError>;
}

/// Why a value could not be encoded or decoded: any error of the codec's.
pub type CodecError = Box<dyn StdError + Send + Sync>;

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl ValueCodec for $integer {
            type Value = $integer;

            fn encode(value: &$integer, out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.extend_from_slice(&value.to_be_bytes());
                Ok(())
            }

            fn decode(bytes: &[u8]) -> Result<$integer, CodecError> {
                Ok(<$integer>::from_be_bytes(bytes.try_into()?))
            }
        }
    )*};
}

integers! { u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 }

impl ValueCodec for bool {
    type Value = bool;

    fn encode(value: &bool, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(u8::from(*value));
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<bool, CodecError> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("a bool is one byte, 0 or 1".into()),
        }
    }
}

impl ValueCodec for () {
    type Value = ();

    fn encode((): &(), _: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<(), CodecError> {
        if bytes.is_empty() { Ok(()) } else { Err("a value that should be empty is not".into()) }
    }
}

impl ValueCodec for String {
    type Value = String;

    fn encode(value: &String, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<String, CodecError> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}

macro_rules! raw {
    ($($bytes:ty)*) => {$(
        impl ValueCodec for $bytes {
            type Value = $bytes;

            fn encode(value: &$bytes, out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.extend_from_slice(value);
                Ok(())
            }

            fn decode(bytes: &[u8]) -> Result<$bytes, CodecError> {
                Ok(bytes.to_vec().into())
            }
        }
    )*};
}

raw! { Vec<u8> Bytes }

/// Values as JSON, for whatever serde knows. Needs the feature `json`.
///
/// ```
/// use isolde::{Db, Json, Table};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct Account {
///     owner: String,
///     cents: i64,
/// }
///
/// # fn main() -> isolde::Result<()> {
/// const ACCOUNTS: Table<u64, Json<Account>> = Table::new("accounts");
/// let db = Db::builder().in_memory().open()?;
/// db.transact(|t| t.table(ACCOUNTS).put(&7, &Account { owner: "Ada".to_owned(), cents: 500 }))?;
/// let account = db.table(ACCOUNTS).get(&7)?;
/// assert_eq!(account.map(|account| account.cents), Some(500));
/// # Ok(()) }
/// ```
#[cfg(feature = "json")]
pub struct Json<T>(std::marker::PhantomData<fn() -> T>);

#[cfg(feature = "json")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> ValueCodec for Json<T> {
    type Value = T;

    fn encode(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(out, value)?)
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}
