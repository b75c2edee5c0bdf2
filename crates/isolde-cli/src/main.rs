//! `isolde`: looks after databases that no process has open. `docs/cli.md` has the details.
//!
//! Everything but `load` reads a database without opening it: no file of it is written or even locked
//! for writing, so a look changes nothing, and works on a read-only disk.
//!
//! The exit code says how it went: 0 well, 1 the database is damaged, 2 the command line makes no sense,
//! 3 something could not be opened, read or written.

mod args;
mod check;
mod copy;
mod dump;
mod failure;
mod line;
mod load;
mod progress;
mod rows;
mod source;
mod stat;
mod words;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Check { dir } => check::run(&dir),
        Command::Stat { dir, json } => stat::run(&dir, json),
        Command::Dump { dir, span, output } => dump::run(&dir, &span.prefix(), output.as_deref()),
        Command::Load { dir, file, log_segment_bytes } => load::run(&dir, &file, log_segment_bytes),
        Command::Backup { dir, to } => copy::backup(&dir, &to),
        Command::Restore { backup, to } => copy::restore(&backup, &to),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
