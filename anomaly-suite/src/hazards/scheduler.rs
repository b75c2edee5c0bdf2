//! A scheduler for one thread: picks who goes on by a seed, or in turn, and counts.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use isolde::Result;
use isolde::step::Op;

/// What a program counts, by name.
pub type Tally = Rc<RefCell<std::collections::BTreeMap<&'static str, u64>>>;

/// Adds to a count.
pub fn count(tally: &Tally, what: &'static str) {
    *tally.borrow_mut().entry(what).or_default() += 1;
}

/// The value of a count.
pub fn counted(tally: &Tally, what: &str) -> u64 {
    tally.borrow().get(what).copied().unwrap_or(0)
}

/// A program under the scheduler.
pub type Program = Pin<Box<dyn Future<Output = ()>>>;

/// Who goes on.
#[derive(Clone, Copy)]
pub enum Order {
    /// Whoever a generator with this seed picks.
    Seeded(u64),
    /// Everybody in turn.
    InTurn,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// Operations that were polled.
    pub steps: u64,
    /// Programs that were not finished: blocked for ever, or at the limit of steps.
    pub unfinished: u64,
}

/// One operation, and then somebody else's turn.
pub async fn step<T>(mut op: Op<T>) -> Result<T> {
    let outcome = std::future::poll_fn(|cx| op.poll(cx)).await;
    pass().await;
    outcome
}

/// Lets somebody else go on.
pub async fn pass() {
    let mut passed = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut passed, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

struct Runnable(AtomicBool);

impl Wake for Runnable {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs programs until all are finished, all that are left are blocked, or `limit` steps were made.
pub fn run(mut programs: Vec<Program>, order: Order, limit: u64) -> End {
    let runnable: Vec<Arc<Runnable>> = programs.iter().map(|_| Arc::new(Runnable(AtomicBool::new(true)))).collect();
    let mut finished = vec![false; programs.len()];
    let mut rng = fastrand::Rng::with_seed(match order {
        Order::Seeded(seed) => seed,
        Order::InTurn => 0,
    });
    let (mut steps, mut turn) = (0, 0);
    while steps < limit {
        let ready: Vec<usize> =
            (0..programs.len()).filter(|n| !finished[*n] && runnable[*n].0.load(Ordering::SeqCst)).collect();
        let next = match order {
            _ if ready.is_empty() => break,
            Order::Seeded(_) => ready[rng.usize(..ready.len())],
            Order::InTurn => ready.iter().copied().find(|n| *n >= turn).unwrap_or(ready[0]),
        };
        turn = next + 1;
        steps += 1;
        runnable[next].0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&runnable[next]));
        finished[next] = programs[next].as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    }
    End { steps, unfinished: finished.iter().filter(|finished| !**finished).count() as u64 }
}
