//! A job queue: workers take the first job that nobody else has, and a job whose worker fails comes back.
//!
//! `cargo run -p isolde --example queue`

use std::collections::BTreeSet;
use std::thread;

use isolde::{Bytes, Db, Error, Isolation, Mode, Result, RowKey, Txn, prefix};

const JOBS: usize = 100;

/// Takes the next job, if there is one: locked by this transaction until it ends, and passed over by the
/// others meanwhile.
fn take(t: &Txn) -> Result<Option<(RowKey, Bytes)>> {
    t.scan(prefix("job/")).for_update().skip_locked().next().transpose()
}

/// One job, done and removed in one transaction. An error, a panic, a killed process: all roll back, and the
/// job is there for the next worker, `attempts` having been counted.
fn work(db: &Db, label: &str) -> Result<Option<RowKey>> {
    // skip_locked needs a level that does not promise to read the same again, and locks, so the pessimistic mode.
    let txn = db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Pessimistic).label(label);
    txn.run(|t| {
        let Some((key, payload)) = take(t)? else { return Ok(None) };
        if payload.starts_with(b"bad") {
            // Puts it aside instead of trying for ever: with the reason, in the same transaction.
            t.put([b"failed/", &key[..]].concat(), "cannot be done")?;
        } else {
            t.increment("done", 1)?;
        }
        t.delete(&key)?;
        Ok(Some(key))
    })
}

fn main() -> Result<()> {
    let db = Db::builder().in_memory().open()?;
    for i in 0..JOBS {
        // Zeros in front: keys stand in the order of their bytes.
        db.put(format!("job/{i:06}"), if i % 10 == 9 { "bad" } else { "mail" })?;
    }

    // Two workers at once, step by step: the second passes over what the first has.
    let begin = || db.txn().isolation(Isolation::ReadCommitted).mode(Mode::Pessimistic).begin();
    let (one, two) = (begin()?, begin()?);
    let taken = (take(&one)?.map(|job| job.0), take(&two)?.map(|job| job.0));
    println!("the first has {:?}, the second {:?}", taken.0, taken.1);
    assert_eq!(taken, (Some("job/000000".into()), Some("job/000001".into())));
    one.rollback(); // a failure: job 0 is the first again
    two.rollback();

    let done: Vec<RowKey> = thread::scope(|scope| {
        let worker = |number: usize| {
            let db = &db;
            move || {
                let label = format!("worker {number}");
                std::iter::from_fn(|| work(db, &label).transpose()).collect::<Result<Vec<RowKey>>>()
            }
        };
        let workers: Vec<_> = (0..4).map(|number| scope.spawn(worker(number))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).collect::<Result<Vec<_>>>()
    })?
    .concat();

    let counter = db.get("done")?.ok_or_else(|| Error::abort("nothing was done"))?;
    println!("{} jobs ended, {} were done", done.len(), i64::from_be_bytes(counter[..].try_into().unwrap_or_default()));
    println!("{} were put aside", db.snapshot()?.scan(prefix("failed/")).count());
    assert_eq!(done.len(), JOBS, "each job ended");
    assert_eq!(done.iter().collect::<BTreeSet<_>>().len(), JOBS, "and none twice");
    assert_eq!(db.first(prefix("job/"))?, None);
    Ok(())
}

#[test]
fn each_job_is_done_once() {
    main().unwrap();
}
