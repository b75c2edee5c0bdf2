//! The checker at scale: how long a history takes, and how much memory.

use std::time::Instant;

use bytes::Bytes;
use isolde::{Isolation, Mode};
use isolde_history::check;
use isolde_history::model::{Event, History, ReadKind, TxnKey, Version};
use isolde_types::{Key, Ts};

/// How many operations a transaction has.
const OPERATIONS: usize = 10;

/// How many transactions run at once.
const AT_ONCE: usize = 8;

/// A history of about `operations` reads and writes of 8 transactions at a time, each of which reads the
/// newest committed version as of its begin: a history of snapshots, with what they let through.
#[must_use]
pub fn history(operations: usize, seed: u64) -> History {
    let mut rng = fastrand::Rng::with_seed(seed);
    let keys = (operations / 20).max(10);
    let names: Vec<Key> = (0..keys).map(|key| Key::from(format!("k{key}"))).collect();
    // For each key: when it was written last, and the value.
    let mut newest: Vec<(Ts, Option<Bytes>)> = vec![(Ts::ZERO, None); keys];
    let mut history = History::default();
    let mut now = Ts::ZERO;
    for batch in 0..operations / (OPERATIONS * AT_ONCE) {
        let txns = (0..AT_ONCE).map(|place| TxnKey((batch * AT_ONCE + place) as u64 + 1));
        for txn in txns.clone() {
            let name = format!("T{}", txn.0);
            let (isolation, mode) = (Isolation::Snapshot, Mode::Optimistic);
            history.events.push(Event::Begin { txn, name, isolation, mode, read_only: false });
        }
        let mut written: Vec<(usize, TxnKey)> = Vec::new();
        for txn in txns.clone() {
            operations_of(&mut rng, txn, &names, &newest, now, &mut written, &mut history.events);
        }
        for txn in txns {
            now = Ts(now.0 + 1);
            for (key, _) in written.iter().filter(|(_, writer)| *writer == txn) {
                newest[*key] = (now, Some(value(txn, *key)));
            }
            history.events.push(Event::Commit { txn, ts: Some(now), resolved: Vec::new() });
        }
    }
    history
}

fn operations_of(
    rng: &mut fastrand::Rng,
    txn: TxnKey,
    names: &[Key],
    newest: &[(Ts, Option<Bytes>)],
    now: Ts,
    written: &mut Vec<(usize, TxnKey)>,
    events: &mut Vec<Event>,
) {
    let mut seq = 0;
    for _ in 0..OPERATIONS {
        let key = rng.usize(..names.len());
        let own = written.iter().any(|(other, writer)| *other == key && *writer == txn);
        let taken = written.iter().any(|(other, _)| *other == key);
        if rng.u8(..10) < 3 && !taken {
            seq += 1;
            written.push((key, txn));
            let value = Some(value(txn, key));
            events.push(Event::Write { txn, key: names[key].clone(), seq, value, blind: false });
        } else if !own {
            let (ts, value) = &newest[key];
            let version = if *ts == Ts::ZERO { Version::None } else { Version::Committed(*ts) };
            let (key, value) = (names[key].clone(), value.clone());
            events.push(Event::Read { txn, key, version, value, kind: ReadKind::Tracked, as_of: Some(now) });
        }
    }
}

fn value(txn: TxnKey, key: usize) -> Bytes {
    Bytes::from(format!("{}.{key}", txn.0))
}

/// The most memory that this process has had, in MiB; `None` where the system does not say.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Prints the curve; says whether a million operations took at most 5 seconds and 1 GiB.
#[must_use]
pub fn run() -> bool {
    println!("{:>10} {:>10} {:>10} {:>12} {:>10}", "operations", "committed", "seconds", "ns each", "peak MiB");
    let mut holds = true;
    for operations in [10_000, 100_000, 1_000_000] {
        let history = history(operations, 1);
        let start = Instant::now();
        let report = check(&history);
        let seconds = start.elapsed().as_secs_f64();
        assert!(report.complaints.is_empty() && report.keeps_its_levels(), "the history is one of snapshots");
        let peak = peak_mib();
        let each = seconds * 1e9 / operations as f64;
        let shown = peak.map_or("-".to_owned(), |peak| peak.to_string());
        println!("{operations:>10} {:>10} {seconds:>10.3} {each:>12.0} {shown:>10}", report.committed);
        holds &= seconds <= 5.0 && peak.is_none_or(|peak| peak <= 1024);
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_one_of_snapshots_and_shows_write_skew() {
        let report = check(&history(20_000, 3));
        assert!(report.complaints.is_empty() && report.keeps_its_levels(), "{report}");
        assert!(report.committed > 1_900);
    }
}
