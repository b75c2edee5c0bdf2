//! Histories of other databases: read, inferred, judged.
//!
//! A test harness that looks at a database from outside sees values, not versions. From the values it
//! must be *inferred* who wrote what was read, and in which order the versions came:
//!
//! ```text
//!  lists      T1 appends 1 to x     T2 appends 2 to x     T3 reads x = [1 2]
//!             every read shows the whole order so far: x is [], then T1's, then T2's
//!  registers  T1 writes x = 1       T2 reads x = 1 and writes x = 2
//!             T2 read T1's version and wrote one after it; of blind writes nothing is known at first
//! ```
//!
//! [`read`] takes Jepsen's operations (EDN or JSON, list-append or registers) or the register text that
//! other checkers use; [`Observed::judge`] says whether a level holds. What it says is sound both ways:
//! *violated* means that no order of the versions gives the values that were read and keeps the level,
//! *holds* that one does, and *unknown* that neither could be shown.
//!
//! ```
//! use isolde_history::foreign::{self, Format, Model, Verdict};
//! use isolde_types::Isolation;
//!
//! // Two read x = 1, and both wrote x: an update is lost.
//! let text = "w(x,1,0,1)\nr(x,1,1,2)\nw(x,2,1,2)\nr(x,1,2,3)\nw(x,3,2,3)\n";
//! let history = foreign::read(text, Format::Registers)?;
//! let snapshot = history.judge(Model::of(Isolation::Snapshot));
//! assert_eq!(snapshot.verdict, Verdict::Violated);
//! assert_eq!(history.judge(Model::of(Isolation::ReadCommitted)).verdict, Verdict::Holds);
//! # Ok::<(), isolde_history::ReadError>(())
//! ```
//!
//! Sources: Kingsbury and Alvaro, "Elle" (VLDB 2020), for lists; Tan, Zhao, Mu and Walfish, "Cobra"
//! (OSDI 2020), and Huang et al., "PolySI" (VLDB 2023), for registers.

mod constraints;
mod datum;
mod decode;
mod infer;
mod jepsen;
mod judge;
mod lists;
mod observed;
mod registers;
mod solve;
mod values;

pub use judge::{Judgement, Model, RealTime, Verdict};
pub use observed::Observed;

use datum::{Syntax, error_at};

use crate::json::ReadError;

/// How a history is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Our own JSON lines: see [`History::from_json_lines`](crate::History::from_json_lines).
    Isolde,
    /// Jepsen's operations as EDN.
    Edn,
    /// Jepsen's operations as JSON: a list, or one after the other.
    Json,
    /// `r(key,value,session,txn)` and `w(key,value,session,txn)`, one a line.
    Registers,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 4] = [Format::Isolde, Format::Edn, Format::Json, Format::Registers];

    /// The name in commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::Isolde => "isolde",
            Format::Edn => "edn",
            Format::Json => "json",
            Format::Registers => "registers",
        }
    }

    /// What a text looks like, by its beginning.
    ///
    /// ```
    /// use isolde_history::foreign::Format;
    /// assert_eq!(Format::of("; a comment\n{:type :ok}"), Format::Edn);
    /// assert_eq!(Format::of("[{\"type\": \"ok\"}]"), Format::Json);
    /// assert_eq!(Format::of("w(1,2,0,0)"), Format::Registers);
    /// assert_eq!(Format::of("{\"initial\":[],\"order\":[],\"schema\":1,\"start\":0}"), Format::Isolde);
    /// ```
    #[must_use]
    pub fn of(text: &str) -> Format {
        let start = text.trim_start();
        let inner = start.trim_start_matches(['[', '{']).trim_start().trim_start_matches('{').trim_start();
        let header = start.lines().next().unwrap_or("");
        if start.starts_with('{') && header.contains("\"schema\"") {
            Format::Isolde
        } else if start.starts_with(['{', '[']) && inner.starts_with('"') {
            Format::Json
        } else if start.starts_with(['r', 'w']) {
            Format::Registers
        } else {
            Format::Edn
        }
    }
}

/// Reads a history of another database.
///
/// # Errors
/// The line, the column, what was wrong there, and what was expected. Our own JSON lines are refused:
/// they are no history of another database.
pub fn read(text: &str, format: Format) -> Result<Observed, ReadError> {
    match format {
        Format::Edn => jepsen::read(text, Syntax::Edn),
        Format::Json => jepsen::read(text, Syntax::Json),
        Format::Registers => registers::read(text),
        Format::Isolde => Err(error_at(text, 0, "expected operations, found a history with known versions")),
    }
}
