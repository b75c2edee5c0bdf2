//! A directory whose writes and syncs of the log do something first: so a test is in the middle of a batch,
//! on one thread, without waiting for anybody.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use isolde_wal::{OpenMode, Vfs, VfsFile};

/// What is to happen in the middle of an operation.
type Hook = Box<dyn FnOnce() + Send>;

/// The operations that can be hooked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// Bytes of the log are about to be written.
    Write,
    /// The log is about to be synced.
    Sync,
    /// A file of a checkpoint is about to be made.
    Checkpoint,
}

type Hooks = Arc<Mutex<Vec<(At, Hook)>>>;

/// See the module.
#[derive(Clone)]
pub struct Hooked {
    inner: Arc<dyn Vfs>,
    hooks: Hooks,
}

impl Hooked {
    /// The same directory, with hooks.
    #[must_use]
    pub fn new(inner: Arc<dyn Vfs>) -> Hooked {
        Hooked { inner, hooks: Hooks::default() }
    }

    /// Does this once, at the next such operation.
    pub fn once(&self, at: At, hook: impl FnOnce() + Send + 'static) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push((at, Box::new(hook)));
    }
}

fn run(hooks: &Hooks, at: At) {
    let hook = {
        let mut hooks = hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.iter().position(|(when, _)| *when == at).map(|place| hooks.remove(place))
    };
    if let Some((_, hook)) = hook {
        hook();
    }
}

impl Vfs for Hooked {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn VfsFile>> {
        if name.starts_with("ckpt-") && mode == OpenMode::CreateNew {
            run(&self.hooks, At::Checkpoint);
        }
        let file = self.inner.open(name, mode)?;
        let hooks = if name.starts_with("log-") { Arc::clone(&self.hooks) } else { Arc::default() };
        Ok(Box::new(HookedFile { file, hooks }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn sync_parent(&self) -> io::Result<()> {
        self.inner.sync_parent()
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.inner.try_lock()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

struct HookedFile {
    file: Box<dyn VfsFile>,
    hooks: Hooks,
}

impl VfsFile for HookedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        run(&self.hooks, At::Write);
        self.file.write_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        run(&self.hooks, At::Sync);
        self.file.sync()
    }
}
