//! `backup` and `restore`: verified, copied into a new directory, and verified again.
//!
//! Both write a database of its own: with a number that no other has, a checkpoint of all rows, and an
//! empty log. The manifest is written last, so a copy that was cut off is no database.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use isolde_wal::{RealFs, Vfs, WalError};

use crate::failure::{Done, Failure, misses_parent};
use crate::progress::Bar;
use crate::rows::{Giver, Rows};
use crate::source::{Compare, Source};
use crate::words::counted;

pub fn backup(dir: &Path, to: &Path) -> Done {
    copy(dir, to, "backed up to")
}

pub fn restore(backup: &Path, to: &Path) -> Done {
    copy(backup, to, "restored to")
}

fn copy(from: &Path, to: &Path, done: &str) -> Done {
    let source = Source::open(from)?;
    refuse_inside(from, to)?;
    let (inspection, mut rows) = source.rows(&[])?;
    rows.ts = inspection.last;
    write(&rows, to)?;
    let unfinished = |failure: Failure| failure.and(format!("{} is not to be trusted: remove it", to.display()));
    verify(&rows, to).map_err(unfinished)?;
    let said = format!(
        "{}: {}, up to commit {}, {done} {}\n",
        source.dir,
        counted(rows.rows.len(), "row"),
        rows.ts,
        to.display()
    );
    std::io::stdout().write_all(said.as_bytes()).map_err(Failure::output)
}

/// The copy must not lie in the directory that it is made of: nothing is changed there.
fn refuse_inside(from: &Path, to: &Path) -> Done {
    let above = to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(from), Ok(above)) = (from.canonicalize(), above.canonicalize()) else { return Ok(()) };
    if above.starts_with(&from) {
        let (to, from) = (to.display(), from.display());
        return Err(Failure::refused(format!("{to} lies in {from} itself: name a directory beside it")));
    }
    Ok(())
}

fn write(rows: &Rows, to: &Path) -> Done {
    let dir = to.display();
    if misses_parent(to) {
        return Err(Failure::refused(format!("making {dir}: the directory above it does not exist")));
    }
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
