//! Deadlock: transactions that wait for each other in a circle, in four shapes.
//!
//! | shape | who waits for whom |
//! | --- | --- |
//! | crosswise | two transactions lock two keys, each in the other order |
//! | ring | three transactions, each holds what the one before it wants |
//! | upgrade | two transactions share a key, and both want to write it |
//! | span | one shares a span and wants a key; the other has the key, and inserts into the span |

use isolde::{Db, Deadlocks, Isolation, Mode, Victim};

use super::crew::{Again, Call, Crew, Job, Order, Tally, Until, WhenStuck};
use super::{Case, Counts, Hazard};

/// What each transaction of a shape does, in turn.
fn shapes() -> [Vec<Vec<Call>>; 4] {
    use Call::{Get, Insert, LockPrefix, Put};
    [
        vec![vec![Put("a"), Put("b")], vec![Put("b"), Put("a")]],
        vec![vec![Put("a"), Put("b")], vec![Put("b"), Put("c")], vec![Put("c"), Put("a")]],
        vec![vec![Get("a"), Put("a")], vec![Get("a"), Put("a")]],
        vec![vec![LockPrefix("k/"), Put("z")], vec![Put("z"), Insert("k/1")]],
    ]
}

pub(super) fn run() -> isolde::Result<Hazard> {
    let total: u64 = shapes().iter().map(|shape| shape.len() as u64).sum();
    let never = count(Deadlocks::TimeoutOnly, WhenStuck::Stop)?;
    let stuck = never.waiting == total;
    let without = Case::new("waiting without end", never.counts(), stuck);
    let one_each = |count: &Count| count.waiting == 0 && count.victims == 4 && count.committed == total - 4;
    // Under no-wait in step everybody gives way: no deadlock, and no progress either; see livelock.
    let none_waits = |count: &Count| count.waiting == 0 && count.victims >= 4;
    let detect = |victim| Deadlocks::Detect { victim };
    let mut with = Vec::new();
    for (mechanism, deadlocks) in [
        ("detect, the youngest gives way", detect(Victim::Youngest)),
        ("detect, the oldest gives way", detect(Victim::Oldest)),
        ("detect, the fewest locks give way", detect(Victim::FewestLocks)),
        ("detect, the requester gives way", detect(Victim::Requester)),
    ] {
        let count = count(deadlocks, WhenStuck::Stop)?;
        with.push(Case::new(mechanism, count.counts(), one_each(&count)));
    }
    for (mechanism, deadlocks, when_stuck) in [
        ("wound-wait", Deadlocks::WoundWait, WhenStuck::Stop),
        ("wait-die", Deadlocks::WaitDie, WhenStuck::Stop),
        ("no-wait: whoever would wait gives way", Deadlocks::NoWait, WhenStuck::Stop),
        ("lock timeout", Deadlocks::TimeoutOnly, WhenStuck::TimeOut),
    ] {
        let count = count(deadlocks, when_stuck)?;
        with.push(Case::new(mechanism, count.counts(), none_waits(&count)));
    }
    Ok(Hazard { name: "deadlock", program: "crosswise, ring of three, two upgrades, span against key", without, with })
}

#[derive(Default)]
struct Count {
    committed: u64,
    victims: u64,
    waiting: u64,
}

impl Count {
    fn counts(&self) -> Counts {
        vec![("committed", self.committed), ("victims", self.victims), ("stuck", self.waiting)]
    }
}

/// Runs every shape once: nobody tries again.
fn count(deadlocks: Deadlocks, when_stuck: WhenStuck) -> isolde::Result<Count> {
    let mut count = Count::default();
    for shape in shapes() {
        let db = Db::builder().in_memory().deadlocks(deadlocks).open()?;
        let job = |body| Job {
            isolation: Isolation::Serializable,
            mode: Mode::Pessimistic,
            body,
            goal: 1,
            again: Again::Never,
            from: 0,
        };
        let tallies = Crew::new(&db, shape.into_iter().map(job), Order::InTurn).run(Until::Done, when_stuck);
        let number = |of: fn(&Tally) -> bool| tallies.iter().filter(|tally| of(tally)).count() as u64;
        count.committed += number(|tally| tally.commits == 1);
        count.victims += number(|tally| tally.gave_up);
        count.waiting += number(|tally| tally.waits);
    }
    Ok(count)
}
