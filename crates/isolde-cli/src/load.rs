//! `load`: the rows of a dump into a database.
//!
//! In batches, each one transaction, on disk before the next begins. A file is read through before
//! anything is written, so that a malformed line leaves everything as it was; the standard input can be
//! read only once. Loading a line twice changes nothing, so what was cut off can be loaded again.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use isolde::{Db, Error, ErrorKind};

use crate::failure::{Done, Failure, misses_parent};
use crate::line::{EXPECTED, decode};
use crate::progress::Bar;
use crate::words::counted;

const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;
/// A longer line is no row of any database.
const LINE_BYTES: u64 = 2 << 30;

type Row = (Vec<u8>, Vec<u8>);

pub fn run(dir: &Path, file: &Path, log_segment_bytes: u64) -> Done {
    let name = dir.display().to_string();
    let is_stdin = file.as_os_str() == "-";
    let input = if is_stdin { "the standard input".to_owned() } else { file.display().to_string() };
    let opened = || File::open(file).map_err(|error| Failure::refused(format!("opening {input}: {error}")));
    if !is_stdin {
        let metadata = opened()?.metadata().map_err(|error| Failure::refused(format!("opening {input}: {error}")))?;
        if metadata.is_dir() {
            return Err(Failure::refused(format!("{input} is a directory; name a file of JSON lines")));
        }
        if metadata.is_file() {
            read_through(opened()?, &input, metadata.len())?;
        }
    }
    let is_new = !dir.join("MANIFEST").exists();
    let db = open(dir, &name, log_segment_bytes)?;
    let reader: Box<dyn Read> = if is_stdin { Box::new(io::stdin().lock()) } else { Box::new(opened()?) };
    let total = file.metadata().ok().filter(|_| !is_stdin).map_or(0, |metadata| metadata.len());
    let loaded = load(&db, Lines::new(reader, &input, Bar::new("loading"), total), log_segment_bytes);
    let closed = db.close().map_err(|error| Failure::of_library(&name, error));
    let which = if is_new { "a new database" } else { "an existing database" };
    let rows = loaded.map_err(|failure| failure.and(format!("({name} is {which})")))?;
    closed?;
    let said = format!("{} loaded into {which}, {name}\n", counted(rows, "row"));
    io::stdout().write_all(said.as_bytes()).map_err(Failure::output)
}

fn open(dir: &Path, name: &str, log_segment_bytes: u64) -> Done<Db> {
    let bar = Bar::new("opening");
    let limit = usize::try_from(log_segment_bytes).unwrap_or(usize::MAX);
    let builder = Db::builder().path(dir).log_segment_bytes(log_segment_bytes);
    // What a segment holds is the only limit: the database may have been written with higher ones.
    let builder = builder.max_key_bytes(limit).max_value_bytes(limit);
    let builder = builder.on_recovery(move |done, total| bar.set(done, total));
    if misses_parent(dir) {
        return Err(
            Failure::refused(format!("making {name}: the directory above it does not exist")).and("nothing was loaded")
        );
    }
    builder.open().map_err(|error| Failure::of_library(name, error).and("nothing was loaded"))
}

/// Every line must be a row before any is loaded.
fn read_through(file: File, input: &str, total: u64) -> Done {
    let mut lines = Lines::new(Box::new(file), input, Bar::new("reading"), total);
    while lines.next_row().map_err(|failure| failure.and("nothing was loaded"))?.is_some() {}
    Ok(())
}

fn load(db: &Db, mut lines: Lines<'_>, log_segment_bytes: u64) -> Done<u64> {
    let bytes_max = BATCH_BYTES.min(usize::try_from(log_segment_bytes / 2).unwrap_or(BATCH_BYTES));
    let mut loaded = Loaded::default();
    let mut batch: Vec<Row> = Vec::new();
    let mut bytes = 0;
    loop {
        let row = match lines.next_row() {
            Ok(row) => row,
            Err(failure) => {
                // The lines before the bad one are good, and said to be loaded.
                loaded.commit(db, &mut batch, lines.number.saturating_sub(1))?;
                return Err(failure.and(loaded.so_far()));
            }
        };
        let size = row.as_ref().map_or(0, |(key, value)| key.len() + value.len() + 64);
        if row.is_none() || batch.len() >= BATCH_ROWS || bytes + size > bytes_max {
            let last_line = if row.is_none() { lines.number } else { lines.number - 1 };
            loaded.commit(db, &mut batch, last_line)?;
            bytes = 0;
        }
        match row {
            None => return Ok(loaded.rows),
            Some(row) => batch.push(row),
        }
        bytes += size;
    }
}

/// What is on disk.
#[derive(Default)]
struct Loaded {
    rows: u64,
    last_line: u64,
}

impl Loaded {
    fn commit(&mut self, db: &Db, batch: &mut Vec<Row>, last_line: u64) -> Done {
        let put = db.transact(|txn| batch.iter().try_for_each(|(key, value)| txn.put(key, value)));
        put.map_err(|error| {
            let unknown = matches!(error, Error::OutcomeUnknown);
            let (from, to) = (self.last_line + 1, last_line);
            let of = if unknown { "may or may not be there after the next open" } else { "not loaded" };
            let lines = if from == to { format!("line {to}") } else { format!("lines {from} to {to}") };
            let failure = Failure::refused(format!("{lines} {of}: {error}"));
            let failure = match error.kind() {
                ErrorKind::TooLarge => failure.and("a row must fit into a file of the log: see --log-segment-bytes"),
                _ => failure,
            };
            failure.and(self.so_far())
        })?;
        self.rows += batch.len() as u64;
        self.last_line = last_line;
        batch.clear();
        Ok(())
    }

    fn so_far(&self) -> String {
        match self.last_line {
            0 => "nothing was loaded before".to_owned(),
            last => {
                let rows = counted(self.rows, "row");
                format!("loaded, and on disk: {rows}, up to line {last}; nothing after that")
            }
        }
    }
}

/// The rows of a file, line by line.
struct Lines<'i> {
    reader: BufReader<Box<dyn Read>>,
    input: &'i str,
    number: u64,
    bar: Bar,
    bytes: u64,
    total: u64,
    line: Vec<u8>,
}

impl<'i> Lines<'i> {
    fn new(reader: Box<dyn Read>, input: &'i str, bar: Bar, total: u64) -> Lines<'i> {
        let reader = BufReader::with_capacity(1 << 16, reader);
        Lines { reader, input, number: 0, bar, bytes: 0, total, line: Vec::new() }
    }

    /// The next line's row; empty lines are passed over.
    fn next_row(&mut self) -> Done<Option<Row>> {
        loop {
            self.line.clear();
            let mut limited = self.reader.by_ref().take(LINE_BYTES);
            let read = limited.read_until(b'\n', &mut self.line);
            let read = read.map_err(|error| Failure::refused(format!("reading {}: {error}", self.input)))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.bytes += read as u64;
            if self.number % 1024 == 1 {
                self.bar.set(self.bytes, self.total);
            }
            if read as u64 == LINE_BYTES {
                return Err(self.malformed(&format!("the line is longer than {LINE_BYTES} bytes")));
            }
            let line = self.line.trim_ascii();
            if !line.is_empty() {
                return decode(line).map(Some).map_err(|what| self.malformed(&what));
            }
        }
    }

    fn malformed(&self, what: &str) -> Failure {
        Failure::refused(format!("{}:{}: {what}; {EXPECTED}", self.input, self.number))
    }
}
