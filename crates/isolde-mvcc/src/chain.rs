//! The versions of one key, newest first: at most one in flight, then the committed ones.
//!
//! ```text
//!  in_flight ─► {status, seq, value}      the one writer that holds the key's X lock
//!  newest       @31 "c"                   inline: most keys have one version
//!  second       @20 "b"                   inline: what is replaced mostly stays until its successor is durable
//!  older    ─► @12 tombstone ─► @9 "a"    strictly descending (I1)
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
    /// The version before the newest. There are `older` ones only if there is this.
    second: Committed,
    older: Option<Box<Older>>,
}

#[derive(Debug, Default)]
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
    /// Something committed, if only a tombstone.
    pub(crate) committed: bool,
    in_flight: Option<Box<InFlight>>,
    newest: Option<Packed>,
    second: Option<Packed>,
    older: Option<Box<Older>>,
}

impl Removed {
    /// Takes out the values of the newer versions: they are worth to be dropped together with others.
    pub(crate) fn take_values(&mut self, mut each: impl FnMut(Packed)) {
        if let Some(value) = self.newest.take() {
            each(value);
        }
        if let Some(value) = self.second.take() {
            each(value);
        }
    }

    /// What is still to be dropped when the values are taken.
    pub(crate) fn has_more(&self) -> bool {
        self.in_flight.is_some() || self.older.is_some()
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

    fn is_none(&self) -> bool {
        self.ts == Ts::ZERO
    }

    fn take(&mut self) -> Committed {
        std::mem::take(self)
    }

    fn found(&self) -> Found {
        let version = if self.is_none() { FoundVersion::None } else { FoundVersion::Committed(self.ts) };
        Found { version, value: bytes(&self.value) }
    }

    fn latest(&self) -> Latest {
        if self.is_none() { Latest::Nothing } else { Latest::Committed(self.ts, self.value.is_none()) }
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
        Chain { newest: Committed::NOTHING, in_flight: None, second: Committed::NOTHING, older: None }
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
        // The second is nothing, at the beginning of time, where there is none.
        let mut versions = [&self.newest, &self.second].into_iter().chain(self.older());
        versions.find(|version| version.ts <= at).unwrap_or(&Committed::NOTHING)
    }

    /// The versions behind the second.
    fn older(&self) -> impl Iterator<Item = &Committed> {
        let older = std::iter::successors(self.older.as_deref(), |older| older.next.as_deref());
        older.map(|older| &older.version)
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
        self.drop_unneeded(&live, size, &mut removed);
        self.stamp(ts, value, Some(&live), size, &mut removed);
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
        Removed {
            newest: earlier.newest.value,
            second: earlier.second.value,
            older: earlier.older,
            ..Removed::default()
        }
    }

    /// Takes the in-flight version of this transaction away.
    pub(crate) fn withdraw(&mut self, status: &Arc<Status>) -> Removed {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.is_of(Some(status)));
        Removed { in_flight, ..Removed::default() }
    }

    /// Stamps the in-flight version if its transaction is finished, then removes what I7 allows.
    pub(crate) fn prune(&mut self, live: &Live, size: &mut Size) -> Removed {
        let mut removed = Removed::default();
        self.drop_unneeded(live, size, &mut removed);
        self.resolve(live, size, &mut removed);
        if mutant!("tombstone-dropped-before-what-it-hides") && self.newest.value.is_none() {
            self.resurrect(size);
        }
        removed
    }

    /// Removes the versions behind the newest that nobody can see.
    fn drop_unneeded(&mut self, live: &Live, size: &mut Size, removed: &mut Removed) {
        if self.second.is_none() {
            return;
        }
        self.drop_unneeded_older(live, size, removed);
        if !live.needs(self.second.ts, self.newest.ts) {
            size.shrink(1, self.second.value_size());
            removed.second = self.second.take().value;
            removed.committed = true;
            self.refill(size);
        }
    }

    fn drop_unneeded_older(&mut self, live: &Live, size: &mut Size, removed: &mut Removed) {
        let mut newer = self.second.ts;
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
                removed.committed = true;
            }
            newer = ts;
        }
    }

    /// The second version is gone: the one behind it takes its place.
    fn refill(&mut self, size: &mut Size) {
        if let Some(mut older) = self.older.take() {
            size.shrink(0, size_of::<Older>());
            self.second = older.version.take();
            self.older = older.next.take();
        }
    }

    /// A seeded fault: the tombstone is dropped, and what stands behind it is the newest version.
    fn resurrect(&mut self, size: &mut Size) {
        if !self.second.is_none() {
            size.shrink(1, 0);
            self.newest = self.second.take();
            self.refill(size);
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
        if earlier.is_none() {
            return;
        }
        if live.is_none_or(|live| live.needs(earlier.ts, ts)) {
            let before = std::mem::replace(&mut self.second, earlier);
            if !before.is_none() {
                size.grow(0, size_of::<Older>());
                self.older = Some(Box::new(Older { version: before, next: self.older.take() }));
            }
        } else {
            size.shrink(1, earlier.value_size());
            removed.newest = earlier.value;
            removed.committed = true;
        }
    }

    pub(crate) fn garbage(&self) -> Garbage {
        let is_clean = self.second.is_none() && self.newest.value.is_some();
        if is_clean { Garbage::None } else { Garbage::Some }
    }

    /// Whether nobody can tell this chain from an absent key: nothing at all, or one tombstone that
    /// every live view sees.
    pub(crate) fn is_dead(&self, live: &Live) -> bool {
        self.in_flight.is_none()
            && self.second.is_none()
            && self.newest.value.is_none()
            && self.newest.ts <= live.oldest()
    }

    /// What the committed versions take, counted anew. In-flight ones are counted when they are stamped: the
    /// limit on write sets bounds them, and counting them up and down would cost as much as all the rest.
    pub(crate) fn size(&self) -> Size {
        let mut size = Size::default();
        for version in [&self.newest, &self.second] {
            size.grow(i64::from(!version.is_none()), version.value_size());
        }
        for version in self.older() {
            size.grow(1, size_of::<Older>() + version.value_size());
        }
        size
    }

    /// The commit_ts of all versions that are committed, newest first.
    pub(crate) fn timestamps(&self) -> Vec<Ts> {
        let stamped = self.in_flight.as_ref().and_then(|in_flight| match in_flight.status.state() {
            State::Committed(ts) => Some(ts),
            _ => None,
        });
        let inline = [&self.newest, &self.second].into_iter().filter(|version| !version.is_none());
        stamped.into_iter().chain(inline.chain(self.older()).map(|version| version.ts)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_version_stands_inline_and_further_ones_behind_it() {
        let (mut chain, mut size) = (Chain::new(), Size::default());
        // Commits one more version, while such views are live; gives the times of all, newest first.
        let mut commit = |ts: u64, views: &[u64]| {
            let live = Live::new(views.iter().copied().map(Ts), Ts(ts));
            let removed = chain.commit(Some(Packed::copy(b"value")), || (Ts(ts), live), &mut size);
            assert_eq!(size, chain.size());
            let times: Vec<u64> = chain.timestamps().into_iter().map(|ts| ts.0).collect();
            (times, removed.committed, chain.older().count())
        };
        assert_eq!(commit(1, &[]), (vec![1], false, 0));
        assert_eq!(commit(2, &[]), (vec![2], true, 0), "nobody needs the first");
        assert_eq!(commit(3, &[2]), (vec![3, 2], false, 0), "a view needs the second");
        assert_eq!(commit(4, &[2]), (vec![4, 2], true, 0), "what came between is nobody's");
        assert_eq!(commit(5, &[2, 4]), (vec![5, 4, 2], false, 1));
        assert_eq!(commit(6, &[2, 4, 5]), (vec![6, 5, 4, 2], false, 2));
        assert_eq!(commit(7, &[2, 5]), (vec![7, 5, 2], true, 1), "one behind has gone, and the newest");
        assert_eq!(commit(8, &[2]), (vec![8, 2], true, 0), "the last one takes the second's place");
        assert_eq!(commit(9, &[]), (vec![9], true, 0));
    }
}
