//! Why a command did not do what it was told, and the exit code that says so.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use isolde::Error;
use isolde_wal::WalError;

/// What went wrong.
#[derive(Debug)]
pub enum Failure {
    /// The database is damaged.
    Damaged(String),
    /// Something could not be opened, read or written.
    Refused(String),
    /// Whoever read the standard output has gone: there is nobody to write for.
    NobodyReads,
}

/// Whether the directory is missing that a new file or directory is to be made in.
pub fn misses_parent(path: &Path) -> bool {
    !path.exists() && path.parent().is_some_and(|up| !up.as_os_str().is_empty() && !up.exists())
}

/// What every command returns.
pub type Done<T = ()> = Result<T, Failure>;

impl Failure {
    pub fn refused(what: impl Display) -> Failure {
        Failure::Refused(what.to_string())
    }

    /// The standard output could not be written.
    pub fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::Refused(format!("writing the standard output: {error}")),
        }
    }

    /// A file of the database in `dir` is not what it should be.
    pub fn of_database(dir: &str, error: WalError) -> Failure {
        match error {
            WalError::Corruption { .. } | WalError::MissingFile { .. } => Failure::Damaged(format!("{dir}: {error}")),
            WalError::NotADatabase { dir, what } => Failure::Refused(format!("{dir} is not a database: {what}")),
            WalError::AlreadyOpen { .. } => Failure::in_use(dir),
            other => Failure::Refused(format!("{dir}: {other}")),
        }
    }

    /// The library refused.
    pub fn of_library(dir: &str, error: Error) -> Failure {
        match error {
            Error::Storage(error) => Failure::of_database(dir, *error),
            other => Failure::Refused(format!("{dir}: {other}")),
        }
    }

    /// Another process has the database open.
    pub fn in_use(dir: &str) -> Failure {
        Failure::Refused(format!(
            "{dir} is open in another process: close it there first. (A copy of a database in use is made by the \
             process that uses it, with Db::backup.)"
        ))
    }

    /// Adds what is true besides.
    pub fn and(self, more: impl Display) -> Failure {
        match self {
            Failure::Damaged(what) => Failure::Damaged(format!("{what}\n{more}")),
            Failure::Refused(what) => Failure::Refused(format!("{what}\n{more}")),
            Failure::NobodyReads => Failure::NobodyReads,
        }
    }

    /// Says so, and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (code, what) = match self {
            Failure::Damaged(what) => (1, what),
            Failure::Refused(what) => (3, what),
            Failure::NobodyReads => return ExitCode::SUCCESS,
        };
        eprintln!("isolde: {what}");
        ExitCode::from(code)
    }
}
