//! A random case: a schedule that is a function of its seed.

use bytes::Bytes;
use fastrand::Rng;
use isolde_history::schedule::{Action, BeginWords, Operation, Place, Schedule, Step, Value};
use isolde_types::{Isolation, Key, Mode};

/// How large cases are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// At most this many transactions, at least two.
    pub txns: usize,
    /// This many keys, half of them present at first.
    pub keys: usize,
    /// At most this many operations in a transaction, begin and end apart.
    pub operations: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { txns: 4, keys: 3, operations: 4 }
    }
}

/// A key that holds a number, for increments.
const COUNTER: &[u8] = b"n";

/// The case of a seed.
pub(super) fn random(shape: Shape, seed: u64) -> Schedule {
    let mut rng = Rng::with_seed(seed);
    let txns = rng.usize(2..=shape.txns.max(2));
    let one = setting(&mut rng);
    let mixed = rng.bool();
    let mut programs: Vec<Vec<Action>> = (0..txns)
        .map(|txn| {
            let (isolation, mode) = if mixed { setting(&mut rng) } else { one };
            let (begin, operations) = program(&mut rng, shape, txn, isolation, mode);
            std::iter::once(Action::Begin(begin)).chain(operations.into_iter().map(Action::Do)).collect()
        })
        .collect();
    programs.iter_mut().for_each(|program| program.reverse());
    let (mut steps, mut begun) = (Vec::new(), 0);
    while programs.iter().any(|program| !program.is_empty()) {
        // Whoever begins next has the next number: names are in the order of first steps.
        let txn = rng.usize(..txns).min(begun);
        begun = begun.max(txn + 1).min(txns - 1);
        steps.extend(programs[txn].pop().map(|action| Step { txn, action }));
    }
    Schedule {
        title: format!("seed {seed}"),
        initial: initial(shape).collect(),
        txns: (1..=txns).map(|txn| format!("T{txn}")).collect(),
        steps,
        ..Schedule::default()
    }
}

/// What is there before the first step.
pub(super) fn initial(shape: Shape) -> impl Iterator<Item = (Key, Bytes)> {
    let present = (0..shape.keys).filter(|key| key % 2 == 0).map(|key| (name(key), Bytes::from(format!("i{key}"))));
    present.chain([(Key::from_static(COUNTER), Bytes::from_static(b"0"))])
}

/// A level and a mode.
pub(super) fn setting(rng: &mut Rng) -> (Isolation, Mode) {
    (Isolation::ALL[rng.usize(..Isolation::ALL.len())], Mode::ALL[rng.usize(..Mode::ALL.len())])
}

fn name(key: usize) -> Key {
    Key::from(format!("k{key}"))
}

/// One transaction: it begins, does a few things, and ends.
pub(super) fn program(
    rng: &mut Rng,
    shape: Shape,
    txn: usize,
    isolation: Isolation,
    mode: Mode,
) -> (BeginWords, Vec<Operation>) {
    let read_only = rng.u8(..8) == 0;
    let begin = BeginWords { isolation: Some(isolation), mode: Some(mode), read_only };
    let mut operations = Vec::new();
    let mut savepoints = 0;
    for place in 0..rng.usize(1..=shape.operations.max(1)) {
        let value = Value::Word(Bytes::from(format!("w{}.{place}", txn + 1)));
        let operation = if read_only { read(rng, shape) } else { any(rng, shape, value, &mut savepoints) };
        // `$k` is what was read before.
        if let Operation::CompareAndSet { key, .. } = &operation {
            operations.push(Operation::Get(key.clone()));
        }
        operations.push(operation);
    }
    operations.push(if rng.u8(..10) == 0 { Operation::Rollback } else { Operation::Commit });
    (begin, operations)
}

fn read(rng: &mut Rng, shape: Shape) -> Operation {
    match rng.u8(..4) {
        0 => Operation::Scan(span(rng, shape)),
        1 => Operation::Get(Key::from_static(COUNTER)),
        _ => Operation::Get(name(rng.usize(..shape.keys))),
    }
}

fn any(rng: &mut Rng, shape: Shape, value: Value, savepoints: &mut usize) -> Operation {
    let key = name(rng.usize(..shape.keys));
    match rng.u8(..26) {
        0..=7 => read(rng, shape),
        8 | 9 => Operation::GetForUpdate(key),
        10..=15 => Operation::Put(key, value),
        16 => Operation::Insert(key, value),
        17 | 18 => Operation::Delete(key),
        19 | 20 => Operation::Increment(Key::from_static(COUNTER), rng.i64(1..5)),
        21 => {
            Operation::CompareAndSet { key: key.clone(), old: Some(Value::LastRead { key, plus: 0 }), new: Some(value) }
        }
        22 => Operation::Lock(span(rng, shape)),
        23 | 24 => {
            *savepoints += 1;
            Operation::Savepoint(format!("s{savepoints}"))
        }
        _ => match *savepoints {
            0 => Operation::Put(key, value),
            some => Operation::RollbackTo(format!("s{}", rng.usize(1..=some))),
        },
    }
}

fn span(rng: &mut Rng, shape: Shape) -> Place {
    match rng.u8(..3) {
        0 => Place::Prefix(Key::from_static(b"k")),
        _ => {
            let start = rng.usize(..shape.keys);
            Place::Between { start: name(start), end: Some(name(rng.usize(start..=shape.keys))) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_a_function_of_its_seed_and_survives_printing() {
        for seed in 0..500 {
            let case = random(Shape::default(), seed);
            assert_eq!(case, random(Shape::default(), seed));
            assert_eq!(Schedule::parse(&case.to_string()).unwrap(), case);
        }
    }
}
