//! What the suite runs schedules against.
//!
//! An [`Engine`] opens a fresh database for each schedule, holding its initial state and nothing
//! else; the [`Database`] that it returns is driven by polling. To add a database, implement both.

use isolde_history::explore::Begins;
use isolde_history::schedule::{Database, Schedule};
use isolde_types::{Anomaly, Isolation, Mode};

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

    /// Whether `begin` itself does something that others could come before or after, such as taking a
    /// snapshot; if not, explorations begin such transactions before everything.
    fn begins(&self, _: Isolation, _: Mode) -> Begins {
        Begins::Scheduled
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

    fn begins(&self, _: Isolation, _: Mode) -> Begins {
        Begins::First
    }

    fn open(&self, schedule: &Schedule) -> Box<dyn Database> {
        Box::new(Uncontrolled::new(schedule))
    }
}
