//! `anomaly-suite check`: verdicts, exit codes, and that what docs/checking.md shows is what it prints.

use std::io::Write;
use std::process::{Command, Stdio};

use isolde_history::{Event, History, ReadKind, TxnKey, Version};
use isolde_types::{Isolation, Key, Mode, Ts};
use serde_json::{Value, json};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// `anomaly-suite check - ARGS` on a text.
fn check(text: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anomaly-suite"));
    command.args(["check", "-"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A call that is refused does not read its input.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Two transactions read x and y, and each wrote one of them: write skew.
const WRITE_SKEW: &str = "{:process 0, :type :invoke, :value [[:r x nil] [:append y 1]]}\n\
                          {:process 1, :type :invoke, :value [[:r y nil] [:append x 2]]}\n\
                          {:process 0, :type :ok, :value [[:r x []] [:append y 1]]}\n\
                          {:process 1, :type :ok, :value [[:r y []] [:append x 2]]}\n";

#[test]
fn the_exit_code_is_the_verdict() {
    assert_eq!(check(WRITE_SKEW, &["--model", "snapshot"]).code, 0);
    assert_eq!(check(WRITE_SKEW, &["--model", "serializable"]).code, 1);
    assert_eq!(check(WRITE_SKEW, &[]).code, 1, "serializable unless another model is asked for");
    assert_eq!(check("r(x,1,0,0)\nr(x,2,0,1)\n", &[]).code, 4, "two values that nobody wrote");
    assert_eq!(check("{:type :ok", &[]).code, 2);
    assert_eq!(check(WRITE_SKEW, &["--model", "snapshoot"]).code, 2);
    assert_eq!(check(WRITE_SKEW, &["--from", "yaml"]).code, 2);
    assert_eq!(check(WRITE_SKEW, &["no such file"]).code, 2);
}

#[test]
fn malformed_histories_name_file_line_and_column() {
    let ran = check("{:type :ok\n :value [[:r x}]}", &[]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert_eq!(ran.err.trim(), "error: -: line 2, column 15: expected data, found '}'");
    let ran = check("{\"schema\":1,\"start\":0,\"initial\":[],\"order\":[]}\n{\"begin\": }", &[]);
    assert!(ran.err.contains("-: line 2, column 11: expected JSON"), "{}", ran.err);
}

#[test]
fn json_says_what_text_says() {
    let ran = check(WRITE_SKEW, &["--format", "json"]);
    assert_eq!((ran.code, ran.out.lines().count()), (1, 1), "{}", ran.err);
    let doc: Value = serde_json::from_str(&ran.out).unwrap();
    let words = "T1 is before T2, because T1 read x=[], and T2 overwrote it; but T2 is before T1, because T2 read \
                 y=[], and T1 overwrote it: a contradiction.";
    let expected = json!({
        "schema": 1, "file": "-", "format": "edn", "model": "serializable", "real_time": true,
        "verdict": "violated", "committed": 2,
        "findings": [{
            "anomaly": "G2-item", "title": "write skew", "forbidden": true, "words": words,
            "cycle": [{"from": "T1", "to": "T2", "type": "rw", "key": "x"},
                      {"from": "T2", "to": "T1", "type": "rw", "key": "y"}]}],
        "complaints": [], "doubts": [], "assumptions": []});
    assert_eq!(doc, expected);
    let allowed = check(WRITE_SKEW, &["--format", "json", "--model", "snapshot", "--without-real-time"]);
    let doc: Value = serde_json::from_str(&allowed.out).unwrap();
    assert_eq!((&doc["verdict"], &doc["findings"][0]["forbidden"]), (&"holds".into(), &false.into()));
    assert_eq!((&doc["real_time"], &doc["model"]), (&false.into(), &"snapshot".into()));
}

/// A fuzzy read, recorded with versions.
fn own_history(isolation: Isolation) -> String {
    let (one, two, key) = (TxnKey(1), TxnKey(2), Key::from_static(b"x"));
    let begin = |txn, name: &str| Event::Begin {
        txn,
        name: name.to_owned(),
        isolation,
        mode: Mode::Optimistic,
        read_only: false,
    };
    let read = |version, value: Option<&'static [u8]>| Event::Read {
        txn: one,
        key: key.clone(),
        version,
        value: value.map(Key::from_static),
        kind: ReadKind::Tracked,
        as_of: None,
    };
    let value = Some(Key::from_static(b"1"));
    let events = vec![
        begin(one, "T1"),
        begin(two, "T2"),
        read(Version::None, None),
        Event::Write { txn: two, key: key.clone(), seq: 1, value, blind: false },
        Event::Commit { txn: two, ts: Some(Ts(1)), resolved: Vec::new() },
        read(Version::Committed(Ts(1)), Some(b"1")),
        Event::Commit { txn: one, ts: None, resolved: Vec::new() },
    ];
    History { events, ..History::default() }.to_json_lines()
}

#[test]
fn our_own_histories_are_judged_by_their_levels_unless_a_model_is_given() {
    let (weak, strong) = (own_history(Isolation::ReadCommitted), own_history(Isolation::Serializable));
    let kept = check(&weak, &[]);
    assert_eq!(kept.code, 0, "{}{}", kept.out, kept.err);
    assert!(kept.out.contains("what each transaction was promised holds"), "{}", kept.out);
    assert!(kept.out.contains("G-single-item (read skew)"), "found as well, and allowed: {}", kept.out);
    assert_eq!(check(&strong, &[]).code, 1);
    assert_eq!(check(&weak, &["--model", "snapshot"]).code, 1);
    assert_eq!(check(&strong, &["--model", "read-committed"]).code, 0);
}

#[test]
fn several_files_are_judged_and_the_worst_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.txt"), folder.path().join("bad.edn"));
    std::fs::write(&good, "w(x,1,0,0)\nr(x,1,0,1)\n").unwrap();
    std::fs::write(&bad, WRITE_SKEW).unwrap();
    let files = [good.to_str().unwrap(), bad.to_str().unwrap(), "--format", "json"];
    let ran = check("w(x,1,0,0)", &files);
    assert_eq!((ran.code, ran.out.lines().count()), (1, 3), "{}", ran.err);
}

/// Each block of docs/checking.md that begins with `$ anomaly-suite check FILE` shows what is printed for
/// the block before it.
#[test]
fn the_document_shows_what_is_printed() {
    let document = include_str!("../../docs/checking.md");
    let blocks: Vec<&str> = document.split("```").skip(1).step_by(2).collect();
    let mut shown = 0;
    for pair in blocks.windows(2) {
        let (Some((_, history)), Some((_, console))) = (pair[0].split_once('\n'), pair[1].split_once('\n')) else {
            continue;
        };
        let Some(line) = console.strip_prefix("$ anomaly-suite check ") else { continue };
        let (command, printed) = line.split_once('\n').unwrap();
        let (file, args) = command.split_once(' ').unwrap_or((command, ""));
        let ran = check(history, &args.split_whitespace().collect::<Vec<_>>());
        assert_eq!(ran.out.replacen("- ·", &format!("{file} ·"), 1), printed, "{}", ran.err);
        shown += 1;
    }
    assert_eq!(shown, 3);
}
