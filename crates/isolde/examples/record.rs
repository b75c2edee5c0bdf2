//! Testing your own service: record what its transactions did, and have it judged.
//!
//! `cargo run -p isolde --example record --features record`

use std::thread;

use isolde::{Db, Isolation, Result};
use isolde_history::{assert_levels_kept, assert_serializable};

/// The service under test: moves an item from one list to another.
fn shift(db: &Db, isolation: Isolation, from: &str, to: &str) -> Result<()> {
    db.txn().isolation(isolation).label("shift").run(|t| {
        let Some((key, item)) = t.first(isolde::prefix(from))? else { return Ok(()) };
        t.delete(&key)?;
        t.put([to.as_bytes(), &key[from.len()..]].concat(), item)
    })
}

fn main() -> Result<()> {
    let db = Db::builder().in_memory().open()?;
    for i in 0..10 {
        db.put(format!("todo/{i}"), "item")?;
    }
    let recorder = db.recorder()?;
    thread::scope(|scope| {
        let both = [("todo/", "done/"), ("done/", "todo/")];
        let threads = both.map(|(from, to)| {
            let db = &db;
            scope.spawn(move || (0..20).try_for_each(|_| shift(db, Isolation::Serializable, from, to)))
        });
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let history = recorder.finish();
    // Each panics with the smallest cycle, in words, if it does not hold.
    assert_levels_kept!(history);
    assert_serializable!(history);
    println!("{} events recorded: every level was kept, and all of it is serializable", history.events.len());
    Ok(())
}

#[test]
fn the_service_is_serializable() {
    main().unwrap();
}
