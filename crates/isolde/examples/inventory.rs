//! A shop with one piece left, and two customers at the same moment: the same code at every level and mode
//! shows who oversells.
//!
//! `cargo run -p isolde --example inventory`

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use isolde::{Db, Isolation, Mode, Result, Table, Txn};

const STOCK: Table<String, i64> = Table::new("stock");

/// Read, decide, write: right where the level keeps what was read, wrong elsewhere.
fn buy(t: &Txn, both_have_looked: impl Fn()) -> Result<bool> {
    let stock = t.table(STOCK);
    let left = stock.get("lamp")?.unwrap_or(0);
    both_have_looked();
    if left == 0 {
        return Ok(false);
    }
    stock.put("lamp", left - 1)?;
    Ok(true)
}

/// The same, right at every level: whoever reads to write says so.
fn buy_for_update(t: &Txn) -> Result<bool> {
    let stock = t.table(STOCK);
    let left = stock.get_for_update("lamp")?.unwrap_or(0);
    if left == 0 {
        return Ok(false);
    }
    stock.put("lamp", left - 1)?;
    Ok(true)
}

/// How many lamps two customers get of the one that is there.
fn sell(isolation: Isolation, mode: Mode, body: impl Fn(&Txn, u32) -> Result<bool> + Sync) -> Result<usize> {
    let db = Db::builder().in_memory().open()?;
    db.table(STOCK).put("lamp", 1)?;
    let customer = || {
        let attempts = AtomicU32::new(0);
        let txn = db.txn().isolation(isolation).mode(mode).label("customer");
        txn.run(|t| body(t, attempts.fetch_add(1, Ordering::Relaxed)))
    };
    let sold = thread::scope(|scope| {
        let customers = [scope.spawn(customer), scope.spawn(customer)];
        customers.map(|customer| customer.join().expect("no customer panics"))
    });
    sold.into_iter().try_fold(0, |sum, sold| Ok(sum + usize::from(sold?)))
}

/// Both look at the shelf before either buys: the unlucky moment, made certain. Only the first attempt waits
/// for the other customer; a retry finds him gone.
fn sell_at_the_same_moment(isolation: Isolation, mode: Mode) -> Result<usize> {
    let both = Barrier::new(2);
    sell(isolation, mode, |t, attempt| {
        buy(t, || {
            if attempt == 0 {
                both.wait();
            }
        })
    })
}

fn main() -> Result<()> {
    println!("{:<18}{:<14}{:<10}with get_for_update", "level", "mode", "sold of 1");
    for isolation in Isolation::ALL {
        for mode in Mode::ALL {
            let sold = sell_at_the_same_moment(isolation, mode)?;
            let careful = sell(isolation, mode, |t, _| buy_for_update(t))?;
            let remark = if sold > 1 { "  oversold" } else { "" };
            println!("{isolation:<18}{mode:<14}{sold:<10}{careful}{remark}");
            let oversells = !isolation.guarantees(mode).forbidden.contains(&isolde::Anomaly::LostUpdate);
            assert_eq!(sold, if oversells { 2 } else { 1 }, "{isolation} {mode}");
            assert_eq!(careful, 1, "{isolation} {mode}");
        }
    }
    Ok(())
}

#[test]
fn only_levels_that_let_updates_be_lost_oversell() {
    main().unwrap();
}
