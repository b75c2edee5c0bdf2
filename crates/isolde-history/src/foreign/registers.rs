//! Register text: `r(key,value,session,txn)` and `w(key,value,session,txn)`, one operation a line.
//!
//! The transactions of a session follow each other as their lines do; nothing is said of real time
//! across sessions. Transaction -1 stands for aborted writes. A value that nobody wrote is the initial
//! one of its key.

use std::collections::HashMap;

use super::datum::error_at;
use super::observed::{Initial, Kind, Numbers, Observed, ObservedTxn, Op, sort_keys};
use crate::json::ReadError;
use crate::resolve::Outcome;

/// An operation of a line: its letter, and its four arguments with their columns.
struct Line<'t> {
    is_read: bool,
    arguments: [(usize, &'t str); 4],
}

#[derive(Default)]
struct Builder {
    keys: Numbers,
    values: Numbers,
    txns: Vec<ObservedTxn>,
    numbers: HashMap<i64, usize>,
    sessions: HashMap<i64, usize>,
    session_of: HashMap<i64, i64>,
}

pub(super) fn read(text: &str) -> Result<Observed, ReadError> {
    let mut builder = Builder::default();
    let mut at = 0;
    for (number, raw) in text.split_inclusive('\n').enumerate() {
        let fail = |(column, words): (usize, String)| error_at(text, at + column, words);
        if !raw.trim().is_empty() {
            let line = parse(raw).map_err(fail)?;
            builder.add(number + 1, &line).map_err(fail)?;
        }
        at += raw.len();
    }
    if builder.txns.is_empty() {
        return Err(error_at(text, 0, "expected an operation such as r(x,1,0,0), found an empty text"));
    }
    let keys = sort_keys(builder.keys.texts, &mut builder.txns);
    let (txns, values) = (builder.txns, builder.values.texts);
    Ok(Observed { kind: Kind::Registers, txns, keys, values, initial: Initial::Unwritten })
}

fn parse(raw: &str) -> Result<Line<'_>, (usize, String)> {
    let start = raw.len() - raw.trim_start().len();
    let line = raw.trim();
    let expected = || (start, format!("expected r(key,value,session,txn) or w(..), found {line:?}"));
    let is_read = line.starts_with('r');
    let inner = line.strip_prefix(['r', 'w']).and_then(|rest| rest.strip_prefix('(')).ok_or_else(expected)?;
    let inner = inner.strip_suffix(')').ok_or_else(|| (start + line.len(), "expected `)`".to_owned()))?;
    let mut arguments = [(0, ""); 4];
    let mut count = 0;
    let mut column = start + 2;
    for argument in inner.split(',') {
        if let Some(slot) = arguments.get_mut(count) {
            *slot = (column, argument.trim());
        }
        column += argument.len() + 1;
        count += 1;
    }
    match arguments.iter().find(|(_, argument)| argument.is_empty()) {
        _ if count != 4 => Err((start, format!("expected four arguments: key, value, session, txn; found {count}"))),
        Some((column, _)) => Err((*column, "expected an argument".to_owned())),
        None => Ok(Line { is_read, arguments }),
    }
}

fn whole((column, text): (usize, &str), what: &str) -> Result<i64, (usize, String)> {
    text.parse().map_err(|_| (column, format!("expected a whole number for the {what}, found {text:?}")))
}

impl Builder {
    fn add(&mut self, number: usize, line: &Line<'_>) -> Result<(), (usize, String)> {
        let [(_, key), (_, value), session_text, txn_text] = line.arguments;
        let (session, id) = (whole(session_text, "session")?, whole(txn_text, "transaction")?);
        let (key, value) = (self.keys.of(key.to_owned()), self.values.of(value.to_owned()));
        let op = if line.is_read { Op::Read { key, value: Some(value) } } else { Op::Write { key, value } };
        if id == -1 {
            if !line.is_read {
                self.begin(format!("T-1@{number}"), number, Outcome::Aborted, None, op);
            }
            return Ok(());
        }
        let owner = *self.session_of.entry(id).or_insert(session);
        if owner != session {
            return Err((session_text.0, format!("expected session {owner}, which transaction {id} belongs to")));
        }
        if let Some(txn) = self.numbers.get(&id) {
            self.txns[*txn].ops.push(op);
        } else {
            let txn = self.txns.len();
            let after = self.sessions.insert(session, txn);
            self.begin(format!("T{id}"), number, Outcome::Committed, after, op);
            self.numbers.insert(id, txn);
        }
        Ok(())
    }

    fn begin(&mut self, name: String, line: usize, outcome: Outcome, after: Option<usize>, op: Op) {
        let begin = self.txns.len();
        self.txns.push(ObservedTxn { name, line, outcome, begin, end: None, after, ops: vec![op] });
    }
}
