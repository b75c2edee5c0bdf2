//! The words that every Isolde crate shares.
//!
//! Logical time ([`Ts`]), identities ([`TxnId`]), keys and half-open key ranges ([`Span`]),
//! isolation levels and modes ([`Isolation`], [`Mode`]), the anomalies that they forbid
//! ([`Anomaly`]), lock modes ([`LockMode`]), and two seams through which everything that waits or
//! measures time must go: [`sync`] and [`Clock`].
//!
//! This crate knows nothing of how a level is implemented: which reads lock and what is certified
//! at commit is the policy of the crate `isolde`.

mod anomaly;
mod clock;
mod durable;
mod ids;
mod key;
mod level;
mod lock;
pub mod mutant;
mod row_key;
pub mod sync;

pub use anomaly::Anomaly;
pub use clock::{Clock, ManualClock, SystemClock};
pub use durable::{Durable, LogBody, Places};
pub use ids::{Ts, TxnId};
pub use key::{Key, KeyRange, Span, escape_key, prefix, successor};
pub use level::{Guarantees, Isolation, Mode, ParseLevelError};
pub use lock::{LockMode, RecordCell};
pub use row_key::RowKey;
