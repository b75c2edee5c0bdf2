//! The thin shell around the table: words in records, one graph mutex, wakers.
//!
//! A request tries the word first. It goes to the table when somebody else is in the word, when the
//! word is FAT, or when spans are about: every grant that raises a key's mode then looks for spans
//! that conflict with that mode.
//!
//! The race between a writer (stores its word, then looks at the count of spans) and a scanner (raises
//! the count, then looks at the words in its span) is closed on both sides: all four are sequentially
//! consistent, so one of the two sees the other and takes it into the table.
//!
//! Latch order: the graph mutex, then a shard of the registry or a ledger. Wakers and `OnWound` are
//! called under none of them.

mod acquire;
mod brief;
mod release;
mod word;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Poll, Waker};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use isolde_types::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use isolde_types::sync::{Arc, Mutex, MutexGuard, Weak};
use isolde_types::{Key, LockMode, Span, TxnId, mutant};

use crate::cell::{LockCell, Word};
use crate::error::LockError;
use crate::ledger::{Locked, Purpose};
use crate::owner::{OnWound, Owner, OwnerSpec};
use crate::policy::{LockConfig, WaitPolicy};
use crate::report::DeadlockReport;
use crate::table::{Alone, Answer, Effects, Party, Refusal, Table, Target, Ticket};
pub use acquire::Acquire;
use acquire::Progress;
pub use brief::{Brief, Handles};

/// A record, as far as the lock manager knows one: a key, and the word in which its lock is.
pub trait Handle: Clone + Send + Sync + 'static {
    /// The key.
    fn key(&self) -> &Key;
    /// The lock word.
    fn cell(&self) -> &LockCell;
}

/// Where the records of a span are found: whoever locks a span looks at the words in it.
pub trait SpanRecords<H> {
    /// Visits every record that is linked in the span.
    fn each(&self, span: &Span, visit: &mut dyn FnMut(H));
}

/// A lock was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    /// Whether it was waited for.
    pub waited: bool,
}

/// How many registries of owners there are.
const SHARDS: usize = if cfg!(any(shuttle, loom)) { 4 } else { 64 };

/// One registry of owners: identities follow each other, so that each has few at a time, in no order.
type Owners<H> = Mutex<Vec<(TxnId, Weak<Owner<H>>)>>;

/// The lock manager; see the crate.
pub struct LockManager<H> {
    config: LockConfig,
    /// How many spans are held, waited for, or about to be asked for.
    spans: AtomicUsize,
    graph: Mutex<Graph<H>>,
    owners: Vec<Owners<H>>,
    waits: AtomicU64,
}

/// What the graph mutex guards.
pub(crate) struct Graph<H> {
    pub table: Table,
    /// The records whose word is FAT.
    fat: HashMap<Key, H, RandomState>,
    wakers: HashMap<Ticket, Waker, RandomState>,
}

/// What is to be done once the graph mutex was left.
#[must_use]
#[derive(Default)]
struct Aftermath {
    wakers: Vec<Waker>,
    wounds: Vec<(Weak<dyn OnWound>, TxnId)>,
}

impl Aftermath {
    /// Wakes and tells. A panic there is somebody else's, and stops nothing here.
    #[inline]
    fn perform(self) {
        if !(self.wakers.is_empty() && self.wounds.is_empty()) {
            self.wake_and_tell();
        }
    }

    fn wake_and_tell(self) {
        for waker in self.wakers {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        for (victim, by) in self.wounds {
            if let Some(victim) = victim.upgrade() {
                let _ = catch_unwind(AssertUnwindSafe(|| victim.wounded(by)));
            }
        }
    }
}

/// Locks were given back; those who waited for them are still to be woken.
#[must_use]
pub struct GivenBack(Aftermath);

impl GivenBack {
    /// Wakes those who waited.
    pub fn wake(self) {
        self.0.perform();
    }
}

impl<H: Handle> LockManager<H> {
    /// A lock manager without any lock.
    #[must_use]
    pub fn new(config: LockConfig) -> Self {
        LockManager {
            graph: Mutex::new(Graph {
                table: Table::new(config.deadlocks),
                fat: HashMap::default(),
                wakers: HashMap::default(),
            }),
            owners: (0..SHARDS).map(|_| Mutex::default()).collect(),
            config,
            spans: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
        }
    }

    /// Makes a transaction known. It must give back its locks with
    /// [`release_all`](LockManager::release_all).
    pub fn owner(&self, spec: OwnerSpec) -> Arc<Owner<H>> {
        let owner = Arc::new(Owner::new(spec));
        self.shard(owner.id).lock().push((owner.id, Arc::downgrade(&owner)));
        owner
    }

    /// Locks a key, whose record is linked into the indexes already. A future; see [`Acquire`].
    pub fn lock_key<'a>(
        &'a self,
        owner: &'a Arc<Owner<H>>,
        handle: H,
        mode: LockMode,
        purpose: Purpose,
        wait: WaitPolicy,
    ) -> Acquire<'a, H> {
        let locked = Locked::Key(handle);
        Acquire { manager: self, owner, locked, mode, purpose, wait, announced: false, state: Progress::Ask }
    }

    /// Locks a span. A future; see [`Acquire`].
    pub fn lock_span<'a>(
        &'a self,
        owner: &'a Arc<Owner<H>>,
        span: Span,
        mode: LockMode,
        purpose: Purpose,
        wait: WaitPolicy,
        records: &dyn SpanRecords<H>,
    ) -> Acquire<'a, H> {
        self.announce_span(&span, records);
        let locked = Locked::Span(span);
        Acquire { manager: self, owner, locked, mode, purpose, wait, announced: true, state: Progress::Ask }
    }

    // --- the table ----------------------------------------------------------------------------

    fn know(&self, graph: &mut Graph<H>, owner: &Owner<H>) {
        owner.in_table.store(true, SeqCst);
        if !graph.table.knows(owner.id) {
            graph.table.enter(owner.id, &Party { age: owner.age, label: owner.label.clone() });
        }
    }

    /// Makes the word FAT and the table know its holder.
    fn inflate(&self, graph: &mut Graph<H>, handle: &H) -> Result<(), LockError> {
        let cell = handle.cell();
        loop {
            let before = cell.settled();
            match before {
                Word::Sealed => return Err(LockError::Sealed),
                Word::Fat => return Ok(()),
                Word::Free | Word::Thin(..) | Word::Brief => {}
            }
            if !cell.change(before, Word::Fat) {
                continue;
            }
            graph.fat.insert(handle.key().clone(), handle.clone());
            if let Word::Thin(mode, holder) = before
                && let Some(holder) = self.find_owner(holder)
            {
                self.know(graph, &holder);
                graph.table.hold(holder.id, handle.key(), mode);
            }
            return Ok(());
        }
    }

    /// Takes a key out of the table if one word can say it all.
    ///
    /// Not while spans are about: whoever announced one, and has looked at the words, asks the table
    /// next, and must find the holder there. The count is looked at again after the word was changed:
    /// an announcer who still saw FAT had raised it by then.
    fn deflate(&self, graph: &mut Graph<H>, key: &Key) {
        let Some(handle) = graph.fat.get(key) else { return };
        let word = match graph.table.alone(key) {
            Alone::Nobody => Word::Free,
            Alone::One(txn, mode) if self.spans.load(SeqCst) == 0 => Word::Thin(mode, txn),
            Alone::One(..) | Alone::No => return,
        };
        if !handle.cell().change(Word::Fat, word) {
            return;
        }
        let announced = word != Word::Free && self.spans.load(SeqCst) != 0;
        if announced && handle.cell().change(word, Word::Fat) {
            return;
        }
        graph.fat.remove(key);
        graph.table.forget_key(key);
    }

    /// Announces a span, then takes the locks that are in it into the table.
    fn announce_span(&self, span: &Span, records: &dyn SpanRecords<H>) {
        self.spans.fetch_add(1, SeqCst);
        let mut locked = Vec::new();
        records.each(span, &mut |handle| {
            if matches!(handle.cell().settled(), Word::Thin(..)) {
                locked.push(handle);
            }
        });
        if locked.is_empty() {
            return;
        }
        let mut graph = self.graph.lock();
        for handle in &locked {
            // What was freed meanwhile need not be in the table; what is freed just now leaves it again.
            if matches!(handle.cell().load(), Word::Thin(..)) {
                let _ = self.inflate(&mut graph, handle);
                self.deflate(&mut graph, handle.key());
            }
        }
    }

    /// Asks the table. Called once for each request.
    fn ask(&self, request: &mut Acquire<'_, H>, waker: &Waker) -> Poll<Result<Granted, LockError>> {
        let owner = request.owner;
        if let Err(error) = admit(owner) {
            return Poll::Ready(Err(error));
        }
        // Cloned and dropped under no latch, like all wakers: they are an executor's.
        let mut waker = Some(waker.clone());
        if let Locked::Key(handle) = &request.locked {
            // Waited for before the graph is latched: all others may want that.
            handle.cell().settled();
        }
        let mut graph = self.graph.lock();
        let (effects, inflated) = self.come_to_table(&mut graph, owner, &request.locked);
        let taken_back = self.settle(&mut graph, effects);
        let outcome = match inflated {
            Ok(()) => self.ask_table(request, graph, &mut waker),
            Err(error) => {
                drop(graph);
                Poll::Ready(Err(error))
            }
        };
        taken_back.perform();
        outcome
    }

    fn ask_table(
        &self,
        request: &mut Acquire<'_, H>,
        mut graph: MutexGuard<'_, Graph<H>>,
        waker: &mut Option<Waker>,
    ) -> Poll<Result<Granted, LockError>> {
        let owner = request.owner;
        self.know(&mut graph, owner);
        if owner.ended.load(SeqCst) {
            let _ = graph.table.release(owner.id);
            self.deflate_locked(&mut graph, &request.locked);
            return Poll::Ready(Err(LockError::Ended));
        }
        let target = target_of(&request.locked);
        // A record whose word is free can be reclaimed at any moment. So whoever means to write holds the key
        // itself, though a span of its own covers it; a read may lean on the span.
        let held = match &request.locked {
            Locked::Key(handle) if request.purpose == Purpose::Write && !mutant!("write-leans-on-own-span") => {
                graph.table.holds_key_for_good(owner.id, handle.key())
            }
            _ => graph.table.holds_for_good(owner.id, &target),
        };
        if held.is_some_and(|held| held >= request.mode) {
            // A span that is covered already is not entered again: each entry counts as an announced span.
            // Written down before the graph is left: a return to a savepoint must find it.
            if matches!(request.locked, Locked::Key(_)) {
                owner.ledger.lock().push_again(|| request.locked.clone(), request.mode, request.purpose);
            }
            self.deflate_locked(&mut graph, &request.locked);
            return Poll::Ready(Ok(Granted { waited: false }));
        }
        if let Err(error) = self.check_limit(owner) {
            self.deflate_locked(&mut graph, &request.locked);
            return Poll::Ready(Err(error));
        }
        let (answer, effects) = graph.table.acquire(owner.id, target, request.mode, request.wait);
        let outcome = match answer {
            Answer::Granted => Some(Ok(())),
            Answer::Refused(refusal) => Some(Err(refused(refusal))),
            Answer::Waits(ticket) => {
                graph.wakers.extend(waker.take().map(|waker| (ticket, waker)));
                request.state = Progress::Waits(ticket);
                self.waits.fetch_add(1, SeqCst);
                None
            }
        };
        let aftermath = self.settle(&mut graph, effects);
        self.deflate_locked(&mut graph, &request.locked);
        drop(graph);
        aftermath.perform();
        match outcome {
            None => Poll::Pending,
            Some(Ok(())) => Poll::Ready(self.granted(request, false)),
            Some(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    fn granted(&self, request: &mut Acquire<'_, H>, waited: bool) -> Result<Granted, LockError> {
        self.enter_ledger(request.owner, request.locked.clone(), request.mode, request.purpose)?;
        // The count of spans goes with the ledger's entry from now on.
        request.announced = false;
        Ok(Granted { waited })
    }

    fn look(&self, request: &mut Acquire<'_, H>, ticket: Ticket, waker: &Waker) -> Poll<Result<Granted, LockError>> {
        let mut fresh = None;
        let outcome = loop {
            let mut graph = self.graph.lock();
            if let Some(outcome) = graph.table.collect(ticket) {
                let known = graph.wakers.remove(&ticket);
                self.deflate_locked(&mut graph, &request.locked);
                drop(graph);
                drop(known);
                break outcome;
            }
            if graph.wakers.get(&ticket).is_some_and(|known| known.will_wake(waker)) {
                return Poll::Pending;
            }
            if let Some(fresh) = fresh.take() {
                let replaced = graph.wakers.insert(ticket, fresh);
                drop(graph);
                drop(replaced);
                return Poll::Pending;
            }
            drop(graph);
            fresh = Some(waker.clone());
        };
        request.state = Progress::Done;
        match outcome {
            Ok(()) => Poll::Ready(self.granted(request, true)),
            Err(refusal) => Poll::Ready(Err(refused(refusal))),
        }
    }

    /// Takes from the effects what is to be done outside of the graph mutex.
    fn settle(&self, graph: &mut Graph<H>, effects: Effects) -> Aftermath {
        if effects.is_empty() {
            return Aftermath::default();
        }
        let wakers = effects.wakes.iter().filter_map(|ticket| graph.wakers.remove(ticket)).collect();
        let wounds = effects.wounds.into_iter().filter_map(|(txn, by)| {
            let owner = self.find_owner(txn)?;
            let told = owner.wound(by).then(|| owner.on_wound.clone()).flatten()?;
            Some((told, by))
        });
        Aftermath { wakers, wounds: wounds.collect() }
    }

    fn deflate_locked(&self, graph: &mut Graph<H>, locked: &Locked<H>) {
        if let Locked::Key(handle) = locked {
            self.deflate(graph, handle.key());
        }
    }

    // --- questions --------------------------------------------------------------------------------

    /// What the transaction holds on a key by itself.
    pub fn held_mode(&self, owner: &Owner<H>, handle: &H) -> Option<LockMode> {
        match handle.cell().load() {
            Word::Thin(mode, holder) if holder == owner.id => Some(mode),
            Word::Fat => self.graph.lock().table.holds_key(owner.id, handle.key()),
            Word::Thin(..) | Word::Free | Word::Brief | Word::Sealed => None,
        }
    }

    /// The last 64 deadlocks, oldest first.
    pub fn recent_deadlocks(&self) -> Vec<Arc<DeadlockReport>> {
        self.graph.lock().table.recent().cloned().collect()
    }

    pub(crate) fn graph(&self) -> MutexGuard<'_, Graph<H>> {
        self.graph.lock()
    }

    pub(crate) fn waited(&self) -> u64 {
        self.waits.load(SeqCst)
    }

    /// The transactions that lock now.
    pub(crate) fn owners(&self) -> Vec<Arc<Owner<H>>> {
        let mut all: Vec<Arc<Owner<H>>> = Vec::new();
        for shard in &self.owners {
            let owners = shard.lock();
            if !owners.is_empty() {
                all.extend(owners.iter().filter_map(|(_, owner)| owner.upgrade()));
            }
        }
        all.sort_by_key(|owner| owner.id);
        all
    }

    fn find_owner(&self, txn: TxnId) -> Option<Arc<Owner<H>>> {
        self.shard(txn).lock().iter().find(|(id, _)| *id == txn).and_then(|(_, owner)| owner.upgrade())
    }

    fn shard(&self, txn: TxnId) -> &Owners<H> {
        &self.owners[usize::try_from(txn.0).unwrap_or(0) % SHARDS]
    }
}

/// Whether a transaction may ask for locks at all.
fn admit<H>(owner: &Owner<H>) -> Result<(), LockError> {
    if owner.ended.load(SeqCst) {
        return Err(LockError::Ended);
    }
    owner.wounded_by().map_or(Ok(()), |by| Err(LockError::Wounded { by }))
}

fn target_of<H: Handle>(locked: &Locked<H>) -> Target {
    match locked {
        Locked::Key(handle) => Target::Key(handle.key().clone()),
        Locked::Span(span) => Target::Span(span.clone()),
    }
}

fn refused(refusal: Refusal) -> LockError {
    match refusal {
        Refusal::Deadlock(report) => LockError::Deadlock(report),
        Refusal::Wounded { by } => LockError::Wounded { by },
        Refusal::Busy(blockers) => LockError::Busy(blockers),
        Refusal::Ended => LockError::Ended,
    }
}
