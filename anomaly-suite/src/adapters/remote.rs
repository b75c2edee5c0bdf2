//! Database servers: one connection per transaction, driven on the one thread of the schedule.
//!
//! An operation is sent and runs at the server while the schedule goes on. Whether it is blocked the
//! server says: one more connection reads its lock views, and an operation counts as blocked when they
//! say that it waits for another transaction. Time alone says nothing: an operation that is merely slow is
//! waited for. Where the waits close a cycle, a server that looks for deadlocks from time to time is about
//! to choose a victim, and that is waited for as well.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use isolde_history::schedule::{Begin, Failure, FailureClass, Operation};
use isolde_types::Key;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::mark::{Mark, Stored};
use super::traced::{Answer, Progress, Sessions};
use crate::engine::{Level, Unreachable};

/// What a server's client must do.
pub(super) trait Server: Sized {
    /// A connection.
    type Session: Send + 'static;

    /// How long an answer is waited for before the lock views are asked. It decides nothing.
    const PATIENCE: Duration;

    /// A connection for one transaction, which begins at a level.
    fn begin(&self, level: Level, read_only: bool) -> impl Future<Output = Result<Self::Session, Failure>>;

    /// By which number the lock views know a session.
    fn id(session: &Self::Session) -> u64;

    /// Runs an operation; a failure that leaves the transaction useless must have rolled it back.
    fn run(
        session: &mut Self::Session,
        operation: Operation<Bytes>,
        mark: Mark,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// Who waits for whom among these sessions, by the lock views.
    fn waits(&mut self, ids: &[u64]) -> impl Future<Output = Result<Vec<Wait>, String>>;

    /// All rows.
    fn rows(&mut self) -> impl Future<Output = Result<Vec<(Key, Stored)>, String>>;

    /// Leaves nothing behind.
    fn clean(&mut self) -> impl Future<Output = ()>;
}

/// A session that waits for a lock.
pub(super) struct Wait {
    pub waiter: u64,
    /// Who holds it; none where the server does not say.
    pub blocker: Option<u64>,
}

/// The connections of one run.
pub(super) struct Remote<S: Server> {
    runtime: Runtime,
    server: S,
    idle: HashMap<usize, S::Session>,
    running: HashMap<usize, Running<S::Session>>,
    ids: HashMap<usize, u64>,
}

/// An operation at the server, which gives its connection back.
type Running<S> = JoinHandle<(S, Result<Answer, Failure>)>;

/// How often the lock views are asked about one operation before it is given up.
const ASKED_MAX: u32 = 4_000;

/// The runtime that a run has for itself.
pub(super) fn runtime() -> Result<Runtime, Unreachable> {
    Builder::new_current_thread().enable_all().build().map_err(|error| Unreachable(error.to_string()))
}

impl<S: Server> Remote<S> {
    pub fn new(runtime: Runtime, server: S) -> Self {
        Remote { runtime, server, idle: HashMap::new(), running: HashMap::new(), ids: HashMap::new() }
    }

    /// The transactions of the schedule that each one waits for, by the lock views.
    fn waits(&mut self) -> Result<HashMap<usize, Vec<usize>>, String> {
        let ids: Vec<u64> = self.ids.values().copied().collect();
        let edges = self.runtime.block_on(self.server.waits(&ids))?;
        let txn_of: HashMap<u64, usize> = self.ids.iter().map(|(txn, id)| (*id, *txn)).collect();
        let mut waits: HashMap<usize, Vec<usize>> = HashMap::new();
        for Wait { waiter, blocker } in edges {
            let Some(waiter) = txn_of.get(&waiter) else { continue };
            match blocker.map(|blocker| txn_of.get(&blocker)) {
                Some(Some(blocker)) => waits.entry(*waiter).or_default().push(*blocker),
                // Somebody outside the schedule, who will go on by himself.
                Some(None) => {}
                None => drop(waits.entry(*waiter).or_default()),
            }
        }
        waits.values_mut().for_each(|blockers| blockers.sort_unstable());
        Ok(waits)
    }

    /// The answer, if there is one before it is time to ask the lock views.
    fn answer(&mut self, txn: usize) -> Option<Result<Answer, Failure>> {
        let Some(running) = self.running.get_mut(&txn) else {
            return Some(Err(failure(FailureClass::Refused, "nothing was started")));
        };
        // The future is made inside, where there is a timer.
        let answer = self.runtime.block_on(async { timeout(S::PATIENCE, running).await }).ok()?;
        self.running.remove(&txn);
        Some(match answer {
            Ok((session, result)) => {
                self.idle.insert(txn, session);
                result
            }
            Err(error) => Err(failure(FailureClass::Unknown, &error.to_string())),
        })
    }
}

impl<S: Server> Sessions for Remote<S> {
    const TRAILS: bool = true;

    fn begin(&mut self, txn: usize, begin: &Begin<'_>, level: &Level) -> Result<(), Failure> {
        let session = self.runtime.block_on(self.server.begin(*level, begin.read_only))?;
        self.ids.insert(txn, S::id(&session));
        self.idle.insert(txn, session);
        Ok(())
    }

    fn start(&mut self, txn: usize, operation: &Operation<Bytes>, mark: Mark) {
        if let Some(mut session) = self.idle.remove(&txn) {
            let operation = operation.clone();
            let running = self.runtime.spawn(async move {
                let result = S::run(&mut session, operation, mark).await;
                (session, result)
            });
            self.running.insert(txn, running);
        }
    }

    fn poll(&mut self, txn: usize) -> Progress {
        for _ in 0..ASKED_MAX {
            if let Some(answer) = self.answer(txn) {
                if answer.as_ref().is_err_and(|failure| failure.ended) {
                    self.ids.remove(&txn);
                }
                return Progress::Done(answer);
            }
            match self.waits() {
                Ok(waits) if waits.contains_key(&txn) && !leads_to_a_cycle(&waits, txn) => return Progress::Blocked,
                Ok(_) => {}
                Err(error) => return Progress::Done(Err(failure(FailureClass::Unknown, &error))),
            }
        }
        Progress::Done(Err(failure(
            FailureClass::Unknown,
            "the server has not answered, and names nobody it waits for",
        )))
    }

    fn waits_for(&mut self, txn: usize) -> Option<usize> {
        self.waits().ok()?.get(&txn)?.first().copied()
    }

    fn rows(&mut self) -> Result<Vec<(Key, Stored)>, String> {
        self.idle.clear();
        self.runtime.block_on(self.server.rows())
    }
}

impl<S: Server> Drop for Remote<S> {
    fn drop(&mut self) {
        self.idle.clear();
        self.running.drain().for_each(|(_, running)| running.abort());
        self.runtime.block_on(self.server.clean());
    }
}

/// Whether whoever waits from here on includes a cycle: then somebody will be made a victim.
fn leads_to_a_cycle(waits: &HashMap<usize, Vec<usize>>, from: usize) -> bool {
    let reaches_itself = |start: usize| {
        let (mut seen, mut next) = (HashSet::new(), vec![start]);
        while let Some(txn) = next.pop() {
            for blocker in waits.get(&txn).into_iter().flatten() {
                if *blocker == start {
                    return true;
                }
                if seen.insert(*blocker) {
                    next.push(*blocker);
                }
            }
        }
        false
    };
    let mut reached = BTreeSet::from([from]);
    let mut next = vec![from];
    while let Some(txn) = next.pop() {
        next.extend(waits.get(&txn).into_iter().flatten().copied().filter(|blocker| reached.insert(*blocker)));
    }
    reached.into_iter().any(reaches_itself)
}

/// A failure that ended its transaction.
pub(super) fn failure(class: FailureClass, message: &str) -> Failure {
    Failure { class, message: message.to_owned(), ended: true }
}

/// A word of a schedule: always text.
pub(super) fn text(word: &Bytes) -> String {
    String::from_utf8_lossy(word).into_owned()
}

/// A name for a table that no other run uses.
pub(super) fn table_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: the numbers need only differ.
    format!("anomaly_suite_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_seen_from_whoever_waits_for_it() {
        let waits = HashMap::from([(1, vec![2]), (2, vec![3]), (3, vec![2])]);
        assert!([1, 2, 3].into_iter().all(|txn| leads_to_a_cycle(&waits, txn)));
        let chain = HashMap::from([(1, vec![2]), (2, vec![3])]);
        assert!(![1, 2, 3].into_iter().any(|txn| leads_to_a_cycle(&chain, txn)));
    }
}
