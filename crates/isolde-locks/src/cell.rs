//! The lock word in a record.
//!
//! ```text
//!   FREE            nobody
//!   thin(mode, T)   one holder, known from the word alone; mode in the top three bits
//!   FAT             holders and queue are in the table
//!   BRIEF           a commit has it exclusively, for as long as steps that wait for nothing take
//!   SEALED          the record is dead; for ever
//! ```
//!
//! All operations are sequentially consistent: a writer stores its word and then looks for spans, a
//! scanner announces its span and then looks at words, and one of them must see the other.

use isolde_types::sync::atomic::{
    AtomicU64,
    Ordering::{Release, SeqCst},
};
use isolde_types::sync::spin_until;
use isolde_types::{LockMode, RecordCell, TxnId};

const MODE_SHIFT: u32 = 61;
const FREE: u64 = 0;
const BRIEF: u64 = u64::MAX - 2;
const FAT: u64 = u64::MAX - 1;
const SEALED: u64 = u64::MAX;

/// What a word says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    Free,
    Thin(LockMode, TxnId),
    Brief,
    Fat,
    Sealed,
}

impl Word {
    fn encode(self) -> u64 {
        match self {
            Word::Free => FREE,
            Word::Thin(mode, txn) => (mode as u64 + 1) << MODE_SHIFT | txn.0,
            Word::Brief => BRIEF,
            Word::Fat => FAT,
            Word::Sealed => SEALED,
        }
    }

    fn decode(word: u64) -> Word {
        match word {
            FREE => Word::Free,
            BRIEF => Word::Brief,
            FAT => Word::Fat,
            SEALED => Word::Sealed,
            _ => Word::Thin(thin_mode(word), TxnId(word & ((1 << MODE_SHIFT) - 1))),
        }
    }
}

fn thin_mode(word: u64) -> LockMode {
    match word >> MODE_SHIFT {
        1 => LockMode::Shared,
        2 => LockMode::Update,
        _ => LockMode::Exclusive,
    }
}

/// The lock on a record: one word. See the module.
#[derive(Debug, Default)]
pub struct LockCell {
    word: AtomicU64,
}

impl LockCell {
    pub(crate) fn load(&self) -> Word {
        Word::decode(self.word.load(SeqCst))
    }

    /// What the word says once no commit has it briefly; a wait that always ends, see `manager/brief.rs`.
    pub(crate) fn settled(&self) -> Word {
        spin_until(|| Some(self.load()).filter(|word| *word != Word::Brief))
    }

    /// Changes the word if it still is what the caller saw.
    pub(crate) fn change(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.encode(), to.encode(), SeqCst, SeqCst).is_ok()
    }

    /// Frees a word that the caller has briefly, and nobody else changes.
    pub(crate) fn free_brief(&self) {
        debug_assert_eq!(self.load(), Word::Brief, "only its holder changes BRIEF");
        // Release: to free a lock late hides nothing from anybody, so it need not stand in the one order of all.
        self.word.store(FREE, Release);
    }
}

impl RecordCell for LockCell {
    fn try_seal(&self) -> bool {
        self.change(Word::Free, Word::Sealed) || self.is_sealed()
    }

    fn is_sealed(&self) -> bool {
        self.load() == Word::Sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_encoding() {
        let mut words = vec![Word::Free, Word::Brief, Word::Fat, Word::Sealed];
        for mode in LockMode::ALL {
            words.extend([1, 77, (1 << MODE_SHIFT) - 1].map(|id| Word::Thin(mode, TxnId(id))));
        }
        for word in words {
            assert_eq!(Word::decode(word.encode()), word);
        }
    }

    #[test]
    fn only_a_free_cell_is_sealed() {
        let cell = LockCell::default();
        assert!(cell.change(Word::Free, Word::Thin(LockMode::Shared, TxnId(1))));
        assert!(!cell.try_seal() && !cell.is_sealed());
        assert!(cell.change(Word::Thin(LockMode::Shared, TxnId(1)), Word::Brief));
        assert!(!cell.try_seal() && !cell.is_sealed());
        assert!(cell.change(Word::Brief, Word::Free));
        assert!(cell.try_seal() && cell.try_seal() && cell.is_sealed());
        assert!(!cell.change(Word::Free, Word::Fat));
    }
}
