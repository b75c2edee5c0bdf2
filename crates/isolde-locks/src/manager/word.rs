//! Locking by the word in the record alone, and what undoes it.

use isolde_types::sync::Arc;
use isolde_types::sync::atomic::Ordering::SeqCst;
use isolde_types::{LockMode, mutant};

use super::{Graph, Handle, LockManager, admit};
use crate::cell::Word;
use crate::error::LockError;
use crate::ledger::{Locked, Purpose};
use crate::owner::Owner;
use crate::table::Effects;

impl<H: Handle> LockManager<H> {
    /// Tries to have the lock by the word alone; `None` if the table must be asked.
    pub(super) fn try_word(
        &self,
        owner: &Arc<Owner<H>>,
        handle: &H,
        mode: LockMode,
        purpose: Purpose,
    ) -> Option<Result<(), LockError>> {
        if let Err(error) = admit(owner) {
            return Some(Err(error));
        }
        // Waited for before the latch is taken: others may want that.
        handle.cell().settled();
        // The latch is held until the lock is written down or taken back: another operation of the
        // same transaction must not be granted what stands in the word on trial.
        let mut ledger = owner.ledger.lock();
        if owner.ended.load(SeqCst) {
            return Some(Err(LockError::Ended));
        }
        let cell = handle.cell();
        loop {
            let before = cell.settled();
            let earlier = match before {
                Word::Sealed => return Some(Err(LockError::Sealed)),
                Word::Thin(held, holder) if holder == owner.id => Some(held),
                Word::Free => None,
                Word::Fat | Word::Thin(..) => return None,
                Word::Brief => continue,
            };
            if !ledger.tentative.is_empty() {
                return None;
            }
            if earlier >= Some(mode) {
                ledger.push_again(|| Locked::Key(handle.clone()), mode, purpose);
                return Some(Ok(()));
            }
            let limit = self.config.max_locks_per_txn;
            if ledger.len() >= limit {
                return Some(Err(LockError::TooManyLocks { limit }));
            }
            // A span may be about that conflicts: asked before the word is taken only to save the detour,
            // asked again after it was taken because only then the answer counts.
            if self.spans.load(SeqCst) != 0 {
                return None;
            }
            let taken = Word::Thin(mode, owner.id);
            if !cell.change(before, taken) {
                continue;
            }
            if self.spans.load(SeqCst) != 0 && !mutant!("word-ignores-new-spans") {
                if !cell.change(taken, before) && !mutant!("tentative-lock-kept") {
                    ledger.tentative.push((handle.clone(), earlier));
                }
                return None;
            }
            break;
        }
        ledger.push(Locked::Key(handle.clone()), mode, purpose);
        Some(Ok(()))
    }

    pub(super) fn check_limit(&self, owner: &Owner<H>) -> Result<(), LockError> {
        let limit = self.config.max_locks_per_txn;
        if owner.ledger.lock().len() < limit { Ok(()) } else { Err(LockError::TooManyLocks { limit }) }
    }

    /// Writes a lock down; gives it back if the transaction has ended meanwhile.
    pub(super) fn enter_ledger(
        &self,
        owner: &Arc<Owner<H>>,
        locked: Locked<H>,
        mode: LockMode,
        purpose: Purpose,
    ) -> Result<(), LockError> {
        let mut ledger = owner.ledger.lock();
        if !owner.ended.load(SeqCst) {
            ledger.push(locked, mode, purpose);
            return Ok(());
        }
        drop(ledger);
        match &locked {
            Locked::Key(handle) if self.give_back_word(owner, handle, None) => {}
            Locked::Key(handle) => self.release_in_table(owner, std::slice::from_ref(handle)),
            Locked::Span(_) => self.release_in_table(owner, &[]),
        }
        Err(LockError::Ended)
    }

    /// Makes the word of what is asked for FAT, and takes back the locks that met a span and were
    /// inflated before the word could be set back: by the scanner, or by a third transaction that wants
    /// the key. They were never granted.
    ///
    /// Both under the ledger's latch: no other operation of this transaction has a lock on trial then,
    /// which would be taken here for one that it holds.
    pub(super) fn come_to_table(
        &self,
        graph: &mut Graph<H>,
        owner: &Arc<Owner<H>>,
        asked: &Locked<H>,
    ) -> (Effects, Result<(), LockError>) {
        let mut ledger = owner.ledger.lock();
        let mut effects = Effects::default();
        for (handle, earlier) in std::mem::take(&mut ledger.tentative) {
            effects = effects.and(self.lower(graph, owner, &handle, earlier));
        }
        match asked {
            Locked::Key(handle) => (effects, self.inflate(graph, handle)),
            Locked::Span(_) => (effects, Ok(())),
        }
    }
}
