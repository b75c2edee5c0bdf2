//! What all interleavings of some programs came to, level by level.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use isolde_history::explore::{Invariant, Outcome, Shown};
use isolde_history::schedule::Setting;
use serde::Serialize;

use super::{Style, Tone, brief, indented, pad, wrap};
use crate::explore::Exploration;
use crate::verdict::reported_code;

/// A table with a line for each level and mode, then the smallest schedules.
#[must_use]
pub fn table(
    file: &str,
    explorations: &[(Setting, Exploration)],
    invariant: Option<&Invariant>,
    style: Style,
) -> String {
    let mut text = wrap(&format!("{file}: every interleaving"), "");
    let head = format!("\n{} {:>9} {:>9} {:>8}  ", pad("level and mode", 16), "schedules", "a second", "outcomes");
    let _ =
        writeln!(text, "{}", style.paint(&format!("{head}{}anomalies", held(invariant, "invariant")), Tone::Strong));
    for (setting, exploration) in explorations {
        line(&mut text, *setting, exploration, invariant, style);
    }
    let left =
        explorations.iter().filter_map(|(setting, exploration)| Some((setting, exploration.explored.next.as_ref()?)));
    let left = left
        .map(|(Setting { isolation, mode }, next)| format!("  --level {isolation} --mode {mode} --resume {next}\n"));
    let left: String = left.collect();
    if !left.is_empty() {
        let _ = write!(text, "stopped at the time limit; go on with\n{left}");
    }
    for (setting, exploration) in explorations {
        details(&mut text, *setting, exploration, explorations.len() == 1, style);
    }
    text
}

/// A column that is there only with an invariant.
fn held(invariant: Option<&Invariant>, word: &str) -> String {
    invariant.map_or(String::new(), |_| pad(word, 11))
}

fn line(text: &mut String, setting: Setting, exploration: &Exploration, invariant: Option<&Invariant>, style: Style) {
    let survey = &exploration.survey;
    let rate = exploration.explored.ran() as f64 / exploration.elapsed.as_secs_f64().max(1e-9);
    let _ = write!(
        text,
        "{} {:>9} {rate:>9.0} {:>8}  ",
        pad(&brief(setting), 16),
        exploration.explored.schedules,
        survey.outcomes.len()
    );
    let (word, tone) = match survey.broken {
        Some(_) => (format!("{} broken", style.possible()), Tone::Bad),
        None => (format!("{} kept", style.prevented()), Tone::Good),
    };
    text.push_str(&style.paint(&held(invariant, &word), tone));
    let codes: BTreeSet<&str> = survey.anomalies.keys().copied().map(reported_code).collect();
    let codes: Vec<&str> = codes.into_iter().collect();
    let _ = writeln!(text, "{}", if codes.is_empty() { "none".to_owned() } else { codes.join(", ") });
}

/// The smallest schedule of whatever must not be; of the anomalies too, if one setting was asked for.
fn details(text: &mut String, setting: Setting, exploration: &Exploration, closely: bool, style: Style) {
    let survey = &exploration.survey;
    let mut show = |what: &str, shown: &Shown| {
        let title = format!("{} at {}, in {} of {} schedules", what, brief(setting), shown.schedules, survey.schedules);
        let _ = writeln!(text, "\n{}", style.paint(&title, Tone::Strong));
        text.push_str(&wrap(&shown.words, "  "));
        text.push_str(&indented(&exploration.schedule(&shown.order)));
    };
    survey.faults.iter().for_each(|(what, shown)| show(&format!("FAULT: {what}"), shown));
    survey.stuck.iter().for_each(|shown| show("FAULT: stuck", shown));
    survey.broken.iter().for_each(|shown| show("the invariant is broken", shown));
    if closely {
        survey.anomalies.iter().for_each(|(anomaly, shown)| show(reported_code(*anomaly), shown));
    }
}

#[derive(Serialize)]
struct Document<'e> {
    schema: u32,
    program: &'e str,
    invariant: Option<String>,
    explorations: Vec<One<'e>>,
}

#[derive(Serialize)]
struct One<'e> {
    level: &'static str,
    mode: &'static str,
    schedules: u64,
    pruned: u64,
    complete: bool,
    /// Where to go on, with `--resume`.
    resume: Option<String>,
    outcomes: Vec<OutcomeJson<'e>>,
    /// By [`Anomaly::code`](isolde_types::Anomaly::code), which tells read skew on keys (`G-single-item`)
    /// from a phantom (`G-single`): under the code that texts use, one of them would be lost.
    anomalies: BTreeMap<&'static str, ShownJson<'e>>,
    faults: BTreeMap<&'e str, ShownJson<'e>>,
    broken: Option<ShownJson<'e>>,
    stuck: Option<ShownJson<'e>>,
}

#[derive(Serialize)]
struct OutcomeJson<'e> {
    txns: &'e [String],
    state: BTreeMap<String, String>,
    #[serde(flatten)]
    shown: ShownJson<'e>,
}

#[derive(Serialize)]
struct ShownJson<'e> {
    schedules: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    words: &'e str,
    schedule: Vec<String>,
}

/// The same as one JSON document, without what differs from run to run.
#[must_use]
pub fn json(file: &str, explorations: &[(Setting, Exploration)], invariant: Option<&Invariant>) -> String {
    let explorations = explorations.iter().map(|(setting, exploration)| one(*setting, exploration)).collect();
    let document = Document { schema: 1, program: file, invariant: invariant.map(ToString::to_string), explorations };
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn one(setting: Setting, exploration: &Exploration) -> One<'_> {
    let survey = &exploration.survey;
    let shown = |shown| shown_json(exploration, shown);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let state = |outcome: &Outcome| outcome.final_state.iter().map(|(key, value)| (text(key), text(value))).collect();
    One {
        level: setting.isolation.name(),
        mode: setting.mode.name(),
        schedules: exploration.explored.schedules,
        pruned: exploration.explored.pruned,
        complete: exploration.explored.complete,
        resume: exploration.explored.next.as_ref().map(ToString::to_string),
        outcomes: survey
            .outcomes
            .iter()
            .map(|(one, at)| OutcomeJson { txns: &one.txns, state: state(one), shown: shown(at) })
            .collect(),
        anomalies: survey.anomalies.iter().map(|(anomaly, at)| (anomaly.code(), shown(at))).collect(),
        faults: survey.faults.iter().map(|(what, at)| (what.as_str(), shown(at))).collect(),
        broken: survey.broken.as_ref().map(shown),
        stuck: survey.stuck.as_ref().map(shown),
    }
}

fn shown_json<'e>(exploration: &'e Exploration, shown: &'e Shown) -> ShownJson<'e> {
    let schedule = exploration.schedule(&shown.order);
    let lines = schedule.steps.iter().map(|step| schedule.line(step)).collect();
    ShownJson { schedules: shown.schedules, words: &shown.words, schedule: lines }
}
