//! Isolde under the suite: one session per transaction, polled by hand.
//!
//! Schedules write values as decimal numbers and words; Isolde's counters are eight bytes. So numbers
//! are stored as counters, and words so that they are never eight bytes long; what comes out, the
//! history included, is as the schedule writes it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use isolde::step::{Op, Session};
use isolde::{Builder, Cas, Db, Error, ErrorKind, Isolation, LockMode, Mode, Recorder, Savepoint, TxnId};
use isolde_history::explore::Begins;
use isolde_history::model::{Event, History};
use isolde_history::schedule::{Begin, Database, Failure, FailureClass, Operation, Output, Schedule, Setting, Swap};
use isolde_types::Key;

use crate::engine::{Engine, Unreachable};
use crate::names::in_names;
use crate::numbers;

/// Isolde, as a kind of database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Isolde;

impl Engine for Isolde {
    fn name(&self) -> &'static str {
        "isolde"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// A snapshot is taken at `begin` where the transaction has a read_ts from then on.
    fn begins(&self, isolation: Isolation, mode: Mode) -> Begins {
        static ASKED: LazyLock<HashMap<(Isolation, Mode), Begins>> = LazyLock::new(|| {
            let takes_snapshot = |Setting { isolation, mode }| {
                Some(open().ok()?.txn().isolation(isolation).mode(mode).begin().ok()?.read_ts().is_some())
            };
            let begins = |setting| match takes_snapshot(setting) {
                Some(false) => Begins::First,
                _ => Begins::Scheduled,
            };
            Setting::all().map(|setting| ((setting.isolation, setting.mode), begins(setting))).collect()
        });
        ASKED.get(&(isolation, mode)).copied().unwrap_or(Begins::Scheduled)
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        Ok(Box::new(open_with(&schedule.initial).and_then(Polled::on).map_err(|error| Unreachable(error.to_string()))?))
    }
}

/// Isolde in a directory: each schedule gets a database of its own in it. A wait for the log leads the sync
/// inside the poll, so that what comes out is the same as in memory and depends on no time.
#[derive(Debug)]
pub struct Durable {
    folder: PathBuf,
    opened: AtomicU64,
}

impl Durable {
    /// Databases in this folder: a new or empty one, or one that earlier runs have left, whose databases go.
    ///
    /// # Errors
    /// When it cannot be made, or holds anything else.
    pub fn new(folder: &Path) -> io::Result<Durable> {
        match std::fs::create_dir_all(folder) {
            Err(_) if folder.exists() && !folder.is_dir() => return Err(io::Error::other("it is not a directory")),
            made => made?,
        }
        for entry in std::fs::read_dir(folder)? {
            if !is_of_a_run(&entry?.path())? {
                return Err(io::Error::other("it holds other files: name a new or empty directory"));
            }
        }
        Ok(Durable { folder: folder.to_path_buf(), opened: AtomicU64::new(0) })
    }
}

/// Whether this is a database that an earlier run has left: what is not is not for a run to remove.
fn is_of_a_run(path: &Path) -> io::Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbered = name.strip_prefix("run-").is_some_and(|number| number.parse::<u64>().is_ok());
    if !numbered || !path.symlink_metadata()?.is_dir() {
        return Ok(false);
    }
    let ours = |name: &str| {
        let prefixes = ["MANIFEST", "log-", "spare-", "ckpt-", "new-"];
        name == "LOCK" || prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    for entry in std::fs::read_dir(path)? {
        if !ours(&entry?.file_name().to_string_lossy()) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Engine for Durable {
    fn name(&self) -> &'static str {
        Isolde.name()
    }

    fn version(&self) -> String {
        Isolde.version()
    }

    fn begins(&self, isolation: Isolation, mode: Mode) -> Begins {
        Isolde.begins(isolation, mode)
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        const SMALL_LOG: u64 = 64 << 10;
        let path = self.folder.join(format!("run-{}", self.opened.fetch_add(1, Ordering::Relaxed)));
        // What an earlier run has left is not this one's.
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Unreachable(format!("{}: {error}", path.display())));
            }
            _ => {}
        }
        let opened = filled(builder().path(path).log_segment_bytes(SMALL_LOG).no_threads(), &schedule.initial);
        let polled = opened.and_then(Polled::on);
        Ok(Box::new(polled.map_err(|error| Unreachable(error.to_string()))?))
    }
}

/// An operation under way.
type Running = Box<dyn FnMut(&mut Context<'_>) -> Poll<Result<Output, Error>>>;

/// A database that is polled by hand, and records.
struct Polled {
    db: Db,
    recorder: Option<Recorder>,
    sessions: BTreeMap<usize, Session>,
    running: BTreeMap<usize, Running>,
    savepoints: BTreeMap<(usize, String), Savepoint>,
    /// Who each transaction is to the database; known beyond its session, which a commit consumes.
    ids: BTreeMap<usize, TxnId>,
    /// What the schedule calls it.
    names: BTreeMap<TxnId, String>,
    /// Nobody reads the words of a failure.
    brief: bool,
}

/// Options of a database for schedules: their merge operators, over encoded values.
fn builder() -> Builder {
    let merge = |operator: &'static str| {
        move |old: Option<&[u8]>, new: &[u8]| {
            let old = old.map(|old| decode(&Bytes::copy_from_slice(old)));
            let new = decode(&Bytes::copy_from_slice(new));
            let merged = numbers::merge(operator, old.as_deref(), &new)?;
            Ok(encode(&merged).to_vec())
        }
    };
    Db::builder().merge_operator("append", merge("append")).merge_operator("max", merge("max"))
}

/// A database for schedules, in memory.
pub(crate) fn open() -> isolde::Result<Db> {
    open_with(&[])
}

/// The same, holding these keys.
pub(crate) fn open_with(initial: &[(Key, Bytes)]) -> isolde::Result<Db> {
    filled(builder().in_memory(), initial)
}

fn filled(builder: Builder, initial: &[(Key, Bytes)]) -> isolde::Result<Db> {
    let db = builder.open()?;
    if initial.is_empty() {
        return Ok(db);
    }
    db.transact(|txn| initial.iter().try_for_each(|(key, value)| txn.put_bytes(key, encode(value))))?;
    Ok(db)
}

impl Polled {
    fn on(db: Db) -> isolde::Result<Polled> {
        let recorder = Some(db.recorder()?);
        let (sessions, running) = (BTreeMap::new(), BTreeMap::new());
        Ok(Polled {
            db,
            recorder,
            sessions,
            running,
            savepoints: BTreeMap::new(),
            ids: BTreeMap::new(),
            names: BTreeMap::new(),
            brief: false,
        })
    }

    fn run(&mut self, txn: usize, operation: &Operation<Bytes>) -> Running {
        if operation.ends() {
            return self.end(txn, operation);
        }
        let Some(session) = self.sessions.get(&txn) else {
            return ready(Err(Error::TransactionEnded));
        };
        match operation {
            Operation::Get(key) => running(session.get(key), |value| Output::Value(value.map(|v| decode(&v)))),
            Operation::GetForUpdate(key) => {
                running(session.get_for_update(key), |value| Output::Value(value.map(|v| decode(&v))))
            }
            Operation::Put(key, value) => running(session.put(key, encode(value)), done),
            Operation::Insert(key, value) => running(session.insert(key, encode(value)), done),
            Operation::Delete(key) => running(session.delete(key), done),
            Operation::Scan(place) => running(session.scan(place.span()), |rows| {
                Output::Rows(rows.into_iter().map(|(key, value)| (key, decode(&value))).collect())
            }),
            Operation::Increment(key, by) => running(session.increment(key, *by), done),
            Operation::Merge { operator, key, value } => running(session.merge(operator, key, encode(value)), done),
            Operation::CompareAndSet { key, old, new } => {
                let expected = old.clone();
                let (stored, new) = (old.as_ref().map(encode), new.as_ref().map(encode));
                let op = session.compare_and_set(key, stored.as_deref(), new.as_deref());
                running(op, move |cas| match cas {
                    Cas::Swapped => Output::CompareAndSet { found: expected.clone(), swap: Swap::Done },
                    Cas::Current(found) => {
                        Output::CompareAndSet { found: found.map(|v| decode(&v)), swap: Swap::Refused }
                    }
                })
            }
            Operation::Lock(place) => running(session.lock(place.span(), LockMode::Exclusive), done),
            Operation::Savepoint(name) => {
                self.savepoints.insert((txn, name.clone()), session.savepoint());
                ready(Ok(Output::Done))
            }
            Operation::RollbackTo(name) => match self.savepoints.get(&(txn, name.clone())) {
                Some(savepoint) => running(session.rollback_to(*savepoint), done),
                None => ready(Err(Error::SavepointGone)),
            },
            Operation::Commit | Operation::Rollback => ready(Err(Error::TransactionEnded)),
        }
    }

    fn end(&mut self, txn: usize, operation: &Operation<Bytes>) -> Running {
        let Some(session) = self.sessions.remove(&txn) else {
            return ready(Err(Error::TransactionEnded));
        };
        match operation {
            Operation::Commit => running(session.commit(), |_| Output::Done),
            _ => {
                session.rollback();
                ready(Ok(Output::Done))
            }
        }
    }
}

impl Database for Polled {
    fn begin(&mut self, txn: usize, begin: &Begin<'_>) -> Result<(), Failure> {
        let builder = self.db.txn().isolation(begin.isolation).mode(begin.mode).label(begin.name);
        let builder = if begin.read_only { builder.read_only() } else { builder };
        match Session::begin(builder).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(session) => {
                let session =
                    session.map_err(|error| Failure { message: error.to_string(), ..failure(&error, Ends::Always) })?;
                self.ids.insert(txn, session.id());
                self.names.insert(session.id(), begin.name.to_owned());
                self.sessions.insert(txn, session);
                Ok(())
            }
            Poll::Pending => Err(refused("a begin waits")),
        }
    }

    fn start(&mut self, txn: usize, operation: &Operation<Bytes>) {
        let running = self.run(txn, operation);
        self.running.insert(txn, running);
    }

    fn poll(&mut self, txn: usize, cx: &mut Context<'_>) -> Poll<Result<Output, Failure>> {
        let Some(running) = self.running.get_mut(&txn) else {
            return Poll::Ready(Err(refused("nothing was started")));
        };
        let Poll::Ready(outcome) = running(cx) else { return Poll::Pending };
        self.running.remove(&txn);
        let ends = if self.sessions.contains_key(&txn) { Ends::ByKind } else { Ends::Always };
        Poll::Ready(outcome.map_err(|error| {
            let failure = failure(&error, ends);
            if self.brief {
                return failure;
            }
            let name_of = |number| self.names.get(&TxnId(number)).cloned();
            Failure { message: in_names(&error.to_string(), name_of), ..failure }
        }))
    }

    fn be_brief(&mut self) {
        self.brief = true;
    }

    fn waits_for(&mut self, txn: usize) -> Option<String> {
        let id = *self.ids.get(&txn)?;
        let waits = self.db.waits_for();
        let row = waits.rows.iter().find(|row| row.waiter == id)?;
        let who = row.blocker.label.as_deref()?;
        let mode = row.blocker.mode.to_string().to_lowercase();
        let article = if mode.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        Some(format!("{who}, who holds {article} {mode} lock on {}", row.target))
    }

    fn history(&mut self) -> History {
        self.running.clear();
        self.sessions.clear();
        let mut history = self.recorder.take().map(Recorder::finish).unwrap_or_default();
        history.initial.iter_mut().for_each(|(_, value)| *value = decode(value));
        history.events.iter_mut().for_each(decode_event);
        history
    }

    fn final_state(&mut self) -> BTreeMap<Key, Bytes> {
        let rows = self.db.snapshot().map(|snapshot| snapshot.scan(..).filter_map(Result::ok).collect::<Vec<_>>());
        rows.unwrap_or_default().into_iter().map(|(key, value)| (key, decode(&value))).collect()
    }

    fn complaints(&mut self) -> Vec<String> {
        self.db.check().err().into_iter().collect()
    }
}

fn running<T: 'static>(mut op: Op<T>, output: impl Fn(T) -> Output + 'static) -> Running {
    Box::new(move |cx| op.poll(cx).map(|outcome| outcome.map(&output)))
}

fn ready(outcome: Result<Output, Error>) -> Running {
    let mut outcome = Some(outcome);
    Box::new(move |_| Poll::Ready(outcome.take().unwrap_or(Err(Error::TransactionEnded))))
}

fn done((): ()) -> Output {
    Output::Done
}

/// Whether a failure ended its transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Always,
    ByKind,
}

/// A failure, without its words.
fn failure(error: &Error, ends: Ends) -> Failure {
    let (class, ended) = match error.kind() {
        ErrorKind::Conflict | ErrorKind::SnapshotTooOld => (FailureClass::Conflict, true),
        ErrorKind::Deadlock | ErrorKind::Wounded => (FailureClass::Deadlock, true),
        ErrorKind::LockTimeout | ErrorKind::LockBusy => (FailureClass::Timeout, false),
        _ => (FailureClass::Refused, false),
    };
    Failure { class, message: String::new(), ended: ended || ends == Ends::Always }
}

fn refused(message: &str) -> Failure {
    Failure { class: FailureClass::Refused, message: message.to_owned(), ended: false }
}

/// What makes a stored word longer than a counter.
const WORD: &[u8] = b"a word = ";

/// A value as it is stored: a number as a counter, a word with a prefix.
pub(crate) fn encode(value: &Bytes) -> Bytes {
    let text = std::str::from_utf8(value).unwrap_or_default();
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => Bytes::copy_from_slice(&number.to_be_bytes()),
        _ => [WORD, value].concat().into(),
    }
}

/// A stored value as schedules write it.
pub(crate) fn decode(stored: &Bytes) -> Bytes {
    match stored.strip_prefix(WORD) {
        Some(word) => Bytes::copy_from_slice(word),
        _ => stored[..]
            .try_into()
            .map_or_else(|_| stored.clone(), |counter| Bytes::from(i64::from_be_bytes(counter).to_string())),
    }
}

fn decode_event(event: &mut Event) {
    let decode_option = |value: &mut Option<Bytes>| *value = value.as_ref().map(decode);
    match event {
        Event::Read { value, .. } | Event::Write { value, .. } => decode_option(value),
        Event::Scan { rows, .. } => rows.iter_mut().for_each(|row| decode_option(&mut row.value)),
        Event::Commit { resolved, .. } => resolved.iter_mut().for_each(|(_, value)| *value = decode(value)),
        Event::Begin { .. } | Event::RollbackTo { .. } | Event::Abort { .. } | Event::Unknown { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_went_in() {
        for word in ["", "0", "-7", "007", "abcdefgh", "9223372036854775807", "9223372036854775808", "x"] {
            let value = Bytes::from(word);
            assert_eq!(decode(&encode(&value)), value, "{word}");
        }
        assert_eq!(encode(&Bytes::from("5")).len(), size_of::<i64>());
        assert_eq!(encode(&Bytes::new()).len(), WORD.len());
    }
}
