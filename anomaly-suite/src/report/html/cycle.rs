//! A dependency cycle as a drawing: transactions on a circle, an arrow from the one that comes first.

use crate::report::json::EdgeDoc;

pub(super) struct CycleView {
    pub width: i32,
    pub height: i32,
    /// What the drawing shows, for those who do not see it.
    pub words: String,
    pub nodes: Vec<Node>,
    pub edges: Vec<Arrow>,
}

pub(super) struct Node {
    pub x: i32,
    pub y: i32,
    pub name: String,
}

pub(super) struct Arrow {
    pub class: String,
    /// The line, and the head at its end.
    pub line: String,
    pub head: String,
    pub x: i32,
    pub y: i32,
    pub label: String,
    /// The room that the label takes.
    pub room: i32,
}

type Point = (f64, f64);

const RADIUS: f64 = 20.0;
const HEAD: f64 = 9.0;

impl CycleView {
    /// The drawing of the edges; `None` if there are none.
    pub fn of(edges: &[EdgeDoc]) -> Option<CycleView> {
        let mut names: Vec<&str> = Vec::new();
        for name in edges.iter().flat_map(|edge| [edge.from.as_str(), edge.to.as_str()]) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let (centre, places) = match names.len() {
            0 => return None,
            1 => ((160.0, 105.0), vec![(160.0, 105.0)]),
            2 => ((160.0, 65.0), vec![(45.0, 65.0), (275.0, 65.0)]),
            count => ((160.0, 120.0), (0..count).map(|number| on_circle(number, count)).collect()),
        };
        let lowest = places.iter().map(|(_, y)| *y).fold(0.0, f64::max);
        let place = |name: &str| names.iter().position(|known| *known == name).map_or(centre, |number| places[number]);
        let arrow = |edge: &EdgeDoc| arrow(edge, place(&edge.from), place(&edge.to), centre);
        let node = |(name, (x, y)): (&&str, &Point)| Node { x: round(*x), y: round(*y), name: cut(name, 5) };
        let words = |edge: &EdgeDoc| format!("{} before {} ({} {})", edge.from, edge.to, edge.kind, edge.key);
        Some(CycleView {
            width: 320,
            height: round(lowest + if names.len() == 2 { 65.0 } else { 40.0 }),
            words: edges.iter().map(words).collect::<Vec<_>>().join(", "),
            nodes: names.iter().zip(&places).map(node).collect(),
            edges: edges.iter().map(arrow).collect(),
        })
    }
}

fn on_circle(number: usize, count: usize) -> Point {
    let turn = std::f64::consts::TAU * number as f64 / count as f64 - std::f64::consts::FRAC_PI_2;
    (160.0 + 95.0 * turn.cos(), 120.0 + 88.0 * turn.sin())
}

/// A curve that bends away from the centre; of two arrows between the same two, each to its own side.
fn arrow(edge: &EdgeDoc, from: Point, to: Point, centre: Point) -> Arrow {
    let middle = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
    let away = (middle.0 - centre.0, middle.1 - centre.1);
    let bend = if edge.from == edge.to {
        (middle.0, middle.1 - 140.0)
    } else if away.0.abs() + away.1.abs() < 1.0 {
        // To the left of its own direction: there and back are two arcs.
        (middle.0 + (to.1 - from.1) * 0.45, middle.1 - (to.0 - from.0) * 0.45)
    } else {
        (middle.0 + away.0 * 0.75, middle.1 + away.1 * 0.75)
    };
    let loops = if edge.from == edge.to { 60.0 } else { 0.0 };
    let (before, after) = ((bend.0 - loops, bend.1), (bend.0 + loops, bend.1));
    let start = toward(from, before, RADIUS);
    let tip = toward(to, after, RADIUS + 2.0);
    let end = toward(to, after, RADIUS + 2.0 + HEAD);
    let line = format!("M{} C{} {} {}", at(start), at(third(start, before)), at(third(end, after)), at(end));
    let (dx, dy) = ((tip.0 - end.0) / HEAD, (tip.1 - end.1) / HEAD);
    let (left, right) = ((end.0 - dy * 4.5, end.1 + dx * 4.5), (end.0 + dy * 4.5, end.1 - dx * 4.5));
    let label = (
        start.0 / 8.0 + end.0 / 8.0 + 0.375 * (third(start, before).0 + third(end, after).0),
        start.1 / 8.0 + end.1 / 8.0 + 0.375 * (third(start, before).1 + third(end, after).1),
    );
    let text = format!("{} {}", edge.kind, cut(&edge.key, 16));
    Arrow {
        class: edge.kind.chars().filter(char::is_ascii_alphanumeric).collect(),
        line,
        head: format!("M{} L{} L{} Z", at(tip), at(left), at(right)),
        x: round(label.0),
        y: round(label.1) + 4,
        room: text.chars().count() as i32 * 8 + 4,
        label: text,
    }
}

/// Two thirds of the way from an end to the bend: the control point of the same curve as a cubic.
fn third(end: Point, bend: Point) -> Point {
    (end.0 + (bend.0 - end.0) * 2.0 / 3.0, end.1 + (bend.1 - end.1) * 2.0 / 3.0)
}

/// The point at this distance from one point, on the way to another.
fn toward(from: Point, to: Point, distance: f64) -> Point {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx.hypot(dy).max(1.0);
    (from.0 + dx / length * distance, from.1 + dy / length * distance)
}

fn at((x, y): Point) -> String {
    format!("{x:.1} {y:.1}")
}

fn round(number: f64) -> i32 {
    number.round() as i32
}

fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}
