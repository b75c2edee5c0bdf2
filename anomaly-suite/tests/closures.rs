//! Programs that are Rust code: they agree with the notation, the reduction loses nothing, what is shown is
//! shown again by its schedule, and a program that cannot be explored is refused.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use anomaly_suite::explore::{ClosureExploration, Exploring, explore_closures, survey};
use anomaly_suite::{Isolde, trial};
use isolde_history::explore::{Answer, Closures, Outcome, Programs, Reduction, Session};
use isolde_history::schedule::{BeginWords, Operation, Schedule, Setting, Value};
use isolde_types::{Anomaly, Isolation, Mode, prefix};

const SNAPSHOT: Setting = Setting { isolation: Isolation::Snapshot, mode: Mode::Optimistic };
const UNREDUCED: Exploring =
    Exploring { reduction: Reduction::None, invariant: None, from: 0, resume: None, time_limit: None };

fn run<'f>(closures: &Closures<'f>, settings: &[Setting], exploring: &Exploring) -> ClosureExploration<'static, 'f> {
    let exploration = explore_closures(&Isolde, closures, settings, exploring, |_| ()).unwrap();
    assert!(exploration.explored.complete);
    exploration
}

fn settings(rng: &mut fastrand::Rng) -> Vec<Setting> {
    let all: Vec<Setting> = Setting::all().collect();
    (0..3).map(|_| all[rng.usize(..all.len())]).collect()
}

// --- against the notation ---------------------------------------------------------------------------

/// A program of the notation as code. What it reads it does not look at.
async fn perform(s: &Session, operations: &[Operation]) -> Answer {
    for operation in operations {
        let key = operation.key().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default();
        match operation {
            Operation::Get(_) => drop(s.get(&key).await?),
            Operation::GetForUpdate(_) => drop(s.get_for_update(&key).await?),
            Operation::Put(_, Value::Word(word)) => s.put(&key, String::from_utf8_lossy(word)).await?,
            Operation::Delete(_) => s.delete(&key).await?,
            Operation::Increment(_, by) => s.increment(&key, *by).await?,
            Operation::Scan(place) => drop(s.scan(place.span()).await?),
            Operation::Rollback => return Err(s.give_up("as it is written")),
            Operation::Commit => {}
            other => panic!("{other} is not among the random operations"),
        }
    }
    Ok(())
}

fn random_programs(rng: &mut fastrand::Rng) -> Programs {
    let mut text = String::from("init: x=1 y=2\n");
    // A third transaction makes many schedules of few.
    for txn in 1..=if rng.u8(..20) == 0 { 3 } else { 2 } {
        for step in 0..if txn == 3 { 1 } else { 2 } {
            let key = ["x", "x", "x", "y", "y", "z"][rng.usize(..6)];
            let line = match rng.u8(..9) {
                0 | 1 => format!("get {key}"),
                2..=4 => format!("put {key} {txn}{step}"),
                5 => format!("delete {key}"),
                6 => "scan x..z".to_owned(),
                7 => format!("increment {key} 1"),
                _ => format!("get-for-update {key}"),
            };
            text.push_str(&format!("T{txn}: {line}\n"));
        }
        if rng.u8(..5) == 0 {
            text.push_str(&format!("T{txn}: rollback\n"));
        }
    }
    Programs::of(&Schedule::parse(&text).unwrap()).unwrap()
}

#[test]
fn closures_and_the_notation_agree_on_everything() {
    let seed = 7;
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut schedules, mut anomalies) = (0, 0);
    for case in 0..if cfg!(debug_assertions) { 60 } else { 2000 } {
        let (programs, at) = (random_programs(&mut rng), settings(&mut rng));
        let mut closures = Closures::new().initially("x", 1).initially("y", 2);
        for program in &programs.programs {
            closures = closures.program(&program.name, async |s| perform(s, &program.operations).await);
        }
        // All orders of three programs are left to a build with optimization.
        let is_slow = cfg!(debug_assertions) && programs.programs.len() > 2;
        for exploring in [Exploring::default(), UNREDUCED].iter().take(if is_slow { 1 } else { 2 }) {
            let one = survey(&Isolde, &programs, &at, exploring, |_| ()).unwrap();
            let other = run(&closures, &at, exploring);
            assert_eq!((&one.explored, &one.survey), (&other.explored, &other.survey), "case {case}: {programs:?}");
            for shown in one.survey.outcomes.values() {
                assert_eq!(one.schedule(&shown.order), other.schedule(&shown.order).unwrap());
            }
            schedules += one.explored.schedules;
            anomalies += one.survey.anomalies.len();
        }
    }
    println!("{schedules} schedules, {anomalies} anomalies");
    assert!(schedules > 1000 && anomalies > 5);
}

// --- course by what was read -------------------------------------------------------------------------

/// Each program reads something, and does one thing or another by what it read.
async fn branching(s: &Session, choice: [u8; 4]) -> Answer {
    let key = |number: u8| ["x", "y", "z"][usize::from(number % 3)];
    let read = s.number(key(choice[0])).await?;
    match (read + i64::from(choice[1])) % 4 {
        0 => s.put(key(choice[2]), read + 1).await?,
        1 => {
            let other = s.number(key(choice[2])).await?;
            s.put(key(choice[3]), other + 2).await?;
        }
        2 => {
            let rows = s.scan("x".."z").await?.len();
            s.increment(key(choice[3]), rows as i64).await?;
        }
        _ => return Err(s.give_up("nothing to do")),
    }
    Ok(())
}

/// Everything that programs can tell, and every anomaly.
fn told(exploration: &ClosureExploration<'_, '_>) -> (BTreeSet<Outcome>, BTreeSet<Anomaly>, bool) {
    let survey = &exploration.survey;
    assert_eq!(survey.faults, Default::default());
    (survey.outcomes.keys().cloned().collect(), survey.anomalies.keys().copied().collect(), survey.stuck.is_some())
}

#[test]
fn the_reduction_loses_nothing_where_the_course_depends_on_what_is_read() {
    let seed = 11;
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut full, mut reduced) = (0, 0);
    // Without optimization three programs of which two branch take twenty seconds: there only one of them does.
    let (cases, branching_of_three) = if cfg!(debug_assertions) { (36, 1) } else { (500, 2) };
    for case in 0..cases {
        // A third makes many schedules of few.
        let of_three = case % 12 == 0;
        let count = if of_three { branching_of_three } else { 2 };
        let choices: Vec<[u8; 4]> = (0..count).map(|_| [(); 4].map(|()| rng.u8(..12))).collect();
        let mut closures = Closures::new().initially("x", 1).initially("y", 2);
        for (number, choice) in choices.iter().enumerate() {
            closures = closures.program(&format!("T{}", number + 1), async |s| branching(s, *choice).await);
        }
        if of_three {
            closures = closures.program("T3", async |s| s.increment("x", 1).await);
        }
        if of_three && count == 1 {
            closures = closures.program("T4", async |s| s.number("x").await.map(|_| ()));
        }
        let at = settings(&mut rng);
        let (one, other) = (run(&closures, &at, &UNREDUCED), run(&closures, &at, &Exploring::default()));
        assert_eq!(told(&one), told(&other), "case {case}: {choices:?} at {at:?}");
        full += one.explored.schedules;
        reduced += other.explored.schedules;
    }
    println!("{full} schedules, {reduced} after reduction");
    assert!(reduced * 2 < full, "{reduced} of {full}: the reduction reduces nothing");
}

async fn sell(s: &Session) -> Answer {
    let stock = s.number("stock").await?;
    if stock == 0 {
        return Err(s.give_up("sold out"));
    }
    s.put("stock", stock - 1).await?;
    s.increment("sold", 1).await
}

/// Two who sell; nothing is sold twice.
fn sales<'f>(stock: i64) -> Closures<'f> {
    Closures::new()
        .initially("stock", stock)
        .program("T1", async |s| sell(s).await)
        .program("T2", async |s| sell(s).await)
        .invariant("stock + sold is what there was", move |end| end.number("stock") + end.number("sold") == stock)
}

#[test]
fn what_is_shown_is_shown_again_by_its_schedule() {
    for at in Setting::all() {
        let exploration = run(&sales(1), &[at], &Exploring::default());
        let weak = matches!(at.isolation, Isolation::ReadUncommitted | Isolation::ReadCommitted);
        assert_eq!(exploration.survey.broken.is_some(), weak, "{at:?}");
        let again = |order| {
            let text = exploration.schedule(order).unwrap().to_string();
            trial(&Isolde, &Schedule::parse(&text).unwrap(), at).unwrap()
        };
        if let Some(shown) = &exploration.survey.broken {
            assert_eq!(again(&shown.order).replay.final_state[&b"sold"[..]], "2");
        }
        for (anomaly, shown) in &exploration.survey.anomalies {
            let found = again(&shown.order).evidence.shown;
            assert!(found.iter().any(|found| found.anomaly == *anomaly), "{anomaly:?} at {at:?}");
        }
    }
}

/// Run again, the loser sees what is there then, and does something else.
#[test]
fn the_aborted_are_run_again_and_see_what_is_there_then() {
    for (stock, ends) in [(1, "T2-again: get stock\nT2-again: rollback\n"), (2, "T2-again: put stock 0\n")] {
        let exploration = run(&sales(stock), &[SNAPSHOT], &Exploring::default());
        assert_eq!(exploration.survey.broken, None);
        let again = exploration.survey.outcomes.values().filter(|shown| !shown.order.again.is_empty());
        let texts: Vec<String> = again.map(|shown| exploration.schedule(&shown.order).unwrap().to_string()).collect();
        assert!(texts.iter().any(|text| text.contains(ends)), "{texts:?}");
    }
}

#[test]
fn a_refused_insert_leaves_the_transaction_alive() {
    let closures = Closures::new().program("T1", async |s| s.insert("x", 1).await).program("T2", async |s| {
        if s.insert("x", 2).await.is_err_and(|failure| !failure.ended) {
            s.put("late", s.scan(prefix("x")).await?.len()).await?;
        }
        Ok(())
    });
    let weak = Setting { isolation: Isolation::ReadCommitted, mode: Mode::Pessimistic };
    let exploration = run(&closures, &[weak], &Exploring::default());
    let late = |outcome: &Outcome| outcome.final_state.get(&b"late"[..]).is_some_and(|value| value == "1");
    assert!(exploration.survey.outcomes.keys().any(late));
    assert!(!exploration.survey.outcomes.keys().all(late));
}

#[test]
fn a_program_that_names_a_level_keeps_it() {
    let begin = BeginWords { isolation: Some(Isolation::Serializable), ..BeginWords::default() };
    let closures = Closures::new()
        .program("T1", async |s| s.put("x", 1).await)
        .program_at("T2", begin, async |s| s.number("x").await.map(|_| ()));
    let exploration = run(&closures, &[SNAPSHOT], &Exploring::default());
    let order = &exploration.survey.outcomes.values().next().unwrap().order;
    let text = exploration.schedule(order).unwrap().to_string();
    assert!(text.contains("T2: begin serializable optimistic") && text.contains("T1: begin snapshot"), "{text}");
}

// --- what cannot be explored -------------------------------------------------------------------------

#[track_caller]
fn check_refused(closures: &Closures<'_>, expected: &str) {
    let Err(error) = explore_closures(&Isolde, closures, &[SNAPSHOT], &Exploring::default(), |_| ()) else {
        panic!("not refused: {expected}")
    };
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_program_that_does_something_else_the_second_time_is_refused() {
    let count = Cell::new(0);
    let unsteady = async |s: &Session| {
        count.set(count.get() + 1);
        s.put("x", count.get()).await
    };
    let closures = Closures::new().program("T1", async |s| s.put("x", 0).await).program("T2", unsteady);
    let words = "T2: it does something else when it is run again: it must be a function of what it reads";
    check_refused(&closures, words);
}

#[test]
fn several_operations_at_once_are_refused() {
    let both = async |s: &Session| {
        let (mut one, mut other) = (pin!(s.get("x")), pin!(s.get("y")));
        std::future::poll_fn(|cx: &mut Context<'_>| match one.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(value),
            Poll::Pending => other.as_mut().poll(cx),
        })
        .await
        .map(|_| ())
    };
    check_refused(&Closures::new().program("T1", both), "T1: it does several operations at once, or left one");
}

#[test]
fn an_operation_that_is_left_is_refused() {
    let left = async |s: &Session| {
        let _ = pin!(s.get("x")).poll(&mut Context::from_waker(Waker::noop()));
        Ok(())
    };
    check_refused(&Closures::new().program("T1", left), "T1: it left an operation before that had ended");
}

#[test]
fn waiting_for_something_else_is_refused() {
    let closures = Closures::new().program("T1", async |_| std::future::pending().await);
    check_refused(&closures, "T1: it awaits something that is no operation of its session");
}

#[test]
fn an_endless_program_is_refused() {
    let endless = async |s: &Session| loop {
        s.get("x").await?;
    };
    check_refused(&Closures::new().program("T1", endless), "T1: it does more than 200 operations: is it endless?");
}

#[test]
#[should_panic(expected = "at the second operation")]
fn a_panic_goes_through_to_the_caller() {
    let panics = async |s: &Session| {
        s.put("x", 1).await?;
        panic!("at the second operation")
    };
    let _ =
        explore_closures(&Isolde, &Closures::new().program("T1", panics), &[SNAPSHOT], &Exploring::default(), |_| ());
}
