//! Steps as sentences without their subject: "reads x and finds 1", "has to wait for T2".

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use isolde_history::schedule::{Action, Operation, Output, Schedule, StepOutcome, StepReport, Swap, Value};
use isolde_types::{Key, escape_key};

use super::story::{What, failure_words};

/// Tells the steps of one run in the order in which they happened.
pub(super) struct Narrator<'r> {
    /// What each transaction last read of each key.
    last_read: BTreeMap<(usize, Key), Option<Bytes>>,
    /// The steps that never ran, by transaction.
    skipped: BTreeMap<usize, Vec<String>>,
    /// The steps whose waiting was told.
    waited: BTreeSet<usize>,
    schedule: &'r Schedule,
}

/// `write` after "wants to", `writes` after a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    To,
    Name,
}

impl<'r> Narrator<'r> {
    pub fn new(schedule: &'r Schedule, steps: &'r [StepReport]) -> Narrator<'r> {
        let mut skipped: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for step in steps.iter().filter(|step| step.outcome == StepOutcome::Skipped) {
            skipped.entry(step.txn).or_default().push(format!("`{}`", step.action));
        }
        Narrator { last_read: BTreeMap::new(), skipped, waited: BTreeSet::new(), schedule }
    }

    /// A moment of a step; `state` is the committed state after it, if it changed it.
    pub fn tells(&mut self, step: &StepReport, what: What, state: Option<&str>) -> String {
        let words = match what {
            What::Done => self.phrase(step, Form::Name) + &found(step),
            What::GoesOn => format!("can go on, and {}{}", self.phrase(step, Form::Name), found(step)),
            What::Waits => {
                self.waited.insert(step.n);
                let whom = step.waited_for.as_deref().unwrap_or("another transaction");
                format!("wants to {}, and has to wait for {whom}", self.phrase(step, Form::To))
            }
            What::Refused | What::Aborted => self.failure(step, what),
        };
        self.remember(step, what);
        words + &state.map_or(String::new(), |state| format!(": the committed state is now {state}"))
    }

    fn failure(&self, step: &StepReport, what: What) -> String {
        let Some(failure) = &step.failure else { return String::new() };
        let wants = if self.waited.contains(&step.n) {
            "is still waiting".to_owned()
        } else {
            format!("wants to {}", self.phrase(step, Form::To))
        };
        let name = &self.schedule.txns[step.txn];
        let reason = failure_words(failure.class);
        if what == What::Refused {
            return format!(
                "{wants}, and the database {reason}: {}",
                ends_badly(&failure.message).trim_end_matches('.')
            );
        }
        let rest = self.skipped.get(&step.txn).map_or(String::new(), |steps| {
            let is = if steps.len() == 1 { "is" } else { "are" };
            format!("; {} {is} never run", steps.join(" and "))
        });
        format!("{wants}, but the database {reason} and rolls {name} back{rest}")
    }

    /// What a step does, with the values that it really writes.
    fn phrase(&self, step: &StepReport, form: Form) -> String {
        let verb = |to: &str, name: &str| if form == Form::To { to.to_owned() } else { name.to_owned() };
        let key = |key: &Key| escape_key(key);
        let operation = match &step.action {
            Action::Begin(_) => return verb("begin", "begins"),
            Action::Do(operation) => operation,
        };
        match operation {
            Operation::Get(k) => format!("{} {}", verb("read", "reads"), key(k)),
            Operation::GetForUpdate(k) => format!("{} {} for update", verb("read", "reads"), key(k)),
            Operation::Put(k, v) => format!("{} {}={}", verb("write", "writes"), key(k), self.value(step, v)),
            Operation::Insert(k, v) => format!("{} {}={}", verb("insert", "inserts"), key(k), self.value(step, v)),
            Operation::Delete(k) => format!("{} {}", verb("delete", "deletes"), key(k)),
            Operation::Scan(_) => step.action.to_string().replacen("scan", &verb("scan", "scans"), 1),
            Operation::Increment(k, by) => format!("{} {by} to {}", verb("add", "adds"), key(k)),
            Operation::Merge { operator, key: k, value } => {
                format!("{} {} into {} by {operator}", verb("merge", "merges"), self.value(step, value), key(k))
            }
            Operation::CompareAndSet { key: k, old, new } => {
                let word = |value: &Option<Value>| {
                    value.as_ref().map_or_else(|| "absent".to_owned(), |value| self.value(step, value))
                };
                format!("{} {} from {} to {}", verb("change", self.changes(step)), key(k), word(old), word(new))
            }
            Operation::Lock(_) => step.action.to_string().replacen("lock", &verb("lock", "locks"), 1),
            Operation::Savepoint(name) => format!("{} savepoint {name}", verb("set", "sets")),
            Operation::RollbackTo(name) => format!("{} back to savepoint {name}", verb("go", "goes")),
            Operation::Commit => verb("commit", "commits"),
            Operation::Rollback => verb("roll back", "rolls back, and takes back all that it wrote"),
        }
    }

    /// A compare-and-set that was refused has only asked.
    fn changes(&self, step: &StepReport) -> &'static str {
        match step.output {
            Some(Output::CompareAndSet { swap: Swap::Refused, .. }) => "asks to change",
            _ => "changes",
        }
    }

    /// A value as it was written; one that rests on a read says so.
    fn value(&self, step: &StepReport, value: &Value) -> String {
        let (key, plus) = match value {
            Value::Word(word) => return word.escape_ascii().to_string(),
            Value::LastRead { key, plus } => (key, *plus),
        };
        let read = self.last_read.get(&(step.txn, key.clone())).cloned().flatten();
        let read = read.map_or_else(|| "0".to_owned(), |read| String::from_utf8_lossy(&read).into_owned());
        if plus == 0 {
            return format!("{} (what it read of {})", read.escape_debug(), escape_key(key));
        }
        let sum = read.parse::<i64>().ok().and_then(|number| number.checked_add(plus));
        let sign = if plus < 0 { '-' } else { '+' };
        let sum = sum.map_or_else(|| "?".to_owned(), |sum| sum.to_string());
        format!("{sum} (the {read} that it read {sign} {})", plus.unsigned_abs())
    }

    fn remember(&mut self, step: &StepReport, what: What) {
        if !matches!(what, What::Done | What::GoesOn) {
            return;
        }
        match (&step.action, &step.output) {
            (Action::Do(Operation::Get(key) | Operation::GetForUpdate(key)), Some(Output::Value(value))) => {
                self.last_read.insert((step.txn, key.clone()), value.clone());
            }
            (Action::Do(Operation::Scan(place)), Some(Output::Rows(rows))) => {
                let span = place.span();
                self.last_read.retain(|(txn, key), _| *txn != step.txn || !span.contains(key));
                let read = |(key, value): &(Key, Bytes)| ((step.txn, key.clone()), Some(value.clone()));
                self.last_read.extend(rows.iter().map(read));
            }
            _ => {}
        }
    }
}

/// What a step found.
fn found(step: &StepReport) -> String {
    match &step.output {
        Some(Output::Value(Some(value))) => format!(" and finds {}", value.escape_ascii()),
        Some(Output::Value(None)) => " and finds nothing".to_owned(),
        Some(Output::Rows(rows)) if rows.is_empty() => " and finds nothing".to_owned(),
        Some(Output::Rows(rows)) => {
            let row = |(key, value): &(Key, Bytes)| format!("{}={}", escape_key(key), value.escape_ascii());
            format!(" and finds {}", rows.iter().map(row).collect::<Vec<_>>().join(" "))
        }
        Some(Output::CompareAndSet { swap: Swap::Refused, found }) => {
            let found = found.as_ref().map_or_else(|| "nothing".to_owned(), |v| v.escape_ascii().to_string());
            format!(", is told that it holds {found}, and changes nothing")
        }
        _ => String::new(),
    }
}

/// A message as the end of a sentence.
pub(super) fn ends_badly(message: &str) -> String {
    let message = message.trim_end();
    if message.ends_with(['.', '!', '?']) { message.to_owned() } else { format!("{message}.") }
}
