//! A story drawn as lanes for a terminal: one column per transaction, time downwards.

use std::fmt::Write as _;

use super::story::{Moment, Story, What};
use super::{Style, Tone, WIDTH, pad};

/// One row: something that happened in one lane.
struct Row<'s> {
    moment: &'s Moment,
    text: String,
    tone: Option<Tone>,
}

/// The lanes of a run, with the committed state beside them where there is room.
pub(super) fn timeline(story: &Story, style: Style) -> String {
    let rows: Vec<Row<'_>> = story.moments.iter().map(|moment| row(moment, style)).collect();
    let width = |(number, name): (usize, &str)| {
        let texts = rows.iter().filter(|row| row.moment.lane == number).map(|row| row.text.chars().count());
        texts.chain([name.chars().count()]).max().unwrap_or(0) + 2
    };
    let lanes: Vec<usize> =
        story.lanes.iter().enumerate().map(|(number, lane)| width((number, lane.name.as_str()))).collect();
    let states = rows.iter().filter_map(|row| row.moment.state.as_ref()).map(String::len);
    let room = 6 + lanes.iter().sum::<usize>() + states.max().unwrap_or(0).max(15) <= WIDTH;
    let mut text = String::from("step  ");
    story.lanes.iter().zip(&lanes).for_each(|(lane, width)| text.push_str(&pad(&lane.name, *width)));
    text.push_str(if room { "committed state\n" } else { "\n" });
    if room {
        let _ = writeln!(text, "{}{}", " ".repeat(6 + lanes.iter().sum::<usize>()), story.start);
    }
    for row in &rows {
        let _ = write!(text, "{:>4}  ", row.moment.n);
        for (lane, width) in lanes.iter().enumerate() {
            let here = lane == row.moment.lane;
            let cell = pad(if here { &row.text } else { "" }, *width);
            text.push_str(&row.tone.filter(|_| here).map_or(cell.clone(), |tone| style.paint(&cell, tone)));
        }
        text.push_str(row.moment.state.as_deref().filter(|_| room).unwrap_or_default());
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

fn row<'s>(moment: &'s Moment, style: Style) -> Row<'s> {
    let op = &moment.op;
    let result = |before: &str| moment.result.as_ref().map_or(String::new(), |result| format!("{before}{result}"));
    let arrow = format!(" {} ", style.arrow());
    let (text, tone) = match moment.what {
        What::Done => (format!("{op}{}", result(&arrow)), None),
        What::GoesOn => (format!("{op} goes on{}", result(&arrow)), None),
        What::Waits => (format!("{op} waits{}", result(" for ")), Some(Tone::Odd)),
        What::Refused | What::Aborted => {
            (format!("{op}{}", result(&format!(" {} ", style.possible()))), Some(Tone::Bad))
        }
    };
    Row { moment, text, tone }
}
