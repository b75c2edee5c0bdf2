//! A run drawn as lanes: one column per transaction, time downwards.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use isolde_history::schedule::{Action, Operation, Output, Replay, Schedule, StepOutcome, StepReport, Swap};
use isolde_types::{Key, escape_key};

use super::{Style, Tone, WIDTH, pad};
use crate::versions::written_by;

/// One row: something that happened in one lane.
struct Row {
    moment: usize,
    n: usize,
    txn: usize,
    text: String,
    tone: Option<Tone>,
    /// The committed state after it, if it is a commit.
    state: Option<String>,
}

/// The lanes of a run, with the committed state beside them where there is room.
pub(super) fn timeline(schedule: &Schedule, replay: &Replay, style: Style) -> String {
    let mut rows: Vec<Row> = replay.steps.iter().flat_map(|step| rows_of(step, style)).collect();
    rows.sort_by_key(|row| row.moment);
    let start = add_states(schedule, replay, &mut rows);
    let lane = |txn: usize| {
        let texts = rows.iter().filter(|row| row.txn == txn).map(|row| row.text.chars().count());
        texts.chain([schedule.txns[txn].chars().count()]).max().unwrap_or(0) + 2
    };
    let lanes: Vec<usize> = (0..schedule.txns.len()).map(lane).collect();
    let state_width = rows.iter().filter_map(|row| row.state.as_ref()).map(String::len).max().unwrap_or(0);
    let room = 6 + lanes.iter().sum::<usize>() + state_width.max(15) <= WIDTH;
    let mut text = String::from("step  ");
    schedule.txns.iter().zip(&lanes).for_each(|(name, width)| text.push_str(&pad(name, *width)));
    text.push_str(if room { "committed state\n" } else { "\n" });
    if room {
        let _ = writeln!(text, "{}{start}", " ".repeat(6 + lanes.iter().sum::<usize>()));
    }
    for row in &rows {
        let _ = write!(text, "{:>4}  ", row.n);
        for (txn, width) in lanes.iter().enumerate() {
            let cell = pad(if txn == row.txn { &row.text } else { "" }, *width);
            text.push_str(&row.tone.filter(|_| txn == row.txn).map_or(cell.clone(), |tone| style.paint(&cell, tone)));
        }
        text.push_str(row.state.as_deref().filter(|_| room).unwrap_or_default());
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

fn rows_of(step: &StepReport, style: Style) -> Vec<Row> {
    let row = |moment: Option<usize>, text: String, tone: Option<Tone>| {
        moment.map(|moment| Row { moment, n: step.n, txn: step.txn, text, tone, state: None })
    };
    let (result, tone) = result(step, style);
    if step.outcome != StepOutcome::Blocked {
        return row(step.started, format!("{}{result}", step.action), tone).into_iter().collect();
    }
    // Only who: the sentence about what he has stands below the lanes.
    let name = step.waited_for.as_ref().and_then(|whom| whom.split(',').next());
    let whom = name.map_or(String::new(), |name| format!(" for {name}"));
    let waits = row(step.started, format!("{} waits{whom}", step.action), Some(Tone::Odd));
    let verb = if step.failure.is_some() { "" } else { " goes on" };
    let goes_on = row(step.ended, format!("{}{verb}{result}", step.action), tone);
    waits.into_iter().chain(goes_on).collect()
}

/// What a step returned, or how it failed.
fn result(step: &StepReport, style: Style) -> (String, Option<Tone>) {
    if let Some(failure) = &step.failure {
        return (format!(" {} {}", style.possible(), failure.class.name()), Some(Tone::Bad));
    }
    let text = match &step.output {
        None | Some(Output::Done) => String::new(),
        Some(Output::CompareAndSet { swap: Swap::Done, .. }) => format!(" {} set", style.arrow()),
        Some(Output::CompareAndSet { swap: Swap::Refused, found }) => {
            format!(" {} not set, holds {}", style.arrow(), Output::Value(found.clone()))
        }
        Some(output) => format!(" {} {output}", style.arrow()),
    };
    (text, None)
}

/// Writes the committed state beside each commit; returns the one before the first step.
fn add_states(schedule: &Schedule, replay: &Replay, rows: &mut [Row]) -> String {
    let mut state: BTreeMap<Key, Bytes> = schedule.initial.iter().cloned().collect();
    let start = show_state(&state);
    let written = written_by(&replay.history);
    for row in rows {
        let step = &replay.steps[row.n - 1];
        let commits = step.action == Action::Do(Operation::Commit) && step.ended.is_some_and(|m| m <= row.moment + 1);
        if !commits || step.failure.is_some() {
            continue;
        }
        for (key, value) in written.get(&schedule.txns[row.txn]).into_iter().flatten() {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        row.state = Some(show_state(&state));
    }
    start
}

fn show_state(state: &BTreeMap<Key, Bytes>) -> String {
    let pairs: Vec<String> =
        state.iter().map(|(key, value)| format!("{}={}", escape_key(key), value.escape_ascii())).collect();
    if pairs.is_empty() { "(nothing)".to_owned() } else { pairs.join(" ") }
}
