//! Who holds, awaits and blocks what, for people: tables, JSON, DOT.

use std::fmt::{self, Write as _};

use isolde_types::sync::Arc;
use isolde_types::{LockMode, TxnId};
use serde_json::{Value, json};

use crate::cell::Word;
use crate::manager::{Handle, LockManager};
use crate::report::{Edge, EdgeKind, Named};
use crate::table::{Table, Target};

/// A lock that is held, or awaited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockRow {
    /// What.
    pub target: Target,
    /// By whom.
    pub txn: TxnId,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// In which mode.
    pub mode: LockMode,
    /// Whether it is held; else it is awaited.
    pub held: bool,
}

/// All locks at one instant, held ones first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LockView {
    /// The locks.
    pub rows: Vec<LockRow>,
}

/// One transaction that waits for another.
pub type WaitRow = Edge;

/// All waits at one instant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WaitsForView {
    /// The waits, in queue order.
    pub rows: Vec<WaitRow>,
}

/// What a lock manager counted, and has now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LockStats {
    /// Requests that had to wait.
    pub waits: u64,
    /// Deadlocks, and waits that an age policy refused.
    pub deadlocks: u64,
    /// Transactions that lock now.
    pub owners: usize,
    /// Requests that wait now.
    pub waiting: usize,
}

impl<H: Handle> LockManager<H> {
    /// All locks at one instant.
    pub fn locks(&self) -> LockView {
        let graph = self.graph();
        let mut rows = graph.table.rows();
        for owner in self.owners() {
            let handles: Vec<H> = owner.ledger.lock().handles().cloned().collect();
            for handle in handles {
                if let Word::Thin(mode, holder) = handle.cell().load()
                    && holder == owner.id()
                {
                    let target = Target::Key(handle.key().clone());
                    rows.push(LockRow { target, txn: owner.id(), label: owner.label.clone(), mode, held: true });
                }
            }
        }
        drop(graph);
        rows.sort_by_key(|row| (!row.held, row.txn, row.target.to_string()));
        rows.dedup();
        LockView { rows }
    }

    /// All waits at one instant.
    pub fn waits_for(&self) -> WaitsForView {
        WaitsForView { rows: self.graph().table.edges() }
    }

    /// What was counted, and how many lock and wait now.
    pub fn stats(&self) -> LockStats {
        let graph = self.graph();
        let (deadlocks, waiting) = (graph.table.deadlocks, graph.table.waiting());
        drop(graph);
        LockStats { waits: self.waited(), deadlocks, owners: self.owners().len(), waiting }
    }
}

impl Table {
    /// Holders, then waiters in queue order.
    #[must_use]
    pub fn rows(&self) -> Vec<LockRow> {
        let mut rows = Vec::new();
        for (key, queue) in &self.keys {
            for holder in &queue.holders {
                rows.extend(holder.mode().map(|mode| self.row(holder.txn, Target::Key(key.clone()), mode, true)));
            }
        }
        for (span, holder) in &self.spans {
            rows.extend(holder.mode().map(|mode| self.row(holder.txn, Target::Span(span.clone()), mode, true)));
        }
        for request in self.waiting_requests() {
            rows.push(self.row(request.txn, request.target.clone(), request.mode, false));
        }
        rows
    }

    fn row(&self, txn: TxnId, target: Target, mode: LockMode, held: bool) -> LockRow {
        LockRow { target, txn, label: self.label(txn), mode, held }
    }
}

impl LockView {
    /// Whether nothing is locked and nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as a JSON array of objects.
    #[must_use]
    pub fn to_json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            json!({
                "txn": row.txn.0,
                "label": row.label.as_deref(),
                "target": row.target.to_string(),
                "mode": row.mode.to_string(),
                "state": if row.held { "held" } else { "waiting" },
            })
        });
        Value::Array(rows.collect()).to_string()
    }

    /// The locks as a graph for Graphviz: transactions to what they hold or await.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph locks {\n");
        for row in &self.rows {
            let style = if row.held { "solid" } else { "dashed" };
            let _ = writeln!(
                dot,
                "  {} -> {} [label=\"{}\", style={style}];",
                quoted(&Named(row.txn, &row.label).to_string()),
                quoted(&row.target.to_string()),
                row.mode.letter()
            );
        }
        dot.push_str("}\n");
        dot
    }
}

impl fmt::Display for LockView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows.iter().map(|row| {
            [
                Named(row.txn, &row.label).to_string(),
                row.mode.letter().to_string(),
                row.target.to_string(),
                if row.held { "held" } else { "waiting" }.to_owned(),
            ]
        });
        table(f, ["transaction", "mode", "target", "state"], rows.collect())
    }
}

impl WaitsForView {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as a JSON array of objects.
    #[must_use]
    pub fn to_json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            json!({
                "waiter": row.waiter.0,
                "waiter_label": row.waiter_label.as_deref(),
                "target": row.target.to_string(),
                "wants": row.wants.to_string(),
                "blocker": row.blocker.txn.0,
                "blocker_label": row.blocker.label.as_deref(),
                "blocker_mode": row.blocker.mode.to_string(),
                "edge": row.blocker.kind.name(),
            })
        });
        Value::Array(rows.collect()).to_string()
    }

    /// The waits-for graph for Graphviz; soft edges are dashed.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph waits_for {\n");
        for row in &self.rows {
            let style = if row.blocker.kind == EdgeKind::Hard { "solid" } else { "dashed" };
            let _ = writeln!(
                dot,
                "  {} -> {} [label={}, style={style}];",
                quoted(&Named(row.waiter, &row.waiter_label).to_string()),
                quoted(&Named(row.blocker.txn, &row.blocker.label).to_string()),
                quoted(&format!("{} {}", row.wants.letter(), row.target)),
            );
        }
        dot.push_str("}\n");
        dot
    }
}

impl fmt::Display for WaitsForView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows.iter().map(|row| {
            [
                Named(row.waiter, &row.waiter_label).to_string(),
                row.wants.letter().to_string(),
                row.target.to_string(),
                Named(row.blocker.txn, &row.blocker.label).to_string(),
                row.blocker.kind.name().to_owned(),
            ]
        });
        table(f, ["waiter", "wants", "target", "waits for", "edge"], rows.collect())
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Left-aligned columns, two spaces apart.
fn table<const N: usize>(f: &mut fmt::Formatter<'_>, head: [&str; N], rows: Vec<[String; N]>) -> fmt::Result {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut line = |cells: [&str; N]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(f, "{}", padded.join("  ").trim_end())
    };
    line(head)?;
    rows.iter().try_for_each(|row| line(row.each_ref().map(String::as_str)))
}
