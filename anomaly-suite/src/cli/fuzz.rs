//! `anomaly-suite fuzz`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use isolde_types::Isolation;

use super::{Usage, Verdict, engine, print};
use crate::adapters;
use crate::engine::Level;
use crate::fuzz::{self, Failure, Limit, Shape, Sighting, Tally, ThreadedFailure};
use crate::report::{Style, wrap};
use crate::verdict::reported_code;

#[derive(Args, Debug)]
pub(super) struct FuzzArgs {
    /// The first seed; each case takes the next (default: from the clock, and printed).
    #[arg(long)]
    seed: Option<u64>,
    /// At most this many transactions in a case.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=16))]
    txns: u64,
    /// How many keys they share.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    keys: u64,
    /// At most this many operations in a transaction.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=50))]
    operations: u64,
    /// Go on for this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    duration: u64,
    /// Run this many cases instead.
    #[arg(long, conflicts_with = "duration")]
    cases: Option<u64>,
    /// Run in this many threads, as the machine interleaves them, instead of on one thread in the order
    /// that the seed gives.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=64))]
    threads: Option<u64>,
    /// Where to write what failed (default: fuzz-SEED.schedule, or fuzz-SEED.jsonl for a history).
    #[arg(long)]
    out: Option<PathBuf>,
    /// The database: isolde, control, or the address of a server of another one (docs/databases.md); several
    /// addresses, with commas between them, for the nodes of a cluster.
    #[arg(long, default_value = "isolde")]
    db: String,
    /// The level of all transactions at a server; Isolde's are at every one.
    #[arg(long, value_parser = super::level)]
    level: Option<Isolation>,
}

pub(super) fn run(args: &FuzzArgs, style: Style) -> Result<Verdict, Usage> {
    let seed = args.seed.unwrap_or_else(seed_from_clock);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let shape = Shape { txns: size(args.txns), keys: size(args.keys), operations: size(args.operations) };
    let limit = args.cases.map_or(Limit::Time(Duration::from_secs(args.duration)), Limit::Cases);
    if args.db.contains("://") {
        return at_servers(args, shape, seed, limit, style);
    }
    if args.level.is_some() {
        return Err(Usage(
            "--level is for the servers of other databases: the cases here are at every level".to_owned(),
        ));
    }
    let (bar, start) = (progress_bar(limit), Instant::now());
    let advance = |tally: &Tally| match limit {
        Limit::Cases(_) => bar.set_position(tally.cases),
        Limit::Time(_) => bar.set_position(start.elapsed().as_secs()),
    };
    print(&format!("seed {seed}\n"), None)?;
    match args.threads {
        None => {
            let (tally, failure) = fuzz::cases(engine(&args.db)?, shape, seed, limit, advance);
            bar.finish_and_clear();
            print(&summary(&tally, start.elapsed(), style), None)?;
            failure.map_or(Ok(Verdict::AsDeclared), |failure| failed(args, &failure))
        }
        Some(threads) => {
            if args.db != "isolde" {
                return Err(Usage("--threads runs Isolde alone: leave out --db".to_owned()));
            }
            let (tally, failure) = fuzz::threads(size(threads), shape, seed, limit, advance)?;
            bar.finish_and_clear();
            print(&summary(&tally, start.elapsed(), style), None)?;
            failure.map_or(Ok(Verdict::AsDeclared), |failure| failed_in_threads(args, &failure))
        }
    }
}

/// Threads at the servers of another database.
fn at_servers(args: &FuzzArgs, shape: Shape, seed: u64, limit: Limit, style: Style) -> Result<Verdict, Usage> {
    let addresses: Vec<&str> = args.db.split(',').map(str::trim).collect();
    let mut level = None;
    for address in &addresses {
        let engine = super::any_engine(address)?;
        if let Err(why) = engine.reach() {
            return Ok(super::unreachable(&*engine, &why));
        }
        let isolation = args.level.unwrap_or(Isolation::Serializable);
        super::offered(&*engine, &[isolation], &[])?;
        level = engine.levels().into_iter().find(|level| level.setting.isolation == isolation);
    }
    let level = level.ok_or_else(|| Usage("an address is needed".to_owned()))?;
    let database = adapters::nodes(&addresses).map_err(|error| Usage(error.words(&args.db)))?;
    let threads = usize::try_from(args.threads.unwrap_or(6)).unwrap_or(usize::MAX);
    print(&format!("seed {seed}, {threads} threads at {}, {}\n", nodes(addresses.len()), level.name), None)?;
    let (bar, start) = (progress_bar(limit), Instant::now());
    let sighting = fuzz::servers(&*database, level, threads, shape, seed, limit, |tally| match limit {
        Limit::Cases(_) => bar.set_position(tally.cases),
        Limit::Time(_) => bar.set_position(start.elapsed().as_secs()),
    });
    bar.finish_and_clear();
    match sighting {
        Ok(sighting) => sighted(args, &sighting, level, start.elapsed(), style),
        Err(why) => {
            let _ = writeln!(anstream::stderr(), "error: {} cannot be reached: {why}", args.db);
            Ok(Verdict::Unreachable)
        }
    }
}

fn nodes(count: usize) -> String {
    if count == 1 { "one server".to_owned() } else { format!("{count} nodes") }
}

/// How many complaints are printed.
const COMPLAINTS: usize = 10;

/// What random histories at servers came to.
fn sighted(
    args: &FuzzArgs,
    sighting: &Sighting,
    level: Level,
    elapsed: Duration,
    style: Style,
) -> Result<Verdict, Usage> {
    let Tally { cases, transactions, committed, aborted, .. } = &sighting.tally;
    let mut text = format!("{cases} cases in {:.1} s\n", elapsed.as_secs_f64());
    let _ = writeln!(
        text,
        "{transactions} transactions: {committed} committed, {aborted} aborted, {} unknown",
        sighting.unknown
    );
    for (anomaly, (seed, finding)) in &sighting.found {
        let is_forbidden = level.promises.forbids().contains(anomaly);
        let (glyph, owed) = if is_forbidden { (style.possible(), "forbidden") } else { (style.dot(), "allowed") };
        let shown = sighting.tally.shown.get(anomaly).copied().unwrap_or_default();
        let (code, title) = (reported_code(*anomaly), anomaly.title());
        let _ = writeln!(text, "\n{glyph} {code} ({title}), {owed}: in {shown} cases; the smallest, of seed {seed}:");
        let _ = writeln!(text, "{}", wrap(&finding.words, "  ").trim_end());
        for edge in &finding.cycle {
            let _ = writeln!(text, "    {}", edge.words);
        }
    }
    if sighting.contradictory > 0 {
        let cases = sighting.contradictory;
        let glyph = style.possible();
        let _ = writeln!(text, "\n{glyph} the records contradict themselves in {cases} cases, judged no further:");
        for (seed, complaint) in sighting.complaints.iter().take(COMPLAINTS) {
            let _ = writeln!(text, "  seed {seed}: {complaint}");
        }
        if sighting.complaints.len() > COMPLAINTS {
            let _ = writeln!(text, "  and {} more", sighting.complaints.len() - COMPLAINTS);
        }
    }
    if let Some((seed, history)) = &sighting.history {
        let path = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("fuzz-{seed}.jsonl")));
        print(&history.to_json_lines(), Some(&path))?;
        let _ = writeln!(text, "\nthe first history that broke a promise, made small: {}", path.display());
    }
    let keeps = sighting.keeps(level);
    text.push_str(if keeps { "\nnothing that the level forbids\n" } else { "" });
    print(&text, None)?;
    Ok(if keeps { Verdict::AsDeclared } else { Verdict::Violation })
}

fn seed_from_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_secs()
}

/// Drawn on a terminal only, like every bar of indicatif.
fn progress_bar(limit: Limit) -> ProgressBar {
    let (length, unit) = match limit {
        Limit::Cases(cases) => (cases, "cases"),
        Limit::Time(time) => (time.as_secs(), "s"),
    };
    let template = format!("{{wide_bar}} {{pos}} / {{len}} {unit}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

fn summary(tally: &Tally, elapsed: Duration, style: Style) -> String {
    let Tally { cases, transactions, committed, aborted, blocked, shown } = tally;
    let rate = *cases as f64 / elapsed.as_secs_f64().max(1e-9);
    let mut text = format!("{cases} cases in {:.1} s ({rate:.0} a second)\n", elapsed.as_secs_f64());
    let _ = writeln!(
        text,
        "{transactions} transactions: {committed} committed, {aborted} aborted; {blocked} steps had to wait"
    );
    let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
    shown.iter().for_each(|(anomaly, cases)| *codes.entry(reported_code(*anomaly)).or_default() += cases);
    let shown: Vec<String> = codes.iter().map(|(code, cases)| format!("{code} {cases}")).collect();
    let dot = format!(" {} ", style.dot());
    let _ = writeln!(text, "shown where a level permits it (cases): {}", shown.join(&dot));
    text
}

fn failed(args: &FuzzArgs, failure: &Failure) -> Result<Verdict, Usage> {
    let path = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("fuzz-{}.schedule", failure.seed)));
    let mut schedule = failure.schedule.clone();
    schedule.about = failure.faults.clone();
    print(&schedule.to_string(), Some(&path))?;
    let mut text = format!("FAILED at seed {}\n", failure.seed);
    failure.faults.iter().for_each(|fault| {
        let _ = writeln!(text, "  {fault}");
    });
    let _ = writeln!(text, "\nshrunk from {} steps to {}:\n", failure.steps, schedule.steps.len());
    let _ = writeln!(text, "{schedule}\nagain: anomaly-suite replay {} --db {}", path.display(), args.db);
    print(&text, None)?;
    Ok(Verdict::Violation)
}

fn failed_in_threads(args: &FuzzArgs, failure: &ThreadedFailure) -> Result<Verdict, Usage> {
    let path = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("fuzz-{}.jsonl", failure.seed)));
    print(&failure.history.to_json_lines(), Some(&path))?;
    let _ = writeln!(anstream::stdout(), "FAILED at seed {}, in threads", failure.seed);
    failure.faults.iter().for_each(|fault| {
        let _ = writeln!(anstream::stdout(), "  {fault}");
    });
    print(&format!("the transactions that show it: {}\n", path.display()), None)?;
    match &failure.schedule {
        Some(schedule) => {
            let args = FuzzArgs { out: Some(path.with_extension("schedule")), db: args.db.clone(), ..*args };
            failed(&args, schedule)
        }
        None => {
            print("in the recorded order on one thread they do not fail\n", None)?;
            Ok(Verdict::Violation)
        }
    }
}
