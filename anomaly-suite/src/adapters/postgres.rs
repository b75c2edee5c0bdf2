//! PostgreSQL, through `tokio-postgres`: levels, statements, and what its errors mean.
//!
//! | its name | promises | why |
//! | --- | --- | --- |
//! | READ COMMITTED | read committed | |
//! | REPEATABLE READ | snapshot | one snapshot for all reads, and no write over what is newer |
//! | SERIALIZABLE | serializable | |
//!
//! READ UNCOMMITTED is accepted as a word and means READ COMMITTED, so it is absent here.
//!
//! *Blocked is known* from `pg_blocking_pids`. After any error PostgreSQL refuses everything until
//! ROLLBACK; so a failure rolls back, and the transaction has ended. A serialization failure may come at a
//! statement or at the commit.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use isolde_history::schedule::{Database, Failure, FailureClass, Operation, Schedule, Setting, Swap};
use isolde_types::{Isolation, Key, Mode, Span};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls, Row};

use super::concurrent::Concurrent;
use super::mark::{Mark, Stored};
use super::nodes::{Node, Nodes};
use super::remote::{Remote, Server, Wait, failure, runtime, table_name, text};
use super::traced::{Answer, Traced};
use crate::engine::{Engine, Level, Unreachable};

/// A PostgreSQL server, as a kind of database.
#[derive(Debug)]
pub struct Postgres {
    config: Config,
    version: OnceLock<String>,
}

impl Postgres {
    /// The server of an address such as `postgres://user@127.0.0.1:5432/database`.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(address: &str) -> Result<Self, String> {
        let config = address.parse().map_err(|error: Error| words(&error))?;
        Ok(Postgres { config, version: OnceLock::new() })
    }
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn version(&self) -> String {
        self.version.get().cloned().unwrap_or_default()
    }

    fn reach(&self) -> Result<(), Unreachable> {
        let version = runtime()?.block_on(async {
            let client = connect(&self.config).await?;
            let row = client.query_one("SELECT current_setting('server_version')", &[]).await?;
            row.try_get::<_, String>(0)
        });
        let version = version.map_err(|error| Unreachable(words(&error)))?;
        let _ = self.version.set(version.split(' ').next().unwrap_or_default().to_owned());
        Ok(())
    }

    fn levels(&self) -> Vec<Level> {
        let level = |isolation, name, promises| Level {
            setting: Setting { isolation, mode: Mode::Pessimistic },
            name,
            promises,
            mode: "",
        };
        vec![
            level(Isolation::ReadCommitted, "READ COMMITTED", Isolation::ReadCommitted),
            level(Isolation::RepeatableRead, "REPEATABLE READ", Isolation::Snapshot),
            level(Isolation::Serializable, "SERIALIZABLE", Isolation::Serializable),
        ]
    }

    fn lacks(&self, operation: &Operation) -> bool {
        super::lacks_beside_sql(operation)
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        let runtime = runtime()?;
        let opened = Opened::new(&self.config, &schedule.initial);
        let opened = runtime.block_on(opened).map_err(|error| Unreachable(words(&error)))?;
        Ok(Box::new(Traced::new(Remote::new(runtime, opened), schedule, self.levels())))
    }
}

/// A table of its own on the server, and the connection that looks at locks.
struct Opened {
    config: Config,
    table: String,
    watcher: Client,
}

/// A transaction's connection.
struct Session {
    client: Client,
    id: u64,
    sql: Statements,
}

/// The statements, for one table.
struct Statements {
    get: String,
    get_for_update: String,
    put: String,
    insert: String,
    delete: String,
    increment: String,
    swap: String,
    scan: String,
}

async fn connect(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Opened {
    async fn new(config: &Config, initial: &[(Key, Bytes)]) -> Result<Opened, Error> {
        let (table, watcher) = (table_name(), connect(config).await?);
        let create = format!(
            "CREATE TABLE {table} (key text COLLATE \"C\" PRIMARY KEY, value text NOT NULL, trail text NOT NULL) \
             WITH (autovacuum_enabled = off)"
        );
        watcher.batch_execute(&create).await?;
        let insert = Statements::new(&table).insert;
        for (key, value) in initial {
            watcher.execute(&insert, &[&text(key), &text(value), &Mark::INITIAL.to_string()]).await?;
        }
        Ok(Opened { config: config.clone(), table, watcher })
    }

    async fn session(&self, level: Level, read_only: bool) -> Result<Session, Error> {
        let client = connect(&self.config).await?;
        // A tiny table is read whole, and then SERIALIZABLE would take every read for a read of everything.
        client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").await?;
        // Only a superuser may hurry the search for deadlocks; without it a deadlock takes a second.
        let _ = client.batch_execute("SET deadlock_timeout = '20ms'").await;
        let id: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        let access = if read_only { "READ ONLY" } else { "READ WRITE" };
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {} {access}", level.name)).await?;
        Ok(Session { client, id: u64::from(id.unsigned_abs()), sql: Statements::new(&self.table) })
    }
}

/// A server.
pub(super) fn nodes(address: &str) -> Result<Box<dyn Concurrent>, String> {
    let config: Config = address.parse().map_err(|error: Error| words(&error))?;
    Ok(Box::new(Nodes::<Opened>(vec![config])))
}

impl Node for Opened {
    type Address = Config;

    async fn create(config: &Config, initial: &[(Key, Bytes)]) -> Result<Opened, Unreachable> {
        Opened::new(config, initial).await.map_err(|error| Unreachable(words(&error)))
    }

    fn table(&self) -> &str {
        &self.table
    }

    async fn join(config: &Config, table: &str) -> Result<Opened, Unreachable> {
        let watcher = connect(config).await.map_err(|error| Unreachable(words(&error)))?;
        Ok(Opened { config: config.clone(), table: table.to_owned(), watcher })
    }
}

impl Server for Opened {
    type Session = Session;

    const PATIENCE: Duration = Duration::from_millis(3);

    async fn begin(&self, level: Level, read_only: bool) -> Result<Session, Failure> {
        self.session(level, read_only).await.map_err(|error| failed(&error, false))
    }

    fn id(session: &Session) -> u64 {
        session.id
    }

    async fn run(session: &mut Session, operation: Operation<Bytes>, mark: Mark) -> Result<Answer, Failure> {
        let result = session.run(&operation, mark).await;
        if result.is_err() && !session.client.is_closed() {
            // Nothing else is possible. Where the failed commit has ended the transaction, it says so and is fine.
            let _ = session.client.batch_execute("ROLLBACK").await;
        }
        result.map_err(|error| failed(&error, matches!(operation, Operation::Commit)))
    }

    async fn waits(&mut self, ids: &[u64]) -> Result<Vec<Wait>, String> {
        let ids: Vec<i32> = ids.iter().filter_map(|id| i32::try_from(*id).ok()).collect();
        let sql = "SELECT waiter, unnest(pg_blocking_pids(waiter)) FROM unnest($1::int[]) AS waiter";
        let rows = self.watcher.query(sql, &[&ids]).await.map_err(|error| words(&error))?;
        let edge = |row: &Row| {
            let id = |at| row.try_get::<_, i32>(at).map(|id| u64::from(id.unsigned_abs()));
            Ok(Wait { waiter: id(0)?, blocker: Some(id(1)?) })
        };
        rows.iter().map(edge).collect::<Result<_, Error>>().map_err(|error| words(&error))
    }

    async fn rows(&mut self) -> Result<Vec<(Key, Stored)>, String> {
        let scan = Statements::new(&self.table).scan;
        scanned(&self.watcher, &scan, &Span::all()).await.map_err(|error| words(&error))
    }

    async fn clean(&mut self) {
        let _ = self.watcher.batch_execute(&format!("DROP TABLE IF EXISTS {}", self.table)).await;
    }
}

impl Statements {
    fn new(table: &str) -> Statements {
        let get = format!("SELECT value, trail FROM {table} WHERE key = $1");
        let append = "trail = trail || ' ' || $3::text";
        Statements {
            get_for_update: format!("{get} FOR UPDATE"),
            get,
            put: format!("UPDATE {table} SET value = $2, {append} WHERE key = $1"),
            insert: format!("INSERT INTO {table} (key, value, trail) VALUES ($1, $2, $3)"),
            delete: format!("DELETE FROM {table} WHERE key = $1"),
            increment: format!(
                "UPDATE {table} SET value = (value::bigint + $2::text::bigint)::text, {append} WHERE key = $1 \
                 RETURNING value"
            ),
            swap: format!("UPDATE {table} SET value = $2, {append} WHERE key = $1 AND value = $4 RETURNING trail"),
            scan: format!(
                "SELECT key, value, trail FROM {table} WHERE key >= $1 AND ($2::text IS NULL OR key < $2) ORDER BY key"
            ),
        }
    }
}

impl Session {
    async fn run(&self, operation: &Operation<Bytes>, mark: Mark) -> Result<Answer, Error> {
        let (client, sql, mark_text) = (&self.client, &self.sql, mark.to_string());
        match operation {
            Operation::Get(key) => found(client, &sql.get, key).await.map(Answer::Found),
            Operation::GetForUpdate(key) => found(client, &sql.get_for_update, key).await.map(Answer::Found),
            Operation::Scan(place) => scanned(client, &sql.scan, &place.span()).await.map(Answer::Rows),
            Operation::Put(key, value) => {
                let (key, value) = (text(key), text(value));
                if client.execute(&sql.put, &[&key, &value, &mark_text]).await? == 0 {
                    client.execute(&sql.insert, &[&key, &value, &mark_text]).await?;
                }
                Ok(Answer::Done)
            }
            Operation::Insert(key, value) => {
                client.execute(&sql.insert, &[&text(key), &text(value), &mark_text]).await?;
                Ok(Answer::Done)
            }
            Operation::Delete(key) => {
                client.execute(&sql.delete, &[&text(key)]).await?;
                Ok(Answer::Done)
            }
            Operation::Increment(key, by) => {
                let (key, by) = (text(key), by.to_string());
                match client.query_opt(&sql.increment, &[&key, &by, &mark_text]).await? {
                    Some(row) => Ok(Answer::Came(row.try_get::<_, String>(0)?.into())),
                    None => {
                        client.execute(&sql.insert, &[&key, &by, &mark_text]).await?;
                        Ok(Answer::Came(by.into()))
                    }
                }
            }
            Operation::CompareAndSet { key, old: Some(old), new: Some(new) } => {
                self.compare_and_set(key, old, new, &mark_text).await
            }
            Operation::Savepoint(name) => self.sql(&format!("SAVEPOINT {}", quoted(name))).await,
            Operation::RollbackTo(name) => self.sql(&format!("ROLLBACK TO {}", quoted(name))).await,
            Operation::Commit => self.sql("COMMIT").await,
            Operation::Rollback => self.sql("ROLLBACK").await,
            Operation::Merge { .. } | Operation::Lock(_) | Operation::CompareAndSet { .. } => {
                unreachable!("`lacks_beside_sql` keeps it from being run")
            }
        }
    }

    async fn compare_and_set(&self, key: &Key, old: &Bytes, new: &Bytes, mark: &str) -> Result<Answer, Error> {
        let mark = mark.to_owned();
        let row = self.client.query_opt(&self.sql.swap, &[&text(key), &text(new), &mark, &text(old)]).await?;
        let Some(row) = row else {
            let found = found(&self.client, &self.sql.get, key).await?;
            return Ok(Answer::CompareAndSet { found, swap: Swap::Refused });
        };
        let trail: String = row.try_get(0)?;
        let found = Some(stored(old.clone(), trail.trim_end_matches(mark.as_str())));
        Ok(Answer::CompareAndSet { found, swap: Swap::Done })
    }

    async fn sql(&self, text: &str) -> Result<Answer, Error> {
        self.client.batch_execute(text).await.map(|()| Answer::Done)
    }
}

async fn found(client: &Client, sql: &str, key: &Key) -> Result<Option<Stored>, Error> {
    let row = client.query_opt(sql, &[&text(key)]).await?;
    row.map(|row| Ok(stored(row.try_get::<_, String>(0)?.into(), row.try_get(1)?))).transpose()
}

async fn scanned(client: &Client, sql: &str, span: &Span) -> Result<Vec<(Key, Stored)>, Error> {
    let rows = client.query(sql, &[&text(&span.start), &span.end.as_ref().map(text)]).await?;
    let row = |row: &Row| {
        let key = Key::from(row.try_get::<_, String>(0)?);
        Ok((key, stored(row.try_get::<_, String>(1)?.into(), row.try_get(2)?)))
    };
    rows.iter().map(row).collect()
}

/// A row as it was read. Only this wrote the trail, so it is one.
fn stored(value: Bytes, trail: &str) -> Stored {
    Stored::read(value, trail).unwrap_or_else(|error| panic!("a row of the suite's own table: {error}"))
}

/// A savepoint's name.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn failed(error: &Error, at_commit: bool) -> Failure {
    let class = match error.code() {
        Some(code) if *code == SqlState::T_R_SERIALIZATION_FAILURE => FailureClass::Conflict,
        Some(code) if *code == SqlState::T_R_DEADLOCK_DETECTED => FailureClass::Deadlock,
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => FailureClass::Timeout,
        None if at_commit => FailureClass::Unknown,
        _ => FailureClass::Refused,
    };
    failure(class, &words(error))
}

/// The server's own words, or the client's.
fn words(error: &Error) -> String {
    use std::error::Error as _;
    let cause = error.as_db_error().map(|error| error.message().to_owned());
    cause.or_else(|| error.source().map(ToString::to_string)).unwrap_or_else(|| error.to_string())
}
