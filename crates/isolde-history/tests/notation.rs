//! The notation: what it reads, how it prints, and where its errors point.

use isolde_history::schedule::{Action, Hunt, Operation, Place, Schedule, Value};

const EVERY_OPERATION: &str = "\
# everything: one of each
#
# What happens: all that the notation has.
hunts: final-state
control: none
init: x=1 y=2
expect: T1.2=1 T1.8=x:1,y:2 T1.15=-
expect-final: x=12 z=-
T1: begin serializable optimistic read-only
T1: get x
T1: get-for-update y
T1: put x $x+5
T1: put y $y-2
T1: insert z $x
T1: delete z
T1: scan a..b
T1: scan a..
T1: scan ..b
T1: scan ..
T1: scan p*
T1: scan *
T1: increment n -3
T1: cas x 1 -
T1: cas x - $x+1
T1: merge append log hello
T1: lock a..m
T1: savepoint s
T1: rollback-to s
T1: commit
T2: begin snapshot
T2: rollback
";

fn error(text: &str) -> String {
    Schedule::parse(text).expect_err("the text is wrong").to_string()
}

#[test]
fn every_operation_is_read_and_printed_as_it_was_written() {
    let schedule = Schedule::parse(EVERY_OPERATION).unwrap();
    assert_eq!(schedule.to_string(), EVERY_OPERATION);
    assert_eq!(Schedule::parse(&schedule.to_string()).unwrap(), schedule);
    assert_eq!(schedule.title, "everything: one of each");
    assert_eq!(schedule.hunts, Some(Hunt::FinalState));
    assert_eq!(schedule.txns, ["T1", "T2"]);
}

#[test]
fn blank_lines_comments_and_spaces_mean_nothing() {
    let plain = Schedule::parse("# t\nT1: put x 1\nT1: commit\n").unwrap();
    let dressed = Schedule::parse("\n  # t\n\n\t T1:   put  x 1   # why\n# more\r\nT1:commit\r\n\n").unwrap();
    assert_eq!(plain, dressed);
}

#[test]
fn spans_name_what_they_say() {
    let span = |text: &str| match &Schedule::parse(&format!("T1: scan {text}")).unwrap().steps[0].action {
        Action::Do(Operation::Scan(place)) => place.span(),
        other => panic!("{other:?}"),
    };
    assert!(span("a..c").contains(b"b") && !span("a..c").contains(b"c"));
    assert!(span("a..").contains(b"zz") && !span("a..").contains(b"A"));
    assert!(span("p/*").contains(b"p/9") && !span("p/*").contains(b"p0"));
    assert!(span("..").contains(b"") && span("*").contains(b"zz"));
}

#[test]
fn sums_split_at_the_last_sign_before_digits() {
    let value = |text: &str| match &Schedule::parse(&format!("T1: scan ..\nT1: put k {text}")).unwrap().steps[1].action
    {
        Action::Do(Operation::Put(_, value)) => value.clone(),
        other => panic!("{other:?}"),
    };
    let read = |key: &'static str, plus| Value::LastRead { key: key.into(), plus };
    assert_eq!(value("$x"), read("x", 0));
    assert_eq!(value("$acct-1"), read("acct", -1));
    assert_eq!(value("$acct-1+0"), read("acct-1", 0));
    assert_eq!(value("$acct-1+0").to_string(), "$acct-1+0");
    assert_eq!(value("$a-b"), read("a-b", 0));
    assert_eq!(value("x+5"), Value::Word("x+5".into()));
}

#[test]
fn errors_point_at_the_word_and_say_what_was_expected() {
    let cases = [
        ("T1: get", "line 1, column 8: found the end of the line, expected a key"),
        ("T1: begin\nT1: gte x", "line 2, column 5: found `gte`, expected an operation: begin, get, "),
        ("  T1: get a b", "line 1, column 13: found `b`, expected the end of the line"),
        ("T1 get x", "line 1, column 1: found `T1`, expected `TXN: operation`"),
        (": get x", "line 1, column 1: found `:`, expected `TXN: operation`"),
        ("T1: increment x y", "line 1, column 17: found `y`, expected a whole number"),
        ("T1: scan a", "line 1, column 10: found `a`, expected a span"),
        ("T1: get a=b", "line 1, column 9: found `a=b`, expected a key"),
        (
            "T1: begin serialisable",
            "line 1, column 11: found `serialisable`, expected at most one of each: a level (read-",
        ),
        ("T1: begin snapshot serializable", "line 1, column 20: found `serializable`, expected at most one of each"),
        ("T1: get x\nT1: begin", "line 2, column 5: found `begin` after another step, expected `begin` first"),
        ("T1: commit\nT1: get x", "line 2, column 5: found a step of T1 after its end on line 1, expected another"),
        ("T1: rollback-to s", "line 1, column 17: found `s`, expected a savepoint that this transaction has set"),
        ("T1: put y $x+1", "line 1, column 11: found `$x+1`, expected a key that this transaction has read before"),
        ("hunts: G7\nT1: get x", "line 1, column 8: found `G7`, expected one of G0, G1a, "),
        ("hunts: G0\nhunts: G0", "line 2, column 1: found a second `hunts:`, expected one"),
        ("hunts: final-state\nT1: get x", "line 1, column 8: found `final-state` without `expect-final:`"),
        ("init: x=1 y", "line 1, column 11: found `y`, expected KEY=VALUE"),
        ("init: x=1 x=2", "line 1, column 11: found `x=2` twice, expected each key once"),
        ("control: some", "line 1, column 10: found `some`, expected `none`"),
        ("expect: T1.9=1\nT1: get x", "line 1, column 9: found `T1.9=1`, expected a step of T1, from 1 to 1"),
        ("expect: T2.1=1\nT1: get x", "line 1, column 9: found `T2.1=1`, expected one of the transactions T1"),
        (
            "expect: T1.1=1\nT1: put x 1",
            "line 1, column 9: found `T1.1=1`, expected a step that reads; step 1 of T1 is",
        ),
        ("# only a title", "line 2, column 1: found the end of the file, expected at least one step"),
        ("T1: put é ü ö", "line 1, column 13: found `ö`, expected the end of the line"),
    ];
    for (text, expected) in cases {
        assert!(error(text).starts_with(expected), "{text:?} gave: {}", error(text));
    }
}

#[test]
fn a_savepoint_ends_those_set_after_it_when_it_is_rolled_back_to() {
    let text = "T1: savepoint a\nT1: savepoint b\nT1: rollback-to a\nT1: rollback-to a\nT1: rollback-to b";
    assert!(error(text).starts_with("line 5, column 17: found `b`"));
}

/// Random lines, not all of them right: whatever parses must print to itself.
#[test]
fn whatever_parses_prints_to_the_same_schedule() {
    const LINES: [&str; 28] = [
        "# note",
        "",
        "#",
        "hunts: G0",
        "control: none",
        "init: x=1",
        "init: y= z=-",
        "expect: T1.1=-",
        "expect-final: y=-",
        "T1: begin",
        "T2: begin read-only optimistic",
        "T1: get x",
        "T2: get y",
        "T1: put x $x+1",
        "T2: put y $y-0",
        "T1: put x -",
        "T2: scan ..",
        "T1: scan a..b",
        "T2: scan p*",
        "T1: cas x - -",
        "T2: cas y 1 $y",
        "T1: savepoint s",
        "T1: rollback-to s",
        "T2: lock ..z",
        "T1: commit",
        "T2: rollback",
        "T1: increment n 007",
        "T2: merge max n 3",
    ];
    let seed = 0x1501de;
    println!("seed {seed:#x}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut parsed = 0;
    for _ in 0..50_000 {
        let line = |_| LINES[random.usize(..LINES.len())];
        let text = (0..8).map(line).collect::<Vec<_>>().join("\n");
        if let Ok(schedule) = Schedule::parse(&text) {
            let printed = schedule.to_string();
            assert_eq!(Schedule::parse(&printed).as_ref(), Ok(&schedule), "{text:?} printed as {printed:?}");
            parsed += 1;
        }
    }
    println!("{parsed} of 50000 texts were schedules");
    assert!(parsed > 5_000);
}

#[test]
fn any_bytes_are_an_error_or_a_schedule_and_never_a_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..50_000 {
        let bytes: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
        let _ = Schedule::parse(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_prefix_of_nothing_is_every_key() {
    let schedule = Schedule::parse("T1: scan *").unwrap();
    let Action::Do(Operation::Scan(place)) = &schedule.steps[0].action else { panic!() };
    assert_eq!(place, &Place::Prefix("".into()));
}
