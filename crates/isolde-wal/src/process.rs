//! Which process a directory belongs to.
//!
//! A child of fork has a copy of everything: the log, its files, the lock of the directory. What it wrote would go
//! between the records of its parent, and its end would give the parent's lock away. It has none of the
//! threads, either. So whoever writes asks first whether it still is the process that opened the directory.
//!
//! To ask the kernel takes longer than much of a commit. So a commit asks what `fork` itself has noted in the child
//! (`pthread_atfork`), and whoever writes its batch asks the kernel: a child that came to be in another way has files
//! that it must not write, too.

use std::process;

use isolde_types::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Result, WalError};

/// The process in which this was made.
#[derive(Debug)]
pub struct Process {
    id: u32,
    forks: forkguard::Guard,
    /// A test has it so.
    forked: AtomicBool,
}

impl Process {
    pub(crate) fn this() -> Process {
        Process { id: process::id(), forks: forkguard::new(), forked: AtomicBool::new(false) }
    }

    /// Whether this is a child that `fork` has made of that process. Asks nobody.
    #[must_use]
    pub fn was_forked(&self) -> bool {
        self.forked.load(Ordering::Relaxed) || self.forks.clone().detected_fork()
    }

    /// Whether this is still that process, and not a child of it. Asks the kernel.
    #[must_use]
    pub fn is_this(&self) -> bool {
        !self.was_forked() && self.id == process::id()
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
        self.forked.store(true, Ordering::Relaxed);
    }

    /// For tests: the pretence ends.
    #[doc(hidden)]
    pub fn pretend_no_more(&self) {
        self.forked.store(false, Ordering::Relaxed);
    }
}
