//! What a schedule is, and how it is printed.
//!
//! A file is a list of lines. `#` starts a comment; the first comment is the title and the comments
//! that follow it directly say what the schedule is about. Then, in any order:
//!
//! | line | means |
//! | --- | --- |
//! | `hunts: G2-item` | the anomaly to look for, by its code, or `final-state` |
//! | `init: x=1 y=2` | keys present before the first step |
//! | `expect: T1.3=11` | what the third written step of T1 reads (`-` absent, `x:1,y:2` the rows of a scan) |
//! | `expect-final: x=12` | the state after the last step; `-` for absent |
//! | `control: none` | a proof that needs no engine without control: it shows nothing there |
//! | `T1: get x` | a step |
//!
//! Keys and values are words: no white space. A key has no `=` and no `..`, does not start with `#`
//! or `$`, and does not end in `*`. Operations: `begin [LEVEL] [MODE] [read-only]`, `get K`,
//! `get-for-update K`, `put K V`, `insert K V`, `delete K`, `scan SPAN`, `increment K N`,
//! `merge OP K V`, `cas K OLD NEW` (`-` for absent), `lock SPAN`, `savepoint S`, `rollback-to S`,
//! `commit`, `rollback`. A span is `A..B`, `A..`, `..B`, `..` or `P*` (the keys that start with P).
//!
//! A value `$x` is what this transaction last read from x; `$x+5` and `$x-5` do sums with it, an
//! absent one counting as 0. (In `$a-1` the key is `a`; write `$a-1+0` for the key `a-1`.)
//!
//! Printing and parsing agree: a schedule that was parsed, printed and parsed again is the same.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use isolde_types::{Anomaly, Isolation, Key, Mode, Span};

use super::parse::{self, NotationError};

/// A parsed schedule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Schedule {
    /// The first comment, or nothing.
    pub title: String,
    /// The comment lines directly after the title.
    pub about: Vec<String>,
    /// What the schedule is made to show.
    pub hunts: Option<Hunt>,
    /// Whether the schedule shows its anomaly on an engine without control (the usual thing).
    pub shown_without_control: ShownWithoutControl,
    /// The keys present before the first step.
    pub initial: Vec<(Key, Bytes)>,
    /// What certain steps read.
    pub expect: Vec<Expectation>,
    /// What is in the database after the last step; `None` for absent.
    pub expect_final: Vec<(Key, Option<Bytes>)>,
    /// The names of the transactions, in the order of their first steps.
    pub txns: Vec<String>,
    /// The steps in file order.
    pub steps: Vec<Step>,
}

/// Whether an engine without control shows the anomaly of a schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ShownWithoutControl {
    /// It does, and a test runs it there: a schedule that shows nothing there proves nothing.
    #[default]
    Yes,
    /// `control: none`.
    No,
}

/// What a schedule hunts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hunt {
    /// An anomaly that the checker finds in the history.
    Anomaly(Anomaly),
    /// A final state other than the `expect-final` of the schedule.
    FinalState,
}

/// One step: a transaction (its place in [`Schedule::txns`]) and what it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The place of the transaction in [`Schedule::txns`].
    pub txn: usize,
    /// What it does.
    pub action: Action,
}

/// What a step does: begin, or an operation of a transaction that has begun.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Action {
    /// `begin`.
    Begin(BeginWords),
    /// Everything else.
    Do(Operation),
}

/// What a `begin` names itself; the rest comes from the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct BeginWords {
    /// The level, if it is written.
    pub isolation: Option<Isolation>,
    /// The mode, if it is written.
    pub mode: Option<Mode>,
    /// Whether `read-only` is written.
    pub read_only: bool,
}

/// An operation; `V` is a value as written, or the bytes that it came to when the step ran.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Operation<V = Value> {
    /// `get K`.
    Get(Key),
    /// `get-for-update K`.
    GetForUpdate(Key),
    /// `put K V`.
    Put(Key, V),
    /// `insert K V`: refused if the key is present.
    Insert(Key, V),
    /// `delete K`.
    Delete(Key),
    /// `scan SPAN`.
    Scan(Place),
    /// `increment K N`: adds to a decimal number, an absent one counting as 0.
    Increment(Key, i64),
    /// `merge OP K V`: combines by a registered operator.
    Merge {
        /// The operator's name.
        operator: String,
        /// The key.
        key: Key,
        /// The operand.
        value: V,
    },
    /// `cas K OLD NEW`: writes NEW if the key holds OLD; `None` is absent.
    CompareAndSet {
        /// The key.
        key: Key,
        /// What it must hold.
        old: Option<V>,
        /// What it then holds.
        new: Option<V>,
    },
    /// `lock SPAN`: an exclusive lock on every key in it, present or absent.
    Lock(Place),
    /// `savepoint S`.
    Savepoint(String),
    /// `rollback-to S`.
    RollbackTo(String),
    /// `commit`.
    Commit,
    /// `rollback`.
    Rollback,
}

/// A span as it is written.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Place {
    /// `A..B`, `A..`, `..B` or `..`.
    Between {
        /// The first key; empty for the first of all.
        start: Key,
        /// The first key after the span.
        end: Option<Key>,
    },
    /// `P*`: the keys that start with P.
    Prefix(Key),
}

/// A value as it is written.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Value {
    /// A word.
    Word(Bytes),
    /// `$K`, `$K+N` or `$K-N`: what the transaction last read from the key, plus a number.
    LastRead {
        /// The key that was read.
        key: Key,
        /// What to add; 0 copies the value as it is.
        plus: i64,
    },
}

/// `expect: T1.3=11`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expectation {
    /// The place of the transaction in [`Schedule::txns`].
    pub txn: usize,
    /// Which of its written steps, from 1.
    pub step: usize,
    /// What the step reads, as [`Output`](super::Output) prints it.
    pub reads: String,
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// The first thing that is wrong: its line and column, what was found, what was expected.
    ///
    /// ```
    /// use isolde_history::schedule::Schedule;
    /// let error = Schedule::parse("T1: begin\nT1: gte x\n").unwrap_err();
    /// assert!(error.to_string().starts_with("line 2, column 5: found `gte`, expected an operation"));
    /// ```
    pub fn parse(text: &str) -> Result<Schedule, NotationError> {
        parse::parse(text)
    }

    /// The keys that an `increment` of this schedule touches: a session that stores numbers in its
    /// own way encodes their values.
    pub fn counters(&self) -> impl Iterator<Item = &Key> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Do(Operation::Increment(key, _)) => Some(key),
            _ => None,
        })
    }

    /// Whether some step looks at a span, so that an anomaly on predicates can be seen at all.
    #[must_use]
    pub fn scans(&self) -> bool {
        self.steps.iter().any(|step| matches!(&step.action, Action::Do(Operation::Scan(_))))
    }

    /// A step as it is written: `T1: get x`.
    #[must_use]
    pub fn line(&self, step: &Step) -> String {
        format!("{}: {}", self.txns[step.txn], step.action)
    }
}

impl FromStr for Schedule {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Schedule::parse(text)
    }
}

impl Hunt {
    /// Every word that `hunts:` may name.
    pub fn words() -> impl Iterator<Item = &'static str> {
        Anomaly::ALL.into_iter().map(Anomaly::code).chain([FINAL_STATE])
    }

    /// The code: `G2-item`, `final-state`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Hunt::Anomaly(anomaly) => anomaly.code(),
            Hunt::FinalState => FINAL_STATE,
        }
    }

    /// The hunt of a code; upper and lower case are the same.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Hunt> {
        if code.eq_ignore_ascii_case(FINAL_STATE) {
            return Some(Hunt::FinalState);
        }
        let named = |anomaly: &Anomaly| anomaly.code().eq_ignore_ascii_case(code);
        Anomaly::ALL.into_iter().find(named).map(Hunt::Anomaly)
    }
}

const FINAL_STATE: &str = "final-state";

impl Place {
    /// The span that this names.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Place::Between { start, end } => Span::new(start.clone(), end.clone()),
            Place::Prefix(prefix) => Span::prefix(prefix),
        }
    }
}

impl<V> Operation<V> {
    /// The same operation with its values replaced.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<W, E>(&self, mut f: impl FnMut(&V) -> Result<W, E>) -> Result<Operation<W>, E> {
        Ok(match self {
            Operation::Put(key, value) => Operation::Put(key.clone(), f(value)?),
            Operation::Insert(key, value) => Operation::Insert(key.clone(), f(value)?),
            Operation::Merge { operator, key, value } => {
                Operation::Merge { operator: operator.clone(), key: key.clone(), value: f(value)? }
            }
            Operation::CompareAndSet { key, old, new } => Operation::CompareAndSet {
                key: key.clone(),
                old: old.as_ref().map(&mut f).transpose()?,
                new: new.as_ref().map(&mut f).transpose()?,
            },
            Operation::Get(key) => Operation::Get(key.clone()),
            Operation::GetForUpdate(key) => Operation::GetForUpdate(key.clone()),
            Operation::Delete(key) => Operation::Delete(key.clone()),
            Operation::Scan(place) => Operation::Scan(place.clone()),
            Operation::Increment(key, by) => Operation::Increment(key.clone(), *by),
            Operation::Lock(place) => Operation::Lock(place.clone()),
            Operation::Savepoint(name) => Operation::Savepoint(name.clone()),
            Operation::RollbackTo(name) => Operation::RollbackTo(name.clone()),
            Operation::Commit => Operation::Commit,
            Operation::Rollback => Operation::Rollback,
        })
    }

    /// The one key that this reads or writes.
    #[must_use]
    pub const fn key(&self) -> Option<&Key> {
        match self {
            Operation::Get(key)
            | Operation::GetForUpdate(key)
            | Operation::Put(key, _)
            | Operation::Insert(key, _)
            | Operation::Delete(key)
            | Operation::Increment(key, _)
            | Operation::Merge { key, .. }
            | Operation::CompareAndSet { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether the transaction is over when this has succeeded.
    #[must_use]
    pub const fn ends(&self) -> bool {
        matches!(self, Operation::Commit | Operation::Rollback)
    }
}

/// A word as text: what is not UTF-8 (only a schedule built by code can hold such) is replaced.
pub(crate) fn text(word: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(word)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_comments(f)?;
        if let Some(hunt) = self.hunts {
            writeln!(f, "hunts: {}", hunt.code())?;
        }
        if self.shown_without_control == ShownWithoutControl::No {
            writeln!(f, "control: none")?;
        }
        fmt_list(f, "init", self.initial.iter().map(|(k, v)| format!("{}={}", text(k), text(v))))?;
        fmt_list(f, "expect", self.expect.iter().map(|e| format!("{}.{}={}", self.txns[e.txn], e.step, e.reads)))?;
        let present = |v: &Option<Bytes>| v.as_ref().map_or("-".into(), |v| text(v).into_owned());
        fmt_list(f, "expect-final", self.expect_final.iter().map(|(k, v)| format!("{}={}", text(k), present(v))))?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{}", self.line(step)))
    }
}

impl Schedule {
    fn fmt_comments(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.title.is_empty() {
            return Ok(());
        }
        writeln!(f, "# {}", self.title)?;
        self.about.iter().try_for_each(|line| writeln!(f, "{}", format!("# {line}").trim_end()))
    }
}

fn fmt_list(f: &mut fmt::Formatter<'_>, head: &str, items: impl Iterator<Item = String>) -> fmt::Result {
    let items: Vec<String> = items.collect();
    if items.is_empty() { Ok(()) } else { writeln!(f, "{head}: {}", items.join(" ")) }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Begin(words) => words.fmt(f),
            Action::Do(operation) => operation.fmt(f),
        }
    }
}

impl fmt::Display for BeginWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("begin")?;
        if let Some(isolation) = self.isolation {
            write!(f, " {isolation}")?;
        }
        if let Some(mode) = self.mode {
            write!(f, " {mode}")?;
        }
        if self.read_only { f.write_str(" read-only") } else { Ok(()) }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_absent = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), Value::to_string);
        match self {
            Operation::Get(key) => write!(f, "get {}", text(key)),
            Operation::GetForUpdate(key) => write!(f, "get-for-update {}", text(key)),
            Operation::Put(key, value) => write!(f, "put {} {value}", text(key)),
            Operation::Insert(key, value) => write!(f, "insert {} {value}", text(key)),
            Operation::Delete(key) => write!(f, "delete {}", text(key)),
            Operation::Scan(place) => write!(f, "scan {place}"),
            Operation::Increment(key, by) => write!(f, "increment {} {by}", text(key)),
            Operation::Merge { operator, key, value } => write!(f, "merge {operator} {} {value}", text(key)),
            Operation::CompareAndSet { key, old, new } => {
                write!(f, "cas {} {} {}", text(key), or_absent(old), or_absent(new))
            }
            Operation::Lock(place) => write!(f, "lock {place}"),
            Operation::Savepoint(name) => write!(f, "savepoint {name}"),
            Operation::RollbackTo(name) => write!(f, "rollback-to {name}"),
            Operation::Commit => f.write_str("commit"),
            Operation::Rollback => f.write_str("rollback"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Between { start, end } => write!(f, "{}..{}", text(start), text(end.as_deref().unwrap_or_default())),
            Place::Prefix(prefix) => write!(f, "{}*", text(prefix)),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Word(word) => f.write_str(&text(word)),
            Value::LastRead { key, plus: 0 } if parse::split_sum(&text(key)).is_none() => write!(f, "${}", text(key)),
            Value::LastRead { key, plus } => write!(f, "${}{plus:+}", text(key)),
        }
    }
}
