//! `anomaly-suite prove`.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::interrupt::interrupted;
use super::{Usage, Verdict, engine, print};
use crate::prove::{Effort, Extent, News, Progress, Proof, Stage, prove};
use crate::report::{Style, proof};

#[derive(Args, Debug)]
pub(super) struct ProveArgs {
    /// A part of it that takes about a minute on one core.
    #[arg(long)]
    quick: bool,
    /// How many triples of the sample (default: 100, or 4).
    #[arg(long)]
    triples: Option<usize>,
    /// The seed of the sample of triples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// In how many threads (default: as many as there are cores). The report does not depend on it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: Option<u64>,
    /// Stop after this many seconds, with a report of what was done.
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// The database: isolde, or control.
    #[arg(long, default_value = "isolde")]
    db: String,
}

pub(super) fn run(args: &ProveArgs, style: Style) -> Result<Verdict, Usage> {
    let extent = if args.quick { Extent::QUICK } else { Extent::FULL };
    let extent = Extent { triples: args.triples.unwrap_or(extent.triples), seed: args.seed, ..extent };
    let threads = args.threads.map_or_else(cores, |threads| usize::try_from(threads).unwrap_or(1));
    let interrupted = interrupted()?;
    let effort = Effort { threads, time_limit: args.limit.map(Duration::from_secs), interrupted: &interrupted };
    let mut teller = Teller::new(threads);
    let found = prove(engine(&args.db)?, extent, effort, &mut |news| teller.tell(news))?;
    teller.bar.finish_and_clear();
    print(&proof::proof(&found, extent, style), None)?;
    Ok(verdict(&found, extent))
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A part of the programs need not show everything.
fn verdict(found: &Proof, extent: Extent) -> Verdict {
    if !found.is_sound() {
        Verdict::Violation
    } else if !found.is_whole() {
        Verdict::Inconclusive
    } else if found.is_sharp() || extent.every > 1 {
        Verdict::AsDeclared
    } else {
        Verdict::Violation
    }
}

/// Tells on standard error how the proof goes: a bar on a terminal, lines elsewhere.
struct Teller {
    threads: usize,
    bar: ProgressBar,
    is_terminal: bool,
    told: Instant,
}

/// How often a line is written where there is no terminal.
const EVERY: Duration = Duration::from_secs(30);

impl Teller {
    fn new(threads: usize) -> Teller {
        // indicatif draws a bar on a terminal only.
        Teller { threads, bar: ProgressBar::new(0), is_terminal: io::stderr().is_terminal(), told: Instant::now() }
    }

    fn tell(&mut self, news: News<'_>) {
        match news {
            News::Begins(Stage::Catalogue, _) => self.line("catalogue: what needs more transactions"),
            News::Begins(stage, programs) => {
                self.begin_bar(stage, programs);
                let threads = if self.threads == 1 { "thread" } else { "threads" };
                self.line(&format!("{}: {programs} to explore, in {} {threads}", name(stage), self.threads));
            }
            News::Goes(_, progress) if self.is_terminal => {
                self.bar.set_position(progress.programs.done as u64);
                self.bar.set_message(words(progress));
            }
            News::Goes(stage, progress) => {
                if self.told.elapsed() >= EVERY {
                    self.line(&counted(stage, progress));
                }
            }
            News::Ends(stage, progress) => self.line(&counted(stage, progress)),
            News::Fault(setting, what) => {
                self.line(&format!("{} {}: {what}, which must not be", setting.isolation, setting.mode));
            }
        }
    }

    fn begin_bar(&self, stage: Stage, programs: usize) {
        let template = format!("{} {{wide_bar}} {{pos}} / {{len}}, {{msg}}", name(stage));
        self.bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_length(programs as u64);
        self.bar.set_position(0);
    }

    fn line(&mut self, text: &str) {
        self.told = Instant::now();
        self.bar.suspend(|| {
            let _ = writeln!(anstream::stderr(), "{text}");
        });
    }
}

const fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Pairs => "pairs",
        Stage::Triples => "triples",
        Stage::Catalogue => "catalogue",
    }
}

fn counted(stage: Stage, progress: Progress) -> String {
    format!("{}: {} of {} done, {}", name(stage), progress.programs.done, progress.programs.all, words(progress))
}

/// How far it is, but for the number of programs.
fn words(Progress { schedules, elapsed, rest, .. }: Progress) -> String {
    let so_far = format!("{schedules} schedules, {} s", elapsed.as_secs());
    // A run that has done nothing yet has no pace.
    match rest {
        Duration::MAX => so_far,
        rest => format!("{so_far}, about {} s to go", rest.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use isolde_history::schedule::Setting;

    use super::*;
    use crate::prove::{LevelProof, Share};

    fn found(done: usize, fault: Option<&str>) -> Proof {
        let faults: BTreeMap<String, String> = fault.iter().map(|what| (what.to_string(), String::new())).collect();
        let level = |setting| LevelProof {
            setting,
            shown: BTreeSet::new(),
            by_catalogue: isolde_types::Anomaly::ALL.into_iter().collect(),
            faults: faults.clone(),
        };
        let levels = Setting::all().map(level).collect();
        let (pairs, triples) = (Share { done, all: 9 }, Share::default());
        Proof { pairs, triples, schedules: 1, threads: 1, elapsed: Duration::ZERO, levels }
    }

    #[test]
    fn a_violation_counts_for_more_than_an_early_end_and_that_for_more_than_nothing_wrong() {
        assert_eq!(verdict(&found(3, Some("G1a")), Extent::FULL), Verdict::Violation);
        assert_eq!(verdict(&found(9, Some("G1a")), Extent::QUICK), Verdict::Violation);
        assert_eq!(verdict(&found(3, None), Extent::QUICK), Verdict::Inconclusive);
        assert_eq!(verdict(&found(9, None), Extent::FULL), Verdict::AsDeclared);
        let mut blunt = found(9, None);
        blunt.levels[0].by_catalogue.clear();
        assert_eq!(verdict(&blunt, Extent::FULL), Verdict::Violation);
        assert_eq!(verdict(&blunt, Extent::QUICK), Verdict::AsDeclared);
    }
}
