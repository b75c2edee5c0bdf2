//! How transactions hold what they share, without meeting at the count of those who do.
//!
//! Each begin and end of a transaction counts a reference to the core up and down. One count for all would be one
//! cache line that all threads write to and take from each other: on two threads nearly a third of a begin and an end
//! (docs/decisions/0011). So threads count at shares, each of which holds one reference to the core.

use std::ops::Deref;
use std::sync::OnceLock;

use isolde_types::sync::{Arc, thread_number};

use super::Core;

/// Threads that run at the same time mostly have numbers next to each other, and so shares of their own.
const SHARES: usize = 16;

/// One reference to the core; its own count of references is on a cache line of its own, and on that of no neighbour
/// that processors fetch with it.
#[repr(align(128))]
struct Share(Arc<Core>);

/// The core, held through a share.
#[derive(Clone)]
pub(crate) struct CoreRef(Arc<Share>);

impl CoreRef {
    /// Whether this is that very core.
    pub fn is(&self, core: &Core) -> bool {
        std::ptr::eq::<Core>(&**self, core)
    }
}

impl Deref for CoreRef {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0.0
    }
}

/// The shares of a database, each made when a thread first wants it: a database is opened fast.
#[derive(Default)]
pub(crate) struct Shares([OnceLock<CoreRef>; SHARES]);

impl Shares {
    /// The one of this core, always the same, to begin a transaction with.
    #[inline]
    pub fn of_this_thread(&self, core: &Arc<Core>) -> &CoreRef {
        self.0[thread_number() % SHARES].get_or_init(|| CoreRef(Arc::new(Share(Arc::clone(core)))))
    }
}

#[cfg(test)]
mod tests {
    use isolde_types::sync::Arc;

    use crate::Db;

    #[test]
    fn the_core_stays_for_the_last_transaction_and_goes_with_it() {
        let db = Db::builder().in_memory().open().unwrap();
        db.put("k", "v").unwrap();
        let core = Arc::downgrade(db.core());
        // Begun and ended by different threads, and so counted at the share of the first.
        let txn = std::thread::scope(|scope| scope.spawn(|| db.snapshot().unwrap()).join().unwrap());
        drop(db);
        assert_eq!(txn.get("k").unwrap().as_deref(), Some(&b"v"[..]));
        drop(txn);
        assert!(core.upgrade().is_none());
    }
}
