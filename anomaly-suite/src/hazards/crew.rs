//! Transactions that run side by side on one thread, step by step, in an order that a seed decides.
//!
//! A *member* of a crew runs one body again and again until it has committed as often as it should.
//! In each step the scheduler picks a member that can go on and lets it do one thing: begin, or the
//! next call of its body. A member that waits for a lock is left alone until the lock manager wakes
//! it. Time is the number of steps, so the same seed gives the same counts on every machine.

use std::collections::VecDeque;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use isolde::step::{Op, Retry, Session};
use isolde::{Cas, Commit, Db, Error, Isolation, LockMode, Mode, TxnBuilder, prefix};
use isolde_types::Key;
use isolde_types::sync::Arc;
use isolde_types::sync::atomic::{AtomicBool, Ordering};

/// One call of a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Get(&'static str),
    GetForUpdate(&'static str),
    /// Writes the last value read, plus one.
    PutNext(&'static str),
    Increment(&'static str),
    /// Compare-and-set from the last value read to the next; another attempt if it is refused.
    CasNext(&'static str),
    Put(&'static str),
    /// Shares every key that starts like this, present or absent.
    LockPrefix(&'static str),
    Insert(&'static str),
}

/// What a member does when an attempt has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// It gives up.
    Never,
    /// It begins a new transaction at once, having learnt nothing.
    AtOnce,
    /// It retries as `transact` does (age kept, lost key locked first, escalation), at once.
    Kept,
    /// The same, after a random pause whose bound doubles.
    KeptAfterPause,
}

/// What a member is to do.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub isolation: Isolation,
    pub mode: Mode,
    pub body: Vec<Call>,
    /// How often it commits; a stream goes on until the crew stops.
    pub goal: u64,
    pub again: Again,
    /// The step at which it begins first.
    pub from: u64,
}

/// The goal of a stream.
pub(super) const FOR_EVER: u64 = u64::MAX;

/// How the next member is picked among those that can go on.
pub(super) enum Order {
    InTurn,
    Random(fastrand::Rng),
}

/// When the crew stops, besides when nobody can go on.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// All members have done their jobs.
    Done,
    /// This many steps are done, or every member that has a goal is.
    Steps(u64),
}

/// What is done when everybody waits for somebody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenStuck {
    Stop,
    /// The lock timeout of the member that has waited longest passes.
    TimeOut,
}

/// What a member has done.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    pub commits: u64,
    pub attempts: u64,
    /// The most attempts that one commit took (or that were made in vain at the end).
    pub attempts_max: u64,
    /// The longest wait for a lock, in steps.
    pub wait_max: u64,
    /// Whether it gave up after a failed attempt.
    pub gave_up: bool,
    /// Whether it still waited at the end.
    pub waits: bool,
}

pub(super) struct Crew<'d> {
    members: Vec<Member<'d>>,
    order: Order,
    step: u64,
    turn: usize,
}

struct Member<'d> {
    name: String,
    job: Job,
    tally: Tally,
    retry: Option<Retry>,
    state: State,
    calls: VecDeque<Call>,
    session: Option<Session>,
    age: u64,
    read: Option<Bytes>,
    failed: u64,
    blocked_since: Option<u64>,
    woken: Arc<Flag>,
    db: &'d Db,
}

enum State {
    /// Begins at this step or later.
    Idle(u64),
    /// In the middle of a body, between calls.
    Between,
    Busy(Pending),
    /// An attempt has failed and is rolled back in a step of its own; then it begins again at this
    /// step or later, or not at all.
    Failed(Option<u64>),
    Done,
}

enum Pending {
    Begin(Op<Session>),
    Value(Op<Option<Bytes>>),
    Unit(Op<()>),
    Cas(Op<Cas>),
    Commit(Op<Commit>),
}

/// Set when its member can go on.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        // SeqCst costs nothing on one thread, and needs no argument.
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<'d> Crew<'d> {
    pub fn new(db: &'d Db, jobs: impl IntoIterator<Item = Job>, order: Order) -> Self {
        let members = jobs.into_iter().enumerate().map(|(number, job)| Member::new(db, number, job)).collect();
        Crew { members, order, step: 0, turn: 0 }
    }

    /// Runs until it stops; says what each member has done.
    pub fn run(mut self, until: Until, when_stuck: WhenStuck) -> Vec<Tally> {
        while !self.is_over(until) {
            match self.pick() {
                Some(member) => self.go_on(member),
                None if self.skip_pauses() => {}
                None if when_stuck == WhenStuck::TimeOut && self.time_out() => {}
                None => break,
            }
        }
        self.members.iter().map(|member| member.tally_at(self.step)).collect()
    }

    fn is_over(&self, until: Until) -> bool {
        let has_goal = |member: &&Member<'_>| member.job.goal != FOR_EVER;
        let done = self.members.iter().filter(has_goal).all(|member| matches!(member.state, State::Done));
        done || matches!(until, Until::Steps(most) if self.step >= most)
    }

    fn pick(&mut self) -> Option<usize> {
        let members = &self.members;
        let ready = |member: &usize| members[*member].is_ready(self.step);
        let count = members.len();
        match &mut self.order {
            Order::InTurn => {
                let picked = (self.turn..self.turn + count).map(|n| n % count).find(ready)?;
                self.turn = (picked + 1) % count;
                Some(picked)
            }
            Order::Random(random) => {
                let ready: Vec<usize> = (0..count).filter(ready).collect();
                (!ready.is_empty()).then(|| ready[random.usize(..ready.len())])
            }
        }
    }

    fn go_on(&mut self, member: usize) {
        self.step += 1;
        let pause = |bound: u64| match &mut self.order {
            Order::InTurn => bound,
            Order::Random(random) => random.u64(..=bound),
        };
        self.members[member].go_on(self.step, pause);
    }

    /// Nobody can go on now: lets the steps pass until the first pause is over.
    fn skip_pauses(&mut self) -> bool {
        let pauses = self.members.iter().filter_map(|member| match member.state {
            State::Idle(from) if from > self.step => Some(from),
            _ => None,
        });
        let Some(first) = pauses.min() else { return false };
        self.step = first;
        true
    }

    fn time_out(&mut self) -> bool {
        let waiting = self.members.iter_mut().filter(|member| member.blocked_since.is_some());
        let Some(member) = waiting.min_by_key(|member| member.blocked_since) else { return false };
        member.time_out();
        true
    }
}

impl<'d> Member<'d> {
    fn new(db: &'d Db, number: usize, job: Job) -> Self {
        Member {
            name: format!("T{}", number + 1),
            state: State::Idle(job.from),
            job,
            tally: Tally::default(),
            retry: None,
            calls: VecDeque::new(),
            session: None,
            age: 0,
            read: None,
            failed: 0,
            blocked_since: None,
            woken: Arc::default(),
            db,
        }
    }

    fn builder(&self) -> TxnBuilder<'d> {
        self.db.txn().isolation(self.job.isolation).mode(self.job.mode).label(&self.name)
    }

    fn is_ready(&self, step: u64) -> bool {
        match self.state {
            State::Idle(from) => from <= step,
            State::Between | State::Failed(_) => true,
            State::Busy(_) => self.woken.0.load(Ordering::SeqCst),
            State::Done => false,
        }
    }

    fn go_on(&mut self, step: u64, pause: impl FnOnce(u64) -> u64) {
        let pending = match std::mem::replace(&mut self.state, State::Between) {
            State::Idle(_) => self.begin(),
            State::Between => self.next_call(),
            State::Busy(pending) => pending,
            State::Failed(again) => return self.roll_back(again),
            State::Done => return self.state = State::Done,
        };
        self.poll(pending, step, pause);
    }

    fn begin(&mut self) -> Pending {
        self.tally.attempts += 1;
        self.calls = self.job.body.iter().copied().collect();
        match self.job.again {
            Again::Never | Again::AtOnce => Pending::Begin(Session::begin(self.builder())),
            Again::Kept | Again::KeptAfterPause => {
                let builder = self.builder();
                Pending::Begin(self.retry.get_or_insert_with(|| Retry::new(builder)).begin())
            }
        }
    }

    fn next_call(&mut self) -> Pending {
        let Some(call) = self.calls.pop_front() else {
            let session = self.session.take().expect("a body runs inside the transaction that was begun for it");
            return Pending::Commit(session.commit());
        };
        let session = self.session.as_ref().expect("a body runs inside the transaction that was begun for it");
        let next = (number(self.read.as_ref()) + 1).to_be_bytes();
        match call {
            Call::Get(key) => Pending::Value(session.get(key)),
            Call::GetForUpdate(key) => Pending::Value(session.get_for_update(key)),
            Call::PutNext(key) => Pending::Unit(session.put(key, next)),
            Call::Increment(key) => Pending::Unit(session.increment(key, 1)),
            Call::CasNext(key) => Pending::Cas(session.compare_and_set(key, self.read.as_deref(), Some(&next))),
            Call::Put(key) => Pending::Unit(session.put(key, &self.name)),
            Call::LockPrefix(key) => Pending::Unit(session.lock(prefix(key), LockMode::Shared)),
            Call::Insert(key) => Pending::Unit(session.insert(key, &self.name)),
        }
    }

    fn poll(&mut self, mut pending: Pending, step: u64, pause: impl FnOnce(u64) -> u64) {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.woken.clone());
        match pending.poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                self.blocked_since.get_or_insert(step);
                self.state = State::Busy(pending);
            }
            Poll::Ready(result) => {
                self.note_wait(step);
                match result {
                    Ok(outcome) => self.succeeded(outcome, step, pause),
                    Err(error) => self.fail(Some(error), step, pause),
                }
            }
        }
    }

    fn succeeded(&mut self, outcome: Outcome, step: u64, pause: impl FnOnce(u64) -> u64) {
        match outcome {
            Outcome::Began(session) => {
                self.age = session.age();
                self.session = Some(session);
            }
            Outcome::Read(value) => self.read = value,
            Outcome::Done => {}
            Outcome::Refused => self.fail(None, step, pause),
            Outcome::Committed => self.committed(step),
        }
    }

    fn committed(&mut self, step: u64) {
        self.tally.commits += 1;
        self.tally.attempts_max = self.tally.attempts_max.max(self.failed + 1);
        (self.failed, self.retry) = (0, None);
        self.state = if self.tally.commits == self.job.goal { State::Done } else { State::Idle(step) };
    }

    /// An attempt came to nothing; without an error, because a compare-and-set was refused.
    fn fail(&mut self, error: Option<Error>, step: u64, pause: impl FnOnce(u64) -> u64) {
        self.failed += 1;
        self.tally.attempts_max = self.tally.attempts_max.max(self.failed);
        let retried = match (&mut self.retry, error) {
            (Some(retry), Some(error)) => retry.after(error, self.age).is_ok(),
            (None, Some(error)) => error.is_retryable(),
            (_, None) => true,
        };
        self.state = State::Failed(match self.job.again {
            _ if !retried => None,
            Again::Never => None,
            Again::AtOnce | Again::Kept => Some(step),
            Again::KeptAfterPause => Some(step + pause(4 << self.failed.min(6))),
        });
    }

    fn roll_back(&mut self, again: Option<u64>) {
        self.session = None;
        self.tally.gave_up = again.is_none();
        self.state = again.map_or(State::Done, State::Idle);
    }

    fn time_out(&mut self) {
        if let State::Busy(pending) = &mut self.state {
            pending.time_out();
        }
        self.woken.0.store(true, Ordering::SeqCst);
    }

    fn note_wait(&mut self, step: u64) {
        if let Some(since) = self.blocked_since.take() {
            self.tally.wait_max = self.tally.wait_max.max(step - since);
        }
    }

    fn tally_at(&self, step: u64) -> Tally {
        let waited = self.blocked_since.map_or(0, |since| step - since);
        let waits = self.blocked_since.is_some();
        Tally { waits, wait_max: self.tally.wait_max.max(waited), ..self.tally }
    }
}

/// What a call came to.
enum Outcome {
    Began(Session),
    Read(Option<Bytes>),
    Done,
    Refused,
    Committed,
}

impl Pending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<isolde::Result<Outcome>> {
        match self {
            Pending::Begin(op) => op.poll(cx).map_ok(Outcome::Began),
            Pending::Value(op) => op.poll(cx).map_ok(Outcome::Read),
            Pending::Unit(op) => op.poll(cx).map_ok(|()| Outcome::Done),
            Pending::Commit(op) => op.poll(cx).map_ok(|_| Outcome::Committed),
            Pending::Cas(op) => op.poll(cx).map_ok(|cas| match cas {
                Cas::Swapped => Outcome::Done,
                Cas::Current(_) => Outcome::Refused,
            }),
        }
    }

    fn time_out(&mut self) {
        match self {
            Pending::Begin(op) => op.time_out(),
            Pending::Value(op) => op.time_out(),
            Pending::Unit(op) => op.time_out(),
            Pending::Cas(op) => op.time_out(),
            Pending::Commit(op) => op.time_out(),
        }
    }
}

/// The number that a counter holds; an absent one, or something else, is 0.
pub(super) fn number(value: Option<&Key>) -> i64 {
    value.and_then(|value| value[..].try_into().ok()).map_or(0, i64::from_be_bytes)
}
