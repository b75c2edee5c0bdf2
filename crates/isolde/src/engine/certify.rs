//! The read set, and the check that what was read is still current.
//!
//! Certification runs *after* the commit timestamp was taken (I5). Whoever has a smaller one had
//! installed its versions before it took it, so they are found here; whoever has none yet will get a
//! larger one, so a lock that it holds is no conflict. For each key: the newest version below the
//! commit timestamp, other than this transaction's own, must be at or below the state that was read.
//! For each span: no key in it may have a version after that state, tombstones included. So all reads
//! of a serializable transaction that wrote are current at its commit_ts (I9).
//!
//! ```text
//!   T1 read x as of @4 and orders itself @7:
//!     x: @9 active …… skip   @6 committed …… newer than @4: conflict
//!     x: @6 ordered, undecided …… wait for its outcome: it only looks at memory, and always ends
//! ```
//!
//! Source: backward validation (Kung and Robinson, 1981), made precise by ordering first.

use isolde_mvcc::{Latest, SpanCheck, Status};
use isolde_types::sync::{Arc, Mutex, spin_until};
use isolde_types::{Key, RecordCell, Span, Ts, mutant};

use super::{Core, RecordRef};
use crate::error::ConflictKind;

/// What was read: a record, or the absence of one.
enum Target {
    Record(RecordRef),
    Absent(Key),
}

struct KeyRead {
    target: Target,
    as_of: Ts,
}

/// Which part of a scan's span was really looked at: from the front up to a key, from the back down
/// to a key, or all of it.
pub(crate) struct Coverage {
    span: Span,
    front: Option<Key>,
    back: Option<Key>,
    whole: bool,
}

impl Coverage {
    /// All up to and including `key` was looked at.
    pub fn forward_to(&mut self, key: &Key) {
        self.front = Some(key.clone());
    }

    /// All from `key` on was looked at.
    pub fn backward_to(&mut self, key: &Key) {
        self.back = Some(key.clone());
    }

    /// The two ends have met.
    pub fn complete(&mut self) {
        self.whole = true;
    }

    fn spans(&self) -> Vec<Span> {
        if self.whole {
            return vec![self.span.clone()];
        }
        let front = self.front.as_ref().map(|key| Span::new(self.span.start.clone(), Span::point(key).end));
        let back = self.back.as_ref().map(|key| Span::new(key.clone(), self.span.end.clone()));
        front.into_iter().chain(back).collect()
    }
}

struct SpanRead {
    coverage: Arc<Mutex<Coverage>>,
    as_of: Ts,
}

/// The keys and spans that must still be as they were read when the transaction commits.
#[derive(Default)]
pub(crate) struct ReadSet {
    keys: Vec<KeyRead>,
    spans: Vec<SpanRead>,
    /// Whether the transaction has read anything at all, tracked or not.
    pub read_anything: bool,
    /// Whether it marked a read: then it certifies even if it wrote nothing.
    pub marked: bool,
}

/// A read that is no longer current.
pub(crate) struct Lost {
    pub kind: ConflictKind,
    pub key: Key,
    pub span: Option<Span>,
    pub as_of: Ts,
    pub latest: Ts,
}

impl ReadSet {
    /// Remembers a read of a key as of a state; without a record, of its absence.
    pub fn add_key(&mut self, record: Option<&RecordRef>, key: &[u8], as_of: Ts) {
        let target = match record {
            Some(record) => Target::Record(record.clone()),
            None => Target::Absent(Key::copy_from_slice(key)),
        };
        self.keys.push(KeyRead { target, as_of });
    }

    /// Remembers a scan, of whatever part of its span it will have covered.
    pub fn add_scan(&mut self, span: Span, as_of: Ts) -> Arc<Mutex<Coverage>> {
        let coverage = Arc::new(Mutex::new(Coverage { span, front: None, back: None, whole: false }));
        self.spans.push(SpanRead { coverage: Arc::clone(&coverage), as_of });
        coverage
    }

    /// Remembers a whole span.
    pub fn add_span(&mut self, span: Span, as_of: Ts) {
        self.add_scan(span, as_of).lock().complete();
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.spans.is_empty()
    }

    /// Whether these are a few keys at most, all of which are `covered`: see `certify_covered`.
    pub fn is_covered(&self, most: usize, covered: impl Fn(&[u8]) -> bool) -> bool {
        self.spans.is_empty() && self.keys.len() <= most && self.keys.iter().all(|read| covered(read.key()))
    }

    /// Checks the reads of keys for which `covered` says that they cannot change any more, and
    /// forgets them: they need no look after the commit timestamp was taken.
    pub fn certify_covered(
        &mut self,
        core: &Core,
        own: Option<&Arc<Status>>,
        covered: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Lost> {
        let mut lost = None;
        self.keys.retain(|read| {
            if lost.is_some() || !covered(read.key()) {
                return true;
            }
            lost = read.certify(core, Ts::MAX, own).err();
            false
        });
        lost.map_or(Ok(()), Err)
    }

    /// Certifies every read as of `at`.
    pub fn certify(&self, core: &Core, at: Ts, own: Option<&Arc<Status>>) -> Result<(), Lost> {
        if !mutant!("skip-point-certification") {
            self.keys.iter().try_for_each(|read| read.certify(core, at, own))?;
        }
        if !mutant!("skip-span-certification") {
            self.spans.iter().try_for_each(|read| read.certify(core, at, own))?;
        }
        Ok(())
    }
}

impl KeyRead {
    fn key(&self) -> &[u8] {
        match &self.target {
            Target::Record(record) => record.0.key(),
            Target::Absent(key) => key,
        }
    }

    fn certify(&self, core: &Core, at: Ts, own: Option<&Arc<Status>>) -> Result<(), Lost> {
        let latest = settled(|| match self.record(core) {
            Some(record) => match record.0.latest_at(at, own) {
                Latest::Nothing => Some(Ts::ZERO),
                Latest::Committed(ts, _) => Some(ts),
                Latest::Undecided(_) => None,
            },
            None => Some(Ts::ZERO),
        });
        if latest <= self.as_of {
            return Ok(());
        }
        let key = Key::copy_from_slice(self.key());
        Err(Lost { kind: ConflictKind::ReadChanged, key, span: None, as_of: self.as_of, latest })
    }

    /// The record now: one that was absent may have come, one that died may have a successor.
    fn record(&self, core: &Core) -> Option<RecordRef> {
        match &self.target {
            Target::Record(record) if !record.0.cell().is_sealed() => Some(record.clone()),
            Target::Record(record) => core.find(record.0.key()),
            Target::Absent(key) => core.find(key),
        }
    }
}

impl SpanRead {
    fn certify(&self, core: &Core, at: Ts, own: Option<&Arc<Status>>) -> Result<(), Lost> {
        let covered = self.coverage.lock().spans();
        for span in covered {
            let changed = settled(|| match core.store.span_latest_after(&span, self.as_of, at, own) {
                SpanCheck::Unchanged => Some(None),
                SpanCheck::Changed { key, ts } => Some(Some((key, ts))),
                SpanCheck::Undecided(_) => None,
            });
            if let Some((key, latest)) = changed {
                let kind = ConflictKind::SpanChanged;
                return Err(Lost { kind, key, span: Some(span), as_of: self.as_of, latest });
            }
        }
        Ok(())
    }
}

/// Asks until there is an answer: whoever is undecided has a commit timestamp, and decides without
/// waiting for anything but smaller timestamps.
fn settled<T>(ask: impl FnMut() -> Option<T>) -> T {
    spin_until(ask)
}
