//! Seeded faults: one-line breaks of the engine that the tests must notice.
//!
//! `mutant!("name")` is `false` in every ordinary build. In a build with `--cfg mutants` it is true
//! when the environment variable `ISOLDE_MUTANT` holds that name, so that one build serves all
//! faults. The list of names and the script that runs them are described in CONTRIBUTING.md.

/// Whether the named fault is switched on; always `false` without `--cfg mutants`.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        cfg!(mutants) && $crate::mutant::is_active($name)
    };
}

/// Whether `ISOLDE_MUTANT` names this fault; the variable is read once.
#[must_use]
pub fn is_active(name: &str) -> bool {
    use std::sync::OnceLock;
    static ACTIVE: OnceLock<Option<String>> = OnceLock::new();
    ACTIVE.get_or_init(|| std::env::var("ISOLDE_MUTANT").ok()).as_deref() == Some(name)
}
