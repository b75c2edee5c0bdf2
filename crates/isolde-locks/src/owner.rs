//! A transaction as the lock manager knows it.

use isolde_types::TxnId;
use isolde_types::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use isolde_types::sync::{Arc, Mutex, Weak};

use crate::ledger::Ledger;

/// Is told when its transaction was wounded while it was not waiting: an idle transaction is to be
/// rolled back at once, a running one at its next call.
pub trait OnWound: Send + Sync {
    /// An older transaction needs what this one holds. Called without any latch of the manager held.
    fn wounded(&self, by: TxnId);
}

/// What is to be known of a transaction that locks.
pub struct OwnerSpec {
    /// Its identity.
    pub id: TxnId,
    /// Its age, kept over retries: smaller is older.
    pub age: u64,
    /// Its label.
    pub label: Option<Arc<str>>,
    /// Who is told of a wound.
    pub on_wound: Option<Weak<dyn OnWound>>,
}

const OPEN: u64 = 0;
const PROTECTED: u64 = u64::MAX;

/// A transaction that locks: what it holds, and whether it may still be told to give way.
pub struct Owner<H> {
    pub(crate) id: TxnId,
    pub(crate) age: u64,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) on_wound: Option<Weak<dyn OnWound>>,
    pub(crate) ledger: Mutex<Ledger<H>>,
    /// It has given everything back, and gets nothing more.
    pub(crate) ended: AtomicBool,
    /// It has, or may have, something in the table.
    pub(crate) in_table: AtomicBool,
    /// `OPEN`, the identity of who wounded it, or `PROTECTED`.
    wound: AtomicU64,
}

impl<H> Owner<H> {
    pub(crate) fn new(spec: OwnerSpec) -> Owner<H> {
        Owner {
            id: spec.id,
            age: spec.age,
            label: spec.label,
            on_wound: spec.on_wound,
            ledger: Mutex::new(Ledger::default()),
            ended: AtomicBool::new(false),
            in_table: AtomicBool::new(false),
            wound: AtomicU64::new(OPEN),
        }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> TxnId {
        self.id
    }

    /// Who wounded it, if anybody did.
    #[must_use]
    pub fn wounded_by(&self) -> Option<TxnId> {
        match self.wound.load(SeqCst) {
            OPEN | PROTECTED => None,
            by => Some(TxnId(by)),
        }
    }

    /// Protects the transaction from wounds: it is about to take its commit timestamp.
    ///
    /// # Errors
    /// Who wounded it before.
    pub fn protect(&self) -> Result<(), TxnId> {
        match self.wound.compare_exchange(OPEN, PROTECTED, SeqCst, SeqCst) {
            Ok(_) | Err(PROTECTED) => Ok(()),
            Err(by) => Err(TxnId(by)),
        }
    }

    /// Wounds it, unless it is protected; whether it was not wounded before.
    pub(crate) fn wound(&self, by: TxnId) -> bool {
        self.wound.compare_exchange(OPEN, by.0, SeqCst, SeqCst).is_ok()
    }
}
