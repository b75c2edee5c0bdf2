//! A directory in memory, whose files a test may change behind the database's back.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use isolde_wal::{OpenMode, Vfs, VfsFile};

/// The files of a directory. Cheap to clone: bytes are copied where they are written.
pub type Files = BTreeMap<String, Arc<Vec<u8>>>;

type Shared = Arc<Mutex<Arc<Vec<u8>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A [`Vfs`] in memory. It loses nothing, and nothing in it fails.
#[derive(Default)]
pub struct MemoryFs {
    files: Mutex<BTreeMap<String, Shared>>,
    locked: Arc<AtomicBool>,
}

impl MemoryFs {
    /// A directory of these files.
    #[must_use]
    pub fn new(files: &Files) -> Arc<MemoryFs> {
        let shared = |(name, bytes): (&String, &Arc<Vec<u8>>)| (name.clone(), Arc::new(Mutex::new(Arc::clone(bytes))));
        Arc::new(MemoryFs { files: Mutex::new(files.iter().map(shared).collect()), locked: Arc::default() })
    }

    /// What the directory holds now.
    #[must_use]
    pub fn files(&self) -> Files {
        lock(&self.files).iter().map(|(name, bytes)| (name.clone(), Arc::clone(&lock(bytes)))).collect()
    }
}

impl Vfs for MemoryFs {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn VfsFile>> {
        let mut files = lock(&self.files);
        let bytes = match (mode, files.get(name)) {
            (OpenMode::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, None) => files.entry(name.to_owned()).or_default(),
            (OpenMode::Read | OpenMode::Write, Some(bytes)) => bytes,
            (OpenMode::Read | OpenMode::Write, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(MemoryFile(Arc::clone(bytes))))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.files);
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.files).remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.files).keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_parent(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let free = !self.locked.swap(true, Ordering::SeqCst);
        Ok(free.then(|| Box::new(Unlock(Arc::clone(&self.locked))) as Box<dyn Send + Sync>))
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

struct MemoryFile(Shared);

impl VfsFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = lock(&self.0);
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut bytes = lock(&self.0);
        let bytes = Arc::make_mut(&mut bytes);
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start + buf.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(buf);
        Ok(buf.len())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
