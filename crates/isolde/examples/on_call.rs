//! Write skew: two doctors ask to go off call at the same moment, each sees the other on call, and both go.
//! What stops it, and how the loser is told.
//!
//! `cargo run -p isolde --example on_call`

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use isolde::{Db, Error, Isolation, Mode, Result, Txn, prefix};

const DOCTORS: [&str; 2] = ["oncall/alice", "oncall/bob"];

/// How the rule is looked at: somebody must stay on call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    /// As the level reads.
    Plain,
    /// As something that this transaction's write rests on.
    ForUpdate,
}

fn go_off_call(t: &Txn, me: &str, look: Look, both_have_looked: impl Fn()) -> Result<()> {
    let mut on_call = 0;
    for doctor in DOCTORS {
        let state = if look == Look::Plain { t.get(doctor)? } else { t.get_for_update(doctor)? };
        on_call += usize::from(state.is_some_and(|state| state == "yes"));
    }
    both_have_looked();
    if on_call < 2 {
        return Err(Error::abort("somebody must stay on call"));
    }
    t.put(me, "no")
}

/// How many doctors are on call after both have asked to leave.
fn night(isolation: Isolation, mode: Mode, look: Look) -> Result<usize> {
    let db = Db::builder().in_memory().on_retry(|retry| println!("{:#}\n", retry.error)).open()?;
    DOCTORS.iter().try_for_each(|doctor| db.put(doctor, "yes"))?;
    let both = Barrier::new(2);
    thread::scope(|scope| {
        for me in DOCTORS {
            let (db, both) = (&db, &both);
            scope.spawn(move || {
                let attempts = AtomicU32::new(0);
                // Where looking takes a lock the other cannot have looked, too.
                let meet = || {
                    if attempts.fetch_add(1, Ordering::Relaxed) == 0
                        && !(look == Look::ForUpdate && mode == Mode::Pessimistic)
                    {
                        both.wait();
                    }
                };
                // Refused is as good an answer as granted; what counts is the state after both.
                let _ = db.txn().isolation(isolation).mode(mode).label(me).run(|t| go_off_call(t, me, look, meet));
            });
        }
    });
    let left = db.snapshot()?.scan(prefix("oncall/")).collect::<Result<Vec<_>>>()?;
    Ok(left.iter().filter(|(_, state)| state == "yes").count())
}

fn main() -> Result<()> {
    for (isolation, mode, look, expected) in [
        (Isolation::Snapshot, Mode::Optimistic, Look::Plain, 0),
        (Isolation::Snapshot, Mode::Optimistic, Look::ForUpdate, 1),
        (Isolation::Snapshot, Mode::Pessimistic, Look::ForUpdate, 1),
        (Isolation::RepeatableRead, Mode::Optimistic, Look::Plain, 1),
        (Isolation::Serializable, Mode::Pessimistic, Look::Plain, 1),
        (Isolation::Serializable, Mode::Optimistic, Look::Plain, 1),
    ] {
        println!("--- {isolation}, {mode}, {look:?}");
        let on_call = night(isolation, mode, look)?;
        println!("{on_call} on call\n");
        assert_eq!(on_call, expected, "{isolation} {mode} {look:?}");
    }
    Ok(())
}

#[test]
fn somebody_stays_on_call_unless_the_level_is_too_weak() {
    main().unwrap();
}
