//! Why the log, a checkpoint or the directory refused.

use std::sync::Arc;
use std::{fmt, io};

/// What every fallible function of this crate returns.
pub type Result<T, E = WalError> = std::result::Result<T, E>;

/// Why a file operation of the database failed. Cheap to clone: several may hear of one failure.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WalError {
    /// The operating system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file of the directory.
        file: Arc<str>,
        /// What it said.
        source: Arc<io::Error>,
    },
    /// There is no space for what may have to be written; nothing was.
    DiskFull,
    /// A file does not hold what was written to it.
    Corruption {
        /// The file of the directory.
        file: Arc<str>,
        /// The first byte that is wrong, as far as that can be told.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file that must be there is missing.
    MissingFile {
        /// Its name.
        file: Arc<str>,
    },
    /// The directory holds files, and they are not those of a database.
    NotADatabase {
        /// The directory.
        dir: Arc<str>,
        /// What was found instead.
        what: &'static str,
    },
    /// The files were written by a version that this one does not know.
    VersionMismatch {
        /// The file of the directory.
        file: Arc<str>,
        /// The format version in it.
        found: u32,
        /// The newest that this library reads.
        supported: u32,
    },
    /// Another process, or another handle in this one, has the directory open.
    AlreadyOpen {
        /// The directory.
        dir: Arc<str>,
    },
    /// A transaction is larger than a segment of the log.
    TooLarge {
        /// What it would take.
        bytes: usize,
        /// What there is.
        limit: usize,
    },
    /// An earlier write or sync of the log failed, for this reason.
    Poisoned(Arc<str>),
    /// The log was closed before: nothing was written.
    Closed,
    /// This process was forked from the one that opened the directory: nothing was written.
    Forked,
}

impl WalError {
    /// An error of the operating system while something was done to a file, or to a part of the engine.
    #[must_use]
    pub fn from_io(doing: &'static str, what: &str, source: io::Error) -> WalError {
        Self::io(doing, what)(source)
    }

    pub(crate) fn io(doing: &'static str, file: &str) -> impl FnOnce(io::Error) -> WalError {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => WalError::MissingFile { file: file.into() },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WalError::DiskFull,
            _ => WalError::Io { doing, file: file.into(), source: Arc::new(source) },
        }
    }

    pub(crate) fn corrupt(file: &str, offset: u64, what: &'static str) -> WalError {
        WalError::Corruption { file: file.into(), offset, what }
    }
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalError::Io { doing, file, source } => write!(f, "{doing} {file}: {source}"),
            WalError::DiskFull => write!(f, "no space left on the disk; nothing was written: free some and try again"),
            WalError::Corruption { file, offset, what } => {
                write!(f, "{file} is damaged at byte {offset}: {what}; restore it from a backup")
            }
            WalError::MissingFile { file } => write!(f, "{file} is missing; restore it from a backup"),
            WalError::NotADatabase { dir, what } => {
                write!(f, "{dir} is not a database: {what}; name an empty or new directory")
            }
            WalError::VersionMismatch { file, found, supported } => {
                write!(f, "{file} has format version {found}, this library reads up to {supported}: use a newer one")
            }
            WalError::AlreadyOpen { dir } => {
                write!(f, "{dir} is open already: close it there first, or share that handle")
            }
            WalError::TooLarge { bytes, limit } => {
                write!(
                    f,
                    "the transaction takes {bytes} bytes of log, a segment holds {limit}: raise log_segment_bytes"
                )
            }
            WalError::Poisoned(cause) => write!(f, "the log failed ({cause}): reopen the database"),
            WalError::Closed => f.write_str("the database is closed"),
            WalError::Forked => f.write_str(
                "this process was forked from the one that opened the database: open it after fork, in one of them",
            ),
        }
    }
}

impl std::error::Error for WalError {}
