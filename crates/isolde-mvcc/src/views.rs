//! Registered views, and the watermark that never passes one.
//!
//! A view announces its read_ts in a slot; whoever collects announces a *floor* and then reads all
//! slots. Each side writes its word before it reads the other's, sequentially consistent, so one
//! of the two always notices:
//!
//! ```text
//!  register                              live
//!   1 t = visible_ts                      1 upto = visible_ts
//!   2 slot = t                            2 floor = max(floor, upto)
//!   3 floor > t? then again from 1        3 read every slot
//! ```
//!
//! Either the collector's step 3 sees the slot, or the slot was written after the floor was, and
//! then step 3 of the registration sees a floor above `t` and takes a newer `t`, which is at or
//! after `upto` and so needs no protection.
//!
//! Worked example: visible_ts is 4; v loads 4 and is put off the processor. Five commits later a
//! collector announces floor 9, finds no slot taken, and prunes all that nobody reads from 9 on. v
//! wakes up, writes 4 into its slot, sees floor 9, loads visible_ts again: 9. It reads at 9.
//!
//! Registering touches visible_ts, the floor, a slot that threads that run at the same time mostly do not share, and
//! for a [`View`] the count of references of the block that the slot is in, which 16 slots next to each other do not
//! share; an [`OpenView`] does without. Slots come in pages of 16 blocks of 4; the first page is always there, more are
//! made when it is full.
//!
//! Sources: hazard pointers (Michael 2004) for announce-then-check; Boettcher et al. 2019 ("Steam")
//! for the sorted list of live views.

use std::num::NonZero;
use std::sync::OnceLock;

use crossbeam_utils::CachePadded;
use isolde_types::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use isolde_types::sync::{Arc, Mutex, RwLock, thread_number};
use isolde_types::{Durable, Ts, mutant};

use smallvec::SmallVec;

use crate::live::Live;
use crate::timeline::Timeline;

const PAGE_SLOTS: usize = if cfg!(any(shuttle, loom)) { 2 } else { 64 };
/// How many blocks a page has: slots next to each other are in different ones. A slot of its own allocation
/// each would make a database slow to open.
const BLOCKS: usize = if cfg!(any(shuttle, loom)) { 2 } else { 16 };
const FREE: u64 = u64::MAX;

/// How many uses a cached [`Live`] serves, for each view that was read to make it, in sixteenths.
const VIEWS_PER_USE: usize = 16;

/// Over how many slots threads are spread: a few times as many as can run at once.
fn spread() -> usize {
    static SPREAD: OnceLock<usize> = OnceLock::new();
    *SPREAD.get_or_init(|| {
        let at_once = std::thread::available_parallelism().map_or(PAGE_SLOTS, NonZero::get);
        (4 * at_once).clamp(1, PAGE_SLOTS)
    })
}

/// All registered views of one database.
#[derive(Debug)]
pub struct Views {
    floor: CachePadded<AtomicU64>,
    first: Page,
    /// How many pages `overflow` has; raised before a slot of the new page is written.
    overflow_pages: AtomicUsize,
    overflow: RwLock<Vec<Arc<Page>>>,
    cached: Mutex<Cached>,
    /// What a log makes durable is live, too: after a failure it is all that is served.
    durable: Option<Arc<Durable>>,
}

#[derive(Debug)]
struct Cached {
    live: Live,
    uses_left: usize,
}

/// A registered view: what it reads stays until it is dropped.
///
/// Dropping it never blocks.
#[derive(Debug)]
pub struct View {
    slot: Claimed,
    ts: Ts,
}

impl View {
    /// The read_ts.
    #[must_use]
    pub fn ts(&self) -> Ts {
        self.ts
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.slot.free();
    }
}

/// A registered view whose holder has the [`Views`] at hand, and gives it back there: [`Views::close`]. One that is
/// not given back holds its versions for ever.
#[derive(Debug)]
#[must_use = "what it reads stays until it is closed"]
pub struct OpenView {
    place: Place,
    ts: Ts,
}

impl OpenView {
    /// The read_ts.
    #[must_use]
    pub fn ts(&self) -> Ts {
        self.ts
    }
}

/// Where a slot is: in which page, the first one being 0, and where there.
#[derive(Clone, Copy, Debug)]
struct Place {
    page: usize,
    index: usize,
}

#[derive(Debug)]
struct Slot {
    ts: CachePadded<AtomicU64>,
}

/// A few slots that live as long as one of them is used.
type Block = [Slot; PAGE_SLOTS / BLOCKS];

/// A slot that somebody has.
#[derive(Debug)]
struct Claimed {
    block: Arc<Block>,
    place: usize,
}

impl Claimed {
    fn free(&self) {
        // Release: what this view read happened before somebody collects it.
        self.block[self.place].ts.store(FREE, Ordering::Release);
    }
}

#[derive(Debug)]
struct Page {
    blocks: [Arc<Block>; BLOCKS],
    /// One more than the last slot that was ever taken; raised before that slot is written.
    used: CachePadded<AtomicUsize>,
}

impl Page {
    fn new() -> Page {
        let slot = |_| Slot { ts: CachePadded::new(AtomicU64::new(FREE)) };
        let block = |_| Arc::new(std::array::from_fn(slot));
        Page { blocks: std::array::from_fn(block), used: CachePadded::new(AtomicUsize::new(0)) }
    }

    /// Takes a free slot, from `hint` on, and announces `ts` in it.
    fn claim(&self, hint: usize, ts: Ts) -> Option<usize> {
        let mut wanted = (0..PAGE_SLOTS).map(|step| (hint + step) % PAGE_SLOTS);
        wanted.find(|&index| self.try_claim(index, ts))
    }

    /// A slot that was taken, for one who does not have the page at hand when it ends.
    fn claimed(&self, index: usize) -> Claimed {
        Claimed { block: Arc::clone(&self.blocks[index % BLOCKS]), place: index / BLOCKS }
    }

    fn slot(&self, index: usize) -> &Slot {
        &self.blocks[index % BLOCKS][index / BLOCKS]
    }

    fn try_claim(&self, index: usize, ts: Ts) -> bool {
        let slot = self.slot(index);
        if slot.ts.load(Ordering::Relaxed) != FREE {
            return false;
        }
        if self.used.load(Ordering::Relaxed) <= index {
            self.used.fetch_max(index + 1, Ordering::SeqCst);
        }
        // SeqCst: before the floor is read, in the one order that `live` takes part in.
        slot.ts.compare_exchange(FREE, ts.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn timestamps(&self) -> impl Iterator<Item = Ts> {
        let used = self.used.load(Ordering::SeqCst);
        let taken = (0..used).map(|index| self.slot(index).ts.load(Ordering::SeqCst));
        taken.filter(|ts| *ts != FREE).map(Ts)
    }
}

impl Views {
    /// No view is registered.
    #[must_use]
    pub fn new() -> Self {
        Self::with(None)
    }

    /// The same, of a database whose commits become durable later than visible.
    #[must_use]
    pub fn sparing(durable: Arc<Durable>) -> Self {
        Self::with(Some(durable))
    }

    fn with(durable: Option<Arc<Durable>>) -> Self {
        Views {
            floor: CachePadded::new(AtomicU64::new(0)),
            first: Page::new(),
            overflow_pages: AtomicUsize::new(0),
            overflow: RwLock::new(Vec::new()),
            cached: Mutex::new(Cached { live: Live::new([], Ts::ZERO), uses_left: 0 }),
            durable,
        }
    }

    /// Registers a view at visible_ts.
    #[must_use]
    pub fn register(&self, timeline: &Timeline) -> View {
        self.keep(self.open(timeline))
    }

    /// Registers a view at durable_ts, or at visible_ts where nothing becomes durable.
    #[must_use]
    pub fn register_durable(&self, timeline: &Timeline) -> View {
        self.keep(self.open_durable(timeline))
    }

    /// Makes an open view one that ends by itself.
    #[must_use]
    pub fn keep(&self, OpenView { place, ts }: OpenView) -> View {
        View { slot: self.with_page(place.page, |page| page.claimed(place.index)), ts }
    }

    fn with_page<R>(&self, page: usize, visit: impl FnOnce(&Page) -> R) -> R {
        match page.checked_sub(1) {
            None => visit(&self.first),
            Some(more) => visit(&self.overflow.read()[more]),
        }
    }

    fn store(&self, place: Place, ts: u64, ordering: Ordering) {
        self.with_page(place.page, |page| page.slot(place.index).ts.store(ts, ordering));
    }

    /// Ends a view.
    pub fn close(&self, view: OpenView) {
        // Release: what this view read happened before somebody collects it.
        self.store(view.place, FREE, Ordering::Release);
    }

    /// As [`register`](Views::register); the view is to be [closed](Views::close).
    pub fn open(&self, timeline: &Timeline) -> OpenView {
        let mut ts = timeline.visible();
        let place = self.claim(ts);
        // SeqCst: after the slot was written, in the one order that `live` takes part in.
        while Ts(self.floor.load(Ordering::SeqCst)) > ts && !mutant!("watermark-misses-registering-view") {
            ts = timeline.visible();
            self.store(place, ts.0, Ordering::SeqCst);
        }
        OpenView { place, ts }
    }

    /// As [`register_durable`](Views::register_durable); the view is to be [closed](Views::close).
    pub fn open_durable(&self, timeline: &Timeline) -> OpenView {
        let Some(durable) = &self.durable else { return self.open(timeline) };
        let mut ts = durable.get();
        let place = self.claim(ts);
        // The collector reads durable_ts, then the slots; this side writes the slot, then reads durable_ts.
        // So either it is still the durable_ts that the collector spares, or another is taken.
        loop {
            let now = durable.get();
            if now == ts {
                return OpenView { place, ts };
            }
            ts = now;
            self.store(place, ts.0, Ordering::SeqCst);
        }
    }

    /// The views that are live now; exact, at the price of reading every slot in use.
    #[must_use]
    pub fn live(&self, timeline: &Timeline) -> Live {
        let upto = timeline.visible();
        self.floor.fetch_max(upto.0, Ordering::SeqCst);
        let mut views = SmallVec::new();
        if let Some(durable) = &self.durable {
            // Before the slots are read: see `register_durable`.
            views.extend(durable.protected().into_iter().flatten().filter(|ts| *ts < upto));
        }
        // A plain loop: nearly every commit comes here.
        for ts in self.first.timestamps() {
            views.push(ts);
        }
        if self.overflow_pages.load(Ordering::SeqCst) != 0 {
            views.extend(self.overflow.read().iter().flat_map(|page| page.timestamps()));
        }
        Live::of(views, upto)
    }

    /// The live views, for pruning on the side of a commit: exact while views are few, else a
    /// list that is taken again after as many uses as pay for it.
    #[must_use]
    pub fn cached_live(&self, timeline: &Timeline) -> Live {
        if self.overflow_pages.load(Ordering::Relaxed) == 0 {
            return self.live(timeline);
        }
        let mut cached = self.cached.lock();
        if cached.uses_left == 0 {
            cached.live = self.live(timeline);
            cached.uses_left = cached.live.views().len() / VIEWS_PER_USE;
        } else {
            cached.uses_left -= 1;
        }
        cached.live.clone()
    }

    /// The read_ts of the oldest registered view.
    #[must_use]
    pub fn oldest(&self) -> Option<Ts> {
        self.fold(None, |oldest, ts| Some(oldest.map_or(ts, |oldest: Ts| oldest.min(ts))))
    }

    /// How many views are registered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.fold(0, |count, _| count + 1)
    }

    fn fold<A>(&self, start: A, mut each: impl FnMut(A, Ts) -> A) -> A {
        let first = self.first.timestamps().fold(start, &mut each);
        self.overflow.read().iter().flat_map(|page| page.timestamps()).fold(first, &mut each)
    }

    fn claim(&self, ts: Ts) -> Place {
        // So that threads that run at the same time mostly have slots of their own, and of many threads on few
        // processors only as many slots are in use, and read by `live`, as there are views.
        let hint = thread_number() % spread();
        match self.first.claim(hint, ts) {
            Some(index) => Place { page: 0, index },
            None => self.claim_overflow(hint, ts),
        }
    }

    fn claim_overflow(&self, hint: usize, ts: Ts) -> Place {
        loop {
            let pages = self.overflow.read().clone();
            let claimed = (1..).zip(&pages).find_map(|(page, slots)| Some((page, slots.claim(hint, ts)?)));
            if let Some((page, index)) = claimed {
                return Place { page, index };
            }
            self.grow(pages.len());
        }
    }

    fn grow(&self, full: usize) {
        let mut overflow = self.overflow.write();
        if overflow.len() == full {
            overflow.push(Arc::new(Page::new()));
            self.overflow_pages.store(overflow.len(), Ordering::SeqCst);
        }
    }
}

impl Default for Views {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use isolde_types::TxnId;

    use super::*;
    use crate::status::{Exposure, Status};

    fn commit(timeline: &Timeline) -> Ts {
        let (ts, wakers) = timeline.commit_at_once(&Status::new(TxnId(1), Exposure::Exposed), None);
        wakers.wake();
        ts
    }

    #[test]
    fn a_view_holds_the_watermark_until_it_is_dropped() {
        let (timeline, views) = (Timeline::new(), Views::new());
        commit(&timeline);
        let view = views.register(&timeline);
        commit(&timeline);
        let live = views.live(&timeline);
        assert_eq!((view.ts(), live.oldest(), live.upto()), (Ts(1), Ts(1), Ts(2)));
        assert_eq!((views.oldest(), views.count()), (Some(Ts(1)), 1));
        drop(view);
        assert_eq!(views.live(&timeline).oldest(), Ts(2));
        assert_eq!((views.oldest(), views.count()), (None, 0));
    }

    #[test]
    fn any_number_of_views_can_be_open() {
        let (timeline, views) = (Timeline::new(), Views::new());
        let open: Vec<View> = (0..PAGE_SLOTS * 3 + 1)
            .map(|_| {
                commit(&timeline);
                views.register(&timeline)
            })
            .collect();
        let live = views.live(&timeline);
        assert!(open.iter().map(View::ts).eq(live.views().iter().copied()));
        assert_eq!(views.count(), open.len());
        drop(open);
        assert_eq!(views.count(), 0);
        let open: Vec<OpenView> = (0..PAGE_SLOTS * 3).map(|_| views.open(&timeline)).collect();
        assert_eq!((views.count(), views.oldest()), (open.len(), Some(open[0].ts())));
        open.into_iter().for_each(|view| views.close(view));
        assert_eq!(views.count(), 0);
        let _again: Vec<View> = (0..PAGE_SLOTS * 3).map(|_| views.register(&timeline)).collect();
        assert!(views.overflow.read().len() <= 3, "freed slots are taken again");
    }

    #[test]
    fn many_threads_with_few_views_use_few_slots() {
        let (timeline, views) = (Timeline::new(), Views::new());
        for _ in 0..2 * PAGE_SLOTS {
            std::thread::scope(|scope| scope.spawn(|| drop(views.register(&timeline))).join().unwrap());
        }
        assert!(views.first.used.load(Ordering::SeqCst) <= spread());
    }

    #[test]
    fn a_cached_list_only_keeps_too_much() {
        let (timeline, views) = (Timeline::new(), Views::new());
        let _open: Vec<View> = (0..PAGE_SLOTS * 2).map(|_| views.register(&timeline)).collect();
        for _ in 0..100 {
            let cached = views.cached_live(&timeline);
            commit(&timeline);
            let view = views.register(&timeline);
            assert!(cached.oldest() == Ts::ZERO && cached.upto() <= view.ts());
        }
    }
}
