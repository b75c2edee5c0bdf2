//! `anomaly-suite explore`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use isolde_history::explore::{Invariant, Programs, Reduction, Resume};
use isolde_history::schedule::Setting;
use isolde_types::{Isolation, Mode};

use super::{Usage, Verdict, engine, level, mode, print, read_schedule};
use crate::explore::{Exploration, Exploring, survey};
use crate::report::{Style, exploration};

#[derive(Args, Debug)]
pub(super) struct ExploreArgs {
    /// A schedule file, whose order across transactions is not looked at; `-` is standard input.
    program: PathBuf,
    /// Only these levels, for transactions that name none.
    #[arg(long, value_delimiter = ',', value_parser = level)]
    level: Vec<Isolation>,
    /// Only these modes, for transactions that name none.
    #[arg(long, value_delimiter = ',', value_parser = mode)]
    mode: Vec<Mode>,
    /// What must hold in every final state, such as `x + y >= 1`; an absent key counts as 0.
    #[arg(long)]
    invariant: Option<String>,
    /// Run schedules that come to the same each by itself.
    #[arg(long)]
    unreduced: bool,
    /// Pass over the schedules before this one, counted from 0: they are run, and not judged.
    #[arg(long, default_value_t = 0, conflicts_with = "resume")]
    from: u64,
    /// Go on at a point where an exploration has stopped, without running what lies before; for one level and mode.
    #[arg(long)]
    resume: Option<Resume>,
    /// Stop after this many seconds at each level and mode.
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The database: isolde, or control.
    #[arg(long, default_value = "isolde")]
    db: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

pub(super) fn run(args: &ExploreArgs, style: Style) -> Result<Verdict, Usage> {
    let name = args.program.display().to_string();
    let schedule = read_schedule(&args.program)?;
    let programs = Programs::of(&schedule).map_err(|error| Usage(format!("{name}: {error}")))?;
    let exploring = exploring(args, &programs)?;
    let engine = engine(&args.db)?;
    let settings = settings(&args.level, &args.mode);
    if args.resume.is_some() && settings.len() != 1 {
        return Err(Usage("--resume goes on at one level and mode: name them with --level and --mode".to_owned()));
    }
    let mut explorations = Vec::new();
    for setting in settings {
        let bar = progress_bar(setting);
        let exploration = survey(engine, &programs, &[setting], &exploring, |number| bar.set_position(number));
        bar.finish_and_clear();
        explorations.push((setting, exploration.map_err(|error| Usage(format!("{name}: {error}")))?));
    }
    let text = match args.format {
        Format::Table => exploration::table(&name, &explorations, exploring.invariant.as_ref(), style),
        Format::Json => exploration::json(&name, &explorations, exploring.invariant.as_ref()),
    };
    print(&text, None)?;
    Ok(verdict(&explorations))
}

fn exploring(args: &ExploreArgs, programs: &Programs) -> Result<Exploring, Usage> {
    Ok(Exploring {
        reduction: if args.unreduced { Reduction::None } else { Reduction::SleepSets },
        invariant: args.invariant.as_deref().map(|text| invariant(text, programs)).transpose()?,
        from: args.from,
        resume: args.resume.clone(),
        time_limit: args.limit.map(Duration::from_secs),
    })
}

pub(super) fn invariant(text: &str, programs: &Programs) -> Result<Invariant, Usage> {
    let invariant = Invariant::parse(text).map_err(|error| Usage(format!("--invariant, {error}")))?;
    match invariant.keys().into_iter().find(|key| !programs.know(key)) {
        Some(key) => {
            let key = String::from_utf8_lossy(key);
            Err(Usage(format!("--invariant: no step names the key `{key}`, and it is not in `init:`")))
        }
        None => Ok(invariant),
    }
}

/// Every chosen level in every chosen mode, weakest first; all, where nothing is chosen.
fn settings(levels: &[Isolation], modes: &[Mode]) -> Vec<Setting> {
    let chosen = |setting: &Setting| {
        (levels.is_empty() || levels.contains(&setting.isolation))
            && (modes.is_empty() || modes.contains(&setting.mode))
    };
    Setting::all().filter(chosen).collect()
}

fn progress_bar(setting: Setting) -> ProgressBar {
    let template = format!("{} {}: {{pos}} schedules, {{rate}} a second", setting.isolation, setting.mode);
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
        let _ = write!(text, "{:.0}", state.per_sec());
    };
    let style = style.with_key("rate", rate);
    ProgressBar::new_spinner().with_style(style)
}

/// What a level forbids, and a transaction that is stuck, is a violation; a broken invariant is an answer,
/// and so is what stopped at the time limit.
fn verdict(explorations: &[(Setting, Exploration)]) -> Verdict {
    let is_faulty =
        |exploration: &Exploration| !exploration.survey.faults.is_empty() || exploration.survey.stuck.is_some();
    if explorations.iter().any(|(_, exploration)| is_faulty(exploration)) {
        Verdict::Violation
    } else if explorations.iter().any(|(_, exploration)| !exploration.explored.complete) {
        Verdict::Inconclusive
    } else {
        Verdict::AsDeclared
    }
}
