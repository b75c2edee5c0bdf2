//! The versions of one key, newest first: at most one in flight, then the committed ones.
//!
//! ```text
//!  in_flight ─► {status, seq, value}      the one writer that holds the key's X lock
//!  newest       @31 "c"                   inline: most keys have one version
//!  older    ─► @20 "b" ─► @12 tombstone   strictly descending (I1)
//! ```
//!
//! "No version at all" is written as a tombstone at [`Ts::ZERO`]: the key was absent since the
//! beginning of time. This module knows no latch; [`Record`](crate::Record) has it.
//!
//! A write that is a whole transaction need not stand here in flight: [`Chain::commit`].
//!
//! A writer may come before the last one was stamped, where that unwound after its locks were given back
//! (I4): then it finds an in-flight version whose status says committed, and stamps it first.

use bytes::Bytes;
use isolde_types::sync::Arc;
use isolde_types::{Ts, mutant};

use crate::live::Live;
use crate::record::{Found, FoundVersion, Latest, ReadAt};
use crate::status::{Exposure, State, Status};
use crate::value::Packed;

/// What a scan meets comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Chain {
    newest: Committed,
    in_flight: Option<Box<InFlight>>,
    older: Option<Box<Older>>,
    /// The time of the older version if there is exactly one, else zero: it is far away, and mostly stays.
    only_older: Ts,
}

#[derive(Debug)]
struct Committed {
    ts: Ts,
    value: Option<Packed>,
}

#[derive(Debug)]
struct Older {
    version: Committed,
    next: Option<Box<Older>>,
}

/// A version that was written and is not stamped with its commit_ts.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) status: Arc<Status>,
    pub(crate) seq: u32,
    pub(crate) value: Option<Packed>,
}

/// What a change took out of a chain; it is dropped when no latch is held, because dropping bytes
/// can run code of the user.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    in_flight: Option<Box<InFlight>>,
    /// The value that was the newest; it is worth to be dropped together with others.
    pub(crate) newest: Option<Packed>,
    older: Option<Box<Older>>,
}

impl Removed {
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_none() && self.newest.is_none() && self.older.is_none()
    }
}

/// How many versions and bytes a change added to a chain.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Size {
    pub(crate) versions: i64,
    pub(crate) bytes: i64,
}

impl Size {
    fn grow(&mut self, versions: i64, bytes: usize) {
        self.versions += versions;
        self.bytes += i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    fn shrink(&mut self, versions: i64, bytes: usize) {
        self.versions -= versions;
        self.bytes -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }
}

/// Why a record may be worth another look by the sweeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Garbage {
    /// One version with a value, and perhaps an in-flight one.
    None,
    /// Older versions, a tombstone, or nothing at all.
    Some,
}

impl Committed {
    const NOTHING: Committed = Committed { ts: Ts::ZERO, value: None };

    fn found(&self) -> Found {
        let version = if self.ts == Ts::ZERO { FoundVersion::None } else { FoundVersion::Committed(self.ts) };
        Found { version, value: bytes(&self.value) }
    }

    fn latest(&self) -> Latest {
        if self.ts == Ts::ZERO { Latest::Nothing } else { Latest::Committed(self.ts, self.value.is_none()) }
    }

    fn value_size(&self) -> usize {
        value_size(&self.value)
    }
}

fn value_size(value: &Option<Packed>) -> usize {
    value.as_ref().map_or(0, Packed::heap_size)
}

fn bytes(value: &Option<Packed>) -> Option<Bytes> {
    value.as_ref().map(|value| value.bytes().clone())
}

impl InFlight {
    /// What a read finds here: `None` is "look further down".
    fn found(&self, at: ReadAt, own: Option<&Arc<Status>>) -> Option<Found> {
        if self.is_of(own) {
            return None;
        }
        let version = match (self.status.state(), at) {
            (State::Committed(ts), ReadAt::At(view)) if ts > view => return None,
            (State::Committed(ts), _) => FoundVersion::Committed(ts),
            (State::Active | State::Ordered(_), ReadAt::Dirty) if self.status.exposure() == Exposure::Exposed => {
                FoundVersion::InFlight { writer: self.status.writer(), seq: self.seq }
            }
            _ => return None,
        };
        Some(Found { version, value: bytes(&self.value) })
    }

    fn latest(&self, at: Ts, own: Option<&Arc<Status>>) -> Option<Latest> {
        if self.is_of(own) {
            return None;
        }
        match self.status.state() {
            State::Committed(ts) if ts <= at => Some(Latest::Committed(ts, self.value.is_none())),
            State::Ordered(ts) if ts <= at => Some(Latest::Undecided(ts)),
            _ => None,
        }
    }

    fn is_of(&self, own: Option<&Arc<Status>>) -> bool {
        own.is_some_and(|own| Arc::ptr_eq(own, &self.status))
    }
}

impl Chain {
    pub(crate) fn new() -> Chain {
        Chain { newest: Committed::NOTHING, older: None, only_older: Ts::ZERO, in_flight: None }
    }

    /// Prefetches what a clone of the newest committed value meets.
    #[inline]
    pub(crate) fn prefetch_newest(&self) {
        if let Some(value) = &self.newest.value {
            value.prefetch_count();
        }
    }

    /// What a read at `at` finds, the in-flight version of `own` aside.
    pub(crate) fn read(&self, at: ReadAt, own: Option<&Arc<Status>>) -> Found {
        if let Some(found) = self.in_flight.as_ref().and_then(|in_flight| in_flight.found(at, own)) {
            return found;
        }
        match at {
            ReadAt::At(view) => self.committed_at(view).found(),
            ReadAt::Dirty | ReadAt::Newest => self.newest.found(),
        }
    }

    /// The value that a view of no writer shows.
    pub(crate) fn value(&self, at: ReadAt) -> Option<Bytes> {
        match at {
            ReadAt::At(view) if self.in_flight.is_none() && self.newest.ts <= view => bytes(&self.newest.value),
            _ => self.read(at, None).value,
        }
    }

    /// The newest version at or before `at`, the in-flight version of `own` aside.
    pub(crate) fn latest_at(&self, at: Ts, own: Option<&Arc<Status>>) -> Latest {
        let in_flight = self.in_flight.as_ref().and_then(|in_flight| in_flight.latest(at, own));
        in_flight.unwrap_or_else(|| self.committed_at(at).latest())
    }

    fn committed_at(&self, at: Ts) -> &Committed {
        let older = std::iter::successors(self.older.as_deref(), |older| older.next.as_deref());
        let mut versions = std::iter::once(&self.newest).chain(older.map(|older| &older.version));
        versions.find(|version| version.ts <= at).unwrap_or(&Committed::NOTHING)
    }

    /// Puts an in-flight version on top; replaces the one of the same transaction.
    pub(crate) fn install(&mut self, version: Box<InFlight>, size: &mut Size) -> Removed {
        let mut removed = Removed::default();
        self.make_way(Some(&version.status), size, &mut removed);
        self.in_flight = Some(version);
        removed
    }

    /// Takes away or stamps the in-flight version that is left over here.
    fn make_way(&mut self, own: Option<&Arc<Status>>, size: &mut Size, removed: &mut Removed) {
        let Some(earlier) = self.in_flight.take() else { return };
        let own = earlier.is_of(own);
        match earlier.status.state() {
            State::Committed(ts) if !own => self.stamp(ts, earlier.value, None, size, removed),
            State::Aborted => removed.in_flight = Some(earlier),
            _ if own => removed.in_flight = Some(earlier),
            _ => panic!("I4: {} holds the key exclusively", earlier.status.writer()),
        }
    }

    /// Makes a write that is committed at what `order` says the newest version, and removes what I7 allows.
    pub(crate) fn commit(
        &mut self,
        value: Option<Packed>,
        order: impl FnOnce() -> (Ts, Live),
        size: &mut Size,
    ) -> Removed {
        let mut removed = Removed::default();
        self.make_way(None, size, &mut removed);
        let (ts, live) = order();
        self.stamp(ts, value, Some(&live), size, &mut removed);
        self.drop_unneeded(&live, size, &mut removed);
        removed
    }

    /// Makes this the only version: what recovery found. Nobody reads yet, so nothing older is kept.
    pub(crate) fn restore(&mut self, ts: Ts, value: Option<Packed>, size: &mut Size) -> Removed {
        let gone = self.size();
        size.versions -= gone.versions;
        size.bytes -= gone.bytes;
        let newest = Committed { ts, value };
        size.grow(1, newest.value_size());
        let earlier = std::mem::replace(self, Chain { newest, ..Chain::new() });
        Removed { newest: earlier.newest.value, ..Removed::default() }
    }

    /// Takes the in-flight version of this transaction away.
    pub(crate) fn withdraw(&mut self, status: &Arc<Status>) -> Removed {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.is_of(Some(status)));
        Removed { in_flight, ..Removed::default() }
    }

    /// Stamps the in-flight version if its transaction is finished, then removes what I7 allows.
    pub(crate) fn prune(&mut self, live: &Live, size: &mut Size) -> Removed {
        let mut removed = Removed::default();
        self.resolve(live, size, &mut removed);
        if mutant!("tombstone-dropped-before-what-it-hides") && self.newest.value.is_none() {
            self.resurrect(size);
        }
        self.drop_unneeded(live, size, &mut removed);
        removed
    }

    /// Removes the versions behind the newest that nobody can see.
    fn drop_unneeded(&mut self, live: &Live, size: &mut Size, removed: &mut Removed) {
        if self.older.is_none() || self.only_older > Ts::ZERO && live.needs(self.only_older, self.newest.ts) {
            return;
        }
        let mut newer = self.newest.ts;
        let mut place = &mut self.older;
        while let Some(mut older) = place.take() {
            let ts = older.version.ts;
            if live.needs(ts, newer) {
                place = &mut place.insert(older).next;
            } else {
                size.shrink(1, size_of::<Older>() + older.version.value_size());
                *place = older.next.take();
                older.next = removed.older.take();
                removed.older = Some(older);
            }
            newer = ts;
        }
        self.only_older = match &self.older {
            Some(older) if older.next.is_none() => older.version.ts,
            _ => Ts::ZERO,
        };
    }

    /// A seeded fault: the tombstone is dropped, and what stands behind it is the newest version.
    fn resurrect(&mut self, size: &mut Size) {
        if let Some(mut older) = self.older.take() {
            size.shrink(1, size_of::<Older>());
            std::mem::swap(&mut self.newest, &mut older.version);
            self.older = older.next.take();
            self.only_older = Ts::ZERO;
        }
    }

    fn resolve(&mut self, live: &Live, size: &mut Size, removed: &mut Removed) {
        let Some(in_flight) = self.in_flight.take() else { return };
        match in_flight.status.state() {
            State::Committed(ts) => self.stamp(ts, in_flight.value, Some(live), size, removed),
            State::Aborted => {
                removed.in_flight = Some(in_flight);
            }
            State::Active | State::Ordered(_) => self.in_flight = Some(in_flight),
        }
    }

    /// Makes a finished write the newest committed version.
    fn stamp(&mut self, ts: Ts, value: Option<Packed>, live: Option<&Live>, size: &mut Size, removed: &mut Removed) {
        assert!(ts > self.newest.ts, "I1: {ts} does not follow {}", self.newest.ts);
        let newest = Committed { ts, value };
        size.grow(1, newest.value_size());
        let earlier = std::mem::replace(&mut self.newest, newest);
        if earlier.ts == Ts::ZERO {
            return;
        }
        if live.is_none_or(|live| live.needs(earlier.ts, ts)) {
            size.grow(0, size_of::<Older>());
            self.only_older = if self.older.is_none() { earlier.ts } else { Ts::ZERO };
            self.older = Some(Box::new(Older { version: earlier, next: self.older.take() }));
        } else {
            size.shrink(1, earlier.value_size());
            removed.newest = earlier.value;
        }
    }

    pub(crate) fn garbage(&self) -> Garbage {
        let is_clean = self.older.is_none() && self.newest.value.is_some();
        if is_clean { Garbage::None } else { Garbage::Some }
    }

    /// Whether nobody can tell this chain from an absent key: nothing at all, or one tombstone that
    /// every live view sees.
    pub(crate) fn is_dead(&self, live: &Live) -> bool {
        self.in_flight.is_none()
            && self.older.is_none()
            && self.newest.value.is_none()
            && self.newest.ts <= live.oldest()
    }

    /// What the committed versions take, counted anew. In-flight ones are counted when they are stamped: the
    /// limit on write sets bounds them, and counting them up and down would cost as much as all the rest.
    pub(crate) fn size(&self) -> Size {
        let mut size = Size::default();
        size.grow(i64::from(self.newest.ts != Ts::ZERO), self.newest.value_size());
        for older in std::iter::successors(self.older.as_deref(), |older| older.next.as_deref()) {
            size.grow(1, size_of::<Older>() + older.version.value_size());
        }
        size
    }

    /// The commit_ts of all versions that are committed, newest first.
    pub(crate) fn timestamps(&self) -> Vec<Ts> {
        let stamped = self.in_flight.as_ref().and_then(|in_flight| match in_flight.status.state() {
            State::Committed(ts) => Some(ts),
            _ => None,
        });
        let newest = Some(self.newest.ts).filter(|ts| *ts != Ts::ZERO);
        let older = std::iter::successors(self.older.as_deref(), |older| older.next.as_deref());
        stamped.into_iter().chain(newest).chain(older.map(|older| older.version.ts)).collect()
    }
}

impl Drop for Older {
    /// One after the other, so that a long chain does not need a deep stack.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut older) = next {
            next = older.next.take();
        }
    }
}
