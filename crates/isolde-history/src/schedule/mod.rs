//! Schedules: short scripts in which transactions take their steps in a given order, and the driver
//! that runs them against a database, on one thread, without ever sleeping.
//!
//! ```text
//! # G2-item: write skew. Two doctors go off call; each saw the other on call.
//! hunts: G2-item                 the anomaly that the schedule is made to show
//! init: x=1 y=1                  the state before the first step
//! T1: begin                      a step: a transaction, and one operation
//! T2: begin
//! T1: get x
//! T2: get y
//! T1: put y 0
//! T2: put x 0
//! T1: commit
//! T2: commit
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`notation`] | what a schedule is, and how it is printed |
//! | `parse` | text to [`Schedule`], with errors that name line, column, found and expected |
//! | [`database`] | the trait that a database implements, and what a session may answer |
//! | [`driver`] | steps issued to transactions that may block: who waits, who resumes, in which order |
//! | [`replay()`] | the rules of *this* notation on top of the driver: file order, unwritten `begin` and `commit` |
//!
//! The driver knows no order of its own, so that something else (an explorer of all interleavings)
//! can choose the next step.

pub mod database;
pub mod driver;
pub mod notation;
mod parse;
pub mod replay;

pub use database::{Begin, Database, Failure, FailureClass, Output, Swap};
pub use driver::{Driver, StepOutcome, StepReport, TxnOutcome, TxnReport};
pub use notation::{
    Action, BeginWords, Expectation, Hunt, Operation, Place, Schedule, ShownWithoutControl, Step, Value,
};
pub use parse::NotationError;
pub use replay::{Replay, ReplayError, Setting, replay};
