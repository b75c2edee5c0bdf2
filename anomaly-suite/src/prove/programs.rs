//! The small programs: pairs of all, and a sample of triples.

use bytes::Bytes;
use fastrand::Rng;
use isolde_history::explore::{Program, Programs};
use isolde_history::schedule::{BeginWords, Operation, Place, Value};
use isolde_types::Key;

/// An operation of a small program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Op {
    Get(u8),
    Put(u8),
    Scan,
}

/// x and y are there; z is not.
const KEYS: [&str; 3] = ["x", "y", "z"];
const MAX_OPERATIONS: usize = 3;

fn alphabet() -> Vec<Op> {
    (0..3).map(Op::Get).chain((0..3).map(Op::Put)).chain([Op::Scan]).collect()
}

/// Every program of one to three operations with at most one scan, in order.
fn small_programs() -> Vec<Vec<Op>> {
    let mut all: Vec<Vec<Op>> = Vec::new();
    let mut longest: Vec<Vec<Op>> = vec![Vec::new()];
    for _ in 0..MAX_OPERATIONS {
        let longer = |program: &Vec<Op>| {
            let program = program.clone();
            alphabet().into_iter().map(move |op| [program.as_slice(), &[op]].concat())
        };
        longest = longest.iter().flat_map(longer).filter(|program| scans(program) <= 1).collect();
        all.extend(longest.iter().cloned());
    }
    all
}

fn scans(program: &[Op]) -> usize {
    program.iter().filter(|op| **op == Op::Scan).count()
}

/// The same program with x and y exchanged.
fn renamed(program: &[Op]) -> Vec<Op> {
    let other = |key: u8| if key < 2 { 1 - key } else { key };
    let op = |op: &Op| match op {
        Op::Get(key) => Op::Get(other(*key)),
        Op::Put(key) => Op::Put(other(*key)),
        Op::Scan => Op::Scan,
    };
    program.iter().map(op).collect()
}

/// Every pair of programs, up to the names of x and y and the order of the two.
pub(crate) fn small_pairs() -> impl Iterator<Item = Programs> {
    let all = small_programs();
    let pairs: Vec<(usize, usize)> = (0..all.len()).flat_map(|a| (a..all.len()).map(move |b| (a, b))).collect();
    pairs.into_iter().filter_map(move |(a, b)| {
        let (a, b) = (&all[a], &all[b]);
        let (other_a, other_b) = (renamed(a), renamed(b));
        let other = if other_a <= other_b { (other_a, other_b) } else { (other_b, other_a) };
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let is_first = (low, high) <= (&other.0, &other.1);
        (is_first && scans(a) + scans(b) <= 1).then(|| programs(&[low.clone(), high.clone()]))
    })
}

/// Three transactions of three operations each, from a seed.
pub(super) fn triples(seed: u64) -> impl Iterator<Item = Programs> {
    let mut rng = Rng::with_seed(seed);
    let alphabet = alphabet();
    std::iter::repeat_with(move || {
        let mut program = || (0..MAX_OPERATIONS).map(|_| alphabet[rng.usize(..alphabet.len())]).collect();
        programs(&[program(), program(), program()])
    })
}

fn programs(programs: &[Vec<Op>]) -> Programs {
    let key = |key: u8| Key::from_static(KEYS[usize::from(key)].as_bytes());
    let program = |(number, ops): (usize, &Vec<Op>)| {
        let operation = |(place, op): (usize, &Op)| match op {
            Op::Get(at) => Operation::Get(key(*at)),
            Op::Put(at) => Operation::Put(key(*at), Value::Word(Bytes::from(format!("w{}.{place}", number + 1)))),
            Op::Scan => Operation::Scan(Place::Between { start: Key::new(), end: None }),
        };
        let operations = ops.iter().enumerate().map(operation).chain([Operation::Commit]).collect();
        Program { name: format!("T{}", number + 1), begin: BeginWords::default(), operations }
    };
    let initial = KEYS[..2].iter().map(|key| (Key::from_static(key.as_bytes()), Bytes::from(format!("i{key}"))));
    Programs { initial: initial.collect(), programs: programs.iter().enumerate().map(program).collect() }
}

/// About how many schedules an exploration of these programs runs, compared with other programs: their
/// interleavings. Of those of three transactions a larger share comes to the same.
pub(super) fn weight(programs: &Programs) -> f64 {
    let (mut steps, mut interleavings) = (0, 1.0);
    for program in &programs.programs {
        for place in 1..=program.operations.len() {
            steps += 1;
            interleavings *= f64::from(steps) / place as f64;
        }
    }
    if programs.programs.len() > 2 { interleavings * 0.4 } else { interleavings }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_programs_are_all_and_each_once() {
        // Without a scan 6 + 36 + 216, with one 1 + 12 + 108.
        assert_eq!(small_programs().len(), 258 + 121);
        let all: Vec<String> = small_pairs().map(|pair| format!("{:?}", pair.programs)).collect();
        let distinct: BTreeSet<&String> = all.iter().collect();
        assert_eq!(all.len(), distinct.len());
        // Pairs without order: 258 * 259 / 2 + 258 * 121; those that renaming leaves alone count once.
        let without_order = 258 * 259 / 2 + 258 * 121;
        assert!((without_order / 2..without_order / 2 + 500).contains(&all.len()), "{}", all.len());
    }

    #[test]
    fn a_weight_counts_interleavings() {
        let [get, scan] = [Op::Get(0), Op::Scan];
        // Two steps each, the commits included: 4 over 2.
        assert_eq!(weight(&programs(&[vec![get], vec![scan]])), 6.0);
        assert_eq!(weight(&programs(&[vec![get; 3], vec![get; 3]])), 70.0);
    }
}
