//! Random transactions in threads at a database server, or at several nodes that hold the same data.
//!
//! ```text
//!  thread 1 ──► sessions at node 1 ─┐
//!  thread 2 ──► sessions at node 2 ─┼─► records: events in the order in which they were seen
//!  thread 3 ──► sessions at node 1 ─┘         + the trails of the final rows = the order of versions
//! ```

use std::future::Future;
use std::sync::Barrier;

use bytes::Bytes;
use fastrand::Rng;
use isolde_history::model::{Event, TxnKey};
use isolde_history::schedule::Operation;
use isolde_types::Key;

use super::concurrent::{Concurrent, Observed, TRANSACTIONS};
use super::mark::Mark;
use super::records::{Records, initial, program};
use super::remote::{Server, runtime};
use crate::engine::{Level, Unreachable};
use crate::fuzz::Shape;

/// A server whose data several clients can share.
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
pub(super) struct Nodes<S: Node>(pub Vec<S::Address>);

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
