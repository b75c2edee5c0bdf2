//! The command line.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Parser, Subcommand};

/// Looks after databases of Isolde that no process has open.
#[derive(Parser)]
#[command(
    name = "isolde",
    version,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 done; 1 the database is damaged; 2 the command line makes no sense; \
3 something could not be opened, read or written."
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Verify every file of a database, and that they agree. Changes nothing.
    Check {
        /// The database's directory.
        dir: PathBuf,
    },
    /// Say what a database holds: versions, checkpoint, log, rows. Changes nothing.
    Stat {
        /// The database's directory.
        dir: PathBuf,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Write all rows as JSON lines, in key order. Changes nothing.
    Dump {
        /// The database's directory.
        dir: PathBuf,
        #[command(flatten)]
        span: Prefix,
        /// Into this file, which appears only when it is complete, instead of the standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Put the rows of a dump into a database, new or existing; keys that are there get the new value.
    Load {
        /// The database's directory; made if it is not there.
        dir: PathBuf,
        /// The dump; `-` for the standard input.
        file: PathBuf,
        /// The size of the log's files; a row must fit into one. A multiple of 4096, at least 65536.
        #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = segment_bytes)]
        log_segment_bytes: u64,
    },
    /// Copy a database into a new directory, verified before and after. Changes nothing in the original.
    Backup {
        /// The database's directory.
        dir: PathBuf,
        /// The copy's: new, or empty.
        to: PathBuf,
    },
    /// Make a database of a backup, verified before and after. Changes nothing in the backup.
    Restore {
        /// The backup's directory.
        backup: PathBuf,
        /// The database's: new, or empty.
        to: PathBuf,
    },
}

/// Which rows.
#[derive(clap::Args)]
pub struct Prefix {
    /// Only keys that begin with this text.
    #[arg(long = "prefix", value_name = "TEXT", conflicts_with = "base64")]
    text: Option<String>,
    /// Only keys that begin with these bytes, written as base64.
    #[arg(long = "prefix-base64", value_name = "BASE64", value_parser = bytes)]
    base64: Option<Bytes>,
}

/// Bytes, and not clap's list of values.
type Bytes = std::sync::Arc<[u8]>;

impl Prefix {
    /// What keys begin with.
    pub fn prefix(&self) -> Vec<u8> {
        match (&self.text, &self.base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(bytes)) => bytes.to_vec(),
            (None, None) => Vec::new(),
        }
    }
}

fn bytes(text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| error.to_string())
}

fn segment_bytes(text: &str) -> Result<u64, String> {
    const SMALLEST: u64 = 64 << 10;
    let bytes: u64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    let fits = bytes >= SMALLEST && bytes.is_multiple_of(isolde_wal::BLOCK);
    if fits { Ok(bytes) } else { Err("it must be a multiple of 4096, and at least 65536".to_owned()) }
}
