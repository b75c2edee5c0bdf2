//! Random transactions in threads at a database server, or at several nodes that hold the same data.
//!
//! ```text
//!  thread 1 ──► session at node 1 ─┐
//!  thread 2 ──► session at node 2 ─┼─► records: events in the order in which they were seen
//!  thread 3 ──► session at node 1 ─┘         + the trails of the final rows = the order of versions
//! ```
//!
//! Nothing is deleted and every key is present at first, so each read names its version by the mark
//! that it found. A transaction's begin is recorded before it is asked for and its end after it was
//! answered, so real time orders only what was really one after the other.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Barrier, Mutex, PoisonError};

use bytes::Bytes;
use fastrand::Rng;
use isolde_history::History;
use isolde_history::model::{Event, ReadKind, TxnKey, Version};
use isolde_history::schedule::{Failure, FailureClass, Operation};
use isolde_types::{Key, Ts, escape_key};

use super::mark::{Mark, Stored};
#[cfg(any(feature = "postgres", feature = "mysql"))]
use super::remote::{Server, runtime};
use super::traced::Answer;
use crate::engine::{Level, Unreachable};
use crate::fuzz::Shape;

/// A database that threads can use at once.
pub trait Concurrent {
    /// Runs the random transactions of a seed in this many threads, on data of their own.
    ///
    /// # Errors
    /// When the database cannot be reached.
    fn case(&self, level: Level, threads: usize, shape: Shape, seed: u64) -> Result<Observed, Unreachable>;
}

/// What a case was seen to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// The history, with versions.
    pub history: History,
    /// What no database may do at any level, in words.
    pub complaints: Vec<String>,
}

/// How many transactions each thread runs in one case: few, so that a history stays readable.
pub const TRANSACTIONS: usize = 40;

/// A server whose data several clients can share.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) trait Node: Server {
    /// Where it is.
    type Address: Sync;

    /// With a table of its own that holds these rows.
    fn create(address: &Self::Address, initial: &[(Key, Bytes)]) -> impl Future<Output = Result<Self, Unreachable>>;

    /// The name of the table.
    fn table(&self) -> &str;

    /// With the table that another one created, once all that happened before is there too.
    fn join(address: &Self::Address, table: &str) -> impl Future<Output = Result<Self, Unreachable>>;
}

/// Nodes that hold the same data; one server is one node.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) struct Nodes<S: Node>(pub Vec<S::Address>);

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<S: Node> Concurrent for Nodes<S> {
    fn case(&self, level: Level, threads: usize, shape: Shape, seed: u64) -> Result<Observed, Unreachable> {
        let (runtime, initial) = (runtime()?, initial(shape));
        let mut first = runtime.block_on(S::create(&self.0[0], &initial))?;
        let table = first.table().to_owned();
        let (records, barrier) = (Records::default(), Barrier::new(threads));
        let ran: Result<(), Unreachable> = std::thread::scope(|scope| {
            let clients = (0..threads).map(|thread| {
                let (records, barrier, table) = (&records, &barrier, &table);
                let address = &self.0[thread % self.0.len()];
                scope.spawn(move || client::<S>(address, table, level, (thread, shape, seed), records, barrier))
            });
            let clients: Vec<_> = clients.collect();
            clients.into_iter().try_for_each(|client| {
                client.join().unwrap_or_else(|_| Err(Unreachable("a client's thread ended badly".to_owned())))
            })
        });
        let rows = ran.and_then(|()| {
            let each = self.0.iter().map(|address| {
                runtime.block_on(async { S::join(address, &table).await?.rows().await.map_err(Unreachable) })
            });
            each.collect::<Result<Vec<_>, _>>()
        });
        runtime.block_on(first.clean());
        Ok(records.finish(initial, &rows?))
    }
}

/// One thread: transaction after transaction, whatever becomes of them.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn client<S: Node>(
    address: &S::Address,
    table: &str,
    level: Level,
    (thread, shape, seed): (usize, Shape, u64),
    records: &Records,
    barrier: &Barrier,
) -> Result<(), Unreachable> {
    let runtime = runtime();
    let server = runtime.and_then(|runtime| {
        let server = runtime.block_on(S::join(address, table))?;
        Ok((runtime, server))
    });
    // Everyone waits here, also who has nothing to do.
    barrier.wait();
    let (runtime, server) = server?;
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ thread as u64);
    for number in 0..TRANSACTIONS {
        let txn = (thread * TRANSACTIONS + number + 1) as u64;
        runtime.block_on(transaction(&server, level, txn, program(&mut rng, shape, txn), records));
    }
    Ok(())
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn transaction<S: Server>(server: &S, level: Level, txn: u64, program: Vec<Operation<Bytes>>, records: &Records) {
    records.begin(txn, level);
    let mut session = match server.begin(level, false).await {
        Ok(session) => session,
        Err(_) => return records.push(Event::Abort { txn: TxnKey(txn) }),
    };
    let mut seq = 0;
    for operation in program {
        let mark = Mark { txn, seq: seq + 1 };
        match S::run(&mut session, operation.clone(), mark).await {
            Ok(answer) => records.done(mark, &operation, answer),
            Err(failure) => {
                if !failure.ended {
                    let _ = S::run(&mut session, Operation::Rollback, mark).await;
                }
                return records.failed(txn, &operation, &failure);
            }
        }
        seq += u32::from(matches!(operation, Operation::Put(..)));
    }
}

/// What is there before the first transaction: every key.
fn initial(shape: Shape) -> Vec<(Key, Bytes)> {
    (0..shape.keys).map(|key| (name(key), Bytes::from_static(b"0.0"))).collect()
}

fn name(key: usize) -> Key {
    Key::from(format!("k{key}"))
}

/// One transaction: it reads and writes a few keys, and ends. Each write's value is its mark, so no two
/// are alike.
fn program(rng: &mut Rng, shape: Shape, txn: u64) -> Vec<Operation<Bytes>> {
    let mut seq = 0;
    let mut operations: Vec<Operation<Bytes>> = Vec::new();
    for _ in 0..rng.usize(1..=shape.operations.max(1)) {
        let key = name(rng.usize(..shape.keys));
        operations.push(if rng.bool() {
            Operation::Get(key)
        } else {
            seq += 1;
            Operation::Put(key, Bytes::from(Mark { txn, seq }.to_string()))
        });
    }
    operations.push(if rng.u8(..20) == 0 { Operation::Rollback } else { Operation::Commit });
    operations
}

/// The events of all threads, in the order in which they were seen.
#[derive(Default)]
struct Records(Mutex<Vec<Event>>);

impl Records {
    fn push(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Before the database is asked.
    fn begin(&self, txn: u64, level: Level) {
        let (isolation, mode) = (level.promises, level.setting.mode);
        self.push(Event::Begin { txn: TxnKey(txn), name: format!("T{txn}"), isolation, mode, read_only: false });
    }

    /// After it has answered.
    fn done(&self, mark: Mark, operation: &Operation<Bytes>, answer: Answer) {
        let txn = mark.txn_key();
        match (operation, answer) {
            (Operation::Get(key), Answer::Found(found)) => {
                let version = match found.as_ref().map(Stored::mark) {
                    None => Version::None,
                    Some(Mark::INITIAL) => Version::Committed(Ts::ZERO),
                    Some(seen) if seen.txn_key() == txn => Version::Own(seen.seq),
                    Some(seen) => Version::InFlight { txn: seen.txn_key(), seq: seen.seq },
                };
                let value = found.map(|stored| stored.value);
                self.push(Event::Read { txn, key: key.clone(), version, value, kind: ReadKind::Tracked, as_of: None });
            }
            (Operation::Put(key, value), _) => {
                let (key, value) = (key.clone(), Some(value.clone()));
                self.push(Event::Write { txn, key, seq: mark.seq, value, blind: false });
            }
            (Operation::Rollback, _) => self.push(Event::Abort { txn }),
            // The place among the commits is given in the end.
            _ => self.push(Event::Commit { txn, ts: None, resolved: Vec::new() }),
        }
    }

    /// A transaction that has failed is over. Only one that failed at its commit, in a way that does not
    /// say that it was rolled back, may have committed.
    fn failed(&self, txn: u64, operation: &Operation<Bytes>, failure: &Failure) {
        let txn = TxnKey(txn);
        let rolled_back = matches!(failure.class, FailureClass::Conflict | FailureClass::Deadlock);
        self.push(match operation {
            Operation::Commit if !rolled_back => Event::Unknown { txn },
            _ => Event::Abort { txn },
        });
    }

    /// The history, with the version orders that the final rows of each node give.
    fn finish(self, initial: Vec<(Key, Bytes)>, nodes: &[Vec<(Key, Stored)>]) -> Observed {
        let mut events = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let writers: BTreeMap<TxnKey, usize> = events
            .iter()
            .enumerate()
            .filter_map(|(at, event)| matches!(event, Event::Write { .. }).then(|| (event.txn(), at)))
            .collect();
        let mut commits = 0;
        for event in &mut events {
            if let Event::Commit { txn, ts, .. } = event
                && writers.contains_key(txn)
            {
                commits += 1;
                *ts = Some(Ts(commits));
            }
        }
        let rows = nodes.first().map_or(&[][..], Vec::as_slice);
        let mut complaints = lost(&events, rows);
        for (node, others) in nodes.iter().enumerate().skip(1) {
            if others != rows {
                complaints.push(format!("in the end node {} holds other rows than node 1", node + 1));
            }
        }
        let order = rows.iter().map(|(key, stored)| {
            let marks = stored.trail.iter().filter(|mark| **mark != Mark::INITIAL);
            (key.clone(), marks.map(|mark| (mark.txn_key(), mark.seq)).collect())
        });
        let order = order.collect();
        Observed { history: History { initial, order, events, ..History::default() }, complaints }
    }
}

/// Writes that were committed and left no mark.
fn lost(events: &[Event], rows: &[(Key, Stored)]) -> Vec<String> {
    let committed = |txn: TxnKey| events.iter().any(|event| matches!(event, Event::Commit { txn: t, .. } if *t == txn));
    let is_there = |key: &Key, mark: Mark| rows.iter().any(|(k, stored)| k == key && stored.trail.contains(&mark));
    let lost = events.iter().filter_map(|event| match event {
        Event::Write { txn, key, seq, .. } => {
            let mark = Mark { txn: txn.0, seq: *seq };
            (!is_there(key, mark) && committed(*txn)).then(|| (mark, key))
        }
        _ => None,
    });
    lost.map(|(mark, key)| format!("the write {mark} of {} was committed, and left no trace", escape_key(key)))
        .collect()
}
