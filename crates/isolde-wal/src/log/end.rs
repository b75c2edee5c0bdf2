//! The end of a log: everything on disk, the mark that says so, and nothing after it.

use isolde_types::mutant;
use isolde_types::sync::atomic::Ordering;

use super::{Log, wake_all};
use crate::error::Result;
use crate::format::Lsn;

impl Log {
    /// Makes everything durable, writes down that it is, and closes the log: what comes later is refused, and is
    /// never written. Gives the end of the log; `None` where this epoch has written nothing, and the next one
    /// may take its place.
    ///
    /// # Errors
    /// `Poisoned`, `Io`; `Closed` if it was closed before; `Forked`.
    pub fn finish(&self) -> Result<Option<Lsn>> {
        self.process.check()?;
        if mutant!("closed-log-is-written") {
            self.flush()?;
            return self.mark();
        }
        self.close()?;
        self.mark()
    }

    /// Closes the log at a moment when nothing is left to write or to sync: what was given a place before is
    /// durable, what comes later is refused like after a failure.
    fn close(&self) -> Result<()> {
        loop {
            self.flush()?;
            let mut queue = self.queue.lock();
            self.check()?;
            if queue.batch.is_empty() && queue.unsynced == 0 && !queue.leading {
                self.closed.store(true, Ordering::Relaxed);
                self.poisoned.store(true, Ordering::Release);
                let waiters = std::mem::take(&mut queue.waiters);
                drop(queue);
                wake_all(waiters.into_values().map(|waiter| waiter.waker));
                return Ok(());
            }
        }
    }

    fn mark(&self) -> Result<Option<Lsn>> {
        let mut writer = self.writer.lock();
        if writer.is_unused() {
            return Ok(None);
        }
        writer.mark()?;
        Ok(Some(writer.durable()))
    }
}
