//! Starvation: others get through all the time, and one never does.
//!
//! Twice: a writer under a stream of readers, of which one always holds the key; and a long
//! optimistic transaction against a stream of short ones, of which one always commits in between.

use isolde::{Db, Deadlocks, Isolation, Mode, RetryPolicy};

use super::crew::{Again, Call, Crew, FOR_EVER, Job, Tally, Until, WhenStuck};
use super::{Case, Counts, Hazard, random};

const STEPS: u64 = 5_000;

pub(super) fn run() -> isolde::Result<Vec<Hazard>> {
    Ok(vec![writer()?, long()?])
}

fn writer() -> isolde::Result<Hazard> {
    let (tally, counts) = among_readers(Deadlocks::NoWait)?;
    let without = Case::new("the writer must find no reader", counts, tally.commits == 0);
    let detect = Deadlocks::Detect { victim: isolde::Victim::Youngest };
    let (tally, counts) = among_readers(detect)?;
    // In front of the writer stand at most the readers that had the key when it came.
    let fair = tally.commits == 1 && tally.attempts == 1 && tally.wait_max < 20 * READERS;
    let with = vec![Case::new("a queue in the order of arrival", counts, fair)];
    Ok(Hazard { name: "starvation", program: "a writer under a stream of readers", without, with })
}

const READERS: u64 = 8;

/// One writer among readers whose transactions overlap.
fn among_readers(deadlocks: Deadlocks) -> isolde::Result<(Tally, Counts)> {
    let db = Db::builder().in_memory().deadlocks(deadlocks).open()?;
    let job = |body, goal, from| Job {
        isolation: Isolation::Serializable,
        mode: Mode::Pessimistic,
        body,
        goal,
        again: Again::AtOnce,
        from,
    };
    let reader = job(vec![Call::Get("x"), Call::Get("y"), Call::Get("z"), Call::Get("y"), Call::Get("z")], FOR_EVER, 0);
    let readers = (0..READERS).map(|_| reader.clone());
    let jobs = readers.chain([job(vec![Call::Put("x")], 1, 100)]);
    count(&db, jobs)
}

fn long() -> isolde::Result<Hazard> {
    let (never, soon) = (u32::MAX, RetryPolicy::default().escalate_after);
    let (tally, counts) = among_short_ones(Mode::Optimistic, Again::AtOnce, never)?;
    let without = Case::new("optimistic, again and again", counts, tally.commits == 0);
    let mut with = Vec::new();
    for (mechanism, mode, escalate_after, limit) in [
        ("escalation after three losses", Mode::Optimistic, soon, 12),
        ("pessimistic, age kept", Mode::Pessimistic, never, 12),
    ] {
        let (tally, counts) = among_short_ones(mode, Again::Kept, escalate_after)?;
        with.push(Case::new(mechanism, counts, tally.commits == 1 && tally.attempts <= limit));
    }
    Ok(Hazard { name: "starvation", program: "a long transaction against a stream of short ones", without, with })
}

/// One that reads many keys and writes one, among many that update one key each.
fn among_short_ones(mode: Mode, again: Again, escalate_after: u32) -> isolde::Result<(Tally, Counts)> {
    const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let retry = RetryPolicy::default().with_max_attempts(u32::MAX).with_escalate_after(escalate_after);
    let db = Db::builder().in_memory().retry(retry).open()?;
    let isolation = Isolation::Serializable;
    let short =
        |key| Job { isolation, mode, body: vec![Call::Get(key), Call::PutNext(key)], goal: FOR_EVER, again, from: 0 };
    let body = KEYS.into_iter().map(Call::Get).chain([Call::PutNext("f")]).collect();
    let jobs = KEYS.into_iter().map(short).chain([Job { isolation, mode, body, goal: 1, again, from: 100 }]);
    count(&db, jobs)
}

/// Runs until the last member has committed or the steps are over.
fn count(db: &Db, jobs: impl Iterator<Item = Job>) -> isolde::Result<(Tally, Counts)> {
    let mut tallies = Crew::new(db, jobs, random()).run(Until::Steps(STEPS), WhenStuck::Stop);
    let tally = tallies.pop().unwrap_or_default();
    let others = tallies.iter().map(|other| other.commits).sum();
    let Tally { commits, attempts, wait_max, .. } = tally;
    Ok((tally, vec![("commits", commits), ("attempts", attempts), ("waited", wait_max), ("others", others)]))
}
