//! The seam for files: everything that touches the disk goes through a [`Vfs`].
//!
//! A `Vfs` is one directory, that of one database. Names are names of files in it, never paths.
//! [`RealFs`](crate::RealFs) is the operating system's; tests bring others that lose, tear and
//! reorder what was not synced, or fail where they are told to.
//!
//! The contract is POSIX's, at its weakest:
//! - What was written and not synced may be there after a power cut, or not, sector by sector (512
//!   bytes), in any order. [`VfsFile::sync`] makes a file's bytes and length survive.
//! - A file that was created, renamed or removed may be so after a power cut, or not, until
//!   [`Vfs::sync_dir`]. A rename replaces its target atomically. A directory that was made may be gone, and all
//!   in it, until [`Vfs::sync_parent`].
//! - After a failed `sync` nothing is known of the bytes before it, and syncing again proves nothing.

use std::io;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// To be read; it must exist.
    Read,
    /// To be read and written; it must exist.
    Write,
    /// To be read and written; it must not exist, and is made with rights for its owner alone.
    CreateNew,
}

/// One directory of files.
pub trait Vfs: Send + Sync + 'static {
    /// Opens a file. A symbolic link in its place is refused.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, and whatever the file system says.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn VfsFile>>;

    /// Gives a file another name, replacing what has it.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, and whatever the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in no order.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes creations, renames and removals survive.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn sync_dir(&self) -> io::Result<()>;

    /// Makes the directory's own name survive: a database is about to be made in it. Where the directory was found,
    /// and not made, and the one above it may not be read, whoever made it has seen to that.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn sync_parent(&self) -> io::Result<()>;

    /// Takes the directory for this process and this `Vfs` alone, until the guard is dropped or the
    /// process dies; `None` if somebody else has it.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn try_lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>>;

    /// The directory, for messages.
    fn describe(&self) -> String;
}

/// One open file. Reading and writing at a place moves nothing.
pub trait VfsFile: Send + Sync {
    /// Reads some bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of the bytes at `offset`, and tells how many.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;

    /// The length in bytes.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Makes bytes and length survive (`fdatasync`). Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// Whatever the file system says; see the module for what is known then.
    fn sync(&self) -> io::Result<()>;
}

/// Writes all bytes; goes on after short writes and interruptions.
///
/// # Errors
/// Whatever the file system says; `WriteZero` when it takes no more.
pub fn write_all_at(file: &dyn VfsFile, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                buf = buf.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads as many bytes as there are, up to the buffer's length; goes on after short reads and
/// interruptions.
///
/// # Errors
/// Whatever the file system says.
pub fn read_up_to(file: &dyn VfsFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// Whatever the file system says; `FileTooLarge` over the limit, before anything is allocated.
pub fn read_file(file: &dyn VfsFile, limit: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?];
    let read = read_up_to(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
