//! What the suite runs schedules against.
//!
//! An [`Engine`] opens a fresh database for each schedule, holding its initial state and nothing
//! else; the [`Database`] that it returns is driven by polling. To add a database, implement both.

use isolde_history::schedule::{Database, Schedule};
use isolde_types::{Anomaly, Isolation};

use crate::control::Uncontrolled;

/// A kind of database.
pub trait Engine: Sync {
    /// What reports call it.
    fn name(&self) -> &'static str;

    /// Its version.
    fn version(&self) -> &'static str;

    /// What its level of this name forbids.
    fn forbids(&self, isolation: Isolation) -> &'static [Anomaly] {
        isolation.forbids()
    }

    /// A fresh database that holds the initial state of a schedule.
    fn open(&self, schedule: &Schedule) -> Box<dyn Database>;
}

/// The engine without control: see [`control`](crate::control).
#[derive(Clone, Copy, Debug, Default)]
pub struct Control;

impl Engine for Control {
    fn name(&self) -> &'static str {
        "control"
    }

    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    fn forbids(&self, _: Isolation) -> &'static [Anomaly] {
        &[]
    }

    fn open(&self, schedule: &Schedule) -> Box<dyn Database> {
        Box::new(Uncontrolled::new(schedule))
    }
}
