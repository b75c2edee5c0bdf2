//! Judgements of histories without versions, against brute force: for small random histories of lists
//! and registers every order of the transactions is tried, from values alone. Serializable must hold
//! exactly when some order explains every value, strictly so when one does that agrees with real time;
//! snapshot exactly when some commit order and some choice of snapshots does; read committed exactly when in
//! some commit order each read by itself saw the state after some earlier commit. An unknown outcome may be
//! either. Repeatable read is serializable without real time here, where nothing scans; read uncommitted is kept
//! by registers when each transaction sees its own writes. Nothing may stay unknown in histories this small,
//! unless a value was read that several wrote, or nobody: then the verdict may be unknown, and must not be wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use isolde_history::foreign::{self, Format, Model, Verdict};
use isolde_types::Isolation;

const KEYS: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Lists,
    Registers,
}

/// An operation: a read with what it read, or a write; a register is a list of at most one value.
#[derive(Clone, Debug)]
enum Op {
    Read(u8, Vec<u32>),
    Write(u8, u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Ok,
    Fail,
    Info,
}

#[derive(Clone, Debug)]
struct Txn {
    ops: Vec<Op>,
    end: End,
    from: usize,
    to: usize,
}

type State = BTreeMap<u8, Vec<u32>>;

struct Sample {
    kind: Kind,
    txns: Vec<Txn>,
    initial: State,
}

impl Sample {
    fn random(kind: Kind, rng: &mut fastrand::Rng) -> Sample {
        let count = rng.usize(2..5);
        let mut next = 0;
        let mut written: Vec<(u8, u32)> = Vec::new();
        let mut txns: Vec<Txn> = (0..count)
            .map(|_| {
                let ops = (0..rng.usize(1..4)).map(|_| {
                    let key = rng.u8(0..KEYS);
                    if rng.bool() {
                        return Op::Read(key, Vec::new());
                    }
                    next += 1;
                    written.push((key, next));
                    Op::Write(key, next)
                });
                let ops = ops.collect();
                let end = [End::Ok, End::Ok, End::Ok, End::Ok, End::Ok, End::Ok, End::Fail, End::Info][rng.usize(0..8)];
                let from = rng.usize(0..12);
                Txn { ops, end, from, to: from + rng.usize(0..12) }
            })
            .collect();
        rng.shuffle(&mut written);
        for txn in &mut txns {
            fill_reads(kind, txn, &written, rng);
        }
        Sample { kind, txns, initial: State::new() }
    }

    /// Registers whose values may have been written twice, or by nobody, and whose reads may make no sense.
    fn odd(rng: &mut fastrand::Rng) -> Sample {
        let mut sample = Sample::random(Kind::Registers, rng);
        if rng.bool() {
            let writes = sample.writes();
            let value = rng.choice(&writes).map_or(1, |(_, value)| *value);
            sample.change_some(rng, |op| matches!(op, Op::Write(..)).then(|| vec![value]));
        }
        for _ in 0..rng.usize(0..3) {
            sample.change_some(rng, |op| match op {
                Op::Read(key, _) => Some(vec![unwritten(*key)]),
                Op::Write(..) => None,
            });
        }
        if rng.u8(0..8) == 0 {
            let value = rng.u32(1..6);
            sample.change_some(rng, |op| matches!(op, Op::Read(..)).then(|| vec![value]));
        }
        sample
    }

    /// Gives one operation, if the one that chance picks is of the right kind, another value.
    fn change_some(&mut self, rng: &mut fastrand::Rng, change: impl Fn(&Op) -> Option<Vec<u32>>) {
        let txn = rng.usize(0..self.txns.len());
        let ops = &mut self.txns[txn].ops;
        let op = rng.usize(0..ops.len());
        let changed = change(&ops[op]);
        match (&mut ops[op], changed) {
            (Op::Read(_, values), Some(new)) => *values = new,
            (Op::Write(_, value), Some(new)) => *value = new[0],
            (_, None) => {}
        }
    }

    /// All writes, those of failed transactions too.
    fn writes(&self) -> Vec<(u8, u32)> {
        let ops = self.txns.iter().flat_map(|txn| &txn.ops);
        ops.filter_map(|op| if let Op::Write(key, value) = op { Some((*key, *value)) } else { None }).collect()
    }

    /// The values that were read and that not exactly one transaction wrote.
    fn untraceable(&self) -> Vec<(u8, u32)> {
        let writers = |key: u8, value: u32| {
            let wrote = |txn: &&Txn| txn.ops.iter().any(|op| matches!(op, Op::Write(k, v) if (*k, *v) == (key, value)));
            self.txns.iter().filter(wrote).count()
        };
        let read =
            self.txns.iter().filter(|txn| txn.end == End::Ok).flat_map(|txn| &txn.ops).filter_map(|op| match op {
                Op::Read(key, values) => values.first().map(|value| (*key, *value)),
                Op::Write(..) => None,
            });
        read.filter(|(key, value)| writers(*key, *value) != 1).collect()
    }

    /// Every state that may have been there at first: each key absent, or at a value that nobody wrote.
    fn beginnings(&self) -> Vec<State> {
        let written = self.writes();
        let mut states = vec![State::new()];
        let mut unwritten = self.untraceable();
        unwritten.sort_unstable();
        unwritten.dedup();
        for (key, value) in unwritten.into_iter().filter(|read| !written.contains(read)) {
            let absent = states.iter().filter(|state| !state.contains_key(&key)).cloned();
            let with: Vec<State> =
                absent.map(|state| state.into_iter().chain([(key, vec![value])]).collect()).collect();
            states.extend(with);
        }
        states
    }

    /// Register text: each transaction is a session, nobody's outcome is unknown, and no key is absent.
    fn register_text(&self) -> String {
        let mut text = String::new();
        for (number, txn) in self.txns.iter().enumerate() {
            let id = if txn.end == End::Fail { -1 } else { number as i64 };
            for op in &txn.ops {
                let _ = match op {
                    Op::Read(key, values) => writeln!(text, "r({key},{},{number},{id})", values[0]),
                    Op::Write(key, value) => writeln!(text, "w({key},{value},{number},{id})"),
                };
            }
        }
        text
    }

    /// Whether each transaction saw its own writes, and none before it had written it.
    fn sees_own_writes(&self) -> bool {
        self.txns.iter().filter(|txn| txn.end == End::Ok).all(|txn| {
            txn.ops.iter().enumerate().all(|(place, op)| {
                let Op::Read(key, values) = op else { return true };
                let own = |op: &Op| matches!(op, Op::Write(k, _) if k == key);
                match txn.ops[..place].iter().rfind(|op| own(op)) {
                    Some(Op::Write(_, value)) => values[..] == [*value],
                    _ => {
                        let later = |op: &Op| matches!(op, Op::Write(k, v) if k == key && values[..] == [*v]);
                        let other = |other: &&Txn| !std::ptr::eq(*other, txn) && other.ops.iter().any(later);
                        !txn.ops[place..].iter().any(later) || self.txns.iter().find(other).is_some()
                    }
                }
            })
        })
    }

    /// Whether a model holds, by brute force, from the initial state.
    fn holds(&self, model: Model) -> bool {
        match model.isolation {
            Isolation::ReadUncommitted => self.sees_own_writes(),
            Isolation::ReadCommitted => self.is_read_committed(),
            Isolation::Snapshot => self.is_snapshot(),
            // Nothing scans, so that there is no predicate to tell the two apart.
            Isolation::RepeatableRead => self.is_serial(false),
            Isolation::Serializable => self.is_serial(model == Model::of(Isolation::Serializable)),
        }
    }

    fn text(&self) -> String {
        let mut marks: Vec<(usize, bool, usize)> = Vec::new();
        for (number, txn) in self.txns.iter().enumerate() {
            marks.push((2 * txn.from, false, number));
            marks.push((2 * txn.to + 1, true, number));
        }
        marks.sort_unstable();
        let mut text = String::new();
        for (_, is_end, number) in marks {
            let txn = &self.txns[number];
            let kind = match (is_end, txn.end) {
                (false, _) => "invoke",
                (true, End::Ok) => "ok",
                (true, End::Fail) => "fail",
                (true, End::Info) => "info",
            };
            let ops: String = txn.ops.iter().map(|op| self.op_text(op, kind == "ok")).collect();
            let _ = writeln!(text, "{{:type :{kind}, :process {number}, :value [{ops}]}}");
        }
        text
    }

    fn op_text(&self, op: &Op, known: bool) -> String {
        match (op, self.kind) {
            (Op::Write(key, value), Kind::Lists) => format!("[:append {key} {value}] "),
            (Op::Write(key, value), Kind::Registers) => format!("[:w {key} {value}] "),
            (Op::Read(key, _), _) if !known => format!("[:r {key} nil] "),
            (Op::Read(key, values), Kind::Lists) => format!("[:r {key} {values:?}] "),
            (Op::Read(key, values), Kind::Registers) => {
                format!("[:r {key} {}] ", values.first().map_or("nil".to_owned(), u32::to_string))
            }
        }
    }

    /// The transactions that may have committed: all that did, with each choice of the unknown ones.
    fn worlds(&self) -> Vec<Vec<usize>> {
        let mut worlds = vec![Vec::new()];
        for (number, txn) in self.txns.iter().enumerate() {
            let with: Vec<Vec<usize>> =
                worlds.iter().map(|world: &Vec<usize>| [world.clone(), vec![number]].concat()).collect();
            match txn.end {
                End::Ok => worlds = with,
                End::Info => worlds.extend(with),
                End::Fail => {}
            }
        }
        worlds
    }

    fn is_serial(&self, strict: bool) -> bool {
        self.worlds().iter().any(|world| permutations(world).iter().any(|order| self.explains(order, strict)))
    }

    fn explains(&self, order: &[usize], strict: bool) -> bool {
        let mut state = self.initial.clone();
        let in_time = |at: usize| order[at + 1..].iter().all(|later| !self.ended_before(*later, order[at]));
        order.iter().all(|txn| self.run(*txn, &mut state)) && (!strict || (0..order.len()).all(in_time))
    }

    fn ended_before(&self, first: usize, second: usize) -> bool {
        self.txns[first].end == End::Ok && 2 * self.txns[first].to + 1 < 2 * self.txns[second].from
    }

    /// Runs a transaction on a state; whether it reads there what it did read.
    fn run(&self, txn: usize, state: &mut State) -> bool {
        let reads_count = self.txns[txn].end == End::Ok;
        self.txns[txn].ops.iter().all(|op| match op {
            Op::Read(key, values) => !reads_count || state.get(key).map_or(&[][..], Vec::as_slice) == values,
            Op::Write(key, value) => {
                let held = state.entry(*key).or_default();
                if self.kind == Kind::Registers {
                    held.clear();
                }
                held.push(*value);
                true
            }
        })
    }

    fn is_snapshot(&self) -> bool {
        self.worlds().iter().any(|world| {
            permutations(world).iter().any(|order| {
                let mut states = vec![self.initial.clone()];
                order.iter().enumerate().all(|(at, txn)| self.commits(order, at, *txn, &mut states))
            })
        })
    }

    /// Whether some commit order explains every read, each for itself, by the state after some earlier commit and
    /// the reader's own writes: then nothing aborted, intermediate or circular was read.
    fn is_read_committed(&self) -> bool {
        self.worlds().iter().any(|world| permutations(world).iter().any(|order| self.reads_committed(order)))
    }

    fn reads_committed(&self, order: &[usize]) -> bool {
        let mut states = vec![self.initial.clone()];
        order.iter().all(|txn| {
            let ops = &self.txns[*txn].ops;
            let reads_count = self.txns[*txn].end == End::Ok;
            let explained = |(place, op): (usize, &Op)| match op {
                Op::Read(key, values) if reads_count => states.iter().any(|state| {
                    let mut state = state.clone();
                    self.write(&ops[..place], &mut state);
                    state.get(key).map_or(&[][..], Vec::as_slice) == values
                }),
                _ => true,
            };
            let fits = ops.iter().enumerate().all(explained);
            let mut state = states[states.len() - 1].clone();
            self.write(ops, &mut state);
            states.push(state);
            fits
        })
    }

    /// Does the writes among these operations.
    fn write(&self, ops: &[Op], state: &mut State) {
        for op in ops {
            if let Op::Write(key, value) = op {
                let held = state.entry(*key).or_default();
                if self.kind == Kind::Registers {
                    held.clear();
                }
                held.push(*value);
            }
        }
    }

    /// Whether some snapshot explains a transaction: what it read, and that nobody else wrote what it
    /// wrote since. `states` are those after each commit so far.
    fn commits(&self, order: &[usize], at: usize, txn: usize, states: &mut Vec<State>) -> bool {
        let wrote = |txn: usize| {
            self.txns[txn].ops.iter().filter_map(|op| match op {
                Op::Write(key, _) => Some(*key),
                Op::Read(..) => None,
            })
        };
        let fits = (0..=at).any(|snapshot| {
            let free =
                order[snapshot..at].iter().all(|other| wrote(*other).all(|key| wrote(txn).all(|own| own != key)));
            free && self.run(txn, &mut states[snapshot].clone())
        });
        let mut state = states[at].clone();
        self.write(&self.txns[txn].ops, &mut state);
        states.push(state);
        fits
    }
}

/// Reads that may be explained: beginnings of one order of each key's values, with the own ones behind.
fn fill_reads(kind: Kind, txn: &mut Txn, written: &[(u8, u32)], rng: &mut fastrand::Rng) {
    let mut own: Vec<(u8, u32)> = Vec::new();
    let all: Vec<u32> =
        txn.ops.iter().filter_map(|op| if let Op::Write(_, v) = op { Some(*v) } else { None }).collect();
    let (mut stable, fuzzy) = (BTreeMap::new(), rng.u8(0..4) == 0);
    for op in &mut txn.ops {
        match op {
            Op::Write(key, value) => own.push((*key, *value)),
            Op::Read(key, values) => {
                let mine = own.iter().filter(|(k, _)| k == key).map(|(_, value)| *value);
                let others: Vec<u32> =
                    written.iter().filter(|(k, v)| k == key && !all.contains(v)).map(|(_, v)| *v).collect();
                let length = rng.usize(0..=others.len());
                let mut base = others[..length].to_vec();
                if rng.u8(0..20) == 0 {
                    rng.shuffle(&mut base);
                }
                if !fuzzy {
                    base = stable.entry(*key).or_insert(base).clone();
                }
                base.extend(mine);
                *values = if kind == Kind::Registers { base.last().copied().into_iter().collect() } else { base };
            }
        }
    }
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    let Some((last, rest)) = items.split_last() else { return vec![Vec::new()] };
    let shorter = permutations(rest);
    shorter
        .iter()
        .flat_map(|order| (0..=order.len()).map(move |at| [&order[..at], &[*last], &order[at..]].concat()))
        .collect()
}

fn agree(sample: &Sample, model: Model, holds: bool) -> bool {
    let text = sample.text();
    let observed = foreign::read(&text, Format::Edn).unwrap();
    let judgement = observed.judge(model);
    let expected = if holds { Verdict::Holds } else { Verdict::Violated };
    assert_eq!(judgement.verdict, expected, "{model:?}\n{text}\n{judgement:#?}");
    holds
}

fn agree_on_samples(kind: Kind) {
    let seed = std::env::var("ISOLDE_SEED").map_or(5, |text| text.parse().unwrap());
    let samples = std::env::var("ISOLDE_SAMPLES").map_or(20_000, |text| text.parse().unwrap());
    let mut rng = fastrand::Rng::with_seed(seed);
    let serializable = Model::of(Isolation::Serializable);
    let mut held = [0; 5];
    for _ in 0..samples {
        let sample = Sample::random(kind, &mut rng);
        held[0] += u32::from(agree(&sample, serializable.without_real_time(), sample.is_serial(false)));
        held[1] += u32::from(agree(&sample, serializable, sample.is_serial(true)));
        held[2] += u32::from(agree(&sample, Model::of(Isolation::Snapshot), sample.is_snapshot()));
        held[3] += u32::from(agree(&sample, Model::of(Isolation::ReadCommitted), sample.is_read_committed()));
        held[4] += u32::from(agree(&sample, Model::of(Isolation::RepeatableRead), sample.is_serial(false)));
    }
    println!(
        "{kind:?}: {samples} samples (ISOLDE_SEED={seed}); held serial, strict, snapshot, read committed, repeatable read: {held:?}; 0 disagreements"
    );
    assert!(held.iter().all(|held| *held > samples / 20 && *held < samples - samples / 20), "one-sided: {held:?}");
}

#[test]
fn lists_are_judged_as_brute_force_judges_them() {
    agree_on_samples(Kind::Lists);
}

#[test]
fn registers_are_judged_as_brute_force_judges_them() {
    agree_on_samples(Kind::Registers);
}

/// A value that nobody writes.
fn unwritten(key: u8) -> u32 {
    100 + u32::from(key)
}

fn models() -> impl Iterator<Item = Model> {
    let all = Isolation::ALL.map(Model::of);
    all.into_iter().chain([Model::of(Isolation::Serializable).without_real_time()])
}

fn seeded() -> (u64, u32, fastrand::Rng) {
    let seed = std::env::var("ISOLDE_SEED").map_or(5, |text| text.parse().unwrap());
    let samples = std::env::var("ISOLDE_SAMPLES").map_or(4_000, |text| text.parse().unwrap());
    (seed, samples, fastrand::Rng::with_seed(seed))
}

#[test]
fn values_written_twice_or_never_are_never_judged_wrongly() {
    let (seed, samples, mut rng) = seeded();
    let (mut held, mut violated, mut unknown) = (0, 0, 0);
    for _ in 0..samples {
        let mut sample = Sample::odd(&mut rng);
        let text = sample.text();
        let observed = foreign::read(&text, Format::Edn).unwrap();
        let (beginnings, traceable) = (sample.beginnings(), sample.untraceable().is_empty());
        for model in models() {
            let judgement = observed.judge(model);
            let holds = beginnings.iter().any(|beginning| {
                sample.initial.clone_from(beginning);
                sample.holds(model)
            });
            let right = match judgement.verdict {
                Verdict::Holds => holds,
                Verdict::Violated => !holds,
                Verdict::Unknown => !traceable,
            };
            assert!(right, "brute force: {holds}; {model:?} (ISOLDE_SEED={seed})\n{text}\n{judgement:#?}");
            *match judgement.verdict {
                Verdict::Holds => &mut held,
                Verdict::Violated => &mut violated,
                Verdict::Unknown => &mut unknown,
            } += 1;
        }
    }
    println!(
        "odd registers: {samples} samples (ISOLDE_SEED={seed}), 6 models: {held} hold, {violated} violated, {unknown} unknown"
    );
    assert!(held.min(violated).min(unknown) > samples / 10, "one-sided");
}

#[test]
fn registers_that_are_not_empty_at_first_are_judged_as_brute_force_judges_them() {
    let (seed, samples, mut rng) = seeded();
    let mut held = [0; 5];
    for _ in 0..samples {
        let mut sample = Sample::random(Kind::Registers, &mut rng);
        sample.initial = (0..KEYS).map(|key| (key, vec![unwritten(key)])).collect();
        for txn in &mut sample.txns {
            txn.end = if txn.end == End::Fail { End::Fail } else { End::Ok };
            for op in &mut txn.ops {
                if let Op::Read(key, values) = op
                    && values.is_empty()
                {
                    *values = vec![unwritten(*key)];
                }
            }
        }
        let text = sample.register_text();
        if sample.txns.iter().all(|txn| txn.end == End::Fail) {
            continue;
        }
        let observed = foreign::read(&text, Format::Registers).unwrap();
        // Sessions of one transaction each: there is no real time, and strict is as serial.
        for (held, isolation) in held.iter_mut().zip(Isolation::ALL) {
            let model = Model::of(isolation).without_real_time();
            let (judgement, holds) = (observed.judge(model), sample.holds(model));
            let expected = if holds { Verdict::Holds } else { Verdict::Violated };
            assert_eq!(judgement.verdict, expected, "{model:?} (ISOLDE_SEED={seed})\n{text}\n{judgement:#?}");
            *held += u32::from(holds);
        }
    }
    println!("register text: {samples} samples (ISOLDE_SEED={seed}); held, weakest level first: {held:?}");
    let sharp = &held[1..];
    assert!(sharp.iter().all(|held| *held > samples / 20 && *held < samples - samples / 20), "one-sided: {held:?}");
}
