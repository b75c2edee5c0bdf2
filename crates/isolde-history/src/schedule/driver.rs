//! The driver: steps issued to transactions that may block, on one thread.
//!
//! ```text
//!   issue(T1: put x)   T1 holds x
//!   issue(T2: put x)   pending: T2 is blocked
//!   issue(T2: commit)  T2 is blocked, so this step waits behind the other
//!   issue(T1: commit)  T1 gives x back and wakes T2: `put x` resumes, then `commit` runs
//! ```
//!
//! After each issued step the driver *settles*: whoever was woken is polled, in the order of the
//! wakes; one that resumes runs its waiting steps until it blocks again; until no wake is left. So a
//! run is a function of the order of the issued steps, and of nothing else: no thread, no clock.
//!
//! Which step comes next is not the driver's business: [`replay`](super::replay()) takes file order;
//! an explorer may take any order of the transactions for which [`Driver::is_ready`] holds.

use std::collections::VecDeque;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use isolde_types::sync::{Arc, Mutex};
use isolde_types::{Isolation, Key, Mode};

use super::database::{Begin, Database, Failure, FailureClass, Output};
use super::notation::{Action, Operation, Value, text};
use super::replay::{Replay, ReplayError, Setting};

/// What a step did first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepOutcome {
    /// It ran to its end at once, and its transaction went on (or ended as it asked).
    Ok,
    /// It had to wait for another transaction.
    Blocked,
    /// The database rolled its transaction back.
    Aborted,
    /// It did not run: the database had rolled its transaction back before.
    Skipped,
}

/// What became of one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepReport {
    /// Its number, from 1, in the order of issue.
    pub n: usize,
    /// Its transaction.
    pub txn: usize,
    /// What it was to do.
    pub action: Action,
    /// What it did first.
    pub outcome: StepOutcome,
    /// What it returned in the end.
    pub output: Option<Output>,
    /// The step that let it go on, when it was blocked or waited behind a blocked one.
    pub resumed_after: Option<usize>,
    /// For whom it waited, if the database says.
    pub waited_for: Option<String>,
    /// Why it failed. A failure that is merely refused leaves the transaction alive.
    pub failure: Option<Failure>,
    /// When it started, counted in starts and ends of steps.
    pub started: Option<usize>,
    /// When it ended, counted likewise.
    pub ended: Option<usize>,
}

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum TxnOutcome {
    /// It committed.
    Committed,
    /// Its own `rollback`.
    RolledBack,
    /// The database rolled it back.
    Aborted,
    /// Nobody knows: the connection was lost at its end.
    Unknown,
    /// It has not ended.
    Active,
}

/// One transaction of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnReport {
    /// Its name.
    pub name: String,
    /// Its level.
    pub isolation: Isolation,
    /// Its mode.
    pub mode: Mode,
    /// How it ended.
    pub outcome: TxnOutcome,
}

/// Room for this many steps from the start: as many as most schedules have.
const STEPS: usize = 24;

/// Runs steps against a database.
pub struct Driver<'d> {
    database: &'d mut dyn Database,
    setting: Setting,
    txns: Vec<Txn>,
    steps: Vec<StepReport>,
    woken: Arc<Woken>,
    moment: usize,
    curious: bool,
}

struct Txn {
    report: TxnReport,
    began: bool,
    /// The step under way: started and not ended.
    current: Option<usize>,
    /// Steps issued while another was blocked.
    waiting: VecDeque<usize>,
    waker: Waker,
}

/// Transactions that were woken, in the order of the wakes.
#[derive(Default)]
struct Woken(Mutex<VecDeque<usize>>);

struct WakeTxn {
    txn: usize,
    woken: Arc<Woken>,
}

impl Wake for WakeTxn {
    fn wake(self: Arc<Self>) {
        self.woken.0.lock().push_back(self.txn);
    }
}

impl<'d> Driver<'d> {
    /// A driver of these transactions; `setting` is the level and mode of those that name none.
    pub fn new(database: &'d mut dyn Database, txns: &[String], setting: Setting) -> Self {
        let woken = Arc::<Woken>::default();
        let txns = txns.iter().enumerate().map(|(txn, name)| Txn::new(txn, name, setting, &woken)).collect();
        Driver { database, setting, txns, steps: Vec::with_capacity(STEPS), woken, moment: 0, curious: true }
    }

    /// The same, but for whom a step waits is not asked, nor for the words of a failure: the answers take a
    /// database longer than the step.
    #[must_use]
    pub fn incurious(self) -> Self {
        self.database.be_brief();
        Driver { curious: false, ..self }
    }

    /// One more transaction; gives its number.
    pub fn add(&mut self, name: &str) -> usize {
        let txn = self.txns.len();
        self.txns.push(Txn::new(txn, name, self.setting, &self.woken));
        txn
    }

    /// How a transaction ended, so far.
    #[must_use]
    pub fn outcome(&self, txn: usize) -> TxnOutcome {
        self.txns[txn].report.outcome
    }

    /// Issues the next step of a transaction, then lets everyone who was woken go on.
    ///
    /// # Errors
    /// When a value cannot be worked out, such as `$x+1` where x holds no number.
    pub fn issue(&mut self, txn: usize, action: &Action) -> Result<(), ReplayError> {
        self.issue_owned(txn, action.clone())
    }

    /// The same.
    pub(crate) fn issue_owned(&mut self, txn: usize, action: Action) -> Result<(), ReplayError> {
        if !self.txns[txn].began && !matches!(action, Action::Begin(_)) {
            self.issue_owned(txn, Action::Begin(super::BeginWords::default()))?;
        }
        self.txns[txn].began = true;
        let step = self.push(txn, action);
        if self.txns[txn].current.is_some() {
            self.txns[txn].waiting.push_back(step);
        } else if self.is_active(txn) {
            self.start(txn, step)?;
        }
        self.settle()
    }

    /// Whether the next step of `txn` would run at once: it has not ended and nothing of it is blocked.
    #[must_use]
    pub fn is_ready(&self, txn: usize) -> bool {
        self.is_active(txn) && self.txns[txn].current.is_none()
    }

    /// Whether `txn` has not ended (it may not even have begun).
    #[must_use]
    pub fn is_active(&self, txn: usize) -> bool {
        self.txns[txn].report.outcome == TxnOutcome::Active
    }

    /// The blocked transactions.
    pub fn blocked(&self) -> impl Iterator<Item = &TxnReport> {
        self.txns.iter().filter(|txn| txn.current.is_some()).map(|txn| &txn.report)
    }

    /// What became of each step, in the order of issue.
    #[must_use]
    pub fn steps(&self) -> &[StepReport] {
        &self.steps
    }

    /// What the run came to, once every transaction has ended.
    #[must_use]
    pub fn into_replay(self) -> Replay {
        let Driver { database, steps, txns, .. } = self;
        let txns = txns.into_iter().map(|txn| txn.report).collect();
        let (history, final_state) = (database.history(), database.final_state());
        Replay { steps, txns, history, final_state, complaints: database.complaints() }
    }

    fn push(&mut self, txn: usize, action: Action) -> usize {
        self.steps.push(StepReport {
            n: self.steps.len() + 1,
            txn,
            action,
            outcome: StepOutcome::Skipped,
            output: None,
            resumed_after: None,
            waited_for: None,
            failure: None,
            started: None,
            ended: None,
        });
        self.steps.len() - 1
    }

    /// Polls whoever was woken, in the order of the wakes, until nobody is left.
    fn settle(&mut self) -> Result<(), ReplayError> {
        loop {
            let woken = self.woken.0.lock().pop_front();
            let Some(txn) = woken else { return Ok(()) };
            if self.txns[txn].current.is_some_and(|step| self.poll(txn, step)) {
                self.run_waiting(txn)?;
            }
        }
    }

    /// Runs the waiting steps of a transaction until one blocks or none is left.
    fn run_waiting(&mut self, txn: usize) -> Result<(), ReplayError> {
        while let Some(step) = self.txns[txn].waiting.pop_front() {
            if self.is_active(txn) && !self.start(txn, step)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Starts a step; says whether it ended.
    fn start(&mut self, txn: usize, step: usize) -> Result<bool, ReplayError> {
        self.steps[step].started = Some(self.tick());
        self.steps[step].outcome = StepOutcome::Ok;
        let operation = match &self.steps[step].action {
            Action::Begin(_) => return Ok(self.begin(txn, step)),
            Action::Do(operation) => operation.try_map(|value| self.value(txn, value)),
        };
        let operation = operation.map_err(|message| self.value_error(step, message))?;
        self.database.start(txn, &operation);
        self.txns[txn].current = Some(step);
        let ended = self.poll(txn, step);
        if !ended {
            self.steps[step].outcome = StepOutcome::Blocked;
            if self.curious {
                self.steps[step].waited_for = self.database.waits_for(txn);
            }
        }
        Ok(ended)
    }

    fn begin(&mut self, txn: usize, step: usize) -> bool {
        let Action::Begin(words) = &self.steps[step].action else { return true };
        let report = &mut self.txns[txn].report;
        report.isolation = words.isolation.unwrap_or(self.setting.isolation);
        report.mode = words.mode.unwrap_or(self.setting.mode);
        let begin =
            Begin { name: &report.name, isolation: report.isolation, mode: report.mode, read_only: words.read_only };
        let result = self.database.begin(txn, &begin).map(|()| Output::Done);
        self.end_step(txn, step, result);
        true
    }

    /// Polls the operation under way; says whether it ended.
    fn poll(&mut self, txn: usize, step: usize) -> bool {
        let mut cx = Context::from_waker(&self.txns[txn].waker);
        let Poll::Ready(result) = self.database.poll(txn, &mut cx) else { return false };
        self.end_step(txn, step, result);
        true
    }

    fn end_step(&mut self, txn: usize, step: usize, result: Result<Output, Failure>) {
        let latest = self.steps.len();
        let ended = self.tick();
        self.txns[txn].current = None;
        let report = &mut self.steps[step];
        report.ended = Some(ended);
        report.resumed_after = (report.n != latest).then_some(latest);
        match result {
            Ok(output) => {
                self.txns[txn].succeeded(&report.action);
                report.output = Some(output);
            }
            Err(failure) => {
                if failure.ended {
                    self.txns[txn].report.outcome = match failure.class {
                        FailureClass::Unknown => TxnOutcome::Unknown,
                        _ => TxnOutcome::Aborted,
                    };
                    if report.outcome == StepOutcome::Ok {
                        report.outcome = StepOutcome::Aborted;
                    }
                }
                report.failure = Some(failure);
            }
        }
    }

    fn tick(&mut self) -> usize {
        self.moment += 1;
        self.moment
    }

    /// The bytes of a value; a key that was not there counts as 0.
    fn value(&self, txn: usize, value: &Value) -> Result<Bytes, String> {
        let (key, plus) = match value {
            Value::Word(word) => return Ok(word.clone()),
            Value::LastRead { key, plus } => (key, *plus),
        };
        let read = self.last_read(txn, key).unwrap_or_else(|| Bytes::from_static(b"0"));
        if plus == 0 {
            return Ok(read);
        }
        let number = text(&read).parse::<i64>();
        let number = number.map_err(|_| format!("{} holds `{}`, which is no number", text(key), text(&read)))?;
        let sum = number.checked_add(plus).ok_or_else(|| format!("{} is too large", text(key)))?;
        Ok(Bytes::from(sum.to_string()))
    }

    /// What a transaction last read from a key. Its steps ran in the order in which they were issued.
    fn last_read(&self, txn: usize, key: &Key) -> Option<Bytes> {
        let steps = self.steps.iter().rev().filter(|step| step.txn == txn);
        let mut reads = steps.filter_map(|step| read_from(step, key));
        reads.next().flatten()
    }

    fn value_error(&self, step: usize, message: String) -> ReplayError {
        let StepReport { n, txn, action, .. } = &self.steps[step];
        ReplayError::Value { n: *n, step: format!("{}: {action}", self.txns[*txn].report.name), message }
    }
}

/// What a step read from a key, if it read it.
fn read_from(step: &StepReport, key: &Key) -> Option<Option<Bytes>> {
    match (&step.action, step.output.as_ref()?) {
        (Action::Do(Operation::Get(read) | Operation::GetForUpdate(read)), Output::Value(value)) if read == key => {
            Some(value.clone())
        }
        (Action::Do(Operation::Scan(place)), Output::Rows(rows)) if place.span().contains(key) => {
            Some(rows.iter().find(|(row, _)| row == key).map(|(_, value)| value.clone()))
        }
        _ => None,
    }
}

impl Txn {
    fn new(txn: usize, name: &str, setting: Setting, woken: &Arc<Woken>) -> Self {
        let Setting { isolation, mode } = setting;
        Txn {
            report: TxnReport { name: name.to_owned(), isolation, mode, outcome: TxnOutcome::Active },
            began: false,
            current: None,
            waiting: VecDeque::new(),
            waker: Waker::from(Arc::new(WakeTxn { txn, woken: woken.clone() })),
        }
    }

    fn succeeded(&mut self, action: &Action) {
        match action {
            Action::Do(Operation::Commit) => self.report.outcome = TxnOutcome::Committed,
            Action::Do(Operation::Rollback) => self.report.outcome = TxnOutcome::RolledBack,
            Action::Do(_) | Action::Begin(_) => {}
        }
    }
}
