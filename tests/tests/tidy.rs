//! What a machine can hold of the repository's habits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package").to_path_buf()
}

/// All Rust files of the workspace, with their text.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["crates", "anomaly-suite", "benches", "tests"].iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// Dependencies of each package on packages of the workspace, dev-dependencies included.
fn arrows() -> BTreeMap<String, Vec<String>> {
    let manifests = [
        "crates/isolde",
        "crates/isolde-cli",
        "crates/isolde-history",
        "crates/isolde-locks",
        "crates/isolde-mvcc",
        "crates/isolde-types",
        "crates/isolde-wal",
        "anomaly-suite",
        "benches",
        "tests",
    ];
    let parse = |folder: &str| {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let mut on: Vec<String> = ["dependencies", "dev-dependencies", "build-dependencies"]
            .iter()
            .filter_map(|section| manifest.get(*section)?.as_table())
            .flat_map(|section| section.keys().filter(|key| key.starts_with("isolde")).cloned())
            .collect();
        on.sort();
        on.dedup();
        (name, on)
    };
    manifests.iter().map(|folder| parse(folder)).collect()
}

#[test]
fn crates_depend_on_each_other_only_along_the_arrows() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("isolde-types", &[][..]),
        ("isolde-mvcc", &["isolde-types"][..]),
        ("isolde-locks", &["isolde-types"][..]),
        ("isolde-history", &["isolde-types"][..]),
        ("isolde-wal", &["isolde-types"][..]),
        ("isolde", &["isolde-history", "isolde-locks", "isolde-mvcc", "isolde-types", "isolde-wal"][..]),
        ("isolde-cli", &["isolde", "isolde-wal"][..]),
        ("isolde-tests", &["isolde", "isolde-history", "isolde-types", "isolde-wal"][..]),
        ("anomaly-suite", &["isolde", "isolde-history", "isolde-types"][..]),
        ("isolde-bench", &["isolde", "isolde-history", "isolde-types"][..]),
    ]);
    for (package, on) in arrows() {
        for dependency in on {
            assert!(
                allowed[package.as_str()].contains(&dependency.as_str()),
                "{package} must not depend on {dependency}: see the arrows in ARCHITECTURE.md"
            );
        }
    }
    let isolde = fs::read_to_string(root().join("crates/isolde/Cargo.toml")).unwrap();
    assert!(isolde.contains("isolde-history = { workspace = true, optional = true }"));
}

#[test]
fn every_file_says_what_it_is() {
    for (name, text) in sources() {
        assert!(text.trim_start().starts_with("//!"), "{name} has no `//!` at its top");
    }
}

#[test]
fn only_the_policy_table_knows_levels() {
    let words = ["Isolation::ReadUncommitted", "Isolation::ReadCommitted", "Isolation::RepeatableRead"];
    for (name, text) in sources().iter().filter(|(name, _)| name.starts_with("crates/isolde/src/")) {
        if name.ends_with("/isolation.rs") {
            continue;
        }
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for word in words {
            assert!(!code.contains(word), "{name} names {word}: ask the policy");
        }
        for word in ["isolation ==", "isolation !=", "isolation >", "isolation <", "mode == Mode::P"] {
            assert!(!code.contains(word), "{name} compares levels or modes ({word}): ask the policy");
        }
    }
}

#[test]
fn every_invariant_is_defined_and_cited() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let sources = sources();
    for number in [1, 2, 4, 5, 6, 7, 8, 9] {
        assert!(architecture.contains(&format!("**I{number}**")), "I{number} is not defined in ARCHITECTURE.md");
        let cited = sources.iter().filter(|(name, _)| name.starts_with("crates/")).any(|(_, text)| {
            text.contains(&format!("I{number})"))
                || text.contains(&format!("I{number}:"))
                || text.contains(&format!("I{number},"))
                || text.contains(&format!("I{number}."))
        });
        assert!(cited, "I{number} is cited nowhere in crates/");
    }
}

#[test]
fn unfinished_work_and_sleeping_tests_stay_out() {
    let banned = [
        concat!("dbg", "!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    for (name, text) in sources() {
        for word in banned {
            assert!(!text.contains(word), "{name} contains {word}");
        }
        let is_test = name.contains("/tests/") || name.starts_with("tests/");
        assert!(!(is_test && text.contains(concat!("sleep", "("))), "{name}: tests wait for events, not for time");
    }
}

/// A file over this many lines hides a noun.
const LINES: usize = 600;

#[test]
fn files_stay_short() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES, "{name} has {lines} lines, more than {LINES}");
    }
}
