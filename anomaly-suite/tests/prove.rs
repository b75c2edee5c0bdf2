//! The proof on small programs: the same in any number of threads, and honest when it is ended early.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anomaly_suite::prove::{Effort, Extent, News, Proof, Share, Stage, prove};
use anomaly_suite::{Control, Engine, Isolde};

const BINARY: &str = env!("CARGO_BIN_EXE_anomaly-suite");

/// A few pairs, short and long ones.
const FEW: Extent = Extent { every: 4_000, triples: 0, seed: 1 };

fn proof(engine: &dyn Engine, threads: usize) -> Proof {
    let effort = Effort { threads, time_limit: None, interrupted: &AtomicBool::new(false) };
    prove(engine, FEW, effort, &mut |_| ()).unwrap()
}

#[test]
fn what_comes_out_does_not_depend_on_the_number_of_threads() {
    for engine in [&Isolde as &dyn Engine, &Control] {
        let [one, three] = [1, 3].map(|threads| proof(engine, threads));
        assert_eq!((one.pairs, one.schedules), (three.pairs, three.schedules));
        assert_eq!(one.levels, three.levels, "{}", engine.name());
        assert!(one.is_whole() && one.pairs == Share { done: 9, all: 9 }, "{:?}", one.pairs);
    }
}

#[test]
fn an_engine_without_control_is_not_sound_and_isolde_is() {
    assert!(proof(&Isolde, 2).is_sound());
    let control = proof(&Control, 2);
    let unsound: Vec<bool> = control.levels.iter().map(|level| level.is_sound()).collect();
    assert_eq!(unsound, vec![false; 10]);
}

#[test]
fn faults_are_told_once_for_each_level_when_they_are_found() {
    let interrupted = AtomicBool::new(false);
    let effort = Effort { threads: 2, time_limit: None, interrupted: &interrupted };
    let mut told = Vec::new();
    let found = prove(&Control, FEW, effort, &mut |news| {
        if let News::Fault(setting, what) = news {
            told.push((setting, what.to_owned()));
        }
    });
    let found = found.unwrap();
    let faults = found.levels.iter().flat_map(|level| level.faults.keys().map(|what| (level.setting, what.clone())));
    let mut faults: Vec<_> = faults.collect();
    let by_words = |(setting, what): &(_, String)| (format!("{setting:?}"), what.clone());
    told.sort_by_key(by_words);
    faults.sort_by_key(by_words);
    assert_eq!(told, faults);
}

#[test]
fn a_proof_that_is_interrupted_says_how_much_was_done() {
    let interrupted = AtomicBool::new(false);
    let effort = Effort { threads: 1, time_limit: None, interrupted: &interrupted };
    let found = prove(&Isolde, Extent::FULL, effort, &mut |news| {
        if matches!(news, News::Goes(Stage::Pairs, progress) if progress.programs.done == 3) {
            interrupted.store(true, Ordering::Relaxed);
        }
    });
    let found = found.unwrap();
    // The thread may have begun another pair, and more, before it was told.
    assert!(!found.is_whole() && found.pairs.done >= 3 && found.is_sound(), "{:?}", found.pairs);
}

#[test]
fn a_time_limit_ends_the_proof_with_a_partial_report() {
    let effort = Effort { threads: 1, time_limit: Some(Duration::ZERO), interrupted: &AtomicBool::new(false) };
    let found = prove(&Isolde, FEW, effort, &mut |_| ()).unwrap();
    assert!(!found.is_whole() && found.pairs == Share { done: 0, all: 9 } && found.schedules == 0);
    let ran = Command::new(BINARY).args(["prove", "--limit", "0", "--threads", "2"]).output().unwrap();
    let out = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(4), "{out}");
    assert!(out.starts_with("PARTIAL: "), "{out}");
    assert!(out.contains("\n0 of 32547 pairs and 0 of 100 triples"), "{out}");
}

#[test]
fn a_violation_stands_however_early_the_proof_ends() {
    let interrupted = AtomicBool::new(false);
    let effort = Effort { threads: 2, time_limit: None, interrupted: &interrupted };
    let found = prove(&Control, Extent::FULL, effort, &mut |news| {
        if matches!(news, News::Fault(..)) {
            interrupted.store(true, Ordering::Relaxed);
        }
    });
    let found = found.unwrap();
    assert!(!found.is_sound() && !found.is_whole(), "{:?}", found.pairs);
}

/// Waits for the first line of a run of everything, and then sends a signal, as Ctrl-C does.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_proof_with_a_partial_report() {
    let mut command = Command::new(BINARY);
    let command = command.arg("prove").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.starts_with("pairs: 32547 to explore"), "{line}");
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let (mut rest, mut out) = (String::new(), String::new());
    lines.read_to_string(&mut rest).unwrap();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4), "{line}{rest}");
    assert!(out.starts_with("PARTIAL: "), "{out}");
    assert!(rest.contains("of 32547 done, "), "{rest}");
}
