//! Whether a level holds.

use isolde_types::{Anomaly, Isolation, Key};

use super::constraints::{Constraints, Rule, Why};
use super::infer::Inferred;
use super::lists::Lists;
use super::observed::{Kind, Observed};
use super::solve::{Answer, solve};
use super::values::{self, Assume};
use crate::check::{Edge, Finding, findings};
use crate::explain;
use crate::graph::{EdgeKind, Graph};
use crate::model::History;
use crate::resolve::Resolved;

/// What a history is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Model {
    /// The level.
    pub isolation: Isolation,
    /// Whether serializable has to agree with real time.
    pub real_time: RealTime,
}

/// Whether real time counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RealTime {
    /// A transaction that ended before another began comes before it.
    Counts,
    /// It need not.
    IsLeftOut,
}

impl Model {
    /// A level as this project defines it: serializable in real time too.
    #[must_use]
    pub const fn of(isolation: Isolation) -> Model {
        Model { isolation, real_time: RealTime::Counts }
    }

    /// The same level without real time.
    #[must_use]
    pub const fn without_real_time(self) -> Model {
        Model { real_time: RealTime::IsLeftOut, ..self }
    }

    /// Whether the model forbids an anomaly.
    #[must_use]
    pub fn forbids(self, anomaly: Anomaly) -> bool {
        let left_out = anomaly == Anomaly::Realtime && self.real_time == RealTime::IsLeftOut;
        !left_out && self.isolation.forbids().contains(&anomaly)
    }
}

/// Whether a level holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Some order of versions and transactions gives what was read, and keeps the level.
    Holds,
    /// No order does.
    Violated,
    /// Neither could be shown.
    Unknown,
}

/// What a history comes to by a model.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Whether the level holds.
    pub verdict: Verdict,
    /// The model.
    pub model: Model,
    /// All anomalies that were found, gravest first; those that the model allows, too.
    pub findings: Vec<Finding>,
    /// Contradictions that no history can have, in words.
    pub complaints: Vec<String>,
    /// What keeps the verdict from being that the level holds, in words.
    pub doubts: Vec<String>,
    /// What was assumed in favour of the history, in words. Nothing is where the level is violated: that
    /// does not rest on an assumption.
    pub assumptions: Vec<String>,
    /// How many transactions committed.
    pub committed: usize,
}

impl Judgement {
    /// The anomalies that the model forbids.
    pub fn forbidden(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| self.model.forbids(finding.anomaly))
    }

    fn of(model: Model, findings: Vec<Finding>, complaints: Vec<String>, doubts: Vec<String>) -> Judgement {
        let broken = !complaints.is_empty() || findings.iter().any(|finding| model.forbids(finding.anomaly));
        let verdict = match (broken, doubts.is_empty()) {
            (true, _) => Verdict::Violated,
            (false, true) => Verdict::Holds,
            (false, false) => Verdict::Unknown,
        };
        Judgement { verdict, model, findings, complaints, doubts, assumptions: Vec::new(), committed: 0 }
    }
}

impl History {
    /// What the history comes to if all its transactions are owed one level.
    ///
    /// ```
    /// use isolde_history::History;
    /// use isolde_history::foreign::{Model, Verdict};
    /// use isolde_types::Isolation;
    /// let judgement = History::default().judge(Model::of(Isolation::Serializable));
    /// assert_eq!(judgement.verdict, Verdict::Holds);
    /// ```
    #[must_use]
    pub fn judge(&self, model: Model) -> Judgement {
        let mut resolved = Resolved::of(self);
        let complaints = std::mem::take(&mut resolved.complaints);
        let graph = Graph::of(&resolved);
        let mut judgement = Judgement::of(model, findings(&resolved, &graph, Vec::new()), complaints, Vec::new());
        judgement.committed = resolved.committed().count();
        judgement.search(&resolved, &graph, &[]);
        judgement
    }
}

impl Observed {
    /// Whether a level holds; see the [module](super).
    #[must_use]
    pub fn judge(&self, model: Model) -> Judgement {
        match self.kind {
            Kind::Lists => {
                let lists = Lists::of(self);
                let texts = lists.texts();
                self.judge_inferred(lists.infer(&texts), model)
            }
            Kind::Registers => {
                let texts = values::Texts::of(self);
                let favoured = self.judge_inferred(values::infer(self, &texts, Assume::Initial), model);
                let assumes = !favoured.assumptions.is_empty();
                if assumes && favoured.verdict == Verdict::Violated {
                    return self.judge_inferred(values::infer(self, &texts, Assume::Nothing), model);
                }
                favoured
            }
        }
    }

    fn judge_inferred(&self, inferred: Inferred<'_>, model: Model) -> Judgement {
        let Inferred { mut resolved, findings: known, mut doubts, assumptions } = inferred;
        let complaints = std::mem::take(&mut resolved.complaints);
        let graph = Graph::of(&resolved);
        if graph.cut {
            doubts.push("too many reads of versions whose next one is not known: some are left out".to_owned());
        }
        let mut found = findings(&resolved, &graph, known);
        if self.kind == Kind::Registers {
            // The orders were inferred from what was read: with a dirty write there would be none.
            found.retain(|finding| finding.anomaly != Anomaly::DirtyWrite);
        }
        let committed = resolved.committed().count();
        let mut judgement = Judgement::of(model, found, complaints, doubts);
        judgement.committed = committed;
        judgement.assumptions = assumptions;
        let sessions: Vec<(usize, usize)> =
            (0..).zip(&self.txns).filter_map(|(txn, observed)| Some((observed.after?, txn))).collect();
        judgement.search(&resolved, &graph, &sessions);
        judgement
    }
}

/// What the level asks of the order of transactions, beyond what is found in any order. Read committed
/// and below ask nothing: versions in the order of a serial run that agrees with what was read keep them.
fn rule(model: Model) -> Option<Rule> {
    match model.isolation {
        Isolation::ReadUncommitted | Isolation::ReadCommitted => None,
        Isolation::RepeatableRead => Some(Rule::Items),
        Isolation::Snapshot => Some(Rule::Snapshot),
        Isolation::Serializable if model.real_time == RealTime::IsLeftOut => Some(Rule::Serial),
        Isolation::Serializable => Some(Rule::Strict),
    }
}

impl Judgement {
    /// Where no forbidden anomaly was found: whether the order that the level asks for can be at all. The
    /// search for anomalies need not find every kind in a large knot; this does.
    fn search(&mut self, resolved: &Resolved<'_>, graph: &Graph, sessions: &[(usize, usize)]) {
        if self.verdict == Verdict::Violated {
            return;
        }
        let Some(rule) = rule(self.model) else { return };
        let mut constraints = Constraints::of(resolved, graph, rule, sessions);
        let answer = solve(&mut constraints);
        self.settle(answer, &constraints, rule);
    }

    fn settle(&mut self, answer: Answer, constraints: &Constraints<'_>, rule: Rule) {
        let every = match answer {
            Answer::Holds => return,
            Answer::Unknown => {
                self.doubts.push("there are too many orders of the versions to try them all".to_owned());
                if self.verdict == Verdict::Holds {
                    self.verdict = Verdict::Unknown;
                }
                return;
            }
            Answer::Violated => false,
            Answer::EveryOrder => true,
        };
        self.verdict = Verdict::Violated;
        let found = constraints.cycle().map(|cycle| explain_cycle(&cycle, constraints, rule, every));
        if let Some(found) = found.filter(|found| self.findings.iter().all(|known| known.anomaly != found.anomaly)) {
            self.findings.push(found);
            self.findings.sort_by_key(|finding| finding.anomaly);
        }
    }
}

fn explain_cycle(cycle: &[(usize, &Why)], constraints: &Constraints<'_>, rule: Rule, every: bool) -> Finding {
    let resolved = constraints.resolved;
    let size = cycle.len();
    let hop = |at: usize| {
        let (from, why) = cycle[at];
        let to = cycle[(at + 1) % size].0;
        match why {
            Why::Certain(raw) | Why::Ordered(raw) => explain::edge(resolved, raw.from, raw.to, Some(raw)),
            Why::Time => explain_time(resolved.txns[from].name, resolved.txns[to].name),
        }
    };
    let edges: Vec<Edge> = (0..size).map(hop).collect();
    let inferred = cycle.iter().any(|(_, why)| matches!(why, Why::Ordered(_)));
    let mut words = explain::cycle(&edges);
    if every {
        words.push_str(" Every other order of the writes is a contradiction as well.");
    } else if inferred {
        words.push_str(" (The order of these writes was inferred: any other closes a cycle too.)");
    }
    Finding { anomaly: class(&edges, rule, every || inferred), cycle: edges, words }
}

/// A step of real time, in words.
fn explain_time(from: &str, to: &str) -> Edge {
    let words = format!("{from} ended before {to} began");
    Edge { from: from.to_owned(), to: to.to_owned(), kind: EdgeKind::Realtime, key: Key::new(), words }
}

/// What the cycle is. Where orders were inferred under the level itself, it is the mildest that the level
/// forbids: a weaker level may have another order.
fn class(edges: &[Edge], rule: Rule, inferred: bool) -> Anomaly {
    let rw = edges.iter().filter(|edge| edge.kind.is_rw()).count();
    let real_time = edges.iter().any(|edge| edge.kind == EdgeKind::Realtime);
    let wr = edges.iter().any(|edge| edge.kind == EdgeKind::Wr);
    let predicate = edges.iter().any(|edge| edge.kind == EdgeKind::RwPredicate);
    match (rule, inferred, rw) {
        _ if real_time => Anomaly::Realtime,
        (Rule::Snapshot, _, 2..) => Anomaly::LongFork,
        (Rule::Snapshot, true, _) => Anomaly::ReadSkewItem,
        (_, true, _) | (_, _, 2..) if predicate => Anomaly::PredicateWriteSkew,
        (_, true, _) | (_, _, 2..) => Anomaly::WriteSkew,
        (_, _, 1) if predicate => Anomaly::ReadSkew,
        (_, _, 1) => Anomaly::ReadSkewItem,
        _ if wr => Anomaly::CircularFlow,
        _ => Anomaly::DirtyWrite,
    }
}
