//! A database that the suite must find out.

use anomaly_suite::{Control, Engine};
use isolde_history::schedule::{Database, Schedule};

/// Promises the levels that Isolde promises, and keeps none.
pub struct Boasting;

impl Engine for Boasting {
    fn name(&self) -> &'static str {
        "boasting"
    }

    fn version(&self) -> &'static str {
        "0"
    }

    fn open(&self, schedule: &Schedule) -> Box<dyn Database> {
        Control.open(schedule)
    }
}
