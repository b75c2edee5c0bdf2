//! Assertions for tests of one's own service.

/// Panics, with the explanation, unless a history is serializable.
///
/// ```
/// use isolde_history::{History, assert_serializable};
/// assert_serializable!(History::default());
/// ```
#[macro_export]
macro_rules! assert_serializable {
    ($history:expr) => {{
        let report = $crate::check(&$history);
        assert!(report.is_serializable(), "not serializable:\n{report}");
    }};
}

/// Panics, with the explanation, unless every transaction of a history got what its own level
/// promises, whatever the levels of the others.
///
/// ```
/// use isolde_history::{History, assert_levels_kept};
/// assert_levels_kept!(History::default());
/// ```
#[macro_export]
macro_rules! assert_levels_kept {
    ($history:expr) => {{
        let report = $crate::check(&$history);
        assert!(report.keeps_its_levels(), "a promise was broken:\n{report}");
    }};
}

impl std::fmt::Display for crate::Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} committed transactions", self.committed)?;
        for finding in &self.findings {
            writeln!(f, "{} ({}): {}", finding.anomaly.code(), finding.anomaly.title(), finding.words)?;
        }
        for violation in &self.violations {
            writeln!(f, "forbidden {}: {}", violation.anomaly.code(), violation.words)?;
        }
        for words in &self.complaints {
            writeln!(f, "the records contradict themselves: {words}")?;
        }
        self.zombies.iter().try_for_each(|words| writeln!(f, "zombie: {words}"))
    }
}
