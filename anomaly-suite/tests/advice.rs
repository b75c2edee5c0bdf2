//! What the catalogue advises is tried: the calls that a file names under "What stops it" do stop its
//! anomaly, at the levels it says and in both modes, where the plain schedule shows it.

use anomaly_suite::{Isolde, Outcome, catalogue, trial};
use isolde_history::schedule::{Schedule, Setting};
use isolde_types::{Isolation, Mode};

use Isolation::{ReadCommitted, ReadUncommitted, Snapshot};

fn outcome(text: &str, isolation: Isolation, mode: Mode) -> Outcome {
    let schedule = Schedule::parse(text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
    trial(&Isolde, &schedule, Setting { isolation, mode }).unwrap().outcome.unwrap()
}

/// Replaces lines of a schedule of the catalogue and expects the anomaly to be gone.
fn stops(id: &str, levels: &[Isolation], lines: &[(&str, &str)]) {
    let mut text = catalogue::find(id).unwrap().schedule.to_string();
    for (plain, advised) in lines {
        assert!(text.contains(&format!("{plain}\n")), "{id} has no line `{plain}`");
        text = text.replace(&format!("{plain}\n"), &format!("{advised}\n"));
    }
    for isolation in levels {
        for mode in Mode::ALL {
            let found = outcome(&text, *isolation, mode);
            assert_ne!(found, Outcome::Possible, "{id} at {isolation} {mode}, advised:\n{text}");
        }
    }
}

#[test]
fn get_for_update_reads_committed_data_even_at_read_uncommitted() {
    let at = [ReadUncommitted];
    stops("G1a", &at, &[("T2: get x", "T2: get-for-update x")]);
    stops("G1b", &at, &[("T2: get x", "T2: get-for-update x")]);
    stops("G1c", &at, &[("T1: get y", "T1: get-for-update y"), ("T2: get x", "T2: get-for-update x")]);
    stops("P1", &at, &[("T2: get x", "T2: get-for-update x"), ("T2: get y", "T2: get-for-update y")]);
}

#[test]
fn a_value_read_for_update_stays_as_it_was_read() {
    let at = [ReadUncommitted, ReadCommitted];
    stops("P2", &at, &[("T1: get x", "T1: get-for-update x")]);
    stops("G-single", &at, &[("T1: get x", "T1: get-for-update x"), ("T1: get y", "T1: get-for-update y")]);
    stops("P4-blind", &at, &[("T1: get x", "T1: get-for-update x")]);
    stops("P4-seq", &at, &[("T1: get x", "T1: get-for-update x"), ("T2: get x", "T2: get-for-update x")]);
}

#[test]
fn one_call_sees_one_state_from_read_committed_up() {
    stops("G-single", &[ReadCommitted], &[("T1: get x", ""), ("T1: get y", "T1: scan x..z")]);
    stops("long-fork", &[ReadCommitted], &[("T4: get x", ""), ("T4: get y", "T4: scan x..z")]);
}

#[test]
fn a_locked_span_has_no_phantoms_at_any_level() {
    let at = [ReadUncommitted, ReadCommitted, Isolation::RepeatableRead];
    stops("P3", &at, &[("T2: begin", "T2: begin\nT1: lock x..")]);
    let both = ("T2: begin", "T2: begin\nT1: lock room/*\nT2: lock room/*");
    stops("G2", &[ReadUncommitted, ReadCommitted, Isolation::RepeatableRead, Snapshot], &[both]);
}

#[test]
fn a_key_that_both_write_stops_write_skew_at_snapshot() {
    let guard = |t: &str| format!("{t}: put guard {t}\n{t}: commit");
    for id in ["G2", "G2-item", "G2-item-seq", "G2-item-absent"] {
        stops(id, &[Snapshot], &[("T1: commit", &guard("T1")), ("T2: commit", &guard("T2"))]);
    }
}

#[test]
fn reading_for_update_stops_write_skew_at_snapshot_and_below() {
    let at = [ReadUncommitted, ReadCommitted, Snapshot];
    let keys = |txns: &[&str], keys: &[&str]| -> Vec<(String, String)> {
        let line = |t: &&str, k: &&str| (format!("{t}: get {k}"), format!("{t}: get-for-update {k}"));
        txns.iter().flat_map(|t| keys.iter().map(move |k| line(t, k))).collect()
    };
    for id in ["G2-item", "G2-item-seq"] {
        let lines = keys(&["T1", "T2"], &["x", "y"]);
        stops(id, &at, &lines.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>());
    }
    stops("G2-item-absent", &at, &[("T1: get x", "T1: get-for-update x"), ("T2: get y", "T2: get-for-update y")]);
    stops("read-only", &[Snapshot], &[("T1: get y", "T1: get-for-update y")]);
}
