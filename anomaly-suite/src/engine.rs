//! What the suite runs schedules against.
//!
//! An [`Engine`] says which levels it offers and opens a fresh database for each schedule, holding its
//! initial state and nothing else; the [`Database`] that it returns is driven by polling. To add a
//! database that reports values and not versions, see [`adapters`](crate::adapters).

use std::collections::BTreeMap;
use std::task::{Context, Poll};

use bytes::Bytes;
use isolde_history::History;
use isolde_history::explore::Begins;
use isolde_history::schedule::{
    Begin, Database, Failure, FailureClass, Operation, Output, ReplayError, Schedule, Setting,
};
use isolde_types::{Anomaly, Isolation, Key, Mode};

use crate::control::Uncontrolled;

/// A kind of database.
pub trait Engine: Sync {
    /// What reports call it.
    fn name(&self) -> &'static str;

    /// Its version, in its own words.
    fn version(&self) -> String;

    /// Whether it can be reached; asked once, before anything is run.
    ///
    /// # Errors
    /// When it cannot.
    fn reach(&self) -> Result<(), Unreachable> {
        Ok(())
    }

    /// The levels that it offers, in the order of the matrix. One that it does not have is absent.
    fn levels(&self) -> Vec<Level> {
        let of_mode = |mode| Isolation::ALL.map(|isolation| Level::of(Setting { isolation, mode }));
        Mode::ALL.into_iter().flat_map(of_mode).collect()
    }

    /// Whether it has no such operation: a schedule that needs it is not run.
    fn lacks(&self, _: &Operation) -> bool {
        false
    }

    /// What its level of this name forbids, by its own promise.
    fn forbids(&self, isolation: Isolation) -> &'static [Anomaly] {
        let level = self.levels().into_iter().find(|level| level.setting.isolation == isolation);
        level.map_or(&[], |level| level.promises.forbids())
    }

    /// Whether `begin` itself does something that others could come before or after, such as taking a
    /// snapshot; if not, explorations begin such transactions before everything.
    fn begins(&self, _: Isolation, _: Mode) -> Begins {
        Begins::Scheduled
    }

    /// A fresh database that holds the initial state of a schedule.
    ///
    /// # Errors
    /// When it cannot be reached.
    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable>;
}

/// A level that a database offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    /// Its column: the level as the database itself calls it, in words of ours.
    pub setting: Setting,
    /// Its name in the database's own words.
    pub name: &'static str,
    /// The definition that it is judged by. The same name means different things in different databases:
    /// PostgreSQL's REPEATABLE READ promises snapshot isolation.
    pub promises: Isolation,
    /// What tells the mode from the other one; nothing where there is no choice.
    pub mode: &'static str,
}

impl Level {
    /// A level of Isolde: called and judged as it is.
    #[must_use]
    pub const fn of(setting: Setting) -> Level {
        let Setting { isolation, mode } = setting;
        Level { setting, name: isolation.name(), promises: isolation, mode: mode.name() }
    }
}

/// A database that cannot be reached, in its words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

impl From<Unreachable> for ReplayError {
    fn from(Unreachable(why): Unreachable) -> Self {
        ReplayError::Unreachable { why }
    }
}

/// The engine without control: see [`control`](crate::control).
#[derive(Clone, Copy, Debug, Default)]
pub struct Control;

impl Engine for Control {
    fn name(&self) -> &'static str {
        "control"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn forbids(&self, _: Isolation) -> &'static [Anomaly] {
        &[]
    }

    fn begins(&self, _: Isolation, _: Mode) -> Begins {
        Begins::First
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        Ok(Box::new(Uncontrolled::new(schedule)))
    }
}

/// What stands for a database that cannot be reached: it refuses every transaction.
impl Database for Unreachable {
    fn begin(&mut self, _: usize, _: &Begin<'_>) -> Result<(), Failure> {
        Err(self.failure())
    }

    fn start(&mut self, _: usize, _: &Operation<Bytes>) {}

    fn poll(&mut self, _: usize, _: &mut Context<'_>) -> Poll<Result<Output, Failure>> {
        Poll::Ready(Err(self.failure()))
    }

    fn history(&mut self) -> History {
        History::default()
    }

    fn final_state(&mut self) -> BTreeMap<Key, Bytes> {
        BTreeMap::new()
    }

    fn doubts(&mut self) -> Vec<String> {
        vec![self.to_string()]
    }
}

impl Unreachable {
    fn failure(&self) -> Failure {
        Failure { class: FailureClass::Refused, message: self.0.clone(), ended: true }
    }
}
