//! `backup` and `restore`: verified, copied into a new directory, and verified again.
//!
//! Both write a database of its own: with a number that no other has, a checkpoint of all rows, and an
//! empty log. The manifest is written last, so a copy that was cut off is no database.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use isolde_wal::{RealFs, Vfs, WalError};

use crate::failure::{Done, Failure};
use crate::progress::Bar;
use crate::rows::{Giver, Rows};
use crate::source::{Compare, Source};

pub fn backup(dir: &Path, to: &Path) -> Done {
    copy(dir, to, "backed up to")
}

pub fn restore(backup: &Path, to: &Path) -> Done {
    copy(backup, to, "restored to")
}

fn copy(from: &Path, to: &Path, done: &str) -> Done {
    let source = Source::open(from)?;
    let (inspection, mut rows) = source.rows(&[])?;
    rows.ts = inspection.last;
    write(&rows, to)?;
    let unfinished = |failure: Failure| failure.and(format!("{} is not to be trusted: remove it", to.display()));
    verify(&rows, to).map_err(unfinished)?;
    let said = format!("{}: {} rows, up to commit {}, {done} {}\n", source.dir, rows.rows.len(), rows.ts, to.display());
    std::io::stdout().write_all(said.as_bytes()).map_err(Failure::output)
}

fn write(rows: &Rows, to: &Path) -> Done {
    let dir = to.display();
    let refused = |error| Failure::refused(format!("making {dir}: {error}"));
    let vfs: Arc<dyn Vfs> = Arc::new(RealFs::open(to, true).map_err(refused)?);
    let names = vfs.list().map_err(refused)?;
    if !names.is_empty() {
        return Err(Failure::refused(format!("{dir} is not empty: name a new directory; nothing was written")));
    }
    isolde_wal::write_backup(&vfs, &mut Giver::new(rows, Bar::new("copying"))).map_err(|error| {
        let what = match error {
            WalError::DiskFull => "no space left on the disk".to_owned(),
            other => other.to_string(),
        };
        Failure::refused(format!("{dir}: {what}")).and(format!("{dir} holds an unfinished copy: remove it"))
    })
}

fn verify(rows: &Rows, to: &Path) -> Done {
    let copy = Source::open(to)?;
    let compare = Compare::new(rows);
    let inspection = copy.inspect(&compare)?;
    match inspection.faults.into_iter().next() {
        Some(fault) => Err(Failure::of_database(&copy.dir, fault)),
        None if compare.is_same() && inspection.last == rows.ts => Ok(()),
        None => Err(Failure::Damaged(format!("{}: what was read back is not what was written", copy.dir))),
    }
}
