//! What a look finds that every checksum lets through.

use std::sync::Arc;

use isolde_types::{Key, Ts};
use isolde_wal::{Enough, RealFs, Redo, Source, TakeRow, Vfs, WalError, inspect, write_backup};

struct Nothing;

impl Redo for Nothing {
    fn apply(&self, _key: &[u8], _value: Option<&[u8]>, _ts: Ts) {}
}

/// Partitions of these keys; each but the first begins with the key that is named.
struct Parts(Vec<(&'static str, Vec<&'static str>)>, usize);

impl Source for Parts {
    fn partition(&mut self, low: &Key, row: &mut TakeRow<'_>) -> Result<(Ts, Option<Key>), WalError> {
        let (begins, keys) = &self.0[self.1];
        assert_eq!(low, begins.as_bytes());
        for key in keys {
            assert_eq!(row(key.as_bytes(), b"v")?, Enough::No);
        }
        self.1 += 1;
        Ok((Ts(7), self.0.get(self.1).map(|(next, _)| Key::from_static(next.as_bytes()))))
    }
}

/// What a look says of a checkpoint of these partitions: the files that are damaged.
fn damaged(parts: &[(&'static str, &[&'static str])]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealFs::open(folder.path(), false).unwrap());
    let parts = parts.iter().map(|(low, keys)| (*low, keys.to_vec())).collect();
    write_backup(&vfs, &mut Parts(parts, 0)).unwrap();
    let inspection = inspect(&*vfs, &Nothing).unwrap();
    assert_eq!(inspection.last, Ts(7));
    let file = |fault: &WalError| match fault {
        WalError::Corruption { file, what, .. } => {
            assert_eq!(*what, "its rows are out of order, or not of its key range");
            file.to_string()
        }
        other => panic!("{other}"),
    };
    inspection.faults.iter().map(file).collect()
}

#[test]
fn rows_out_of_order_or_of_another_partition_are_damage() {
    let name = |part| vec![isolde_wal::partition_name(1, part)];
    assert_eq!(damaged(&[("", &["", "a", "b"]), ("c", &["c", "d"])]), [""; 0]);
    assert_eq!(damaged(&[("", &[])]), [""; 0]);
    assert_eq!(damaged(&[("", &["b", "a"]), ("c", &["c"])]), name(0));
    assert_eq!(damaged(&[("", &["a", "a"]), ("c", &["c"])]), name(0), "twice the same");
    assert_eq!(damaged(&[("", &["a", "c"]), ("c", &["d"])]), name(0), "the next one's");
    assert_eq!(damaged(&[("", &["a"]), ("c", &["b", "d"])]), name(1), "the one before's");
}

#[test]
fn a_look_waits_for_nobody_and_keeps_nobody_else_from_looking() {
    let folder = tempfile::tempdir().unwrap();
    let fs = || RealFs::open(folder.path(), false).unwrap();
    drop(fs().try_lock_to_read().unwrap().expect("nobody has it open, and nothing is made"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let open = fs().try_lock().unwrap().expect("free");
    assert!(fs().try_lock_to_read().unwrap().is_none());
    drop(open);
    let looks = (fs().try_lock_to_read().unwrap(), fs().try_lock_to_read().unwrap());
    assert!(looks.0.is_some() && looks.1.is_some());
    assert!(fs().try_lock().unwrap().is_none(), "nobody opens it meanwhile");
    drop(looks);
    assert!(fs().try_lock().unwrap().is_some());
}
