//! A database's directory that is read, and not written.

use std::io::ErrorKind;
use std::path::Path;

use isolde_wal::{Inspection, RealFs, Redo, WalError};

use crate::failure::{Done, Failure};
use crate::progress::Bar;
use crate::rows::{Key, Rows};

/// The directory; while this lives nobody else can open the database.
pub struct Source {
    vfs: RealFs,
    /// Its name, for messages.
    pub dir: String,
    _lock: Box<dyn Send + Sync>,
}

impl Source {
    /// Takes the directory.
    pub fn open(path: &Path) -> Done<Source> {
        let dir = path.display().to_string();
        let vfs = RealFs::open(path, false).map_err(|error| {
            Failure::refused(match error.kind() {
                ErrorKind::NotFound => format!("{dir}: there is no such directory"),
                ErrorKind::NotADirectory => format!("{dir} is not a directory; name that of a database"),
                _ => format!("opening {dir}: {error}"),
            })
        })?;
        let locked = vfs.try_lock_to_read();
        let lock = locked.map_err(|error| Failure::refused(format!("locking {dir}: {error}")))?;
        let lock = lock.ok_or_else(|| Failure::in_use(&dir))?;
        Ok(Source { vfs, dir, _lock: lock })
    }

    /// Reads and verifies all files. What is damaged is in the inspection, unless nothing can be told.
    pub fn inspect(&self, redo: &dyn Redo) -> Done<Inspection> {
        isolde_wal::inspect(&self.vfs, redo).map_err(|error| Failure::of_database(&self.dir, error))
    }

    /// All rows whose keys begin with `prefix`, of a database that is whole.
    pub fn rows(&self, prefix: &[u8]) -> Done<(Inspection, Rows)> {
        let reader = crate::rows::Reader::new(prefix, Bar::new("reading"));
        let inspection = self.inspect(&reader)?;
        if !inspection.faults.is_empty() {
            let faults: Vec<String> = inspection.faults.iter().map(WalError::to_string).collect();
            return Err(Failure::Damaged(format!("{}: {}", self.dir, faults.join("\n"))));
        }
        for segment in &inspection.segments {
            if segment.tail == isolde_wal::Tail::Torn {
                let (dir, file, used) = (&self.dir, &segment.file, segment.used);
                eprintln!(
                    "isolde: note: {dir}: the log ends torn at byte {used} of {file}: what was being written there \
                     had been promised to nobody, and is left out"
                );
            }
        }
        Ok((inspection, reader.finish()))
    }
}

/// Compares what is read with what should be there.
pub struct Compare<'c> {
    expected: &'c std::collections::BTreeMap<Key, Key>,
    bar: Bar,
    alike: std::sync::atomic::AtomicUsize,
    differs: std::sync::atomic::AtomicBool,
}

impl<'c> Compare<'c> {
    pub fn new(rows: &'c Rows) -> Compare<'c> {
        let (alike, differs) = Default::default();
        Compare { expected: &rows.rows, bar: Bar::new("verifying"), alike, differs }
    }

    /// Whether each row was there once, as it should be, and no other.
    pub fn is_same(&self) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        !self.differs.load(Relaxed) && self.alike.load(Relaxed) == self.expected.len()
    }
}

impl Redo for Compare<'_> {
    fn apply(&self, key: &[u8], value: Option<&[u8]>, _ts: isolde::Ts) {
        use std::sync::atomic::Ordering::Relaxed;
        if self.expected.get(key).map(|value| &**value) == value && value.is_some() {
            self.alike.fetch_add(1, Relaxed);
        } else {
            self.differs.store(true, Relaxed);
        }
    }

    fn progress(&self, done: u64, total: u64) {
        self.bar.set(done, total);
    }
}
