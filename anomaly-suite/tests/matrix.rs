//! The whole matrix, as a library runs it: as declared, complete, equal from run to run.

use anomaly_suite::catalogue;
use anomaly_suite::hazards::Hazards;
use anomaly_suite::report::story::Story;
use anomaly_suite::report::{Glyphs, Style, explain, json, markdown, show, table};
use anomaly_suite::{Expectations, Isolde, Report, Suite};
use isolde_history::schedule::{Schedule, Setting, ShownWithoutControl, TxnOutcome};

fn run() -> Report {
    Suite::new(&Isolde).expecting(Expectations::isolde()).run()
}

#[test]
fn every_cell_is_as_declared() {
    let report = run();
    assert_eq!(report.cells.len(), catalogue::all().len() * 10);
    let faults: Vec<String> = report
        .cells
        .iter()
        .flat_map(|cell| {
            let place = format!("{} at {} {}", cell.entry.id, cell.setting.isolation, cell.setting.mode);
            let error = cell.trial.as_ref().err().map(ToString::to_string);
            cell.faults().into_iter().chain(error).map(move |fault| format!("{place}: {fault}"))
        })
        .collect();
    assert_eq!(faults, [""; 0]);
}

#[test]
fn every_hazard_is_shown_and_resolved() {
    let hazards = Hazards::run();
    let names: Vec<&str> = hazards.0.iter().map(|hazard| hazard.name).collect();
    for expected in ["race condition", "deadlock", "livelock", "starvation"] {
        assert!(names.contains(&expected), "{expected} is not among {names:?}");
    }
    for hazard in &hazards.0 {
        assert!(hazard.without.as_declared, "{} was not shown: {}", hazard.name, hazard.without.measured());
        assert!(!hazard.with.is_empty());
        for case in &hazard.with {
            assert!(case.as_declared, "{} with {}: {}", hazard.name, case.mechanism, case.measured());
        }
    }
}

#[test]
fn two_runs_are_equal_byte_for_byte() {
    let text = || {
        let (report, hazards) = (run(), Hazards::run());
        table::table(&report, Some(&hazards), Style::default())
            + &json::report(&report, Some(&hazards), json::Detail::Steps)
    };
    assert_eq!(text(), text());
}

/// Every text for people, in both sets of glyphs.
fn texts(glyphs: Glyphs) -> Vec<String> {
    let style = Style { glyphs, ..Style::default() };
    let (report, hazards) = (run(), Hazards::run());
    let mut texts = vec![table::table(&report, Some(&hazards), style), explain::list(style)];
    for entry in catalogue::all() {
        let elsewhere = Suite::new(&Isolde).anomaly(entry.id).unwrap().run();
        texts.push(explain::explain(entry, &elsewhere, style));
        texts.extend(report.row(entry).map(|cell| show::show(&report, cell, &elsewhere, style)));
    }
    texts
}

#[test]
fn every_line_fits_100_columns() {
    for text in texts(Glyphs::Unicode) {
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}\nin\n{text}", line.chars().count());
            assert_eq!(line, line.trim_end(), "trailing space");
        }
    }
}

#[test]
fn ascii_is_ascii() {
    for text in texts(Glyphs::Ascii) {
        assert!(text.is_ascii(), "{}", text.lines().find(|line| !line.is_ascii()).unwrap_or_default());
    }
}

#[test]
fn what_is_possible_is_explained_and_what_is_prevented_says_how() {
    let report = run();
    for cell in &report.cells {
        let text = show::show(&report, cell, &report, Style::default());
        let possible = cell.outcome() == Some(anomaly_suite::Outcome::Possible);
        let heading = if possible { "Why no order of the transactions explains this" } else { "How it was prevented" };
        assert!(text.contains(heading), "{text}");
    }
}

/// A text of `show` is a lesson: each has all of its parts, filled.
#[test]
fn show_tells_every_step_the_reason_a_case_and_what_stops_it() {
    let report = run();
    for cell in &report.cells {
        let text = show::show(&report, cell, &report, Style::default());
        let possible = cell.outcome() == Some(anomaly_suite::Outcome::Possible);
        let reason = if possible { "Why no order of the transactions explains this" } else { "How it was prevented" };
        for heading in ["Step by step", reason, "What stops it", "In real life", "The same schedule at every level"] {
            let (_, part) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{heading} in {text}"));
            let first = part.lines().next().unwrap();
            assert!(first.starts_with("  ") && first.len() > 8, "{heading} says nothing: {text}");
        }
        let (_, steps) = text.split_once("\nStep by step\n").unwrap();
        let trial = cell.trial.as_ref().unwrap();
        for txn in trial.replay.txns.iter().filter(|txn| txn.outcome == TxnOutcome::Committed) {
            assert!(steps.contains(&format!("{} ", txn.name)), "{} is not told of: {text}", txn.name);
        }
    }
}

/// A text of `explain` has all of its parts; where nothing shows the anomaly, its file says so.
#[test]
fn explain_shows_how_it_goes_wrong_and_why_that_is_no_serial_order() {
    for entry in catalogue::all() {
        let report = Suite::new(&Isolde).anomaly(entry.id).unwrap().run();
        let text = explain::explain(entry, &report, Style::default());
        let shown = entry.schedule.shown_without_control == ShownWithoutControl::Yes;
        let has = |words: &str| text.lines().any(|line| line.starts_with(words));
        assert_eq!(has("How it goes wrong: "), shown, "{text}");
        assert_eq!(
            has("Why no order of the transactions explains this"),
            shown || entry.id == "P4-increment",
            "{text}"
        );
        for heading in ["What happens", "In real life", "What stops it", "Which levels forbid it", "The schedule"] {
            assert!(has(heading), "{heading} in {text}");
        }
    }
}

/// Where an anomaly was shown, each serial order of two or three transactions is refuted by what it
/// would have read or left.
#[test]
fn every_serial_order_is_refuted_where_an_anomaly_is_shown() {
    let orders = |committed: usize| [0, 1, 2, 6][committed];
    for cell in run().cells.iter().filter(|cell| cell.outcome() == Some(anomaly_suite::Outcome::Possible)) {
        let trial = cell.trial.as_ref().unwrap();
        let committed = trial.replay.txns.iter().filter(|txn| txn.outcome == TxnOutcome::Committed).count();
        let story = Story::of(&cell.entry.schedule, trial);
        if committed <= 3 {
            assert_eq!(story.orders.len(), orders(committed), "{} at {:?}: {story:#?}", cell.entry.id, cell.setting);
        }
        assert!(story.why.is_some(), "{} at {:?}", cell.entry.id, cell.setting);
    }
}

#[test]
fn no_transaction_saw_an_impossible_state_at_snapshot_level() {
    for cell in run().cells {
        let snapshot = cell.setting.isolation == isolde_types::Isolation::Snapshot;
        assert!(!snapshot || cell.trial.unwrap().evidence.zombies.is_empty(), "{}", cell.entry.id);
    }
}

#[test]
fn the_matrix_of_the_readme_is_current() {
    let readme = include_str!("../../README.md");
    let current = markdown::markdown(&run());
    let regenerate = markdown::REGENERATE;
    assert_eq!(markdown::block(readme), Some(current.trim()), "not current: run {regenerate}");
}

/// What a level and mode say of themselves holds in every cell.
#[test]
fn what_is_guaranteed_is_never_shown() {
    for cell in &run().cells {
        let forbidden = cell.setting.isolation.guarantees(cell.setting.mode).forbidden;
        for shown in &cell.trial.as_ref().unwrap().evidence.shown {
            assert!(!forbidden.contains(&shown.anomaly), "{} at {:?}: {}", cell.entry.id, cell.setting, shown.words);
        }
    }
}

/// The calls that the catalogue names as a remedy are one, at every level and in both modes.
#[test]
fn what_is_said_to_stop_an_anomaly_stops_it() {
    let for_update = |text: &str| text.replace(": get ", ": get-for-update ");
    let lock_first = |span: &str| {
        let (scan, lock) = (format!("scan {span}\n"), format!("lock {span}\n"));
        move |text: &str| {
            let lines = text.split_inclusive('\n').map(|line| line.to_owned());
            let with = |line: String| line.strip_suffix(&scan).map_or(line.clone(), |txn| format!("{txn}{lock}{line}"));
            lines.map(with).collect::<String>()
        }
    };
    let only_y = |text: &str| text.replace("T1: get y", "T1: get-for-update y");
    type Remedy<'r> = &'r dyn Fn(&str) -> String;
    let (phantom, booking) = (lock_first("x.."), lock_first("room/*"));
    let reads = "G1a G1b G1c OTV P1 P2 G-single long-fork P4 P4-seq P4-blind G2-item G2-item-seq G2-item-absent";
    let remedies = reads.split(' ').map(|id| (id, &for_update as Remedy<'_>));
    let others: [(&str, Remedy<'_>); 3] = [("P3", &phantom), ("G2", &booking), ("read-only", &only_y)];
    for (id, remedy) in remedies.chain(others) {
        let text = catalogue::find(id).unwrap().text;
        assert_ne!(text, remedy(text), "{id}");
        let schedule = Schedule::parse(&remedy(text)).unwrap();
        for setting in Setting::all() {
            let trial = anomaly_suite::trial(&Isolde, &schedule, setting)
                .unwrap_or_else(|e| panic!("{id} at {setting:?}: {e}"));
            assert_ne!(trial.outcome, Some(anomaly_suite::Outcome::Possible), "{id} at {setting:?}");
        }
    }
}
