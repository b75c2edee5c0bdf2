//! Judging each history once: most schedules of an exploration record what an earlier one did.
//!
//! Two schedules that differ only in when a transaction read or wrote *between* the begins and ends record
//! events in different orders, and the checker cannot tell them apart: order between transactions matters for
//! real time alone. So a history is known by its *sketch*: the order of its begins and ends, then the events of
//! each transaction by themselves. What was found for a sketch is kept.
//!
//! ```text
//!   b1 b2 r1x r2y w1y c1 w2x c2       b1 b2 c1 c2 │ r1x w1y │ r2y w2x       one sketch, judged once
//!   b1 b2 r2y r1x w1y c1 w2x c2       b1 b2 c1 c2 │ r1x w1y │ r2y w2x
//! ```
//!
//! A history with complaints is judged anew each time, since they name the places of events.

use std::hash::Hash;
use std::rc::Rc;

use super::known::{Known, Written};
use crate::check;
use crate::check::Report;
use crate::model::{Event, History, ReadKind, TxnKey};
use crate::seen::{WhoSees, who_sees};

/// What is said about a history.
#[derive(Debug)]
pub(super) struct Judgement {
    /// What the checker found.
    pub report: Report,
    /// The findings again, by who sees them.
    pub seen: WhoSees,
    /// A read that makes no edges is judged by nothing. No operation of a program asks for one, so a record of
    /// one hides what was read.
    pub untracked: Option<String>,
}

impl Judgement {
    fn of(history: &History) -> Judgement {
        let report = check(history);
        let seen = if report.findings.is_empty() { WhoSees::new() } else { who_sees(history) };
        Judgement { report, seen, untracked: untracked(history) }
    }
}

/// The judgements so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Judge {
    known: Known<Judgement>,
}

impl Judge {
    /// Judges a history.
    pub fn judge(&mut self, history: &History) -> Rc<Judgement> {
        let no_complaints = |judgement: &Judgement| judgement.report.complaints.is_empty();
        self.known.of(|to| draw(history, to), || Judgement::of(history), no_complaints)
    }
}

/// Draws the sketch of a history: as the checker sees it, in bytes.
fn draw(history: &History, to: &mut Written) {
    let History { initial, start, order, events } = history;
    (initial, start, order).hash(to);
    let mut txns: Vec<TxnKey> = Vec::new();
    for event in events {
        let txn = event.txn();
        if !txns.contains(&txn) {
            txns.push(txn);
        }
        if is_moment(event) {
            txn.hash(to);
            std::mem::discriminant(event).hash(to);
        }
    }
    for txn in txns {
        events.iter().filter(|event| event.txn() == txn).for_each(|event| event.hash(to));
    }
    events.len().hash(to);
}

/// A begin or an end: its place among those of other transactions matters.
fn is_moment(event: &Event) -> bool {
    match event {
        Event::Begin { .. } | Event::Commit { .. } | Event::Abort { .. } | Event::Unknown { .. } => true,
        Event::Read { .. } | Event::Scan { .. } | Event::Write { .. } | Event::RollbackTo { .. } => false,
    }
}

fn untracked(history: &History) -> Option<String> {
    let is_untracked = |event: &&Event| {
        matches!(event, Event::Read { kind: ReadKind::Untracked, .. } | Event::Scan { kind: ReadKind::Untracked, .. })
    };
    let event = history.events.iter().find(is_untracked)?;
    Some(format!("a read is recorded as untracked, which no operation asked for: {event:?}"))
}

#[cfg(test)]
mod tests {
    use super::super::known::KEPT;
    use super::*;
    use crate::model::Version;
    use bytes::Bytes;
    use isolde_types::{Isolation, Key, Mode, Ts};

    /// Three transactions that skew writes, lose updates and read what is stale, each in its own order.
    fn programs() -> [Vec<Event>; 3] {
        let key = |name: &'static str| Key::from_static(name.as_bytes());
        let begin = |txn: u64, isolation| Event::Begin {
            txn: TxnKey(txn),
            name: format!("T{txn}"),
            isolation,
            mode: Mode::Optimistic,
            read_only: false,
        };
        let read = |txn, name| Event::Read {
            txn: TxnKey(txn),
            key: key(name),
            version: Version::Committed(Ts(1)),
            value: Some(Bytes::from_static(b"0")),
            kind: ReadKind::Tracked,
            as_of: None,
        };
        let write = |txn, name, seq| Event::Write {
            txn: TxnKey(txn),
            key: key(name),
            seq,
            value: Some(Bytes::from_static(b"1")),
            blind: false,
        };
        let commit = |txn, ts| Event::Commit { txn: TxnKey(txn), ts, resolved: Vec::new() };
        [
            vec![
                begin(1, Isolation::Serializable),
                read(1, "x"),
                read(1, "y"),
                write(1, "x", 1),
                commit(1, Some(Ts(2))),
            ],
            vec![
                begin(2, Isolation::ReadCommitted),
                read(2, "y"),
                read(2, "x"),
                write(2, "y", 1),
                commit(2, Some(Ts(3))),
            ],
            vec![
                begin(3, Isolation::Serializable),
                // Stale, if T1 has committed before this begins.
                read(3, "x"),
                commit(3, None),
            ],
        ]
    }

    fn interleaved(mut programs: [Vec<Event>; 3], rng: &mut fastrand::Rng) -> History {
        let mut history = History { start: Ts(1), ..History::default() };
        for name in ["x", "y"] {
            history.initial.push((Key::from_static(name.as_bytes()), Bytes::from_static(b"0")));
        }
        programs.iter_mut().for_each(|program| program.reverse());
        while programs.iter().any(|program| !program.is_empty()) {
            history.events.extend(programs[rng.usize(0..3)].pop());
        }
        history
    }

    /// Begins and ends come in any order here, so real time is broken in some and not in others; and now and
    /// then a commit is an abort.
    #[test]
    fn what_is_kept_is_what_would_be_found() {
        const SEED: u64 = 0x6A75_6467;
        println!("seed {SEED:#x}");
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut judge = Judge::default();
        let mut different = Vec::new();
        for _ in 0..3000 {
            let mut programs = programs();
            if rng.u8(0..4) == 0 {
                let aborted = rng.usize(0..3);
                let txn = TxnKey(aborted as u64 + 1);
                programs[aborted].pop();
                programs[aborted].push(Event::Abort { txn });
            }
            let history = interleaved(programs, &mut rng);
            let (judgement, fresh) = (judge.judge(&history), Judgement::of(&history));
            assert_eq!(judgement.report, fresh.report, "{history:?}");
            assert_eq!(judgement.seen, fresh.seen, "{history:?}");
            if !different.contains(&fresh.report) {
                different.push(fresh.report);
            }
        }
        assert!(different.len() > 5, "{} reports", different.len());
        assert!((100..1000).contains(&judge.known.len()), "{} of 3000 were kept", judge.known.len());
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut judge = Judge::default();
        for start in 0..=KEPT as u64 {
            judge.judge(&History { start: Ts(start), ..History::default() });
        }
        assert_eq!(judge.known.len(), 1);
    }
}
