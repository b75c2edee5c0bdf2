//! Values that nobody can see any more, dropped a few at a time.
//!
//! The count of references of a value that was written long ago is far from the processor, and to
//! drop it is to wait for it: about as long as looking its key up. Loads that do not depend on each
//! other are waited for together, so values are gathered and a handful of them brought near at once.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_utils::CachePadded;
use isolde_types::sync::{Mutex, thread_number};
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
    shards: [CachePadded<Mutex<Waiting>>; SHARDS],
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
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

fn drop_together(values: Waiting) {
    let near = values.iter().filter_map(|value| value.first()).fold(0, |a, b| a ^ b);
    std::hint::black_box(near);
}
