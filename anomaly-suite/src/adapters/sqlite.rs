//! SQLite, through `rusqlite` with its own copy of the library: one connection per transaction, on one
//! file in a private directory.
//!
//! SQLite has one level, serializable, and keeps it in two ways, which its `journal_mode` chooses: the
//! *rollback journal* locks the file (readers shared, the one writer reserved, then exclusive to commit),
//! and the *write-ahead log* gives readers a snapshot and lets one writer append. They stand where the
//! suite has its modes: pessimistic and optimistic.
//!
//! *Blocked is known*: where waiting can help, SQLite calls the busy handler; it does not where it knows
//! that waiting would end in a deadlock, and then the transaction must roll back, which this does for it.
//! What a program sees as `SQLITE_BUSY` is the first in one case and the second in the other.

use std::cell::Cell;
use std::collections::HashMap;

use bytes::Bytes;
use isolde_history::schedule::{Begin, Database, Failure, FailureClass, Operation, Schedule, Setting, Swap};
use isolde_types::{Isolation, Key, Mode, Span};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};
use tempfile::TempDir;

use super::mark::{Mark, Stored};
use super::traced::{Answer, Progress, Sessions, Traced};
use crate::engine::{Engine, Level, Unreachable};

/// SQLite, as a kind of database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sqlite;

impl Engine for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn version(&self) -> String {
        rusqlite::version().to_owned()
    }

    fn levels(&self) -> Vec<Level> {
        let of_mode = |mode, name, short| {
            let setting = Setting { isolation: Isolation::Serializable, mode };
            Level { setting, name, promises: Isolation::Serializable, mode: short }
        };
        vec![
            of_mode(Mode::Pessimistic, "SERIALIZABLE (rollback journal)", "journal"),
            of_mode(Mode::Optimistic, "SERIALIZABLE (write-ahead log)", "wal"),
        ]
    }

    fn lacks(&self, operation: &Operation) -> bool {
        matches!(operation, Operation::GetForUpdate(_)) || super::lacks_beside_sql(operation)
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        let folder = TempDir::new().map_err(|error| Unreachable(error.to_string()))?;
        let initial = schedule.initial.clone();
        let sessions = Connections {
            folder,
            initial,
            kept: None,
            spare: Vec::new(),
            transactions: schedule.txns.len(),
            sessions: HashMap::new(),
            started: HashMap::new(),
        };
        Ok(Box::new(Traced::new(sessions, schedule, self.levels())))
    }
}

/// The connections of one run; the first transaction says how the file is kept.
struct Connections {
    folder: TempDir,
    initial: Vec<(Key, Bytes)>,
    kept: Option<Mode>,
    /// Connections not taken yet, as many as there are transactions: a new one reads the file, and so could
    /// meet a lock before its transaction has begun.
    spare: Vec<Connection>,
    transactions: usize,
    sessions: HashMap<usize, Connection>,
    started: HashMap<usize, (Operation<Bytes>, Mark)>,
}

thread_local! {
    /// Whether SQLite asked, during a statement on this thread, whether to wait.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// The busy handler: notes that waiting could help, and does not wait.
fn asked(_: i32) -> bool {
    ASKED.set(true);
    false
}

const SCHEMA: &str = "CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL, trail TEXT NOT NULL) WITHOUT ROWID";
const GET: &str = "SELECT value, trail FROM kv WHERE key = ?1";
const SCAN: &str = "SELECT key, value, trail FROM kv WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) ORDER BY key";
const INSERT: &str = "INSERT INTO kv (key, value, trail) VALUES (?1, ?2, ?3)";
const PUT: &str = "INSERT INTO kv (key, value, trail) VALUES (?1, ?2, ?3) \
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, trail = trail || ' ' || excluded.trail";
const INCREMENT: &str = "INSERT INTO kv (key, value, trail) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE \
    SET value = CAST(CAST(value AS INTEGER) + excluded.value AS TEXT), trail = trail || ' ' || excluded.trail \
    RETURNING value";
const SWAP: &str = "UPDATE kv SET value = ?2, trail = trail || ' ' || ?3 WHERE key = ?1 AND value = ?4 RETURNING trail";

impl Connections {
    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(self.folder.path().join("anomaly-suite.db"))?;
        connection.busy_handler(Some(asked))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        Ok(connection)
    }

    /// Makes the file, kept in the way of the first transaction.
    fn create(&mut self, mode: Mode) -> rusqlite::Result<()> {
        let connection = self.connect()?;
        let journal = match mode {
            Mode::Pessimistic => "DELETE",
            Mode::Optimistic => "WAL",
        };
        connection.pragma_update_and_check(None, "journal_mode", journal, |_| Ok(()))?;
        connection.execute(SCHEMA, [])?;
        for (key, value) in &self.initial {
            connection.execute(INSERT, params![text(key), text(value), Mark::INITIAL.to_string()])?;
        }
        self.spare = (0..self.transactions).map(|_| self.connect()).collect::<rusqlite::Result<_>>()?;
        self.kept = Some(mode);
        Ok(())
    }

    fn begin(&mut self, txn: usize, mode: Mode) -> rusqlite::Result<()> {
        if self.kept.is_none() {
            self.create(mode)?;
        }
        let connection = self.spare.pop().map_or_else(|| self.connect(), Ok)?;
        connection.execute_batch("BEGIN")?;
        self.sessions.insert(txn, connection);
        Ok(())
    }

    /// What a failure means for the transaction, which is rolled back where waiting cannot help.
    fn failed(&mut self, txn: usize, error: &rusqlite::Error) -> Progress {
        let busy = error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        if busy && ASKED.get() {
            return Progress::Blocked;
        }
        let class = match self.kept {
            _ if !busy => FailureClass::Refused,
            Some(Mode::Pessimistic) => FailureClass::Deadlock,
            _ => FailureClass::Conflict,
        };
        if busy && let Some(connection) = self.sessions.remove(&txn) {
            // Closing it rolls back; an error here says that SQLite has done so already.
            let _ = connection.execute_batch("ROLLBACK");
        }
        self.started.remove(&txn);
        Progress::Done(Err(Failure { class, message: error.to_string(), ended: busy }))
    }
}

impl Sessions for Connections {
    const TRAILS: bool = true;

    fn begin(&mut self, txn: usize, begin: &Begin<'_>, _: &Level) -> Result<(), Failure> {
        let refused = |message| Failure { class: FailureClass::Refused, message, ended: true };
        if self.kept.is_some_and(|kept| kept != begin.mode) {
            return Err(refused("a file has one journal mode, for all its transactions".to_owned()));
        }
        self.begin(txn, begin.mode).map_err(|error| refused(error.to_string()))
    }

    fn start(&mut self, txn: usize, operation: &Operation<Bytes>, mark: Mark) {
        self.started.insert(txn, (operation.clone(), mark));
    }

    fn poll(&mut self, txn: usize) -> Progress {
        let (Some(connection), Some((operation, mark))) = (self.sessions.get(&txn), self.started.get(&txn)) else {
            let message = "nothing was started".to_owned();
            return Progress::Done(Err(Failure { class: FailureClass::Refused, message, ended: false }));
        };
        ASKED.set(false);
        match run(connection, operation, *mark) {
            Ok(answer) => {
                if operation.ends() {
                    self.sessions.remove(&txn);
                }
                self.started.remove(&txn);
                Progress::Done(Ok(answer))
            }
            Err(error) => self.failed(txn, &error),
        }
    }

    fn rows(&mut self) -> Result<Vec<(Key, Stored)>, String> {
        self.sessions.clear();
        let rows = self.connect().and_then(|connection| scan(&connection, &Span::all()));
        rows.map_err(|error| error.to_string())
    }
}

fn run(connection: &Connection, operation: &Operation<Bytes>, mark: Mark) -> rusqlite::Result<Answer> {
    let mark_text = mark.to_string();
    let execute = |sql, key, value| {
        connection.prepare(sql)?.execute(params![text(key), text(value), mark_text]).map(|_| Answer::Done)
    };
    match operation {
        Operation::Get(key) => get(connection, key).map(Answer::Found),
        Operation::Scan(place) => scan(connection, &place.span()).map(Answer::Rows),
        Operation::Put(key, value) => execute(PUT, key, value),
        Operation::Insert(key, value) => execute(INSERT, key, value),
        Operation::Delete(key) => {
            connection.execute("DELETE FROM kv WHERE key = ?1", [text(key)]).map(|_| Answer::Done)
        }
        Operation::Increment(key, by) => {
            let value = connection
                .prepare(INCREMENT)?
                .query_row(params![text(key), by.to_string(), mark_text], |row| row.get::<_, String>(0))?;
            Ok(Answer::Came(value.into()))
        }
        Operation::CompareAndSet { key, old: Some(old), new: Some(new) } => {
            let trail = connection
                .prepare(SWAP)?
                .query_row(params![text(key), text(new), mark_text, text(old)], |row| row.get::<_, String>(0))
                .optional()?;
            let Some(trail) = trail else {
                return Ok(Answer::CompareAndSet { found: get(connection, key)?, swap: Swap::Refused });
            };
            let before = trail.trim_end_matches(&mark_text);
            let found = Some(Stored::read(old.clone(), before).map_err(odd)?);
            Ok(Answer::CompareAndSet { found, swap: Swap::Done })
        }
        Operation::Savepoint(name) => sql(connection, &format!("SAVEPOINT {}", quoted(name))),
        Operation::RollbackTo(name) => sql(connection, &format!("ROLLBACK TO {}", quoted(name))),
        Operation::Commit => sql(connection, "COMMIT"),
        Operation::Rollback => sql(connection, "ROLLBACK"),
        operation => Err(odd(format!("SQLite has no {operation:?}"))),
    }
}

fn sql(connection: &Connection, text: &str) -> rusqlite::Result<Answer> {
    connection.execute_batch(text).map(|()| Answer::Done)
}

fn get(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Stored>> {
    connection.prepare(GET)?.query_row([text(key)], |row| stored(row, 0)).optional()
}

fn scan(connection: &Connection, span: &Span) -> rusqlite::Result<Vec<(Key, Stored)>> {
    let mut statement = connection.prepare(SCAN)?;
    let row = |row: &Row<'_>| Ok((Key::from(row.get::<_, String>(0)?), stored(row, 1)?));
    let end = span.end.as_ref().map(text);
    statement.query_map(params![text(&span.start), end], row)?.collect()
}

/// The value and the trail of a row, from this column on.
fn stored(row: &Row<'_>, at: usize) -> rusqlite::Result<Stored> {
    Stored::read(row.get::<_, String>(at)?, &row.get::<_, String>(at + 1)?).map_err(odd)
}

fn odd(message: String) -> rusqlite::Error {
    rusqlite::Error::InvalidParameterName(message)
}

/// A word of a schedule: always text.
fn text(word: &Bytes) -> String {
    String::from_utf8_lossy(word).into_owned()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
