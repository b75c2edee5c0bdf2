//! The driver, over a database that is nothing but locks: each key has one holder and a queue.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use isolde_history::History;
use isolde_history::schedule::{
    Begin, Database, Driver, Failure, FailureClass, Operation, Output, Replay, ReplayError, Schedule, Setting,
    StepOutcome, TxnOutcome, replay,
};
use isolde_types::{Isolation, Key, Mode};

/// Whom a release wakes first.
#[derive(Clone, Copy, Default)]
enum WakeOrder {
    #[default]
    Arrival,
    Reverse,
}

/// `put` locks its key until the end; a put of `doomed` fails and ends the transaction. A waiter is
/// woken when the key is free; whoever is polled first gets it.
#[derive(Default)]
struct Locks {
    order: WakeOrder,
    began: Vec<(String, Isolation, Mode, bool)>,
    holders: BTreeMap<Key, usize>,
    waiting: VecDeque<(Key, usize, Waker)>,
    values: BTreeMap<Key, Bytes>,
    started: BTreeMap<usize, Operation<Bytes>>,
    log: Vec<String>,
}

impl Locks {
    fn release(&mut self, txn: usize) {
        self.holders.retain(|_, holder| *holder != txn);
        let free = |locks: &Locks, key: &Key| !locks.holders.contains_key(key);
        let mut woken: Vec<Waker> =
            self.waiting.iter().filter(|(key, ..)| free(self, key)).map(|(.., waker)| waker.clone()).collect();
        if matches!(self.order, WakeOrder::Reverse) {
            woken.reverse();
        }
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Database for Locks {
    fn begin(&mut self, _: usize, begin: &Begin<'_>) -> Result<(), Failure> {
        self.began.push((begin.name.to_owned(), begin.isolation, begin.mode, begin.read_only));
        Ok(())
    }

    fn start(&mut self, txn: usize, operation: &Operation<Bytes>) {
        self.started.insert(txn, operation.clone());
    }

    fn poll(&mut self, txn: usize, cx: &mut Context<'_>) -> Poll<Result<Output, Failure>> {
        let operation = self.started[&txn].clone();
        let output = match &operation {
            Operation::Put(key, value) if value == "doomed" => {
                self.release(txn);
                let message = format!("{} is doomed", key.escape_ascii());
                return Poll::Ready(Err(Failure { class: FailureClass::Conflict, message, ended: true }));
            }
            Operation::Put(key, value) => {
                self.waiting.retain(|(_, waiter, _)| *waiter != txn);
                if *self.holders.entry(key.clone()).or_insert(txn) != txn {
                    self.waiting.push_back((key.clone(), txn, cx.waker().clone()));
                    return Poll::Pending;
                }
                self.values.insert(key.clone(), value.clone());
                Output::Done
            }
            Operation::Get(key) => Output::Value(self.values.get(key).cloned()),
            Operation::Commit | Operation::Rollback => {
                self.release(txn);
                Output::Done
            }
            _ => Output::Done,
        };
        self.log.push(format!("{txn} {}", kind(&operation)));
        Poll::Ready(Ok(output))
    }

    fn waits_for(&mut self, txn: usize) -> Option<String> {
        let (key, ..) = self.waiting.iter().find(|(_, waiter, _)| *waiter == txn)?;
        Some(format!("{}", self.holders.get(key)?))
    }

    fn history(&mut self) -> History {
        History::default()
    }

    fn final_state(&mut self) -> BTreeMap<Key, Bytes> {
        self.values.clone()
    }
}

fn kind(operation: &Operation<Bytes>) -> String {
    match operation {
        Operation::Put(key, _) => format!("put {}", key.escape_ascii()),
        Operation::Get(key) => format!("get {}", key.escape_ascii()),
        Operation::Commit => "commit".to_owned(),
        Operation::Rollback => "rollback".to_owned(),
        _ => "other".to_owned(),
    }
}

fn run(locks: &mut Locks, text: &str) -> Result<Replay, ReplayError> {
    replay(&Schedule::parse(text).unwrap(), Setting::default(), locks)
}

fn outcomes(replay: &Replay) -> Vec<(StepOutcome, Option<usize>)> {
    replay.steps.iter().map(|step| (step.outcome, step.resumed_after)).collect()
}

#[test]
fn a_blocked_transactions_later_steps_wait_and_the_others_go_on() {
    let mut locks = Locks::default();
    let text = "T1: begin\nT2: begin\nT1: put x 1\nT2: put x 2\nT2: put y 2\nT1: put z 1\nT1: commit\nT2: commit\n";
    let replay = run(&mut locks, text).unwrap();
    assert_eq!(locks.log, ["0 put x", "0 put z", "0 commit", "1 put x", "1 put y", "1 commit"]);
    use StepOutcome::{Blocked, Ok};
    let expected =
        [(Ok, None), (Ok, None), (Ok, None), (Blocked, Some(7)), (Ok, Some(7)), (Ok, None), (Ok, None), (Ok, None)];
    assert_eq!(outcomes(&replay), expected);
    assert_eq!(replay.steps[3].waited_for.as_deref(), Some("0"));
    let moments: Vec<_> = replay.steps.iter().map(|step| (step.started.unwrap(), step.ended.unwrap())).collect();
    assert!(moments[3].0 < moments[5].0 && moments[6].1 < moments[3].1 && moments[3].1 < moments[4].0);
}

#[test]
fn transactions_resume_in_the_order_of_their_wakes() {
    let text = "T1: put x 1\nT2: put x 2\nT3: put x 3\nT1: commit\n";
    let mut locks = Locks::default();
    run(&mut locks, text).unwrap();
    assert_eq!(locks.log, ["0 put x", "0 commit", "1 put x", "1 commit", "2 put x", "2 commit"]);
    let mut locks = Locks { order: WakeOrder::Reverse, ..Locks::default() };
    run(&mut locks, text).unwrap();
    assert_eq!(locks.log[2..], ["2 put x", "2 commit", "1 put x", "1 commit"]);
}

#[test]
fn an_aborted_transaction_skips_the_rest_of_its_steps() {
    let mut locks = Locks::default();
    let replay = run(&mut locks, "T1: begin\nT1: put x doomed\nT1: put y 1\nT1: commit\n").unwrap();
    use StepOutcome::{Aborted, Ok, Skipped};
    assert_eq!(
        outcomes(&replay).iter().map(|(outcome, _)| *outcome).collect::<Vec<_>>(),
        [Ok, Aborted, Skipped, Skipped]
    );
    assert_eq!(replay.txns[0].outcome, TxnOutcome::Aborted);
    assert!(locks.values.is_empty());
}

#[test]
fn one_that_is_aborted_after_it_waited_was_blocked_first() {
    let mut locks = Locks::default();
    let text = "T1: put x 1\nT2: put x 2\nT2: put y doomed\nT2: put z 2\nT1: commit\n";
    let replay = run(&mut locks, text).unwrap();
    let of_t2: Vec<_> = replay.steps.iter().filter(|step| step.txn == 1).map(|step| step.outcome).collect();
    use StepOutcome::{Aborted, Blocked, Ok, Skipped};
    assert_eq!(of_t2, [Ok, Blocked, Aborted, Skipped, Skipped], "begin, put x, put y, put z, commit");
}

#[test]
fn a_begin_that_is_not_written_comes_first_and_a_commit_last() {
    let mut locks = Locks::default();
    let replay =
        run(&mut locks, "T1: get x\nT2: begin snapshot pessimistic read-only\nT2: rollback\nT3: get y\n").unwrap();
    let steps: Vec<String> = replay.steps.iter().map(|step| format!("{} {}", step.txn, step.action)).collect();
    let written = "1 begin snapshot pessimistic read-only";
    assert_eq!(steps, ["0 begin", "0 get x", written, "1 rollback", "2 begin", "2 get y", "0 commit", "2 commit"]);
    let outcomes: Vec<_> = replay.txns.iter().map(|txn| txn.outcome).collect();
    assert_eq!(outcomes, [TxnOutcome::Committed, TxnOutcome::RolledBack, TxnOutcome::Committed]);
    let named = ("T2".to_owned(), Isolation::Snapshot, Mode::Pessimistic, true);
    assert_eq!(locks.began[1], named);
    assert_eq!(locks.began[0], ("T1".to_owned(), Isolation::default(), Mode::default(), false));
}

#[test]
fn a_transaction_still_blocked_at_the_end_is_an_error_of_the_schedule() {
    let mut locks = Locks::default();
    let text = "T1: put x 1\nT2: put y 2\nT1: put y 1\nT2: put x 2\n";
    assert_eq!(run(&mut locks, text), Err(ReplayError::Stuck { txns: vec!["T1".to_owned(), "T2".to_owned()] }));
}

#[test]
fn values_come_from_what_the_transaction_last_read() {
    let mut locks = Locks::default();
    let text = "T1: put x 5\nT1: get x\nT1: put y $x+2\nT1: put x 9\nT1: put z $x-7\nT1: get n\nT1: put m $n+1\nT1: put c $x\n";
    let replay = run(&mut locks, text).unwrap();
    let value = |key: &'static str| replay.final_state[&Bytes::from(key)].clone();
    assert_eq!((value("y"), value("z"), value("m"), value("c")), ("7".into(), "-2".into(), "1".into(), "5".into()));
}

#[test]
fn a_sum_with_a_word_or_out_of_range_is_an_error_that_names_the_step() {
    for (value, message) in [("abc", "x holds `abc`, which is no number"), ("9223372036854775807", "x is too large")] {
        let text = format!("T1: put x {value}\nT1: get x\nT1: put y $x+1\n");
        let error = run(&mut Locks::default(), &text).unwrap_err();
        assert_eq!(error.to_string(), format!("step 4, `T1: put y $x+1`: {message}"));
    }
}

#[test]
fn someone_else_may_choose_the_order_of_the_steps() {
    let schedule = Schedule::parse("T1: put x 1\nT2: put x 2\nT1: commit\nT2: commit\n").unwrap();
    let mut locks = Locks::default();
    let mut driver = Driver::new(&mut locks, &schedule.txns, Setting::default());
    let step = |n: usize| &schedule.steps[n];
    driver.issue(1, &step(1).action).unwrap();
    driver.issue(0, &step(0).action).unwrap();
    assert!(driver.is_ready(1) && !driver.is_ready(0) && driver.is_active(0));
    assert_eq!(driver.blocked().map(|txn| txn.name.as_str()).collect::<Vec<_>>(), ["T1"]);
    driver.issue(1, &step(3).action).unwrap();
    assert!(!driver.is_active(1) && driver.is_ready(0));
}
