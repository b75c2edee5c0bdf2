//! The crash oracle: a workload that knows what every prefix of it looks like, and what must be there
//! after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use isolde::{Builder, Db, Durability, Error, ErrorKind, Isolation, Mode, Txn};
use isolde_wal::sim::SimFs;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

const COUNT: &str = "count";
const FILLER: &str = "filler";
const SEGMENT: u64 = 64 << 10;

/// What was promised, and what every prefix of the workload looks like.
#[derive(Clone, Default)]
pub struct Promises {
    /// The state after the first `n` commits.
    states: Vec<Rows>,
    /// So many commits must survive a power cut.
    pub synced: usize,
    /// So many commits must survive the end of the process.
    pub written: usize,
    /// So many commits took place, at most: one whose outcome is unknown counts.
    pub begun: usize,
    /// Records in the log are filled up to a multiple of this, so that some end where a block does.
    record_multiple: Option<usize>,
}

impl Promises {
    /// Nothing was done yet.
    #[must_use]
    pub fn new() -> Promises {
        Promises { states: vec![Rows::new()], ..Promises::default() }
    }

    /// The same, with records of such lengths that in one of two seeds many begin and end with a block.
    #[must_use]
    pub fn of_seed(seed: u64) -> Promises {
        const MULTIPLES: [usize; 4] = [512, 1024, 2048, 4096];
        let which = usize::try_from(seed / 2).unwrap_or(0) % MULTIPLES.len();
        Promises { record_multiple: (seed % 2 == 1).then_some(MULTIPLES[which]), ..Promises::new() }
    }

    fn promise(&mut self, commits: usize, durability: Durability) {
        match durability {
            Durability::None => {}
            Durability::Buffered => self.written = self.written.max(commits),
            _ => {
                self.synced = self.synced.max(commits);
                self.written = self.written.max(commits);
            }
        }
    }

    /// Holds a recovered database to what was promised; gives how many commits it has.
    ///
    /// # Panics
    /// If anything acknowledged is missing, or half of a transaction is there, or a later one without an
    /// earlier one.
    pub fn hold(&self, db: &Db, at_least: usize, context: &str) -> usize {
        db.check().unwrap_or_else(|broken| panic!("{context}: {broken}"));
        let rows = rows(db);
        let commits = count(&rows);
        assert!(commits >= at_least, "{context}: {commits} commits, {at_least} were acknowledged");
        assert!(commits <= self.begun, "{context}: {commits} commits, only {} were begun", self.begun);
        assert_eq!(rows, self.states[commits], "{context}: not the state after {commits} commits");
        commits
    }

    /// How many commits a snapshot shows, which must be exactly those.
    ///
    /// # Panics
    /// If it shows anything else.
    #[must_use]
    pub fn served(&self, snapshot: &Txn) -> usize {
        let rows = rows_of(snapshot);
        let commits = count(&rows);
        assert_eq!(rows, self.states[commits], "not the state after {commits} commits");
        commits
    }

    /// What follows after a recovery that has kept `commits` of them.
    pub fn goes_on_from(&mut self, commits: usize) {
        self.states.truncate(commits + 1);
        (self.synced, self.written, self.begun) = (commits, commits, commits);
    }
}

fn rows(db: &Db) -> Rows {
    rows_of(&db.snapshot().expect("open"))
}

fn rows_of(snapshot: &Txn) -> Rows {
    snapshot.scan(..).map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).expect("readable")).collect()
}

fn count(rows: &Rows) -> usize {
    let value = rows.get(COUNT.as_bytes()).map_or([0; 8], |value| value[..].try_into().expect("a counter"));
    usize::try_from(u64::from_be_bytes(value)).expect("small")
}

/// A database on a simulated disk, without threads, so that a seed decides everything.
pub fn builder(disk: &SimFs) -> Builder {
    let write_behind = isolde::WriteBehind { write_bytes: 2 << 10, sync_bytes: 8 << 10, ..Default::default() };
    Db::builder()
        .vfs(Arc::new(disk.clone()))
        .log_segment_bytes(SEGMENT)
        .checkpoint_partition_bytes(300)
        .write_behind(write_behind)
        .no_threads()
}

/// Runs some transactions, reads and checkpoints; stops at the first failure of the disk.
///
/// # Errors
/// The failure.
pub fn run(db: &Db, promises: &mut Promises, rng: &mut Rng, steps: usize) -> Result<(), Error> {
    for _ in 0..steps {
        match rng.u8(..20) {
            0 => db.checkpoint()?,
            1..=3 => read(db, promises, rng)?,
            _ => write(db, promises, rng)?,
        }
    }
    Ok(())
}

fn durability(rng: &mut Rng) -> Durability {
    [Durability::Sync, Durability::Buffered, Durability::None][rng.usize(..3)]
}

/// One transaction: two equal values, a delete, a count.
fn write(db: &Db, promises: &mut Promises, rng: &mut Rng) -> Result<(), Error> {
    let number = promises.begun + 1;
    let (pair, gone) = (rng.u8(..4), rng.u8(..4));
    let size = if rng.u8(..4) == 0 { rng.usize(..20_000) } else { rng.usize(..60) };
    let value = [number.to_string().into_bytes(), vec![b'.'; size]].concat();
    let durability = durability(rng);
    let isolation = Isolation::ALL[rng.usize(..5)];
    let mode = Mode::ALL[rng.usize(..2)];
    let txn = db.txn().durability(durability).isolation(isolation).mode(mode).begin()?;
    txn.put(format!("{pair}/a"), &value)?;
    txn.put(format!("{pair}/b"), &value)?;
    txn.delete(format!("{gone}/c"))?;
    let again = rng.bool();
    if again {
        txn.put(format!("{gone}/c"), number.to_string())?;
    }
    txn.increment(COUNT, 1)?;
    let third = again.then(|| number.to_string().len());
    let lens = [(3, Some(value.len())), (3, Some(value.len())), (3, third), (COUNT.len(), Some(8))];
    let filler = promises.record_multiple.map(|multiple| vec![b'-'; filler(&lens, multiple)]);
    if let Some(filler) = &filler {
        txn.put(FILLER, filler)?;
    }

    let mut state = promises.states[promises.begun].clone();
    for key in ["a", "b"] {
        state.insert(format!("{pair}/{key}").into_bytes(), value.clone());
    }
    state.remove(format!("{gone}/c").as_bytes());
    if again {
        state.insert(format!("{gone}/c").into_bytes(), number.to_string().into_bytes());
    }
    if let Some(filler) = filler {
        state.insert(FILLER.into(), filler);
    }
    state.insert(COUNT.into(), (number as u64).to_be_bytes().to_vec());

    let outcome = txn.commit();
    if outcome.is_ok() || outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown) {
        promises.states.truncate(number);
        promises.states.push(state);
        promises.begun = number;
    }
    outcome?;
    promises.promise(number, durability);
    Ok(())
}

/// How long the filler's value must be for a record of these keys and values to have such a length.
fn filler(lens: &[(usize, Option<usize>)], multiple: usize) -> usize {
    const HEADER: usize = 32;
    // A number of at least 128 takes two bytes, of at least 16,384 three.
    let varint = |number: usize| (0..3).take_while(|sevens| number >> (7 * sevens) > 0).count().max(1);
    let operation = |key: usize, value: Option<usize>| {
        varint(value.map_or(0, |len| len + 1)) + varint(key) + key + value.unwrap_or(0)
    };
    let others: usize = HEADER + lens.iter().map(|(key, value)| operation(*key, *value)).sum::<usize>();
    let fits = |len: &usize| (others + operation(FILLER.len(), Some(*len))).is_multiple_of(multiple);
    // Where the length of the length steps over it, the next one does.
    (0..3 * multiple).find(fits).unwrap_or(0)
}

/// What a read shows is a promise, too.
fn read(db: &Db, promises: &mut Promises, rng: &mut Rng) -> Result<(), Error> {
    let durability = durability(rng);
    let isolation = Isolation::ALL[1 + rng.usize(..4)];
    let txn = db.txn().durability(durability).isolation(isolation).mode(Mode::ALL[rng.usize(..2)]);
    let count = match rng.u8(..3) {
        0 => txn.read_only().run(|t| t.get(COUNT))?,
        1 => txn.run(|t| t.get(COUNT))?,
        _ => {
            // A body that ends in its own result decided by what it read.
            let seen = std::cell::RefCell::new(None);
            let end = txn.run(|t| -> Result<(), Error> {
                *seen.borrow_mut() = t.get(COUNT)?;
                Err(Error::abort("seen"))
            });
            match end {
                Err(Error::Aborted(_)) => seen.take(),
                Err(other) => return Err(other),
                Ok(()) => unreachable!("the body fails"),
            }
        }
    };
    let seen = count.map_or(0, |value| u64::from_be_bytes(value[..].try_into().expect("a counter")));
    promises.promise(usize::try_from(seen).expect("small"), durability);
    Ok(())
}
