//! Other databases: what this build has of them, and what it says of the rest.

use std::process::Command;

/// Runs the command line; its exit code, and what it printed on both streams.
fn suite(args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_anomaly-suite")).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn an_unknown_database_is_refused_with_a_suggestion() {
    let (code, text) = suite(&["run", "--db", "sqlte"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("did you mean `sqlite`?"), "{text}");
}

#[cfg(not(feature = "sqlite"))]
#[test]
fn a_database_that_was_not_built_names_its_feature() {
    let (code, text) = suite(&["run", "--db", "sqlite"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--features sqlite"), "{text}");
}

/// Every cell of a database that needs no server is as declared, and as published.
#[cfg(any(feature = "sqlite", feature = "redb", feature = "fjall", feature = "surrealmx"))]
fn is_as_declared(db: &str) {
    let (code, text) = suite(&["run", "--db", db]);
    assert!(code == 0 && text.contains("all cells as declared"), "exit {code}\n{text}");
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;

    #[test]
    fn every_cell_is_as_declared() {
        is_as_declared("sqlite");
    }

    #[test]
    fn a_level_that_it_does_not_have_is_absent() {
        let (code, text) = suite(&["run", "--db", "sqlite", "--level", "snapshot"]);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("sqlite has no level snapshot (it has: serializable)"), "{text}");
    }

    #[test]
    fn an_operation_that_it_does_not_have_makes_the_cell_absent() {
        let (code, text) = suite(&["run", "--db", "sqlite", "--anomaly", "P4-for-update", "--format", "json"]);
        assert_eq!(code, 0, "{text}");
        assert_eq!(text.matches("\"outcome\":\"absent\"").count(), 2, "{text}");
    }

    #[test]
    fn what_comes_out_otherwise_than_published_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wrong.toml");
        let declared = "schema = 1\ndb = \"sqlite\"\nlevels = [\"serializable\"]\n";
        let published =
            "[[published]]\nsource = \"a book\"\nlevels = [\"serializable\"]\ncells = { G0 = [\"possible\"] }\n";
        let cells = "[cells.G0]\npessimistic = [\"blocked\"]\noptimistic = [\"blocked\"]\n";
        std::fs::write(&file, [declared, published, cells].concat()).unwrap();
        let (code, text) = suite(&["run", "--db", "sqlite", "--anomaly", "G0", "--expect", file.to_str().unwrap()]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("a book says possible, came out prevented, by blocking"), "{text}");
    }

    #[test]
    fn a_schedule_of_ones_own_can_be_replayed() {
        let schedule = concat!(env!("CARGO_MANIFEST_DIR"), "/anomalies/P4.schedule");
        let (code, text) = suite(&["replay", schedule, "--db", "sqlite", "--mode", "pessimistic"]);
        assert!(code == 0 && text.contains("deadlock"), "exit {code}\n{text}");
    }
}

#[cfg(feature = "redb")]
#[test]
fn every_cell_of_redb_is_as_declared() {
    is_as_declared("redb");
}

#[cfg(feature = "fjall")]
#[test]
fn every_cell_of_fjall_is_as_declared() {
    is_as_declared("fjall");
}

#[cfg(feature = "surrealmx")]
#[test]
fn every_cell_of_surrealmx_is_as_declared() {
    is_as_declared("surrealmx");
}

#[cfg(feature = "postgres")]
#[test]
fn a_server_that_is_not_there_is_exit_code_3() {
    let (code, text) = suite(&["run", "--db", "postgres://nobody@127.0.0.1:1/nothing"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("postgres cannot be reached"), "{text}");
}

#[cfg(feature = "mysql")]
#[test]
fn a_mariadb_that_is_not_there_is_exit_code_3() {
    let (code, text) = suite(&["run", "--db", "mysql://nobody@127.0.0.1:1/nothing"]);
    assert_eq!(code, 3, "{text}");
}

/// What `fuzz` says of an address that it cannot use, before it asks anybody.
#[test]
fn fuzz_refuses_a_level_without_a_server_and_an_address_that_is_none() {
    let (code, text) = suite(&["fuzz", "--level", "serializable", "--cases", "1"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--level is for the servers"), "{text}");
    let (code, text) = suite(&["fuzz", "--db", "oracle://here", "--cases", "1"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("there is no database `oracle://here`"), "{text}");
}

#[cfg(not(feature = "mysql"))]
#[test]
fn fuzz_of_nodes_that_were_not_built_names_the_feature() {
    let (code, text) = suite(&["fuzz", "--db", "mysql://a@127.0.0.1:1/s,mysql://a@127.0.0.1:2/s", "--cases", "1"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--features mysql"), "{text}");
}

#[cfg(feature = "mysql")]
#[test]
fn fuzz_of_a_server_that_is_not_there_says_so() {
    let (code, text) = suite(&["fuzz", "--db", "mysql://a@127.0.0.1:1/s", "--cases", "1"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("cannot be reached"), "{text}");
}
