//! The table against a naive list of locks: same answers, same wakes, in the same order.
//!
//! The model keeps two plain lists, holders and waiters in order, and grants whatever meets neither a
//! conflicting holder nor a conflicting earlier waiter. Deadlocks are left standing (timeouts only).

use isolde_locks::table::{Answer, Party, Table, Target, Ticket};
use isolde_locks::{Deadlocks, WaitPolicy};
use isolde_types::{Key, LockMode, Span, TxnId};
use proptest::prelude::*;

/// A target of the model: the small numbers that it covers.
type Covers = std::ops::Range<u8>;

#[derive(Clone, Debug)]
enum Step {
    Acquire { txn: u64, at: u8, to: Option<u8>, mode: LockMode },
    Cancel(usize),
    Release(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let txn = 1..5_u64;
    let mode = prop::sample::select(LockMode::ALL.to_vec());
    let to = prop_oneof![3 => Just(None), 1 => (0..5_u8).prop_map(Some)];
    let step = prop_oneof![
        6 => (txn.clone(), 0..4_u8, to, mode).prop_map(|(txn, at, to, mode)| Step::Acquire { txn, at, to, mode }),
        1 => (0..8_usize).prop_map(Step::Cancel),
        2 => txn.prop_map(Step::Release),
    ];
    prop::collection::vec(step, 1..60)
}

fn key(number: u8) -> Key {
    Key::from(vec![b'a' + number])
}

fn target(at: u8, to: Option<u8>) -> (Target, Covers) {
    match to {
        None => (Target::Key(key(at)), at..at + 1),
        Some(to) => (Target::Span(Span::new(key(at), Some(key(to)))), at..to.max(at)),
    }
}

/// A lock that is held, or asked for.
#[derive(Clone, Debug)]
struct Lock {
    txn: u64,
    target: Target,
    covers: Covers,
    mode: LockMode,
}

impl Lock {
    fn conflicts(&self, other: &Lock) -> bool {
        let overlap = self.covers.start.max(other.covers.start) < self.covers.end.min(other.covers.end);
        self.txn != other.txn && overlap && self.mode.conflicts(other.mode)
    }

    fn covers(&self, other: &Lock) -> bool {
        let within = self.covers.start <= other.covers.start && other.covers.end <= self.covers.end;
        let spans = matches!(self.target, Target::Span(_)) || self.target == other.target;
        self.txn == other.txn && within && spans && !self.covers.is_empty()
            || self.txn == other.txn && self.target == other.target
    }
}

#[derive(Default)]
struct Model {
    held: Vec<Lock>,
    /// In turn: upgrades first, then by arrival.
    waiting: Vec<(bool, Ticket, Lock)>,
}

impl Model {
    fn is_blocked(&self, lock: &Lock, before: usize) -> bool {
        let by_holder = self.held.iter().any(|held| held.conflicts(lock));
        let earlier = self.waiting[..before].iter().filter(|(_, _, waiter)| waiter.conflicts(lock));
        // Nobody waits for those who wait for him.
        by_holder
            || earlier.filter(|(_, _, w)| !self.held.iter().any(|h| h.txn == lock.txn && h.conflicts(w))).count() > 0
    }

    /// Whether it was granted at once.
    fn acquire(&mut self, lock: Lock, ticket: Option<Ticket>) -> bool {
        if self.held.iter().any(|held| held.covers(&lock) && held.mode >= lock.mode) {
            return true;
        }
        let upgrade = self.held.iter().any(|held| held.covers(&lock));
        let place =
            if upgrade { self.waiting.iter().take_while(|(upgrade, ..)| *upgrade).count() } else { self.waiting.len() };
        if !self.is_blocked(&lock, place) {
            self.held.push(lock);
            return true;
        }
        if let Some(ticket) = ticket {
            self.waiting.insert(place, (upgrade, ticket, lock));
        }
        false
    }

    /// Grants what can be granted, in turn.
    fn pump(&mut self) -> Vec<Ticket> {
        let mut granted = Vec::new();
        let mut at = 0;
        while at < self.waiting.len() {
            let lock = self.waiting[at].2.clone();
            if self.is_blocked(&lock, at) {
                at += 1;
            } else {
                granted.push(self.waiting.remove(at).1);
                self.held.push(lock);
            }
        }
        granted
    }
}

fn sorted(mut tickets: Vec<Ticket>) -> Vec<Ticket> {
    tickets.sort_unstable();
    tickets
}

fn run(steps: Vec<Step>) {
    let mut table = Table::new(Deadlocks::TimeoutOnly);
    let mut model = Model::default();
    for step in steps {
        let (expected, found) = match step {
            Step::Acquire { txn, at, to, mode } => {
                table.enter(TxnId(txn), &Party { age: txn, label: None });
                let (target, covers) = target(at, to);
                let lock = Lock { txn, target: target.clone(), covers, mode };
                let (answer, effects) = table.acquire(TxnId(txn), target, mode, WaitPolicy::Wait);
                let ticket = match answer {
                    Answer::Waits(ticket) => Some(ticket),
                    Answer::Granted => None,
                    Answer::Refused(why) => panic!("refused: {why:?}"),
                };
                let granted = model.acquire(lock, ticket);
                assert_eq!(granted, ticket.is_none(), "the table and the model disagree");
                // What a transaction got may let its other waits through.
                (if granted { model.pump() } else { Vec::new() }, effects.wakes)
            }
            Step::Cancel(number) => {
                if model.waiting.is_empty() {
                    continue;
                }
                let (_, ticket, _) = model.waiting.remove(number % model.waiting.len());
                (model.pump(), table.cancel(ticket).wakes)
            }
            Step::Release(txn) => {
                model.held.retain(|lock| lock.txn != txn);
                let (own, others): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut model.waiting).into_iter().partition(|(_, _, lock)| lock.txn == txn);
                model.waiting = others;
                let own: Vec<Ticket> = own.into_iter().map(|(_, ticket, _)| ticket).collect();
                let wakes = table.release(TxnId(txn)).wakes;
                (own.iter().copied().chain(model.pump()).collect(), wakes)
            }
        };
        assert_eq!(sorted(found.clone()), sorted(expected), "other waits ended");
        for ticket in found {
            assert!(table.collect(ticket).is_some());
        }
        assert_eq!(table.waiting(), model.waiting.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_a_naive_list_does(steps in steps()) {
        run(steps);
    }
}
