//! Locks for the length of a commit that waits for nobody.
//!
//! An optimistic commit locks its write set exclusively from the moment in which it installs its versions
//! to the one in which their status has flipped (I4) and they are settled. In between it does not wait for a
//! lock, runs no code of the user and is not polled: it looks at a bounded piece of memory, and ends. So it need
//! not be known: no owner, no place in a registry, no queue. It writes BRIEF into the word of each record, and whoever meets that
//! spins, and gives its time slice away, until it is gone.
//!
//! *Safe.* BRIEF comes only where the word said FREE, and goes only by its holder, so nobody else holds the
//! key meanwhile. A scanner raises the count of announced spans and then looks at the words in its
//! span; a commit writes all its words and then looks at the count; all four are sequentially
//! consistent, so either the commit sees the span and gives its words back, or the scanner sees BRIEF and
//! waits until it is gone.
//!
//! *No deadlock.* Who holds briefly waits only for words that others hold briefly, of larger keys than all
//! its own: each such chain of waits ends at one that waits for none. It takes neither the graph mutex
//! nor a ledger while it holds, so these may be held by whoever waits for it. A record is sealed only
//! where its word is FREE, and whoever tries that does not wait, since it holds the record's latch.
//!
//! *Starvation.* A queue makes the word FAT and keeps it so until it is empty; a commit that finds
//! it goes and stands in the queue. Who meets BRIEF stands in no queue: it tries again as soon as the word is
//! free, and may lose against another commit. It wins in the end because each commit has the word for
//! a few microseconds only and then does other things, but that is a matter of chance, without a bound.

use isolde_types::mutant;
use isolde_types::sync::atomic::Ordering::SeqCst;
use smallvec::SmallVec;

use super::{Handle, LockManager};
use crate::cell::Word;

/// How many records need no allocation.
const FEW: usize = 4;

/// Records in the order of their keys, each once.
pub type Handles<H> = SmallVec<[H; FEW]>;

/// Locks that a commit has briefly; given back when dropped. See the module.
pub struct Brief<H: Handle> {
    records: Handles<H>,
    /// How many of them, from the front, are locked.
    taken: usize,
}

impl<H: Handle> LockManager<H> {
    /// Takes the exclusive locks on these records, whose order is that of their keys, for a short while: until
    /// [`Brief::release`] the caller waits for nothing but memory, and runs no code of others.
    ///
    /// # Errors
    /// Gives the records back, unlocked, if somebody holds one of them, or a span, or waits for one, or if
    /// one is dead.
    pub fn try_brief(&self, records: Handles<H>) -> Result<Brief<H>, Handles<H>> {
        debug_assert!(records.is_sorted_by(|a, b| a.key() < b.key()), "brief locks are taken in key order");
        if self.spans.load(SeqCst) != 0 {
            return Err(records);
        }
        let mut brief = Brief { records, taken: 0 };
        while let Some(record) = brief.records.get(brief.taken) {
            let cell = record.cell();
            match cell.settled() {
                Word::Free if cell.change(Word::Free, Word::Brief) => brief.taken += 1,
                Word::Free | Word::Brief => {}
                Word::Thin(..) | Word::Fat | Word::Sealed => return Err(brief.release()),
            }
        }
        // Only now does the answer count; see the module.
        if self.spans.load(SeqCst) != 0 && !mutant!("brief-ignores-new-spans") {
            return Err(brief.release());
        }
        Ok(brief)
    }
}

impl<H: Handle> Brief<H> {
    /// The records.
    #[must_use]
    pub fn records(&self) -> &[H] {
        &self.records
    }

    /// Gives the locks back.
    pub fn release(mut self) -> Handles<H> {
        self.free();
        std::mem::take(&mut self.records)
    }

    fn free(&mut self) {
        for record in &self.records[..std::mem::take(&mut self.taken)] {
            record.cell().free_brief();
        }
    }
}

impl<H: Handle> Drop for Brief<H> {
    fn drop(&mut self) {
        self.free();
    }
}
