//! The hazards of a run, as the JSON document holds them.

use serde_json::{Map, Value};

use crate::report::json::RunDoc;

pub(super) struct HazardsView {
    pub db: String,
    pub hazards: Vec<HazardView>,
}

pub(super) struct HazardView {
    pub name: String,
    pub program: String,
    pub cases: Vec<CaseView>,
}

pub(super) struct CaseView {
    pub class: &'static str,
    pub glyph: &'static str,
    pub words: &'static str,
    pub mechanism: String,
    pub counts: String,
}

impl HazardsView {
    /// `None` if they were not run.
    pub fn of(run: &RunDoc) -> Option<HazardsView> {
        let hazards = run.hazards.as_ref()?.iter().map(hazard).collect();
        Some(HazardsView { db: super::named(run), hazards })
    }
}

/// Whether some hazard of a run did not come out as it must.
#[must_use]
pub fn has_faulty(run: &RunDoc) -> bool {
    run.hazards.iter().flatten().flat_map(cases).any(|(case, _)| !as_declared(case))
}

fn hazard(hazard: &Value) -> HazardView {
    let text = |field: &str| hazard[field].as_str().unwrap_or_default().to_owned();
    HazardView {
        name: text("hazard"),
        program: text("program"),
        cases: cases(hazard).map(|(case, resolved)| view(case, resolved)).collect(),
    }
}

/// The case without, then those with a mechanism: whether the hazard must be resolved in it.
fn cases(hazard: &Value) -> impl Iterator<Item = (&Value, bool)> {
    let with = hazard["with"].as_array().into_iter().flatten().map(|case| (case, true));
    std::iter::once((&hazard["without"], false)).chain(with)
}

fn as_declared(case: &Value) -> bool {
    case["as_declared"].as_bool() == Some(true)
}

fn view(case: &Value, resolved: bool) -> CaseView {
    let (class, glyph, words) = match (as_declared(case), resolved) {
        (false, _) => ("odd", "!", "not as it must be"),
        (true, false) => ("bad", "✗", "happens"),
        (true, true) => ("good", "✓", "resolved"),
    };
    let none = Map::new();
    let fields = case.as_object().unwrap_or(&none);
    let counts = fields.iter().filter(|(name, value)| value.is_number() && *name != "as_declared");
    let counts: Vec<String> = counts.map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
    let mechanism = case["mechanism"].as_str().unwrap_or_default().to_owned();
    CaseView { class, glyph, words, mechanism, counts: counts.join(", ") }
}
