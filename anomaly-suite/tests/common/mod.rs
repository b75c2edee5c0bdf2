//! A database that the suite must find out.

use anomaly_suite::{Control, Engine, Unreachable};
use isolde_history::schedule::{Database, Schedule};

/// Promises the levels that Isolde promises, and keeps none.
pub struct Boasting;

impl Engine for Boasting {
    fn name(&self) -> &'static str {
        "boasting"
    }

    fn version(&self) -> String {
        "0".to_owned()
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        Control.open(schedule)
    }
}
