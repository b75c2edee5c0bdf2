//! Text to [`Schedule`]: one pass over the lines; the first thing that is wrong ends it.

use std::fmt;

use bytes::Bytes;
use isolde_types::{Isolation, Key, Mode};

use super::notation::{
    Action, BeginWords, Expectation, Hunt, Operation, Place, Schedule, ShownWithoutControl, Step, Value,
};

/// What is wrong with a schedule, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotationError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What stands there.
    pub found: String,
    /// What would have been right.
    pub expected: String,
}

impl fmt::Display for NotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: found {}, expected {}", self.line, self.column, self.found, self.expected)
    }
}

impl std::error::Error for NotationError {}

type Result<T> = std::result::Result<T, NotationError>;

const OPERATIONS: &str = "an operation: begin, get, get-for-update, put, insert, delete, scan, increment, merge, cas, \
                          lock, savepoint, rollback-to, commit or rollback";
const KEY: &str = "a key (a word without `=` and `..` that does not start with `#` or `$` nor end in `*`)";
const SPAN: &str = "a span: A..B, A.., ..B, .. or P*";
const ASSIGNMENT: &str = "KEY=VALUE";

/// A word and where it stands.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    line: usize,
    column: usize,
}

impl Word<'_> {
    fn error(self, expected: impl Into<String>) -> NotationError {
        let found = if self.text.is_empty() { "the end of the line".into() } else { format!("`{}`", self.text) };
        NotationError { line: self.line, column: self.column, found, expected: expected.into() }
    }

    /// The error of a word that is right in itself, but not here; `found` says why.
    fn misplaced(self, found: impl Into<String>, expected: impl Into<String>) -> NotationError {
        NotationError { line: self.line, column: self.column, found: found.into(), expected: expected.into() }
    }
}

/// The words of one line that are not yet read.
struct Words<'a> {
    rest: std::vec::IntoIter<Word<'a>>,
    end: Word<'a>,
}

impl<'a> Words<'a> {
    /// The words after column `skipped` up to a word that starts a comment.
    fn new(text: &'a str, line: usize, skipped: usize) -> Self {
        let mut words = Vec::new();
        let mut column = skipped + 1;
        for piece in text.split_inclusive(char::is_whitespace) {
            let word = piece.trim_end();
            if word.starts_with('#') {
                break;
            }
            if !word.is_empty() {
                words.push(Word { text: word, line, column });
            }
            column += piece.chars().count();
        }
        let column = words.last().map_or(skipped + 1, |last| last.column + last.text.chars().count());
        Words { rest: words.into_iter(), end: Word { text: "", line, column } }
    }

    fn optional(&mut self) -> Option<Word<'a>> {
        self.rest.next()
    }

    fn next(&mut self, expected: &str) -> Result<Word<'a>> {
        self.optional().ok_or_else(|| self.end.error(expected))
    }

    fn key(&mut self) -> Result<Key> {
        let word = self.next(KEY)?;
        key(word.text).ok_or_else(|| word.error(KEY))
    }

    fn place(&mut self) -> Result<Place> {
        let word = self.next(SPAN)?;
        place(word.text).ok_or_else(|| word.error(SPAN))
    }

    fn finish(&mut self) -> Result<()> {
        self.optional().map_or(Ok(()), |word| Err(word.error("the end of the line")))
    }
}

fn key(word: &str) -> Option<Key> {
    let bad =
        word.is_empty() || word.contains("..") || word.contains('=') || word.ends_with('*') || word.starts_with('$');
    (!bad).then(|| bytes(word))
}

fn place(word: &str) -> Option<Place> {
    if let Some(prefix) = word.strip_suffix('*') {
        return if prefix.is_empty() { Some(Place::Prefix(Key::new())) } else { key(prefix).map(Place::Prefix) };
    }
    let (start, end) = word.split_once("..")?;
    let start = if start.is_empty() { Key::new() } else { key(start)? };
    let end = if end.is_empty() { None } else { Some(key(end)?) };
    Some(Place::Between { start, end })
}

fn bytes(word: &str) -> Bytes {
    Bytes::copy_from_slice(word.as_bytes())
}

/// Splits `x+5` and `x-5`; `None` when the text does not end in a signed number.
pub(super) fn split_sum(text: &str) -> Option<(&str, i64)> {
    let (at, _) = text.char_indices().rev().find(|(_, c)| !c.is_ascii_digit())?;
    let (key, number) = text.split_at(at);
    (!key.is_empty() && number.len() > 1).then(|| number.parse().ok().map(|plus| (key, plus)))?
}

pub(super) fn parse(text: &str) -> Result<Schedule> {
    let mut parser = Parser::default();
    for (index, line) in text.lines().enumerate() {
        parser.line(line, index + 1)?;
    }
    parser.finish(text.lines().count() + 1)
}

/// Where the comments of the head of the file end.
#[derive(Default, PartialEq)]
enum Head {
    #[default]
    Before,
    Inside,
    After,
}

#[derive(Default)]
struct Parser<'a> {
    schedule: Schedule,
    txns: Vec<TxnText>,
    expectations: Vec<(Word<'a>, &'a str, usize, &'a str)>,
    head: Head,
    /// The line that says what is hunted, to point at if `expect-final` is missing.
    hunts: Option<Word<'a>>,
}

/// What one transaction has done so far, as far as the text shows.
#[derive(Default)]
struct TxnText {
    steps: Vec<Action>,
    savepoints: Vec<String>,
    ended_on: Option<usize>,
}

impl<'a> Parser<'a> {
    fn line(&mut self, line: &'a str, number: usize) -> Result<()> {
        let trimmed = line.trim_start();
        if let Some(comment) = trimmed.strip_prefix('#') {
            self.comment(comment.strip_prefix(' ').unwrap_or(comment).trim_end());
            return Ok(());
        }
        if self.head == Head::Inside {
            self.head = Head::After;
        }
        if trimmed.is_empty() {
            return Ok(());
        }
        let column = line.chars().count() - trimmed.chars().count() + 1;
        let (name, rest) = self.split(trimmed, number, column)?;
        let skipped = column + name.text.chars().count();
        let mut words = Words::new(rest, number, skipped);
        self.section(name, &mut words)?;
        words.finish()
    }

    fn split(&self, line: &'a str, number: usize, column: usize) -> Result<(Word<'a>, &'a str)> {
        let (name, rest) = line.split_once(':').unwrap_or((line, ""));
        let first = Word { text: line.split_whitespace().next().unwrap_or(""), line: number, column };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if rest.len() == line.len() || !line.contains(':') || name.is_empty() || !name.chars().all(is_name) {
            return Err(first.error("`TXN: operation`, `hunts:`, `init:`, `expect:`, `expect-final:` or `control:`"));
        }
        Ok((Word { text: name, line: number, column }, rest))
    }

    fn comment(&mut self, comment: &str) {
        match self.head {
            Head::Before if comment.is_empty() => {}
            Head::Before => {
                self.schedule.title = comment.to_owned();
                self.head = Head::Inside;
            }
            Head::Inside => self.schedule.about.push(comment.to_owned()),
            Head::After => {}
        }
    }

    fn section(&mut self, name: Word<'a>, words: &mut Words<'a>) -> Result<()> {
        match name.text {
            "hunts" => self.hunts(name, words),
            "control" => self.control(words),
            "init" => self.assignments(words, |schedule, word, key, value| {
                if schedule.initial.iter().any(|(k, _)| *k == key) {
                    return Err(word.misplaced(format!("`{}` twice", word.text), "each key once"));
                }
                schedule.initial.push((key, bytes(value)));
                Ok(())
            }),
            "expect-final" => self.assignments(words, |schedule, _, key, value| {
                schedule.expect_final.push((key, present(value, bytes)));
                Ok(())
            }),
            "expect" => self.expect(words),
            _ => self.step(name, words),
        }
    }

    fn hunts(&mut self, name: Word<'a>, words: &mut Words<'a>) -> Result<()> {
        let expected = || format!("one of {}", Hunt::words().collect::<Vec<_>>().join(", "));
        let word = words.next(&expected())?;
        if self.schedule.hunts.is_some() {
            return Err(name.misplaced("a second `hunts:`", "one"));
        }
        self.schedule.hunts = Some(Hunt::from_code(word.text).ok_or_else(|| word.error(expected()))?);
        self.hunts = Some(word);
        Ok(())
    }

    fn control(&mut self, words: &mut Words<'a>) -> Result<()> {
        let word = words.next("`none`")?;
        if word.text != "none" {
            return Err(word.error("`none`"));
        }
        self.schedule.shown_without_control = ShownWithoutControl::No;
        Ok(())
    }

    fn assignments(
        &mut self,
        words: &mut Words<'a>,
        mut assign: impl FnMut(&mut Schedule, Word<'a>, Key, &'a str) -> Result<()>,
    ) -> Result<()> {
        let mut word = words.next(ASSIGNMENT)?;
        loop {
            let (name, value) = word.text.split_once('=').ok_or_else(|| word.error(ASSIGNMENT))?;
            let key = key(name).ok_or_else(|| word.error(ASSIGNMENT))?;
            assign(&mut self.schedule, word, key, value)?;
            match words.optional() {
                Some(next) => word = next,
                None => return Ok(()),
            }
        }
    }

    fn expect(&mut self, words: &mut Words<'a>) -> Result<()> {
        const EXPECTED: &str = "TXN.STEP=VALUE, such as T1.3=11";
        let mut word = words.next(EXPECTED)?;
        loop {
            let parts = word.text.split_once('=').and_then(|(step, value)| {
                let (txn, number) = step.rsplit_once('.')?;
                Some((txn, number.parse::<usize>().ok()?, value))
            });
            let (txn, number, value) = parts.ok_or_else(|| word.error(EXPECTED))?;
            self.expectations.push((word, txn, number, value));
            match words.optional() {
                Some(next) => word = next,
                None => return Ok(()),
            }
        }
    }

    fn step(&mut self, name: Word<'a>, words: &mut Words<'a>) -> Result<()> {
        let verb = words.next(OPERATIONS)?;
        let txn = self.txn(name);
        if let Some(line) = self.txns[txn].ended_on {
            let found = format!("a step of {} after its end on line {line}", name.text);
            return Err(verb.misplaced(found, "another transaction"));
        }
        let action = match verb.text {
            "begin" => self.begin(txn, verb, words)?,
            _ => Action::Do(self.operation(txn, verb, words)?),
        };
        self.txns[txn].note(&action, verb.line);
        self.schedule.steps.push(Step { txn, action });
        Ok(())
    }

    fn txn(&mut self, name: Word<'a>) -> usize {
        if let Some(txn) = self.schedule.txns.iter().position(|known| known == name.text) {
            return txn;
        }
        self.schedule.txns.push(name.text.to_owned());
        self.txns.push(TxnText::default());
        self.txns.len() - 1
    }

    fn begin(&mut self, txn: usize, verb: Word<'a>, words: &mut Words<'a>) -> Result<Action> {
        if !self.txns[txn].steps.is_empty() {
            return Err(verb.misplaced("`begin` after another step", "`begin` first"));
        }
        let mut begin = BeginWords::default();
        while let Some(word) = words.optional() {
            begin.take(word)?;
        }
        Ok(Action::Begin(begin))
    }

    fn operation(&mut self, txn: usize, verb: Word<'a>, words: &mut Words<'a>) -> Result<Operation> {
        let value = |words: &mut Words<'a>| self.txns[txn].value(words.next("a value")?);
        Ok(match verb.text {
            "get" => Operation::Get(words.key()?),
            "get-for-update" => Operation::GetForUpdate(words.key()?),
            "put" => Operation::Put(words.key()?, value(words)?),
            "insert" => Operation::Insert(words.key()?, value(words)?),
            "delete" => Operation::Delete(words.key()?),
            "scan" => Operation::Scan(words.place()?),
            "increment" => Operation::Increment(words.key()?, number(words)?),
            "merge" => {
                let operator = words.next("the name of a merge operator")?.text.to_owned();
                Operation::Merge { operator, key: words.key()?, value: value(words)? }
            }
            "cas" => {
                let key = words.key()?;
                let (old, new) = (words.next("the old value")?, words.next("the new value")?);
                let read = |word: Word<'a>| present(word.text, |_| self.txns[txn].value(word)).transpose();
                Operation::CompareAndSet { key, old: read(old)?, new: read(new)? }
            }
            "lock" => Operation::Lock(words.place()?),
            "savepoint" => Operation::Savepoint(words.next("the name of a savepoint")?.text.to_owned()),
            "rollback-to" => Operation::RollbackTo(self.txns[txn].savepoint(words)?),
            "commit" => Operation::Commit,
            "rollback" => Operation::Rollback,
            _ => return Err(verb.error(OPERATIONS)),
        })
    }

    fn finish(mut self, end: usize) -> Result<Schedule> {
        let after = Word { text: "", line: end, column: 1 };
        if self.schedule.steps.is_empty() {
            return Err(after.misplaced("the end of the file", "at least one step"));
        }
        if let (Some(word), true) = (self.hunts, self.schedule.expect_final.is_empty())
            && self.schedule.hunts == Some(Hunt::FinalState)
        {
            return Err(word.misplaced("`final-state` without `expect-final:`", "what the final state must be"));
        }
        for (word, name, step, value) in std::mem::take(&mut self.expectations) {
            let expectation = self.expectation(name, step, value);
            self.schedule.expect.push(expectation.map_err(|expected| word.error(expected))?);
        }
        Ok(self.schedule)
    }

    fn expectation(&self, name: &str, step: usize, value: &str) -> std::result::Result<Expectation, String> {
        let txn = self.schedule.txns.iter().position(|known| known == name);
        let txn = txn.ok_or_else(|| format!("one of the transactions {}", self.schedule.txns.join(", ")))?;
        let steps = &self.txns[txn].steps;
        match step.checked_sub(1).and_then(|index| steps.get(index)) {
            None => Err(format!("a step of {name}, from 1 to {}", steps.len())),
            Some(action) if !reads(action) => Err(format!("a step that reads; step {step} of {name} is `{action}`")),
            Some(_) => Ok(Expectation { txn, step, reads: value.to_owned() }),
        }
    }
}

fn reads(action: &Action) -> bool {
    use Operation::{CompareAndSet, Get, GetForUpdate, Scan};
    matches!(action, Action::Do(Get(_) | GetForUpdate(_) | Scan(_) | CompareAndSet { .. }))
}

fn present<T>(word: &str, value: impl FnOnce(&str) -> T) -> Option<T> {
    (word != "-").then(|| value(word))
}

fn number(words: &mut Words<'_>) -> Result<i64> {
    let word = words.next("a whole number")?;
    word.text.parse().map_err(|_| word.error("a whole number"))
}

impl BeginWords {
    fn take(&mut self, word: Word<'_>) -> Result<()> {
        let known = if let Ok(isolation) = word.text.parse::<Isolation>() {
            self.isolation.replace(isolation).is_none()
        } else if let Ok(mode) = word.text.parse::<Mode>() {
            self.mode.replace(mode).is_none()
        } else {
            word.text == "read-only" && !std::mem::replace(&mut self.read_only, true)
        };
        let names = || {
            let levels = Isolation::ALL.map(Isolation::name).join(", ");
            format!("at most one of each: a level ({levels}), a mode (pessimistic, optimistic), read-only")
        };
        if known { Ok(()) } else { Err(word.error(names())) }
    }
}

impl TxnText {
    fn note(&mut self, action: &Action, line: usize) {
        match action {
            Action::Do(Operation::Savepoint(name)) => self.savepoints.push(name.clone()),
            Action::Do(operation) if operation.ends() => self.ended_on = Some(line),
            _ => {}
        }
        self.steps.push(action.clone());
    }

    fn savepoint(&mut self, words: &mut Words<'_>) -> Result<String> {
        let word = words.next("the name of a savepoint")?;
        let known = self.savepoints.iter().rposition(|name| name == word.text);
        let index = known.ok_or_else(|| word.error("a savepoint that this transaction has set"))?;
        self.savepoints.truncate(index + 1);
        Ok(word.text.to_owned())
    }

    fn value(&self, word: Word<'_>) -> Result<Value> {
        let Some(sum) = word.text.strip_prefix('$') else { return Ok(Value::Word(bytes(word.text))) };
        let (name, plus) = split_sum(sum).unwrap_or((sum, 0));
        let key = key(name).ok_or_else(|| word.error("$KEY, $KEY+N or $KEY-N"))?;
        if self.steps.iter().any(|action| reads_key(action, &key)) {
            return Ok(Value::LastRead { key, plus });
        }
        let expected = format!("a key that this transaction has read before; it has not read {name}");
        Err(word.error(expected))
    }
}

/// Whether a `$key` can stand for what this step read.
fn reads_key(action: &Action, key: &Key) -> bool {
    match action {
        Action::Do(Operation::Get(read) | Operation::GetForUpdate(read)) => read == key,
        Action::Do(Operation::Scan(place)) => place.span().contains(key),
        _ => false,
    }
}
