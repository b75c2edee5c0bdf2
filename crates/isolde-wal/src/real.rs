//! The operating system's files.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::process::Process;
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// The name of the file whose lock stands for the directory. It is never removed.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// A directory of the operating system.
#[derive(Debug)]
pub struct RealFs {
    path: PathBuf,
    dir: File,
    /// It was made here.
    is_new: bool,
}

impl RealFs {
    /// Opens a directory; makes it, for its owner alone, if `create` and it is not there.
    ///
    /// # Errors
    /// `NotADirectory` where something else stands; whatever the file system says.
    pub fn open(path: impl AsRef<Path>, create: bool) -> io::Result<RealFs> {
        let path = path.as_ref();
        let is_new = create && !path.exists();
        if is_new {
            DirBuilder::new().mode(0o700).create(path)?;
        }
        if !fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(RealFs { path: path.to_path_buf(), dir: File::open(path)?, is_new })
    }

    /// Keeps others from opening the directory's database, until the guard is dropped, without writing
    /// anything; others may do the same at the same time. `None` if somebody has it open. (One whose lock
    /// file is missing nobody has open.)
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn try_lock_to_read(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let file = match options.open(self.path.join(LOCK_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Box::new(()))),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Box::new(Lock::of(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Vfs for RealFs {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        Ok(Box::new(RealFile(options.open(self.path.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn sync_parent(&self) -> io::Result<()> {
        let path = fs::canonicalize(&self.path)?;
        let synced = path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all());
        // A parent that may not be read somebody else has made this one in.
        let tolerated = |error: &io::Error| !self.is_new && error.kind() == io::ErrorKind::PermissionDenied;
        synced.or_else(|error| if tolerated(&error) { Ok(()) } else { Err(error) })
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let file = options.open(self.path.join(LOCK_FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(Lock::of(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

/// Gives the lock back itself: closing the file would leave it to a child process that was just forked and
/// has not got rid of its copy of the file yet.
struct Lock {
    file: File,
    owner: Process,
}

impl Lock {
    fn of(file: File) -> Lock {
        Lock { file, owner: Process::this() }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The copy that a child process has of it is not the child's to give back.
        if self.owner.is_this() {
            // Closing it does the same, if somewhat later.
            let _ = self.file.unlock();
        }
    }
}

struct RealFile(File);

impl VfsFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.0, buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_does_not_give_the_lock_away() {
        let folder = tempfile::tempdir().unwrap();
        let opened =
            || File::options().read(true).write(true).create(true).truncate(false).open(folder.path().join("f"));
        let file = opened().unwrap();
        file.try_lock().unwrap();
        let childs = Lock::of(file.try_clone().unwrap());
        childs.owner.pretend_forked();
        drop(childs);
        assert!(matches!(opened().unwrap().try_lock(), Err(TryLockError::WouldBlock)));
        drop(Lock::of(file.try_clone().unwrap()));
        opened().unwrap().try_lock().unwrap();
    }
}
