//! `report`: one or several runs as an HTML page.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Usage, Verdict, any_engine, print, read_text, unreachable};
use crate::expectations::Expectations;
use crate::hazards::Hazards;
use crate::report::html;
use crate::report::json::{Detail, RunDoc};
use crate::suite::Suite;

#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    /// The page to write; without it, it is printed.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// What to run: a database, or a file that `run --format json --steps` wrote.
    #[arg(long, default_value = "isolde")]
    db: String,
    /// What to show beside it, likewise; may be given several times.
    #[arg(long)]
    beside: Vec<String>,
    /// Only these anomalies, by id or another name.
    #[arg(long, value_delimiter = ',')]
    anomaly: Vec<String>,
}

pub(super) fn run(args: &ReportArgs) -> Result<Verdict, Usage> {
    let sources = std::iter::once(&args.db).chain(&args.beside);
    let mut runs = Vec::new();
    for source in sources {
        if !is_file(source) {
            let engine = any_engine(source)?;
            if let Err(why) = engine.reach() {
                return Ok(unreachable(&*engine, &why));
            }
        }
        runs.push(document(source, &args.anomaly)?);
    }
    print(&html::page(&runs), args.out.as_deref())?;
    let cells = || runs.iter().flat_map(|run| &run.cells);
    let faulty = cells().any(|cell| cell.is_faulty()) || runs.iter().any(html::has_faulty_hazard);
    Ok(if faulty {
        Verdict::Violation
    } else if cells().any(|cell| cell.outcome == "inconclusive") {
        Verdict::Inconclusive
    } else {
        Verdict::AsDeclared
    })
}

/// The run of a database, or the one that a file holds.
fn document(source: &str, anomalies: &[String]) -> Result<RunDoc, Usage> {
    if is_file(source) {
        let mut run =
            RunDoc::read(&read_text(Path::new(source))?).map_err(|error| Usage(format!("{source}: {error}")))?;
        if !anomalies.is_empty() {
            let entries: Result<Vec<_>, _> = anomalies.iter().map(|name| crate::suite::find(name)).collect();
            let entries = entries?;
            run.cells.retain(|cell| entries.iter().any(|entry| entry.id == cell.anomaly));
        }
        return Ok(run);
    }
    let engine = any_engine(source)?;
    let isolde = engine.name() == "isolde";
    let declared = Expectations::of_database(engine.name());
    let mut suite = Suite::new(&*engine).expecting(declared);
    if !anomalies.is_empty() {
        suite = suite.anomalies(anomalies)?;
    }
    let hazards = (isolde && anomalies.is_empty()).then(Hazards::run);
    Ok(RunDoc::of(&suite.run(), hazards.as_ref(), Detail::Steps))
}

/// Whether a source names a file that holds a run, and not a database.
fn is_file(source: &str) -> bool {
    let path = Path::new(source);
    path.is_file() || path.extension().is_some_and(|extension| extension == "json")
}
