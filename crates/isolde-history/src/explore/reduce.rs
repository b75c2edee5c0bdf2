//! Which steps of different transactions nobody can tell the order of.
//!
//! A step's *footprint* is what it reads, locks or writes: the key of an operation, the span of a scan,
//! and for the end of a transaction all that the transaction ever touches, because then its writes
//! appear and its locks go. Two steps are independent if their footprints do not meet. Beside that a
//! `begin` that takes a snapshot depends on whoever ends, and on another `begin`, which gives
//! transactions their ages. What a step does to others, whom it wakes and whom it aborts, is not known here: see
//! `asleep`.
//!
//! That is less than could be said: two gets of one key are taken for dependent, since under locks the
//! first may let in or keep out somebody else.

use std::ops::Range;

use isolde_types::{Key, Span};

use super::{Options, Program, Programs, Reduction};
use crate::schedule::{Action, Operation};

/// A step, and the program that it belongs to.
type StepOf<'p> = (&'p Program, &'p Action);

/// Whether nobody can tell which of two steps of different transactions came first.
pub(super) fn independent(a: StepOf<'_>, b: StepOf<'_>) -> bool {
    match (a.1, b.1) {
        (Action::Begin(_), Action::Begin(_)) => false,
        (Action::Begin(_), Action::Do(operation)) | (Action::Do(operation), Action::Begin(_)) => !operation.ends(),
        (Action::Do(one), Action::Do(other)) => {
            let (one, other) = (footprint(a.0, one), footprint(b.0, other));
            !one.iter().any(|place| other.iter().any(|with| place.meets(with)))
        }
    }
}

/// All steps of programs by number, and which of them are independent.
#[derive(Default)]
pub(super) struct Steps {
    /// The number of each transaction's first step, and of the one behind the last.
    ranges: Vec<Range<usize>>,
    /// For each pair, row by row.
    independent: Vec<bool>,
}

impl Steps {
    /// Those of programs; none where nothing is left out.
    pub fn of(programs: &Programs, options: &Options) -> Steps {
        if options.reduction == Reduction::None {
            return Steps::default();
        }
        let mut steps: Steps = Steps::default();
        let mut all: Vec<(&Program, Action)> = Vec::new();
        for (txn, program) in programs.programs.iter().enumerate() {
            let begins = options.begins[txn];
            let actions = (0..programs.steps(txn, begins)).filter_map(|place| programs.action(txn, place, begins));
            let start = all.len();
            all.extend(actions.map(|action| (program, action)));
            steps.ranges.push(start..all.len());
        }
        let with_others = |a: &(&Program, Action)| {
            let with = |b: &(&Program, Action)| independent((a.0, &a.1), (b.0, &b.1));
            all.iter().map(with).collect::<Vec<bool>>()
        };
        steps.independent = all.iter().flat_map(with_others).collect();
        steps
    }

    pub fn is_empty(&self) -> bool {
        self.independent.is_empty()
    }

    /// The step at a place of a transaction.
    pub fn step(&self, txn: usize, place: usize) -> Option<usize> {
        let range = self.ranges.get(txn)?;
        Some(range.start + place).filter(|step| *step < range.end)
    }

    /// Whether two steps of different transactions are independent.
    pub fn are_independent(&self, a: usize, b: usize) -> bool {
        let all = self.ranges.last().map_or(0, |range| range.end);
        self.independent.get(a * all + b).copied().unwrap_or(false)
    }
}

/// A key or a span, borrowed where it can be.
enum Place<'p> {
    Key(&'p Key),
    Span(Span),
    Everything,
}

impl Place<'_> {
    fn meets(&self, other: &Place<'_>) -> bool {
        match (self, other) {
            (Place::Everything, _) | (_, Place::Everything) => true,
            (Place::Key(a), Place::Key(b)) => a == b,
            (Place::Key(key), Place::Span(span)) | (Place::Span(span), Place::Key(key)) => span.contains(key),
            (Place::Span(a), Place::Span(b)) => a.overlaps(b),
        }
    }
}

fn footprint<'p>(program: &'p Program, operation: &'p Operation) -> Vec<Place<'p>> {
    match operation {
        Operation::Commit | Operation::Rollback => program
            .operations
            .iter()
            .filter(|operation| !operation.ends())
            .flat_map(|one| footprint(program, one))
            .collect(),
        // Gives back locks and takes back writes of whatever came before.
        Operation::RollbackTo(_) => vec![Place::Everything],
        Operation::Savepoint(_) => Vec::new(),
        Operation::Scan(place) | Operation::Lock(place) => vec![Place::Span(place.span())],
        other => other.key().map(Place::Key).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::Programs;
    use crate::schedule::Schedule;

    #[track_caller]
    fn check(text: &str, expected: bool) {
        let schedule = Schedule::parse(text).unwrap();
        let programs = Programs::of(&schedule).unwrap();
        let step = |txn: usize| (&programs.programs[txn], schedule.steps.iter().rfind(|step| step.txn == txn).unwrap());
        let ((a, step_a), (b, step_b)) = (step(0), step(1));
        assert_eq!(independent((a, &step_a.action), (b, &step_b.action)), expected, "{text}");
        assert_eq!(independent((b, &step_b.action), (a, &step_a.action)), expected, "{text}");
    }

    #[test]
    fn steps_on_different_keys_are_independent_and_others_are_not() {
        check("T1: get x\nT2: put y 1\n", true);
        check("T1: get x\nT2: put x 1\n", false);
        check("T1: scan a..f\nT2: put c 1\n", false);
        check("T1: scan a..f\nT2: put x 1\n", true);
    }

    #[test]
    fn an_end_touches_all_that_its_transaction_touched() {
        check("T1: put x 1\nT1: commit\nT2: get x\n", false);
        check("T1: put x 1\nT1: commit\nT2: put y 1\nT2: commit\n", true);
        check("T1: put x 1\nT1: commit\nT2: begin\n", false);
        check("T1: get x\nT2: begin\n", true);
    }
}
