//! Expectation files: what each cell of the matrix is declared to be, as data.
//!
//! ```toml
//! schema = 1
//! db = "isolde"
//! levels = ["read-uncommitted", "read-committed", "repeatable-read", "snapshot", "serializable"]
//!
//! [cells.G0]
//! pessimistic = ["blocked", "blocked", "blocked", "blocked", "blocked"]
//! optimistic = ["invisible", "invisible", "invisible", "aborted", "invisible"]
//! [cells.G0.reasons]
//! "snapshot pessimistic" = "blocked, then aborted: the snapshot is older than the first commit"
//! ```
//!
//! A word is `possible`, or how the anomaly is prevented: `blocked`, `aborted`, `deadlock`,
//! `invisible`; `absent` where the database does not have what the schedule needs. What others have
//! published of a database stands beside it, with its source, and is compared as well:
//!
//! ```toml
//! [[published]]
//! source = "who published it, and where"
//! levels = ["read-committed", "serializable"]
//! cells = { G0 = ["prevented", "prevented"], P4 = ["possible", "prevented"] }
//! ```
//!
//! A reason says why a cell is what it is, where one could wonder. `run --bless` writes
//! what came out, and keeps the reasons of cells that did not change; the difference is reviewed like
//! code.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use isolde_history::schedule::Setting;
use isolde_types::{Isolation, Mode};
use serde::Deserialize;

use crate::suite::Report;
use crate::verdict::Outcome;

/// What a cell is declared to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declared {
    /// The verdict.
    pub outcome: Outcome,
    /// Why, where one could wonder.
    pub reason: Option<String>,
    /// What others have published of it.
    pub published: Option<Published>,
}

/// What somebody has published of a cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// Who, and where.
    pub source: String,
    /// `possible` or `prevented`.
    pub outcome: String,
}

/// The declarations of one database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expectations {
    cells: BTreeMap<(String, &'static str, &'static str), Declared>,
    published: Vec<PublishedRows>,
}

/// What is wrong with an expectation file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExpectationError {
    /// It is no TOML, or not of this shape.
    #[error("{0}")]
    Shape(String),
    /// A word means nothing here.
    #[error("{place}: `{word}` is not one of {expected}")]
    Word {
        /// Where it stands.
        place: String,
        /// The word.
        word: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A row has more or fewer cells than there are levels.
    #[error("{place}: {found} cells for {levels} levels")]
    Length {
        /// Where it stands.
        place: String,
        /// The number of cells.
        found: usize,
        /// The number of levels.
        levels: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    #[serde(rename = "db")]
    _db: String,
    levels: Vec<String>,
    #[serde(default)]
    published: Vec<PublishedRows>,
    cells: BTreeMap<String, Row>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishedRows {
    source: String,
    levels: Vec<String>,
    cells: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(default)]
    pessimistic: Vec<String>,
    #[serde(default)]
    optimistic: Vec<String>,
    #[serde(default)]
    reasons: BTreeMap<String, String>,
}

const WORDS: &str = "possible, blocked, aborted, deadlock, invisible, absent";
const PUBLISHED_WORDS: &str = "possible, prevented";
/// The word of a cell that the database does not have.
const ABSENT: &str = "absent";
const LEVELS: &str = "read-uncommitted, read-committed, repeatable-read, snapshot, serializable";
const PLACES: &str = "LEVEL MODE of the row";

impl Expectations {
    /// What Isolde is declared to do, as it comes with the suite.
    #[must_use]
    pub fn isolde() -> Expectations {
        let text = include_str!("../expectations/isolde.toml");
        Expectations::parse(text).unwrap_or_else(|error| panic!("expectations/isolde.toml: {error}"))
    }

    /// What a database of this name is declared to do, as it comes with the suite; nothing for others.
    #[must_use]
    pub fn of_database(name: &str) -> Expectations {
        let text = match name {
            "isolde" => return Expectations::isolde(),
            "sqlite" => include_str!("../expectations/sqlite.toml"),
            "postgres" => include_str!("../expectations/postgres.toml"),
            "mysql" => include_str!("../expectations/mysql.toml"),
            "redb" => include_str!("../expectations/redb.toml"),
            "fjall" => include_str!("../expectations/fjall.toml"),
            "surrealmx" => include_str!("../expectations/surrealmx.toml"),
            _ => return Expectations::default(),
        };
        Expectations::parse(text).unwrap_or_else(|error| panic!("expectations/{name}.toml: {error}"))
    }

    /// Reads an expectation file.
    ///
    /// # Errors
    /// When it is no TOML, of another shape, or has words that mean nothing here.
    pub fn parse(text: &str) -> Result<Expectations, ExpectationError> {
        let file: File = toml::from_str(text).map_err(|error| ExpectationError::Shape(error.to_string()))?;
        if file.schema != 1 {
            return Err(ExpectationError::Shape(format!("schema {} is not known, 1 is", file.schema)));
        }
        let levels: Result<Vec<Isolation>, _> = file.levels.iter().map(|word| level(word)).collect();
        let (levels, mut expectations) = (levels?, Expectations::default());
        for (id, row) in &file.cells {
            expectations.add(id, row, &levels)?;
        }
        for rows in &file.published {
            expectations.add_published(rows)?;
        }
        expectations.published = file.published;
        Ok(expectations)
    }

    /// What a cell is declared to be.
    #[must_use]
    pub fn of(&self, id: &str, setting: Setting) -> Option<Declared> {
        self.cells.get(&(id.to_owned(), setting.isolation.name(), setting.mode.name())).cloned()
    }

    fn add(&mut self, id: &str, row: &Row, levels: &[Isolation]) -> Result<(), ExpectationError> {
        for (mode, words) in [(Mode::Pessimistic, &row.pessimistic), (Mode::Optimistic, &row.optimistic)] {
            let place = format!("cells.{id}.{mode}");
            if !words.is_empty() && words.len() != levels.len() {
                return Err(ExpectationError::Length { place, found: words.len(), levels: levels.len() });
            }
            for (isolation, word) in levels.iter().zip(words) {
                if word == ABSENT {
                    continue;
                }
                let outcome = Outcome::from_declaration(word);
                let wrong = || ExpectationError::Word { place: place.clone(), word: word.clone(), expected: WORDS };
                let declared = Declared { outcome: outcome.ok_or_else(wrong)?, reason: None, published: None };
                self.cells.insert((id.to_owned(), isolation.name(), mode.name()), declared);
            }
        }
        row.reasons.iter().try_for_each(|(place, reason)| self.add_reason(id, place, reason))
    }

    /// Says of every declared cell, in both modes, what was published of it.
    fn add_published(&mut self, rows: &PublishedRows) -> Result<(), ExpectationError> {
        let levels: Result<Vec<Isolation>, _> = rows.levels.iter().map(|word| level(word)).collect();
        let levels = levels?;
        for (id, words) in &rows.cells {
            let place = format!("published.{id}");
            if words.len() != levels.len() {
                return Err(ExpectationError::Length { place, found: words.len(), levels: levels.len() });
            }
            for (isolation, word) in levels.iter().zip(words) {
                if !["possible", "prevented"].contains(&word.as_str()) {
                    return Err(ExpectationError::Word { place, word: word.clone(), expected: PUBLISHED_WORDS });
                }
                let published = Published { source: rows.source.clone(), outcome: word.clone() };
                for mode in Mode::ALL {
                    if let Some(cell) = self.cells.get_mut(&(id.clone(), isolation.name(), mode.name())) {
                        cell.published = Some(published.clone());
                    }
                }
            }
        }
        Ok(())
    }

    fn add_reason(&mut self, id: &str, place: &str, reason: &str) -> Result<(), ExpectationError> {
        let names = place.split_once(' ').and_then(|(level, mode)| {
            Some((level.parse::<Isolation>().ok()?.name(), mode.parse::<Mode>().ok()?.name()))
        });
        let cell = names.and_then(|(level, mode)| self.cells.get_mut(&(id.to_owned(), level, mode)));
        let cell = cell.ok_or_else(|| ExpectationError::Word {
            place: format!("cells.{id}.reasons"),
            word: place.to_owned(),
            expected: PLACES,
        })?;
        cell.reason = Some(reason.to_owned());
        Ok(())
    }
}

fn level(word: &str) -> Result<Isolation, ExpectationError> {
    let wrong = || ExpectationError::Word { place: "levels".to_owned(), word: word.to_owned(), expected: LEVELS };
    word.parse().map_err(|_| wrong())
}

/// The expectation file that declares what came out, with the reasons of cells that did not change, and
/// with what was published.
#[must_use]
pub fn bless(report: &Report, before: &Expectations) -> String {
    let mut text = String::from(HEAD);
    let offers = |level: &Isolation| report.settings.iter().any(|setting| setting.isolation == *level);
    let levels: Vec<Isolation> = Isolation::ALL.into_iter().filter(offers).collect();
    let names = quoted(levels.iter().map(|level| level.name()));
    let _ = writeln!(text, "schema = 1\ndb = \"{}\"\nlevels = [{names}]", report.db);
    before.published.iter().for_each(|rows| bless_published(&mut text, rows));
    for entry in report.entries() {
        let _ = writeln!(text, "\n[cells.{}]", entry.id);
        for mode in Mode::ALL {
            let word = |level: &Isolation| {
                let cell = report.row(entry).find(|cell| cell.setting == Setting { isolation: *level, mode });
                cell.and_then(crate::suite::Cell::outcome).map_or(ABSENT, Outcome::declaration)
            };
            if report.settings.iter().any(|setting| setting.mode == mode) {
                let _ = writeln!(text, "{mode} = [{}]", quoted(levels.iter().map(word)));
            }
        }
        bless_reasons(&mut text, report, entry);
    }
    text
}

fn quoted<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

fn bless_published(text: &mut String, rows: &PublishedRows) {
    let source = toml::Value::String(rows.source.clone());
    let levels = quoted(rows.levels.iter().map(String::as_str));
    let _ = writeln!(text, "\n[[published]]\nsource = {source}\nlevels = [{levels}]\n[published.cells]");
    for (id, words) in &rows.cells {
        let _ = writeln!(text, "{id} = [{}]", quoted(words.iter().map(String::as_str)));
    }
}

fn bless_reasons(text: &mut String, report: &Report, entry: &'static crate::catalogue::Entry) {
    let reason = |cell: &crate::suite::Cell| {
        let declared = cell.declared.as_ref().filter(|declared| cell.outcome() == Some(declared.outcome))?;
        let reason = declared.reason.clone()?;
        Some((format!("{} {}", cell.setting.isolation, cell.setting.mode), reason))
    };
    let reasons: Vec<(String, String)> = report.row(entry).filter_map(reason).collect();
    if !reasons.is_empty() {
        let _ = writeln!(text, "[cells.{}.reasons]", entry.id);
    }
    for (place, reason) in reasons {
        let _ = writeln!(text, "\"{place}\" = {}", toml::Value::String(reason));
    }
}

const HEAD: &str = "\
# What each anomaly is declared to do at each level and mode: `possible`, or how it is prevented.
# `anomaly-suite run` fails when a cell comes out otherwise; `anomaly-suite run --bless` rewrites this
# file. Verdicts are computed from histories that ran, never from this file.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Mechanism;

    #[test]
    fn every_cell_of_the_catalogue_is_declared() {
        let expectations = Expectations::isolde();
        for entry in crate::catalogue::all() {
            for isolation in Isolation::ALL {
                for mode in Mode::ALL {
                    let setting = Setting { isolation, mode };
                    assert!(expectations.of(entry.id, setting).is_some(), "{} at {isolation} {mode}", entry.id);
                }
            }
        }
        assert_eq!(expectations.cells.len(), crate::catalogue::all().len() * 10, "a row for no anomaly");
    }

    #[test]
    fn what_is_declared_and_published_of_other_databases_names_known_anomalies() {
        for db in ["sqlite", "postgres", "mysql", "redb", "fjall", "surrealmx"] {
            let expectations = Expectations::of_database(db);
            let known = |id: &str| crate::catalogue::all().iter().any(|entry| entry.id == id);
            assert!(expectations.cells.keys().all(|(id, ..)| known(id)), "{db}");
            assert!(!expectations.published.is_empty(), "{db} names no source");
            for rows in &expectations.published {
                assert!(rows.cells.keys().all(|id| known(id)), "{db}: {}", rows.source);
            }
            assert!(expectations.cells.values().any(|declared| declared.published.is_some()), "{db}");
        }
    }

    #[test]
    fn words_that_mean_nothing_are_refused_with_their_place() {
        let file = |levels: &str, row: &str| format!("schema = 1\ndb = \"t\"\nlevels = [{levels}]\n[cells.G0]\n{row}");
        let error = |text: String| Expectations::parse(&text).unwrap_err().to_string();
        assert!(error(file("\"snapshot\"", "optimistic = [\"maybe\"]")).starts_with("cells.G0.optimistic: `maybe` is"));
        assert!(error(file("\"snap\"", "")).starts_with("levels: `snap` is not one of read-uncommitted"));
        assert!(error(file("", "optimistic = [\"aborted\"]")).contains("1 cells for 0 levels"));
        assert!(error(file("", "reasons = { \"snapshot optimistic\" = \"r\" }")).contains("LEVEL MODE of the row"));
        assert!(error(file("", "colour = 1")).contains("colour"));
        let published = "[[published]]\nsource = \"s\"\nlevels = [\"snapshot\"]\ncells = { G0 = [\"blocked\"] }\n";
        let file = format!("schema = 1\ndb = \"t\"\nlevels = [\"snapshot\"]\n{published}[cells]\n");
        assert!(error(file).starts_with("published.G0: `blocked` is not one of possible, prevented"));
    }

    #[test]
    fn a_word_declares_a_verdict() {
        assert_eq!(Outcome::from_declaration("deadlock"), Some(Outcome::Prevented(Mechanism::Deadlock)));
        assert_eq!(Outcome::from_declaration("prevented"), None);
    }
}
