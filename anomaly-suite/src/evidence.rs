//! What the checker says about a run, in the words of the suite.

use std::collections::BTreeMap;

use bytes::Bytes;
use isolde_history::schedule::Replay;
use isolde_history::{Finding, Violation, check, oracle};
use isolde_types::{Anomaly, Key, escape_key};

use crate::versions::versions;

/// What was found in the history of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// The anomalies, gravest first.
    pub shown: Vec<Shown>,
    /// Impossible states that transactions saw which were then aborted, in words.
    pub zombies: Vec<String>,
    /// Contradictions in the records: an engine that reports wrong versions.
    pub complaints: Vec<String>,
    /// What breaks the promise of some transaction's own level.
    pub violations: Vec<Violation>,
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
    /// Checks the history of a run: for anomalies by the graph, and whether the values alone bear out
    /// what the graph says.
    #[must_use]
    pub fn of(replay: &Replay) -> Evidence {
        let report = check(&replay.history);
        let mut complaints = report.complaints.clone();
        complaints.extend(replay.complaints.iter().cloned());
        if report.is_serializable() {
            complaints.extend(contradiction(replay));
        }
        let shown = report.findings.into_iter().map(Shown::from).collect();
        Evidence { shown, zombies: report.zombies, complaints, violations: report.violations }
    }
}

/// The graph found nothing: then some serial order must explain every value, and the newest versions
/// must be what is in the database. (One that writes in place and undoes in place is excused from the
/// second: its rollbacks are what its schedules show.)
fn contradiction(replay: &Replay) -> Option<String> {
    if oracle::serializable(&replay.history, None) == oracle::Verdict::NotSerial {
        return Some("the versions reported make a serial history, and no serial order explains the values".to_owned());
    }
    if !replay.history.order.is_empty() {
        return None;
    }
    let newest = versions(&replay.history)
        .into_iter()
        .filter_map(|(key, versions)| Some((key, versions.last()?.value.clone()?)));
    let newest: BTreeMap<Key, Bytes> = newest.collect();
    (newest != replay.final_state)
        .then(|| format!("the newest versions are {newest:?}, and the database holds {:?}", replay.final_state))
}

impl From<Finding> for Shown {
    fn from(finding: Finding) -> Self {
        let edge = |edge: isolde_history::Edge| CycleEdge {
            from: edge.from,
            to: edge.to,
            kind: edge.kind.name(),
            key: escape_key(&edge.key),
        };
        let cycle = finding.cycle.into_iter().map(edge).collect();
        Shown { anomaly: finding.anomaly, cycle, words: finding.words }
    }
}
