//! Jepsen's operations: an invocation and its completion, each with micro-operations.
//!
//! ```text
//! {:type :invoke, :process 0, :value [[:append x 1] [:r y nil]]}
//! {:type :ok,     :process 0, :value [[:append x 1] [:r y [2 3]]]}
//! ```
//!
//! `:ok` committed, `:fail` did not; of `:info`, and of an invocation that nothing completed, it is not
//! known. What clients did is read, what the harness did (`:process :nemesis`) is not.

use std::collections::HashMap;

use super::datum::{Datum, Form, Reader, Syntax, error_at};
use super::observed::{Initial, Kind, Numbers, Observed, ObservedTxn, Op, sort_keys};
use crate::json::ReadError;
use crate::resolve::Outcome;

/// A place of the text, and what was expected there.
type Wrong = (usize, String);

pub(super) fn read(text: &str, syntax: Syntax) -> Result<Observed, ReadError> {
    let mut reader = Reader::new(text, syntax);
    let mut builder = Builder::new(text);
    while let Some(datum) = reader.next_item()? {
        builder.operation(&datum).map_err(|(at, words)| error_at(text, at, words))?;
    }
    if builder.txns.is_empty() {
        return Err(reader.error("expected the operations of a client, found none"));
    }
    Ok(builder.finish())
}

/// What an operation says of its transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Invoke,
    End(Outcome),
}

struct Builder<'t> {
    text: &'t str,
    /// How much of the text has been counted, and the lines in it.
    counted: (usize, usize),
    keys: Numbers,
    values: Numbers,
    txns: Vec<ObservedTxn>,
    /// The transaction that each process has under way.
    open: HashMap<String, usize>,
    kind: Option<Kind>,
    at: usize,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Builder<'t> {
        Builder {
            text,
            counted: (0, 1),
            keys: Numbers::default(),
            values: Numbers::default(),
            txns: Vec::new(),
            open: HashMap::new(),
            kind: None,
            at: 0,
        }
    }

    fn finish(mut self) -> Observed {
        let keys = sort_keys(self.keys.texts, &mut self.txns);
        let kind = self.kind.unwrap_or(Kind::Registers);
        Observed { kind, txns: self.txns, keys, values: self.values.texts, initial: Initial::AbsentOrUnwritten }
    }

    fn operation(&mut self, datum: &Datum) -> Result<(), Wrong> {
        if !matches!(datum.form, Form::Map(_)) {
            return Err((datum.at, format!("expected an operation such as {{:type :ok ..}}, found {}", datum.what())));
        }
        let Some(process) = client(datum) else { return Ok(()) };
        let step = step(datum)?;
        let line = self.line(datum.at);
        self.at += 1;
        let ops = self.micro_operations(datum, step)?;
        match step {
            Step::Invoke => {
                let txn = self.begin(line, ops);
                self.open.insert(process, txn);
            }
            Step::End(outcome) => {
                let open = self.open.remove(&process);
                let txn = open.unwrap_or_else(|| self.begin(line, Vec::new()));
                self.end(txn, outcome, line, ops);
            }
        }
        Ok(())
    }

    fn begin(&mut self, line: usize, ops: Vec<Op>) -> usize {
        let (name, begin) = (format!("T{}", self.txns.len() + 1), 2 * self.at);
        let outcome = Outcome::Unknown;
        self.txns.push(ObservedTxn { name, line, outcome, begin, end: None, after: None, ops });
        self.txns.len() - 1
    }

    fn end(&mut self, txn: usize, outcome: Outcome, line: usize, ops: Vec<Op>) {
        let at = 2 * self.at + 1;
        let txn = &mut self.txns[txn];
        txn.outcome = outcome;
        txn.line = line;
        if outcome == Outcome::Committed {
            txn.end = Some(at);
            txn.ops = ops;
            return;
        }
        // What it read is not known for sure; what it wrote, its invocation says as well.
        if txn.ops.is_empty() {
            txn.ops = ops;
        }
        txn.ops.retain(|op| !op.is_read());
    }

    /// The line of a place; places are asked for in order.
    fn line(&mut self, at: usize) -> usize {
        let (from, lines) = self.counted;
        let between = self.text.get(from..at).unwrap_or("");
        self.counted = (at, lines + between.matches('\n').count());
        self.counted.1
    }

    fn micro_operations(&mut self, datum: &Datum, step: Step) -> Result<Vec<Op>, Wrong> {
        let Some(value) = datum.field("value") else {
            return Err((datum.at, "expected a field :value".to_owned()));
        };
        match &value.form {
            Form::List(items) => items.iter().map(|item| self.micro_operation(item)).collect(),
            _ if !matches!(step, Step::Invoke | Step::End(Outcome::Committed)) => Ok(Vec::new()),
            Form::Nil if step == Step::Invoke => Ok(Vec::new()),
            _ => Err((value.at, format!("expected a list of micro-operations, found {}", value.what()))),
        }
    }

    fn micro_operation(&mut self, datum: &Datum) -> Result<Op, Wrong> {
        let wrong = || {
            let words = "expected a micro-operation: [:r key value], [:w key value] or [:append key value]";
            (datum.at, format!("{words}, found {}", datum.what()))
        };
        let Form::List(parts) = &datum.form else { return Err(wrong()) };
        let [function, key, value] = parts.as_slice() else { return Err(wrong()) };
        let key_text = scalar(key, "a key")?;
        let key = self.keys.of(key_text);
        let op = match function.name() {
            Some("append") => Op::Append { key, value: self.values.of(scalar(value, "a value")?) },
            Some("w") => Op::Write { key, value: self.values.of(scalar(value, "a value")?) },
            Some("r") => self.read(key, value)?,
            _ => {
                let words = format!("expected :r, :w or :append, found {}", function.what());
                return Err((function.at, words));
            }
        };
        self.agree(&op, value)?;
        Ok(op)
    }

    fn read(&mut self, key: usize, value: &Datum) -> Result<Op, Wrong> {
        Ok(match &value.form {
            Form::List(items) => {
                let values: Result<Vec<u32>, Wrong> = items.iter().map(|item| self.element(item)).collect();
                Op::ReadList { key, values: values? }
            }
            Form::Nil => Op::Read { key, value: None },
            _ => Op::Read { key, value: Some(self.values.of(scalar(value, "a value, a list or nil")?)) },
        })
    }

    fn element(&mut self, item: &Datum) -> Result<u32, Wrong> {
        let number = self.values.of(scalar(item, "an element")?);
        u32::try_from(number).map_err(|_| (item.at, "expected fewer different values".to_owned()))
    }

    /// A history is of lists or of registers, not of both.
    fn agree(&mut self, op: &Op, value: &Datum) -> Result<(), Wrong> {
        let kind = match op {
            Op::Append { .. } | Op::ReadList { .. } => Kind::Lists,
            Op::Read { value: None, .. } => return Ok(()),
            Op::Write { .. } | Op::Read { .. } => Kind::Registers,
        };
        let known = *self.kind.get_or_insert(kind);
        match (known == kind, known) {
            (true, _) => Ok(()),
            (false, Kind::Lists) => Err((value.at, "expected a list: so far keys held lists".to_owned())),
            (false, Kind::Registers) => {
                Err((value.at, "expected a register: so far keys held single values".to_owned()))
            }
        }
    }
}

/// The process of a client; none for what the harness did itself. One that is not named is one client.
fn client(datum: &Datum) -> Option<String> {
    let Some(process) = datum.field("process") else { return Some(String::new()) };
    match &process.form {
        Form::Atom(number) if number.parse::<i128>().is_ok() => Some(number.clone()),
        _ => None,
    }
}

fn step(datum: &Datum) -> Result<Step, Wrong> {
    let Some(kind) = datum.field("type") else {
        return Err((datum.at, "expected a field :type".to_owned()));
    };
    match kind.name() {
        Some("invoke") => Ok(Step::Invoke),
        Some("ok") => Ok(Step::End(Outcome::Committed)),
        Some("fail") => Ok(Step::End(Outcome::Aborted)),
        Some("info") => Ok(Step::End(Outcome::Unknown)),
        _ => Err((kind.at, format!("expected :invoke, :ok, :fail or :info, found {}", kind.what()))),
    }
}

fn scalar(datum: &Datum, what: &str) -> Result<String, Wrong> {
    datum.scalar().ok_or_else(|| (datum.at, format!("expected {what}, found {}", datum.what())))
}
