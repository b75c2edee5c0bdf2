//! Values that nobody can see any more, dropped a few at a time.
//!
//! The count of references of a value that was written long ago is far from the processor, and to
//! drop it is to wait for it: about as long as looking its key up. Loads that do not depend on each
//! other are waited for together, so values are gathered and a handful of them brought near at once.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use crossbeam_utils::CachePadded;
use isolde_types::sync::{BriefMutex, thread_number};
use smallvec::SmallVec;

use crate::value::Packed;

/// How many values are dropped together. Allocators keep about as many blocks of one size at hand for
/// each thread.
const TOGETHER: usize = if cfg!(any(shuttle, loom)) { 1 } else { 7 };

const SHARDS: usize = if cfg!(any(shuttle, loom)) { 1 } else { 16 };

type Waiting = SmallVec<[Packed; TOGETHER]>;

/// See the module. At most a handful of short values wait here for each shard.
#[derive(Debug, Default)]
pub(crate) struct Discard {
    shards: [CachePadded<BriefMutex<Waiting>>; SHARDS],
}

impl Discard {
    /// Drops a value, perhaps later. Holds no latch while values are dropped.
    pub fn discard(&self, value: Packed) {
        if !value.is_own_copy() {
            return let_go(value);
        }
        let waiting = {
            let mut waiting = self.shards[thread_number() % SHARDS].lock();
            waiting.push(value);
            (waiting.len() == TOGETHER).then(|| std::mem::take(&mut *waiting))
        };
        if let Some(waiting) = waiting {
            drop_together(waiting);
        }
    }

    /// Drops what waits.
    pub fn flush(&self) {
        for shard in &self.shards {
            let waiting = std::mem::take(&mut *shard.lock());
            drop_together(waiting);
        }
    }
}

/// Drops what may be somebody else's bytes. A panic of their owner is their owner's, and stops nothing here.
pub fn let_go<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // What a panic carries may panic, too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic))).map_err(std::mem::forget);
    }
}

thread_local! {
    /// How many [`HoldBack`]s this thread has.
    static HOLDING: Cell<usize> = const { Cell::new(0) };
    static HAS_HELD_BACK: Cell<bool> = const { Cell::new(false) };
    static HELD_BACK: RefCell<Vec<Bytes>> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread may keep what it drops for later. A model checker's threads share one real thread, and so
/// its variables.
fn is_holding() -> bool {
    !cfg!(any(shuttle, loom)) && HOLDING.try_with(|holding| holding.get() > 0).unwrap_or(false)
}

/// Drops bytes that are part of somebody else's buffer: now, or when the thread's [`HoldBack`] goes.
#[cold]
pub(crate) fn let_go_foreign(bytes: Bytes) {
    let mut bytes = Some(bytes);
    if is_holding() {
        // A thread that ends has nothing to keep them in any more.
        let _ = HELD_BACK.try_with(|held| {
            held.borrow_mut().extend(bytes.take());
            HAS_HELD_BACK.set(true);
        });
    }
    let_go(bytes);
}

/// Until it is dropped, no value that this thread drops runs code of whoever owns the buffer: for work under a
/// latch that cannot give what it removes to its caller. Drop it under none.
#[must_use = "what is held back goes when this is dropped"]
pub struct HoldBack {
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

/// See [`HoldBack`].
pub fn hold_back() -> HoldBack {
    HOLDING.with(|holding| holding.set(holding.get() + 1));
    HoldBack { _thread: PhantomData }
}

impl Drop for HoldBack {
    fn drop(&mut self) {
        let left = HOLDING.with(|holding| {
            holding.set(holding.get() - 1);
            holding.get()
        });
        if left == 0 && HAS_HELD_BACK.replace(false) {
            let held = HELD_BACK.try_with(RefCell::take).unwrap_or_default();
            held.into_iter().for_each(let_go);
        }
    }
}

fn drop_together(values: Waiting) {
    // The ends, too: the allocator hands these blocks out next, and whoever fills one would wait for the rest of it.
    let ends = values.iter().filter_map(|value| Some(value.first()? ^ value.last()?));
    std::hint::black_box(ends.fold(0, |a, b| a ^ b));
}
