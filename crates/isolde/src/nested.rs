//! Transactions inside the bodies of others: what a thread must not wait for.
//!
//! A body may use the database beside its own transaction; each such call is a transaction of its own. If
//! that one waits for a lock which the body's transaction holds, nobody will ever release it: the body
//! waits for its own thread. No cycle of locks shows this, so it is looked for here, when a thread that is
//! inside a body is about to park.

use std::cell::{Cell, RefCell};

use isolde_types::TxnId;
use isolde_types::sync::Arc;

use crate::engine::{Core, TxnInner};
use crate::error::{Asked, Error};

thread_local! {
    /// The transactions of the bodies that this thread is inside of, outermost first.
    static BODIES: RefCell<Vec<Arc<TxnInner>>> = const { RefCell::new(Vec::new()) };
    /// Whether an operation of this thread has failed because it would have waited for such a body.
    static WAITED_FOR_ITSELF: Cell<bool> = const { Cell::new(false) };
}

/// This thread is inside a body, until dropped.
pub(crate) struct InBody;

impl InBody {
    pub fn of(txn: &Arc<TxnInner>) -> InBody {
        WAITED_FOR_ITSELF.set(false);
        BODIES.with(|bodies| bodies.borrow_mut().push(Arc::clone(txn)));
        InBody
    }

    /// Whether this thread is inside a body of this database.
    pub fn is_inside(core: &Core) -> bool {
        BODIES.with(|bodies| bodies.borrow().iter().any(|txn| txn.core.is(core)))
    }
}

impl Drop for InBody {
    fn drop(&mut self) {
        // Dropped after the borrow: the last owner of a transaction runs code of its own.
        drop(BODIES.with(|bodies| bodies.borrow_mut().pop()));
    }
}

/// Whether `txn`, which waits for a lock on this thread, waits for a body that the thread is inside of:
/// directly, or behind others who do.
pub(crate) fn waits_for_own_body(txn: &TxnInner) -> bool {
    let own = own_bodies(txn);
    if own.is_empty() {
        return false;
    }
    let waits = txn.core.locks.waits_for().rows;
    let mut found = vec![txn.id()];
    let mut next = 0;
    while let Some(&waiter) = found.get(next) {
        for edge in waits.iter().filter(|edge| edge.waiter == waiter) {
            if own.contains(&edge.blocker.txn) {
                return true;
            }
            if !found.contains(&edge.blocker.txn) {
                found.push(edge.blocker.txn);
            }
        }
        next += 1;
    }
    false
}

/// The bodies around `txn`, in its database. A transaction that has no identity yet holds no lock.
fn own_bodies(txn: &TxnInner) -> Vec<TxnId> {
    if cfg!(any(shuttle, loom)) {
        // A model checker's threads share one real thread, and so its variables.
        return Vec::new();
    }
    BODIES.with(|bodies| {
        let around = bodies.borrow();
        let around = around.iter().filter(|body| body.core.is(&txn.core) && !std::ptr::eq(&***body, txn));
        around.filter_map(|body| body.known_id()).collect()
    })
}

/// The error of an operation that was not to wait for its own thread: no timeout, and no use to retry.
pub(crate) fn not_for_itself(error: Error) -> Error {
    match error {
        Error::LockTimeout(mut wait) => {
            WAITED_FOR_ITSELF.set(true);
            wait.asked = Asked::Nobody;
            Error::LockTimeout(wait)
        }
        other => other,
    }
}

/// Whether the body that has just ended did so because of such a wait.
pub(crate) fn take_waited_for_itself() -> bool {
    WAITED_FOR_ITSELF.take()
}
