//! `dump`: all rows as JSON lines.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::failure::{Done, Failure, misses_parent};
use crate::line::encode;
use crate::progress::Bar;
use crate::rows::Rows;
use crate::source::Source;
use crate::words::counted;

pub fn run(dir: &Path, prefix: &[u8], output: Option<&Path>) -> Done {
    let source = Source::open(dir)?;
    let (_, rows) = source.rows(prefix)?;
    match output {
        None => write(&rows, &mut io::stdout().lock()).map_err(Failure::output),
        Some(path) => {
            let name = path.display();
            if misses_parent(path) {
                return Err(Failure::refused(format!("writing {name}: the directory above it does not exist")));
            }
            let existed = path.exists();
            let unchanged = if existed { "; what it held before is unchanged" } else { "" };
            write_file(&rows, path).map_err(|error| Failure::refused(format!("writing {name}: {error}{unchanged}")))?;
            eprintln!("isolde: {} written to {name}", counted(rows.rows.len(), "row"));
            Ok(())
        }
    }
}

/// Under another name first, so that a dump that was cut off is never taken for one.
fn write_file(rows: &Rows, path: &Path) -> io::Result<()> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::other("it is not an ordinary file; leave -o out to write to the standard output"));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".isolde-dump-").tempfile_in(parent)?;
    write(rows, file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(parent)?.sync_all()
}

fn write(rows: &Rows, out: &mut impl Write) -> io::Result<()> {
    let bar = Bar::new("writing");
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let total = rows.rows.len() as u64;
    let (all, mut bytes) = (rows.key_bytes() + rows.value_bytes(), 0);
    for (index, (key, value)) in rows.rows.iter().enumerate() {
        out.write_all(&encode(key, value))?;
        bytes += (key.len() + value.len()) as u64;
        if (index as u64).is_multiple_of(1024) || index as u64 + 1 == total {
            bar.set(bytes, all);
        }
    }
    out.flush()
}
