//! From what sessions answer to a history with versions.
//!
//! | seen | recorded |
//! | --- | --- |
//! | a value with the mark 2.1 | a read of that write; whether it was ever committed is for the checker to say |
//! | a value with the mark 0.0 | a read of the initial state |
//! | no value | a read of the initial absence or of the delete that took the value away, if only one can be meant |
//! | an increment | a write of what it came to: the row is locked while it reads and writes |
//! | a commit | its place among the commits: they end one after the other |
//! | the trails of the final state | the order of the versions, where it is not that of the commits |
//!
//! *What cannot be said*: a deleted row leaves nothing behind, so where a key was deleted twice, or was
//! absent at first and deleted once, nobody can tell which absence a read saw. Then the run is not judged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use isolde_history::model::{Event, History, ReadKind, Row, TxnKey, Version};
use isolde_history::schedule::{Begin, Database, Failure, FailureClass, Operation, Output, Schedule, Swap};
use isolde_types::{Key, Span, Ts, escape_key};

use super::mark::{Mark, Stored};
use crate::engine::Level;

/// Sessions of a database, one per transaction.
///
/// Marks are stored beside the values, as [`Stored`] says. An operation that fails and leaves its
/// transaction alive must have left no trace.
pub trait Sessions {
    /// Whether a row keeps the marks of all its writers, or of the last one only.
    const TRAILS: bool;

    /// Begins a transaction at one of the database's own levels.
    ///
    /// # Errors
    /// When the database refuses to begin it.
    fn begin(&mut self, txn: usize, begin: &Begin<'_>, level: &Level) -> Result<(), Failure>;

    /// Starts an operation; what it writes carries this mark.
    fn start(&mut self, txn: usize, operation: &Operation<Bytes>, mark: Mark);

    /// Goes on with the operation that `txn` started last. `Blocked` is known, never guessed.
    fn poll(&mut self, txn: usize) -> Progress;

    /// For whom a blocked transaction waits, by its number.
    fn waits_for(&mut self, _txn: usize) -> Option<usize> {
        None
    }

    /// All rows, once every transaction has ended.
    ///
    /// # Errors
    /// When they cannot be read.
    fn rows(&mut self) -> Result<Vec<(Key, Stored)>, String>;
}

/// How far an operation has come.
#[derive(Debug)]
pub enum Progress {
    /// It has ended.
    Done(Result<Answer, Failure>),
    /// It waits for another transaction: the database says so.
    Blocked,
}

/// What an operation answered.
#[derive(Debug)]
pub enum Answer {
    /// Nothing: a put, an insert, a delete, a savepoint, an end.
    Done,
    /// What a key held.
    Found(Option<Stored>),
    /// The rows of a span.
    Rows(Vec<(Key, Stored)>),
    /// What an increment came to.
    Came(Bytes),
    /// A compare-and-set found this, and wrote or did not.
    CompareAndSet {
        /// What the key held before.
        found: Option<Stored>,
        /// Whether it was written.
        swap: Swap,
    },
}

/// A database behind sessions, as schedules drive it.
pub struct Traced<S> {
    sessions: S,
    levels: Vec<Level>,
    names: HashMap<usize, String>,
    txns: HashMap<usize, Txn>,
    /// Whoever is blocked, in the order in which they began to be.
    blocked: Vec<(usize, Waker)>,
    history: History,
    commits: u64,
    /// The writes that became versions, in the order of the commits.
    installed: BTreeMap<Key, Vec<Installed>>,
    /// Every delete, by key.
    deletes: BTreeMap<Key, Vec<Mark>>,
    /// Every key that was ever written.
    keys: BTreeSet<Key>,
    doubts: Vec<String>,
    complaints: Vec<String>,
    rows: Vec<(Key, Stored)>,
}

struct Installed {
    mark: Mark,
    deleted: bool,
}

struct Txn {
    key: TxnKey,
    /// How many writes it has made, those that were undone included.
    count: u32,
    /// Those that stand.
    writes: Vec<OwnWrite>,
    savepoints: Vec<(String, u32)>,
    operation: Option<Operation<Bytes>>,
}

struct OwnWrite {
    seq: u32,
    key: Key,
    deleted: bool,
}

impl<S: Sessions> Traced<S> {
    /// A database that holds the initial state of a schedule, and offers these levels.
    pub fn new(sessions: S, schedule: &Schedule, levels: Vec<Level>) -> Self {
        Traced {
            sessions,
            levels,
            names: HashMap::new(),
            txns: HashMap::new(),
            blocked: Vec::new(),
            history: History { initial: schedule.initial.clone(), ..History::default() },
            commits: 0,
            installed: BTreeMap::new(),
            deletes: BTreeMap::new(),
            keys: schedule.initial.iter().map(|(key, _)| key.clone()).collect(),
            doubts: Vec::new(),
            complaints: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Records what an operation did; what the driver is told.
    fn ended(&mut self, txn: usize, result: Result<Answer, Failure>) -> Result<Output, Failure> {
        let Some(mut state) = self.txns.remove(&txn) else { return result.map(|_| Output::Done) };
        let operation = state.operation.take();
        let output = match (result, operation) {
            (Ok(answer), Some(operation)) => Ok(self.succeeded(&mut state, operation, answer)),
            (Ok(_), None) => Ok(Output::Done),
            (Err(failure), _) => Err(failure),
        };
        match &output {
            Err(Failure { class: FailureClass::Unknown, ended: true, .. }) => {
                self.history.events.push(Event::Unknown { txn: state.key });
            }
            Err(Failure { ended: true, .. }) => self.history.events.push(Event::Abort { txn: state.key }),
            _ => drop(self.txns.insert(txn, state)),
        }
        output
    }

    fn succeeded(&mut self, txn: &mut Txn, operation: Operation<Bytes>, answer: Answer) -> Output {
        match (operation, answer) {
            (Operation::Get(key) | Operation::GetForUpdate(key), Answer::Found(found)) => {
                Output::Value(self.read(txn, &key, found.as_ref()))
            }
            (Operation::Scan(place), Answer::Rows(rows)) => Output::Rows(self.scan(txn, place.span(), rows)),
            (Operation::Put(key, value), _) => self.wrote(txn, key, Some(value)),
            (Operation::Insert(key, value), _) => {
                self.read(txn, &key, None);
                self.wrote(txn, key, Some(value))
            }
            (Operation::Delete(key), _) => self.wrote(txn, key, None),
            (Operation::Increment(key, _), Answer::Came(value)) => self.wrote(txn, key, Some(value)),
            (Operation::CompareAndSet { key, new, .. }, Answer::CompareAndSet { found, swap }) => {
                let value = self.read(txn, &key, found.as_ref());
                if swap == Swap::Done {
                    self.wrote(txn, key, new);
                }
                Output::CompareAndSet { found: value, swap }
            }
            (Operation::Savepoint(name), _) => {
                txn.savepoints.push((name, txn.count));
                Output::Done
            }
            (Operation::RollbackTo(name), _) => self.rolled_back_to(txn, &name),
            (Operation::Commit, _) => self.committed(txn),
            (Operation::Rollback, _) => {
                self.history.events.push(Event::Abort { txn: txn.key });
                Output::Done
            }
            (operation, answer) => {
                self.complaints.push(format!("{operation:?} was answered by {answer:?}"));
                Output::Done
            }
        }
    }

    fn read(&mut self, txn: &Txn, key: &Key, found: Option<&Stored>) -> Option<Bytes> {
        let version = self.version(txn, key, found);
        let value = found.map(|stored| stored.value.clone());
        let read = Event::Read { txn: txn.key, key: key.clone(), version, value, kind: ReadKind::Tracked, as_of: None };
        self.history.events.push(read);
        found.map(|stored| stored.value.clone())
    }

    fn scan(&mut self, txn: &Txn, span: Span, found: Vec<(Key, Stored)>) -> Vec<(Key, Bytes)> {
        let mut rows: BTreeMap<Key, Option<Stored>> =
            self.keys.iter().filter(|key| span.contains(key)).map(|key| (key.clone(), None)).collect();
        rows.extend(found.into_iter().map(|(key, stored)| (key, Some(stored))));
        let seen: Vec<Row> = rows
            .into_iter()
            .map(|(key, stored)| {
                let version = self.version(txn, &key, stored.as_ref());
                Row { key, version, value: stored.map(|stored| stored.value) }
            })
            .collect();
        let rows = seen.iter().filter_map(|row| Some((row.key.clone(), row.value.clone()?))).collect();
        self.history.events.push(Event::Scan { txn: txn.key, span, rows: seen, kind: ReadKind::Tracked, as_of: None });
        rows
    }

    /// The version that a read saw.
    fn version(&mut self, txn: &Txn, key: &Key, found: Option<&Stored>) -> Version {
        let Some(stored) = found else { return self.absence(txn, key) };
        match stored.mark() {
            Mark::INITIAL => Version::Committed(Ts::ZERO),
            mark if mark.txn_key() == txn.key => Version::Own(mark.seq),
            mark => Version::InFlight { txn: mark.txn_key(), seq: mark.seq },
        }
    }

    /// Which absence was seen, if only one can have been.
    fn absence(&mut self, txn: &Txn, key: &Key) -> Version {
        if let Some(own) = txn.writes.iter().rfind(|write| write.key == *key && write.deleted) {
            return Version::Own(own.seq);
        }
        let initially = self.history.initial.iter().all(|(present, _)| present != key);
        let deletes = self.deletes.get(key).map_or(&[][..], Vec::as_slice);
        match (initially, deletes) {
            (true, []) => Version::None,
            (false, [only]) => Version::InFlight { txn: only.txn_key(), seq: only.seq },
            _ => {
                let key = escape_key(key);
                self.doubts.push(format!("{key} was read as absent, and more than one absence can be meant"));
                Version::None
            }
        }
    }

    fn wrote(&mut self, txn: &mut Txn, key: Key, value: Option<Bytes>) -> Output {
        txn.count += 1;
        let seq = txn.count;
        if value.is_none() {
            self.deletes.entry(key.clone()).or_default().push(Mark { txn: txn.key.0, seq });
        }
        self.keys.insert(key.clone());
        let write = Event::Write { txn: txn.key, key: key.clone(), seq, value: value.clone(), blind: false };
        self.history.events.push(write);
        txn.writes.push(OwnWrite { seq, key, deleted: value.is_none() });
        Output::Done
    }

    fn rolled_back_to(&mut self, txn: &mut Txn, name: &str) -> Output {
        let at = txn.savepoints.iter().rposition(|(known, _)| known == name);
        let seq = at.map_or(0, |at| txn.savepoints[at].1);
        txn.savepoints.truncate(at.map_or(0, |at| at + 1));
        for undone in txn.writes.iter().filter(|write| write.seq > seq && write.deleted) {
            let mark = Mark { txn: txn.key.0, seq: undone.seq };
            self.deletes.entry(undone.key.clone()).or_default().retain(|known| *known != mark);
        }
        txn.writes.retain(|write| write.seq <= seq);
        self.history.events.push(Event::RollbackTo { txn: txn.key, seq });
        Output::Done
    }

    fn committed(&mut self, txn: &mut Txn) -> Output {
        let mut last: BTreeMap<Key, OwnWrite> = BTreeMap::new();
        for write in txn.writes.drain(..) {
            last.insert(write.key.clone(), write);
        }
        let ts = (!last.is_empty()).then(|| {
            self.commits += 1;
            Ts(self.commits)
        });
        for (key, write) in last {
            let installed = Installed { mark: Mark { txn: txn.key.0, seq: write.seq }, deleted: write.deleted };
            self.installed.entry(key).or_default().push(installed);
        }
        self.history.events.push(Event::Commit { txn: txn.key, ts, resolved: Vec::new() });
        Output::Done
    }

    /// Compares the order of the commits with the trails: where they differ, the trails are right.
    fn settle_orders(&mut self) {
        let rows: BTreeMap<&Key, &Stored> = self.rows.iter().map(|(key, stored)| (key, stored)).collect();
        for (key, installed) in &self.installed {
            if installed.iter().any(|version| version.deleted) {
                continue;
            }
            let Some(stored) = rows.get(key) else {
                self.complaints.push(format!("{} is gone, and nobody deleted it", escape_key(key)));
                continue;
            };
            let known = |mark: &&Mark| installed.iter().any(|version| version.mark == **mark);
            let trail: Vec<Mark> = stored.trail.iter().filter(known).copied().collect();
            let commits: Vec<Mark> = installed.iter().map(|version| version.mark).collect();
            if let Some(lost) = commits.iter().find(|mark| !trail.contains(mark)) {
                let key = escape_key(key);
                self.complaints.push(format!("the write {lost} of {key} was committed, and left no trace"));
            } else if trail != commits {
                let order = trail.iter().map(|mark| (mark.txn_key(), mark.seq)).collect();
                self.history.order.push((key.clone(), order));
            }
        }
    }

    /// Whoever is blocked may go on now.
    fn wake(&mut self) {
        std::mem::take(&mut self.blocked).into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl<S: Sessions> Database for Traced<S> {
    fn begin(&mut self, txn: usize, begin: &Begin<'_>) -> Result<(), Failure> {
        let offered = self.levels.iter().find(|level| {
            let isolation = level.setting.isolation == begin.isolation;
            isolation && level.setting.mode == begin.mode
        });
        let Some(level) = offered.copied() else {
            let message = format!("there is no {} {} here", begin.isolation, begin.mode);
            return Err(Failure { class: FailureClass::Refused, message, ended: true });
        };
        self.sessions.begin(txn, begin, &level)?;
        let key = TxnKey(self.names.len() as u64 + 1);
        self.names.insert(txn, begin.name.to_owned());
        self.history.events.push(Event::Begin {
            txn: key,
            name: begin.name.to_owned(),
            isolation: level.promises,
            mode: begin.mode,
            read_only: begin.read_only,
        });
        let state = Txn { key, count: 0, writes: Vec::new(), savepoints: Vec::new(), operation: None };
        self.txns.insert(txn, state);
        Ok(())
    }

    fn start(&mut self, txn: usize, operation: &Operation<Bytes>) {
        if let Some(state) = self.txns.get_mut(&txn) {
            state.operation = Some(operation.clone());
            self.sessions.start(txn, operation, Mark { txn: state.key.0, seq: state.count + 1 });
        }
    }

    fn poll(&mut self, txn: usize, cx: &mut Context<'_>) -> Poll<Result<Output, Failure>> {
        if !self.txns.contains_key(&txn) {
            let message = "the transaction has ended".to_owned();
            return Poll::Ready(Err(Failure { class: FailureClass::Refused, message, ended: true }));
        }
        self.blocked.retain(|(blocked, _)| *blocked != txn);
        match self.sessions.poll(txn) {
            Progress::Done(result) => {
                let output = self.ended(txn, result);
                self.wake();
                Poll::Ready(output)
            }
            Progress::Blocked => {
                self.blocked.push((txn, cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn waits_for(&mut self, txn: usize) -> Option<String> {
        let blocker = self.sessions.waits_for(txn)?;
        self.names.get(&blocker).cloned()
    }

    fn history(&mut self) -> History {
        match self.sessions.rows() {
            Ok(rows) => self.rows = rows,
            Err(error) => self.complaints.push(format!("the final state cannot be read: {error}")),
        }
        if S::TRAILS {
            self.settle_orders();
        }
        std::mem::take(&mut self.history)
    }

    fn final_state(&mut self) -> BTreeMap<Key, Bytes> {
        self.rows.iter().map(|(key, stored)| (key.clone(), stored.value.clone())).collect()
    }

    fn doubts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.doubts)
    }

    fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use isolde_history::check;
    use isolde_history::schedule::{ReplayError, Setting, TxnOutcome, replay};
    use isolde_types::Anomaly;

    use super::*;

    /// Sessions that answer by heart, and what the table holds in the end.
    struct Recited(VecDeque<Result<Answer, Failure>>, Vec<(Key, Stored)>);

    impl Sessions for Recited {
        const TRAILS: bool = true;

        fn begin(&mut self, _: usize, _: &Begin<'_>, _: &Level) -> Result<(), Failure> {
            Ok(())
        }

        fn start(&mut self, _: usize, _: &Operation<Bytes>, _: Mark) {}

        fn poll(&mut self, _: usize) -> Progress {
            Progress::Done(self.0.pop_front().unwrap_or(Ok(Answer::Done)))
        }

        fn rows(&mut self) -> Result<Vec<(Key, Stored)>, String> {
            Ok(self.1.clone())
        }
    }

    fn stored(value: &'static str, trail: &str) -> Stored {
        Stored::read(value, trail).unwrap()
    }

    /// Runs a schedule whose steps are answered like this; the anomalies found, and the complaints.
    fn run(
        text: &str,
        answers: Vec<Answer>,
        rows: &[(&'static str, Stored)],
    ) -> Result<(Vec<Anomaly>, Vec<String>), ReplayError> {
        let schedule = Schedule::parse(text).unwrap();
        let rows = rows.iter().map(|(key, stored)| (Key::from(*key), stored.clone())).collect();
        let sessions = Recited(answers.into_iter().map(Ok).collect(), rows);
        let mut database = Traced::new(sessions, &schedule, vec![Level::of(Setting::default())]);
        let replay = replay(&schedule, Setting::default(), &mut database)?;
        let report = check(&replay.history);
        let complaints = report.complaints.into_iter().chain(replay.complaints).collect();
        Ok((report.findings.into_iter().map(|finding| finding.anomaly).collect(), complaints))
    }

    #[test]
    fn a_read_is_of_the_write_whose_mark_it_found() {
        let text = "init: x=1\nT1: put x 2\nT2: get x\nT1: rollback\nT2: commit\n";
        let dirty = vec![Answer::Done, Answer::Found(Some(stored("2", "0.0 1.1")))];
        let (found, complaints) = run(text, dirty, &[("x", stored("1", "0.0"))]).unwrap();
        assert_eq!((found.as_slice(), complaints.len()), (&[Anomaly::AbortedRead][..], 0));
        let clean = vec![Answer::Done, Answer::Found(Some(stored("1", "0.0")))];
        assert_eq!(run(text, clean, &[("x", stored("1", "0.0"))]).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn trails_that_run_against_each_other_are_a_dirty_write() {
        let text = "init: x=1 y=1\nT1: put x 2\nT2: put x 3\nT2: put y 3\nT2: commit\nT1: put y 2\nT1: commit\n";
        let rows = |x, y| [("x", stored("3", x)), ("y", stored("2", y))];
        let (found, _) = run(text, vec![], &rows("0.0 1.1 2.1", "0.0 2.2 1.2")).unwrap();
        assert!(found.contains(&Anomaly::DirtyWrite), "{found:?}");
        let (found, complaints) = run(text, vec![], &rows("0.0 2.1 1.1", "0.0 2.2 1.2")).unwrap();
        assert_eq!((found, complaints), (vec![], vec![]));
    }

    #[test]
    fn a_committed_write_that_left_no_trace_is_complained_of() {
        let text = "init: x=1\nT1: put x 2\nT1: commit\n";
        let (_, complaints) = run(text, vec![], &[("x", stored("1", "0.0"))]).unwrap();
        assert_eq!(complaints, ["the write 1.1 of x was committed, and left no trace"]);
        let (_, complaints) = run(text, vec![], &[]).unwrap();
        assert_eq!(complaints, ["x is gone, and nobody deleted it"]);
    }

    #[test]
    fn a_commit_whose_answer_was_lost_is_neither_committed_nor_aborted() {
        let schedule = Schedule::parse("init: x=1\nT1: put x 2\nT1: commit\nT2: get x\nT2: commit\n").unwrap();
        let lost = Failure { class: FailureClass::Unknown, message: "gone".to_owned(), ended: true };
        let read = Answer::Found(Some(stored("2", "0.0 1.1")));
        let rows = vec![(Key::from("x"), stored("2", "0.0 1.1"))];
        let sessions = Recited([Ok(Answer::Done), Err(lost), Ok(read)].into(), rows);
        let mut database = Traced::new(sessions, &schedule, vec![Level::of(Setting::default())]);
        let replay = replay(&schedule, Setting::default(), &mut database).unwrap();
        assert_eq!(replay.txns[0].outcome, TxnOutcome::Unknown);
        assert!(replay.history.events.iter().any(|event| matches!(event, Event::Unknown { .. })));
        // Somebody read it, so it did commit: no anomaly.
        assert!(check(&replay.history).findings.is_empty());
    }

    #[test]
    fn an_absence_that_could_be_either_of_two_is_not_judged() {
        let absent = || vec![Answer::Done, Answer::Done, Answer::Found(None)];
        let once = "init: x=1\nT1: delete x\nT1: commit\nT2: get x\nT2: commit\n";
        assert_eq!(run(once, absent(), &[]).unwrap(), (vec![], vec![]));
        let born = "T1: delete x\nT1: commit\nT2: get x\nT2: commit\n";
        let error = run(born, absent(), &[]).unwrap_err();
        assert!(matches!(&error, ReplayError::Unjudged { why } if why.starts_with("x was read as absent")), "{error}");
    }
}
