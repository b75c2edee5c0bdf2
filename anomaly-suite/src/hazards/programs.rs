//! The programs: what goes wrong, and what resolves it.

use std::rc::Rc;

use isolde::step::{Op, Session};
use isolde::{Cas, Db, Deadlocks, Error, Isolation, Mode, Result, Victim};

use super::scheduler::{End, Order, Program, Tally, count, counted, pass, run, step};
use super::{Case, Hazard};

const SEED: u64 = 0x5eed;

fn open(deadlocks: Deadlocks) -> Db {
    Db::builder().in_memory().deadlocks(deadlocks).open().expect("the options are sound")
}

fn detecting() -> Db {
    open(Deadlocks::Detect { victim: Victim::Youngest })
}

async fn begin(db: &Db, isolation: Isolation, mode: Mode) -> Result<Session> {
    step(Session::begin(db.txn().isolation(isolation).mode(mode))).await
}

fn number(value: Option<isolde::Bytes>) -> i64 {
    value.and_then(|bytes| bytes[..].try_into().ok()).map_or(0, i64::from_be_bytes)
}

// --- race condition --------------------------------------------------------------------------------

const COUNTERS: u64 = 4;
const ROUNDS: u64 = 25;

/// How one of several programs adds one to the counter.
#[derive(Clone, Copy)]
enum Add {
    ReadModifyWrite(Isolation, Mode),
    GetForUpdate,
    Increment,
    CompareAndSet,
}

impl Add {
    /// One attempt.
    async fn attempt(self, db: &Db) -> Result<()> {
        let (isolation, mode) = match self {
            Add::ReadModifyWrite(isolation, mode) => (isolation, mode),
            Add::GetForUpdate => (Isolation::ReadCommitted, Mode::Pessimistic),
            Add::Increment | Add::CompareAndSet => (Isolation::ReadCommitted, Mode::Optimistic),
        };
        let txn = begin(db, isolation, mode).await?;
        match self {
            Add::ReadModifyWrite(..) => {
                let n = number(step(txn.get("n")).await?);
                step(txn.put("n", (n + 1).to_be_bytes())).await?;
            }
            Add::GetForUpdate => {
                let n = number(step(txn.get_for_update("n")).await?);
                step(txn.put("n", (n + 1).to_be_bytes())).await?;
            }
            Add::Increment => step(txn.increment("n", 1)).await?,
            Add::CompareAndSet => {
                let old = step(txn.get("n")).await?;
                let new = (number(old.clone()) + 1).to_be_bytes();
                let swap = step(txn.compare_and_set("n", old.as_deref(), Some(&new))).await?;
                if swap != Cas::Swapped {
                    return Err(Error::abort("somebody else was faster"));
                }
            }
        }
        step(txn.commit()).await.map(|_| ())
    }
}

async fn add_rounds(db: Db, add: Add, tally: Tally) {
    for _ in 0..ROUNDS {
        count(&tally, "attempts");
        while add.attempt(&db).await.is_err() {
            count(&tally, "attempts");
        }
    }
}

/// Threads that read a counter, add one, and write it back.
pub fn race() -> Hazard {
    let case = |mechanism: &str, add: Add, shows: bool| {
        let (db, tally) = (detecting(), Tally::default());
        let programs =
            (0..COUNTERS).map(|_| Box::pin(add_rounds(db.clone(), add, Rc::clone(&tally))) as Program).collect();
        let end = run(programs, Order::Seeded(SEED), 1_000_000);
        let kept = u64::try_from(number(db.get("n").ok().flatten())).unwrap_or(0);
        let lost = (COUNTERS * ROUNDS).saturating_sub(kept);
        Case {
            mechanism: mechanism.to_owned(),
            counts: vec![("increments", COUNTERS * ROUNDS), ("lost", lost), ("attempts", counted(&tally, "attempts"))],
            as_declared: end.unfinished == 0 && (lost > 0) == shows,
        }
    };
    use Isolation::{ReadCommitted, Serializable};
    Hazard {
        name: "race condition",
        without: case(
            "read, add, write at read committed",
            Add::ReadModifyWrite(ReadCommitted, Mode::Optimistic),
            true,
        ),
        with: vec![
            case("increment", Add::Increment, false),
            case("compare-and-set", Add::CompareAndSet, false),
            case("get-for-update", Add::GetForUpdate, false),
            case("serializable, pessimistic", Add::ReadModifyWrite(Serializable, Mode::Pessimistic), false),
            case("serializable, optimistic", Add::ReadModifyWrite(Serializable, Mode::Optimistic), false),
        ],
    }
}

// --- deadlock -----------------------------------------------------------------------------------------

/// An operation of a session, for programs that differ in nothing else.
type Act = fn(&Session) -> Op<()>;

/// Locks in this order, one program each.
fn shape(name: &str) -> Vec<[Act; 2]> {
    let put = [|s: &Session| s.put("a", "1"), |s: &Session| s.put("b", "1"), |s: &Session| s.put("c", "1")];
    fn share(s: &Session) -> Op<()> {
        s.lock("a".."a\0", isolde::LockMode::Shared)
    }
    fn share_all(s: &Session) -> Op<()> {
        s.lock("a".."z", isolde::LockMode::Shared)
    }
    match name {
        "ring of three" => vec![[put[0], put[1]], [put[1], put[2]], [put[2], put[0]]],
        "two upgraders" => vec![[share, put[0]], [share, put[0]]],
        "span against key" => vec![[share_all, put[0]], [share_all, put[1]]],
        _ => vec![[put[0], put[1]], [put[1], put[0]]],
    }
}

async fn two_locks(db: Db, acts: [Act; 2], tally: Tally) {
    // Those who do not give way commit; those who do are counted, and not tried again.
    let attempt = async {
        let txn = begin(&db, Isolation::ReadCommitted, Mode::Pessimistic).await?;
        for act in acts {
            step(act(&txn)).await?;
        }
        step(txn.commit()).await
    };
    match attempt.await {
        Ok(_) => count(&tally, "committed"),
        Err(_) => count(&tally, "gave way"),
    }
}

fn deadlock_case(mechanism: String, policy: Deadlocks, name: &str) -> Case {
    let (db, tally) = (open(policy), Tally::default());
    let acts = shape(name);
    let everybody = acts.len() as u64;
    let programs = acts.into_iter().map(|acts| Box::pin(two_locks(db.clone(), acts, Rc::clone(&tally))) as Program);
    let End { unfinished, .. } = run(programs.collect(), Order::InTurn, 10_000);
    let (committed, gave_way) = (counted(&tally, "committed"), counted(&tally, "gave way"));
    let resolves = policy != Deadlocks::TimeoutOnly;
    let some_give_way = match policy {
        // Nobody waits at all, so more may give way than must.
        Deadlocks::NoWait => committed + gave_way == everybody,
        _ => gave_way >= 1 && committed + gave_way == everybody && committed >= 1,
    };
    Case {
        mechanism,
        counts: vec![("committed", committed), ("gave way", gave_way), ("blocked for ever", unfinished)],
        as_declared: if resolves { unfinished == 0 && some_give_way } else { unfinished == everybody },
    }
}

/// Transactions that wait for each other in a circle.
pub fn deadlock() -> Hazard {
    let detect = Deadlocks::Detect { victim: Victim::Youngest };
    let mut with: Vec<Case> = ["crosswise", "ring of three", "two upgraders", "span against key"]
        .map(|name| deadlock_case(format!("detection, {name}"), detect, name))
        .into();
    for (name, policy) in
        [("wound-wait", Deadlocks::WoundWait), ("wait-die", Deadlocks::WaitDie), ("no-wait", Deadlocks::NoWait)]
    {
        with.push(deadlock_case(format!("{name}, crosswise"), policy, "crosswise"));
    }
    Hazard {
        name: "deadlock",
        without: deadlock_case("no detection, crosswise".to_owned(), Deadlocks::TimeoutOnly, "crosswise"),
        with,
    }
}

// --- livelock -------------------------------------------------------------------------------------------

/// How a program that had to give way goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    AtOnce,
    AfterBackoff,
}

async fn crosswise(db: Db, keys: [&'static str; 2], again: Again, seed: u64, tally: Tally) {
    let mut rng = fastrand::Rng::with_seed(seed);
    for attempt in 0_u32.. {
        count(&tally, "attempts");
        let both = async {
            let txn = begin(&db, Isolation::ReadCommitted, Mode::Pessimistic).await?;
            for key in keys {
                step(txn.put(key, "1")).await?;
            }
            step(txn.commit()).await
        };
        if both.await.is_ok() {
            count(&tally, "committed");
            return;
        }
        if again == Again::AfterBackoff {
            for _ in 0..rng.u32(0..=1 << attempt.min(6)) {
                pass().await;
            }
        }
    }
}

fn livelock_case(mechanism: &str, policy: Deadlocks, again: Again, shows: bool) -> Case {
    let (db, tally) = (open(policy), Tally::default());
    let programs = [["a", "b"], ["b", "a"]]
        .into_iter()
        .zip(1..)
        .map(|(keys, seed)| Box::pin(crosswise(db.clone(), keys, again, seed, Rc::clone(&tally))) as Program);
    let End { steps, .. } = run(programs.collect(), Order::InTurn, 5_000);
    let (committed, attempts) = (counted(&tally, "committed"), counted(&tally, "attempts"));
    Case {
        mechanism: mechanism.to_owned(),
        counts: vec![("steps", steps), ("attempts", attempts), ("committed", committed)],
        as_declared: if shows { committed == 0 } else { committed == 2 },
    }
}

/// Transactions that make each other give way, again and again. (Optimistic ones cannot: each of their
/// aborts is caused by somebody's commit. Two that do not wait for locks can.)
pub fn livelock() -> Hazard {
    let detect = Deadlocks::Detect { victim: Victim::Youngest };
    Hazard {
        name: "livelock",
        without: livelock_case("no-wait, retried at once", Deadlocks::NoWait, Again::AtOnce, true),
        with: vec![
            livelock_case("no-wait, retried after random backoff", Deadlocks::NoWait, Again::AfterBackoff, false),
            livelock_case("waiting, with deadlock detection", detect, Again::AtOnce, false),
            livelock_case("wound-wait", Deadlocks::WoundWait, Again::AtOnce, false),
        ],
    }
}

// --- starvation ------------------------------------------------------------------------------------------

const LIMIT: u64 = 2_000;

/// One of several readers that overlap, so that somebody always reads, until the writer is done.
async fn reader(db: Db, starts_after: u32, tally: Tally) {
    for _ in 0..starts_after {
        pass().await;
    }
    while counted(&tally, "written") == 0 {
        let Ok(txn) = begin(&db, Isolation::Serializable, Mode::Pessimistic).await else { continue };
        let _ = step(txn.get("k")).await;
        for _ in 0..12 {
            pass().await;
        }
        let _ = step(txn.commit()).await;
        count(&tally, "reads");
    }
}

/// A writer that asks once and waits in the queue, or asks again and again.
async fn writer(db: Db, queues: bool, tally: Tally) {
    loop {
        count(&tally, "attempts");
        let Ok(txn) = begin(&db, Isolation::Serializable, Mode::Pessimistic).await else { continue };
        let mut put = txn.put("k", "w");
        let granted = std::future::poll_fn(|cx| match put.poll(cx) {
            std::task::Poll::Pending if !queues => std::task::Poll::Ready(None),
            other => other.map(Some),
        });
        if let Some(Ok(())) = granted.await
            && step(txn.commit()).await.is_ok()
        {
            count(&tally, "written");
            return;
        }
        drop(put);
        pass().await;
    }
}

fn starving_writer(mechanism: &str, queues: bool) -> Case {
    let (db, tally) = (detecting(), Tally::default());
    let mut programs: Vec<Program> =
        (0..3).map(|number| Box::pin(reader(db.clone(), 5 * number, Rc::clone(&tally))) as Program).collect();
    programs.push(Box::pin(writer(db.clone(), queues, Rc::clone(&tally))));
    let End { steps, .. } = run(programs, Order::InTurn, LIMIT);
    let written = counted(&tally, "written");
    Case {
        mechanism: mechanism.to_owned(),
        counts: vec![("steps", steps), ("attempts", counted(&tally, "attempts")), ("written", written)],
        as_declared: (written == 1) == queues,
    }
}

/// Short transactions that write the keys that the long one reads, until it is done.
async fn short(db: Db, tally: Tally) {
    while counted(&tally, "long committed") == 0 {
        let add = Add::ReadModifyWrite(Isolation::Serializable, Mode::Optimistic);
        let _ = add.attempt(&db).await;
    }
}

async fn long(db: Db, escalates: bool, tally: Tally) {
    for attempt in 1_u32.. {
        count(&tally, "attempts");
        let mode = if escalates && attempt > 3 { Mode::Pessimistic } else { Mode::Optimistic };
        let work = async {
            let txn = begin(&db, Isolation::Serializable, mode).await?;
            step(txn.get("n")).await?;
            for _ in 0..20 {
                pass().await;
            }
            step(txn.put("sum", "x")).await?;
            step(txn.commit()).await
        };
        if work.await.is_ok() {
            count(&tally, "long committed");
            return;
        }
    }
}

fn starving_long(mechanism: &str, escalates: bool) -> Case {
    let (db, tally) = (detecting(), Tally::default());
    let programs: Vec<Program> =
        vec![Box::pin(short(db.clone(), Rc::clone(&tally))), Box::pin(long(db.clone(), escalates, Rc::clone(&tally)))];
    let End { steps, .. } = run(programs, Order::InTurn, LIMIT);
    let committed = counted(&tally, "long committed");
    Case {
        mechanism: mechanism.to_owned(),
        counts: vec![("steps", steps), ("attempts", counted(&tally, "attempts")), ("committed", committed)],
        as_declared: (committed == 1) == escalates,
    }
}

/// A transaction that never gets its turn.
pub fn starvation() -> Hazard {
    Hazard {
        name: "starvation",
        without: starving_writer("a writer under readers, retrying", false),
        with: vec![
            starving_writer("a writer in the fair queue", true),
            starving_long("a long optimist that escalates", true),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hazard_is_shown_and_resolved() {
        for hazard in [race(), deadlock(), livelock(), starvation()] {
            for case in std::iter::once(&hazard.without).chain(&hazard.with) {
                assert!(case.as_declared, "{}: {} came to {}", hazard.name, case.mechanism, case.measured());
            }
        }
    }

    #[test]
    fn a_long_optimist_that_does_not_escalate_starves() {
        assert!(starving_long("no escalation", false).as_declared);
    }
}
