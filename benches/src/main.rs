//! `isolde-bench`: what isolation costs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
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
    /// How long the checker takes for 10^4, 10^5 and 10^6 operations; exits 1 if a million take more than
    /// 5 seconds or 1 GiB
    Checker,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Shape { keys, rounds } => shape(keys, usize::from(rounds)),
        Command::Durable { folder, rounds } => durable(&folder, usize::from(rounds)),
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

fn durable(folder: &Path, rounds: usize) -> ExitCode {
    let folder = match tempfile::tempdir_in(folder) {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            return ExitCode::from(2);
        }
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("isolde-bench durable: {rounds} rounds, {cores} cores");
    let (verdicts, micros) = isolde_bench::durable::run(folder.path(), rounds);
    println!("a bare write and sync: {micros:.0} us (median)");
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
