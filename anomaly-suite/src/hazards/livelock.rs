//! Livelock: everybody works, and nobody gets anywhere.
//!
//! Twice: optimistic bodies in step, of which all but one are undone in every round (one always gets
//! through: certification never aborts two for each other's sake, so what explodes is the number of
//! attempts that a commit takes); and pessimistic bodies that never wait but let go and start again, in step, which
//! really get nowhere.

use isolde::{Db, Deadlocks, Isolation, Mode, RetryPolicy, Victim};

use super::crew::{Again, Call, Crew, Job, Order, Tally, Until, WhenStuck};
use super::{Case, Counts, Hazard, random};

pub(super) fn run() -> isolde::Result<Vec<Hazard>> {
    Ok(vec![optimistic()?, no_wait()?])
}

const MEMBERS: u64 = 6;
const EACH: u64 = 10;

fn optimistic() -> isolde::Result<Hazard> {
    let (never, soon) = (u32::MAX, RetryPolicy::default().escalate_after);
    let (most, counts) = storm(Again::AtOnce, never, Order::InTurn)?;
    let without = Case::new("optimistic, in step, at once again", counts, most > 2 * MEMBERS);
    let mut with = Vec::new();
    for (mechanism, again, escalate_after, order, limit) in [
        ("the key lost on is locked first", Again::Kept, never, Order::InTurn, MEMBERS),
        ("and random pauses that grow", Again::KeptAfterPause, never, random(), MEMBERS),
        ("and escalation: the default", Again::KeptAfterPause, soon, random(), u64::from(soon) + 2),
    ] {
        let (most, counts) = storm(again, escalate_after, order)?;
        with.push(Case::new(mechanism, counts, most <= limit));
    }
    Ok(Hazard { name: "livelock", program: "six optimistic members update one key", without, with })
}

/// Everybody updates one key; says the most attempts that one commit took.
fn storm(again: Again, escalate_after: u32, order: Order) -> isolde::Result<(u64, Counts)> {
    let retry = RetryPolicy::default().with_max_attempts(u32::MAX).with_escalate_after(escalate_after);
    let db = Db::builder().in_memory().retry(retry).open()?;
    let (isolation, mode) = (Isolation::Serializable, Mode::Optimistic);
    let job = Job { isolation, mode, body: vec![Call::Get("n"), Call::PutNext("n")], goal: EACH, again, from: 0 };
    let jobs = (0..MEMBERS).map(|_| job.clone());
    let tallies = Crew::new(&db, jobs, order).run(Until::Steps(100_000), WhenStuck::Stop);
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let most = tallies.iter().map(|tally| tally.attempts_max).max().unwrap_or(0);
    let (commits, attempts) = (sum(|tally| tally.commits), sum(|tally| tally.attempts));
    Ok((most, vec![("commits", commits), ("attempts", attempts), ("worst", most)]))
}

fn no_wait() -> isolde::Result<Hazard> {
    let (commits, counts) = crosswise(Deadlocks::NoWait, Again::AtOnce, Order::InTurn)?;
    let without = Case::new("never waiting, in step, at once again", counts, commits == 0);
    let mut with = Vec::new();
    let detect = Deadlocks::Detect { victim: Victim::Youngest };
    for (mechanism, deadlocks, again, order) in [
        ("random pauses that grow", Deadlocks::NoWait, Again::KeptAfterPause, random()),
        ("waiting, deadlocks detected, age kept", detect, Again::Kept, Order::InTurn),
        ("wound-wait, age kept", Deadlocks::WoundWait, Again::Kept, Order::InTurn),
    ] {
        let (commits, counts) = crosswise(deadlocks, again, order)?;
        with.push(Case::new(mechanism, counts, commits == 2 * EACH));
    }
    Ok(Hazard { name: "livelock", program: "two members lock two keys crosswise, again and again", without, with })
}

/// Two members lock two keys crosswise, again and again, for at most 2,000 steps.
fn crosswise(deadlocks: Deadlocks, again: Again, order: Order) -> isolde::Result<(u64, Counts)> {
    let retry = RetryPolicy::default().with_max_attempts(u32::MAX);
    let db = Db::builder().in_memory().deadlocks(deadlocks).retry(retry).open()?;
    let (isolation, mode) = (Isolation::Serializable, Mode::Pessimistic);
    let job = |body| Job { isolation, mode, body, goal: EACH, again, from: 0 };
    let jobs = [job(vec![Call::Put("a"), Call::Put("b")]), job(vec![Call::Put("b"), Call::Put("a")])];
    let tallies = Crew::new(&db, jobs, order).run(Until::Steps(2_000), WhenStuck::Stop);
    let commits = tallies.iter().map(|tally| tally.commits).sum();
    let attempts = tallies.iter().map(|tally| tally.attempts).sum();
    Ok((commits, vec![("commits", commits), ("attempts", attempts)]))
}
