//! A story as lanes: a table with a column per transaction, time downwards. A wait is one tall cell
//! from where it begins to where it ends.

use crate::report::story::{Moment, Story, What};

pub(super) struct Lanes {
    pub heads: Vec<LaneHead>,
    pub start: String,
    pub rows: Vec<LaneRow>,
}

pub(super) struct LaneHead {
    pub name: String,
    pub outcome: String,
}

pub(super) struct LaneRow {
    pub n: usize,
    pub cells: Vec<LaneCell>,
}

pub(super) struct LaneCell {
    /// How many rows it takes.
    pub span: usize,
    /// What happens in it.
    pub event: Option<Event>,
    /// Whether its transaction has begun and has not ended.
    pub live: bool,
}

pub(super) struct Event {
    pub class: &'static str,
    pub op: String,
    pub result: String,
    pub state: Option<String>,
}

impl Lanes {
    pub fn of(story: &Story) -> Lanes {
        let head =
            |lane: &crate::report::story::Lane| LaneHead { name: lane.name.clone(), outcome: lane.outcome.clone() };
        Lanes {
            heads: story.lanes.iter().map(head).collect(),
            start: story.start.clone(),
            rows: story.moments.iter().enumerate().map(|(number, moment)| row(story, number, moment)).collect(),
        }
    }
}

fn row(story: &Story, number: usize, moment: &Moment) -> LaneRow {
    let cell = |lane: usize| {
        if lane == moment.lane {
            return Some(LaneCell { span: span(story, number), event: Some(event(moment)), live: true });
        }
        (!waits_through(story, lane, number)).then(|| LaneCell {
            span: 1,
            event: None,
            live: lives(story, lane, number),
        })
    };
    LaneRow { n: moment.n, cells: (0..story.lanes.len()).filter_map(cell).collect() }
}

/// The rows from a wait to its end; one for everything else.
fn span(story: &Story, number: usize) -> usize {
    let moment = &story.moments[number];
    if moment.what != What::Waits {
        return 1;
    }
    let ends = |later: &&Moment| later.n == moment.n;
    let rest = &story.moments[number + 1..];
    rest.iter().position(|later| ends(&later)).unwrap_or(rest.len()) + 1
}

/// Whether a lane's wait, begun in an earlier row, takes this one too.
fn waits_through(story: &Story, lane: usize, number: usize) -> bool {
    let begun = story.moments[..number].iter().rposition(|moment| moment.lane == lane);
    begun.is_some_and(|begun| begun + span(story, begun) > number)
}

fn lives(story: &Story, lane: usize, number: usize) -> bool {
    let here = |moment: &Moment| moment.lane == lane;
    story.moments[..number].iter().any(here) && story.moments[number..].iter().any(here)
}

fn event(moment: &Moment) -> Event {
    let result = moment.result.clone().unwrap_or_default();
    let (class, result) = match moment.what {
        What::Waits if result.is_empty() => ("wait", "waits".to_owned()),
        What::Waits => ("wait", format!("waits for {result}")),
        What::Aborted => ("abort", format!("✗ {result}, aborted")),
        What::Refused => ("refused", format!("✗ {result}")),
        What::Done | What::GoesOn => {
            let class = match moment.op.as_str() {
                "commit" => "commit",
                "rollback" => "rollback",
                _ if moment.op.starts_with("begin") => "begin",
                _ => "step",
            };
            let on = if moment.what == What::GoesOn { "goes on" } else { "" };
            let found = if result.is_empty() { String::new() } else { format!("→ {result}") };
            (class, [on, &found].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "))
        }
    };
    Event { class, op: moment.op.clone(), result, state: moment.state.clone() }
}
