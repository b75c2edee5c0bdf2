//! Databases that threads use at once, for random concurrent histories.

use isolde_history::History;

use crate::engine::{Level, Unreachable};
use crate::fuzz::Shape;

/// A database that threads can use at once.
pub trait Concurrent {
    /// Runs the random transactions of a seed in this many threads, on data of their own.
    ///
    /// # Errors
    /// When the database cannot be reached.
    fn case(&self, level: Level, threads: usize, shape: Shape, seed: u64) -> Result<Observed, Unreachable>;
}

/// What a case was seen to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// The history, with versions.
    pub history: History,
    /// What no database may do at any level, in words.
    pub complaints: Vec<String>,
}

/// How many transactions each thread runs in one case: few, so that a history stays readable.
pub const TRANSACTIONS: usize = 40;
