//! Race condition: several members add one to the same counter, each reading it first.

use isolde::{Db, Isolation, Mode};

use super::crew::{Again, Call, Crew, Job, Tally, Until, WhenStuck, number};
use super::{Case, Counts, Hazard, random};

const MEMBERS: u64 = 4;
const EACH: u64 = 25;

pub(super) fn run() -> isolde::Result<Hazard> {
    use Call::{CasNext, Get, GetForUpdate, Increment, PutNext};
    use Isolation::{ReadCommitted, Serializable};
    use Mode::{Optimistic, Pessimistic};
    let plain = vec![Get("n"), PutNext("n")];
    let (_, lost, counts) = count(ReadCommitted, Pessimistic, plain.clone())?;
    let without = Case::new("get and put at read committed", counts, lost > 0);
    let mut with = Vec::new();
    for (mechanism, isolation, mode, body) in [
        ("increment", ReadCommitted, Pessimistic, vec![Increment("n")]),
        ("compare-and-set", ReadCommitted, Pessimistic, vec![Get("n"), CasNext("n")]),
        ("get-for-update", ReadCommitted, Pessimistic, vec![GetForUpdate("n"), PutNext("n")]),
        ("serializable, pessimistic", Serializable, Pessimistic, plain.clone()),
        ("serializable, optimistic", Serializable, Optimistic, plain),
    ] {
        let (committed, lost, counts) = count(isolation, mode, body)?;
        with.push(Case::new(mechanism, counts, committed == MEMBERS * EACH && lost == 0));
    }
    Ok(Hazard { name: "race condition", program: "four members add one to a counter", without, with })
}

/// Runs the members; says how many updates were committed, and how many of them are not in the sum.
fn count(isolation: Isolation, mode: Mode, body: Vec<Call>) -> isolde::Result<(u64, u64, Counts)> {
    let db = Db::builder().in_memory().open()?;
    db.put("n", 0_i64.to_be_bytes())?;
    let job = Job { isolation, mode, body, goal: EACH, again: Again::AtOnce, from: 0 };
    let jobs = (0..MEMBERS).map(|_| job.clone());
    let tallies = Crew::new(&db, jobs, random()).run(Until::Done, WhenStuck::Stop);
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let committed = sum(|tally| tally.commits);
    let found = u64::try_from(number(db.get("n")?.as_ref())).unwrap_or(0);
    let lost = committed.saturating_sub(found);
    let counts = vec![("updates", committed), ("lost", lost), ("attempts", sum(|tally| tally.attempts))];
    Ok((committed, lost, counts))
}
