//! Scanning a span, from either end, own writes included.
//!
//! ```text
//!   span      [start ─────────────────────────────── end)
//!   chunks    [ near ────────┊ rest ┊──────── far ]        a chunk is locked before it is read,
//!   buffers     front ►                    ◄ back          where the policy locks spans
//! ```
//!
//! Records come from the index a leaf at a time; each is resolved in the policy's view only when it
//! is returned, so that a scan that is left early has read, locked and covered no more than that.
//! A locking scan locks as far as the first leaf first, and all the rest when it goes on. One with a limit locks
//! as far as so many records first, and then twice as many leaves each time.

use std::collections::VecDeque;

use bytes::Bytes;
use isolde_locks::{LockCell, Purpose};
use isolde_mvcc::{Found, FoundVersion, ReadAt, Rows, View};
use isolde_types::sync::{Arc, Mutex};
use isolde_types::{Key, LockMode, RowKey, Span, Ts, mutant, successor};

use super::certify::Coverage;
use super::read::Intent;
use super::tap::{TapRow, TapVersion, Tracking};
use super::wait::{Patience, Wait};
use super::write_set::Pending;
use super::{RecordRef, TxnInner};
use crate::error::{Error, Result};
use crate::isolation::{Footprint, ReadView, WriteTiming};

mod ahead;

/// Where a chunk is being read.
type Cursor = isolde_mvcc::Cursor<LockCell>;

/// From which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Front,
    Back,
}

/// What to do with a row that somebody else has locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnLocked {
    Wait,
    Refuse,
    Skip,
}

/// A span that is being scanned; see the module.
pub(crate) struct ScanCore {
    pub txn: Arc<TxnInner>,
    pub intent: Intent,
    pub on_locked: OnLocked,
    /// How many rows more are handed out at most, from both ends together.
    pub limit: Option<usize>,
    span: Span,
    /// How many leaves the last chunk covered, where chunks are locked: with a limit they grow, so that a long scan
    /// holds few locks.
    chunk_leaves: usize,
    /// What is in no chunk yet, once [`next`](Self::next) was asked.
    rest: Option<Span>,
    near: Option<Cursor>,
    far: Option<Cursor>,
    front: VecDeque<RecordRef>,
    back: VecDeque<RecordRef>,
    own: VecDeque<(Key, Pending, u32)>,
    /// Registered for the length of the scan where each call has a view of its own.
    statement: Option<View>,
    /// The time of that view, once the transaction keeps it for what was marked.
    marked_at: Option<Ts>,
    coverage: Option<Arc<Mutex<Coverage>>>,
    started: bool,
    /// Whether rows are read a leaf at a time, and those that were.
    reads_leaves: bool,
    ready: Rows,
    /// What was visible before the last leaf was fetched, where the scan looks at no one state.
    looked_at: Ts,
    /// What a recorder has not been told of, once it was told of something.
    untold: Option<Span>,
}

/// The next thing in key order: a record, an own write, or both for one key.
struct Step {
    record: Option<RecordRef>,
    own: Option<(Key, Pending, u32)>,
}

impl Step {
    fn key(&self) -> &Key {
        match (&self.own, &self.record) {
            (Some((key, ..)), _) => key,
            (None, Some(record)) => record.0.key(),
            (None, None) => unreachable!("a step has a record or an own write"),
        }
    }
}

impl ScanCore {
    /// A scan that sees own writes, and where calls have their own view the state, as of now.
    pub fn new(txn: &Arc<TxnInner>, span: Span) -> ScanCore {
        let own = if txn.is_read_only() { Vec::new() } else { txn.body().writes.within(&span) };
        let statement =
            (txn.policy.marked_view() == ReadView::Statement && txn.check_open().is_ok()).then(|| txn.core.view());
        txn.saw(statement.as_ref().map_or(Ts::ZERO, View::ts));
        ScanCore {
            txn: Arc::clone(txn),
            intent: Intent::Plain,
            on_locked: OnLocked::Wait,
            limit: None,
            rest: None,
            untold: None,
            span,
            chunk_leaves: 0,
            near: None,
            far: None,
            front: VecDeque::new(),
            back: VecDeque::new(),
            own: own.into(),
            statement,
            marked_at: None,
            coverage: None,
            started: false,
            reads_leaves: false,
            ready: Rows::default(),
            looked_at: txn.core.timeline.visible(),
        }
    }

    /// The next row from one end; `None` when the ends have met.
    pub async fn next(&mut self, wait: &Wait, end: End) -> Result<Option<(RowKey, Bytes)>> {
        if !self.started {
            self.txn.readable(wait).await?;
            self.start()?;
            self.rest = Some(self.span.clone());
        }
        self.not_left_behind()?;
        loop {
            self.refill(wait, end).await?;
            let Some(step) = self.take(end) else {
                // What the front has read ahead is the back's, once the two have met.
                if let Some(row) = self.ready.pop_back() {
                    return Ok(Some(row));
                }
                self.complete();
                return Ok(None);
            };
            match self.resolve(wait, &step).await {
                Ok(row) => {
                    let key = step.key().clone();
                    self.passed(&key, end, row.tap);
                    if let Some(value) = row.value {
                        return Ok(Some((key.into(), value)));
                    }
                }
                Err(error) => {
                    self.give_back(step, end);
                    return Err(error);
                }
            }
        }
    }

    /// Checks the options, and registers what certification will ask about.
    fn start(&mut self) -> Result<()> {
        let policy = self.txn.policy;
        let optimistic = policy.writes == WriteTiming::AtCommit;
        let refused = match self.on_locked {
            OnLocked::Skip => policy.why_not_skip_locked(),
            OnLocked::Refuse if optimistic => Some("nowait in optimistic mode: nothing is locked when a row is read"),
            _ => None,
        };
        if let Some(why) = refused {
            return Err(Error::Unsupported(why));
        }
        if self.locks_rows() || self.marks_rows() {
            self.txn.refuse_read_only()?;
        }
        if self.marks_rows() {
            self.keep_view();
        }
        if !self.txn.is_read_only() {
            let as_of = self.as_of();
            let mut body = self.txn.body();
            body.reads.read_anything = true;
            if policy.certify == Footprint::Spans && self.intent != Intent::Untracked {
                self.coverage = Some(body.reads.add_scan(self.span.clone(), as_of));
            }
        }
        self.started = true;
        Ok(())
    }

    /// What is marked as of the scan's view is certified when the scan may be gone: the transaction
    /// keeps that view, or has an older one.
    fn keep_view(&mut self) {
        let Some(at) = self.statement.as_ref().map(View::ts) else { return };
        let mut body = self.txn.body();
        let kept = &mut body.seldom().marks_view;
        if kept.as_ref().is_none_or(|kept| kept.ts() > at) {
            *kept = self.statement.take();
            self.marked_at = Some(at);
        }
    }

    fn locks_rows(&self) -> bool {
        let asked = matches!(self.intent, Intent::Update | Intent::Share);
        asked && self.txn.policy.writes == WriteTiming::AtOnce
    }

    fn marks_rows(&self) -> bool {
        let asked = matches!(self.intent, Intent::Update | Intent::Share);
        asked && self.txn.policy.writes == WriteTiming::AtCommit
    }

    /// Refuses a view of which a failed log has kept a part only.
    fn not_left_behind(&self) -> Result<()> {
        let view = self.statement.as_ref().map(View::ts).or(self.marked_at);
        self.txn.not_left_behind(view.unwrap_or_else(|| self.txn.read_ts()))
    }

    /// The committed state that the scan looks at, where it looks at one.
    fn as_of(&self) -> Ts {
        match (&self.statement, self.marked_at) {
            (Some(view), _) => view.ts(),
            (None, Some(at)) => at,
            (None, None) if self.txn.policy.has_snapshot() => self.txn.read_ts(),
            (None, None) => self.looked_at,
        }
    }

    // --- records, in order ------------------------------------------------------------------

    /// Sees to it that the buffer at this end has a record, if any is left.
    async fn refill(&mut self, wait: &Wait, end: End) -> Result<()> {
        while self.buffer(end).is_empty() {
            if self.fetch(end) {
                continue;
            }
            if self.rest.is_some() {
                self.open_chunk(wait, end).await?;
            } else if !self.fetch_across(end) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn buffer(&mut self, end: End) -> &mut VecDeque<RecordRef> {
        match end {
            End::Front => &mut self.front,
            End::Back => &mut self.back,
        }
    }

    /// Fetches a leaf from this end's own chunk; `false` when that is done.
    fn fetch(&mut self, end: End) -> bool {
        self.looked_at = self.txn.core.timeline.visible();
        let chunk = match end {
            End::Front => &mut self.near,
            End::Back => &mut self.far,
        };
        let fetched = fetch_leaf(&self.txn, chunk, end);
        fetched.is_some_and(|leaf| {
            self.extend(end, leaf);
            true
        })
    }

    /// Fetches from the other end's chunk, or takes what the other end has buffered.
    fn fetch_across(&mut self, end: End) -> bool {
        let chunk = match end {
            End::Front => &mut self.far,
            End::Back => &mut self.near,
        };
        if let Some(leaf) = fetch_leaf(&self.txn, chunk, end) {
            self.extend(end, leaf);
            return true;
        }
        let moved = std::mem::take(match end {
            End::Front => &mut self.back,
            End::Back => &mut self.front,
        });
        let any = !moved.is_empty();
        *self.buffer(end) = moved;
        any
    }

    fn extend(&mut self, end: End, leaf: Vec<RecordRef>) {
        match end {
            End::Front => self.front.extend(leaf),
            // Leaves from the back come in descending order.
            End::Back => leaf.into_iter().for_each(|record| self.back.push_front(record)),
        }
    }

    /// Takes the next chunk from the rest, locked where the policy locks spans.
    async fn open_chunk(&mut self, wait: &Wait, end: End) -> Result<()> {
        let Some(rest) = self.rest.clone() else { return Ok(()) };
        let locks = self.txn.policy.read_lock == Footprint::Spans
            && self.intent != Intent::Untracked
            && !mutant!("skip-span-lock");
        let first = self.near.is_none() && self.far.is_none();
        let leaves = if first { 1 } else { self.chunk_leaves.saturating_mul(2) };
        let chunk = match (first, self.limit) {
            (true, limit) if locks => self.leading_chunk(&rest, leaves, limit.unwrap_or(usize::MAX), end),
            (false, Some(_)) if locks => self.leading_chunk(&rest, leaves, usize::MAX, end),
            _ => rest.clone(),
        };
        if locks && !chunk.is_empty() {
            self.txn.lock_span(wait, &chunk, LockMode::Shared, Purpose::Read).await?;
        }
        let cursor = Some(self.txn.core.store.cursor(&chunk));
        match end {
            End::Front => self.near = cursor,
            End::Back => self.far = cursor,
        }
        self.rest = remainder(rest, chunk, end);
        self.chunk_leaves = leaves;
        Ok(())
    }

    /// The part of `rest` that the first records of the first leaves at this end cover.
    fn leading_chunk(&self, rest: &Span, leaves: usize, at_most: usize, end: End) -> Span {
        let mut peek = Some(self.txn.core.store.cursor(rest));
        let each = std::iter::from_fn(|| fetch_leaf(&self.txn, &mut peek, end));
        let mut leaf = each.take(leaves).last().unwrap_or_default();
        leaf.truncate(at_most);
        match (leaf.last(), end) {
            (None, _) => rest.clone(),
            (Some(last), End::Front) => Span::new(rest.start.clone(), Some(successor(last.0.key()))),
            (Some(first), End::Back) => Span::new(first.0.key().clone(), rest.end.clone()),
        }
    }

    /// Takes the next record, own write, or both, in key order from this end.
    fn take(&mut self, end: End) -> Option<Step> {
        let record_key = match end {
            End::Front => self.front.front(),
            End::Back => self.back.back(),
        }
        .map(|record| record.0.key());
        let own_key = match end {
            End::Front => self.own.front(),
            End::Back => self.own.back(),
        }
        .map(|(key, ..)| key);
        let order = match (record_key, own_key) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(record), Some(own)) if end == End::Front => record.cmp(own),
            (Some(record), Some(own)) => own.cmp(record),
        };
        let (with_record, with_own) = (order.is_le(), order.is_ge());
        let record = with_record.then(|| match end {
            End::Front => self.front.pop_front(),
            End::Back => self.back.pop_back(),
        });
        let own = with_own.then(|| match end {
            End::Front => self.own.pop_front(),
            End::Back => self.own.pop_back(),
        });
        Some(Step { record: record.flatten(), own: own.flatten() })
    }

    /// Puts a step back that could not be resolved: a later call tries it again.
    fn give_back(&mut self, step: Step, end: End) {
        match end {
            End::Front => {
                step.record.into_iter().for_each(|record| self.front.push_front(record));
                step.own.into_iter().for_each(|own| self.own.push_front(own));
            }
            End::Back => {
                step.record.into_iter().for_each(|record| self.back.push_back(record));
                step.own.into_iter().for_each(|own| self.own.push_back(own));
            }
        }
    }

    // --- what a record shows ------------------------------------------------------------------

    async fn resolve(&self, wait: &Wait, step: &Step) -> Result<Resolved> {
        let base = match (&step.own, &step.record) {
            (Some((_, Pending::Value(value), seq)), _) => {
                return Ok(Resolved::own(value.as_ref().map(|value| value.bytes().clone()), *seq));
            }
            (_, Some(record)) => self.row(wait, record).await?,
            (_, None) => Resolved::nothing(),
        };
        match &step.own {
            None => Ok(base),
            Some((key, pending, seq)) => {
                let value = self.txn.resolve(pending, key, base.value.as_deref())?;
                let value = value.map(isolde_mvcc::Packed::into_bytes);
                Ok(Resolved { value, tap: base.tap.or(Some((TapVersion::Own(*seq), None))) })
            }
        }
    }

    /// One row, in the policy's view, locked or marked as asked.
    async fn row(&self, wait: &Wait, record: &RecordRef) -> Result<Resolved> {
        let own = self.txn.status_if_any();
        let found = record.0.read(self.candidate_view(), own.as_ref());
        let locks_row = self.locks_rows() || self.txn.policy.read_lock == Footprint::Rows;
        let tracks_row = self.txn.policy.certify == Footprint::Rows || self.marks_rows();
        if self.intent == Intent::Untracked || found.value.is_none() || !(locks_row || tracks_row) {
            return self.found(wait, found).await;
        }
        if tracks_row {
            self.remember_row(record);
            return self.found(wait, found).await;
        }
        self.locked_row(wait, record).await
    }

    fn remember_row(&self, record: &RecordRef) {
        let mut body = self.txn.body();
        body.reads.marked |= self.marks_rows();
        body.reads.add_key(Some(record), record.0.key(), self.as_of());
    }

    /// Locks a candidate and reads it again; one that is gone by then is dropped.
    async fn locked_row(&self, wait: &Wait, record: &RecordRef) -> Result<Resolved> {
        let mode = match self.intent {
            Intent::Update => self.txn.policy.update_lock,
            Intent::Plain | Intent::Share | Intent::Untracked => LockMode::Shared,
        };
        let patient = Wait::new(Patience::NoWait);
        let wait = if self.on_locked == OnLocked::Wait { wait } else { &patient };
        match self.txn.lock_key(wait, record.0.key(), mode, Purpose::Read).await {
            Ok(record) => {
                let base = self.txn.read_locked(wait, &record).await?;
                // Gone without a trace since the scan looked: nothing to tell of.
                let tap =
                    (base.version != FoundVersion::None).then(|| (TapVersion::Found(base.version), base.value.clone()));
                Ok(Resolved { value: base.value, tap })
            }
            Err(Error::LockBusy(_)) if self.on_locked == OnLocked::Skip => Ok(Resolved::nothing()),
            Err(error) => Err(error),
        }
    }

    fn candidate_view(&self) -> ReadAt {
        let asked = matches!(self.intent, Intent::Update | Intent::Share);
        let view = if asked { self.txn.policy.marked_view() } else { self.txn.policy.view };
        match view {
            ReadView::Dirty => ReadAt::Dirty,
            ReadView::Locked => ReadAt::Newest,
            ReadView::Snapshot | ReadView::Statement => ReadAt::At(self.as_of()),
        }
    }

    async fn found(&self, wait: &Wait, found: Found) -> Result<Resolved> {
        if let (ReadView::Locked, FoundVersion::Committed(ts)) = (self.txn.policy.view, found.version) {
            self.txn.saw(if mutant!("scan-promises-nothing") { Ts::ZERO } else { ts });
            self.txn.visible(wait, ts).await;
            self.txn.not_left_behind(ts)?;
        }
        let tap = match (found.version, &found.value) {
            (FoundVersion::None, _) => None,
            (version, value) => Some((TapVersion::Found(version), value.clone())),
        };
        Ok(Resolved { value: found.value, tap })
    }

    // --- what was covered -----------------------------------------------------------------------

    fn passed(&mut self, key: &Key, end: End, row: Option<(TapVersion, Option<Bytes>)>) {
        if let Some(coverage) = &self.coverage {
            let mut coverage = coverage.lock();
            match end {
                End::Front => coverage.forward_to(key),
                End::Back => coverage.backward_to(key),
            }
        }
        if self.txn.core.tap.is_open() {
            self.tell(Some(key), end, row);
        }
    }

    fn complete(&mut self) {
        if let Some(coverage) = &self.coverage {
            coverage.lock().complete();
        }
        if self.txn.core.tap.is_open() {
            self.tell(None, End::Front, None);
        }
    }

    /// Tells a recorder of the piece of the span up to `key`, or of all that is left.
    fn tell(&mut self, key: Option<&Key>, end: End, row: Option<(TapVersion, Option<Bytes>)>) {
        let untold = self.untold.take().unwrap_or_else(|| self.span.clone());
        let Span { start, end: stop } = untold.clone();
        let (piece, left) = match (key, end) {
            (None, _) => (untold, Span::new(start.clone(), Some(start))),
            (Some(key), End::Front) => {
                let bound = successor(key);
                (Span::new(start, Some(bound.clone())), Span::new(bound, stop))
            }
            (Some(key), End::Back) => (Span::new(key.clone(), stop), Span::new(start, Some(key.clone()))),
        };
        self.untold = Some(left);
        if piece.is_empty() {
            return;
        }
        let row = row.zip(key).map(|((version, value), key)| TapRow { key: key.clone(), version, value });
        let tracked = self.intent != Intent::Untracked && self.on_locked != OnLocked::Skip;
        let tracking = if tracked { Tracking::Tracked } else { Tracking::Untracked };
        self.txn.core.tap.scan(&self.txn, piece, row, tracking, self.as_of());
    }
}

/// What a row came to: a value if it is there, and what a recorder is to be told of it.
struct Resolved {
    value: Option<Bytes>,
    tap: Option<(TapVersion, Option<Bytes>)>,
}

impl Resolved {
    fn nothing() -> Resolved {
        Resolved { value: None, tap: None }
    }

    fn own(value: Option<Bytes>, seq: u32) -> Resolved {
        Resolved { tap: Some((TapVersion::Own(seq), value.clone())), value }
    }
}

fn fetch_leaf(txn: &TxnInner, chunk: &mut Option<Cursor>, end: End) -> Option<Vec<RecordRef>> {
    let cursor = chunk.as_mut()?;
    let mut leaf = Vec::new();
    loop {
        let more = match end {
            End::Front => txn.core.store.next_batch(cursor, &mut leaf),
            End::Back => txn.core.store.next_batch_back(cursor, &mut leaf),
        };
        if !leaf.is_empty() {
            return Some(leaf.into_iter().map(RecordRef).collect());
        }
        if !more {
            return None;
        }
    }
}

/// What is left of `rest` once `chunk` was taken from one of its ends.
fn remainder(rest: Span, chunk: Span, end: End) -> Option<Span> {
    let left = match end {
        End::Front => Span::new(chunk.end?, rest.end),
        End::Back => Span::new(rest.start, Some(chunk.start)),
    };
    (!left.is_empty()).then_some(left)
}
