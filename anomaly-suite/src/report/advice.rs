//! Which level some programs need, and why no weaker one does.

use std::fmt::Write as _;

use isolde_history::explore::Invariant;
use isolde_history::schedule::Setting;
use isolde_types::Mode;

use super::{Style, Tone, indented, pad, place, spoken, wrap};
use crate::advise::Advice;

/// The advice as text. `costs` are committed transactions a second, in the order of the explorations.
#[must_use]
pub fn advice(file: &str, invariant: &Invariant, advice: &Advice, costs: Option<&[f64]>, style: Style) -> String {
    let mut text = wrap(&format!("{file}: which level keeps `{invariant}`?"), "");
    text.push('\n');
    if let Some(schedule) = &advice.broken_serially {
        text.push_str(&wrap(
            "None can: the invariant is broken even when the transactions run one after the other. Change the \
             programs, or the invariant.",
            "",
        ));
        text.push_str(&indented(schedule));
        return text;
    }
    rows(&mut text, advice, costs, style);
    text.push('\n');
    match advice.weakest() {
        None => text.push_str("No level and mode that was explored to its end keeps it.\n"),
        Some(weakest) => {
            let _ = writeln!(text, "{}", style.paint(&format!("You need {}.", place(weakest)), Tone::Strong));
            for mode in Mode::ALL.into_iter().filter(|mode| *mode != weakest.mode) {
                if let Some(other) = advice.weakest_in(mode) {
                    let _ = writeln!(text, "In {mode} mode: {}.", spoken(other.isolation));
                }
            }
            counterexample(&mut text, advice, weakest, style);
        }
    }
    text
}

fn rows(text: &mut String, advice: &Advice, costs: Option<&[f64]>, style: Style) {
    let head = format!(
        "{}{}schedules  a wrong end in",
        pad("level and mode", 31),
        if costs.is_some() { "commits/s  " } else { "" }
    );
    let _ = writeln!(text, "{}", style.paint(&head, Tone::Strong));
    for (number, (setting, exploration)) in advice.explorations.iter().enumerate() {
        let survey = &exploration.survey;
        let (glyph, tone, word) = match (&survey.broken, exploration.explored.complete) {
            (Some(shown), _) => (style.possible(), Tone::Bad, shown.schedules.to_string()),
            (None, true) => (style.prevented(), Tone::Good, "none".to_owned()),
            (None, false) => ("?", Tone::Odd, "none so far".to_owned()),
        };
        let cost = costs.and_then(|costs| costs.get(number)).map_or(String::new(), |cost| format!("{cost:>9.0}  "));
        let line = format!("{glyph} {}{cost}{:>9}  {word}", pad(&place(*setting), 29), survey.schedules);
        let _ = writeln!(text, "{}", style.paint(&line, tone));
    }
}

fn counterexample(text: &mut String, advice: &Advice, weakest: Setting, style: Style) {
    let Some((weaker, exploration, shown)) = advice.next_weaker(weakest) else { return };
    let title = format!("\nWhat goes wrong at {}:", place(weaker));
    let _ = writeln!(text, "{}", style.paint(&title, Tone::Strong));
    text.push_str(&wrap(&shown.words, "  "));
    text.push_str(&indented(&exploration.schedule(&shown.order)));
}
