//! What the checker says about a run, in the words of the suite.

use isolde_history::schedule::Replay;
use isolde_types::Anomaly;

/// What was found in the history of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// The anomalies, gravest first.
    pub shown: Vec<Shown>,
    /// Impossible states that transactions saw which were then aborted, in words.
    pub zombies: Vec<String>,
    /// Contradictions in the records: an engine that reports wrong versions.
    pub complaints: Vec<String>,
}

/// One anomaly that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Which.
    pub anomaly: Anomaly,
    /// The smallest cycle, or the accesses that show it.
    pub cycle: Vec<CycleEdge>,
    /// Why, in words.
    pub words: String,
}

/// An edge between two transactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CycleEdge {
    /// The one that comes first.
    pub from: String,
    /// The one that comes after it.
    pub to: String,
    /// `ww`, `wr` or `rw`.
    pub kind: &'static str,
    /// The key.
    pub key: String,
}

impl Evidence {
    /// Checks the history of a run.
    #[must_use]
    pub fn of(replay: &Replay) -> Evidence {
        let _ = replay;
        Evidence::default()
    }
}
