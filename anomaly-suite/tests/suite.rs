//! The suite as a whole: the matrix, its rules, its formats, its exit codes.

use std::process::{Command, Output};

use anomaly_suite::report::markdown;
use anomaly_suite::{Control, Expectations, Isolde, Outcome, Suite};
use isolde_history::schedule::ShownWithoutControl;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_anomaly-suite")).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_cell_is_as_declared() {
    let report = Suite::new(&Isolde).expecting(Expectations::isolde()).run();
    let faults: Vec<String> = report.faulty().flat_map(|cell| cell.faults()).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(report.inconclusive().count(), 0);
    assert!(report.cells.iter().all(|cell| cell.declared.is_some()), "a cell is not declared");
    assert_eq!(report.cells.len(), report.entries().len() * 10);
}

/// What a level and mode say of themselves holds in every cell.
#[test]
fn what_is_guaranteed_is_never_shown() {
    for cell in &Suite::new(&Isolde).run().cells {
        let forbidden = cell.setting.isolation.guarantees(cell.setting.mode).forbidden;
        for shown in &cell.trial.as_ref().unwrap().evidence.shown {
            assert!(!forbidden.contains(&shown.anomaly), "{} at {:?}: {}", cell.entry.id, cell.setting, shown.words);
        }
    }
}

/// A schedule that shows nothing where nothing prevents it can prove nothing anywhere.
#[test]
fn every_schedule_shows_its_anomaly_on_an_engine_without_control() {
    let report = Suite::new(&Control).run();
    for cell in &report.cells {
        let shown = cell.outcome() == Some(Outcome::Possible);
        let expected = cell.entry.schedule.shown_without_control == ShownWithoutControl::Yes;
        assert_eq!(shown, expected, "{} at {:?}", cell.entry.id, cell.setting);
    }
}

#[test]
fn two_runs_are_equal_byte_for_byte() {
    for format in ["table", "json", "markdown"] {
        let (first, second) = (run(&["run", "--format", format]), run(&["run", "--format", format]));
        assert!(first.status.success());
        assert_eq!(first.stdout, second.stdout, "{format}");
    }
    assert_eq!(run(&[]).stdout, run(&["run"]).stdout, "no subcommand means run");
}

#[test]
fn the_table_fits_a_hundred_columns() {
    for output in [run(&[]), run(&["--ascii"]), run(&["list"]), run(&["show", "G2-item"])] {
        let widest = text(&output).lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 100, "{widest} columns");
    }
    assert!(text(&run(&["--ascii"])).is_ascii());
}

#[test]
fn the_json_says_what_the_matrix_says() {
    let output = run(&["run", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    let cells = document["cells"].as_array().unwrap();
    assert_eq!(cells.len(), Suite::new(&Isolde).run().cells.len());
    let skew = cells
        .iter()
        .find(|cell| cell["anomaly"] == "G2-item" && cell["level"] == "snapshot" && cell["mode"] == "optimistic")
        .unwrap();
    assert_eq!(skew["outcome"], "possible");
    assert_eq!(skew["permitted"], true);
    assert_eq!(skew["cycle"].as_array().unwrap().len(), 2);
    assert!(!document["hazards"].as_array().unwrap().is_empty());
}

#[test]
fn exit_codes_tell_what_happened() {
    assert_eq!(run(&["run", "--db", "control"]).status.code(), Some(1), "a level allowed what it forbids");
    assert_eq!(run(&["run", "--level", "serialisable"]).status.code(), Some(2));
    assert_eq!(run(&["show", "write-scew"]).status.code(), Some(2));
    assert_eq!(run(&["replay", "no-such-file"]).status.code(), Some(2));
    assert_eq!(run(&["explain", "write-skew"]).status.code(), Some(0));
    let wrong = String::from_utf8(run(&["show", "write-scew"]).stderr).unwrap();
    assert!(wrong.contains("write-skew"), "no suggestion in {wrong}");
}

#[test]
fn a_cell_that_is_not_as_declared_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("expect.toml");
    let own = include_str!("../expectations/isolde.toml");
    std::fs::write(&path, own.replacen("blocked", "possible", 1)).unwrap();
    assert_ne!(std::fs::read_to_string(&path).unwrap(), own, "the expectation file has no `blocked`");
    let output = run(&["run", "--expect", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn schedules_of_ones_own_are_replayed_and_errors_name_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.schedule");
    std::fs::write(&path, "# mine\nhunts: P4\ninit: x=1\nT1: get x\nT2: put x 5\nT2: commit\nT1: put x $x+1\n")
        .unwrap();
    let arguments = ["replay", path.to_str().unwrap(), "--level", "read-committed", "--format", "json"];
    let document: serde_json::Value = serde_json::from_slice(&run(&arguments).stdout).unwrap();
    assert_eq!(document["final"]["x"], "2");
    std::fs::write(&path, "T1: get x\nT1: gett y\n").unwrap();
    let output = run(&["replay", path.to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains('2') && error.contains("gett"), "{error}");
}

/// The README's matrix is what runs.
#[test]
fn the_readme_has_the_matrix_as_it_is() {
    let readme = include_str!("../../README.md");
    let shown = readme.split("<!-- matrix -->\n").nth(1).and_then(|rest| rest.split("<!-- /matrix -->").next());
    let current = markdown::markdown(&Suite::new(&Isolde).expecting(Expectations::isolde()).run());
    assert_eq!(shown.map(str::trim), Some(current.trim()), "regenerate it: tools/readme-matrix");
}
