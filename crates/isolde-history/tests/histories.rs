//! Real histories with known verdicts, where a folder of them is at hand.
//!
//! `ISOLDE_HISTORIES` names the folder. It holds data of public collections, which is not part of this
//! project; its files are listed here by name, with their verdicts.

use std::path::PathBuf;

use isolde_history::foreign::{self, Format, Model, Verdict};
use isolde_types::Isolation;

/// What each file must come to at read committed, snapshot and serializable: `h`olds, `v`iolated,
/// `u`nknown; several letters where several are right.
const VERDICTS: [(&str, [&str; 3]); 6] = [
    // A G2 of an old CockroachDB (Cobra's collection).
    ("cockroach-G2.txt", ["h", "h", "v"]),
    // A lost update of MariaDB Galera (PolySI's).
    ("galera.txt", ["h", "v", "v"]),
    // Elle's and elle-cli's examples.
    ("si-without-g-single.edn", ["h", "h", "v"]),
    ("list-append-gh-30.edn", ["h", "h", "v"]),
    ("paper-example.json", ["h", "v", "v"]),
    ("rw-register.edn", ["h", "h", "hu"]),
];

const LEVELS: [Isolation; 3] = [Isolation::ReadCommitted, Isolation::Snapshot, Isolation::Serializable];

#[test]
fn real_histories_come_out_as_they_are_known_to() {
    let Some(folder) = std::env::var_os("ISOLDE_HISTORIES").map(PathBuf::from) else {
        println!("SKIPPED: ISOLDE_HISTORIES names no folder of real histories");
        return;
    };
    if !folder.is_dir() {
        println!("SKIPPED: ISOLDE_HISTORIES={} is no folder", folder.display());
        return;
    }
    for (file, expected) in VERDICTS {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let observed = foreign::read(&text, Format::of(&text)).unwrap();
        for (level, expected) in LEVELS.into_iter().zip(expected) {
            let judgement = observed.judge(Model::of(level));
            let verdict = match judgement.verdict {
                Verdict::Holds => 'h',
                Verdict::Violated => 'v',
                Verdict::Unknown => 'u',
            };
            println!("{file} at {level}: {:?}", judgement.verdict);
            assert!(expected.contains(verdict), "{file} at {level}: {judgement:#?}");
        }
    }
}
