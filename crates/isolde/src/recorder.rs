//! Recording what transactions did, as a history that `isolde-history` can judge.
//!
//! So that users can test their own service: record a test run, then ask whether it was
//! serializable.

use isolde_history::History;
use isolde_types::sync::Arc;

use crate::db::Db;
use crate::engine::Core;
use crate::error::{Error, Result};

/// A recording that is going on; ends with [`finish`](Recorder::finish).
#[must_use = "a recording that is dropped is lost"]
pub struct Recorder {
    core: Arc<Core>,
    history: History,
    finished: bool,
}

impl Db {
    /// Starts to record every transaction from now on, with the versions that it reads.
    ///
    /// Takes time and memory proportional to the number of keys (the history starts with the state
    /// that it starts from), and slows every operation down; for tests.
    ///
    /// # Errors
    /// `Unsupported` while a transaction is active or another recording goes on: what began before
    /// the recording could not be judged.
    pub fn recorder(&self) -> Result<Recorder> {
        let core = Arc::clone(self.core());
        if core.tap.set_open(true) {
            return Err(Error::Unsupported("another recording is going on: finish it first"));
        }
        if !core.registry.active().is_empty() {
            core.tap.set_open(false);
            core.tap.take();
            return Err(Error::Unsupported("a transaction is active: start the recording before it"));
        }
        core.tap.set_open(false);
        self.check_open()?;
        let view = core.view();
        let (start, initial) = (view.ts(), core.rows(&view));
        drop(view);
        core.tap.set_open(true);
        if core.timeline.visible() != start || !core.registry.active().is_empty() {
            core.tap.set_open(false);
            core.tap.take();
            return Err(Error::Unsupported("a transaction ran while the recording started: start it before"));
        }
        Ok(Recorder { core, history: History { initial, start, ..History::default() }, finished: false })
    }
}

impl Recorder {
    /// Ends the recording and gives the history. Transactions that are still active have no end in it.
    #[must_use]
    pub fn finish(mut self) -> History {
        self.finished = true;
        self.core.tap.set_open(false);
        self.history.events = self.core.tap.take();
        std::mem::take(&mut self.history)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.finished {
            self.core.tap.set_open(false);
            self.core.tap.take();
        }
    }
}
