//! Giving locks back: to a savepoint, or all.

use isolde_types::sync::Arc;
use isolde_types::sync::atomic::Ordering::SeqCst;
use isolde_types::{LockMode, TxnId, mutant};

use super::{GivenBack, Graph, Handle, LockManager, target_of};
use crate::cell::Word;
use crate::ledger::{LockMark, Locked};
use crate::owner::Owner;
use crate::table::{Effects, Target};

impl<H: Handle> LockManager<H> {
    /// Lowers or gives back the lock on a key, wherever it is known.
    ///
    /// Under the graph mutex the word is looked at again: since it was found to be FAT, somebody who
    /// gave up waiting may have deflated it, and the table knows nothing of the lock any more.
    pub(super) fn lower(&self, graph: &mut Graph<H>, owner: &Owner<H>, handle: &H, mode: Option<LockMode>) -> Effects {
        if self.was_in_word(owner, handle, mode) {
            return Effects::default();
        }
        let effects = graph.table.set_mode(owner.id, &Target::Key(handle.key().clone()), mode);
        self.deflate(graph, handle.key());
        effects
    }

    fn was_in_word(&self, owner: &Owner<H>, handle: &H, mode: Option<LockMode>) -> bool {
        !mutant!("release-misses-deflated-word") && self.give_back_word(owner, handle, mode)
    }

    /// Gives back, or lowers, a lock that the word alone knows; `false` if the table has it.
    pub(super) fn give_back_word(&self, owner: &Owner<H>, handle: &H, mode: Option<LockMode>) -> bool {
        let after = mode.map_or(Word::Free, |mode| Word::Thin(mode, owner.id));
        loop {
            match handle.cell().load() {
                before @ Word::Thin(_, holder) if holder == owner.id => {
                    if handle.cell().change(before, after) {
                        return true;
                    }
                }
                Word::Fat => return false,
                Word::Thin(..) | Word::Free | Word::Brief | Word::Sealed => return true,
            }
        }
    }

    pub(super) fn drop_spans(&self, count: usize) {
        if count > 0 {
            self.spans.fetch_sub(count, SeqCst);
        }
    }

    /// A place to return to with [`release_to`](LockManager::release_to).
    pub fn mark(&self, owner: &Owner<H>) -> LockMark {
        owner.ledger.lock().mark()
    }

    /// Gives back the locks that writes took since the mark, and wakes those who waited for them.
    pub fn release_to(&self, owner: &Arc<Owner<H>>, mark: &LockMark) {
        self.undo_to(owner, mark).wake();
    }

    /// The same, but those who waited are woken by the caller, when it holds no latch.
    ///
    /// The latches are held throughout, so that no other operation of the transaction is granted what is
    /// being given back.
    pub fn undo_to(&self, owner: &Arc<Owner<H>>, mark: &LockMark) -> GivenBack {
        let mut graph = self.graph.lock();
        let mut ledger = owner.ledger.lock();
        let (mut effects, mut spans) = (Effects::default(), 0);
        for (locked, mode) in ledger.undo_to(*mark) {
            effects = effects.and(match &locked {
                Locked::Key(handle) => self.lower(&mut graph, owner, handle, mode),
                Locked::Span(_) => {
                    spans += 1;
                    graph.table.set_mode(owner.id, &target_of(&locked), mode)
                }
            });
        }
        drop(ledger);
        let aftermath = self.settle(&mut graph, effects);
        drop(graph);
        self.drop_spans(spans);
        GivenBack(aftermath)
    }

    /// Gives everything back, ends the transaction's waits, and wakes those who waited for it, in
    /// queue order. The transaction gets no lock any more. Idempotent.
    pub fn release_all(&self, owner: &Arc<Owner<H>>) {
        let (locks, tentative) = {
            let mut ledger = owner.ledger.lock();
            owner.ended.store(true, SeqCst);
            (ledger.take(), std::mem::take(&mut ledger.tentative))
        };
        let mut spans = 0;
        let mut fat = Vec::new();
        let mut give_back = |locked| match locked {
            Locked::Key(handle) if self.give_back_word(owner, &handle, None) => {}
            Locked::Key(handle) => fat.push(handle),
            Locked::Span(_) => spans += 1,
        };
        locks.for_each(&mut give_back);
        tentative.into_iter().for_each(|(handle, _)| give_back(Locked::Key(handle)));
        if owner.in_table.load(SeqCst) || !fat.is_empty() {
            self.release_in_table(owner, &fat);
        }
        self.drop_spans(spans);
        self.forget(owner.id);
    }

    pub(super) fn forget(&self, txn: TxnId) {
        let mut shard = self.shard(txn).lock();
        let place = shard.iter().position(|(id, _)| *id == txn);
        let forgotten = place.map(|place| shard.swap_remove(place));
        drop(shard);
        drop(forgotten);
    }

    pub(super) fn release_in_table(&self, owner: &Arc<Owner<H>>, fat: &[H]) {
        let mut graph = self.graph.lock();
        let effects = graph.table.release(owner.id);
        // The table has nothing of it any more. A word may have been deflated since it was found to be FAT.
        for handle in fat {
            if !self.was_in_word(owner, handle, None) {
                self.deflate(&mut graph, handle.key());
            }
        }
        let aftermath = self.settle(&mut graph, effects);
        drop(graph);
        aftermath.perform();
    }
}
