//! Which runs would be left in the middle, known before they are run.
//!
//! A run that sleep sets leave ends at a point where everyone who can go on is asleep. Whoever sleeps there was
//! gone down first at an earlier point, and is independent of all that came since; so the same steps *after* his
//! were run before, and who could go on then is remembered.
//!
//! ```text
//!       start          T1 was gone down first, and is independent of T2: it sleeps after T2's step.
//!    T1 /   \ T2       What was seen at (a) says who can go on at (b): T1 itself; whoever waits at (a) only
//!      o     (b)       because T1 has gone, and all others as at (a), but whom T1's step woke still waits.
//!  T2 /              If they all sleep at (b), T2 need not be run to find that out; if one is awake, the
//!   (a)              same is asked of (b) with his step, whose other side lies below (a)
//! ```
//!
//! It needs what sleep sets need: that the two steps are independent, and that the sleeper's aborts nobody. What a
//! step does to others at (b) is what it did at (a), because it is independent of the sleeper's.
//!
//! Builds with debug assertions run what is foreseen to be left all the same, and look whether it is.

use super::MAX_TXNS;
use super::asleep::{Effect, Standing, members};
use super::tree::{Places, Point, Way};

/// How many spots are kept, so that a long exploration takes no more memory than a short one.
const KEPT: usize = 1 << 17;

/// A place in what was seen; 0 is none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Spot(u32);

/// What runs came to: the tree as far as it was gone through.
#[derive(Default)]
pub(super) struct Seen {
    nodes: Vec<Node>,
}

struct Node {
    state: Standing,
    /// Whose step led here, and what it did to others.
    txn: u8,
    effect: Effect,
    /// Other choices at the parent, and choices here.
    next: Spot,
    first: Spot,
}

impl Seen {
    fn node(&self, spot: Spot) -> Option<&Node> {
        self.nodes.get((spot.0 as usize).checked_sub(1)?)
    }

    /// Where a choice led to.
    fn after(&self, spot: Spot, txn: usize) -> Spot {
        let mut child = self.node(spot).map_or(Spot::default(), |node| node.first);
        while let Some(node) = self.node(child) {
            if usize::from(node.txn) == txn {
                return child;
            }
            child = node.next;
        }
        Spot::default()
    }

    /// Enters where a choice leads to, unless that is known.
    fn enter(&mut self, above: Spot, txn: usize, effect: Effect, state: Standing) -> Spot {
        let known = self.after(above, txn);
        if known != Spot::default() {
            return known;
        }
        let spot = Spot(u32::try_from(self.nodes.len() + 1).unwrap_or_default());
        let txn = u8::try_from(txn).unwrap_or_default();
        let mut node = Node { state, txn, effect, next: Spot::default(), first: Spot::default() };
        if let Some(above) = (above.0 as usize).checked_sub(1).and_then(|at| self.nodes.get_mut(at)) {
            node.next = std::mem::replace(&mut above.first, spot);
        }
        self.nodes.push(node);
        spot
    }

    /// Where the steps of sleepers had led to, each taken before the choice at a point.
    pub fn beside(&self, parent: &Point, asleep: u8) -> [Spot; MAX_TXNS] {
        let mut beside = [Spot::default(); MAX_TXNS];
        for txn in members(asleep) {
            beside[txn] = self.after(self.ahead(parent, txn), parent.chosen);
        }
        beside
    }

    /// Where the step of somebody who sleeps or was tried at a point had led to.
    fn ahead(&self, point: &Point, txn: usize) -> Spot {
        if point.tried >> txn & 1 == 1 { self.after(point.spot, txn) } else { point.beside[txn] }
    }
}

impl Way {
    /// Remembers a state that a run has come to.
    pub fn note(&mut self, state: Standing) -> Spot {
        if self.seen.nodes.len() >= KEPT {
            self.seen.nodes.clear();
            for point in &mut self.points {
                (point.spot, point.beside) = (Spot::default(), [Spot::default(); MAX_TXNS]);
            }
        }
        match self.points.last() {
            Some(parent) => self.seen.enter(parent.spot, parent.chosen, parent.effects[parent.chosen], state),
            None => self.seen.enter(Spot::default(), 0, Effect::default(), state),
        }
    }

    /// What the step that is chosen at a point does to others, if all that lies behind it is known to be left.
    /// `places` are those before it.
    pub fn foresee(&mut self, point: &Point, places: &Places) -> Option<Effect> {
        let mut places = *places;
        places[point.chosen] += 1;
        let (effect, mut next) = members(point.known()).find_map(|sleeper| self.beyond(point, sleeper, &places))?;
        next.spot = self.seen.enter(point.spot, point.chosen, effect, next.state);
        self.is_left(next, &places).then_some(effect)
    }

    /// The point that a choice leads to, and what it does to others, as far as it can be told from what was seen
    /// after a sleeper's step.
    fn beyond(&self, point: &Point, sleeper: usize, places: &Places) -> Option<(Effect, Point)> {
        let node = self.seen.node(self.seen.after(self.seen.ahead(point, sleeper), point.chosen))?;
        let effect = node.effect.seen_from(point.state);
        let mut parent = *point;
        parent.effects[point.chosen] = effect;
        let asleep = self.asleep_after(&parent, places);
        if asleep.txns >> sleeper & 1 == 0 {
            return None;
        }
        let mut next = Point::new(node.state.before(sleeper, point.effects[sleeper]), asleep);
        next.beside = self.seen.beside(&parent, asleep.txns);
        Some((effect, next))
    }

    /// Whether every run from a point that was not run to is left.
    fn is_left(&mut self, mut point: Point, places: &Places) -> bool {
        for txn in point.awake() {
            point.chosen = txn;
            let Some(effect) = self.foresee(&point, places) else { return false };
            point.effects[txn] = effect;
            point.tried |= 1 << txn;
        }
        true
    }
}
