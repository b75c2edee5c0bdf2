//! What a program that is Rust code sees of its transaction.
//!
//! An operation is asked for when its future is polled first, and stays pending until the explorer has
//! chosen it, run it on the database, and put its answer here. So between two operations a program is
//! plain code, and where it waits the explorer knows what it wants to do next.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use isolde_types::{Key, KeyRange, Span};

use crate::schedule::notation::text;
use crate::schedule::{Failure, FailureClass, Operation, Output, Place, Swap, Value};

/// What programs return: `Ok` commits, an error rolls back.
pub type Answer<T = ()> = Result<T, Failure>;

/// A transaction, as a program of an exploration sees it: `get`, `put` and the rest, one at a time.
///
/// Values are decimal numbers and words, as schedules write them. Keys and words without white space can
/// be replayed from a file too.
///
/// *Errors*: whatever the database says; once it has ended the transaction, every operation fails.
#[derive(Debug, Default)]
pub struct Session {
    slot: RefCell<Slot>,
    over: Cell<bool>,
    misuse: Cell<Option<&'static str>>,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Idle,
    Asked(Operation),
    UnderWay,
    Answered(Answer<Output>),
}

impl Session {
    /// What a key holds; `None` if it is absent.
    pub async fn get(&self, key: &str) -> Answer<Option<String>> {
        self.read(Operation::Get(word_key(key))).await
    }

    /// The number that a key holds; an absent one counts as 0, and so does what is no number.
    pub async fn number(&self, key: &str) -> Answer<i64> {
        let value = self.get(key).await?;
        Ok(value.and_then(|value| value.parse().ok()).unwrap_or_default())
    }

    /// What a key holds, locked or marked to be written.
    pub async fn get_for_update(&self, key: &str) -> Answer<Option<String>> {
        self.read(Operation::GetForUpdate(word_key(key))).await
    }

    /// Writes a key.
    pub async fn put(&self, key: &str, value: impl ToString) -> Answer {
        self.write(Operation::Put(word_key(key), word(&value))).await
    }

    /// Writes a key that must be absent; refused, and the transaction lives on, if it is there.
    pub async fn insert(&self, key: &str, value: impl ToString) -> Answer {
        self.write(Operation::Insert(word_key(key), word(&value))).await
    }

    /// Deletes a key.
    pub async fn delete(&self, key: &str) -> Answer {
        self.write(Operation::Delete(word_key(key))).await
    }

    /// Adds to a number without reading it.
    pub async fn increment(&self, key: &str, by: i64) -> Answer {
        self.write(Operation::Increment(word_key(key), by)).await
    }

    /// Writes a key if it holds what is expected; says whether it did. `None` is absent.
    pub async fn compare_and_set(&self, key: &str, expected: Option<&str>, new: Option<&str>) -> Answer<bool> {
        let value = |text: &&str| word(text);
        let (old, new) = (expected.as_ref().map(value), new.as_ref().map(value));
        let output = self.ask(Operation::CompareAndSet { key: word_key(key), old, new }).await?;
        Ok(matches!(output, Output::CompareAndSet { swap: Swap::Done, .. }))
    }

    /// The rows of a span, such as `"a".."m"`, `..`, or `prefix("job/")`.
    pub async fn scan(&self, span: impl KeyRange) -> Answer<Vec<(String, String)>> {
        let Output::Rows(rows) = self.ask(Operation::Scan(place(span.into_span()))).await? else {
            return Ok(Vec::new());
        };
        Ok(rows.into_iter().map(|(key, value)| (text(&key).into_owned(), text(&value).into_owned())).collect())
    }

    /// Locks every key of a span, present or absent, to be written.
    pub async fn lock(&self, span: impl KeyRange) -> Answer {
        self.write(Operation::Lock(place(span.into_span()))).await
    }

    /// A point to which the transaction can go back.
    pub async fn savepoint(&self, name: &str) -> Answer {
        self.write(Operation::Savepoint(name.to_owned())).await
    }

    /// Undoes what was written since a savepoint.
    pub async fn rollback_to(&self, name: &str) -> Answer {
        self.write(Operation::RollbackTo(name.to_owned())).await
    }

    /// An error with which a program gives up: its transaction rolls back.
    #[must_use]
    pub fn give_up(&self, why: &str) -> Failure {
        Failure { class: FailureClass::Refused, message: why.to_owned(), ended: false }
    }

    async fn read(&self, operation: Operation) -> Answer<Option<String>> {
        match self.ask(operation).await? {
            Output::Value(value) => Ok(value.map(|value| text(&value).into_owned())),
            _ => Ok(None),
        }
    }

    async fn write(&self, operation: Operation) -> Answer {
        self.ask(operation).await.map(|_| ())
    }

    fn ask(&self, operation: Operation) -> Asking<'_> {
        Asking { session: self, operation: Some(operation) }
    }

    /// What the program wants to do next; it is under way from now on.
    pub(super) fn take_asked(&self) -> Option<Operation> {
        let mut slot = self.slot.borrow_mut();
        match std::mem::replace(&mut *slot, Slot::UnderWay) {
            Slot::Asked(operation) => Some(operation),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// The answer of the operation that is under way.
    pub(super) fn answer(&self, answer: Answer<Output>) {
        if answer.as_ref().is_err_and(|failure| failure.ended) {
            self.over.set(true);
        }
        self.slot.replace(Slot::Answered(answer));
    }

    /// Whether the database has ended the transaction.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// How the program misused the session, if it did; one that is done must have nothing left.
    pub(super) fn misuse(&self, is_done: bool) -> Option<&'static str> {
        let left = is_done && !matches!(*self.slot.borrow(), Slot::Idle);
        self.misuse.get().or(left.then_some("it left an operation before that had ended"))
    }
}

/// One operation; see the module.
struct Asking<'s> {
    session: &'s Session,
    /// Until it is asked for.
    operation: Option<Operation>,
}

impl Future for Asking<'_> {
    type Output = Answer<Output>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let session = self.session;
        let mut slot = session.slot.borrow_mut();
        match self.operation.take() {
            Some(_) if session.is_over() => Poll::Ready(Err(over())),
            Some(operation) => {
                match *slot {
                    Slot::Idle => *slot = Slot::Asked(operation),
                    _ => session.misuse.set(Some("it does several operations at once, or left one")),
                }
                Poll::Pending
            }
            None => match std::mem::take(&mut *slot) {
                Slot::Answered(answer) => Poll::Ready(answer),
                other => {
                    *slot = other;
                    Poll::Pending
                }
            },
        }
    }
}

fn over() -> Failure {
    let message = "the transaction has ended".to_owned();
    Failure { class: FailureClass::Refused, message, ended: true }
}

fn word_key(key: &str) -> Key {
    Key::copy_from_slice(key.as_bytes())
}

fn word(value: &impl ToString) -> Value {
    Value::Word(Bytes::from(value.to_string()))
}

fn place(span: Span) -> Place {
    Place::Between { start: span.start, end: span.end }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
