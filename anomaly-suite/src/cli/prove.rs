//! `anomaly-suite prove`.

use clap::Args;
use indicatif::ProgressBar;

use super::{Usage, Verdict, print};
use crate::prove::{Extent, prove};
use crate::report::{Style, proof};

#[derive(Args, Debug)]
pub(super) struct ProveArgs {
    /// A part of it that takes less than two minutes.
    #[arg(long)]
    quick: bool,
    /// How many triples of the sample (default: 100, or 4).
    #[arg(long)]
    triples: Option<usize>,
    /// The seed of the sample of triples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(args: &ProveArgs, style: Style) -> Result<Verdict, Usage> {
    let extent = if args.quick { Extent::QUICK } else { Extent::FULL };
    let extent = Extent { triples: args.triples.unwrap_or(extent.triples), seed: args.seed, ..extent };
    let bar = ProgressBar::new(0);
    let found = prove(extent, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    print(&proof::proof(&found, extent, style), None)?;
    // A part of the programs need not show everything.
    let holds = found.is_sound() && (found.is_sharp() || args.quick);
    Ok(if holds { Verdict::AsDeclared } else { Verdict::Violation })
}
