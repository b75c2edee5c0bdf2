//! A history for each anomaly, and its clean counterpart.
//!
//! Histories are written in a small notation: `init x=0`, then one event a line, in the order of
//! observation: `T1 begin`, `T1 r x init`, `T1 r x T2.1` (the first write of T2, in flight), `T1 r x @3`,
//! `T1 r x none`, `T1 scan a..z x@3 y@2` (rows and tombstones by the time of their versions),
//! `T1 w x 5` (`-` deletes), `T1 undo 1` (writes after the first), `T1 commit @4`, `T1 commit`, `T1 abort`.

use std::collections::HashMap;

use bytes::Bytes;
use isolde_history::{Event, History, ReadKind, Row, TxnKey, Version, check};
use isolde_types::{Anomaly, Isolation, Key, Mode, Span, Ts};

/// Values by version, so that reads need not repeat them.
#[derive(Default)]
struct Values {
    initial: HashMap<String, String>,
    written: HashMap<(String, u64, u32), Option<String>>,
    committed: HashMap<(String, u64), Option<String>>,
    last: HashMap<(u64, String), Option<String>>,
    seqs: HashMap<u64, u32>,
}

fn history(text: &str, isolation: Isolation) -> History {
    let mut history = History::default();
    let mut values = Values::default();
    // Values of committed versions are needed by reads that come before their commit line is met.
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        scan_values(line, &mut values);
    }
    values.seqs.clear();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "init" {
            for pair in &words[1..] {
                let (key, value) = pair.split_once('=').unwrap();
                history.initial.push((bytes(key), bytes(value)));
            }
            continue;
        }
        history.events.push(event(&words, isolation, &mut values));
    }
    history
}

fn scan_values(line: &str, values: &mut Values) {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words[0] == "init" {
        for pair in &words[1..] {
            let (key, value) = pair.split_once('=').unwrap();
            values.initial.insert(key.into(), value.into());
        }
        return;
    }
    let txn = number(words[0]);
    match words[1] {
        "w" => {
            let seq = values.seqs.entry(txn).or_default();
            *seq += 1;
            let value = (words[3] != "-").then(|| words[3].to_owned());
            values.written.insert((words[2].into(), txn, *seq), value.clone());
            values.last.insert((txn, words[2].into()), value);
        }
        "commit" if words.len() > 2 => {
            let own: Vec<_> =
                values.last.iter().filter(|((t, _), _)| *t == txn).map(|((_, k), v)| (k.clone(), v.clone())).collect();
            for (key, value) in own {
                values.committed.insert((key, time(words[2]).0), value);
            }
        }
        _ => {}
    }
}

fn event(words: &[&str], isolation: Isolation, values: &mut Values) -> Event {
    let id = number(words[0]);
    let txn = TxnKey(id);
    match words[1] {
        "begin" => Event::Begin { txn, name: words[0].into(), isolation, mode: Mode::Optimistic, read_only: false },
        "r" => {
            let (version, value) = version(words[2], words[3], id, values);
            Event::Read { txn, key: bytes(words[2]), version, value, kind: ReadKind::Tracked, as_of: Some(Ts(99)) }
        }
        "scan" => {
            let (from, to) = words[2].split_once("..").unwrap();
            let row = |word: &&str| {
                let (key, at) = word.split_once('@').unwrap();
                let (version, value) = version(key, &format!("@{at}"), id, values);
                Row { key: bytes(key), version, value }
            };
            let rows = words[3..].iter().filter(|word| !word.starts_with("as-of")).map(row).collect();
            let as_of = words.iter().find_map(|word| word.strip_prefix("as-of@")).map(|ts| Ts(ts.parse().unwrap()));
            Event::Scan { txn, span: Span::new(bytes(from), Some(bytes(to))), rows, kind: ReadKind::Tracked, as_of }
        }
        "w" => {
            let seq = values.seqs.entry(id).or_default();
            *seq += 1;
            let value = (words[3] != "-").then(|| bytes(words[3]));
            Event::Write { txn, key: bytes(words[2]), seq: *seq, value, blind: false }
        }
        "undo" => Event::RollbackTo { txn, seq: words[2].parse().unwrap() },
        "commit" => Event::Commit { txn, ts: words.get(2).map(|word| time(word)), resolved: Vec::new() },
        "abort" => Event::Abort { txn },
        other => panic!("no such event: {other}"),
    }
}

fn version(key: &str, word: &str, reader: u64, values: &Values) -> (Version, Option<Bytes>) {
    let value = |value: Option<&Option<String>>| value.cloned().flatten().map(|value| bytes(&value));
    if word == "init" || word == "@0" {
        return (Version::Committed(Ts(0)), values.initial.get(key).map(|value| bytes(value)));
    }
    if word == "none" {
        return (Version::None, None);
    }
    if word.starts_with('@') {
        return (Version::Committed(time(word)), value(values.committed.get(&(key.into(), time(word).0))));
    }
    let (txn, seq) = word.split_once('.').unwrap();
    let (txn, seq): (u64, u32) = (number(txn), seq.parse().unwrap());
    let found = value(values.written.get(&(key.into(), txn, seq)));
    if txn == reader { (Version::Own(seq), found) } else { (Version::InFlight { txn: TxnKey(txn), seq }, found) }
}

fn bytes(text: &str) -> Key {
    Bytes::copy_from_slice(text.as_bytes())
}

fn number(name: &str) -> u64 {
    name[1..].parse().unwrap()
}

fn time(word: &str) -> Ts {
    Ts(word[1..].parse().unwrap())
}

/// Exactly these anomalies are found, and nothing else is wrong.
fn shows(text: &str, expected: &[Anomaly]) {
    let report = check(&history(text, Isolation::Serializable));
    assert_eq!(report.complaints, Vec::<String>::new(), "{text}");
    assert_eq!(report.anomalies(), expected, "{text}\n{report}");
    assert_eq!(report.violations.is_empty(), expected.is_empty(), "{text}\n{report}");
    for finding in &report.findings {
        assert!(!finding.words.is_empty() && !finding.cycle.is_empty());
    }
}

use Anomaly::{
    AbortedRead, CircularFlow, DirtyWrite, IntermediateRead, Internal, LongFork, LostUpdate, PredicateWriteSkew,
    ReadSkew, ReadSkewItem, Realtime, TransactionVanishes, WriteSkew,
};

#[test]
fn dirty_write() {
    // In place: x is T1 then T2, y is T2 then T1.
    let text = "init x=0 y=0\nT1 begin\nT2 begin\nT1 w x 1\nT2 w x 2\nT2 w y 2\nT1 w y 1\nT1 commit\nT2 commit";
    let mut crossed = history(text, Isolation::ReadUncommitted);
    let order = |key: &str, writes: [(u64, u32); 2]| (bytes(key), writes.map(|(txn, seq)| (TxnKey(txn), seq)).to_vec());
    crossed.order = vec![order("x", [(1, 1), (2, 1)]), order("y", [(2, 2), (1, 2)])];
    assert_eq!(check(&crossed).anomalies(), [DirtyWrite]);
    assert!(!check(&crossed).keeps_its_levels());
    crossed.order = vec![order("x", [(1, 1), (2, 1)]), order("y", [(1, 2), (2, 2)])];
    assert_eq!(check(&crossed).anomalies(), []);
}

#[test]
fn aborted_read() {
    shows("init x=0\nT1 begin\nT2 begin\nT1 w x 1\nT2 r x T1.1\nT1 abort\nT2 commit", &[AbortedRead]);
    shows("init x=0\nT1 begin\nT2 begin\nT1 w x 1\nT2 r x T1.1\nT1 undo 0\nT1 commit\nT2 commit", &[AbortedRead]);
    shows("init x=0\nT1 begin\nT2 begin\nT1 w x 1\nT2 r x init\nT1 abort\nT2 commit", &[]);
}

#[test]
fn intermediate_read() {
    shows(
        "init x=0\nT1 begin\nT2 begin\nT1 w x 1\nT2 r x T1.1\nT1 w x 2\nT1 commit @1\nT2 commit",
        &[IntermediateRead],
    );
    shows("init x=0\nT1 begin\nT2 begin\nT1 w x 1\nT1 w x 2\nT2 r x T1.2\nT1 commit @1\nT2 commit", &[]);
}

#[test]
fn circular_flow() {
    let text =
        "init x=0 y=0\nT1 begin\nT2 begin\nT1 w x 1\nT2 w y 2\nT1 r y T2.1\nT2 r x T1.1\nT1 commit @1\nT2 commit @2";
    shows(text, &[CircularFlow]);
    let text = "init x=0 y=0\nT1 begin\nT2 begin\nT1 w x 1\nT2 w y 2\nT2 r x T1.1\nT1 commit @1\nT2 commit @2";
    shows(text, &[]);
}

#[test]
fn observed_transaction_vanishes() {
    let text =
        "init x=0 y=0\nT1 begin\nT3 begin\nT1 w x 1\nT1 w y 1\nT3 r x T1.1\nT3 r y init\nT1 commit @1\nT3 commit";
    shows(text, &[TransactionVanishes, ReadSkewItem]);
    // The older version first, then the newer: no vanishing, but still a skew.
    let text = "init x=0 y=0\nT1 begin\nT3 begin\nT3 r y init\nT1 w x 1\nT1 w y 1\nT1 commit @1\nT3 r x @1\nT3 commit";
    shows(text, &[ReadSkewItem]);
}

#[test]
fn read_skew_and_fuzzy_read() {
    let text = "init x=0\nT1 begin\nT1 r x init\nT2 begin\nT2 w x 1\nT2 commit @1\nT1 r x @1\nT1 commit";
    shows(text, &[ReadSkewItem]);
    let text = "init x=0\nT1 begin\nT1 r x init\nT2 begin\nT2 w x 1\nT2 commit @1\nT1 r x init\nT1 commit";
    shows(text, &[]);
}

#[test]
fn phantom() {
    let text = "init a=0\nT1 begin\nT1 scan a..z a@0 as-of@0\nT2 begin\nT2 w b 1\nT2 commit @1\nT1 scan a..z a@0 b@1 as-of@1\nT1 commit";
    shows(text, &[ReadSkew]);
    let text = "init a=0\nT1 begin\nT1 scan a..z a@0 as-of@0\nT2 begin\nT2 w b 1\nT2 commit @1\nT1 scan a..z a@0 as-of@0\nT1 commit";
    shows(text, &[]);
}

#[test]
fn lost_update() {
    let text = "init x=0\nT1 begin\nT2 begin\nT1 r x init\nT2 r x init\nT1 w x 1\nT1 commit @1\nT2 w x 2\nT2 commit @2";
    shows(text, &[ReadSkewItem, LostUpdate]);
    let text = "init x=0\nT1 begin\nT1 r x init\nT1 w x 1\nT1 commit @1\nT2 begin\nT2 r x @1\nT2 w x 2\nT2 commit @2";
    shows(text, &[]);
}

#[test]
fn write_skew() {
    let text = "init x=1 y=1\nT1 begin\nT2 begin\nT1 r x init\nT1 r y init\nT2 r x init\nT2 r y init\nT1 w x 0\nT2 w y 0\nT1 commit @1\nT2 commit @2";
    shows(text, &[WriteSkew]);
    let text = "init x=1 y=1\nT1 begin\nT2 begin\nT1 r x init\nT1 r y init\nT2 r y init\nT1 w x 0\nT2 w y 0\nT1 commit @1\nT2 commit @2";
    shows(text, &[]);
}

#[test]
fn predicate_write_skew() {
    let text = "init q=0\nT1 begin\nT2 begin\nT1 scan a..c as-of@0\nT2 scan a..c as-of@0\nT1 w a 1\nT2 w b 1\nT1 commit @1\nT2 commit @2";
    shows(text, &[PredicateWriteSkew]);
    let text = "init q=0\nT1 begin\nT2 begin\nT1 scan a..c as-of@0\nT2 scan b..c as-of@0\nT1 w a 1\nT2 w b 1\nT1 commit @1\nT2 commit @2";
    shows(text, &[]);
}

#[test]
fn long_fork() {
    let text = "init x=0 y=0\nT1 begin\nT2 begin\nT3 begin\nT4 begin\nT1 w x 1\nT2 w y 1\nT1 commit @1\nT2 commit @2\nT3 r x @1\nT3 r y init\nT4 r y @2\nT4 r x init\nT3 commit\nT4 commit";
    shows(text, &[LongFork, WriteSkew]);
    let text = "init x=0 y=0\nT1 begin\nT2 begin\nT3 begin\nT4 begin\nT1 w x 1\nT2 w y 1\nT1 commit @1\nT2 commit @2\nT3 r x @1\nT3 r y init\nT4 r y @2\nT4 r x @1\nT3 commit\nT4 commit";
    shows(text, &[]);
}

#[test]
fn stale_read() {
    let text = "init x=0\nT1 begin\nT1 w x 1\nT1 commit @1\nT2 begin\nT2 r x init\nT2 commit";
    shows(text, &[Realtime]);
    let text = "init x=0\nT2 begin\nT1 begin\nT1 w x 1\nT1 commit @1\nT2 r x init\nT2 commit";
    shows(text, &[]);
}

#[test]
fn own_writes() {
    shows("init x=0\nT1 begin\nT1 w x 1\nT1 r x init\nT1 commit @1", &[Internal]);
    shows("init x=0\nT1 begin\nT1 w x 1\nT1 w x 2\nT1 r x T1.1\nT1 commit @1", &[Internal]);
    shows("init x=0\nT1 begin\nT1 w x 1\nT1 w x 2\nT1 r x T1.2\nT1 commit @1", &[]);
}

#[test]
fn a_state_that_only_an_aborted_transaction_saw_is_a_zombie_and_no_anomaly() {
    let text = "init x=0 y=0\nT1 begin\nT1 r x init\nT2 begin\nT2 w x 1\nT2 w y 1\nT2 commit @1\nT1 r y @1\nT1 abort";
    let report = check(&history(text, Isolation::Serializable));
    assert!(report.is_serializable() && report.zombies.len() == 1, "{report}");
}

#[test]
fn contradictions_in_the_records_are_complained_of() {
    let complain = |text: &str| !check(&history(text, Isolation::Serializable)).complaints.is_empty();
    assert!(complain("init x=0\nT1 begin\nT1 r x @7\nT1 commit"), "nobody committed at that time");
    assert!(complain("init x=0\nT1 begin\nT1 r x none\nT1 commit"), "it was there");
    assert!(complain("init x=0\nT1 begin\nT1 scan a..z as-of@0\nT1 commit"), "the scan missed a row");
    assert!(complain("init x=0\nT1 begin\nT2 begin\nT1 w x 1\nT2 w x 2\nT1 commit @1\nT2 commit @1"), "one time twice");
    assert!(complain("init x=0\nT1 r x init"), "it never began");
}

#[test]
fn each_transaction_is_owed_its_own_level() {
    // Write skew between a snapshot transaction and a serializable one: the latter is owed better.
    let text = "init x=1 y=1\nT1 begin\nT2 begin\nT1 r x init\nT1 r y init\nT2 r x init\nT2 r y init\nT1 w x 0\nT2 w y 0\nT1 commit @1\nT2 commit @2";
    for (first, second, kept) in [
        (Isolation::Snapshot, Isolation::Snapshot, true),
        (Isolation::Serializable, Isolation::Serializable, false),
        (Isolation::RepeatableRead, Isolation::RepeatableRead, false),
        (Isolation::ReadCommitted, Isolation::Serializable, true),
    ] {
        let mut mixed = history(text, first);
        for event in &mut mixed.events {
            if let Event::Begin { txn: TxnKey(2), isolation, .. } = event {
                *isolation = second;
            }
        }
        assert_eq!(check(&mixed).keeps_its_levels(), kept, "{first} and {second}");
    }
}

#[test]
fn histories_survive_json_lines_and_errors_name_their_line() {
    let text = "init x=1\nT1 begin\nT1 scan a..z x@0 as-of@0\nT1 w x -\nT1 undo 0\nT1 w \\0\" 2\nT1 commit @1";
    let before = history(text, Isolation::Snapshot);
    let lines = before.to_json_lines();
    assert_eq!(History::from_json_lines(&lines).unwrap(), before);
    let broken = lines.replacen("\"commit\"", "\"comit\"", 1);
    let error = History::from_json_lines(&broken).unwrap_err();
    assert!(error.to_string().starts_with("line 7:") && error.to_string().contains("commit"), "{error}");
    assert!(History::from_json_lines("").is_err());
}

/// T1 to T12 each read what the one before wrote, and the last had ended before the first began.
#[test]
fn a_long_cycle_that_closes_only_through_real_time_is_found() {
    let last = 12;
    let mut text: String = (2..last).map(|txn| format!("T{txn} begin\n")).collect();
    text.push_str("T12 begin\nT12 r k11 @11\nT12 commit\nT1 begin\n");
    for txn in 1..last {
        if txn > 1 {
            text.push_str(&format!("T{txn} r k{} @{}\n", txn - 1, txn - 1));
        }
        text.push_str(&format!("T{txn} w k{txn} {txn}\n"));
    }
    (1..last).for_each(|txn| text.push_str(&format!("T{txn} commit @{txn}\n")));
    let report = check(&history(&text, Isolation::Serializable));
    assert_eq!(report.anomalies(), [Anomaly::Realtime], "{report}");
    assert_eq!(report.findings[0].cycle.len(), last);
    assert!(report.findings[0].words.contains("T12 ended before T1 began"), "{report}");
    assert_eq!(report.violations.len(), 1, "{report}");
}
