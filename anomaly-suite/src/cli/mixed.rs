//! `anomaly-suite mixed`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use isolde_history::schedule::Setting;

use super::{Usage, Verdict, engine, print};
use crate::mixed::{Sample, mixed};
use crate::report::{self, Colour, Style};

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum MixedFormat {
    #[default]
    Table,
    Json,
    Markdown,
}

#[derive(Args, Debug)]
pub(super) struct MixedArgs {
    /// How to print; Markdown is the document docs/mixed-levels.md.
    #[arg(long, value_enum, default_value_t)]
    format: MixedFormat,
    /// Write to this file instead of the terminal.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Explore this many of the small programs of `prove`, too.
    #[arg(long, default_value_t = 0)]
    sample: usize,
    /// The seed of the sample.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The database: isolde, or control.
    #[arg(long, default_value = "isolde")]
    db: String,
}

pub(super) fn run(args: &MixedArgs, style: Style) -> Result<Verdict, Usage> {
    let style = if args.out.is_some() { Style { colour: Colour::Plain, ..style } } else { style };
    let all: Vec<Setting> = Setting::all().collect();
    let bar = ProgressBar::new((all.len() * all.len()) as u64);
    let sample = Sample { pairs: args.sample, seed: args.seed };
    let contract = mixed(engine(&args.db)?, &all, sample, |done, _| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let text = match args.format {
        MixedFormat::Table => report::mixed::table(&contract, style),
        MixedFormat::Json => report::mixed::json(&contract),
        MixedFormat::Markdown => report::mixed::markdown(&contract),
    };
    print(&text, args.out.as_deref())?;
    Ok(if contract.is_kept() { Verdict::AsDeclared } else { Verdict::Violation })
}
