//! Typed tables: accounts by number, and an index of them by owner that is kept in the same transaction.
//!
//! `cargo run -p isolde --example tables --features json`

use isolde::{Db, Error, Json, Table, Txn};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Debug)]
struct Account {
    owner: String,
    cents: i64,
}

const ACCOUNTS: Table<u64, Json<Account>> = Table::new("accounts");
/// By owner, then number; there is nothing more to say.
const BY_OWNER: Table<(String, u64), ()> = Table::new("accounts by owner");

fn open_account(t: &Txn, owner: &str, cents: i64) -> isolde::Result<u64> {
    let number = t.table(ACCOUNTS).last(..)?.map_or(1, |(number, _)| number + 1);
    t.table(ACCOUNTS).insert(&number, &Account { owner: owner.to_owned(), cents })?;
    t.table(BY_OWNER).insert(&(owner.to_owned(), number), ())?;
    Ok(number)
}

fn transfer(t: &Txn, from: u64, to: u64, cents: i64) -> isolde::Result<()> {
    let accounts = t.table(ACCOUNTS);
    let read = |number| accounts.get(&number)?.ok_or_else(|| Error::abort(format!("there is no account {number}")));
    let (mut source, mut target) = (read(from)?, read(to)?);
    if source.cents < cents {
        return Err(Error::abort(format!("account {from} has only {} cents", source.cents)));
    }
    source.cents -= cents;
    target.cents += cents;
    accounts.put(&from, &source)?;
    accounts.put(&to, &target)
}

fn main() -> isolde::Result<()> {
    let db = Db::builder().in_memory().open()?;
    let ada = db.transact(|t| open_account(t, "Ada", 500))?;
    let bob = db.transact(|t| open_account(t, "Bob", 20))?;
    db.transact(|t| open_account(t, "Ada", 0))?;
    db.transact(|t| transfer(t, ada, bob, 120))?;

    let t = db.snapshot()?;
    for row in t.table(BY_OWNER).scan_prefix(&"Ada".to_owned()) {
        let ((owner, number), ()) = row?;
        let account = t.table(ACCOUNTS).get(&number)?;
        println!("{owner} has account {number} with {} cents", account.map_or(0, |account| account.cents));
    }
    println!("the last account is {:?}", t.table(ACCOUNTS).last(..)?);
    Ok(())
}

#[test]
fn accounts_and_their_index_agree() {
    main().unwrap();
}
