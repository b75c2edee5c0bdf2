//! Who holds what, who waits for whom, and why a deadlock happened: what a service shows on its debug page.
//!
//! `cargo run -p isolde --example inspect`

use std::thread;

use isolde::{Db, ErrorKind, LockMode, Mode, Result};

fn main() -> Result<()> {
    let db = Db::builder().in_memory().mode(Mode::Pessimistic).open()?;
    let order = db.txn().label("order").begin()?;
    let refund = db.txn().label("refund").begin()?;
    order.put("stock/lamp", "0")?;
    refund.put("account/7", "12")?;
    refund.lock("audit/".."audit0", LockMode::Shared)?;

    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            order.put("account/7", "5")?;
            order.commit()
        });
        // Of a service one would look at any time; here something is to be seen.
        while db.waits_for().is_empty() {
            thread::yield_now();
        }
        for transaction in db.transactions() {
            println!("{transaction}");
        }
        println!("\n{}\n{}", db.locks(), db.waits_for());
        println!("{}\n\n{}", db.waits_for().to_json(), db.waits_for().to_dot());

        // The other way round: a circle. The younger gives way, at once, and the older goes on.
        let deadlock = refund.put("stock/lamp", "1").expect_err("a deadlock is found when it arises");
        assert_eq!(deadlock.kind(), ErrorKind::Deadlock);
        println!("{deadlock:#}\n");
        waiting.join().expect("no panic")?;
        Ok::<_, isolde::Error>(())
    })?;

    for deadlock in db.recent_deadlocks() {
        println!("remembered: {deadlock}");
    }
    println!("{:#?}", db.stats());
    Ok(())
}

#[test]
fn a_deadlock_is_shown_and_resolved() {
    main().unwrap();
}
