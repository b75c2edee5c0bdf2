//! A bank: transfers in threads, retried when they meet, with an error of their own; a report beside them.
//!
//! `cargo run -p isolde --example bank`

use std::fmt;
use std::thread;

use isolde::{Db, Error, Isolation, Table};

const ACCOUNTS: Table<u32, i64> = Table::new("accounts");
const NUMBER_OF_ACCOUNTS: u32 = 5;
const CENTS_EACH: i64 = 100;

/// Why a transfer did not happen. `From<isolde::Error>` is all that a body's error type needs.
#[derive(Debug)]
enum BankError {
    Insufficient { have: i64, need: i64 },
    NoSuchAccount(u32),
    Db(Error),
}

impl From<Error> for BankError {
    fn from(error: Error) -> Self {
        BankError::Db(error)
    }
}

impl fmt::Display for BankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BankError::Insufficient { have, need } => write!(f, "{need} cents are more than the {have} there are"),
            BankError::NoSuchAccount(account) => write!(f, "there is no account {account}"),
            BankError::Db(error) => write!(f, "{error:#}"),
        }
    }
}

/// Moves money. The body may run several times, so it changes nothing outside its transaction; what it
/// returns is what the attempt that committed has seen.
fn transfer(db: &Db, from: u32, to: u32, cents: i64) -> Result<i64, BankError> {
    db.txn().label("transfer").run(|t| {
        let accounts = t.table(ACCOUNTS);
        let have = accounts.get(&from)?.ok_or(BankError::NoSuchAccount(from))?;
        accounts.get(&to)?.ok_or(BankError::NoSuchAccount(to))?;
        if have < cents {
            // Rolls back, and is not retried.
            return Err(BankError::Insufficient { have, need: cents });
        }
        // Beside a read of the same key an increment is an ordinary write: if somebody came between, it is retried.
        accounts.increment(&from, -cents)?;
        accounts.increment(&to, cents)?;
        Ok(have - cents)
    })
}

/// All the money, as of one instant. A read-only snapshot waits for nobody, and nobody waits for it.
fn total(db: &Db) -> isolde::Result<i64> {
    let report = db.txn().isolation(Isolation::Snapshot).read_only().label("report");
    report.run(|t| t.table(ACCOUNTS).scan(..).try_fold(0, |sum, row| Ok::<_, Error>(sum + row?.1)))
}

fn main() -> Result<(), BankError> {
    let db = Db::builder().in_memory().open()?;
    for account in 0..NUMBER_OF_ACCOUNTS {
        db.table(ACCOUNTS).put(&account, CENTS_EACH)?;
    }
    let all = i64::from(NUMBER_OF_ACCOUNTS) * CENTS_EACH;

    thread::scope(|scope| {
        let teller = |first: u32| {
            let db = &db;
            move || {
                let mut refused = 0;
                for i in 0..500 {
                    let (from, to) = ((first + i) % NUMBER_OF_ACCOUNTS, (first + 3 * i + 1) % NUMBER_OF_ACCOUNTS);
                    match transfer(db, from, to, i64::from(i % 40)) {
                        Ok(_) => {}
                        Err(BankError::Insufficient { .. }) => refused += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
                refused
            }
        };
        let tellers: Vec<_> = (0..4).map(|first| scope.spawn(teller(first))).collect();
        while !tellers.iter().all(|teller| teller.is_finished()) {
            assert_eq!(total(&db).expect("a report never aborts"), all, "money was made or lost");
        }
        let refused: u32 = tellers.into_iter().map(|teller| teller.join().expect("no teller panics")).sum();
        println!("{refused} transfers were refused for want of money");
    });

    println!("{}", transfer(&db, 0, 99, 1).expect_err("there is no such account"));
    println!("{}", transfer(&db, 0, 1, 1_000_000).expect_err("nobody has that much"));
    let stats = db.stats();
    println!("{} commits, {} conflicts, {} bodies run again", stats.committed, stats.conflicts, stats.retries);
    println!("{} cents in all, as at the start", total(&db)?);
    assert_eq!(total(&db)?, all);
    Ok(())
}

#[test]
fn money_is_neither_made_nor_lost() {
    main().unwrap();
}
