//! The store against ordered maps: indexes, visibility, collection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isolde_mvcc::{Exposure, FoundVersion, Packed, ReadAt, Status, Store, Timeline, View, Views};
use isolde_types::{RecordCell, Span, Ts, TxnId};
use proptest::prelude::*;

/// A lock word that can only be sealed.
#[derive(Default)]
struct Cell(AtomicBool);

impl RecordCell for Cell {
    fn try_seal(&self) -> bool {
        self.0.store(true, Ordering::SeqCst);
        true
    }

    fn is_sealed(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Visits {
    One,
    Two,
    /// The version is not stamped.
    OneAndAHalf,
}

#[derive(Clone, Debug)]
enum Step {
    /// In flight, then committed; or committed in one visit, and perhaps before the last one was stamped.
    Write(Visits, u16, Option<u8>),
    Placeholder(u16),
    OpenView,
    CloseView(usize),
    Sweep,
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..300_u16;
    let visits = prop_oneof![3 => Just(Visits::One), 2 => Just(Visits::Two), 1 => Just(Visits::OneAndAHalf)];
    let step = prop_oneof![
        6 => (visits, key.clone(), proptest::option::weighted(0.7, any::<u8>())).prop_map(|(v, key, value)| Step::Write(v, key, value)),
        1 => key.prop_map(Step::Placeholder),
        1 => Just(Step::OpenView),
        1 => (0..4_usize).prop_map(Step::CloseView),
        1 => Just(Step::Sweep),
        1 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 1..400)
}

fn name(key: u16) -> [u8; 2] {
    key.to_be_bytes()
}

/// A committed state.
type State = BTreeMap<u16, u8>;

fn rows(store: &Store<Cell>, span: Span, at: Ts, backwards: bool) -> Vec<(u16, u8)> {
    let mut cursor = store.cursor(&span);
    let mut records = Vec::new();
    while if backwards {
        store.next_batch_back(&mut cursor, &mut records)
    } else {
        store.next_batch(&mut cursor, &mut records)
    } {}
    if backwards {
        records.reverse();
    }
    let row = |record: &Arc<isolde_mvcc::Record<Cell>>| {
        let value = record.read(ReadAt::At(at), None).value?;
        Some((u16::from_be_bytes(record.key()[..].try_into().unwrap()), value[0]))
    };
    records.iter().filter_map(row).collect()
}

fn check_view(store: &Store<Cell>, at: Ts, state: &State) {
    let expected: Vec<(u16, u8)> = state.iter().map(|(key, value)| (*key, *value)).collect();
    assert_eq!(rows(store, Span::all(), at, false), expected, "from the front at {at}");
    assert_eq!(rows(store, Span::all(), at, true), expected, "from the back at {at}");
    let middle = Span::new(name(100).to_vec().into(), Some(name(200).to_vec().into()));
    let inner: Vec<(u16, u8)> = expected.into_iter().filter(|(key, _)| (100..200).contains(key)).collect();
    assert_eq!(rows(store, middle, at, false), inner, "a part at {at}");
}

fn run(steps: Vec<Step>) {
    let (store, timeline, views) = (Store::<Cell>::new(), Timeline::new(), Arc::new(Views::new()));
    let mut states = vec![State::new()];
    let mut open: Vec<View> = Vec::new();
    for step in steps {
        if let Step::Write(_, key, value) = &step {
            let mut state = states[states.len() - 1].clone();
            match value {
                Some(value) => state.insert(*key, *value),
                None => state.remove(key),
            };
            states.push(state);
        }
        match step {
            Step::Write(Visits::One, key, value) => {
                drop(store.prefetch(&name(key)));
                let record = store.find_or_create(&name(key));
                let value = value.map(|value| Packed::copy(&[value]));
                let (_, wakers, settled) = record.commit(value, &timeline, &mut None, || views.cached_live(&timeline));
                wakers.wake();
                if settled.leaves_garbage {
                    store.note_garbage(record);
                }
            }
            Step::Write(visits, key, value) => {
                let record = store.find_or_create(&name(key));
                let status = Status::new(TxnId(1), Exposure::Private);
                record.install(&status, 1, value.map(|value| Packed::copy(&[value])));
                assert_eq!(
                    record.read(ReadAt::Newest, None).value.map(|v| v[0]),
                    states[states.len() - 2].get(&key).copied()
                );
                let (_, wakers) = timeline.commit_at_once(&status, None);
                wakers.wake();
                if visits == Visits::OneAndAHalf || record.settle(&views.cached_live(&timeline)).leaves_garbage {
                    store.note_garbage(record);
                }
            }
            Step::Placeholder(key) => {
                let record = store.find_or_create(&name(key));
                if !states[states.len() - 1].contains_key(&key) {
                    assert_eq!(record.read(ReadAt::Newest, None).value, None);
                }
                store.note_garbage(record);
            }
            Step::OpenView => open.push(views.register(&timeline)),
            Step::CloseView(number) if !open.is_empty() => drop(open.swap_remove(number % open.len())),
            Step::CloseView(_) => {}
            Step::Sweep => drop(store.sweep(&views.live(&timeline), 16)),
            Step::Collect => drop(store.collect(&views.live(&timeline))),
        }
        store.check(timeline.visible()).unwrap();
    }
    for view in &open {
        check_view(&store, view.ts(), &states[usize::try_from(view.ts().0).unwrap()]);
    }
    drop(open);
    let last = &states[states.len() - 1];
    check_view(&store, timeline.visible(), last);
    store.collect(&views.live(&timeline));
    assert_eq!((store.stats().records, store.stats().versions), (last.len(), last.len()));
    store.check(timeline.visible()).unwrap();
    for key in 0..300 {
        let found = store.find(&name(key)).map(|record| record.read(ReadAt::Newest, None));
        assert_eq!(found.as_ref().and_then(|found| found.value.clone()).map(|v| v[0]), last.get(&key).copied());
        assert!(found.is_none_or(|found| matches!(found.version, FoundVersion::Committed(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_shows_each_view_its_state_whatever_is_collected(steps in steps()) {
        run(steps);
    }
}
