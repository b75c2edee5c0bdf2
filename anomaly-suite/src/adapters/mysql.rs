//! MariaDB and MySQL (InnoDB), through `mysql_async`: levels, statements, and what the errors mean.
//!
//! | its name | promises | why |
//! | --- | --- | --- |
//! | READ UNCOMMITTED | read uncommitted | |
//! | READ COMMITTED | read committed | |
//! | REPEATABLE READ | read committed | plain reads see one snapshot, writes and locking reads see what is newest: updates are lost |
//! | REPEATABLE READ, innodb_snapshot_isolation=ON | snapshot | who would write over what is newer is refused; MariaDB alone has it |
//! | SERIALIZABLE | serializable | plain reads lock |
//!
//! *Blocked is known* from `information_schema.innodb_trx`, which says of each transaction whether it waits
//! for a lock. It is read anew only when nobody has looked for a tenth of a second, so it is asked no sooner.
//! For whom somebody waits is not asked: the views name transactions by numbers, and all that have only read
//! have the number 0. A deadlock is found when it arises, so whoever is said to wait is in none.
//!
//! Error 1213 (deadlock) rolls back the whole transaction, 1205 (lock wait timeout) the statement alone.
//! After 1020 (the record has changed since the snapshot) every try of the same write fails again, so the
//! transaction is rolled back here, if the server has not done so.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use isolde_history::schedule::{Database, Failure, FailureClass, Operation, Schedule, Setting, Swap};
use isolde_types::{Isolation, Key, Mode, Span};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts};

use super::concurrent::Concurrent;
use super::mark::{Mark, Stored};
use super::nodes::{Node, Nodes};
use super::remote::{Remote, Server, Wait, failure, runtime, table_name, text};
use super::traced::{Answer, Traced};
use crate::engine::{Engine, Level, Unreachable};

/// A MariaDB or MySQL server, as a kind of database.
#[derive(Debug)]
pub struct MySql {
    opts: Opts,
    known: OnceLock<Known>,
}

/// What the server says of itself.
#[derive(Debug)]
struct Known {
    version: String,
    snapshot_isolation: bool,
}

impl MySql {
    /// The server of an address such as `mysql://user@127.0.0.1:3306/database`.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(address: &str) -> Result<Self, String> {
        let opts = Opts::from_url(address).map_err(|error| error.to_string())?;
        Ok(MySql { opts, known: OnceLock::new() })
    }
}

impl Engine for MySql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn version(&self) -> String {
        self.known.get().map_or_else(String::new, |known| known.version.clone())
    }

    fn reach(&self) -> Result<(), Unreachable> {
        let known = runtime()?.block_on(async {
            let mut conn = Conn::new(self.opts.clone()).await?;
            let version: Option<String> = conn.query_first("SELECT VERSION()").await?;
            let variable: Option<(String, String)> =
                conn.query_first("SHOW VARIABLES LIKE 'innodb_snapshot_isolation'").await?;
            conn.disconnect().await?;
            Ok(Known { version: version.unwrap_or_default(), snapshot_isolation: variable.is_some() })
        });
        let known = known.map_err(|error: Error| Unreachable(error.to_string()))?;
        let _ = self.known.set(known);
        Ok(())
    }

    fn levels(&self) -> Vec<Level> {
        let level = |isolation, name, promises| Level {
            setting: Setting { isolation, mode: Mode::Pessimistic },
            name,
            promises,
            mode: "",
        };
        let mut levels = vec![
            level(Isolation::ReadUncommitted, "READ UNCOMMITTED", Isolation::ReadUncommitted),
            level(Isolation::ReadCommitted, "READ COMMITTED", Isolation::ReadCommitted),
            level(Isolation::RepeatableRead, "REPEATABLE READ", Isolation::ReadCommitted),
        ];
        if self.known.get().is_some_and(|known| known.snapshot_isolation) {
            levels.push(level(Isolation::Snapshot, SNAPSHOT, Isolation::Snapshot));
        }
        levels.push(level(Isolation::Serializable, "SERIALIZABLE", Isolation::Serializable));
        levels
    }

    fn lacks(&self, operation: &Operation) -> bool {
        super::lacks_beside_sql(operation)
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        let runtime = runtime()?;
        let opened = runtime.block_on(Opened::new(&self.opts, &schedule.initial));
        let opened = opened.map_err(|error| Unreachable(error.to_string()))?;
        Ok(Box::new(Traced::new(Remote::new(runtime, opened), schedule, self.levels())))
    }
}

const SNAPSHOT: &str = "REPEATABLE READ with innodb_snapshot_isolation=ON";

/// A table of its own on the server, and the connection that looks at locks.
struct Opened {
    opts: Opts,
    table: String,
    watcher: Conn,
    /// Whether the variable `innodb_snapshot_isolation` is there to be set.
    snapshot_isolation: bool,
}

/// A transaction's connection.
struct Session {
    conn: Conn,
    table: String,
}

impl Opened {
    async fn new(opts: &Opts, initial: &[(Key, Bytes)]) -> Result<Opened, Error> {
        let (table, mut watcher) = (table_name(), Conn::new(opts.clone()).await?);
        let create = format!(
            "CREATE TABLE {table} (k VARBINARY(255) PRIMARY KEY, value TEXT NOT NULL, trail TEXT NOT NULL) \
             ENGINE = InnoDB DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin"
        );
        watcher.query_drop(create).await?;
        let insert = format!("INSERT INTO {table} (k, value, trail) VALUES (?, ?, ?)");
        for (key, value) in initial {
            watcher.exec_drop(&insert, (text(key), text(value), Mark::INITIAL.to_string())).await?;
        }
        let variable: Option<(String, String)> =
            watcher.query_first("SHOW VARIABLES LIKE 'innodb_snapshot_isolation'").await?;
        Ok(Opened { opts: opts.clone(), table, watcher, snapshot_isolation: variable.is_some() })
    }

    async fn session(&self, level: Level, read_only: bool) -> Result<Session, Error> {
        let mut conn = Conn::new(self.opts.clone()).await?;
        let (name, snapshot) = match level.name {
            SNAPSHOT => ("REPEATABLE READ", "ON"),
            name => (name, "OFF"),
        };
        if self.snapshot_isolation {
            conn.query_drop(format!("SET SESSION innodb_snapshot_isolation = {snapshot}")).await?;
        }
        conn.query_drop(format!("SET SESSION TRANSACTION ISOLATION LEVEL {name}")).await?;
        conn.query_drop(if read_only { "START TRANSACTION READ ONLY" } else { "START TRANSACTION" }).await?;
        Ok(Session { conn, table: self.table.clone() })
    }
}

/// A server, or the nodes of a cluster.
pub(super) fn nodes(addresses: &[&str]) -> Result<Box<dyn Concurrent>, String> {
    let opts = addresses.iter().map(|address| Opts::from_url(address).map_err(|error| format!("{address}: {error}")));
    Ok(Box::new(Nodes::<Opened>(opts.collect::<Result<_, _>>()?)))
}

impl Node for Opened {
    type Address = Opts;

    async fn create(opts: &Opts, initial: &[(Key, Bytes)]) -> Result<Opened, Unreachable> {
        Opened::new(opts, initial).await.map_err(|error| Unreachable(error.to_string()))
    }

    fn table(&self) -> &str {
        &self.table
    }

    async fn join(opts: &Opts, table: &str) -> Result<Opened, Unreachable> {
        let joined = async {
            let mut watcher = Conn::new(opts.clone()).await?;
            let (waits, snapshot) =
                ("SHOW VARIABLES LIKE 'wsrep_sync_wait'", "SHOW VARIABLES LIKE 'innodb_snapshot_isolation'");
            let waits: Option<(String, String)> = watcher.query_first(waits).await?;
            if waits.is_some() {
                // This connection alone, which no transaction uses: its reads wait for all that the
                // cluster has committed. The transactions keep the server's own setting.
                watcher.query_drop("SET SESSION wsrep_sync_wait = 15").await?;
            }
            watcher.query_drop(format!("SELECT COUNT(*) FROM {table}")).await?;
            let variable: Option<(String, String)> = watcher.query_first(snapshot).await?;
            let table = table.to_owned();
            Ok(Opened { opts: opts.clone(), table, watcher, snapshot_isolation: variable.is_some() })
        };
        joined.await.map_err(|error: Error| Unreachable(error.to_string()))
    }
}

impl Server for Opened {
    type Session = Session;

    const PATIENCE: Duration = Duration::from_millis(110);

    async fn begin(&self, level: Level, read_only: bool) -> Result<Session, Failure> {
        self.session(level, read_only).await.map_err(|error| failure(FailureClass::Refused, &error.to_string()))
    }

    fn id(session: &Session) -> u64 {
        u64::from(session.conn.id())
    }

    async fn run(session: &mut Session, operation: Operation<Bytes>, mark: Mark) -> Result<Answer, Failure> {
        let result = session.run(&operation, mark).await;
        let failed = result.map_err(|error| failed(&error, &operation));
        if failed.as_ref().is_err_and(|failure| failure.class == FailureClass::Conflict) {
            // Where the server has rolled back already, this does nothing.
            let _ = session.conn.query_drop("ROLLBACK").await;
        }
        failed
    }

    async fn waits(&mut self, _: &[u64]) -> Result<Vec<Wait>, String> {
        let waiting = "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
        let waiters: Vec<u64> = self.watcher.query(waiting).await.map_err(|error| error.to_string())?;
        Ok(waiters.into_iter().map(|waiter| Wait { waiter, blocker: None }).collect())
    }

    async fn rows(&mut self) -> Result<Vec<(Key, Stored)>, String> {
        scanned(&mut self.watcher, &self.table, &Span::all()).await.map_err(|error| error.to_string())
    }

    async fn clean(&mut self) {
        let _ = self.watcher.query_drop(format!("DROP TABLE IF EXISTS {}", self.table)).await;
    }
}

impl Session {
    async fn run(&mut self, operation: &Operation<Bytes>, mark: Mark) -> Result<Answer, Error> {
        let (conn, table) = (&mut self.conn, &self.table);
        let mark = mark.to_string();
        match operation {
            Operation::Get(key) => found(conn, table, key, "").await.map(Answer::Found),
            Operation::GetForUpdate(key) => found(conn, table, key, " FOR UPDATE").await.map(Answer::Found),
            Operation::Scan(place) => scanned(conn, table, &place.span()).await.map(Answer::Rows),
            Operation::Put(key, value) => {
                let put = format!("UPDATE {table} SET value = ?, trail = CONCAT(trail, ' ', ?) WHERE k = ?");
                conn.exec_drop(put, (text(value), &mark, text(key))).await?;
                if conn.affected_rows() == 0 {
                    insert(conn, table, key, &text(value), &mark).await?;
                }
                Ok(Answer::Done)
            }
            Operation::Insert(key, value) => {
                insert(conn, table, key, &text(value), &mark).await?;
                Ok(Answer::Done)
            }
            Operation::Delete(key) => {
                conn.exec_drop(format!("DELETE FROM {table} WHERE k = ?"), (text(key),)).await?;
                Ok(Answer::Done)
            }
            Operation::Increment(key, by) => increment(conn, table, key, *by, &mark).await,
            Operation::CompareAndSet { key, old: Some(old), new: Some(new) } => {
                compare_and_set(conn, table, key, (old, new), &mark).await
            }
            Operation::Savepoint(name) => sql(conn, &format!("SAVEPOINT {}", quoted(name))).await,
            Operation::RollbackTo(name) => sql(conn, &format!("ROLLBACK TO {}", quoted(name))).await,
            Operation::Commit => sql(conn, "COMMIT").await,
            Operation::Rollback => sql(conn, "ROLLBACK").await,
            Operation::Merge { .. } | Operation::Lock(_) | Operation::CompareAndSet { .. } => {
                unreachable!("`lacks_beside_sql` keeps it from being run")
            }
        }
    }
}

async fn sql(conn: &mut Conn, text: &str) -> Result<Answer, Error> {
    conn.query_drop(text).await.map(|()| Answer::Done)
}

async fn insert(conn: &mut Conn, table: &str, key: &Key, value: &str, mark: &str) -> Result<(), Error> {
    conn.exec_drop(format!("INSERT INTO {table} (k, value, trail) VALUES (?, ?, ?)"), (text(key), value, mark)).await
}

async fn increment(conn: &mut Conn, table: &str, key: &Key, by: i64, mark: &str) -> Result<Answer, Error> {
    let add = format!(
        "UPDATE {table} SET value = (@came := CAST(value AS SIGNED) + ?), trail = CONCAT(trail, ' ', ?) WHERE k = ?"
    );
    conn.exec_drop(add, (by, mark, text(key))).await?;
    if conn.affected_rows() == 0 {
        insert(conn, table, key, &by.to_string(), mark).await?;
        return Ok(Answer::Came(by.to_string().into()));
    }
    let came: Option<String> = conn.query_first("SELECT CAST(@came AS CHAR)").await?;
    Ok(Answer::Came(came.unwrap_or_default().into()))
}

async fn compare_and_set(
    conn: &mut Conn,
    table: &str,
    key: &Key,
    (old, new): (&Bytes, &Bytes),
    mark: &str,
) -> Result<Answer, Error> {
    let swap =
        format!("UPDATE {table} SET trail = CONCAT(@before := trail, ' ', ?), value = ? WHERE k = ? AND value = ?");
    conn.exec_drop(swap, (mark, text(new), text(key), text(old))).await?;
    if conn.affected_rows() == 0 {
        // The update looked at the newest version, and so must this.
        let found = found(conn, table, key, " FOR UPDATE").await?;
        return Ok(Answer::CompareAndSet { found, swap: Swap::Refused });
    }
    let before: Option<String> = conn.query_first("SELECT @before").await?;
    let found = Some(stored(old.clone(), &before.unwrap_or_default()));
    Ok(Answer::CompareAndSet { found, swap: Swap::Done })
}

async fn found(conn: &mut Conn, table: &str, key: &Key, lock: &str) -> Result<Option<Stored>, Error> {
    let get = format!("SELECT value, trail FROM {table} WHERE k = ?{lock}");
    let row: Option<(String, String)> = conn.exec_first(get, (text(key),)).await?;
    Ok(row.map(|(value, trail)| stored(value.into(), &trail)))
}

async fn scanned(conn: &mut Conn, table: &str, span: &Span) -> Result<Vec<(Key, Stored)>, Error> {
    let select = format!("SELECT k, value, trail FROM {table} WHERE k >= ?");
    let rows: Vec<(Vec<u8>, String, String)> = match &span.end {
        Some(end) => conn.exec(format!("{select} AND k < ? ORDER BY k"), (text(&span.start), text(end))).await?,
        None => conn.exec(format!("{select} ORDER BY k"), (text(&span.start),)).await?,
    };
    Ok(rows.into_iter().map(|(key, value, trail)| (Key::from(key), stored(value.into(), &trail))).collect())
}

/// A row as it was read. Only this wrote the trail, so it is one.
fn stored(value: Bytes, trail: &str) -> Stored {
    Stored::read(value, trail).unwrap_or_else(|error| panic!("a row of the suite's own table: {error}"))
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The record has changed since it was last read.
const RECORD_CHANGED: u16 = 1020;
/// A lock was waited for too long; the statement alone was rolled back.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// The victim of a deadlock; the whole transaction was rolled back.
const DEADLOCK: u16 = 1213;

fn failed(error: &Error, operation: &Operation<Bytes>) -> Failure {
    let (class, ended) = match error {
        Error::Server(error) => match error.code {
            RECORD_CHANGED => (FailureClass::Conflict, true),
            LOCK_WAIT_TIMEOUT => (FailureClass::Timeout, false),
            DEADLOCK => (FailureClass::Deadlock, true),
            _ => (FailureClass::Refused, false),
        },
        _ if matches!(operation, Operation::Commit) => (FailureClass::Unknown, true),
        _ => (FailureClass::Refused, true),
    };
    let message = match error {
        Error::Server(error) => error.message.clone(),
        error => error.to_string(),
    };
    Failure { ended, ..failure(class, &message) }
}
