//! A folder of databases, and the command line run in it.
#![allow(dead_code, missing_docs, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isolde::Db;
use tempfile::TempDir;

pub fn isolde() -> Command {
    Command::new(env!("CARGO_BIN_EXE_isolde"))
}

pub struct Folder(TempDir);

pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// It ended with this exit code; failures say why, and `isolde:` says who.
    pub fn expect(self, code: i32) -> Said {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        if code == 1 || code == 3 {
            assert!(self.err.starts_with("isolde: "), "{}", self.err);
        }
        self
    }
}

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn open(&self, name: &str) -> Db {
        Db::builder().path(self.path(name)).log_segment_bytes(64 << 10).checkpoint_partition_bytes(400).open().unwrap()
    }

    /// A database with a checkpoint of three partitions as of @31, and after the next open, commits @32
    /// and @33.
    pub fn make(&self, name: &str) {
        let db = self.open(name);
        for n in 0..30 {
            db.put(format!("row/{n:02}"), format!("value {n} {}", "x".repeat(25))).unwrap();
        }
        db.transact(|txn| {
            txn.delete("row/03")?;
            txn.put("empty", "")?;
            txn.put("bytes", [0, 1, 2, 0xff])
        })
        .unwrap();
        db.checkpoint().unwrap();
        db.close().unwrap();
        let db = self.open(name);
        db.put([0, 0xff], "bytes as a key").unwrap();
        db.put("row/29", "changed").unwrap();
        db.close().unwrap();
    }

    pub fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, b"")
    }

    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Said {
        let mut command = isolde();
        command.args(args).current_dir(self.0.path());
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // One that does not read its input closes the pipe: no fault of the test.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub fn stat(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.run(&["stat", name, "--json"]).expect(0).out).unwrap()
    }

    /// The database's files whose names begin so.
    pub fn files(&self, name: &str, prefix: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path(name)).unwrap().map(|entry| entry.unwrap().path());
        let begins = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
        let mut files: Vec<PathBuf> = entries.filter(begins).collect();
        files.sort();
        files
    }
}

/// All files of a directory, with their bytes.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Flips a bit of the byte at `offset`.
pub fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}
