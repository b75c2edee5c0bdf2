//! The hazards of concurrency: each shown to happen where nothing prevents it, and resolved by the
//! mechanism that does.
//!
//! Everything runs on one thread under a seeded scheduler that switches after each operation, and
//! counts steps, never time; so every run gives the same figures.

mod programs;
mod scheduler;

use serde_json::{Map, Value};

/// All hazards that were run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hazards(pub Vec<Hazard>);

/// One hazard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hazard {
    /// Its name.
    pub name: &'static str,
    /// What happens where nothing prevents it.
    pub without: Case,
    /// What happens with each mechanism that resolves it.
    pub with: Vec<Case>,
}

/// One run of a hazard's program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// What is in force.
    pub mechanism: String,
    /// What was counted, in order.
    pub counts: Vec<(&'static str, u64)>,
    /// Whether it came out as it must: the hazard shown, or resolved.
    pub as_declared: bool,
}

impl Case {
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
    /// Runs all of them.
    #[must_use]
    pub fn run() -> Hazards {
        Hazards(vec![programs::race(), programs::deadlock(), programs::livelock(), programs::starvation()])
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
            serde_json::json!({"hazard": hazard.name, "without": hazard.without.to_json(), "with": with})
        };
        self.0.iter().map(hazard).collect()
    }
}
