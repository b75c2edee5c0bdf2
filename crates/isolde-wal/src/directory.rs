//! A database's directory: creating it, opening it, recovering what it holds.
//!
//! ```text
//! LOCK                      whose lock stands for the directory
//! MANIFEST                  which checkpoint holds, and where redo begins
//! ckpt-<number>-<part>      a checkpoint's rows
//! log-<segment>             the log
//! spare-<number>            prepared or recycled segments
//! ```
//!
//! Opening: load the checkpoint, redo the log from the segment that the manifest names, and begin a
//! new segment in a new epoch. What of the log's end is not *proven* to be on disk is written again
//! into the new segment, which becomes part of the log by one rename: so nothing of an old tail rises
//! again behind new records, and what the kernel only pretends to have is really written before
//! anybody is served.

use std::collections::BTreeMap;

use isolde_types::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex, MutexGuard};
use isolde_types::{Durable, Ts, mutant};

use crate::checkpoint::{self, CheckpointConfig, Source, checkpoint_number, write_partitions};
use crate::error::{Result, WalError};
use crate::format::{BLOCK, Lsn, RECORD_HEADER, RecordHeader, RecordKind, SUCCESSOR_NOTE, SegmentHeader};
use crate::log::{Log, WriteBehind};
use crate::manifest::{MANIFEST, Manifest, NEW_MANIFEST, create};
use crate::real::LOCK_FILE;
use crate::redo::redo_records;
use crate::scan::{Found, SegmentBytes};
use crate::segments::{Segments, segment_name, segment_number, spare_number};
use crate::vfs::{OpenMode, Vfs, read_file, read_up_to, write_all_at};
use crate::writer::{Writer, note_successor};

pub(crate) const NEW_SEGMENT: &str = "new-log";
/// Segments are read whole; a larger one was never written.
const SEGMENT_LIMIT: u64 = 16 << 30;

/// A file counts with this part of its size towards the next checkpoint, however few records it has: every
/// open begins one.
const SEGMENT_SHARE: u64 = 8;

/// How a directory is opened.
#[derive(Clone, Debug)]
pub struct OpenConfig {
    /// The size of new segments.
    pub segment_bytes: u64,
    /// When the log's thread writes what nobody waits for.
    pub write_behind: WriteBehind,
    /// How many threads load and redo.
    pub threads: usize,
    /// Make a database where there is none.
    pub create: bool,
    /// The number of a new database; random, unless tests say otherwise.
    pub database: Option<u64>,
}

impl Default for OpenConfig {
    fn default() -> Self {
        OpenConfig {
            segment_bytes: 64 << 20,
            write_behind: WriteBehind::default(),
            threads: 1,
            create: true,
            database: None,
        }
    }
}

/// Takes a key, its value, and the time as of which it has it.
pub type Rows<'r> = Box<dyn FnMut(&[u8], &[u8], Ts) + 'r>;

/// Takes what is recovered. Called from several threads at once; the changes of one key in their order.
pub trait Redo: Sync {
    /// At `ts`, `key` had this value, or none.
    fn apply(&self, key: &[u8], value: Option<&[u8]>, ts: Ts);

    /// So many rows are about to come from a checkpoint.
    fn expect(&self, rows: u64) {
        let _ = rows;
    }

    /// Takes the rows of one partition of a checkpoint, in key order, on one thread.
    fn rows(&self) -> Rows<'_> {
        Box::new(|key, value, ts| self.apply(key, Some(value), ts))
    }

    /// So many bytes of so many are done.
    fn progress(&self, done: u64, total: u64) {
        let _ = (done, total);
    }
}

/// An open directory.
pub struct Directory {
    vfs: Arc<dyn Vfs>,
    manifest: Mutex<Manifest>,
    checkpointing: Mutex<()>,
    /// A manifest was half replaced: nothing is recycled until the next open.
    frozen: AtomicBool,
    _lock: Box<dyn Send + Sync>,
}

/// What opening gives.
pub struct Opened {
    /// The directory, locked for this process.
    pub directory: Directory,
    /// Its log, in a new epoch.
    pub log: Log,
    /// The newest commit that was recovered; all of them are durable.
    pub last: Ts,
}

impl Directory {
    /// The files.
    #[must_use]
    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    /// What the manifest says now.
    #[must_use]
    pub fn manifest(&self) -> Manifest {
        self.manifest.lock().clone()
    }

    /// One checkpoint at a time; none after a manifest that was half replaced, whose files must stay.
    pub(crate) fn checkpointing(&self) -> Result<MutexGuard<'_, ()>> {
        let one = self.checkpointing.lock();
        if self.frozen.load(Ordering::Relaxed) {
            let why = "an earlier manifest could not be replaced: reopen the database";
            return Err(WalError::Poisoned(why.into()));
        }
        Ok(one)
    }

    /// Replaces the manifest. After a failure it is not known which one holds, so neither may lose what
    /// it needs.
    pub(crate) fn store(&self, manifest: Manifest) -> Result<()> {
        if let Err(error) = manifest.prepare(&*self.vfs) {
            let _ = self.vfs.remove(NEW_MANIFEST);
            return Err(error);
        }
        self.frozen.store(true, Ordering::Relaxed);
        Manifest::replace(&*self.vfs)?;
        self.frozen.store(false, Ordering::Relaxed);
        *self.manifest.lock() = manifest;
        Ok(())
    }

    /// Writes down that the log reaches so far: at a clean close.
    ///
    /// # Errors
    /// `Io`, `DiskFull`.
    pub fn note_end(&self, log_end: Lsn) -> Result<()> {
        let _one = self.checkpointing()?;
        let manifest = Manifest { log_end, ..self.manifest() };
        self.store(manifest)
    }

    /// Gives up a checkpoint that has failed, unless its manifest may be the one that holds.
    pub(crate) fn give_up_checkpoint(&self, number: u64) {
        if !self.frozen.load(Ordering::Relaxed) {
            self.remove_checkpoints(|found| found == number);
        }
    }

    /// Removes partitions of other checkpoints. One that stays is removed at the next open.
    pub(crate) fn remove_checkpoints(&self, which: impl Fn(u64) -> bool) {
        let names = self.vfs.list().unwrap_or_default();
        for name in names.iter().filter(|name| checkpoint_number(name).is_some_and(&which)) {
            let _ = self.vfs.remove(name);
        }
    }
}

/// Opens the database in a directory, or makes one there, and recovers what it holds.
///
/// # Errors
/// `AlreadyOpen`, `NotADatabase`, `MissingFile`, `Corruption`, `VersionMismatch`, `DiskFull`, `Io`.
pub fn open(vfs: Arc<dyn Vfs>, config: &OpenConfig, redo: &dyn Redo) -> Result<Opened> {
    let dir: Arc<str> = vfs.describe().into();
    let names = vfs.list().map_err(WalError::io("listing", &dir))?;
    if !names.iter().any(|name| name == MANIFEST) {
        refuse_others(&*vfs, &dir, &names, config)?; // before anything is made in somebody else's directory
    }
    let locked = vfs.try_lock().map_err(WalError::io("locking", LOCK_FILE))?;
    let lock = locked.ok_or(WalError::AlreadyOpen { dir: Arc::clone(&dir) })?;
    let names = vfs.list().map_err(WalError::io("listing", &dir))?;
    // What stands there must stay: it is built upon from now on.
    vfs.sync_dir().map_err(WalError::io("syncing", &dir))?;
    let (manifest, recovered) = match Manifest::load(&*vfs)? {
        Some(manifest) => {
            let recovered = recover(&vfs, &manifest, &names, config, redo)?;
            (manifest, recovered)
        }
        None => {
            refuse_others(&*vfs, &dir, &names, config)?;
            // The directory's own name must survive, too; one that was there may be that of an open that ended before
            // it had synced it.
            sync_parent(&*vfs, &dir)?;
            (Manifest::default(), Recovered::nothing(config))
        }
    };
    let (header, at) = begin_epoch(&*vfs, &recovered)?;
    let manifest = if manifest == Manifest::default() {
        let first = Manifest { database: header.database, epoch: 1, replay_from: header.segment, ..manifest };
        first.store(&*vfs)?;
        first
    } else {
        manifest
    };
    let segments = Arc::new(Segments::new(Arc::clone(&vfs), config.segment_bytes, recovered.closed));
    tidy(&*vfs, &names, &manifest, header.segment, &segments, config);
    let name = segment_name(header.segment);
    let file = vfs.open(&name, OpenMode::Write).map_err(WalError::io("opening", &name))?;
    let last = recovered.last;
    let writer = Writer::new(Arc::clone(&vfs), Arc::clone(&segments), header, file, at, last);
    let durable = Arc::new(Durable::new(last));
    let log = Log::new(writer, segments, durable, config.write_behind.clone(), header.epoch);
    log.note_backlog(recovered.backlog);
    let directory = Directory {
        vfs,
        manifest: Mutex::new(manifest),
        checkpointing: Mutex::new(()),
        frozen: AtomicBool::new(false),
        _lock: lock,
    };
    Ok(Opened { directory, log, last })
}

/// Writes all rows of `source` into an empty directory, which can be opened like any database.
///
/// # Errors
/// `NotADatabase` when it is not empty; `AlreadyOpen`, `DiskFull`, `Io`.
pub fn write_backup(vfs: &Arc<dyn Vfs>, source: &mut dyn Source) -> Result<()> {
    const SMALL: u64 = 4 * BLOCK;
    let dir: Arc<str> = vfs.describe().into();
    let names = vfs.list().map_err(WalError::io("listing", &dir))?;
    if !names.is_empty() {
        return Err(WalError::NotADatabase { dir, what: "a backup goes into an empty directory" });
    }
    let lock = vfs.try_lock().map_err(WalError::io("locking", LOCK_FILE))?;
    let _lock = lock.ok_or_else(|| WalError::AlreadyOpen { dir: Arc::clone(&dir) })?;
    sync_parent(&**vfs, &dir)?;
    let config = OpenConfig { segment_bytes: SMALL, ..OpenConfig::default() };
    let (header, _) = begin_epoch(&**vfs, &Recovered::nothing(&config))?;
    let number = 1;
    let config = CheckpointConfig::default();
    let partitions = write_partitions(&**vfs, header.database, number, &config, source, &|| Ok(()))?;
    vfs.sync_dir().map_err(WalError::io("syncing the directory of", "the backup"))?;
    let manifest = Manifest {
        database: header.database,
        epoch: header.epoch,
        checkpoint: number,
        replay_from: header.segment,
        log_end: Lsn(0),
        partitions,
    };
    manifest.store(&**vfs)
}

fn sync_parent(vfs: &dyn Vfs, dir: &str) -> Result<()> {
    if mutant!("database-made-without-parent-sync") {
        return Ok(());
    }
    vfs.sync_parent().map_err(WalError::io("syncing the directory above", dir))
}

/// Without a manifest there must be nothing, or what a creation left that was cut off.
pub(crate) fn refuse_others(vfs: &dyn Vfs, dir: &Arc<str>, names: &[String], config: &OpenConfig) -> Result<()> {
    let refuse = |what| Err(WalError::NotADatabase { dir: Arc::clone(dir), what });
    let ours = |name: &str| {
        name == LOCK_FILE
            || name == NEW_SEGMENT
            || name.starts_with(MANIFEST)
            || spare_number(name).is_some()
            || segment_number(name).is_some()
            || checkpoint_number(name).is_some()
    };
    if !names.iter().all(|name| ours(name)) {
        return refuse("it holds other files");
    }
    let in_use = |name: &String| match segment_number(name) {
        Some(1) => !is_unused_first(vfs, name),
        Some(_) => true,
        None => checkpoint_number(name).is_some(),
    };
    if names.iter().any(in_use) {
        return Err(WalError::MissingFile { file: MANIFEST.into() });
    }
    if config.create { Ok(()) } else { refuse("it holds no database") }
}

/// A first segment of a first epoch without any record: its database was never opened.
fn is_unused_first(vfs: &dyn Vfs, name: &str) -> bool {
    let Ok(file) = vfs.open(name, OpenMode::Read) else { return false };
    let Ok(bytes) = read_file(&*file, SEGMENT_LIMIT) else { return false };
    match SegmentHeader::decode(name, &bytes) {
        Ok(Some(header)) => {
            let scanned = SegmentBytes { name, header, bytes: &bytes }.scan(None, Lsn(0));
            header.epoch == 1 && scanned.is_ok_and(|scanned| scanned.records.is_empty())
        }
        Ok(None) => bytes.iter().all(|byte| *byte == 0),
        Err(_) => false,
    }
}

/// What the log held.
struct Recovered {
    last: Ts,
    /// The segment before the new one, with its last commit, and all before that are still there.
    closed: Vec<(u64, Ts)>,
    /// Those of them that do not say that another one follows, and have the room to.
    unnoted: Vec<SegmentHeader>,
    /// The new segment's place, number and database; its epoch is the largest that was seen.
    next: SegmentHeader,
    /// Records that are not proven to be on disk.
    unproven: Vec<(Ts, u32, Vec<u8>)>,
    /// What a checkpoint would save the next open: bytes of records, and a share of each file.
    backlog: u64,
}

impl Recovered {
    fn nothing(config: &OpenConfig) -> Recovered {
        let database = config.database.unwrap_or_else(|| fastrand::u64(1..));
        let next = SegmentHeader {
            database,
            epoch: 0,
            segment: 1,
            start: Lsn(0),
            size: config.segment_bytes,
            previous_end: Lsn(0),
        };
        Recovered { last: Ts::ZERO, closed: Vec::new(), unnoted: Vec::new(), next, unproven: Vec::new(), backlog: 0 }
    }
}

/// A segment of the log that has a header.
pub(crate) struct LoggedSegment {
    pub number: u64,
    pub header: SegmentHeader,
    /// It says that another one follows.
    pub has_successor: bool,
}

/// The segment that the newest one says follows it: it was there.
pub(crate) fn missing_successor(chain: &[LoggedSegment]) -> Option<WalError> {
    let last = chain.last().filter(|last| last.has_successor)?;
    Some(WalError::MissingFile { file: segment_name(last.number.saturating_add(1)).into() })
}

/// The segments from the one on that the manifest names, with their headers.
pub(crate) fn chain(vfs: &dyn Vfs, manifest: &Manifest, names: &[String]) -> Result<Vec<LoggedSegment>> {
    let mut numbers: Vec<u64> =
        names.iter().filter_map(|name| segment_number(name)).filter(|number| *number >= manifest.replay_from).collect();
    numbers.sort_unstable();
    let mut chain: Vec<LoggedSegment> = Vec::new();
    for (expected, number) in (manifest.replay_from..).zip(&numbers) {
        let name = segment_name(*number);
        if *number != expected {
            return Err(WalError::MissingFile { file: segment_name(expected).into() });
        }
        let previous = chain.last().map(|previous| previous.header);
        let (header, has_successor) = read_header(vfs, &name, *number, manifest.database, previous)?;
        chain.push(LoggedSegment { number: *number, header, has_successor });
    }
    if chain.is_empty() {
        return Err(WalError::MissingFile { file: segment_name(manifest.replay_from).into() });
    }
    Ok(chain)
}

/// A segment's header, and whether it has a successor. The header was on disk, and the file had its full size, before the file had its name:
/// what is not as it was then is damaged, whatever cut the power.
fn read_header(
    vfs: &dyn Vfs,
    name: &str,
    number: u64,
    database: u64,
    previous: Option<SegmentHeader>,
) -> Result<(SegmentHeader, bool)> {
    let file = vfs.open(name, OpenMode::Read).map_err(WalError::io("opening", name))?;
    let mut block = [0; BLOCK as usize];
    read_up_to(&*file, &mut block, 0).map_err(WalError::io("reading", name))?;
    let header = SegmentHeader::decode(name, &block)?;
    let header = header.ok_or_else(|| WalError::corrupt(name, 0, "its header is damaged"))?;
    let len = file.len().map_err(WalError::io("measuring", name))?;
    let follows =
        |previous: SegmentHeader| header.start == previous.lsn(previous.size) && header.epoch >= previous.epoch;
    if header.database != database {
        return Err(WalError::corrupt(name, 0, "it belongs to another database"));
    }
    if header.segment != number || !previous.is_none_or(follows) {
        return Err(WalError::corrupt(name, 0, "it does not follow the segment before it"));
    }
    if header.size != len {
        return Err(WalError::corrupt(name, len.min(header.size), "it is shorter or longer than it was made"));
    }
    let mut note = [0; SUCCESSOR_NOTE];
    read_up_to(&*file, &mut note, header.records_end()).map_err(WalError::io("reading", name))?;
    Ok((header, note == header.successor_note()))
}

fn recover(
    vfs: &Arc<dyn Vfs>,
    manifest: &Manifest,
    names: &[String],
    config: &OpenConfig,
    redo: &dyn Redo,
) -> Result<Recovered> {
    let chain = chain(&**vfs, manifest, names)?;
    if let Some(missing) = missing_successor(&chain) {
        return Err(missing);
    }
    let total = total_bytes(&**vfs, manifest, &chain);
    let done = AtomicU64::new(0);
    let progress = |bytes: u64| {
        let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        redo.progress(done.min(total), total);
    };
    // A row takes two bytes at least: what a manifest says is not believed beyond that.
    let rows = manifest.partitions.iter().fold(0_u64, |rows, partition| rows.saturating_add(partition.rows));
    redo.expect(rows.min(total / 2));
    checkpoint::load(&**vfs, manifest, config.threads, redo, &progress)?;

    let mut last = manifest.checkpoint_ts();
    let mut closed = Vec::new();
    let mut unnoted = Vec::new();
    let mut unproven = Vec::new();
    let mut last_commit = Ts::ZERO;
    let mut backlog = 0;
    let epoch = chain.iter().map(|segment| segment.header.epoch).max().unwrap_or(0).max(manifest.epoch);
    let mut next = SegmentHeader { epoch, size: config.segment_bytes, ..Recovered::nothing(config).next };
    for (index, logged) in chain.iter().enumerate() {
        let LoggedSegment { number, header, has_successor } = logged;
        let name = segment_name(*number);
        let bytes = read_segment(&**vfs, logged)?;
        let following = chain.get(index + 1).map(|following| following.header);
        let segment = SegmentBytes { name: &name, header: *header, bytes: &bytes };
        let scanned = segment.scan(following.map(|following| following.previous_end), manifest.log_end)?;
        let commits: Vec<&Found> =
            scanned.records.iter().filter(|found| found.header.kind == RecordKind::Commit).collect();
        if commits.first().is_some_and(|first| first.header.commit_ts <= last_commit) {
            return Err(WalError::corrupt(&name, BLOCK, "commits are out of order"));
        }
        last_commit = commits.last().map_or(last_commit, |last| last.header.commit_ts);
        last = last.max(last_commit);
        backlog += commits.iter().map(|found| found.body.len() as u64).sum::<u64>() + header.size / SEGMENT_SHARE;
        redo_records(&segment, &commits, manifest, config.threads, redo)?;
        progress(bytes.len() as u64);
        let note = (!has_successor && scanned.end <= header.lsn(header.records_end())).then_some(*header);
        if following.is_some() {
            closed.push((*number, last_commit));
            unnoted.extend(note);
            continue;
        }
        // The last one. Where nothing in it is proven it is replaced, else a new one follows.
        // What the manifest says was on disk when it was written.
        let durable = scanned.durable.max(manifest.log_end);
        let proven = commits.iter().filter(|found| found.at < durable).count();
        let replaced = durable <= header.lsn(BLOCK);
        next = if replaced {
            SegmentHeader { epoch, size: config.segment_bytes, ..*header }
        } else {
            closed.push((*number, last_commit));
            unnoted.extend(note);
            SegmentHeader {
                segment: number + 1,
                start: header.lsn(header.size),
                size: config.segment_bytes,
                previous_end: if mutant!("old-tail-rises") { scanned.end } else { durable },
                epoch,
                ..*header
            }
        };
        let body = |found: &&Found| bytes.get(found.body.clone()).unwrap_or_default().to_vec();
        unproven = commits
            .iter()
            .skip(proven)
            .map(|found| (found.header.commit_ts, found.header.body_checksum, body(found)))
            .collect();
    }
    next.size = next.size.max(needed(&unproven));
    Ok(Recovered { last, closed, unnoted, next, unproven, backlog })
}

pub(crate) fn read_segment(vfs: &dyn Vfs, segment: &LoggedSegment) -> Result<Vec<u8>> {
    let name = segment_name(segment.number);
    let file = vfs.open(&name, OpenMode::Read).map_err(WalError::io("opening", &name))?;
    let size = segment.header.size;
    read_file(&*file, SEGMENT_LIMIT.min(size)).map_err(|error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => WalError::corrupt(&name, size, "it is longer than its header says"),
        _ => WalError::io("reading", &name)(error),
    })
}

fn needed(unproven: &[(Ts, u32, Vec<u8>)]) -> u64 {
    let records: usize = unproven.iter().map(|(_, _, body)| RECORD_HEADER + body.len()).sum();
    (records as u64 + 4 * BLOCK).next_multiple_of(BLOCK)
}

fn total_bytes(vfs: &dyn Vfs, manifest: &Manifest, chain: &[LoggedSegment]) -> u64 {
    let len = |name: &str| vfs.open(name, OpenMode::Read).and_then(|file| file.len()).unwrap_or(0);
    let segments = chain.iter().map(|segment| segment_name(segment.number));
    checkpoint::partition_names(manifest).chain(segments).map(|name| len(&name)).sum()
}

/// Writes the new epoch's first segment, with what was not proven, and makes it part of the log.
/// Gives its header, and the offset after its last record.
fn begin_epoch(vfs: &dyn Vfs, recovered: &Recovered) -> Result<(SegmentHeader, u64)> {
    let header = SegmentHeader { epoch: recovered.next.epoch + 1, ..recovered.next };
    let mut bytes = header.encode();
    for (commit_ts, body_checksum, body) in &recovered.unproven {
        let at = header.lsn(bytes.len() as u64);
        let body_len = u32::try_from(body.len()).unwrap_or(u32::MAX); // it was read from a u32
        let durable = header.previous_end;
        let record = RecordHeader {
            kind: RecordKind::Commit,
            body_len,
            body_checksum: *body_checksum,
            commit_ts: *commit_ts,
            durable,
        };
        bytes.extend_from_slice(&record.encode(&header, at));
        bytes.extend_from_slice(body);
    }
    let end = bytes.len() as u64;
    if mutant!("reopened-without-copy") {
        bytes.truncate(BLOCK as usize);
    }
    let file = create(vfs, NEW_SEGMENT)?;
    write_all_at(&*file, &bytes, 0).map_err(WalError::io("writing", NEW_SEGMENT))?;
    let zeros = vec![0; 1 << 20];
    let mut at = bytes.len() as u64;
    while at < header.size {
        let chunk = usize::try_from(header.size - at).unwrap_or(usize::MAX).min(zeros.len());
        let chunk = zeros.get(..chunk).unwrap_or_default();
        write_all_at(&*file, chunk, at).map_err(WalError::io("preparing", NEW_SEGMENT))?;
        at += chunk.len() as u64;
    }
    file.sync().map_err(WalError::io("syncing", NEW_SEGMENT))?;
    // The new file's name first, so that only the rename decides whether it is part of the log.
    vfs.sync_dir().map_err(WalError::io("syncing the directory of", NEW_SEGMENT))?;
    let name = segment_name(header.segment);
    vfs.rename(NEW_SEGMENT, &name).map_err(WalError::io("renaming", NEW_SEGMENT))?;
    vfs.sync_dir().map_err(WalError::io("syncing the directory of", &name))?;
    for previous in &recovered.unnoted {
        let name = segment_name(previous.segment);
        let file = vfs.open(&name, OpenMode::Write).map_err(WalError::io("opening", &name))?;
        note_successor(&*file, previous)?;
    }
    Ok((header, end))
}

/// Gives back files that nothing needs: what was prepared is taken over, what was left is removed. One
/// that cannot be removed is no reason not to open.
fn tidy(vfs: &dyn Vfs, names: &[String], manifest: &Manifest, current: u64, segments: &Segments, config: &OpenConfig) {
    let right_size = |name: &str| {
        let len = vfs.open(name, OpenMode::Read).and_then(|file| file.len());
        len.is_ok_and(|len| len == config.segment_bytes)
    };
    let spares: BTreeMap<u64, &String> = names.iter().filter_map(|name| Some((spare_number(name)?, name))).collect();
    let mut adopted = 0;
    for (number, name) in spares {
        if adopted < 2 && right_size(name) {
            segments.adopt(number, name.clone());
            adopted += 1;
        } else {
            let _ = vfs.remove(name);
        }
    }
    let left = names.iter().filter(|name| {
        let old_segment = segment_number(name).is_some_and(|number| number < manifest.replay_from || number > current);
        let old_checkpoint = checkpoint_number(name).is_some_and(|number| number != manifest.checkpoint);
        old_segment || old_checkpoint
    });
    for name in left {
        let _ = vfs.remove(name);
    }
}
