//! Who sees an anomaly, where each transaction has a level of its own.
//!
//! An edge *obliges* a transaction: wr the reader, rw the reader, real time the later one, ww both. The
//! edge *counts* if that transaction's own level forbids it to be part of a cycle (`obliges`). Then a
//! transaction sees an anomaly if a cycle of that class passes an edge that obliges it, and
//!
//! - the edge does not count: its level lets it read so, and it did; or
//! - all edges of the cycle count: nobody's level let it, and a promise is broken.
//!
//! Worked example, a write skew of T1 at serializable and T2 at read committed:
//!
//! ```text
//!   T1 get x, get y, put x, commit           T1 ──rw y──► T2   obliges T1, and counts
//!   T2 get x, get y  ..  put y, commit       T2 ──rw x──► T1   obliges T2, and does not count
//! ```
//!
//! T2 sees it, and T1 does not: T1 then T2 is an order that explains all that T1 read. Were both edges to
//! count, both would see it, and the checker would call it a violation.
//!
//! What is no cycle is seen by whoever read it: G1a, G1b, OTV, own writes that were not read. A lost
//! update is seen by the one that overwrote what it had not seen. Committed transactions only.
//!
//! For small histories, such as an explorer makes: every cycle is looked at.

use std::collections::BTreeMap;

use isolde_types::Anomaly;

use crate::check::{Finding, finding, vanishing};
use crate::cycles;
use crate::explain;
use crate::graph::{EdgeKind, Graph, RawEdge, is_obliged, obliges, precedes};
use crate::model::History;
use crate::resolve::{Outcome, Resolved, Seen};

/// By the name of the transaction, and what it sees.
pub(crate) type WhoSees = BTreeMap<(String, Anomaly), Finding>;

/// Who sees which anomaly; see the module.
pub(crate) fn who_sees(history: &History) -> WhoSees {
    let resolved = Resolved::of(history);
    let graph = Graph::of(&resolved);
    let mut seeing = Seeing { resolved: &resolved, graph: &graph, seen: WhoSees::new() };
    seeing.bad_reads();
    seeing.lost_updates();
    seeing.cycles();
    seeing.seen
}

struct Seeing<'r> {
    resolved: &'r Resolved<'r>,
    graph: &'r Graph,
    seen: WhoSees,
}

impl Seeing<'_> {
    fn add(&mut self, txn: usize, finding: Finding) {
        let name = self.resolved.txns[txn].name.to_owned();
        self.seen.entry((name, finding.anomaly)).or_insert(finding);
    }

    fn bad_reads(&mut self) {
        let resolved = self.resolved;
        for (reader, txn) in resolved.committed() {
            for read in &txn.reads {
                let (anomaly, writer) = match read.seen {
                    Seen::Aborted(writer) => (Anomaly::AbortedRead, writer),
                    Seen::Intermediate(writer) => (Anomaly::IntermediateRead, writer),
                    Seen::Version(_) | Seen::Own => continue,
                };
                self.add(reader, explain::bad_read(resolved, anomaly, reader, writer, read));
            }
            if let Some(finding) = vanishing(resolved, reader, txn) {
                self.add(reader, finding);
            }
        }
        for (reader, key, words) in &resolved.internal {
            if resolved.txns[*reader].outcome == Outcome::Committed {
                self.add(*reader, explain::internal(resolved, *reader, resolved.keys[*key], words));
            }
        }
    }

    /// Of those that read one version of a key and wrote the key, each but the first to write it.
    fn lost_updates(&mut self) {
        let resolved = self.resolved;
        let mut writers: BTreeMap<(usize, usize), Vec<(usize, usize)>> = BTreeMap::new();
        for (reader, txn) in resolved.committed() {
            for read in txn.reads.iter().filter(|read| read.item && read.tracked) {
                if let Seen::Version(place) = read.seen
                    && let Some(left) = resolved.left_by(read.key, reader)
                {
                    writers.entry((read.key, place)).or_default().push((left.place, reader));
                }
            }
        }
        for ((key, place), mut writers) in writers {
            writers.sort_unstable();
            writers.dedup();
            let first = writers[0].1;
            for (_, later) in &writers[1..] {
                self.add(*later, explain::lost_update(resolved, key, place, first, *later));
            }
        }
    }

    fn cycles(&mut self) {
        for group in self.graph.components(self.resolved, |_| true, Some(&|_| true)) {
            for edge in self.edges(&group) {
                let owed = obliges(self.resolved, &edge);
                let counts = |other: &RawEdge| !owed || obliges(self.resolved, other);
                let found = cycles::through(self.graph, self.resolved, &group, &edge, &counts);
                for txn in [edge.from, edge.to].into_iter().filter(|txn| is_obliged(&edge, *txn)) {
                    for found in &found {
                        self.add(txn, finding(self.resolved, self.graph, found));
                    }
                }
            }
        }
    }

    /// The edges within a group, those of real time among them.
    fn edges(&self, group: &[usize]) -> Vec<RawEdge> {
        let pairs = group.iter().flat_map(|from| group.iter().map(move |to| (*from, *to)));
        let between = |(from, to): (usize, usize)| {
            let realtime = RawEdge { from, to, kind: EdgeKind::Realtime, key: 0, places: (0, 0) };
            let realtime = precedes(self.resolved, from, to).then_some(realtime);
            self.graph.between(from, to).iter().cloned().chain(realtime)
        };
        pairs.filter(|(from, to)| from != to).flat_map(between).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, ReadKind, TxnKey, Version};
    use bytes::Bytes;
    use isolde_types::{Isolation, Key, Mode, Ts};

    /// Two transactions, at levels: `r1x0` T1 read the version of x from time 0; `w1x` T1 wrote x;
    /// `c1@5` T1 committed at 5; `a1` it was aborted.
    fn history(levels: [Isolation; 2], steps: &str) -> History {
        let mut history = History { start: Ts(1), ..History::default() };
        for name in ["x", "y"] {
            history.initial.push((Key::from_static(name.as_bytes()), Bytes::from_static(b"0")));
        }
        for (number, isolation) in (1..).zip(levels) {
            let (txn, name) = (TxnKey(number), format!("T{number}"));
            history.events.push(Event::Begin { txn, name, isolation, mode: Mode::Optimistic, read_only: false });
        }
        let mut seq = [0; 3];
        for step in steps.split_whitespace() {
            let who: usize = step[1..2].parse().unwrap();
            let txn = TxnKey(who as u64);
            let key = |from: usize| Key::copy_from_slice(&step.as_bytes()[from..=from]);
            history.events.push(match &step[..1] {
                "r" => Event::Read {
                    txn,
                    key: key(2),
                    version: match step[3..].strip_prefix("dirty") {
                        Some(writer) => Version::InFlight { txn: TxnKey(writer.parse().unwrap()), seq: 1 },
                        None => Version::Committed(Ts(step[3..].parse().unwrap())),
                    },
                    value: None,
                    kind: ReadKind::Tracked,
                    as_of: None,
                },
                "w" => {
                    seq[who] += 1;
                    Event::Write { txn, key: key(2), seq: seq[who], value: Some(Bytes::from("1")), blind: false }
                }
                "c" => Event::Commit { txn, ts: step.get(3..).map(|ts| Ts(ts.parse().unwrap())), resolved: vec![] },
                _ => Event::Abort { txn },
            });
        }
        history
    }

    #[track_caller]
    fn check(levels: [Isolation; 2], steps: &str, expected: &str) {
        let seen = who_sees(&history(levels, steps));
        let words: Vec<String> = seen.keys().map(|(name, anomaly)| format!("{name} {anomaly}")).collect();
        assert_eq!(words.join(", "), expected, "{steps} at {levels:?}");
    }

    use Isolation::{ReadCommitted, ReadUncommitted, RepeatableRead, Serializable, Snapshot};

    #[test]
    fn a_write_skew_is_seen_by_those_whose_level_lets_it() {
        let skew = "r1x1 r1y1 r2x1 r2y1 w1x w2y c1@5 c2@6";
        check([Snapshot, Snapshot], skew, "T1 G2-item, T2 G2-item");
        check([Serializable, ReadCommitted], skew, "T2 G2-item");
        check([Snapshot, RepeatableRead], skew, "T1 G2-item");
    }

    #[test]
    fn a_broken_promise_is_seen_by_all_of_its_cycle() {
        check([Serializable, RepeatableRead], "r1x1 r1y1 r2x1 r2y1 w1x w2y c1@5 c2@6", "T1 G2-item, T2 G2-item");
    }

    #[test]
    fn a_lost_update_is_seen_by_the_one_that_overwrites() {
        let lost = "r1x1 r2x1 w2x c2@5 w1x c1@6";
        check([ReadCommitted, Serializable], lost, "T1 G-single-item, T1 P4");
        // T1 is owed more than that: a promise is broken, and both are on the cycle.
        check([Serializable, ReadCommitted], lost, "T1 G-single-item, T1 P4, T2 G-single-item");
    }

    #[test]
    fn reads_are_seen_by_their_readers() {
        check([ReadUncommitted, Serializable], "w2x r1xdirty2 a2 c1", "T1 G1a");
        check([ReadUncommitted, Serializable], "w2x r1xdirty2 w2x c2@5 c1", "T1 G1b");
        check([ReadUncommitted, Serializable], "w2x r1xdirty2 r1y1 w2y c2@5 c1", "T1 OTV, T1 G-single-item");
        check([ReadCommitted, Serializable], "r1x1 w2x w2y c2@5 r1y5 c1", "T1 G-single-item");
    }

    #[test]
    fn what_a_serial_order_explains_is_seen_by_nobody() {
        check([ReadCommitted, ReadCommitted], "r1x1 w1x c1@5 r2x5 w2x c2@6", "");
        check([ReadUncommitted, ReadUncommitted], "w1x w2x w2y w1y c2@5 c1@6", "");
    }
}
