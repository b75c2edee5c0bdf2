//! Reading histories of other databases: what each shows, what is wrong with malformed ones, and that no
//! text is too much.

use isolde_history::foreign::{self, Format, Judgement, Model, Verdict};
use isolde_types::{Anomaly, Isolation};

/// Operations `process type [micro-operations]`, one a line, judged by a level.
fn judge(lines: &str, isolation: Isolation) -> Judgement {
    let operation = |line: &str| {
        let mut words = line.trim().splitn(3, ' ');
        let (process, kind, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        format!("{{:process {process}, :type :{kind}, :value {value}}}\n")
    };
    let text: String = lines.lines().filter(|line| !line.trim().is_empty()).map(operation).collect();
    foreign::read(&text, Format::Edn).unwrap().judge(Model::of(isolation))
}

fn found(judgement: &Judgement) -> Vec<Anomaly> {
    judgement.findings.iter().map(|finding| finding.anomaly).collect()
}

/// Of what committed, one after the other, and what a judgement of it found.
fn of_committed(values: &[&str], isolation: Isolation) -> Judgement {
    let lines: String = values.iter().enumerate().map(|(at, value)| format!("{at} ok {value}\n")).collect();
    judge(&lines, isolation)
}

#[test]
fn an_aborted_element_is_found_and_so_is_what_was_built_on_it() {
    let lines = "0 fail [[:append x 1]]\n1 ok [[:append x 2]]\n2 ok [[:r x [1 2]]]";
    let judgement = judge(lines, Isolation::ReadCommitted);
    assert_eq!((judgement.verdict, found(&judgement)), (Verdict::Violated, vec![Anomaly::AbortedRead]));
    assert!(judgement.findings[0].words.contains("on which others built"), "{judgement:#?}");
    assert_eq!(judge(lines, Isolation::ReadUncommitted).verdict, Verdict::Holds);
    let last = judge("0 fail [[:append x 1]]\n2 ok [[:r x [1]]]", Isolation::ReadCommitted);
    assert_eq!(found(&last), [Anomaly::AbortedRead]);
    let register = judge("0 fail [[:w x 1]]\n2 ok [[:r x 1]]", Isolation::ReadCommitted);
    assert_eq!(found(&register), [Anomaly::AbortedRead]);
}

#[test]
fn intermediate_reads_are_found_in_lists_and_registers() {
    let list =
        of_committed(&["[[:append x 1] [:append x 2]]", "[[:r x [1]]]", "[[:r x [1 2]]]"], Isolation::ReadCommitted);
    assert!(found(&list).contains(&Anomaly::IntermediateRead), "{list:#?}");
    let register = of_committed(&["[[:w x 1] [:w x 2]]", "[[:r x 1]]"], Isolation::ReadCommitted);
    assert_eq!(found(&register), [Anomaly::IntermediateRead]);
}

#[test]
fn orders_that_cannot_both_be_are_an_aborted_read() {
    let values = ["[[:append x 1]]", "[[:append x 2]]", "[[:r x [1 2]]]", "[[:r x [2 1]]]"];
    let judgement = of_committed(&values, Isolation::ReadCommitted);
    assert_eq!((judgement.verdict, found(&judgement)), (Verdict::Violated, vec![Anomaly::AbortedRead]));
    assert!(judgement.findings[0].words.contains("orders that cannot both be"), "{judgement:#?}");
}

#[test]
fn an_append_between_two_of_another_transaction_is_a_dirty_write() {
    let values = ["[[:append x 1] [:append x 3]]", "[[:append x 2]]", "[[:r x [1 2 3]]]"];
    let judgement = of_committed(&values, Isolation::ReadUncommitted);
    assert_eq!((judgement.verdict, found(&judgement)[0]), (Verdict::Violated, Anomaly::DirtyWrite));
    // The rest of T1's appends was not seen, and must come later.
    let cut = ["[[:append x 1] [:append x 3]]", "[[:append x 2]]", "[[:r x [1 2]]]"];
    assert!(found(&of_committed(&cut, Isolation::ReadUncommitted)).contains(&Anomaly::DirtyWrite));
}

#[test]
fn elements_that_stand_twice_or_in_another_order_contradict_every_level() {
    let twice = of_committed(&["[[:append x 1]]", "[[:r x [1 1]]]"], Isolation::ReadUncommitted);
    assert_eq!((twice.verdict, twice.complaints.len()), (Verdict::Violated, 1));
    let turned = of_committed(&["[[:append x 1] [:append x 2]]", "[[:r x [2 1]]]"], Isolation::ReadUncommitted);
    assert_eq!(turned.verdict, Verdict::Violated);
    assert!(turned.complaints[0].contains("another order"), "{turned:#?}");
}

#[test]
fn own_writes_must_be_read() {
    let list = of_committed(&["[[:append x 1] [:r x []]]"], Isolation::ReadUncommitted);
    assert_eq!((list.verdict, found(&list)), (Verdict::Violated, vec![Anomaly::Internal]));
    let register = of_committed(&["[[:w x 1] [:r x nil]]"], Isolation::ReadUncommitted);
    assert_eq!((register.verdict, found(&register)), (Verdict::Violated, vec![Anomaly::Internal]));
    let before = of_committed(&["[[:r x 1] [:w x 1]]"], Isolation::ReadUncommitted);
    assert_eq!(found(&before), [Anomaly::Internal]);
}

#[test]
fn an_unknown_outcome_counts_only_if_it_was_seen() {
    let seen = "0 invoke [[:append x 1] [:append y 1]]\n0 info nil\n1 ok [[:r x [1]] [:r y []]]";
    assert_eq!(judge(seen, Isolation::Snapshot).verdict, Verdict::Violated);
    let unseen = "0 invoke [[:append x 1] [:append y 1]]\n0 info nil\n1 ok [[:r x []] [:r y []]]";
    assert_eq!(judge(unseen, Isolation::Serializable).verdict, Verdict::Holds);
    // One that nothing completed is the same; it may take effect later than anything.
    let late = "0 invoke [[:append x 1]]\n1 ok [[:r x []]]\n2 ok [[:r x [1]]]";
    assert_eq!(judge(late, Isolation::Serializable).verdict, Verdict::Holds);
}

#[test]
fn what_is_not_known_is_said() {
    let garbage = of_committed(&["[[:w x 1]]", "[[:r x 3]]"], Isolation::Serializable);
    assert_eq!(garbage.verdict, Verdict::Unknown);
    assert_eq!(garbage.doubts, ["x=3 was read, and nobody wrote it"]);
    // What was there before the recording began explains it at a level without real time, and is said.
    let earlier = of_committed(&["[[:w x 1]]", "[[:r x 3]]"], Isolation::Snapshot);
    assert_eq!((earlier.verdict, earlier.assumptions.len()), (Verdict::Holds, 1), "{earlier:#?}");
    // Where the key was read as absent, or as something else that nobody wrote, nothing explains it.
    for other in ["[[:r x nil]]", "[[:r x 4]]"] {
        let garbage = of_committed(&["[[:w x 1]]", "[[:r x 3]]", other], Isolation::ReadCommitted);
        assert_eq!(garbage.verdict, Verdict::Unknown, "{garbage:#?}");
    }
    let both = of_committed(&["[[:append x 1]]", "[[:append x 1]]", "[[:r x [1]]]"], Isolation::ReadCommitted);
    assert_eq!(both.verdict, Verdict::Unknown);
    assert!(both.doubts[0].contains("both appended 1"), "{both:#?}");
}

#[test]
fn a_stale_read_breaks_serializable_unless_real_time_is_left_out() {
    let text = "{:type :ok :value [[:w x 1]]} {:type :ok :value [[:r x nil]]}";
    let history = foreign::read(text, Format::Edn).unwrap();
    let strict = Model::of(Isolation::Serializable);
    assert_eq!(history.judge(strict).verdict, Verdict::Violated);
    assert_eq!(history.judge(strict.without_real_time()).verdict, Verdict::Holds);
    // Sessions of register text say as much of time as they do.
    let session = foreign::read("w(x,1,0,0)\nr(x,0,0,1)\n", Format::Registers).unwrap();
    assert_eq!(session.judge(strict).verdict, Verdict::Violated);
    let sessions = foreign::read("w(x,1,0,0)\nr(x,0,1,1)\n", Format::Registers).unwrap();
    assert_eq!(sessions.judge(strict).verdict, Verdict::Holds);
}

#[test]
fn an_order_that_follows_from_a_read_is_inferred_in_words() {
    // T3 read what T1 wrote to x, and saw T2, so that T2's x came first; T4 shows the contrary.
    let values = ["[[:w x 1] [:w u 1]]", "[[:w x 2] [:w y 2]]", "[[:r x 1] [:r y 2]]", "[[:r x 2] [:r u 1]]"];
    let lines: String = values.iter().enumerate().map(|(at, value)| format!("{at} invoke {value}\n")).collect();
    let ends: String = values.iter().enumerate().map(|(at, value)| format!("{at} ok {value}\n")).collect();
    let judgement = judge(&(lines + &ends), Isolation::Serializable);
    assert_eq!(judgement.verdict, Verdict::Violated, "{judgement:#?}");
    assert!(judgement.findings.iter().any(|finding| finding.words.contains("inferred")), "{judgement:#?}");
}

#[test]
fn edn_and_json_may_be_a_list_or_follow_each_other_and_edn_may_be_tagged() {
    let edn = "#jepsen.history.Op{:index 0, :process :nemesis, :type :info, :value \"kill\"}\n\
               [{:type :ok, :process 0, :value [[:append \"k\" 1]]} #_ignored {:process 1 :type :ok :value #{}}]";
    assert!(foreign::read(edn, Format::Edn).is_err(), "a list does not follow an operation");
    let (_, list) = edn.split_once('\n').unwrap();
    assert_eq!(foreign::read(list, Format::Edn).unwrap().transactions(), 2);
    let json = r#"{"type":"ok","process":0,"value":[["w","k\u0041\ud83d\ude00",1]]} {"type":"ok","process":0,"value":[["r","kA😀",1]]}"#;
    let judgement = foreign::read(json, Format::Json).unwrap().judge(Model::of(Isolation::Serializable));
    assert_eq!((judgement.verdict, judgement.committed), (Verdict::Holds, 2));
}

#[test]
fn malformed_histories_say_where_and_what_was_expected() {
    let cases = [
        (Format::Edn, "", 1, 1, "expected the operations of a client"),
        (Format::Edn, "{:type :ok\n  :value [[:r x", 2, 16, "found the end of the text"),
        (Format::Edn, "{:type :ok :value [[:q x 1]]}", 1, 21, "expected :r, :w or :append, found :q"),
        (Format::Edn, "{:type :maybe :value []}", 1, 8, "expected :invoke, :ok, :fail or :info"),
        (Format::Edn, "{:value []}", 1, 1, "expected a field :type"),
        (Format::Edn, "{:type :ok :value nil}", 1, 19, "expected a list of micro-operations, found nil"),
        (Format::Edn, "{:type :ok :value [[:w x [1]]]}", 1, 26, "expected a value, found a list"),
        (Format::Edn, "{:type :ok :value [[:w x 1] [:append x 1]]}", 1, 40, "expected a register"),
        (Format::Edn, "{:type :ok :value [[:w x \"a\\q\"]]}", 1, 28, "expected an escape"),
        (Format::Edn, "{:type}", 1, 7, "expected data, found '}'"),
        (Format::Edn, "12", 1, 1, "expected an operation"),
        (Format::Json, "[{\"type\":\"ok\" \"value\":[]}]", 1, 15, "expected `,`"),
        (Format::Json, "[{\"type\" \"ok\"}]", 1, 10, "expected `:`"),
        (Format::Json, "[{\"type\": ok}]", 1, 11, "expected data, found `ok`"),
        (Format::Json, "[] {}", 1, 4, "expected the end of the text"),
        (Format::Registers, "w(x,1,0,0)\nr(x,1,0)", 2, 1, "expected four arguments"),
        (Format::Registers, "x(1,2,3,4)", 1, 1, "expected r(key,value,session,txn)"),
        (Format::Registers, "r(1,2,3,4", 1, 10, "expected `)`"),
        (Format::Registers, "r(1,,3,4)", 1, 5, "expected an argument"),
        (Format::Registers, "r(1,2,3,99999999999999999999)", 1, 9, "expected a whole number"),
        (Format::Registers, "w(x,1,0,7)\nw(x,2,1,7)", 2, 7, "expected session 0"),
    ];
    for (format, text, line, column, words) in cases {
        let error = foreign::read(text, format).unwrap_err();
        assert!(error.words.contains(words), "{text:?}: {error}");
        assert_eq!((error.line, error.column), (line, Some(column)), "{text:?}: {error}");
        assert!(error.to_string().starts_with(&format!("line {line}, column {column}: ")));
    }
}

#[test]
fn hostile_nesting_is_refused_and_not_followed() {
    for open in ["[", "{:a ", "#{", "(", "[#_[", "#t ", "{[", "[#_ "] {
        let error = foreign::read(&open.repeat(200_000), Format::Edn).unwrap_err();
        assert_eq!(error.line, 1, "{open}");
    }
    let error = foreign::read(&"[".repeat(200_000), Format::Json).unwrap_err();
    assert!(error.words.contains("nests at most"), "{error}");
}

#[test]
fn any_text_is_an_error_or_a_history_and_never_a_panic() {
    let seed = std::env::var("ISOLDE_SEED").map_or(3, |text| text.parse().unwrap());
    let mut rng = fastrand::Rng::with_seed(seed);
    let good = [
        "[{:type :ok, :process 0, :value [[:append \"x\" 1] [:r y [1 2]] [:r z nil]]} ; c\n #t {:type :info :value []}]",
        "{:type :invoke :value [[:w :k -1.5e3]]} #_ \\u00e9 {:type :ok :value [[:w :k \"\\ud83d\\ude00\"] [:r é nil]]}",
        "[{\"type\": \"ok\", \"value\": [[\"r\", 1, null], [\"append\", 1, true]]}]",
        "w(1,2,3,4)\nr(1,2,3,5)\nw(1,7,3,-1)\nr(1,7,4,6)",
    ];
    let mut read = 0;
    for _ in 0..60_000 {
        let pieces: Vec<char> = good[rng.usize(0..good.len())].chars().collect();
        let start = if rng.bool() { 0 } else { rng.usize(0..pieces.len()) };
        let end = if rng.bool() { pieces.len() } else { rng.usize(start..=pieces.len()) };
        let mut text: Vec<char> = pieces[start..end].to_vec();
        for _ in 0..rng.usize(0..4) {
            let at = rng.usize(0..=text.len());
            match (rng.u8(0..3), text.get(at).copied()) {
                (0, Some(_)) => drop(text.remove(at)),
                (1, Some(same)) => text.insert(at, same),
                _ => text.insert(at, pieces[rng.usize(0..pieces.len())]),
            }
        }
        let text: String = text.into_iter().collect();
        for format in Format::ALL {
            if let Ok(history) = foreign::read(&text, format) {
                read += 1;
                let _ = history.judge(Model::of(Isolation::Serializable));
            }
        }
        let _ = isolde_history::History::from_json_lines(&text);
        let _ = Format::of(&text);
    }
    println!("60000 texts x 4 formats (ISOLDE_SEED={seed}), {read} were histories");
    assert!(read > 100, "{read}");
}
