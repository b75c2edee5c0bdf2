//! The suite: chosen anomalies, at chosen levels and modes, against one database.

use isolde_history::schedule::{ReplayError, Setting};
use isolde_types::{Isolation, Mode};

use crate::catalogue::{self, Entry};
use crate::engine::{Engine, Level};
use crate::expectations::{Declared, Expectations};
use crate::verdict::{Outcome, Trial, trial};

/// What to run.
///
/// ```
/// use anomaly_suite::{Control, Outcome, Suite};
///
/// let report = Suite::new(&Control).anomaly("write-skew")?.run();
/// assert!(report.cells.iter().all(|cell| cell.outcome() == Some(Outcome::Possible)));
/// # Ok::<(), anomaly_suite::UnknownName>(())
/// ```
pub struct Suite<'e> {
    engine: &'e dyn Engine,
    levels: Vec<Level>,
    entries: Vec<&'static Entry>,
    expectations: Expectations,
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// The database's name.
    pub db: &'static str,
    /// The database's version.
    pub db_version: String,
    /// The levels and modes that were run, in the order of the matrix.
    pub settings: Vec<Setting>,
    /// The same, as the database calls them.
    pub levels: Vec<Level>,
    /// One cell per anomaly and setting; all of an anomaly stand together.
    pub cells: Vec<Cell>,
}

/// One anomaly at one level and mode.
#[derive(Debug)]
pub struct Cell {
    /// The anomaly.
    pub entry: &'static Entry,
    /// The level and mode.
    pub setting: Setting,
    /// The run and its verdict, or why it could not be run to its end.
    pub trial: Result<Trial, ReplayError>,
    /// What the expectation file says, if it says anything.
    pub declared: Option<Declared>,
}

/// A word that names no anomaly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownName {
    /// The word.
    pub word: String,
    /// A name that looks like it.
    pub suggestion: Option<&'static str>,
}

impl std::fmt::Display for UnknownName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no anomaly `{}`", self.word)?;
        match self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?")?,
            None => f.write_str(";")?,
        }
        f.write_str(" `anomaly-suite list` names them all")
    }
}

impl std::error::Error for UnknownName {}

impl<'e> Suite<'e> {
    /// Every anomaly at every level and mode.
    #[must_use]
    pub fn new(engine: &'e dyn Engine) -> Self {
        Suite {
            engine,
            levels: engine.levels(),
            entries: catalogue::all().iter().collect(),
            expectations: Expectations::default(),
        }
    }

    /// Only these levels (in the order of the matrix, each once).
    #[must_use]
    pub fn levels(mut self, levels: &[Isolation]) -> Self {
        self.levels.retain(|level| levels.contains(&level.setting.isolation));
        self
    }

    /// Only these modes.
    #[must_use]
    pub fn modes(mut self, modes: &[Mode]) -> Self {
        self.levels.retain(|level| modes.contains(&level.setting.mode));
        self
    }

    /// Only this anomaly, by its id or another of its names.
    ///
    /// # Errors
    /// When there is no such anomaly.
    pub fn anomaly(self, name: &str) -> Result<Self, UnknownName> {
        self.anomalies(&[name])
    }

    /// Only these anomalies, in the order of the catalogue.
    ///
    /// # Errors
    /// When there is no such anomaly.
    pub fn anomalies(mut self, names: &[impl AsRef<str>]) -> Result<Self, UnknownName> {
        let chosen: Result<Vec<_>, _> = names.iter().map(|name| find(name.as_ref())).collect();
        let chosen = chosen?;
        self.entries.retain(|entry| chosen.iter().any(|other| other.id == entry.id));
        Ok(self)
    }

    /// What each cell is declared to be.
    #[must_use]
    pub fn expecting(mut self, expectations: Expectations) -> Self {
        self.expectations = expectations;
        self
    }

    /// Runs all of it.
    #[must_use]
    pub fn run(&self) -> Report {
        let settings: Vec<Setting> = self.levels.iter().map(|level| level.setting).collect();
        let cells = self.entries.iter().flat_map(|entry| settings.iter().map(|setting| self.cell(entry, *setting)));
        let (db, db_version) = (self.engine.name(), self.engine.version());
        let cells = cells.collect();
        Report { db, db_version, cells, settings, levels: self.levels.clone() }
    }

    fn cell(&self, entry: &'static Entry, setting: Setting) -> Cell {
        let trial = trial(self.engine, &entry.schedule, setting);
        Cell { entry, setting, trial, declared: self.expectations.of(entry.id, setting) }
    }
}

/// The anomaly of a name.
///
/// # Errors
/// When there is none; the error suggests one that looks like it.
pub fn find(name: &str) -> Result<&'static Entry, UnknownName> {
    catalogue::find(name).ok_or_else(|| {
        let names = catalogue::all().iter().flat_map(Entry::names);
        UnknownName { word: name.to_owned(), suggestion: crate::suggest::closest(name, names) }
    })
}

impl Cell {
    /// The verdict, if there is one.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.trial.as_ref().ok().and_then(|trial| trial.outcome)
    }

    /// Whether the database does not have what the schedule needs: nothing was run.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self.trial, Err(ReplayError::Lacks { .. }))
    }

    /// What is wrong with this cell, in words; nothing if it is as declared.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let Ok(trial) = &self.trial else { return Vec::new() };
        let mut faults = trial.faults();
        let outcome = self.outcome();
        if outcome == Some(Outcome::Possible) && !trial.permitted {
            faults.push(format!("{} forbids it, and it was shown", self.setting.isolation));
        }
        if let (Some(outcome), Some(declared)) = (outcome, &self.declared)
            && outcome != declared.outcome
        {
            faults.push(format!("declared {}, came out {outcome}", declared.outcome));
        }
        if let (Some(outcome), Some(published)) = (outcome, self.declared.as_ref().and_then(|d| d.published.as_ref()))
            && outcome.word() != published.outcome
        {
            faults.push(format!("{} says {}, came out {outcome}", published.source, published.outcome));
        }
        faults
    }
}

impl Report {
    /// The anomalies that were run, in order.
    #[must_use]
    pub fn entries(&self) -> Vec<&'static Entry> {
        let mut entries: Vec<&'static Entry> = self.cells.iter().map(|cell| cell.entry).collect();
        entries.dedup_by_key(|entry| entry.id);
        entries
    }

    /// The cells of one anomaly, in the order of [`Report::settings`].
    pub fn row<'r>(&'r self, entry: &'r Entry) -> impl Iterator<Item = &'r Cell> {
        self.cells.iter().filter(move |cell| cell.entry.id == entry.id)
    }

    /// The cells that are not as they must be.
    pub fn faulty(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| !cell.faults().is_empty())
    }

    /// The cells that could not be run to their end.
    pub fn inconclusive(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| cell.outcome().is_none() && !cell.is_absent())
    }
}
