//! The anomaly suite: runs the classic anomalies of concurrent transactions against a database at
//! every isolation level and mode, judges what was recorded, and explains each verdict.
//!
//! ```text
//!  anomalies/*.schedule ──► catalogue ──► schedule driver ──► Database (Isolde, one without control, adapters)
//!                                              │                      │ history
//!                                              ▼                      ▼
//!            expectations/*.toml ──► Report ◄── verdict ◄── checker + black-box oracle
//!                                      │
//!                                      ├─► table, show, explain, HTML page (people)
//!                                      └─► JSON, JUnit, Markdown (programs, documents)
//! ```
//!
//! - A verdict comes from a history that really ran, judged by the checker of `isolde-history`; it is
//!   never looked up. What each cell is *declared* to be is data, compared with what came out.
//! - Everything runs on one thread, by polling; blocked is known, never guessed. Two runs are equal
//!   byte for byte.
//! - To add an anomaly, add a file ([`catalogue`]); to add a database, implement
//!   [`Engine`] and [`Database`](isolde_history::schedule::Database); [`adapters`] has the second for
//!   databases that report values only.
//!
//! From code, for a database of your own:
//!
//! ```
//! use anomaly_suite::{Control, Suite};
//! use isolde_types::Isolation;
//!
//! let report = Suite::new(&Control).levels(&[Isolation::Snapshot]).anomaly("G0")?.run();
//! println!("{}", anomaly_suite::report::table::table(&report, None, Default::default()));
//! # Ok::<(), anomaly_suite::UnknownName>(())
//! ```

pub mod adapters;
pub mod advise;
pub mod catalogue;
pub mod check;
pub mod cli;
pub mod control;
pub mod engine;
pub mod evidence;
pub mod expectations;
pub mod explore;
pub mod fuzz;
pub mod hazards;
mod isolde;
pub mod mixed;
mod names;
mod numbers;
mod perform;
pub mod prove;
pub mod report;
mod suggest;
mod suite;
pub mod verdict;
pub mod versions;

pub use crate::isolde::{Durable, Isolde};
pub use engine::{Control, Engine, Level, Unreachable};
pub use expectations::{Declared, Expectations};
pub use suite::{Cell, Report, Suite, UnknownName, find};
pub use verdict::{Mechanism, Outcome, Trial, trial};
