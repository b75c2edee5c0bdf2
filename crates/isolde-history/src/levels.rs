//! What each level owes its transactions, where it is no cycle.

use isolde_types::{Anomaly, Isolation, Key, Ts};

use crate::check::Violation;
use crate::resolve::{Outcome, Resolved, Seen, Txn};

/// Reads of what a level forbids to see, and own writes that were not seen.
pub(crate) fn bad_reads(resolved: &Resolved<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (_, txn) in resolved.committed().filter(|(_, txn)| txn.isolation != Isolation::ReadUncommitted) {
        for read in &txn.reads {
            let (anomaly, writer, what) = match read.seen {
                Seen::Aborted(writer) => (Anomaly::AbortedRead, writer, "undid"),
                Seen::Intermediate(writer) => (Anomaly::IntermediateRead, writer, "overwrote itself"),
                Seen::Version(_) | Seen::Own => continue,
            };
            let writer = &resolved.txns[writer].name;
            let words = format!("{} read what {writer} wrote to {:?} and {what}", txn.name, resolved.keys[read.key]);
            violations.push(Violation { anomaly, words });
        }
    }
    for (reader, _, words) in &resolved.internal {
        let txn = &resolved.txns[*reader];
        if txn.outcome == Outcome::Committed {
            let words = format!("{} does not see its own writes: {words}", txn.name);
            violations.push(Violation { anomaly: Anomaly::Internal, words });
        }
    }
    violations
}

/// The two rules of snapshot isolation: all reads come from one prefix of the commit order, and no
/// concurrent committed transaction wrote a key that this one wrote (an increment by one that read
/// nothing excepted).
pub(crate) fn snapshots(resolved: &Resolved<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (_, txn) in resolved.committed().filter(|(_, txn)| txn.isolation == Isolation::Snapshot) {
        let bounds = Bounds::of(resolved, txn);
        if let Some((low, high)) = bounds.contradiction() {
            let words = format!(
                "{} read {:?} at {} or later, and {:?} from before {}: no one state has both",
                txn.name, low.1, low.0, high.1, high.0
            );
            violations.push(Violation { anomaly: Anomaly::ReadSkew, words });
        }
        violations.extend(overwritten(resolved, txn, &bounds));
    }
    violations
}

/// A time, and the key that shows it.
type Bound = (Ts, Key);

/// Between which times the snapshot of a transaction must lie, by what it read.
#[derive(Default)]
struct Bounds {
    /// At or after this, because of that key.
    low: Option<Bound>,
    /// Before this, because of that key.
    high: Option<Bound>,
}

impl Bounds {
    fn of(resolved: &Resolved<'_>, txn: &Txn<'_>) -> Bounds {
        let mut bounds = Bounds::default();
        for read in txn.reads.iter().filter(|read| read.tracked) {
            let Seen::Version(place) = read.seen else { continue };
            let versions = resolved.versions.of(read.key);
            if let Some(ts) = resolved.time(&versions[place])
                && bounds.low.as_ref().is_none_or(|(low, _)| ts > *low)
            {
                bounds.low = Some((ts, resolved.keys[read.key].clone()));
            }
            if let Some(ts) = versions.get(place + 1).and_then(|next| resolved.time(next))
                && bounds.high.as_ref().is_none_or(|(high, _)| ts < *high)
            {
                bounds.high = Some((ts, resolved.keys[read.key].clone()));
            }
        }
        bounds
    }

    fn contradiction(&self) -> Option<(&Bound, &Bound)> {
        let (low, high) = (self.low.as_ref()?, self.high.as_ref()?);
        (low.0 >= high.0).then_some((low, high))
    }
}

/// Keys that the transaction wrote over a version from after its snapshot.
fn overwritten<'r>(resolved: &'r Resolved<'_>, txn: &'r Txn<'_>, bounds: &Bounds) -> impl Iterator<Item = Violation> {
    let high = bounds.high.as_ref().map(|(high, _)| *high);
    txn.left.iter().filter_map(move |left| {
        let (versions, key) = (resolved.versions.of(left.key), resolved.keys[left.key]);
        let before = versions.get(left.place.checked_sub(1)?)?;
        let excepted = versions[left.place].blind && !txn.read_anything;
        let concurrent = resolved.time(before).zip(high).is_some_and(|(ts, high)| ts >= high);
        (concurrent && !excepted).then(|| Violation {
            anomaly: Anomaly::LostUpdate,
            words: format!(
                "{} wrote {key:?}, which {} had written since {}'s snapshot",
                txn.name,
                resolved.name(before.writer),
                txn.name
            ),
        })
    })
}
