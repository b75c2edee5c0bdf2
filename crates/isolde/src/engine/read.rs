//! Reading a key: own writes first, then what the policy's view shows.

use bytes::Bytes;
use isolde_locks::Purpose;
use isolde_mvcc::{Found, FoundVersion, Latest, Packed, ReadAt};
use isolde_types::sync::Arc;
use isolde_types::{LockMode, Ts, mutant};

use super::tap::Tracking;
use super::wait::Wait;
use super::write_set::Pending;
use super::{RecordRef, TxnInner};
use crate::error::{Conflict, ConflictKind, Error, Result};
use crate::isolation::{Footprint, ReadView, WriteCheck, WriteTiming};

/// What a read is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Intent {
    /// What the level promises.
    Plain,
    /// Neither locked nor certified.
    Untracked,
    /// The key will be written: keep others from writing it, and from meaning to.
    Update,
    /// The key must stay as it is until the commit.
    Share,
}

/// What a read found, apart from own writes.
pub(crate) struct Base {
    pub value: Option<Bytes>,
    pub version: FoundVersion,
    as_of: Ts,
    tracking: Tracking,
}

/// Whether a read needs the record that it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keep {
    /// To be certified.
    Record,
    /// What it showed is enough.
    Nothing,
}

/// What a view showed.
struct Seen {
    /// If it was to be kept, and there is one.
    record: Option<RecordRef>,
    found: Found,
    as_of: Ts,
}

impl Seen {
    fn into_base(self, tracking: Tracking) -> Base {
        Base { value: self.found.value, version: self.found.version, as_of: self.as_of, tracking }
    }
}

impl TxnInner {
    /// The value of a key, own writes included.
    pub async fn get(self: &Arc<Self>, wait: &Wait, key: &[u8], intent: Intent) -> Result<Option<Bytes>> {
        let own = self.own_write(key);
        if intent == Intent::Plain
            && let Some((Pending::Value(value), seq)) = own
        {
            let value = value.map(Packed::into_bytes);
            self.core.tap.read_own(self, key, seq, value.as_ref());
            return Ok(value);
        }
        let base = self.base(wait, key, intent).await?;
        let Some((pending, seq)) = own else {
            self.tell(key, &base);
            return Ok(base.value);
        };
        let value = self.resolve(&pending, key, base.value.as_deref())?;
        let value = value.map(Packed::into_bytes);
        match pending {
            Pending::Value(_) => self.core.tap.read_own(self, key, seq, value.as_ref()),
            Pending::Blind(_) => self.tell(key, &base),
        }
        Ok(value)
    }

    /// Tells a recorder of a read.
    fn tell(&self, key: &[u8], base: &Base) {
        // The dirty view shows no one state: a key that it did not find may have gone since any.
        let as_of = (self.policy.view != ReadView::Dirty).then_some(base.as_of);
        self.core.tap.read(self, key, base.version, base.value.as_ref(), base.tracking, as_of);
    }

    fn own_write(&self, key: &[u8]) -> Option<(Pending, u32)> {
        if self.is_read_only() {
            return None;
        }
        self.body().writes.get(key).map(|write| (write.pending.clone(), write.seq))
    }

    /// The value of a key without own writes, locked or remembered as the policy and intent ask.
    pub async fn base(self: &Arc<Self>, wait: &Wait, key: &[u8], intent: Intent) -> Result<Base> {
        self.readable(wait).await?;
        match intent {
            Intent::Plain if self.policy.locks_reads() => self.locked(wait, key, LockMode::Shared).await,
            Intent::Plain => Ok(self.plain(key)),
            Intent::Untracked => Ok(self.untracked(key)),
            Intent::Update | Intent::Share => self.intended(wait, key, intent).await,
        }
    }

    /// A read that the transaction means to rely on: a lock in pessimistic mode, a mark in
    /// optimistic mode.
    async fn intended(self: &Arc<Self>, wait: &Wait, key: &[u8], intent: Intent) -> Result<Base> {
        self.refuse_read_only()?;
        match self.policy.writes {
            WriteTiming::AtCommit => Ok(self.marked(key)),
            WriteTiming::AtOnce => {
                let mode = if intent == Intent::Share { LockMode::Shared } else { self.policy.update_lock };
                self.locked(wait, key, mode).await
            }
        }
    }

    /// Locks the key, then reads the newest committed version.
    async fn locked(self: &Arc<Self>, wait: &Wait, key: &[u8], mode: LockMode) -> Result<Base> {
        if mutant!("skip-read-lock") && mode == LockMode::Shared {
            return Ok(self.untracked(key));
        }
        let record = self.lock_key(wait, key, mode, Purpose::Read).await?;
        self.read_locked(wait, &record).await
    }

    /// Reads the newest committed version of a key that this transaction has locked.
    pub async fn read_locked(self: &Arc<Self>, wait: &Wait, record: &RecordRef) -> Result<Base> {
        let as_of = self.core.timeline.visible();
        let own = self.status_if_any();
        let found = record.0.read(ReadAt::Newest, own.as_ref());
        let ts = match found.version {
            FoundVersion::Committed(ts) => ts,
            FoundVersion::None | FoundVersion::InFlight { .. } => Ts::ZERO,
        };
        self.note_read(record, &found);
        self.check_not_newer(record, ts)?;
        self.saw(ts);
        self.visible(wait, ts).await;
        Ok(Base { value: found.value, version: found.version, as_of: as_of.max(ts), tracking: Tracking::Tracked })
    }

    fn note_read(&self, record: &RecordRef, found: &Found) {
        let mut body = self.body();
        body.reads.read_anything = true;
        if found.version == FoundVersion::None {
            body.placeholders.push(record.clone());
        }
    }

    /// In a snapshot view, what is locked to be written must not be newer than the snapshot.
    pub fn check_not_newer(&self, record: &RecordRef, newest: Ts) -> Result<()> {
        let checked = self.policy.write_check == WriteCheck::NotNewerThanSnapshot;
        if !checked || newest <= self.read_ts() || mutant!("first-committer-wins-off") {
            return Ok(());
        }
        Err(self.conflict(ConflictKind::WrittenSinceSnapshot, record.0.key(), None, self.read_ts(), newest))
    }

    pub fn conflict(
        &self,
        kind: ConflictKind,
        key: &isolde_types::Key,
        span: Option<&isolde_types::Span>,
        read_ts: Ts,
        latest: Ts,
    ) -> Error {
        self.core.registry.count(|counts| counts.conflicts += 1);
        let other = self.core.recent.who(latest, || self.core.next_id());
        let redact = self.core.config.redact;
        Error::Conflict(Box::new(Conflict::new(kind, self.summary(), other, key, span, read_ts, latest, redact)))
    }

    /// The values of several keys; where each call has a view of its own, all in one view.
    pub async fn multi_get<K: AsRef<[u8]>>(self: &Arc<Self>, wait: &Wait, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        let statement = (self.policy.view == ReadView::Statement).then(|| self.core.view());
        self.readable(wait).await?;
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let key = key.as_ref();
            let value = match (&statement, self.own_write(key)) {
                (Some(view), None) => {
                    self.saw(view.ts());
                    let seen = self.look_at(key, ReadAt::At(view.ts()), view.ts(), self.keeps_plain());
                    self.remember_plain(key, &seen);
                    let base = seen.into_base(Tracking::Tracked);
                    self.tell(key, &base);
                    base.value
                }
                _ => self.get(wait, key, Intent::Plain).await?,
            };
            values.push(value);
        }
        Ok(values)
    }

    /// A read without lock, remembered if the policy certifies reads.
    fn plain(&self, key: &[u8]) -> Base {
        let seen = self.look(key, self.policy.view, self.keeps_plain());
        self.remember_plain(key, &seen);
        seen.into_base(Tracking::Tracked)
    }

    /// What a read without lock keeps.
    fn keeps_plain(&self) -> Keep {
        let certified = !self.is_read_only() && self.policy.certify >= Footprint::Rows;
        if certified { Keep::Record } else { Keep::Nothing }
    }

    fn remember_plain(&self, key: &[u8], seen: &Seen) {
        if !self.is_read_only() {
            let mut body = self.body();
            body.reads.read_anything = true;
            if self.keeps_plain() == Keep::Record {
                body.reads.add_key(seen.record.as_ref(), key, seen.as_of);
            }
        }
    }

    /// A read that is certified at commit at any level; it never sees in-flight writes.
    fn marked(&self, key: &[u8]) -> Base {
        self.hold_marks_view();
        let seen = self.look(key, self.policy.marked_view(), Keep::Record);
        let mut body = self.body();
        body.reads.read_anything = true;
        body.reads.marked = true;
        body.reads.add_key(seen.record.as_ref(), key, seen.as_of);
        drop(body);
        seen.into_base(Tracking::Tracked)
    }

    fn untracked(&self, key: &[u8]) -> Base {
        let view = match self.policy.view {
            ReadView::Locked => ReadView::Statement,
            other => other,
        };
        self.look(key, view, Keep::Nothing).into_base(Tracking::Untracked)
    }

    /// What a view shows of a key, and the state that it showed.
    ///
    /// The state is fixed before the key is looked up: else a record that came in between would be
    /// missed by a read that claims to know of it.
    fn look(&self, key: &[u8], view: ReadView, keep: Keep) -> Seen {
        match view {
            ReadView::Dirty => self.look_at(key, ReadAt::Dirty, self.core.timeline.visible(), keep),
            ReadView::Snapshot if !mutant!("snapshot-per-call") => {
                self.look_at(key, ReadAt::At(self.read_ts()), self.read_ts(), keep)
            }
            ReadView::Statement if mutant!("read-committed-keeps-one-view") => {
                let first = self.hold_marks_view();
                self.look_at(key, ReadAt::At(first), first, keep)
            }
            ReadView::Statement | ReadView::Snapshot | ReadView::Locked => {
                // Registered for the length of the call: or its versions could be collected.
                let statement = self.core.view();
                self.saw(statement.ts());
                let dirty = mutant!("read-committed-reads-dirty");
                let at = if dirty { ReadAt::Dirty } else { ReadAt::At(statement.ts()) };
                self.look_at(key, at, statement.ts(), keep)
            }
        }
    }

    fn look_at(&self, key: &[u8], at: ReadAt, as_of: Ts, keep: Keep) -> Seen {
        let own = self.own_status_for_look();
        let (record, found) = match keep {
            Keep::Nothing => (None, self.core.store.read(key, at, own.as_ref())),
            Keep::Record => {
                let record = self.core.find(key);
                let found = record.as_ref().map_or(Found::NOTHING, |record| record.0.read(at, own.as_ref()));
                (record, found)
            }
        };
        Seen { record, found, as_of }
    }

    /// Own versions stand in records in pessimistic mode only.
    fn own_status_for_look(&self) -> Option<Arc<isolde_mvcc::Status>> {
        match self.policy.writes {
            WriteTiming::AtOnce if !self.is_read_only() => self.status_if_any(),
            WriteTiming::AtOnce | WriteTiming::AtCommit => None,
        }
    }

    /// The newest commit of a record that this transaction has locked exclusively.
    pub fn newest_under_lock(&self, record: &RecordRef, own: Option<&Arc<isolde_mvcc::Status>>) -> Ts {
        match record.0.latest_at(Ts::MAX, own) {
            Latest::Committed(ts, _) => ts,
            Latest::Nothing | Latest::Undecided(_) => Ts::ZERO,
        }
    }
}
