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
use isolde::step::{self, Op, Session};
use isolde::{Builder, Cas, Commit, Db, Error, ErrorKind, Isolation, LockMode, Mode, Recorder, Savepoint, TxnId};
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
        let db = builder().in_memory().open().inspect(|db| {
            // Each key once, with its last value.
            let rows: BTreeMap<&Key, &Bytes> = schedule.initial.iter().map(|(key, value)| (key, value)).collect();
            if !rows.is_empty() {
                step::fill(db, rows.into_iter().map(|(key, value)| (&key[..], encode(value))));
            }
        });
        Ok(Box::new(db.and_then(Polled::on).map_err(|error| Unreachable(error.to_string()))?))
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

/// An operation under way, and what makes its answer the schedule's.
enum Running {
    Value(Op<Option<Bytes>>),
    Unit(Op<()>),
    Rows(Op<Vec<(Key, Bytes)>>),
    Swap(Op<Cas>, Option<Bytes>),
    Commit(Op<Commit>),
    /// It ran when it was started.
    Ran(Option<Result<Output, Error>>),
}

/// A database that is polled by hand, and records.
struct Polled {
    db: Db,
    recorder: Option<Recorder>,
    /// By their numbers in the schedule.
    txns: Vec<Txn>,
    /// Nobody reads the words of a failure.
    brief: bool,
}

/// A transaction of a schedule.
#[derive(Default)]
struct Txn {
    session: Option<Session>,
    running: Option<Running>,
    savepoints: Vec<(String, Savepoint)>,
    /// Who it is to the database; known beyond its session, which a commit consumes.
    id: Option<TxnId>,
    /// What the schedule calls it, where that is asked.
    name: Option<String>,
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
        Ok(Polled { db, recorder, txns: Vec::new(), brief: false })
    }

    /// A transaction of the schedule, known from now on.
    fn txn(&mut self, txn: usize) -> &mut Txn {
        if txn >= self.txns.len() {
            self.txns.resize_with(txn + 1, Txn::default);
        }
        &mut self.txns[txn]
    }

    /// What the schedule calls a transaction of the database.
    fn name_of(&self, number: u64) -> Option<String> {
        self.txns.iter().find(|txn| txn.id == Some(TxnId(number)))?.name.clone()
    }
}

impl Txn {
    fn run(&mut self, operation: &Operation<Bytes>) -> Running {
        if operation.ends() {
            return self.end(operation);
        }
        let Some(session) = &self.session else {
            return Running::of(Err(Error::TransactionEnded));
        };
        match operation {
            Operation::Get(key) => Running::Value(session.get(key)),
            Operation::GetForUpdate(key) => Running::Value(session.get_for_update(key)),
            Operation::Put(key, value) => Running::Unit(session.put(key, encode(value))),
            Operation::Insert(key, value) => Running::Unit(session.insert(key, encode(value))),
            Operation::Delete(key) => Running::Unit(session.delete(key)),
            Operation::Scan(place) => Running::Rows(session.scan(place.span())),
            Operation::Increment(key, by) => Running::Unit(session.increment(key, *by)),
            Operation::Merge { operator, key, value } => Running::Unit(session.merge(operator, key, encode(value))),
            Operation::CompareAndSet { key, old, new } => {
                let (stored, new) = (old.as_ref().map(encode), new.as_ref().map(encode));
                Running::Swap(session.compare_and_set(key, stored.as_deref(), new.as_deref()), old.clone())
            }
            Operation::Lock(place) => Running::Unit(session.lock(place.span(), LockMode::Exclusive)),
            Operation::Savepoint(name) => {
                let savepoint = session.savepoint();
                self.savepoints.retain(|(known, _)| known != name);
                self.savepoints.push((name.clone(), savepoint));
                Running::of(Ok(Output::Done))
            }
            Operation::RollbackTo(name) => match self.savepoints.iter().find(|(known, _)| known == name) {
                Some((_, savepoint)) => Running::Unit(session.rollback_to(*savepoint)),
                None => Running::of(Err(Error::SavepointGone)),
            },
            Operation::Commit | Operation::Rollback => Running::of(Err(Error::TransactionEnded)),
        }
    }

    fn end(&mut self, operation: &Operation<Bytes>) -> Running {
        let Some(session) = self.session.take() else {
            return Running::of(Err(Error::TransactionEnded));
        };
        match operation {
            Operation::Commit => Running::Commit(session.commit()),
            _ => {
                session.rollback();
                Running::of(Ok(Output::Done))
            }
        }
    }
}

impl Running {
    fn of(outcome: Result<Output, Error>) -> Running {
        Running::Ran(Some(outcome))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Output, Error>> {
        match self {
            Running::Value(op) => op.poll(cx).map_ok(|value| Output::Value(value.map(|value| decode(&value)))),
            Running::Unit(op) => op.poll(cx).map_ok(|()| Output::Done),
            Running::Rows(op) => op
                .poll(cx)
                .map_ok(|rows| Output::Rows(rows.into_iter().map(|(key, value)| (key, decode(&value))).collect())),
            Running::Swap(op, expected) => op.poll(cx).map_ok(|cas| match cas {
                Cas::Swapped => Output::CompareAndSet { found: expected.clone(), swap: Swap::Done },
                Cas::Current(found) => {
                    Output::CompareAndSet { found: found.map(|value| decode(&value)), swap: Swap::Refused }
                }
            }),
            Running::Commit(op) => op.poll(cx).map_ok(|_| Output::Done),
            Running::Ran(outcome) => Poll::Ready(outcome.take().unwrap_or(Err(Error::TransactionEnded))),
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
                let name = (!self.brief).then(|| begin.name.to_owned());
                let begun = self.txn(txn);
                (begun.id, begun.name) = (Some(session.id()), name);
                begun.session = Some(session);
                Ok(())
            }
            Poll::Pending => Err(refused("a begin waits")),
        }
    }

    fn start(&mut self, txn: usize, operation: &Operation<Bytes>) {
        let txn = self.txn(txn);
        txn.running = Some(txn.run(operation));
    }

    fn poll(&mut self, txn: usize, cx: &mut Context<'_>) -> Poll<Result<Output, Failure>> {
        let polled = self.txn(txn);
        let Some(running) = &mut polled.running else {
            return Poll::Ready(Err(refused("nothing was started")));
        };
        let Poll::Ready(outcome) = running.poll(cx) else { return Poll::Pending };
        polled.running = None;
        let ends = if polled.session.is_some() { Ends::ByKind } else { Ends::Always };
        Poll::Ready(outcome.map_err(|error| {
            let failure = failure(&error, ends);
            if self.brief {
                return failure;
            }
            Failure { message: in_names(&error.to_string(), |number| self.name_of(number)), ..failure }
        }))
    }

    fn be_brief(&mut self) {
        self.brief = true;
    }

    fn waits_for(&mut self, txn: usize) -> Option<String> {
        let id = self.txn(txn).id?;
        let waits = self.db.waits_for();
        let row = waits.rows.iter().find(|row| row.waiter == id)?;
        let who = row.blocker.label.as_deref()?;
        let mode = row.blocker.mode.to_string().to_lowercase();
        let article = if mode.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        Some(format!("{who}, who holds {article} {mode} lock on {}", row.target))
    }

    fn history(&mut self) -> History {
        // Whoever waits leaves his queue before anybody is rolled back.
        self.txns.iter_mut().for_each(|txn| txn.running = None);
        self.txns.clear();
        let mut history = self.recorder.take().map(Recorder::finish).unwrap_or_default();
        history.initial.iter_mut().for_each(|(_, value)| *value = decode(value));
        history.events.iter_mut().for_each(decode_event);
        history
    }

    fn final_state(&mut self) -> BTreeMap<Key, Bytes> {
        step::rows(&self.db).into_iter().map(|(key, value)| (key, decode(&value))).collect()
    }

    fn complaints(&mut self) -> Vec<String> {
        self.db.check().err().into_iter().collect()
    }
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
        Ok(number) if is_as_printed(text) => Bytes::copy_from_slice(&number.to_be_bytes()),
        _ => [WORD, value].concat().into(),
    }
}

/// Whether the text of a number is the one that it is printed as.
fn is_as_printed(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text == "0" || digits.starts_with(|first: char| ('1'..='9').contains(&first))
}

/// A stored value as schedules write it.
pub(crate) fn decode(stored: &Bytes) -> Bytes {
    match stored.strip_prefix(WORD) {
        Some(word) => Bytes::copy_from_slice(word),
        _ => stored[..].try_into().map_or_else(|_| stored.clone(), |counter| decimal(i64::from_be_bytes(counter))),
    }
}

/// A number in digits. By hand, and the small ones from a table: a run decodes some thirty of them.
fn decimal(number: i64) -> Bytes {
    const TWO_DIGITS: &[u8] = b"\
        00010203040506070809101112131415161718192021222324252627282930313233343536373839\
        4041424344454647484950515253545556575859\
        60616263646566676869707172737475767778798081828384858687888990919293949596979899";
    if let Some(small) = usize::try_from(number).ok().filter(|small| *small < TWO_DIGITS.len() / 2) {
        return Bytes::from_static(&TWO_DIGITS[2 * small + usize::from(small < 10)..2 * small + 2]);
    }
    const LONGEST: usize = "-9223372036854775808".len();
    let (mut text, mut start, mut left) = ([b'-'; LONGEST], LONGEST, number.unsigned_abs());
    loop {
        start -= 1;
        text[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    start -= usize::from(number < 0);
    Bytes::copy_from_slice(&text[start..])
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
        for word in [
            "",
            "0",
            "-7",
            "007",
            "abcdefgh",
            "9223372036854775807",
            "9223372036854775808",
            "x",
            "-0",
            "+1",
            "--1",
            "-",
        ] {
            let value = Bytes::from(word);
            assert_eq!(decode(&encode(&value)), value, "{word}");
        }
        for number in (-120..120).chain([i64::MAX, i64::MIN]) {
            let value = Bytes::from(number.to_string());
            assert_eq!(encode(&value), number.to_be_bytes()[..], "{number}");
            assert_eq!(decode(&encode(&value)), value, "{number}");
        }
        assert_eq!(encode(&Bytes::new()).len(), WORD.len());
    }
}
