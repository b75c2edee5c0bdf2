//! The command line: what each subcommand prints, its exit codes, and that JSON stays as it is.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn suite(args: &[&str]) -> Ran {
    suite_with(args, "", &[])
}

fn suite_with(args: &[&str], input: &str, env: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anomaly-suite"));
    command.args(args).envs(env.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Replays a schedule from standard input; the document that it prints.
fn replay(schedule: &str, level: &str, mode: &str) -> Value {
    let ran = suite_with(&["replay", "-", "--level", level, "--mode", mode, "--format", "json"], schedule, &[]);
    assert_eq!(ran.out.lines().count(), 1, "{}{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn file(id: &str) -> String {
    format!("{}/anomalies/{id}.schedule", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_durable_database_has_the_same_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let durable = suite(&["run", "--path", path, "--format", "json"]);
    assert_eq!(durable.code, 0, "{}", durable.err);
    assert_eq!(durable.out, suite(&["run", "--format", "json"]).out);
    assert!(folder.path().join("run-0/MANIFEST").is_file(), "it ran on disk");
    assert_eq!(suite(&["run", "--path", path, "--db", "control"]).code, 2);
}

/// A run removes what an earlier one has left, and nothing else.
#[test]
fn a_folder_with_anything_but_databases_of_runs_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = || suite(&["run", "--path", folder.path().to_str().unwrap(), "--anomaly", "G0", "--level", "snapshot"]);
    let own = folder.path().join("run-0/thesis.txt");
    std::fs::create_dir(folder.path().join("run-0")).unwrap();
    std::fs::write(&own, "mine").unwrap();
    let refused = run();
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("it holds other files: name a new or empty directory"), "{}", refused.err);
    assert_eq!(std::fs::read_to_string(&own).unwrap(), "mine");
    std::fs::rename(own, folder.path().join("notes.txt")).unwrap();
    assert_eq!(run().code, 2);
    std::fs::remove_file(folder.path().join("notes.txt")).unwrap();
    for again in 0..2 {
        let ran = run();
        assert!(ran.code == 0 && ran.out.contains("1 anomaly x 2 levels and modes"), "{again}: {}{}", ran.out, ran.err);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = suite(&["run", "--path", file.path().to_str().unwrap()]);
    assert!(refused.code == 2 && refused.err.contains("it is not a directory"), "{}", refused.err);
}

#[test]
fn the_schedules_of_the_documentation_run() {
    let doc = include_str!("../../docs/schedules.md");
    let blocks: Vec<&str> = doc.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let ran = suite_with(&["replay", "-", "--level", "snapshot"], block, &[]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    }
    // Every operation of the table is one, and none is missing.
    let expected = suite_with(&["replay", "-"], "T1: nothing\n", &[]).err;
    let named = expected.split("an operation: ").nth(1).unwrap();
    for operation in named.split([',', ' ', '\n']).filter(|word| !word.is_empty() && *word != "or") {
        assert!(doc.contains(&format!("`{operation}")), "docs/schedules.md does not say what `{operation}` does");
    }
}

#[test]
fn a_step_that_failed_is_told_with_its_reason() {
    let ran = suite_with(&["replay", "-"], "T1: begin read-only\nT1: put x 1\n", &[]);
    assert!(ran.out.contains("step 2, `T1: put x 1`, was refused: the transaction was begun read-only"), "{}", ran.out);
    let sale = "init: x=1\nT1: get x\nT1: put x 0\nT2: get x\nT2: put x 0\n";
    let ran = suite_with(&["replay", "-"], sale, &[]);
    let words = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("What failed") && words.contains("changed it @"), "{}", ran.out);
}

#[test]
fn the_line_at_the_end_of_the_matrix_names_what_was_run() {
    let ran = suite(&["run", "--anomaly", "P4", "--level", "read-committed", "--mode", "optimistic"]);
    assert!(ran.out.contains("show P4 --level read-committed --mode optimistic"), "{}", ran.out);
    assert!(suite(&["show", "banana"]).err.contains("`banana`; `anomaly-suite list`"));
}

#[test]
fn no_subcommand_means_run() {
    let (bare, run) = (suite(&[]), suite(&["run"]));
    assert_eq!((bare.code, run.code), (0, 0), "{}", bare.err);
    assert_eq!(bare.out, run.out);
    assert!(bare.out.contains("240 cells") && bare.out.contains("all cells as declared"), "{}", bare.out);
    assert!(bare.out.contains("race condition") && bare.out.contains("starvation"));
}

#[test]
fn colour_is_for_terminals_only() {
    assert!(!suite(&["run", "--anomaly", "G0"]).out.contains('\x1b'));
    let env = [("NO_COLOR", "1"), ("CLICOLOR_FORCE", "0")];
    assert!(!suite_with(&["explain", "G0"], "", &env).out.contains('\x1b'));
}

#[test]
fn run_is_narrowed_by_level_mode_and_anomaly() {
    let ran =
        suite(&["run", "--level", "snapshot,read-committed", "--mode", "optimistic", "--anomaly", "lost-update,G0"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("2 anomalies x 2 levels and modes"), "{}", ran.out);
    assert!(!ran.out.contains("race condition"), "hazards belong to a run of everything");
}

#[test]
fn run_json_has_every_cell_and_every_hazard() {
    let ran = suite(&["run", "--format", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let doc: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&doc["schema"], &doc["db"]["name"]), (&1.into(), &"isolde".into()));
    assert_eq!(doc["cells"].as_array().unwrap().len(), 240);
    let cell = doc["cells"]
        .as_array()
        .unwrap()
        .iter()
        .find(|cell| cell["anomaly"] == "G2-item" && cell["level"] == "snapshot" && cell["mode"] == "optimistic");
    let expected = serde_json::json!({
        "anomaly": "G2-item", "level": "snapshot", "mode": "optimistic", "permitted": true,
        "outcome": "possible", "mechanism": null, "declared": {"outcome": "possible", "mechanism": null},
        "zombie": false,
        "schedule": ["T1: begin", "T2: begin", "T1: get x", "T1: get y", "T2: get x", "T2: get y", "T1: put x 0",
            "T2: put y 0", "T1: commit", "T2: commit"],
        "cycle": [{"from": "T1", "to": "T2", "type": "rw", "key": "y"}, {"from": "T2", "to": "T1", "type": "rw", "key": "x"}],
    });
    assert_eq!(cell.unwrap(), &expected);
    let hazards = doc["hazards"].as_array().unwrap();
    assert!(hazards.iter().any(|hazard| hazard["hazard"] == "deadlock" && hazard["without"]["stuck"] == 9));
    assert!(hazards.iter().all(|hazard| hazard["with"].as_array().unwrap()[0]["mechanism"].is_string()));
}

#[test]
fn run_markdown_is_a_table() {
    let ran = suite(&["run", "--format", "markdown", "--anomaly", "write-skew"]);
    assert!(ran.out.starts_with("| anomaly | | RU P | RC P | RR P | SI P | SER P | RU O |"), "{}", ran.out);
    assert!(ran.out.contains("| G2-item | write skew | ✗ | ✗ | ✓d | ✗ | ✓d | ✗ | ✗ | ✓a | ✗ | ✓a |"), "{}", ran.out);
}

#[test]
fn run_junit_has_a_suite_per_level_and_mode_and_a_case_per_anomaly() {
    let ran = suite(&["run", "--format", "junit"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let suites = |name: &str| ran.out.matches(&format!("<testsuite name=\"{name}\" tests=\"24\"")).count();
    for level in ["read-uncommitted", "read-committed", "repeatable-read", "snapshot", "serializable"] {
        assert_eq!((suites(&format!("{level} pessimistic")), suites(&format!("{level} optimistic"))), (1, 1));
    }
    assert_eq!(ran.out.matches("<testcase name=\"G2-item\" classname=\"isolde.").count(), 10, "{}", ran.out);
    assert!(ran.out.contains("<testsuite name=\"hazards\""), "{}", ran.out);
    assert!(!ran.out.contains("<failure") && !ran.out.contains("<error"), "{}", ran.out);
    assert_eq!(ran.out, suite(&["run", "--format", "junit"]).out, "equal byte for byte");
}

#[test]
fn run_junit_fails_the_case_of_a_cell_that_is_not_as_declared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let own = std::fs::read_to_string(format!("{}/expectations/isolde.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
    std::fs::write(&path, own.replacen("\"blocked\"", "\"aborted\"", 1)).unwrap();
    let ran = suite(&["run", "--format", "junit", "--expect", path.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let (_, failed) = ran.out.split_once("<failure").unwrap_or_else(|| panic!("no failure in {}", ran.out));
    assert_eq!(ran.out.matches("<failure").count(), 1);
    assert!(
        failed.starts_with(" message=\"declared prevented, by aborting, came out prevented, by blocking\""),
        "{failed}"
    );
    assert!(ran.out.contains(
        "<testsuite name=\"read-uncommitted pessimistic\" tests=\"24\" skipped=\"0\" errors=\"0\" failures=\"1\">"
    ));
}

#[test]
fn run_writes_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matrix.json");
    let ran = suite(&["run", "--format", "json", "--anomaly", "G0", "--out", path.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert!(std::fs::read_to_string(path).unwrap().starts_with("{\"schema\":1,"));
}

#[test]
fn a_cell_that_is_not_as_declared_is_exit_code_1_and_bless_declares_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let own = std::fs::read_to_string(format!("{}/expectations/isolde.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
    std::fs::write(&path, own.replacen("\"blocked\"", "\"aborted\"", 1)).unwrap();
    let expect = ["run", "--expect", path.to_str().unwrap()];
    let ran = suite(&expect);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.out.contains("G0 at read-uncommitted pessimistic: declared prevented, by aborting"), "{}", ran.out);
    assert!(ran.out.contains("anomaly-suite show G0 --level read-uncommitted --mode pessimistic"));
    let blessed = suite(&[&expect[..], &["--bless"]].concat());
    assert_eq!(blessed.code, 0, "{}", blessed.err);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), own, "blessing restores the file, reasons included");
    assert_eq!(suite(&expect).code, 0);
}

#[test]
fn bless_takes_the_whole_matrix_only() {
    let ran = suite(&["run", "--bless", "--level", "snapshot"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("--bless writes the whole matrix"), "{}", ran.err);
}

#[test]
fn unknown_words_are_exit_code_2_with_a_suggestion() {
    for (args, hint) in [
        (&["show", "wriet-skew"][..], "did you mean `write-skew`?"),
        (&["run", "--level", "serialisable"], "did you mean `serializable`?"),
        (&["run", "--mode", "optimist"], "did you mean `optimistic`?"),
        (&["run", "--db", "isolda"], "did you mean `isolde`?"),
        (&["run", "--anomaly", "G0,banana"], "`anomaly-suite list` names them all"),
        (&["replay", "/no/such.schedule"], "/no/such.schedule: "),
        (&["run", "--expect", "/no/such.toml"], "/no/such.toml: "),
        (&["explian"], "explain"),
    ] {
        let ran = suite(args);
        assert_eq!(ran.code, 2, "{args:?}");
        assert!(ran.err.contains(hint), "{args:?}: {}", ran.err);
    }
}

#[test]
fn a_schedule_that_cannot_be_parsed_is_exit_code_2_and_says_where() {
    let ran = suite_with(&["replay", "-"], "T1: begin\nT1: gte x\n", &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("-: line 2, column 5: found `gte`, expected an operation"), "{}", ran.err);
}

#[test]
fn a_schedule_that_cannot_be_run_to_its_end_is_exit_code_4() {
    let ran = suite_with(&["replay", "-"], "init: x=abc\nT1: get x\nT1: put x $x+1\n", &[]);
    assert_eq!(ran.code, 4, "{}", ran.out);
    assert!(ran.err.contains("`T1: put x $x+1`: x holds `abc`, which is no number"), "{}", ran.err);
}

#[test]
fn an_expectation_that_is_not_met_is_exit_code_1() {
    let ran = suite_with(&["replay", "-"], "init: x=1\nexpect: T1.1=2\nT1: get x\n", &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("`T1: get x` read 1, expected 2"), "{}", ran.out);
}

#[test]
fn list_names_every_anomaly_and_explain_all_of_them() {
    let list = suite(&["list"]);
    assert_eq!(list.code, 0);
    for entry in anomaly_suite::catalogue::all() {
        assert!(list.out.lines().any(|line| line.starts_with(entry.id)), "{}", entry.id);
        let explained = suite(&["explain", entry.id]);
        assert_eq!(explained.code, 0);
        for heading in anomaly_suite::catalogue::HEADINGS {
            assert!(explained.out.lines().any(|line| line == heading), "{heading} in {}", explained.out);
        }
    }
}

#[test]
fn show_draws_the_lanes_and_says_why() {
    let ran = suite(&["show", "write-skew", "--level", "serializable", "--mode", "pessimistic"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in [
        "✓ prevented, by a deadlock victim; serializable forbids it",
        "   7  put x 0 waits for T2",
        "   8                        put y 0 ✗ deadlock",
        "   7  put x 0 goes on",
        "   9  commit                                    x=0 y=1",
    ] {
        assert!(ran.out.lines().any(|found| found == line), "{line:?} in\n{}", ran.out);
    }
    assert!(ran.out.contains("step 8, `T2: put y 0`, was aborted: deadlock"), "{}", ran.out);
}

#[test]
fn replay_json_of_a_write_skew() {
    let doc = replay(&std::fs::read_to_string(file("G2-item")).unwrap(), "snapshot", "optimistic");
    let step = |n: u32, txn: &str, op: &str, value: Value| serde_json::json!({"n": n, "txn": txn, "op": op, "outcome": "ok", "value": value, "resumed_after": null, "error": null});
    let none = || Value::Null;
    let expected = serde_json::json!({
        "schema": 1, "file": "-", "level": "snapshot", "mode": "optimistic", "hunts": "G2-item",
        "outcome": "possible", "mechanism": null, "permitted": true, "zombie": false,
        "steps": [
            step(1, "T1", "begin", none()), step(2, "T2", "begin", none()),
            step(3, "T1", "get x", "1".into()), step(4, "T1", "get y", "1".into()),
            step(5, "T2", "get x", "1".into()), step(6, "T2", "get y", "1".into()),
            step(7, "T1", "put x 0", none()), step(8, "T2", "put y 0", none()),
            step(9, "T1", "commit", none()), step(10, "T2", "commit", none()),
        ],
        "txns": {"T1": "committed", "T2": "committed"},
        "anomalies": ["G2-item"],
        "cycle": [{"from": "T1", "to": "T2", "type": "rw", "key": "y"}, {"from": "T2", "to": "T1", "type": "rw", "key": "x"}],
        "final": {"x": "0", "y": "0"},
        "versions": {"x": [["init", "1"], ["T1", "0"]], "y": [["init", "1"], ["T2", "0"]]},
    });
    assert_eq!(doc, expected);
}

#[test]
fn replay_json_of_a_deadlock_says_who_waited_and_until_when() {
    let doc = replay(&std::fs::read_to_string(file("G2-item")).unwrap(), "serializable", "pessimistic");
    assert_eq!((&doc["outcome"], &doc["mechanism"]), (&"prevented".into(), &"deadlock".into()));
    let steps = doc["steps"].as_array().unwrap();
    assert_eq!((&steps[6]["outcome"], &steps[6]["resumed_after"]), (&"blocked".into(), &8.into()));
    assert_eq!(steps[7]["outcome"], "aborted");
    assert!(steps[7]["error"].as_str().unwrap().starts_with("deadlock"));
    assert_eq!(steps[9]["outcome"], "skipped");
    assert_eq!(doc["txns"], serde_json::json!({"T1": "committed", "T2": "aborted"}));
}

#[test]
fn replay_json_of_scans_deletes_and_steps_that_are_not_written() {
    let doc = replay("init: a=1 b=2\nT1: delete a\nT1: scan ..\nT1: cas b 5 6\n", "read-committed", "optimistic");
    assert_eq!(doc["hunts"], Value::Null);
    assert!(doc.get("outcome").is_none(), "nothing was hunted");
    let steps = doc["steps"].as_array().unwrap();
    let ops: Vec<&str> = steps.iter().map(|step| step["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["begin", "delete a", "scan ..", "cas b 5 6", "commit"]);
    assert_eq!(steps[2]["rows"], serde_json::json!([["b", "2"]]));
    assert_eq!((&steps[3]["outcome"], &steps[3]["value"]), (&"ok".into(), &"2".into()));
    assert!(steps[3]["error"].is_string(), "a refused compare-and-set says so");
    assert_eq!(doc["versions"]["a"], serde_json::json!([["init", "1"], ["T1", null]]));
    assert_eq!(doc["final"], serde_json::json!({"b": "2"}));
}

#[test]
fn several_files_are_one_document_a_line() {
    let ran = suite(&["replay", &file("G0"), &file("G1a"), "--format", "json"]);
    let files = ran.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["file"].clone());
    assert_eq!(files.collect::<Vec<_>>(), [file("G0"), file("G1a")]);
    assert_eq!(ran.code, 0);
}

#[test]
fn transactions_may_choose_their_own_level() {
    let mixed =
        "init: x=1 y=1\nT1: begin serializable\nT2: begin snapshot optimistic\nT3: begin read-only\nT3: put x 2\n";
    let doc = replay(mixed, "serializable", "optimistic");
    let error = doc["steps"][3]["error"].as_str().unwrap();
    assert!(error.to_lowercase().contains("read-only"), "{error}");
    assert_eq!(doc["txns"]["T3"], "committed", "a refused write leaves its transaction alive");
}

const SWAP: &str = "init: x=1 y=2\nT1: get y\nT1: put x $y\nT2: get x\nT2: put y $x\n";

#[test]
fn explore_says_at_which_levels_an_invariant_is_broken_and_how() {
    let ran = suite_with(&["explore", "-", "--invariant", "x == y", "--level", "snapshot"], SWAP, &[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for expected in ["SI pessimistic", "broken", "G2-item", "x == y is broken: x=2 y=1", "T1: put x $y"] {
        assert!(ran.out.contains(expected), "{expected}: {}", ran.out);
    }
    assert!(ran.out.lines().all(|line| line.chars().count() <= 100), "{}", ran.out);
}

#[test]
fn explore_in_json_is_the_same_from_run_to_run() {
    let args = ["explore", "-", "--format", "json", "--mode", "optimistic"];
    let (one, other) = (suite_with(&args, SWAP, &[]), suite_with(&args, SWAP, &[]));
    assert_eq!(one.out, other.out);
    let document: Value = serde_json::from_str(&one.out).unwrap();
    let explorations = document["explorations"].as_array().unwrap();
    assert_eq!((explorations.len(), &document["schema"]), (5, &Value::from(1)));
    let snapshot = explorations.iter().find(|one| one["level"] == "snapshot").unwrap();
    assert!(snapshot["anomalies"]["G2-item"]["schedules"].as_u64().unwrap() > 0, "{snapshot}");
    assert_eq!(snapshot["faults"], serde_json::json!({}));
}

/// T1 reads x and y around T2, and scans twice around it: both kinds of G-single in one program.
#[test]
fn explore_in_json_keeps_read_skew_on_keys_and_phantoms_apart() {
    let program = "init: x=1 y=1\nT1: get x\nT1: scan a..b\nT1: get y\nT2: put x 2\nT2: put y 2\nT2: insert a 1\n";
    let args = ["explore", "-", "--format", "json", "--level", "read-committed", "--mode", "optimistic"];
    let document: Value = serde_json::from_str(&suite_with(&args, program, &[]).out).unwrap();
    let anomalies = document["explorations"][0]["anomalies"].as_object().unwrap();
    for (code, words) in [("G-single-item", "T1 read x=1"), ("G-single", "T1 scanned a span without a")] {
        let shown = anomalies.get(code).unwrap_or_else(|| panic!("{code} is not among {anomalies:?}"));
        assert!(shown["words"].as_str().unwrap().contains(words), "{code}: {shown}");
        assert!(shown["schedules"].as_u64().unwrap() > 0);
    }
}

#[test]
fn advise_names_the_weakest_level_and_what_goes_wrong_below_it() {
    let ran = suite_with(&["advise", "-", "--invariant", "x == y"], SWAP, &[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for expected in ["You need repeatable read, pessimistic.", "What goes wrong at read committed, pessimistic:"] {
        assert!(ran.out.contains(expected), "{expected}: {}", ran.out);
    }
    let impossible = suite_with(&["advise", "-", "--invariant", "x == 7"], SWAP, &[]);
    assert_eq!(impossible.code, 1);
    assert!(impossible.out.contains("one after the other"), "{}", impossible.out);
}

#[test]
fn an_invariant_that_is_none_and_programs_that_go_on_are_usage_errors() {
    for command in ["explore", "advise"] {
        let ran = suite_with(&[command, "-", "--invariant", "x == y and z == 0"], SWAP, &[]);
        let error = "error: --invariant: no step names the key `z`, and it is not in `init:`\n";
        assert_eq!((ran.code, ran.err.as_str()), (2, error));
    }
    let ran = suite_with(&["explore", "-", "--invariant", "x >"], SWAP, &[]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("--invariant, column 4: found the end, expected a number or a key"), "{}", ran.err);
}

#[test]
fn fuzz_tells_its_seed_and_what_it_ran() {
    let ran = suite(&["fuzz", "--seed", "7", "--cases", "300"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.starts_with("seed 7\n300 cases in "), "{}", ran.out);
    assert_eq!(suite(&["fuzz", "--txns", "1"]).code, 2);
}
