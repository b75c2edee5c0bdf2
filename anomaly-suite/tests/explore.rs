//! The explorer: all orders, the reduced ones among them worth as much as all, and the smallest shown.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use anomaly_suite::explore::{Exploration, Exploring, survey};
use anomaly_suite::{Control, Engine, Isolde, Unreachable, trial};
use isolde_history::explore::{
    Aborted, Begins, Explored, Invariant, Options, Order, Outcome, Programs, Reduction, Resume, explore,
};
use isolde_history::schedule::{Database, ReplayError, Schedule, Setting};
use isolde_types::{Anomaly, Isolation, Mode};

fn programs(text: &str) -> Programs {
    Programs::of(&Schedule::parse(text).unwrap()).unwrap()
}

fn run(engine: &dyn Engine, programs: &Programs, settings: &[Setting], exploring: &Exploring) -> Exploration {
    let exploration = survey(engine, programs, settings, exploring, |_| ()).unwrap();
    assert!(exploration.explored.complete);
    exploration
}

const UNREDUCED: Exploring =
    Exploring { reduction: Reduction::None, invariant: None, from: 0, resume: None, time_limit: None };

#[test]
fn without_control_every_order_of_the_steps_is_run_once() {
    let programs = programs("T1: get x\nT1: get y\nT2: put x 1\nT3: get x\n");
    let all = run(&Control, &programs, &[Setting::default()], &UNREDUCED);
    // Three steps, and twice two: 7! / (3! 2! 2!).
    assert_eq!((all.explored.schedules, all.explored.pruned), (210, 0));
}

#[test]
fn orders_that_nobody_can_tell_apart_are_run_once() {
    let programs = programs("T1: get x\nT2: get y\n");
    let setting = Setting { isolation: Isolation::ReadCommitted, mode: Mode::Pessimistic };
    assert_eq!(run(&Isolde, &programs, &[setting], &UNREDUCED).explored.schedules, 6);
    assert_eq!(run(&Isolde, &programs, &[setting], &Exploring::default()).explored.schedules, 1);
}

/// Everything that programs can tell, and every anomaly.
fn told(exploration: &Exploration) -> (BTreeSet<Outcome>, BTreeSet<Anomaly>, bool) {
    let survey = &exploration.survey;
    assert_eq!(survey.faults, Default::default());
    (survey.outcomes.keys().cloned().collect(), survey.anomalies.keys().copied().collect(), survey.stuck.is_some())
}

/// Random programs at random levels, mixed: the reduced run tells what the unreduced one tells.
#[test]
fn the_reduction_loses_nothing() {
    // Without optimization it takes forty times as long.
    let rounds = if cfg!(debug_assertions) { 12 } else { 250 };
    let mut rng = fastrand::Rng::with_seed(3);
    let all: Vec<Setting> = Setting::all().collect();
    let (mut full, mut reduced) = (0, 0);
    for case in 0..rounds {
        let text = random_programs(&mut rng);
        let chosen: Vec<Setting> = (0..3).map(|_| all[rng.usize(..all.len())]).collect();
        let programs = programs(&text);
        let one = run(&Isolde, &programs, &chosen, &UNREDUCED);
        let other = run(&Isolde, &programs, &chosen, &Exploring::default());
        assert_eq!(told(&one), told(&other), "case {case} at {chosen:?}:\n{text}");
        full += one.explored.schedules;
        reduced += other.explored.schedules;
    }
    println!("{full} schedules, {reduced} after reduction");
    assert!(reduced * 3 < full, "{reduced} of {full}: the reduction reduces nothing");
}

fn random_programs(rng: &mut fastrand::Rng) -> String {
    let mut text = String::from("init: x=1 y=2\n");
    for txn in 1..=3 {
        for step in 0..rng.usize(1..=2) {
            let key = ["x", "y", "z"][rng.usize(..3)];
            let line = match rng.u8(..11) {
                0 | 1 => format!("get {key}"),
                2..=4 => format!("put {key} {txn}{step}"),
                5 => format!("delete {key}"),
                6 => "scan x..z".to_owned(),
                7 => "scan y..".to_owned(),
                8 => format!("insert {key} {txn}{step}"),
                9 => format!("increment {key} 1"),
                _ => format!("get-for-update {key}"),
            };
            text.push_str(&format!("T{txn}: {line}\n"));
        }
        if rng.u8(..6) == 0 {
            text.push_str(&format!("T{txn}: rollback\n"));
        }
    }
    text
}

/// A step that wakes or aborts somebody does more than it names: T2's commit finishes that of T3, which writes y
/// beside x; T1's put of y can abort T2, which holds x.
#[test]
fn steps_that_wake_or_abort_others_are_not_taken_for_less() {
    let told_alike = |text: &str, levels: [(Isolation, Mode); 3]| {
        let programs = programs(text);
        let settings = levels.map(|(isolation, mode)| Setting { isolation, mode });
        let all = run(&Isolde, &programs, &settings, &UNREDUCED);
        assert_eq!(told(&all), told(&run(&Isolde, &programs, &settings, &Exploring::default())), "{text}");
    };
    let committed = |mode| (Isolation::ReadCommitted, mode);
    let (locks, certifies) = (committed(Mode::Pessimistic), committed(Mode::Optimistic));
    told_alike(
        "init: x=1 y=2\nT1: get y\nT1: get x\nT2: put x 2\nT3: put x 3\nT3: put y 3\n",
        [locks, locks, certifies],
    );
    let serializable = (Isolation::Serializable, Mode::Pessimistic);
    let crossing = "init: x=1 y=2\nT1: get x\nT1: put y 1\nT2: get y\nT2: put x 2\nT3: get x\nT3: put z 3\n";
    told_alike(crossing, [serializable; 3]);
    told_alike(crossing, [serializable, (Isolation::Snapshot, Mode::Pessimistic), locks]);
}

/// Programs at these levels come to an outcome in which these transactions did this.
#[track_caller]
fn comes_to(text: &str, levels: &[(Isolation, Mode)], expected: &[&str]) {
    let settings: Vec<Setting> = levels.iter().map(|&(isolation, mode)| Setting { isolation, mode }).collect();
    let found = run(&Isolde, &programs(text), &settings, &Exploring::default());
    let has_all = |outcome: &Outcome| expected.iter().all(|words| outcome.txns.iter().any(|txn| txn == words));
    let outcomes: Vec<_> = found.survey.outcomes.keys().map(|outcome| &outcome.txns).collect();
    assert!(found.survey.outcomes.keys().any(has_all), "{expected:?} is none of {outcomes:?}");
}

const READS: (Isolation, Mode) = (Isolation::ReadCommitted, Mode::Optimistic);
const LOCKS: (Isolation, Mode) = (Isolation::ReadCommitted, Mode::Pessimistic);
const SEES_ALL: (Isolation, Mode) = (Isolation::ReadUncommitted, Mode::Pessimistic);

/// T4 is the victim only where the commit of T2 waits for T3. So T3's commit finishes that of T2, which writes y;
/// T1, whose read of y was tried before, must read again, though T3 never names y.
#[test]
fn who_sleeps_is_woken_by_what_a_woken_commit_writes() {
    let text = "init: a=0 b=0 x=0 y=0\nT1: get y\nT2: put a 2\nT2: put x 2\nT2: put y 2\n\
                T3: put x 3\nT3: put b 3\nT4: put b 4\nT4: put a 4\n";
    comes_to(text, &[READS, READS, LOCKS, LOCKS], &["T1: get y = 2, committed", "T4: aborted"]);
}

/// T2 closes the circle, and T3 is the victim: its y goes, which T2 never names.
#[test]
fn who_sleeps_is_woken_by_what_a_victim_takes_back() {
    let text = "init: a=0 b=0 y=0\nT1: get y\nT1: get y\nT2: put a 1\nT2: put b 1\n\
                T3: put y 3\nT3: put b 3\nT3: put a 3\n";
    comes_to(text, &[SEES_ALL, LOCKS, SEES_ALL], &["T1: get y = 3, get y = 0, committed", "T3: aborted"]);
}

/// T1 closes the circle, and T2 is the victim, whose y T3 must have read before: T1's step, tried first, does not
/// sleep when T3 reads y.
#[test]
fn a_step_that_makes_a_victim_stays_awake() {
    let text = "init: a=0 b=0 y=0\nT1: put a 1\nT1: put b 1\nT2: put y 2\nT2: put b 2\nT2: put a 2\nT3: get y\n";
    comes_to(text, &[LOCKS, SEES_ALL, SEES_ALL], &["T2: aborted", "T3: get y = 2, committed"]);
}

/// A cycle of three that no deadlock of two shows, found among all orders.
#[test]
fn nobody_is_stuck_however_three_lock_in_a_ring() {
    let ring = programs("T1: put x 1\nT1: put y 1\nT2: put y 2\nT2: put z 2\nT3: put z 3\nT3: put x 3\n");
    for isolation in Isolation::ALL {
        let setting = Setting { isolation, mode: Mode::Pessimistic };
        let exploration = run(&Isolde, &ring, &[setting], &Exploring::default());
        assert_eq!(exploration.survey.stuck, None);
        assert_eq!(exploration.survey.faults, Default::default());
        let aborted =
            exploration.survey.outcomes.keys().any(|outcome| outcome.txns.iter().any(|txn| txn.ends_with("aborted")));
        assert!(aborted, "the ring is a deadlock in some order");
    }
}

#[test]
fn a_broken_invariant_comes_with_a_schedule_that_breaks_it_again() {
    let doctors = programs("init: x=1 y=1\nT1: get x\nT1: get y\nT1: put x 0\nT2: get x\nT2: get y\nT2: put y 0\n");
    let invariant = Invariant::parse("x + y >= 1").unwrap();
    // One after the other they both go off call too: the programs do not look at what they read.
    let exploring = Exploring { invariant: Some(invariant.clone()), ..Exploring::default() };
    let snapshot = Setting { isolation: Isolation::Snapshot, mode: Mode::Optimistic };
    let exploration = run(&Isolde, &doctors, &[snapshot], &exploring);
    let broken = exploration.survey.broken.clone().expect("both go off call");
    let schedule = exploration.schedule(&broken.order);
    let again = trial(&Isolde, &Schedule::parse(&schedule.to_string()).unwrap(), snapshot).unwrap();
    assert!(!invariant.holds(&again.replay.final_state));
}

#[test]
fn the_smallest_schedule_of_an_anomaly_shows_it_again() {
    let skew = programs("init: x=1 y=1\nT1: get x\nT1: put y 0\nT2: get y\nT2: put x 0\n");
    for setting in Setting::all() {
        let exploration = run(&Isolde, &skew, &[setting], &Exploring::default());
        for (anomaly, shown) in &exploration.survey.anomalies {
            let schedule = exploration.schedule(&shown.order);
            let trial = trial(&Isolde, &Schedule::parse(&schedule.to_string()).unwrap(), setting).unwrap();
            let found: Vec<Anomaly> = trial.evidence.shown.iter().map(|shown| shown.anomaly).collect();
            assert!(found.contains(anomaly), "{anomaly:?} at {setting:?}: {found:?}\n{schedule}");
        }
    }
}

#[test]
fn an_exploration_goes_on_where_it_was_left() {
    let programs = programs("init: x=1\nT1: get x\nT1: put x 2\nT2: get x\nT2: put x 3\n");
    let setting = [Setting { isolation: Isolation::ReadCommitted, mode: Mode::Optimistic }];
    let whole = run(&Isolde, &programs, &setting, &Exploring::default());
    let middle = whole.explored.schedules / 2;
    let rest = run(&Isolde, &programs, &setting, &Exploring { from: middle, ..Exploring::default() });
    assert_eq!(rest.survey.schedules, whole.survey.schedules - middle);
    assert_eq!(rest.explored, whole.explored);
}

/// Isolde, and how many databases were opened.
#[derive(Default)]
struct Counted(AtomicU64);

impl Engine for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    fn version(&self) -> String {
        Isolde.version()
    }

    fn begins(&self, isolation: Isolation, mode: Mode) -> Begins {
        Isolde.begins(isolation, mode)
    }

    fn open(&self, schedule: &Schedule) -> Result<Box<dyn Database>, Unreachable> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Isolde.open(schedule)
    }
}

/// What a visitor is shown of each schedule, up to `until` of them; and how far it came.
fn visited(
    engine: &Counted,
    programs: &Programs,
    resume: Option<Resume>,
    until: usize,
) -> Result<(Vec<(u64, Order)>, Explored), ReplayError> {
    let begins = programs.programs.iter().map(|program| program.begin);
    let begins = begins.map(|begin| engine.begins(begin.isolation.unwrap(), begin.mode.unwrap())).collect();
    let options = Options { begins, reduction: Reduction::SleepSets, aborted: Aborted::RunAgain, from: 0, resume };
    let mut seen = Vec::new();
    let open = || engine.open(&Schedule { initial: programs.initial.clone(), ..Schedule::default() }).unwrap();
    let explored = explore(programs, &options, open, |run| {
        seen.push((run.number, run.order.clone()));
        if seen.len() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok((seen, explored))
}

/// Left after any number of schedules, an exploration goes on with the next one. On the way there it runs each
/// other choice once, to see what that does to others.
#[test]
fn an_exploration_goes_on_at_a_resume_point_without_running_what_lies_before() {
    let two = "init: x=1 y=2\nT1: get x\nT1: put y 12\nT2: get y\nT2: put x 21\n";
    let three = "init: x=1 y=2\nT1: put x 1\nT1: put z 1\nT2: get z\nT2: put y 2\nT3: put y 3\nT3: put x 3\n";
    let pessimistic = |setting: &Setting| setting.mode == Mode::Pessimistic;
    let cases = Setting::all().map(|setting| (two, setting));
    for (text, setting) in cases.chain(Setting::all().filter(pessimistic).map(|setting| (three, setting))) {
        let programs = programs(text).at(&[setting]);
        let (whole, explored) = visited(&Counted::default(), &programs, None, usize::MAX).unwrap();
        assert!(explored.complete && explored.next.is_none() && whole.len() >= 5, "{setting:?}: {explored:?}");
        for until in (1..=whole.len()).filter(|until| until % (whole.len() / 12 + 1) < 2) {
            let (mut seen, left) = visited(&Counted::default(), &programs, None, until).unwrap();
            let mut schedules = left.ran();
            if let Some(resume) = left.next {
                assert_eq!(resume.to_string().parse(), Ok(resume.clone()));
                let counted = Counted::default();
                let on_the_way = 1 + resume.moves.len() as u64 * (programs.programs.len() as u64 - 1);
                let (rest, to_its_end) = visited(&counted, &programs, Some(resume), usize::MAX).unwrap();
                let opened = counted.0.load(Ordering::Relaxed);
                let most = to_its_end.ran() + to_its_end.pruned + on_the_way;
                assert!(opened <= most, "{setting:?}, left after {until}: {opened} of at most {most}");
                seen.extend(rest);
                schedules += to_its_end.ran();
                assert!(to_its_end.complete && to_its_end.schedules == explored.schedules);
            } else {
                assert!(left.complete);
            }
            assert_eq!(schedules, explored.schedules, "{setting:?}, left after {until}");
            assert_eq!(seen, whole, "{setting:?}, left after {until}");
        }
    }
}

#[test]
fn a_resume_point_of_other_programs_is_refused() {
    let at = [Setting { isolation: Isolation::Serializable, mode: Mode::Pessimistic }];
    let programs = programs("init: x=1\nT1: get x\nT1: put x 2\nT2: get x\n").at(&at);
    let go_on = |resume: &str| visited(&Counted::default(), &programs, Some(resume.parse().unwrap()), usize::MAX);
    assert!(go_on("1:12").is_ok());
    // There is no third transaction, and none has ten steps.
    for resume in ["1:13", "1:1111111111"] {
        assert_eq!(go_on(resume).map(|_| ()), Err(ReplayError::Elsewhere), "{resume}");
    }
}

// --- which level do I need? -------------------------------------------------------------------------

fn advised(text: &str, invariant: &str) -> anomaly_suite::advise::Advice {
    let invariant = Invariant::parse(invariant).unwrap();
    anomaly_suite::advise::advise(&Isolde, &programs(text), &invariant, None, |_| ()).unwrap()
}

const SALE: &str = "init: stock=10\nT1: get stock\nT1: put stock $stock-1\nT2: get stock\nT2: put stock $stock-1\n";

#[test]
fn a_counter_that_is_read_and_written_needs_repeatable_read() {
    let advice = advised(SALE, "stock == 8");
    assert_eq!(advice.weakest(), Some(Setting { isolation: Isolation::RepeatableRead, mode: Mode::Pessimistic }));
    assert_eq!(advice.weakest_in(Mode::Optimistic).unwrap().isolation, Isolation::RepeatableRead);
    let (weaker, exploration, shown) = advice.next_weaker(advice.weakest().unwrap()).unwrap();
    assert_eq!(weaker.isolation, Isolation::ReadCommitted);
    let schedule = exploration.schedule(&shown.order).to_string();
    let again = trial(&Isolde, &Schedule::parse(&schedule).unwrap(), weaker).unwrap();
    assert_eq!(again.replay.final_state.values().collect::<Vec<_>>(), ["9"], "one sale is lost:\n{schedule}");
}

#[test]
fn increments_need_no_level_at_all() {
    let advice = advised("init: n=1\nT1: increment n 1\nT2: increment n 2\nT3: increment n 3\n", "n == 7");
    assert_eq!(advice.weakest(), Some(Setting { isolation: Isolation::ReadUncommitted, mode: Mode::Pessimistic }));
    assert!(advice.explorations.iter().all(|(_, exploration)| exploration.survey.broken.is_none()));
}

#[test]
fn write_skew_needs_more_than_snapshot() {
    let advice = advised("init: x=1 y=2\nT1: get y\nT1: put x $y\nT2: get x\nT2: put y $x\n", "x == y");
    let keeps = |isolation, mode| {
        let found = advice.explorations.iter().find(|(setting, _)| *setting == Setting { isolation, mode });
        found.unwrap().1.survey.broken.is_none()
    };
    for mode in Mode::ALL {
        assert!(!keeps(Isolation::Snapshot, mode));
        assert!(keeps(Isolation::RepeatableRead, mode) && keeps(Isolation::Serializable, mode));
    }
}

#[test]
fn what_no_serial_order_keeps_no_level_can() {
    let advice = advised("init: x=1\nT1: put x 2\nT2: put x 3\n", "x == 2");
    let schedule = advice.broken_serially.unwrap();
    let again = trial(&Isolde, &schedule, Setting::default()).unwrap();
    assert_eq!(again.replay.final_state.values().collect::<Vec<_>>(), ["3"]);
}

/// A service runs an aborted transaction again, so the invariant is judged after that.
#[test]
fn the_aborted_are_run_again_before_the_invariant_is_judged() {
    let exploring = Exploring { invariant: Some(Invariant::parse("stock == 8").unwrap()), ..Exploring::default() };
    let snapshot = [Setting { isolation: Isolation::Snapshot, mode: Mode::Optimistic }];
    let exploration = run(&Isolde, &programs(SALE), &snapshot, &exploring);
    assert_eq!(exploration.survey.broken, None);
    let again = exploration.survey.outcomes.values().find(|shown| !shown.order.again.is_empty());
    let schedule = exploration.schedule(&again.expect("in some order one is aborted").order);
    let replayed = trial(&Isolde, &Schedule::parse(&schedule.to_string()).unwrap(), snapshot[0]).unwrap();
    assert_eq!(replayed.replay.final_state.values().collect::<Vec<_>>(), ["8"], "{schedule}");
}
