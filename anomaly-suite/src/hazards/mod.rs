//! The hazards of concurrency: each shown to happen where nothing prevents it, and resolved by the
//! mechanism that does.
//!
//! | hazard | without | with |
//! | --- | --- | --- |
//! | race condition | read, add, write at read committed: updates are lost | atomic calls, locks, serializable |
//! | deadlock | waiting without end in a circle | each policy of the lock manager, or a timeout |
//! | livelock | bodies that undo each other and begin again at once | pauses, escalation, waiting |
//! | starvation | a writer that must find no reader; a long body that must not be overtaken | queues, age, escalation |
//!
//! All of it runs on one thread, in an order that a fixed seed decides, and counts steps: two runs
//! are equal.

mod crew;
mod deadlock;
mod livelock;
mod race;
mod starvation;

use serde_json::{Map, Value};

/// All hazards that were run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hazards(pub Vec<Hazard>);

/// One hazard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hazard {
    /// Its name; a hazard with two programs is there twice.
    pub name: &'static str,
    /// What runs.
    pub program: &'static str,
    /// What happens where nothing prevents it.
    pub without: Case,
    /// What happens with each mechanism that resolves it.
    pub with: Vec<Case>,
}

/// What was counted, in order: name and number.
pub type Counts = Vec<(&'static str, u64)>;

/// One run of a hazard's program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// What is in force.
    pub mechanism: String,
    /// What was counted, in order.
    pub counts: Counts,
    /// Whether it came out as it must: the hazard shown, or resolved.
    pub as_declared: bool,
}

impl Case {
    fn new(mechanism: &str, counts: Counts, as_declared: bool) -> Case {
        Case { mechanism: mechanism.to_owned(), counts, as_declared }
    }

    /// What was counted, in words.
    #[must_use]
    pub fn measured(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        counts.join(", ")
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("mechanism".to_owned(), self.mechanism.clone().into());
        object.extend(self.counts.iter().map(|(what, count)| (what.replace(' ', "_"), (*count).into())));
        object.insert("as_declared".to_owned(), self.as_declared.into());
        Value::Object(object)
    }
}

impl Hazards {
    /// Runs all of them on Isolde.
    ///
    /// # Panics
    /// When a database in memory cannot be opened or read.
    #[must_use]
    pub fn run() -> Hazards {
        let all = || -> isolde::Result<Vec<Hazard>> {
            let mut hazards = vec![race::run()?, deadlock::run()?];
            hazards.extend(livelock::run()?);
            hazards.extend(starvation::run()?);
            Ok(hazards)
        };
        Hazards(all().unwrap_or_else(|error| panic!("a database in memory can be opened and read: {error}")))
    }

    /// How many runs did not come out as they must.
    #[must_use]
    pub fn faults(&self) -> usize {
        let cases = self.0.iter().flat_map(|hazard| std::iter::once(&hazard.without).chain(&hazard.with));
        cases.filter(|case| !case.as_declared).count()
    }

    /// The `hazards` of the JSON report.
    #[must_use]
    pub fn to_json(&self) -> Vec<Value> {
        let hazard = |hazard: &Hazard| {
            let with: Vec<Value> = hazard.with.iter().map(Case::to_json).collect();
            serde_json::json!({"hazard": hazard.name, "program": hazard.program, "without": hazard.without.to_json(), "with": with})
        };
        self.0.iter().map(hazard).collect()
    }
}

/// The seed of every random order here.
const SEED: u64 = 0x1501de;

fn random() -> crew::Order {
    crew::Order::Random(fastrand::Rng::with_seed(SEED))
}
