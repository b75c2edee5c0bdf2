//! `isolde-bench`: what isolation costs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use isolde_bench::durable::Figures;
use isolde_bench::opening::{self, Opening};
use isolde_bench::shape::{self, Bound, Verdict};

#[derive(Parser)]
#[command(version, about = "Measures what isolation costs")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The ratios that must hold on any machine, with PASS or FAIL; exits 1 on a FAIL
    Shape {
        /// How many keys each table holds
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        /// How many interleaved rounds are run
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
    },
    /// What durability costs, beside a bare write-and-sync loop on the same disk, with PASS or FAIL; exits 1
    /// on a FAIL
    Durable {
        /// A folder on the disk to measure; a new one is made in it, and removed
        #[arg(long, default_value = "target")]
        folder: PathBuf,
        /// How many interleaved rounds are run
        #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
    },
    /// How long a million keys take to open from a checkpoint, with a log of at most 64 MiB behind it, in and out
    /// of the page cache; exits 1 if it takes 2 seconds or more in it
    Opening {
        /// A folder on the disk to measure; a new one is made in it, and removed
        #[arg(long, default_value = "target")]
        folder: PathBuf,
        /// How many keys the checkpoint holds
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        /// How many puts stand in the log
        #[arg(long, default_value_t = 400_000)]
        puts: u64,
        /// How many times it is opened
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
    },
    /// How long the checker takes for 10^4, 10^5 and 10^6 operations; exits 1 if a million take more than
    /// 5 seconds or 1 GiB
    Checker,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Shape { keys, rounds } => shape(keys, usize::from(rounds)),
        Command::Durable { folder, rounds } => in_folder(&folder, |folder| durable(folder, usize::from(rounds))),
        Command::Opening { folder, keys, puts, rounds } => {
            in_folder(&folder, |folder| opening(folder, keys.max(1), puts, usize::from(rounds)))
        }
        Command::Checker if isolde_bench::checker::run() => ExitCode::SUCCESS,
        Command::Checker => ExitCode::FAILURE,
    }
}

fn shape(keys: u64, rounds: usize) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("isolde-bench shape: {keys} keys, {rounds} rounds, {cores} cores, in memory, glibc's allocator");
    let verdicts = shape::run(keys.max(1), rounds);
    report(&verdicts)
}

/// Runs a benchmark in a new folder, which is removed at the end.
fn in_folder(folder: &Path, run: impl FnOnce(&Path) -> ExitCode) -> ExitCode {
    match tempfile::tempdir_in(folder) {
        Ok(folder) => run(folder.path()),
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}

fn opening(folder: &Path, keys: u64, puts: u64, rounds: usize) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("isolde-bench opening: {keys} keys, {puts} puts in the log, {rounds} rounds, {cores} cores");
    let Opening { log_bytes, warm, cold } = opening::run(folder, keys, puts, rounds);
    let cold = cold.map_or("SKIPPED: the page cache cannot be dropped here".to_owned(), |cold| format!("{cold:.2} s"));
    println!("log {:.1} MiB; medians: warm {warm:.2} s, cold {cold}", log_bytes as f64 / f64::from(1 << 20));
    let passes = warm < opening::BOUND;
    println!("{}  opening, warm (under {} s)", if passes { "PASS" } else { "FAIL" }, opening::BOUND);
    if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn durable(folder: &Path, rounds: usize) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("isolde-bench durable: {rounds} rounds, {cores} cores");
    let Figures { verdicts, references, sync_micros } = isolde_bench::durable::run(folder, rounds);
    println!("a bare write and sync: {sync_micros:.0} us (median)");
    for (name, ratio) in references {
        println!("data  {name:<45} {ratio:>6.2}x");
    }
    report(&verdicts)
}

fn report(verdicts: &[Verdict]) -> ExitCode {
    println!("medians of the rounds' ratios:");
    for verdict in verdicts {
        let bound = match verdict.bound {
            Bound::AtMost(bound) => format!("at most {bound}"),
            Bound::AtLeast(bound) => format!("at least {bound}"),
        };
        let word = if verdict.passes() { "PASS" } else { "FAIL" };
        println!("{word}  {:<45} {:>6.2}x  ({bound})", verdict.name, verdict.ratio);
    }
    if verdicts.iter().all(Verdict::passes) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
