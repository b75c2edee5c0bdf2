//! Which process a directory belongs to.
//!
//! A child of fork has a copy of everything: the log, its files, the lock of the directory. What it wrote would go
//! between the records of its parent, and its end would give the parent's lock away. It has none of the
//! threads, either. So whoever writes asks first whether it still is the process that opened the directory.

use std::process;

use isolde_types::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Result, WalError};

/// The process in which this was made.
#[derive(Debug)]
pub struct Process {
    id: AtomicU32,
}

impl Process {
    pub(crate) fn this() -> Process {
        Process { id: AtomicU32::new(process::id()) }
    }

    /// Whether this is still that process, and not a child of it.
    #[must_use]
    pub fn is_this(&self) -> bool {
        self.id.load(Ordering::Relaxed) == process::id()
    }

    /// Fails in a child of that process.
    ///
    /// # Errors
    /// `Forked`.
    pub fn check(&self) -> Result<()> {
        if self.is_this() { Ok(()) } else { Err(WalError::Forked) }
    }

    /// For tests: from now on this process is taken for a child of that one.
    #[doc(hidden)]
    pub fn pretend_forked(&self) {
        self.id.store(0, Ordering::Relaxed);
    }

    /// For tests: the pretence ends.
    #[doc(hidden)]
    pub fn pretend_no_more(&self) {
        self.id.store(process::id(), Ordering::Relaxed);
    }
}
