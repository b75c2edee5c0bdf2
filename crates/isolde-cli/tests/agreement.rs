//! A look and an open say the same of a damaged database: both refuse it, or both find the same rows.

mod tool;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use isolde::Ts;
use isolde_wal::{RealFs, Redo};
use tool::{Folder, contents};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Gather(Mutex<Rows>);

impl Redo for Gather {
    fn apply(&self, key: &[u8], value: Option<&[u8]>, _ts: Ts) {
        let mut rows = self.0.lock().unwrap();
        match value {
            Some(value) => rows.insert(key.to_vec(), value.to_vec()),
            None => rows.remove(key),
        };
    }
}

fn looked_at(dir: &Path) -> Option<Rows> {
    let gather = Gather::default();
    let inspection = isolde_wal::inspect(&RealFs::open(dir, false).unwrap(), &gather).ok()?;
    inspection.faults.is_empty().then(|| gather.0.into_inner().unwrap())
}

fn opened(dir: &Path) -> Option<Rows> {
    let db = isolde::Db::builder().path(dir).log_segment_bytes(64 << 10).open().ok()?;
    let row =
        |row: isolde::Result<(isolde::RowKey, isolde::Bytes)>| row.map(|(key, value)| (key.to_vec(), value.to_vec()));
    Some(db.snapshot().unwrap().scan(..).map(row).collect::<Result<_, _>>().unwrap())
}

/// Where a file has something to lose: not the zeros at the end of a segment.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Flips some bits of a database, one at a time; gives how often it was refused, and how often not.
fn flip_some(folder: &Folder, files: &BTreeMap<PathBuf, Vec<u8>>, random: &mut fastrand::Rng) -> (u32, u32) {
    let whole: Vec<(&PathBuf, &Vec<u8>)> = files.iter().filter(|(_, bytes)| used(bytes) > 0).collect();
    let (mut refused, mut fine) = (0, 0);
    for round in 0..100 {
        let dir = folder.path(&format!("broken-{}-{round}", random.u64(..)));
        std::fs::create_dir(&dir).unwrap();
        let (victim, bytes) = whole[random.usize(..whole.len())];
        let (at, bit) = (random.usize(..used(bytes)), 1 << random.u8(..8));
        for (path, bytes) in files {
            let mut bytes = bytes.clone();
            if path == victim {
                bytes[at] ^= bit;
            }
            std::fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
        }
        let before = contents(&dir);
        let looked_at = looked_at(&dir);
        assert_eq!(contents(&dir), before, "a look changes nothing");
        let opened = opened(&dir);
        assert_eq!(looked_at, opened, "{} at byte {at}, bit {bit:#x}", victim.display());
        if opened.is_some() {
            fine += 1
        } else {
            refused += 1
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
    (refused, fine)
}

#[test]
fn a_look_and_an_open_agree_on_flipped_bits() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Folder::new();
    folder.make("closed");
    let closed = contents(&folder.path("closed"));
    assert_eq!(looked_at(&folder.path("closed")).map(|rows| rows.len()), Some(32));
    let (refused, _) = flip_some(&folder, &closed, &mut random);
    assert!(refused > 0);

    // One whose process has ended without closing it: its newest commits are not proven.
    let db = folder.open("closed");
    db.put("row/29", "again").unwrap();
    db.delete("empty").unwrap();
    let ended = contents(&folder.path("closed"));
    drop(db);
    let (refused, fine) = flip_some(&folder, &ended, &mut random);
    assert!(refused > 0 && fine > 0, "{refused} {fine}");
}
