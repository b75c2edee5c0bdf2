//! `anomaly-suite advise`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use isolde_history::explore::Programs;

use super::{Usage, Verdict, engine, explore::invariant, print, read_schedule};
use crate::advise::{advise, cost};
use crate::report::{Style, advice};

#[derive(Args, Debug)]
pub(super) struct AdviseArgs {
    /// A schedule file, whose order across transactions is not looked at; `-` is standard input.
    program: PathBuf,
    /// What must hold in every final state, such as `x + y >= 1`; an absent key counts as 0.
    #[arg(long)]
    invariant: String,
    /// Measure what each level and mode costs: committed transactions a second, in threads.
    #[arg(long)]
    cost: bool,
    /// Stop after this many seconds at each level and mode.
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
}

/// How long each level and mode is measured, in each of the rounds.
const ROUND: Duration = Duration::from_millis(60);
const ROUNDS: usize = 5;

pub(super) fn run(args: &AdviseArgs, style: Style) -> Result<Verdict, Usage> {
    let name = args.program.display().to_string();
    let schedule = read_schedule(&args.program)?;
    let programs = Programs::of(&schedule).map_err(|error| Usage(format!("{name}: {error}")))?;
    let invariant = invariant(&args.invariant, &programs)?;
    let bar = ProgressBar::new_spinner();
    let limit = args.limit.map(Duration::from_secs);
    let say = |setting: isolde_history::schedule::Setting| {
        bar.set_message(format!("{} {}", setting.isolation, setting.mode));
    };
    let found = advise(engine("isolde")?, &programs, &invariant, limit, say)
        .map_err(|error| Usage(format!("{name}: {error}")))?;
    bar.finish_and_clear();
    let costs = if args.cost { Some(costs(&programs, &found)?) } else { None };
    print(&advice::advice(&name, &invariant, &found, costs.as_deref(), style), None)?;
    Ok(if found.weakest().is_some() { Verdict::AsDeclared } else { Verdict::Violation })
}

/// Interleaved rounds of all levels and modes; the median of each.
fn costs(programs: &Programs, found: &crate::advise::Advice) -> Result<Vec<f64>, Usage> {
    let mut figures = vec![Vec::new(); found.explorations.len()];
    for _ in 0..ROUNDS {
        for (figures, (setting, _)) in figures.iter_mut().zip(&found.explorations) {
            figures.push(cost(programs, *setting, ROUND)?);
        }
    }
    let median = |mut figures: Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        figures.get(ROUNDS / 2).copied().unwrap_or_default()
    };
    Ok(figures.into_iter().map(median).collect())
}
