//! A durable database: admission before a commit, hardening after it, and what may be read before
//! that which was read is hard.
//!
//! ```text
//!              acknowledged        process killed   power cut
//!  Sync        after its sync      survives         survives
//!  Group       the same            survives         survives
//!  Buffered    after its write     survives         may lose the newest, never leaves a hole
//!  None        at once             may lose the newest, never leaves a hole
//! ```
//!
//! I3: nothing is acknowledged before it is as hard as its durability promises, and neither is a result
//! decided by what was read from a commit that is not. A writer comes later in the log than what it
//! read. Who wrote nothing waits at its end for the largest view that it used; one that was begun
//! read-only under `Sync` or `Group` reads the durable prefix instead, and does not wait.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use isolde_mvcc::{OpenView, ReadAt, View};
use isolde_types::sync::atomic::Ordering;
use isolde_types::sync::{Arc, Mutex, Weak, thread};
use isolde_types::{Key, Span, Ts, mutant, successor};
use isolde_wal::{
    CheckpointConfig, Directory, Enough, HardWait, Hardness, Log, Manifest, Need, RealFs, Reservation, Source, TakeRow,
    Vfs, WalError,
};

use super::wait::{Cause, Wait};
use super::{Core, RecordRef, TxnInner};
use crate::error::{Error, Result};
use crate::isolation::Access;
use crate::trace;

/// What a commit survives once it is acknowledged.
///
/// All commits stand in one log in one order, so a stronger one carries every weaker one before it, and
/// a crash leaves a prefix of the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Acknowledged after its sync: survives a power cut. Concurrent commits share syncs.
    #[default]
    Sync,
    /// The same, but a sync may wait for company: fewer syncs, for more latency. Whoever has less patience ends
    /// that wait: a commit with another durability or a shorter delay, `sync`, `collect`, `backup`, `close`.
    /// Those who came while a sync was under way have had its time for company, and sync at once after it; so does
    /// a commit as a task, since it would hold up the others of its executor.
    Group {
        /// How long at most; and no longer than commits of [`None`](Durability::None) stand unwritten.
        max_delay: Duration,
    },
    /// Acknowledged after it was written to the file: survives the end of the process. A power cut may
    /// take the newest ones.
    Buffered,
    /// Acknowledged at once; written within a second. A crash may take the newest ones.
    None,
}

impl Durability {
    fn hardness(self) -> Option<Hardness> {
        match self {
            Durability::Sync | Durability::Group { .. } => Some(Hardness::Synced),
            Durability::Buffered => Some(Hardness::Written),
            Durability::None => None,
        }
    }

    /// Whether a read-only transaction of this durability reads the durable prefix.
    fn reads_durable(self) -> bool {
        self.hardness() == Some(Hardness::Synced)
    }
}

/// The log of a durable database, and its directory.
pub(crate) struct Disk {
    pub log: Arc<Log>,
    pub default: Durability,
    pub checkpoints: CheckpointConfig,
    /// A checkpoint is written when the log has grown by so many bytes.
    pub checkpoint_after: Option<u64>,
    /// Given up by `close`, so that the directory can be opened again.
    directory: Mutex<Option<Arc<Directory>>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    /// Held by whoever closes: who does so at the same time returns when it is done.
    closing: Mutex<()>,
}

impl Disk {
    pub fn new(
        log: Arc<Log>,
        directory: Directory,
        default: Durability,
        checkpoints: CheckpointConfig,
        checkpoint_after: Option<u64>,
    ) -> Disk {
        Disk {
            log,
            default,
            checkpoints,
            checkpoint_after,
            directory: Mutex::new(Some(Arc::new(directory))),
            threads: Mutex::default(),
            closing: Mutex::default(),
        }
    }

    pub fn keep(&self, thread: thread::JoinHandle<()>) {
        self.threads.lock().push(thread);
    }

    pub fn directory(&self) -> Result<Arc<Directory>> {
        self.directory.lock().clone().ok_or(Error::Closed)
    }

    /// Makes everything durable, writes down that it is, ends the threads, and gives the directory back.
    pub fn close(&self) -> Result<()> {
        self.log.process().check()?;
        let _closing = self.closing.lock();
        let Some(directory) = self.directory.lock().take() else { return Ok(()) };
        let closed = self.log.finish().and_then(|end| end.map_or(Ok(()), |end| directory.note_end(end)));
        self.log.stop_thread();
        let mine = thread::current().id();
        for handle in std::mem::take(&mut *self.threads.lock()) {
            handle.thread().unpark();
            if handle.thread().id() != mine {
                // It ended with a panic, or without: in either case it has ended.
                let _ = handle.join();
            }
        }
        // A checkpoint that somebody asked for ends by itself now.
        while Arc::strong_count(&directory) > 1 {
            thread::yield_now();
        }
        closed.map_err(Error::from)
    }

    /// Without waiting for anything: only a log that has failed refuses.
    fn acknowledge_at_once(&self, ts: Ts) -> Result<()> {
        self.log.acknowledge(ts);
        if self.log.is_poisoned() && !self.log.is_hard(ts, Hardness::Synced) {
            return Err(self.log.check().err().map_or(Error::Poisoned("".into()), Error::from));
        }
        Ok(())
    }
}

impl Core {
    /// A view for a call or a transaction: visible_ts, and after a failure of the log the durable prefix.
    pub fn view(&self) -> View {
        self.views.keep(self.open_view())
    }

    /// The same, to be closed by its holder.
    fn open_view(&self) -> OpenView {
        match &self.disk {
            Some(disk) if disk.log.is_poisoned() => self.views.open_durable(&self.timeline),
            _ => self.views.open(&self.timeline),
        }
    }

    /// What transactions survive that say nothing else.
    pub fn default_durability(&self) -> Durability {
        self.disk.as_ref().map_or(Durability::None, |disk| disk.default)
    }

    /// Writes a copy of the durable state into an empty directory.
    pub fn backup(&self, path: &Path) -> Result<()> {
        let open = |error| WalError::from_io("opening", &path.display().to_string(), error);
        let vfs: Arc<dyn Vfs> = Arc::new(RealFs::open(path, true).map_err(open)?);
        let mut rows = Rows { core: self, view: Some(self.views.register_durable(&self.timeline)) };
        Ok(isolde_wal::write_backup(&vfs, &mut rows)?)
    }

    /// The view of a transaction that reads a snapshot, and the time that must be durable before its first read.
    pub fn snapshot_view(&self, access: Access, durability: Durability) -> (OpenView, Ts) {
        match access {
            Access::ReadOnly => self.view_to_read(durability),
            Access::ReadWrite => (self.open_view(), Ts::ZERO),
        }
    }

    /// A view for one that only reads, and the time that must be durable before its first read.
    pub fn view_to_read(&self, durability: Durability) -> (OpenView, Ts) {
        let Some(disk) = self.disk.as_ref().filter(|_| durability.reads_durable()) else {
            return (self.open_view(), Ts::ZERO);
        };
        if disk.log.acknowledged() <= disk.log.durable().get() || disk.log.is_poisoned() {
            return (self.views.open_durable(&self.timeline), Ts::ZERO);
        }
        // Somebody was told of more than is durable: going back behind that is not allowed.
        let view = self.views.open(&self.timeline);
        let ts = view.ts();
        (view, ts)
    }

    /// Whether what a read of its own showed has yet to become as hard as `durability` says: where it has not
    /// read the durable prefix.
    pub fn hardens_view(&self, durability: Durability) -> bool {
        self.disk.is_some() && !durability.reads_durable()
    }

    /// Waits until everything up to `ts` is as hard as `durability` says.
    ///
    /// # Errors
    /// `Poisoned`.
    pub async fn hard(&self, wait: &Wait, ts: Ts, durability: Durability) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let Some(hardness) = durability.hardness() else { return disk.acknowledge_at_once(ts) };
        let company = match durability {
            Durability::Group { max_delay } => max_delay,
            _ => Duration::ZERO,
        };
        let need = Need { ts, hardness, company };
        if wait.is_parked() {
            disk.log.wait_hard(need)?;
        } else {
            let mut place = HardWait::default();
            std::future::poll_fn(|cx| {
                let polled = disk.log.poll_hard(need, cx, &mut place);
                if polled.is_pending() {
                    wait.pending(Cause::Log);
                }
                polled
            })
            .await?;
        }
        if hardness == Hardness::Written {
            disk.log.acknowledge(ts);
        }
        Ok(())
    }

    /// Writes a checkpoint of the durable state.
    pub fn checkpoint(self: &Arc<Self>) -> Result<Manifest> {
        let Some(disk) = &self.disk else {
            return Err(Error::Unsupported("a checkpoint of a database in memory: there is no log to shorten"));
        };
        let directory = disk.directory()?;
        let mut rows = Rows { core: self, view: None };
        let began = self.config.clock.now();
        let written = isolde_wal::checkpoint(&directory, &disk.log, &disk.checkpoints, &mut rows).map_err(Error::from);
        drop(directory);
        trace::checkpoint(&written, self.config.clock.now().saturating_sub(began));
        written
    }

    /// Starts the thread that writes checkpoints when the log has grown.
    pub fn start_checkpoints(self: &Arc<Self>) -> Result<()> {
        const LOOK: Duration = Duration::from_millis(200);
        let Some((disk, after)) = self.disk.as_ref().and_then(|disk| Some((disk, disk.checkpoint_after?))) else {
            return Ok(());
        };
        let weak: Weak<Core> = Arc::downgrade(self);
        let run = move || {
            loop {
                thread::park_timeout(LOOK);
                let Some(core) = weak.upgrade() else { return };
                let Some(disk) = core.disk.as_ref().filter(|disk| disk.directory.lock().is_some()) else { return };
                if disk.log.since_checkpoint() >= after && !disk.log.is_poisoned() {
                    // What fails is tried again when the log has grown once more; the log keeps all.
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| core.checkpoint().map(drop))) {
                        disk.log.fail(&format!("the thread of checkpoints panicked: {}", said(&*panic)));
                    }
                }
            }
        };
        let spawned = thread::Builder::new().name("isolde-checkpoint".to_owned()).spawn(run);
        disk.keep(spawned.map_err(|error| WalError::from_io("starting the thread of", "checkpoints", error))?);
        Ok(())
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            if !disk.log.process().is_this() {
                // The threads are those of the process that this one was forked from: there is nobody to join.
                return std::mem::forget(std::mem::take(&mut *disk.threads.lock()));
            }
            // Nobody is left to be told; what was acknowledged is safe without a clean close.
            let _ = disk.close();
        }
    }
}

impl TxnInner {
    /// Before a commit takes its place: that its record, of at most `log_bytes`, can be appended.
    pub fn admit<'d>(&self, disk: &'d Disk, log_bytes: usize) -> Result<Reservation<'d>> {
        disk.log.process().check()?;
        Ok(disk.log.admit(log_bytes)?)
    }

    /// The same, if that waits for nothing; what is refused is refused on the long way.
    pub fn admit_at_once<'d>(&self, disk: &'d Disk, log_bytes: usize) -> Option<Reservation<'d>> {
        if disk.log.process().was_forked() { None } else { disk.log.admit_at_once(log_bytes) }
    }

    /// What this transaction has seen must be hard before a result that it decided is given away.
    pub fn saw(&self, ts: Ts) {
        if self.core.disk.is_some() {
            self.seen.fetch_max(ts.0, Ordering::Relaxed);
        }
    }

    /// Before a read: waits for what had been acknowledged elsewhere, and refuses what a failed log has
    /// left behind.
    pub async fn readable(&self, wait: &Wait) -> Result<()> {
        let first = Ts(self.hard_first.load(Ordering::Relaxed));
        if first > Ts::ZERO {
            self.core.hard(wait, first, Durability::Sync).await?;
            self.hard_first.store(0, Ordering::Relaxed);
        }
        self.not_left_behind(self.read_ts())
    }

    /// Refuses what a view at `ts` shows, if a failed log has kept a part of that only.
    pub fn not_left_behind(&self, ts: Ts) -> Result<()> {
        match &self.core.disk {
            Some(disk) if disk.log.is_poisoned() && ts > disk.log.durable().get() => Ok(disk.log.check()?),
            _ => Ok(()),
        }
    }

    /// Before a write or a lock: refuses after a failure of the log.
    pub fn writable(&self) -> Result<()> {
        match &self.core.disk {
            Some(disk) => Ok(disk.log.check()?),
            None => Ok(()),
        }
    }

    /// At the end of one that wrote nothing, or of a body whose own result is final: waits until what it
    /// read is hard.
    pub async fn harden_reads(&self, wait: &Wait) -> Result<()> {
        if self.core.disk.is_none() || mutant!("reads-are-not-hardened") {
            return Ok(());
        }
        let seen = Ts(self.seen.load(Ordering::Relaxed)).max(self.read_ts());
        self.core.hard(wait, seen, self.durability).await
    }

    /// Step 7: waits until the commit is as hard as it is to be.
    ///
    /// # Errors
    /// `OutcomeUnknown`: it is committed for everybody here, and may be gone after the next open.
    pub async fn harden(&self, wait: &Wait, ts: Ts) -> Result<()> {
        self.core.hard(wait, ts, self.durability).await.map_err(outcome_unknown)
    }

    /// What the commit has replaced stays at least until it is durable. One that waits for that looks again when it
    /// goes, and nobody else need look for it; others leave it to the sweeper.
    pub fn settle_later(&self, record: RecordRef) {
        let waits = self.core.disk.is_some() && self.durability.hardness() == Some(Hardness::Synced);
        if !waits {
            self.core.store.note_garbage(record.0);
        } else if self.core.store.claim_garbage(&record.0) {
            let earlier = self.body().unsettled.replace(record);
            debug_assert!(earlier.is_none(), "one key was written");
        }
    }

    /// The same, where nothing is to be waited for.
    pub fn harden_at_once(&self, ts: Ts) -> Option<Result<()>> {
        let Some(disk) = &self.core.disk else { return Some(Ok(())) };
        let at_once = self.durability.hardness().is_none();
        at_once.then(|| disk.acknowledge_at_once(ts).map_err(outcome_unknown))
    }
}

/// After the commit has its place.
fn outcome_unknown(error: Error) -> Error {
    if matches!(error, Error::Poisoned(_)) { Error::OutcomeUnknown } else { error }
}

/// What a panic said, if it was text.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// The rows of a durable state, for a checkpoint: each partition has a view of its own; or for a backup,
/// which has one view for all.
pub(crate) struct Rows<'c> {
    pub core: &'c Core,
    pub view: Option<View>,
}

impl Source for Rows<'_> {
    fn partition(&mut self, low: &Key, row: &mut TakeRow<'_>) -> Result<(Ts, Option<Key>), WalError> {
        let own = match &self.view {
            Some(_) => None,
            None if mutant!("checkpoint-at-visible") => Some(self.core.views.register(&self.core.timeline)),
            None => Some(self.core.views.register_durable(&self.core.timeline)),
        };
        let ts = own.as_ref().or(self.view.as_ref()).map_or(Ts::ZERO, View::ts);
        let mut cursor = self.core.store.cursor(&Span::new(low.clone(), None));
        let mut rows = isolde_mvcc::Rows::default();
        let mut more = true;
        while more {
            more = self.core.store.next_rows(&mut cursor, ReadAt::At(ts), None, &mut rows);
            while let Some((key, value)) = rows.pop_front() {
                if row(&key, &value)? == Enough::Yes {
                    return Ok((ts, Some(successor(&key))));
                }
            }
        }
        Ok((ts, None))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Db, Durability, ErrorKind};

    #[test]
    fn what_a_synced_commit_has_replaced_goes_with_its_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::builder().path(folder.path()).no_threads().open().unwrap();
        let kept = || (db.stats().records, db.stats().versions);
        db.put("k", "1").unwrap();
        db.put("k", "2").unwrap();
        assert_eq!(kept(), (1, 1), "nobody else has looked for it");

        let view = db.snapshot().unwrap();
        db.put("k", "3").unwrap();
        assert_eq!((kept(), view.get("k").unwrap().as_deref()), ((1, 2), Some(&b"2"[..])), "a view needs it");
        drop(view);
        (0..64).for_each(|_| db.put("other", "1").unwrap());
        assert_eq!(kept(), (2, 2), "then it is the sweeper's");

        let txn = db.begin().unwrap();
        txn.put("k", "4").unwrap();
        assert!(txn.inner().commit_at_once().is_err(), "it has to wait for the log");
        db.txn().durability(Durability::None).run(|t| t.put("k", "5")).unwrap();
        db.sync().unwrap();
        assert!(kept().1 > 2, "one who has not looked yet");
        drop(txn);
        assert_eq!(kept(), (2, 2), "looks when he goes");

        db.delete("k").unwrap();
        assert_eq!(kept(), (1, 1), "a tombstone, too");
    }

    #[test]
    fn a_forked_child_reads_and_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::builder().path(folder.path()).no_threads().open().unwrap();
        db.put("k", "parent").unwrap();
        let process = || db.core().disk.as_ref().unwrap().log.process();
        let files = || {
            let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
            let read = |path: std::path::PathBuf| (path.clone(), std::fs::read(path).unwrap());
            files.map(read).collect::<std::collections::BTreeMap<_, _>>()
        };
        let begun = db.begin().unwrap();
        begun.put("k", "child").unwrap();
        process().pretend_forked();
        let before = files();
        for durability in [Durability::Sync, Durability::Buffered, Durability::None] {
            let refused = db.txn().durability(durability).run(|t| t.put("k", "child"));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Forked, "{durability:?}");
        }
        assert_eq!(begun.commit().unwrap_err().kind(), ErrorKind::Forked);
        assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"parent"[..]));
        assert_eq!(db.sync().unwrap_err().kind(), ErrorKind::Forked);
        assert_eq!(db.checkpoint().unwrap_err().kind(), ErrorKind::Forked);
        assert_eq!(db.core().disk.as_ref().unwrap().close().unwrap_err().kind(), ErrorKind::Forked);
        assert!(files() == before, "a child has changed a file");
        let copy = tempfile::tempdir().unwrap();
        before
            .iter()
            .for_each(|(path, bytes)| std::fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap());
        let copy = Db::open(copy.path()).unwrap();
        assert_eq!(copy.get("k").unwrap().as_deref(), Some(&b"parent"[..]));
    }
}
