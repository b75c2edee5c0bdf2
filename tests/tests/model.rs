//! Random operations of open transactions, against a model that predicts every value and every
//! conflict.
//!
//! The model is a list of committed states. A transaction of the model knows the state at its begin,
//! its own writes, and what it read; from these it predicts what each call returns and whether the
//! commit succeeds: exactly, so that a false conflict fails the test as a missed one does.

use std::collections::{BTreeMap, BTreeSet};

use isolde::{Db, ErrorKind, Isolation, Mode, Savepoint, Txn};
use isolde_tests::open;
use proptest::prelude::*;

type Key = u8;
type State = BTreeMap<Key, u8>;

/// One step of one of the open transactions.
#[derive(Clone, Debug)]
enum Step {
    Begin(Isolation),
    Get(Key),
    GetForUpdate(Key),
    Scan { from: Key, to: Key, rows: usize, backwards: bool },
    Put(Key, u8),
    Delete(Key),
    Insert(Key, u8),
    Lock(Key, Key),
    Savepoint,
    RollbackTo(usize),
    Commit,
    Rollback,
    Collect,
}

const SLOTS: usize = 4;
const KEYS: Key = 6;

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let key = 0..KEYS;
    let level = prop::sample::select(Isolation::ALL.to_vec());
    let step = prop_oneof![
        3 => level.prop_map(Step::Begin),
        4 => key.clone().prop_map(Step::Get),
        1 => key.clone().prop_map(Step::GetForUpdate),
        3 => (key.clone(), key.clone(), 1..8_usize, any::<bool>())
            .prop_map(|(from, to, rows, backwards)| Step::Scan { from, to, rows, backwards }),
        5 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key.clone().prop_map(Step::Delete),
        1 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
        1 => (key.clone(), key).prop_map(|(from, to)| Step::Lock(from, to)),
        1 => Just(Step::Savepoint),
        1 => (0..3_usize).prop_map(Step::RollbackTo),
        4 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        1 => Just(Step::Collect),
    ];
    prop::collection::vec((0..SLOTS, step), 1..80)
}

/// What the model knows of an open transaction.
struct Modelled {
    txn: Txn,
    isolation: Isolation,
    /// Index of the committed state at begin.
    begin: usize,
    own: BTreeMap<Key, Option<u8>>,
    /// Keys read, and the state as of which; certified if the level or the call says so.
    certified: Vec<(BTreeSet<Key>, usize)>,
    marked: bool,
    savepoints: Vec<(Savepoint, BTreeMap<Key, Option<u8>>)>,
}

/// The committed states, and which keys each commit wrote.
struct Model {
    states: Vec<State>,
    written: Vec<BTreeSet<Key>>,
}

impl Model {
    /// Whether a commit after `as_of` wrote one of the keys.
    fn changed(&self, keys: &BTreeSet<Key>, as_of: usize) -> bool {
        self.written[as_of + 1..].iter().any(|written| !written.is_disjoint(keys))
    }

    fn now(&self) -> usize {
        self.states.len() - 1
    }
}

impl Modelled {
    fn has_snapshot(&self) -> bool {
        matches!(self.isolation, Isolation::RepeatableRead | Isolation::Snapshot | Isolation::Serializable)
    }

    fn as_of(&self, model: &Model) -> usize {
        if self.has_snapshot() { self.begin } else { model.now() }
    }

    /// What the transaction sees, own writes included.
    fn view(&self, model: &Model) -> State {
        let mut view = model.states[self.as_of(model)].clone();
        for (key, value) in &self.own {
            match value {
                Some(value) => view.insert(*key, *value),
                None => view.remove(key),
            };
        }
        view
    }

    fn certify(&mut self, keys: impl IntoIterator<Item = Key>, as_of: usize) {
        self.certified.push((keys.into_iter().collect(), as_of));
    }

    fn conflicts(&self, model: &Model) -> bool {
        if self.own.is_empty() && !self.marked {
            return false;
        }
        let reads = self.certified.iter().any(|(keys, as_of)| model.changed(keys, *as_of));
        let own: BTreeSet<Key> = self.own.keys().copied().collect();
        reads || (self.isolation == Isolation::Snapshot && model.changed(&own, self.begin))
    }
}

fn name(key: Key) -> String {
    format!("k{key}")
}

fn number(name: &[u8]) -> Key {
    std::str::from_utf8(name).unwrap()[1..].parse().unwrap()
}

fn begin(db: &Db, model: &Model, isolation: Isolation) -> Modelled {
    let txn = db.txn().isolation(isolation).mode(Mode::Optimistic).begin().unwrap();
    Modelled {
        txn,
        isolation,
        begin: model.now(),
        own: BTreeMap::new(),
        certified: Vec::new(),
        marked: false,
        savepoints: Vec::new(),
    }
}

fn get(t: &mut Modelled, model: &Model, key: Key, for_update: bool) {
    let found = if for_update { t.txn.get_for_update(name(key)) } else { t.txn.get(name(key)) };
    let expected = t.view(model).get(&key).map(|value| vec![*value]);
    assert_eq!(found.unwrap().map(|value| value.to_vec()), expected, "get {key} at {}", t.isolation);
    let as_of = t.as_of(model);
    let certifies = matches!(t.isolation, Isolation::RepeatableRead | Isolation::Serializable);
    // An own value hides the database's: nothing is read.
    if for_update || (certifies && !t.own.contains_key(&key)) {
        t.marked |= for_update;
        t.certify([key], as_of);
    }
}

fn scan(t: &mut Modelled, model: &Model, (from, to): (Key, Key), rows: usize, backwards: bool) {
    let view = t.view(model);
    let range = if from < to { from..to } else { 0..0 };
    let mut expected: Vec<(Key, u8)> = view.range(range.clone()).map(|(key, value)| (*key, *value)).collect();
    if backwards {
        expected.reverse();
    }
    let complete = expected.len() < rows;
    expected.truncate(rows);
    let scan = t.txn.scan(name(from)..name(to));
    let found: Vec<_> = if backwards { scan.rev().take(rows).collect() } else { scan.take(rows).collect() };
    let found: Vec<(Key, u8)> = found.into_iter().map(|row| row.map(|(k, v)| (number(&k), v[0])).unwrap()).collect();
    assert_eq!(found, expected, "scan at {}", t.isolation);
    let as_of = t.as_of(model);
    match t.isolation {
        Isolation::Serializable => {
            let covered = match expected.last() {
                _ if complete => range,
                Some((last, _)) if backwards => *last..range.end,
                Some((last, _)) => range.start..last + 1,
                None => 0..0,
            };
            t.certify(covered, as_of);
        }
        Isolation::RepeatableRead => {
            let rows: Vec<Key> = expected.iter().map(|(key, _)| *key).filter(|key| !t.own.contains_key(key)).collect();
            t.certify(rows, as_of);
        }
        _ => {}
    }
}

fn insert(t: &mut Modelled, model: &Model, key: Key, value: u8) {
    let as_of = t.as_of(model);
    let present = t.view(model).contains_key(&key);
    let outcome = t.txn.insert(name(key), [value]);
    if !t.own.contains_key(&key) {
        t.marked = true;
        t.certify([key], as_of);
    }
    match present {
        true => assert_eq!(outcome.unwrap_err().kind(), ErrorKind::AlreadyExists),
        false => {
            outcome.unwrap();
            t.own.insert(key, Some(value));
        }
    }
}

fn commit(t: Modelled, model: &mut Model) {
    let conflict = t.conflicts(model);
    let outcome = t.txn.commit();
    if conflict {
        let error = outcome.expect_err("the model says that this commit must conflict");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        return;
    }
    outcome.unwrap_or_else(|error| panic!("the model says that this {} commit succeeds: {error:#}", t.isolation));
    if t.own.is_empty() {
        return;
    }
    let mut state = model.states[model.now()].clone();
    for (key, value) in &t.own {
        match value {
            Some(value) => state.insert(*key, *value),
            None => state.remove(key),
        };
    }
    model.states.push(state);
    model.written.push(t.own.into_keys().collect());
}

fn step(db: &Db, model: &mut Model, slot: &mut Option<Modelled>, step: Step) {
    let Some(t) = slot else {
        if let Step::Begin(isolation) = step {
            *slot = Some(begin(db, model, isolation));
        }
        return;
    };
    match step {
        Step::Begin(_) => {}
        Step::Get(key) => get(t, model, key, false),
        Step::GetForUpdate(key) => get(t, model, key, true),
        Step::Scan { from, to, rows, backwards } => scan(t, model, (from, to), rows, backwards),
        Step::Put(key, value) => {
            t.txn.put(name(key), [value]).unwrap();
            t.own.insert(key, Some(value));
        }
        Step::Delete(key) => {
            t.txn.delete(name(key)).unwrap();
            t.own.insert(key, None);
        }
        Step::Insert(key, value) => insert(t, model, key, value),
        Step::Lock(from, to) => {
            t.txn.lock(name(from)..name(to), isolde::LockMode::Shared).unwrap();
            let as_of = t.as_of(model);
            t.marked = true;
            t.certify(if from < to { from..to } else { 0..0 }, as_of);
        }
        Step::Savepoint => t.savepoints.push((t.txn.savepoint(), t.own.clone())),
        Step::RollbackTo(back) => {
            let Some(at) = t.savepoints.len().checked_sub(back + 1) else { return };
            t.savepoints.truncate(at + 1);
            let (savepoint, own) = t.savepoints[at].clone();
            t.txn.rollback_to(savepoint).unwrap();
            t.own = own;
        }
        Step::Commit => commit(slot.take().unwrap(), model),
        Step::Rollback => slot.take().unwrap().txn.rollback(),
        Step::Collect => db.collect(),
    }
}

fn run(steps: Vec<(usize, Step)>) {
    let db = open(|b| b);
    let mut model = Model { states: vec![State::new()], written: vec![BTreeSet::new()] };
    let mut slots: [Option<Modelled>; SLOTS] = Default::default();
    for (slot, next) in steps {
        step(&db, &mut model, &mut slots[slot], next);
    }
    drop(slots);
    let last = &model.states[model.now()];
    for key in 0..KEYS {
        assert_eq!(db.get(name(key)).unwrap().map(|v| v[0]), last.get(&key).copied());
    }
    db.collect();
    assert_eq!(db.stats().versions, last.len(), "collection leaves one version of each present key");
    assert_eq!(db.stats().records, last.len());
    db.check().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn optimistic_transactions_do_what_the_model_says(steps in steps()) {
        run(steps);
    }
}
