//! The log's thread: it does what nobody waits for, and leads for those who cannot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use isolde_types::Clock;
use isolde_types::sync::{Arc, thread};

use super::Log;
use crate::error::{Result, WalError};

/// What the log's thread remembers between two looks.
#[derive(Debug, Default)]
pub struct Tending {
    unwritten_since: Option<Duration>,
    unsynced_since: Option<Duration>,
}

impl Log {
    /// What nobody waits for: leads for tasks, writes and syncs what is overdue, prepares the next
    /// segment. `state` is kept between calls.
    pub fn tend(&self, now: Duration, state: &mut Tending) {
        if self.is_poisoned() {
            return;
        }
        let mut queue = self.queue.lock();
        let unwritten_since = *state.unwritten_since.get_or_insert(now);
        let unsynced_since = *state.unsynced_since.get_or_insert(now);
        let elapsed = |since: Duration| now.saturating_sub(since);
        let write = !queue.batch.is_empty()
            && (self.overdue(&queue) || elapsed(unwritten_since) >= self.write_behind.write_after);
        let standing = !queue.batch.is_empty() || queue.unsynced > 0;
        let sync = standing
            && (queue.unsynced >= self.write_behind.sync_bytes
                || elapsed(unsynced_since) >= self.write_behind.sync_after);
        let wanted = !queue.waiters.is_empty();
        let leads = (write || sync || wanted) && !queue.leading;
        // What is overdue while somebody leads stays so.
        if queue.batch.is_empty() || leads && (write || sync) {
            state.unwritten_since = None;
        }
        if !standing || leads && sync {
            state.unsynced_since = None;
        }
        if sync {
            queue.wanted_synced = queue.wanted_synced.max(queue.captured);
        }
        if leads {
            self.lead(queue);
        } else {
            if write || sync {
                self.hurry(&mut queue, Duration::ZERO);
            }
            drop(queue);
        }
        // A failure is reported by the admission that needs the space.
        let _ = self.segments.prepare_ahead();
    }

    /// Runs [`tend`](Log::tend) on a thread of its own, until the log is closed or dropped.
    ///
    /// # Errors
    /// `Io` where no thread can be had.
    pub fn start_thread(self: &Arc<Self>, clock: Arc<dyn Clock>) -> Result<thread::JoinHandle<()>> {
        const LOOK: Duration = Duration::from_millis(200);
        let weak = Arc::downgrade(self);
        let run = move || {
            let mut state = Tending::default();
            while let Some(log) = weak.upgrade() {
                let tended = catch_unwind(AssertUnwindSafe(|| log.tend(clock.now(), &mut state)));
                if tended.is_err() {
                    log.poison(&"the log's thread panicked");
                }
                let ended = log.queue.lock().thread.is_none();
                drop(log);
                if ended {
                    return;
                }
                thread::park_timeout(LOOK);
            }
        };
        let mut queue = self.queue.lock();
        let handle = thread::Builder::new()
            .name("isolde-log".to_owned())
            .spawn(run)
            .map_err(WalError::io("starting the thread of", "log"))?;
        queue.thread = Some(handle.thread().clone());
        self.note_whether_full(&queue);
        Ok(handle)
    }

    /// Ends the log's thread; call before joining it.
    pub fn stop_thread(&self) {
        let mut queue = self.queue.lock();
        let thread = queue.thread.take();
        self.note_whether_full(&queue);
        drop(queue);
        thread.iter().for_each(|thread| thread.unpark());
    }
}
