//! Random programs of three and four transactions, with upgrades, on two keys and a span, under every
//! policy: none hangs, nothing is left, and nobody holds what conflicts.

mod common;

use std::cell::OnceCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use common::{All, Record};
use isolde_locks::{
    Acquire, Deadlocks, Handle as _, LockConfig, LockError, LockManager, Owner, OwnerSpec, Purpose, Victim, WaitPolicy,
};
use isolde_types::{Key, LockMode, RecordCell, Span, TxnId};

/// Programs for each of eight policies: more than 100,000 in all.
const PROGRAMS: u64 = 12_600;

/// Attempts of one program's transactions, at most.
const ATTEMPTS: usize = 600;

/// What is locked: one of two keys, or the span over both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Key(usize),
    Both,
}

type Program = Vec<(What, LockMode)>;

fn program(rng: &mut fastrand::Rng) -> Program {
    let mut step = || {
        let what = if rng.u32(..5) == 0 { What::Both } else { What::Key(rng.usize(..2)) };
        (what, LockMode::ALL[rng.usize(..3)])
    };
    let steps = 1 + usize::from(step().0 == What::Key(0)) + usize::from(step().0 == What::Key(1)) + 1;
    (0..steps).map(|_| step()).collect()
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A transaction that runs a program.
struct Running<'m> {
    program: &'m Program,
    at: usize,
    age: u64,
    owner: &'m Arc<Owner<Record>>,
    waits: Option<Pin<Box<Acquire<'m, Record>>>>,
    woken: Arc<Flag>,
    held: Vec<(What, LockMode)>,
}

impl Running<'_> {
    fn can_go_on(&self) -> bool {
        self.waits.is_none() || self.woken.0.load(Ordering::SeqCst)
    }
}

/// What the runs of a policy counted.
#[derive(Default, Debug)]
struct Counts {
    finished: u64,
    gave_way: u64,
    timed_out: u64,
}

fn run(policy: Deadlocks, programs: &[Program], rng: &mut fastrand::Rng, counts: &mut Counts) {
    let manager = LockManager::<Record>::new(LockConfig { deadlocks: policy, max_locks_per_txn: 100 });
    let records = All(["a", "b"].map(Record::new).to_vec());
    let owners: Vec<OnceCell<Arc<Owner<Record>>>> = (0..ATTEMPTS).map(|_| OnceCell::new()).collect();
    let mut last_id = 0;
    let mut begin = |program, age: Option<u64>| {
        last_id += 1;
        let age = age.unwrap_or(last_id);
        let spec = OwnerSpec { id: TxnId(last_id), age, label: None, on_wound: None };
        let slot = owners.get(usize::try_from(last_id).unwrap()).expect("the program is tried for ever");
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        let owner = slot.get_or_init(|| manager.owner(spec));
        Running { program, at: 0, age, owner, waits: None, woken, held: Vec::new() }
    };
    let mut running: Vec<Option<Running<'_>>> = programs.iter().map(|program| Some(begin(program, None))).collect();
    loop {
        let ready: Vec<usize> =
            (0..running.len()).filter(|n| running[*n].as_ref().is_some_and(Running::can_go_on)).collect();
        if ready.is_empty() {
            let Some(stuck) = running.iter().position(Option::is_some) else { break };
            assert_eq!(policy, Deadlocks::TimeoutOnly, "{policy:?}: {programs:?} hangs:\n{}", manager.waits_for());
            give_up(&manager, running[stuck].take().unwrap());
            counts.timed_out += 1;
            continue;
        }
        let chosen = ready[rng.usize(..ready.len())];
        let mut txn = running[chosen].take().unwrap();
        match advance(&manager, &records, &mut txn) {
            Poll::Pending | Poll::Ready(Ok(Progress::Further)) => running[chosen] = Some(txn),
            Poll::Ready(Ok(Progress::Finished)) => {
                manager.release_all(txn.owner);
                counts.finished += 1;
            }
            Poll::Ready(Err(error)) => {
                let expected = matches!(error, LockError::Deadlock(_) | LockError::Wounded { .. } | LockError::Busy(_));
                assert!(expected, "{policy:?}: {error:?}");
                manager.release_all(txn.owner);
                counts.gave_way += 1;
                // No-wait promises nothing to a retry: it is not tried again.
                if policy != Deadlocks::NoWait {
                    let keeps_age = policy != Deadlocks::Detect { victim: Victim::Oldest };
                    running[chosen] = Some(begin(txn.program, keeps_age.then_some(txn.age)));
                }
            }
        }
        nobody_conflicts(&running, policy);
    }
    assert!(manager.locks().is_empty(), "{policy:?}: {}", manager.locks());
    for record in &records.0 {
        assert!(record.cell().try_seal(), "{policy:?}: {:?} is not free at the end", record.key());
    }
}

/// Somebody's patience ends: it rolls back.
fn give_up(manager: &LockManager<Record>, mut txn: Running<'_>) {
    let timed_out = txn.waits.take().unwrap().as_mut().time_out();
    assert!(matches!(timed_out, Err(LockError::Timeout(blockers)) if !blockers.is_empty()));
    manager.release_all(txn.owner);
}

enum Progress {
    Further,
    Finished,
}

/// Goes on with a program.
fn advance<'m>(
    manager: &'m LockManager<Record>,
    records: &All,
    txn: &mut Running<'m>,
) -> Poll<Result<Progress, LockError>> {
    let Some(&(what, mode)) = txn.program.get(txn.at) else { return Poll::Ready(Ok(Progress::Finished)) };
    let mut waits = txn.waits.take().unwrap_or_else(|| {
        Box::pin(match what {
            What::Key(n) => manager.lock_key(txn.owner, records.0[n].clone(), mode, Purpose::Write, WaitPolicy::Wait),
            What::Both => {
                let span = Span::new(Key::from_static(b"a"), Some(Key::from_static(b"c")));
                manager.lock_span(txn.owner, span, mode, Purpose::Read, WaitPolicy::Wait, records)
            }
        })
    });
    txn.woken.0.store(false, Ordering::SeqCst);
    match waits.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&txn.woken)))) {
        Poll::Pending => {
            txn.waits = Some(waits);
            Poll::Pending
        }
        Poll::Ready(outcome) => {
            outcome?;
            txn.held.push((what, mode));
            txn.at += 1;
            Poll::Ready(Ok(Progress::Further))
        }
    }
}

/// No two transactions hold, in conflicting modes, what overlaps.
fn nobody_conflicts(running: &[Option<Running<'_>>], policy: Deadlocks) {
    let of =
        |(n, txn): (usize, &Running<'_>)| txn.held.iter().map(|(what, mode)| (n, *what, *mode)).collect::<Vec<_>>();
    let active = running.iter().enumerate().filter_map(|(n, txn)| Some((n, txn.as_ref()?)));
    let held: Vec<(usize, What, LockMode)> = active.flat_map(of).collect();
    for (n, what, mode) in &held {
        for (other, theirs, their_mode) in held.iter().filter(|(other, ..)| other != n) {
            let overlap = what == theirs || *what == What::Both || *theirs == What::Both;
            assert!(
                !(overlap && mode.conflicts(*their_mode)),
                "{policy:?}: {n} has {mode} on {what:?}, {other} has {their_mode} on {theirs:?}"
            );
        }
    }
}

#[test]
fn no_random_program_hangs_under_any_policy() {
    let seed = std::env::var("ISOLDE_SEED").map_or(3, |text| text.parse().unwrap());
    let mut policies: Vec<Deadlocks> = [Victim::Youngest, Victim::Oldest, Victim::FewestLocks, Victim::Requester]
        .map(|victim| Deadlocks::Detect { victim })
        .into();
    policies.extend([Deadlocks::WoundWait, Deadlocks::WaitDie, Deadlocks::NoWait, Deadlocks::TimeoutOnly]);
    let (mut total, mut ways) = (0, 0);
    for (number, policy) in policies.iter().enumerate() {
        let mut rng = fastrand::Rng::with_seed(seed + number as u64);
        let mut counts = Counts::default();
        for _ in 0..PROGRAMS {
            let programs: Vec<Program> = (0..rng.usize(3..5)).map(|_| program(&mut rng)).collect();
            run(*policy, &programs, &mut rng, &mut counts);
            total += 1;
        }
        println!("{policy:?}: {counts:?}");
        ways += counts.gave_way + counts.timed_out;
    }
    println!("{total} programs (ISOLDE_SEED={seed}), none hung");
    assert!(total >= 100_000);
    assert!(ways > 1_000, "the programs hardly ever met");
}
