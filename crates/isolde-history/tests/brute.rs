//! The checker against brute force: given the version order, a history is serializable in that order
//! exactly when some serial order of its transactions gives every read its version and every key its
//! versions in that order. The checker says the same by the absence of cycles.

use bytes::Bytes;
use isolde_history::{Event, History, ReadKind, TxnKey, Version, check};
use isolde_types::{Anomaly, Isolation, Key, Mode, Ts};

/// An operation on a key: a read, or a write.
#[derive(Clone, Copy, Debug)]
enum Op {
    Read(usize),
    Write(usize),
}

/// A history of committed transactions: their operations, the version that each read saw (the writer,
/// or the initial state), and the order of versions (a permutation of the transactions).
struct Sample {
    programs: Vec<Vec<Op>>,
    /// For each transaction and operation: whose version a read saw.
    seen: Vec<Vec<Option<usize>>>,
    order: Vec<usize>,
}

fn key(number: usize) -> Key {
    Bytes::from(format!("k{number}"))
}

impl Sample {
    fn ts(&self, txn: usize) -> Ts {
        Ts(self.order.iter().position(|t| *t == txn).unwrap() as u64 + 1)
    }

    /// Everything overlaps in real time, so that only versions order transactions.
    fn history(&self, keys: usize) -> History {
        let mut events: Vec<Event> = (0..self.programs.len())
            .map(|txn| Event::Begin {
                txn: TxnKey(txn as u64),
                name: format!("T{txn}"),
                isolation: Isolation::Serializable,
                mode: Mode::Optimistic,
                read_only: false,
            })
            .collect();
        for (txn, program) in self.programs.iter().enumerate() {
            let mut seq = 0;
            let mut own = [None; 4];
            for (at, op) in program.iter().enumerate() {
                let id = TxnKey(txn as u64);
                match *op {
                    Op::Write(k) => {
                        seq += 1;
                        own[k] = Some(seq);
                        let value = Some(value_of(Some(txn), k));
                        events.push(Event::Write { txn: id, key: key(k), seq, value, blind: false });
                    }
                    Op::Read(k) => {
                        let (version, from) = match (own[k], self.seen[txn][at]) {
                            (Some(seq), _) => (Version::Own(seq), Some(txn)),
                            (None, Some(writer)) => (Version::Committed(self.ts(writer)), Some(writer)),
                            (None, None) => (Version::Committed(Ts(0)), None),
                        };
                        let value = Some(value_of(from, k));
                        let (kind, as_of) = (ReadKind::Tracked, None);
                        events.push(Event::Read { txn: id, key: key(k), version, value, kind, as_of });
                    }
                }
            }
        }
        for txn in 0..self.programs.len() {
            let ts = Some(self.ts(txn));
            events.push(Event::Commit { txn: TxnKey(txn as u64), ts, resolved: Vec::new() });
        }
        let initial = (0..keys).map(|k| (key(k), value_of(None, k))).collect();
        History { initial, events, ..History::default() }
    }

    /// Whether some serial order explains reads and version order.
    fn is_serializable(&self) -> bool {
        permutations(self.programs.len()).iter().any(|serial| self.explains(serial))
    }

    fn explains(&self, serial: &[usize]) -> bool {
        let mut newest: [Option<usize>; 4] = [None; 4];
        for &txn in serial {
            let mut own = [false; 4];
            for (at, op) in self.programs[txn].iter().enumerate() {
                match *op {
                    Op::Write(k) => own[k] = true,
                    Op::Read(k) if own[k] => {}
                    Op::Read(k) if newest[k] != self.seen[txn][at] => return false,
                    Op::Read(_) => {}
                }
            }
            for k in (0..4).filter(|k| own[*k]) {
                // The version order must be that of the serial run.
                if newest[k].is_some_and(|before| self.ts(before) > self.ts(txn)) {
                    return false;
                }
                newest[k] = Some(txn);
            }
        }
        true
    }
}

fn value_of(writer: Option<usize>, key: usize) -> Bytes {
    Bytes::from(writer.map_or(format!("init{key}"), |writer| format!("{writer}.{key}")))
}

fn permutations(size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(size - 1);
    shorter
        .iter()
        .flat_map(|order| {
            (0..size).map(move |at| {
                let mut order = order.clone();
                order.insert(at, size - 1);
                order
            })
        })
        .collect()
}

fn agree(sample: &Sample, keys: usize) {
    let report = check(&sample.history(keys));
    assert_eq!(report.complaints, Vec::<String>::new());
    assert!(!report.anomalies().contains(&Anomaly::Realtime));
    let clean = report.findings.is_empty();
    assert_eq!(
        clean,
        sample.is_serializable(),
        "{:?} seen {:?} order {:?}\n{report}",
        sample.programs,
        sample.seen,
        sample.order
    );
}

/// Every choice of `count` values below `bound`, in turn.
fn choices(count: usize, bound: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..bound.pow(u32::try_from(count).unwrap())).map(move |mut number| {
        (0..count)
            .map(|_| {
                let digit = number % bound;
                number /= bound;
                digit
            })
            .collect()
    })
}

fn op(number: usize, keys: usize) -> Op {
    if number < keys { Op::Read(number) } else { Op::Write(number - keys) }
}

/// Which versions a read of a key by a transaction may have seen.
fn sources(programs: &[Vec<Op>], txn: usize, op: Op) -> Vec<Option<usize>> {
    let Op::Read(k) = op else { return vec![None] };
    let others = (0..programs.len()).filter(|other| *other != txn);
    let writers = others.filter(|other| programs[*other].iter().any(|op| matches!(op, Op::Write(w) if *w == k)));
    std::iter::once(None).chain(writers.map(Some)).collect()
}

#[test]
fn the_checker_agrees_with_brute_force_on_every_small_history() {
    let (txns, keys, ops) = (2, 2, 2);
    let mut count = 0_u64;
    for code in choices(txns * ops, 2 * keys) {
        let programs: Vec<Vec<Op>> =
            code.chunks(ops).map(|chunk| chunk.iter().map(|n| op(*n, keys)).collect()).collect();
        let reads: Vec<Vec<Option<usize>>> =
            (0..txns * ops).map(|at| sources(&programs, at / ops, programs[at / ops][at % ops])).collect();
        let mut combinations = vec![Vec::new()];
        for options in &reads {
            combinations = combinations
                .into_iter()
                .flat_map(|chosen: Vec<Option<usize>>| {
                    options.iter().map(move |option| [chosen.clone(), vec![*option]].concat())
                })
                .collect();
        }
        for seen in combinations {
            for order in permutations(txns) {
                let seen = seen.chunks(ops).map(<[_]>::to_vec).collect();
                agree(&Sample { programs: programs.clone(), seen, order }, keys);
                count += 1;
            }
        }
    }
    println!("{count} histories of 2 transactions x 2 keys x 2 operations, 0 disagreements");
    assert!(count > 1_000);
}

#[test]
fn the_checker_agrees_with_brute_force_on_samples() {
    let seed = std::env::var("ISOLDE_SEED").map_or(11, |text| text.parse().unwrap());
    let mut rng = fastrand::Rng::with_seed(seed);
    let (txns, keys, ops, samples) = (3, 2, 3, 200_000);
    let mut serializable = 0;
    for _ in 0..samples {
        let programs: Vec<Vec<Op>> =
            (0..txns).map(|_| (0..ops).map(|_| op(rng.usize(..2 * keys), keys)).collect()).collect();
        let seen: Vec<Vec<Option<usize>>> = (0..txns)
            .map(|txn| {
                programs[txn]
                    .iter()
                    .map(|op| {
                        let sources = sources(&programs, txn, *op);
                        sources[rng.usize(..sources.len())]
                    })
                    .collect()
            })
            .collect();
        let mut order: Vec<usize> = (0..txns).collect();
        rng.shuffle(&mut order);
        let sample = Sample { programs, seen, order };
        serializable += u32::from(sample.is_serializable());
        agree(&sample, keys);
    }
    println!("{samples} samples of 3 x 2 x 3 (ISOLDE_SEED={seed}), {serializable} serializable, 0 disagreements");
    assert!(serializable > 1_000 && serializable < samples - 1_000, "the samples are one-sided");
}
