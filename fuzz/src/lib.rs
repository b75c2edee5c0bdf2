//! What the fuzz targets share: checksums made right again, and what must hold of files that open.
//!
//! Behind a checksum a fuzzer sees nothing. So the targets build files whose checksums are right, and
//! whose fields are whatever the fuzzer wants.

#![forbid(unsafe_code)]

use isolde::Db;
use isolde_tests::format::Rows;
use isolde_tests::images::recover;
use isolde_tests::memory::{Files, MemoryFs};

/// Puts the checksum behind the bytes, as a manifest has it.
#[must_use]
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The seed of a checksum: of a record at its place, of a block at its own.
#[must_use]
pub fn seed(numbers: [u64; 4]) -> u32 {
    numbers.iter().fold(0, |seed, number| crc32c::crc32c_append(seed, &number.to_le_bytes()))
}

/// Recovers a directory of any files. What is recovered must be recovered again and again, to the same
/// rows.
///
/// # Panics
/// If that does not hold.
pub fn recover_and_verify(files: &Files) -> Option<Rows> {
    let (rows, last, after) = recover(files).ok()?;
    let (again, last_again, _) = recover(&after).expect("what was recovered is recovered again");
    assert!(rows == again && last == last_again, "recovered twice, it differs");
    Some(rows)
}

/// Opens a directory of any files as a database, which must agree with the log's own reading, and take
/// another commit.
///
/// # Panics
/// If that does not hold.
pub fn open_and_verify(files: &Files) {
    let Some(rows) = recover_and_verify(files) else {
        assert!(open(files).is_err(), "the database opens what its log refuses");
        return;
    };
    let db = open(files).expect("the log opens it");
    assert!(all(&db) == rows, "the database and its log differ");
    db.check().expect("it is sound");
    db.put("one more", "x").expect("it takes a commit");
    assert_eq!(db.get("one more").expect("it is there").as_deref(), Some(&b"x"[..]));
}

fn open(files: &Files) -> isolde::Result<Db> {
    Db::builder().vfs(MemoryFs::new(files)).no_threads().log_segment_bytes(64 << 10).open()
}

fn all(db: &Db) -> Rows {
    let snapshot = db.snapshot().expect("a snapshot can be had");
    let rows = snapshot.scan(..).map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())));
    rows.collect::<Result<_, _>>().expect("a scan ends well")
}
