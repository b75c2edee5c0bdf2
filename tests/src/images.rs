//! Small databases as files in memory, whose every state is known: for tests that damage them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isolde_types::{Key, Places, Ts};
use isolde_wal::{
    BodyWriter, CheckpointConfig, Directory, Enough, Hardness, Log, Need, OpenConfig, Opened, Redo, Result, Source,
    TakeRow, checkpoint,
};

use crate::format::Rows;
use crate::memory::{Files, MemoryFs};

/// The segments of these databases.
pub const SEGMENT: u64 = 16 << 10;

/// A database's files, and its state after each commit: `states[n]` is that at commit_ts n.
pub struct Image {
    /// What it shows.
    pub name: &'static str,
    /// The files.
    pub files: Files,
    /// The states.
    pub states: Vec<Rows>,
}

/// What recovery gave.
#[derive(Default)]
pub struct Collected(Mutex<Rows>);

impl Redo for Collected {
    fn apply(&self, key: &[u8], value: Option<&[u8]>, _: Ts) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => rows.insert(key.to_vec(), value.to_vec()),
            None => rows.remove(key),
        };
    }
}

/// How these databases are opened.
#[must_use]
pub fn config() -> OpenConfig {
    OpenConfig { segment_bytes: SEGMENT, database: Some(0x1507_de00_1507_de00), ..OpenConfig::default() }
}

/// Opens a directory with these files; gives the rows and the last commit, and the files after that.
///
/// # Errors
/// Those of opening.
pub fn recover(files: &Files) -> Result<(Rows, Ts, Files)> {
    let fs = MemoryFs::new(files);
    let redo = Collected::default();
    let opened = isolde_wal::open(fs.clone(), &config(), &redo)?;
    Ok((redo.0.into_inner().unwrap_or_else(PoisonError::into_inner), opened.last, fs.files()))
}

/// One that commits, and knows what must come out.
struct Session {
    directory: Directory,
    log: Arc<Log>,
    states: Vec<Rows>,
    fs: Arc<MemoryFs>,
}

impl Session {
    /// Opens a directory whose newest state is the last of these.
    fn open(fs: Arc<MemoryFs>, states: Vec<Rows>) -> Session {
        let redo = Collected::default();
        let opened = isolde_wal::open(fs.clone(), &config(), &redo).expect("an undamaged database opens");
        let Opened { directory, log, last } = opened;
        let rows = redo.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((Some(&rows), last.0), (states.last(), states.len() as u64 - 1));
        Session { directory, log: Arc::new(log), states, fs }
    }

    /// A commit of these writes, as far as the file.
    fn commit(&mut self, writes: &[(&str, Option<Vec<u8>>)]) {
        let ts = Ts(self.states.len() as u64);
        let mut state = self.states.last().cloned().unwrap_or_default();
        let mut body = BodyWriter::default();
        for (key, value) in writes {
            body.push(key.as_bytes(), value.as_deref());
            match value {
                Some(value) => state.insert(key.as_bytes().to_vec(), value.clone()),
                None => state.remove(key.as_bytes()),
            };
        }
        self.states.push(state);
        let mut body = body.finish();
        let space = self.log.admit(body.bytes.len()).and_then(|space| self.log.fit(space, &mut body));
        space.expect("there is space").placed();
        let _ = self.log.give(&mut std::iter::once((ts, &mut body)), &mut || ts);
        let need = Need { ts, hardness: Hardness::Written, company: Duration::ZERO };
        self.log.wait_hard(need).expect("nothing fails in memory");
    }

    fn sync(&self) {
        self.log.flush().expect("nothing fails in memory");
    }

    fn checkpoint(&self) {
        let mut source =
            State { rows: self.states.last().cloned().unwrap_or_default(), ts: self.states.len() as u64 - 1 };
        let config = CheckpointConfig { partition_bytes: 900, ..CheckpointConfig::default() };
        checkpoint(&self.directory, &self.log, &config, &mut source).expect("nothing fails in memory");
    }

    fn close(&self) {
        let end = self.log.finish().expect("nothing fails in memory");
        end.map_or(Ok(()), |end| self.directory.note_end(end)).expect("nothing fails in memory");
    }

    fn image(&self, name: &'static str) -> Image {
        Image { name, files: self.fs.files(), states: self.states.clone() }
    }
}

/// A state, for a checkpoint.
struct State {
    rows: Rows,
    ts: u64,
}

impl Source for State {
    fn partition(&mut self, low: &Key, row: &mut TakeRow<'_>) -> Result<(Ts, Option<Key>)> {
        let mut rows = self.rows.range(low.to_vec()..);
        for (key, value) in rows.by_ref() {
            if row(key, value)? == Enough::Yes {
                break;
            }
        }
        Ok((Ts(self.ts), rows.next().map(|(key, _)| Key::copy_from_slice(key))))
    }
}

fn value(byte: u8, len: usize) -> Option<Vec<u8>> {
    Some(vec![byte; len])
}

/// A database of several segments, with a checkpoint, synced and unsynced batches, in its second epoch:
/// as a crash leaves it, and as a clean close leaves it; and one without a checkpoint that was cut off
/// in its first epoch.
#[must_use]
pub fn images() -> Vec<Image> {
    let fs = MemoryFs::new(&Files::new());
    let mut session = Session::open(fs.clone(), vec![Rows::new()]);
    for n in 0..12_u8 {
        session.commit(&[(&format!("key/{:02}", n % 7), value(n, 300)), ("last", value(n, 1))]);
        if n % 3 == 0 {
            session.sync();
        }
    }
    let first_epoch = session.image("cut off in the first epoch");
    session.sync();
    session.checkpoint();
    for n in 12..20_u8 {
        session.commit(&[(&format!("key/{:02}", n % 9), value(n, 2_500)), ("key/03", None), ("last", value(n, 0))]);
        session.sync();
    }
    session.commit(&[("tail", value(1, 20))]);
    let states = session.states.clone();
    drop(session); // without a clean close: the last commit is not proven, and is written again
    let mut session = Session::open(fs, states);
    for n in 20..26_u8 {
        session.commit(&[(&format!("key/{n}"), value(n, 100)), ("tail", None)]);
        if n % 3 == 2 {
            session.sync();
        }
    }
    let cut_off = session.image("cut off in the second epoch");
    session.close();
    let closed = session.image("closed");
    vec![first_epoch, cut_off, closed]
}
