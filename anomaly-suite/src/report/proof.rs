//! What was proved of the levels, and what each shows.

use std::fmt::Write as _;

use isolde_types::Anomaly;

use super::{Style, Tone, brief, pad, wrap};
use crate::prove::{Extent, LevelProof, Proof, Share};
use crate::verdict::reported_code;

/// The proof as text.
#[must_use]
pub fn proof(proof: &Proof, extent: Extent, style: Style) -> String {
    let mut text = String::new();
    let part = if extent.every > 1 { format!(" (every {}th)", extent.every) } else { String::new() };
    if !proof.is_whole() {
        let _ = writeln!(
            text,
            "{}",
            style.paint("PARTIAL: ended early; all below holds of what was explored, and no more", Tone::Bad)
        );
    }
    let (pairs, triples) = (share(proof.pairs), share(proof.triples));
    let _ = writeln!(
        text,
        "{pairs} pairs{part} and {triples} triples of programs, each at every level in each mode and in both:"
    );
    let seconds = proof.elapsed.as_secs_f64();
    let rate = proof.schedules as f64 / seconds.max(1e-9);
    let threads = if proof.threads == 1 { "thread" } else { "threads" };
    let _ = writeln!(
        text,
        "{} schedules in {seconds:.0} s on {} {threads} ({rate:.0} a second)\n",
        proof.schedules, proof.threads
    );
    let head = format!("{}{}{}", pad("level and mode", 18), pad("sound", 7), "shown, as it does not promise otherwise");
    let _ = writeln!(text, "{}", style.paint(&head, Tone::Strong));
    proof.levels.iter().for_each(|level| text.push_str(&line(level, style)));
    for level in &proof.levels {
        for (what, words) in &level.faults {
            let _ = writeln!(text, "\n{} {}: {what}: {words}", level.setting.isolation, level.setting.mode);
        }
    }
    text
}

fn share(Share { done, all }: Share) -> String {
    if done == all { all.to_string() } else { format!("{done} of {all}") }
}

fn line(level: &LevelProof, style: Style) -> String {
    let codes = |anomalies: &mut dyn Iterator<Item = Anomaly>| {
        let mut codes: Vec<&str> = anomalies.map(reported_code).collect();
        codes.dedup();
        codes.join(", ")
    };
    let mut shown = codes(&mut level.shown.iter().copied());
    if shown.is_empty() {
        shown = "nothing".to_owned();
    }
    if !level.by_catalogue.is_empty() {
        let _ = write!(shown, "; by more transactions {}", codes(&mut level.by_catalogue.iter().copied()));
    }
    let missing = level.not_shown();
    if !missing.is_empty() {
        let _ = write!(shown, "; not shown: {}", codes(&mut missing.into_iter()));
    }
    let (word, tone) = if level.is_sound() { (style.prevented(), Tone::Good) } else { (style.possible(), Tone::Bad) };
    let name = pad(&brief(level.setting), 18);
    let lines = wrap(&shown, &" ".repeat(25));
    format!("{name}{}{}", style.paint(&pad(word, 7), tone), lines.trim_start())
}
