//! The command line.
//!
//! | exit | means |
//! | --- | --- |
//! | 0 | everything as declared |
//! | 1 | a level allowed what it forbids, or something came out otherwise than declared |
//! | 2 | usage: an unknown word, a file that cannot be read or parsed |
//! | 3 | a database could not be reached |
//! | 4 | inconclusive: something was ended early, or a history does not say enough |

mod advise;
mod explore;
mod fuzz;
mod interrupt;
mod mixed;
mod prove;
mod report;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use isolde_history::foreign as history;
use isolde_history::schedule::{ReplayError, Schedule, Setting};
use isolde_types::{Isolation, Mode};

use crate::adapters;
use crate::check::checked;
use crate::engine::{Control, Engine, Unreachable};
use crate::expectations::{Expectations, bless};
use crate::hazards::Hazards;
use crate::isolde::{Durable, Isolde};
use crate::report::{Colour, Glyphs, Style, explain, json, junit, markdown, show, table};
use crate::suite::{Report, Suite, find};
use crate::verdict::trial;

/// Runs the classic anomalies of concurrent transactions at every isolation level and mode, and
/// explains each verdict.
#[derive(Parser, Debug)]
#[command(name = "anomaly-suite", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Draw with ASCII characters only.
    #[arg(long, global = true)]
    ascii: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Every anomaly at every level and mode (the default).
    Run(RunArgs),
    /// One self-contained HTML page: the matrix, and every run drawn and explained.
    Report(report::ReportArgs),
    /// One cell: what happened step by step, and why.
    Show(ShowArgs),
    /// Every anomaly on one line.
    List,
    /// An anomaly in plain words: what happens, a real-life case, what stops it.
    Explain {
        /// Its id or another name, such as `write-skew`.
        anomaly: String,
    },
    /// Run schedule files of your own.
    Replay(ReplayArgs),
    /// Every interleaving of transaction programs: outcomes, anomalies, broken invariants.
    Explore(explore::ExploreArgs),
    /// The weakest level and mode that keeps an invariant of your programs in every interleaving.
    Advise(advise::AdviseArgs),
    /// The levels, proved on all small programs: nothing forbidden is shown, everything else is.
    Prove(prove::ProveArgs),
    /// What each side sees where levels are mixed: every ordered pair of level and mode.
    Mixed(mixed::MixedArgs),
    /// Random concurrent transactions, checked; what fails is shrunk to a schedule.
    Fuzz(fuzz::FuzzArgs),
    /// Judge histories of any database: our JSON lines, Jepsen's EDN and JSON, register text.
    Check(CheckArgs),
}

#[derive(Args, Debug, Default)]
struct RunArgs {
    /// The database: isolde, control (an engine without control), or one of this build's adapters, such
    /// as `sqlite` or `postgres://..`.
    #[arg(long, default_value = "isolde")]
    db: String,
    /// Isolde on disk: each schedule runs on a database of its own in this folder, a new or empty one or an earlier run's.
    #[arg(long)]
    path: Option<PathBuf>,
    /// Only these levels.
    #[arg(long, value_delimiter = ',', value_parser = level)]
    level: Vec<Isolation>,
    /// Only these modes.
    #[arg(long, value_delimiter = ',', value_parser = mode)]
    mode: Vec<Mode>,
    /// Only these anomalies, by id or another name.
    #[arg(long, value_delimiter = ',')]
    anomaly: Vec<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: RunFormat,
    /// In JSON, with what each step did, so that `report --beside` can draw it.
    #[arg(long)]
    steps: bool,
    /// Write to this file instead of the terminal.
    #[arg(long)]
    out: Option<PathBuf>,
    /// What each cell is declared to be (default: what comes with the suite).
    #[arg(long)]
    expect: Option<PathBuf>,
    /// Write what came out into the expectation file.
    #[arg(long)]
    bless: bool,
}

impl RunArgs {
    fn detail(&self) -> json::Detail {
        if self.steps { json::Detail::Steps } else { json::Detail::Verdicts }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum RunFormat {
    #[default]
    Table,
    Json,
    Junit,
    Markdown,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// The anomaly: its id or another name.
    anomaly: String,
    /// The level.
    #[arg(long, value_parser = level, default_value = "serializable")]
    level: Isolation,
    /// The mode (default: optimistic, where the database has a choice).
    #[arg(long, value_parser = mode)]
    mode: Option<Mode>,
    /// The database, as in `run`.
    #[arg(long, default_value = "isolde")]
    db: String,
}

#[derive(Args, Debug)]
struct ReplayArgs {
    /// Schedule files; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The level of transactions that name none.
    #[arg(long, value_parser = level, default_value = "serializable")]
    level: Isolation,
    /// The mode of transactions that name none.
    #[arg(long, value_parser = mode)]
    mode: Option<Mode>,
    /// How to print; JSON is one document a line.
    #[arg(long, value_enum, default_value_t)]
    format: ReplayFormat,
    /// Write to this file instead of the terminal.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The database, as in `run`.
    #[arg(long, default_value = "isolde")]
    db: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReplayFormat {
    #[default]
    Text,
    Json,
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// Histories; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What the history is judged by (default: the levels in our own histories, else serializable).
    #[arg(long, value_parser = level)]
    model: Option<Isolation>,
    /// Serializable need not agree with real time.
    #[arg(long)]
    without_real_time: bool,
    /// How the histories are written: isolde, edn, json or registers (default: by how they begin).
    #[arg(long = "from", value_parser = written)]
    from: Option<history::Format>,
    /// How to print; JSON is one document a line.
    #[arg(long, value_enum, default_value_t)]
    format: ReplayFormat,
    /// Write to this file instead of the terminal.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What a call comes to; the worst of several is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    AsDeclared,
    Violation,
    Inconclusive,
    Unreachable,
}

/// A call that cannot be understood or carried out: one line, exit code 2.
struct Usage(String);

impl<E: std::error::Error> From<E> for Usage {
    fn from(error: E) -> Self {
        Usage(error.to_string())
    }
}

fn level(word: &str) -> Result<Isolation, String> {
    let names = Isolation::ALL.map(Isolation::name);
    word.parse().map_err(|_| unknown("level", word, &names))
}

fn mode(word: &str) -> Result<Mode, String> {
    let names = Mode::ALL.map(Mode::name);
    word.parse().map_err(|_| unknown("mode", word, &names))
}

fn written(word: &str) -> Result<history::Format, String> {
    let names = history::Format::ALL.map(history::Format::name);
    let found = history::Format::ALL.into_iter().find(|format| format.name() == word);
    found.ok_or_else(|| unknown("format", word, &names))
}

fn unknown(what: &str, word: &str, names: &[&str]) -> String {
    let suggestion = crate::suggest::closest(word, names.iter().copied());
    let hint = suggestion.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    format!("there is no {what} `{word}`{hint} ({})", names.join(", "))
}

/// A database of the suite's own, which is always there.
fn engine(name: &str) -> Result<&'static dyn Engine, Usage> {
    match name {
        "isolde" => Ok(&Isolde),
        "control" => Ok(&Control),
        _ => Err(Usage(unknown("database", name, &["isolde", "control"]))),
    }
}

/// Any database: one of the suite's own, or another one behind a feature of this build.
fn any_engine(name: &str) -> Result<Box<dyn Engine>, Usage> {
    match name {
        "isolde" => Ok(Box::new(Isolde)),
        "control" => Ok(Box::new(Control)),
        _ => adapters::engine(name).map_err(|error| Usage(error.words(name))),
    }
}

/// Says that a database cannot be reached: exit code 3.
fn unreachable(engine: &dyn Engine, why: &Unreachable) -> Verdict {
    let _ = writeln!(anstream::stderr(), "error: {} cannot be reached: {why}", engine.name());
    Verdict::Unreachable
}

/// The levels and modes that were asked for must be there: none is mapped to another.
fn offered(engine: &dyn Engine, levels: &[Isolation], modes: &[Mode]) -> Result<(), Usage> {
    let has = engine.levels();
    let missing = |level: &&Isolation| has.iter().all(|known| known.setting.isolation != **level);
    if let Some(level) = levels.iter().find(missing) {
        let mut names: Vec<&str> = has.iter().map(|level| level.setting.isolation.name()).collect();
        names.dedup();
        return Err(Usage(format!("{} has no level {level} (it has: {})", engine.name(), names.join(", "))));
    }
    match modes.iter().find(|mode| has.iter().all(|level| level.setting.mode != **mode)) {
        Some(mode) => Err(Usage(format!("{} has no {mode} mode", engine.name()))),
        None => Ok(()),
    }
}

/// The one mode of a database that has no other; else what was asked for.
fn the_mode(engine: &dyn Engine, asked: Option<Mode>) -> Mode {
    let levels = engine.levels();
    let has = |mode: Mode| levels.iter().any(|level| level.setting.mode == mode);
    asked.unwrap_or(if has(Mode::Optimistic) { Mode::Optimistic } else { Mode::Pessimistic })
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(Verdict::AsDeclared) => ExitCode::SUCCESS,
        Ok(Verdict::Violation) => ExitCode::from(1),
        Ok(Verdict::Inconclusive) => ExitCode::from(4),
        Ok(Verdict::Unreachable) => ExitCode::from(3),
        Err(Usage(message)) => {
            let _ = writeln!(anstream::stderr(), "error: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<Verdict, Usage> {
    let glyphs = if cli.ascii { Glyphs::Ascii } else { Glyphs::Unicode };
    let style = Style { colour: colour(), glyphs };
    match cli.command.unwrap_or_else(|| Command::Run(RunArgs { db: "isolde".to_owned(), ..RunArgs::default() })) {
        Command::Run(args) => run_matrix(&args, style),
        Command::Report(args) => report::run(&args),
        Command::Show(args) => run_show(&args, style),
        Command::List => print(&explain::list(style), None).map(|()| Verdict::AsDeclared),
        Command::Explain { anomaly } => run_explain(&anomaly, style),
        Command::Replay(args) => run_replay(&args, style),
        Command::Explore(args) => explore::run(&args, style),
        Command::Advise(args) => advise::run(&args, style),
        Command::Prove(args) => prove::run(&args, style),
        Command::Mixed(args) => mixed::run(&args, style),
        Command::Fuzz(args) => fuzz::run(&args, style),
        Command::Check(args) => run_check(&args, style),
    }
}

/// Colour for terminals; anstream strips it again where `NO_COLOR` or the terminal asks for that.
fn colour() -> Colour {
    if io::stdout().is_terminal() { Colour::Ansi } else { Colour::Plain }
}

fn run_matrix(args: &RunArgs, style: Style) -> Result<Verdict, Usage> {
    let engine: Box<dyn Engine> = match &args.path {
        Some(path) if args.db == "isolde" => {
            Box::new(Durable::new(path).map_err(|error| Usage(format!("{}: {error}", path.display())))?)
        }
        Some(_) => return Err(Usage("--path is for Isolde: leave out --db".to_owned())),
        None => any_engine(&args.db)?,
    };
    if let Err(why) = engine.reach() {
        return Ok(unreachable(&*engine, &why));
    }
    offered(&*engine, &args.level, &args.mode)?;
    let before = expectations(args, engine.name())?;
    let mut suite = Suite::new(&*engine).expecting(before.clone());
    if !args.level.is_empty() {
        suite = suite.levels(&args.level);
    }
    if !args.mode.is_empty() {
        suite = suite.modes(&args.mode);
    }
    if !args.anomaly.is_empty() {
        suite = suite.anomalies(&args.anomaly)?;
    }
    if args.steps && !matches!(args.format, RunFormat::Json) {
        return Err(Usage("--steps is for --format json".to_owned()));
    }
    let report = suite.run();
    let hazards = hazards(args);
    if args.bless {
        return bless_file(args, &report, &before);
    }
    let style = if args.out.is_some() { Style { colour: Colour::Plain, ..style } } else { style };
    let text = match args.format {
        RunFormat::Table => table::table(&report, hazards.as_ref(), style),
        RunFormat::Json => json::report(&report, hazards.as_ref(), args.detail()),
        RunFormat::Junit => junit::junit(&report, hazards.as_ref()),
        RunFormat::Markdown => markdown::markdown(&report),
    };
    print(&text, args.out.as_deref())?;
    Ok(verdict(&report, hazards.as_ref()))
}

/// Hazards are run when nothing narrower was asked for: they choose their levels and modes themselves.
fn hazards(args: &RunArgs) -> Option<Hazards> {
    let everything = args.level.is_empty() && args.mode.is_empty() && args.anomaly.is_empty();
    (args.db == "isolde" && everything && !args.bless).then(Hazards::run)
}

fn verdict(report: &Report, hazards: Option<&Hazards>) -> Verdict {
    if report.faulty().next().is_some() || hazards.is_some_and(|hazards| hazards.faults() > 0) {
        Verdict::Violation
    } else if report.cells.iter().any(|cell| matches!(cell.trial, Err(ReplayError::Unreachable { .. }))) {
        Verdict::Unreachable
    } else if report.inconclusive().next().is_some() {
        Verdict::Inconclusive
    } else {
        Verdict::AsDeclared
    }
}

fn expectations(args: &RunArgs, db: &str) -> Result<Expectations, Usage> {
    match &args.expect {
        Some(path) if path.exists() || !args.bless => read_expectations(path),
        Some(_) => Ok(Expectations::default()),
        None => Ok(Expectations::of_database(db)),
    }
}

fn read_expectations(path: &Path) -> Result<Expectations, Usage> {
    let text = std::fs::read_to_string(path).map_err(|error| Usage(format!("{}: {error}", path.display())))?;
    Expectations::parse(&text).map_err(|error| Usage(format!("{}: {error}", path.display())))
}

fn bless_file(args: &RunArgs, report: &Report, before: &Expectations) -> Result<Verdict, Usage> {
    if !(args.level.is_empty() && args.mode.is_empty() && args.anomaly.is_empty()) {
        return Err(Usage("--bless writes the whole matrix: leave out --level, --mode and --anomaly".to_owned()));
    }
    let inconclusive: Vec<&str> = report.inconclusive().map(|cell| cell.entry.id).collect();
    if !inconclusive.is_empty() {
        return Err(Usage(format!("nothing is blessed while these are inconclusive: {}", inconclusive.join(", "))));
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("expectations").join(format!("{}.toml", report.db));
    let path = args.expect.clone().unwrap_or(own);
    print(&bless(report, before), Some(&path))?;
    print(&format!("wrote {}: review the difference\n", path.display()), None)?;
    Ok(Verdict::AsDeclared)
}

fn run_show(args: &ShowArgs, style: Style) -> Result<Verdict, Usage> {
    let engine = any_engine(&args.db)?;
    if let Err(why) = engine.reach() {
        return Ok(unreachable(&*engine, &why));
    }
    let mode = the_mode(&*engine, args.mode);
    offered(&*engine, &[args.level], &[mode])?;
    let declared = Expectations::of_database(engine.name());
    let suite = || Ok::<_, Usage>(Suite::new(&*engine).expecting(declared.clone()).anomaly(&args.anomaly)?);
    let report = suite()?.levels(&[args.level]).modes(&[mode]).run();
    let elsewhere = suite()?.run();
    for cell in &report.cells {
        print(&show::show(&report, cell, &elsewhere, style), None)?;
    }
    Ok(verdict(&report, None))
}

fn run_explain(name: &str, style: Style) -> Result<Verdict, Usage> {
    let entry = find(name)?;
    let report = Suite::new(engine("isolde")?).anomaly(entry.id)?.run();
    print(&explain::explain(entry, &report, style), None)?;
    Ok(Verdict::AsDeclared)
}

fn run_replay(args: &ReplayArgs, style: Style) -> Result<Verdict, Usage> {
    let engine = any_engine(&args.db)?;
    if let Err(why) = engine.reach() {
        return Ok(unreachable(&*engine, &why));
    }
    let setting = Setting { isolation: args.level, mode: the_mode(&*engine, args.mode) };
    offered(&*engine, &[setting.isolation], &[setting.mode])?;
    let style = if args.out.is_some() { Style { colour: Colour::Plain, ..style } } else { style };
    let (mut text, mut worst) = (String::new(), Verdict::AsDeclared);
    for (number, path) in args.files.iter().enumerate() {
        let name = path.display().to_string();
        let schedule = read_schedule(path)?;
        match trial(&*engine, &schedule, setting) {
            Ok(trial) => {
                if trial.is_violation() {
                    worst = Verdict::Violation;
                }
                text.push_str(if number > 0 && args.format == ReplayFormat::Text { "\n" } else { "" });
                text.push_str(&match args.format {
                    ReplayFormat::Text => show::replayed(&name, &schedule, &trial, style),
                    ReplayFormat::Json => json::replay(&name, &schedule, &trial),
                });
            }
            Err(error) => {
                let _ = writeln!(anstream::stderr(), "{name}: {error}");
                worst = if worst == Verdict::AsDeclared { Verdict::Inconclusive } else { worst };
            }
        }
    }
    print(&text, args.out.as_deref())?;
    Ok(worst)
}

fn run_check(args: &CheckArgs, style: Style) -> Result<Verdict, Usage> {
    let style = if args.out.is_some() { Style { colour: Colour::Plain, ..style } } else { style };
    let model = match (args.model, args.without_real_time) {
        (None, false) => None,
        (isolation, false) => isolation.map(history::Model::of),
        (isolation, true) => Some(history::Model::of(isolation.unwrap_or_default()).without_real_time()),
    };
    let (mut text, mut worst) = (String::new(), Verdict::AsDeclared);
    for (number, path) in args.files.iter().enumerate() {
        let name = path.display().to_string();
        let checked = checked(&name, &read_text(path)?, args.from, model);
        let checked = checked.map_err(|error| Usage(format!("{name}: {error}")))?;
        worst = match (checked.verdict(), worst) {
            (history::Verdict::Violated, _) | (_, Verdict::Violation) => Verdict::Violation,
            (history::Verdict::Unknown, _) => Verdict::Inconclusive,
            (history::Verdict::Holds, worst) => worst,
        };
        text.push_str(if number > 0 && args.format == ReplayFormat::Text { "\n" } else { "" });
        text.push_str(&match args.format {
            ReplayFormat::Text => checked.to_text(style),
            ReplayFormat::Json => checked.to_json(),
        });
    }
    print(&text, args.out.as_deref())?;
    Ok(worst)
}

fn read_schedule(path: &Path) -> Result<Schedule, Usage> {
    Schedule::parse(&read_text(path)?).map_err(|error| Usage(format!("{}: {error}", path.display())))
}

/// The text of a file, or of standard input.
fn read_text(path: &Path) -> Result<String, Usage> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    let name = path.display();
    let bytes = bytes.map_err(|error| Usage(format!("{name}: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Usage(format!("{name}: line {line}: expected text in UTF-8"))
    })
}

fn print(text: &str, out: Option<&Path>) -> Result<(), Usage> {
    match out {
        Some(path) => std::fs::write(path, text).map_err(|error| Usage(format!("{}: {error}", path.display()))),
        None => match anstream::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(Usage::from),
        },
    }
}
