//! Checkpoints: the rows of a durable state, part by part, so that the log before it can go.
//!
//! A checkpoint is written while commits go on. Each partition is the state at a time of its own, at
//! or below durable_ts; redo applies to a key what is newer than its partition. A file is a row of
//! blocks, each with a checksum seeded by where it stands.
//!
//! ```text
//! block   length u32 | rows u32 | checksum u32 | row row ...      row: key length, key, value length, value
//! last    0          | 0        | checksum u32 | rows of the whole file u64
//! ```

use std::thread;
use std::time::Duration;

use isolde_types::sync::Arc;
use isolde_types::sync::atomic::{AtomicUsize, Ordering};
use isolde_types::{Key, Ts, mutant};

use crate::directory::{Directory, Redo};
use crate::error::{Result, WalError};
use crate::format::{Fields, put_varint};
use crate::log::Log;
use crate::manifest::{Manifest, Partition, create};
use crate::segments::hexadecimal;
use crate::vfs::{OpenMode, Vfs, VfsFile, read_up_to, write_all_at};

/// Rows are gathered to blocks of about this size.
const BLOCK_BYTES: usize = 64 << 10;
const BLOCK_HEADER: usize = 12;

/// The name of a partition's file.
#[must_use]
pub fn partition_name(checkpoint: u64, partition: usize) -> String {
    format!("ckpt-{checkpoint:016x}-{partition:06x}")
}

/// The names of the files of the manifest's checkpoint.
pub(crate) fn partition_names(manifest: &Manifest) -> impl Iterator<Item = String> + '_ {
    (0..manifest.partitions.len()).map(|part| partition_name(manifest.checkpoint, part))
}

/// The number of the checkpoint that a file belongs to, if its name is that of a partition.
pub(crate) fn checkpoint_number(name: &str) -> Option<u64> {
    let (number, partition) = name.strip_prefix("ckpt-")?.split_once('-')?;
    hexadecimal(partition, 6).and_then(|_| hexadecimal(number, 16))
}

fn seed(database: u64, checkpoint: u64, partition: usize, block: u64) -> u32 {
    let numbers = [database, checkpoint, partition as u64, block];
    numbers.iter().fold(0, |seed, number| crc32c::crc32c_append(seed, &number.to_le_bytes()))
}

/// Takes a key and its value, and says whether that is enough.
pub type TakeRow<'t> = dyn FnMut(&[u8], &[u8]) -> Result<Enough> + 't;

/// Where the rows come from.
pub trait Source {
    /// Gives the rows from `low` on, as of one durable state, to `row` in key order, until it says
    /// that it has enough; then the state's time, and the first key that was not given.
    ///
    /// # Errors
    /// Those of `row`; whatever keeps the source from going on.
    fn partition(&mut self, low: &Key, row: &mut TakeRow<'_>) -> Result<(Ts, Option<Key>)>;
}

/// Whether a partition has enough rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enough {
    /// It takes more.
    No,
    /// The row that was given was the last.
    Yes,
}

struct PartitionWriter {
    file: Box<dyn VfsFile>,
    name: String,
    identity: (u64, u64, usize),
    at: u64,
    block: Vec<u8>,
    block_rows: u32,
    blocks: u64,
    rows: u64,
}

impl PartitionWriter {
    fn create(vfs: &dyn Vfs, database: u64, checkpoint: u64, partition: usize) -> Result<PartitionWriter> {
        let name = partition_name(checkpoint, partition);
        let file = create(vfs, &name)?;
        let identity = (database, checkpoint, partition);
        Ok(PartitionWriter { file, name, identity, at: 0, block: Vec::new(), block_rows: 0, blocks: 0, rows: 0 })
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        put_varint(&mut self.block, key.len() as u64);
        self.block.extend_from_slice(key);
        put_varint(&mut self.block, value.len() as u64);
        self.block.extend_from_slice(value);
        self.block_rows += 1;
        self.rows += 1;
        if self.block.len() >= BLOCK_BYTES { self.write_block() } else { Ok(()) }
    }

    fn write_block(&mut self) -> Result<()> {
        let (database, checkpoint, partition) = self.identity;
        let too_large = |_| WalError::TooLarge { bytes: self.block.len(), limit: u32::MAX as usize };
        let len = u32::try_from(self.block.len()).map_err(too_large)?;
        let is_last = self.block_rows == 0;
        let mut out = Vec::with_capacity(BLOCK_HEADER + self.block.len());
        out.extend_from_slice(&(if is_last { 0 } else { len }).to_le_bytes());
        out.extend_from_slice(&self.block_rows.to_le_bytes());
        let seeded = crc32c::crc32c_append(seed(database, checkpoint, partition, self.blocks), &out);
        out.extend_from_slice(&crc32c::crc32c_append(seeded, &self.block).to_le_bytes());
        out.extend_from_slice(&self.block);
        write_all_at(&*self.file, &out, self.at).map_err(WalError::io("writing", &self.name))?;
        self.at += out.len() as u64;
        self.block.clear();
        self.block_rows = 0;
        self.blocks += 1;
        Ok(())
    }

    /// Writes the last block and syncs.
    fn finish(mut self) -> Result<u64> {
        if self.block_rows > 0 {
            self.write_block()?;
        }
        self.block.extend_from_slice(&self.rows.to_le_bytes());
        self.write_block()?;
        if !mutant!("checkpoint-renamed-without-sync") {
            self.file.sync().map_err(WalError::io("syncing", &self.name))?;
        }
        Ok(self.rows)
    }
}

/// How large the parts of a checkpoint become, and how fast it may be written.
#[derive(Clone, Debug)]
pub struct CheckpointConfig {
    /// A partition has enough at about so many bytes.
    pub partition_bytes: u64,
    /// At most so many bytes are written in a second; without it, as fast as the disk takes them.
    pub bytes_per_second: Option<u64>,
    /// How a thread waits so long: after a partition, for what it was too fast.
    pub pause: fn(Duration),
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { partition_bytes: 16 << 20, bytes_per_second: None, pause: thread::sleep }
    }
}

/// Writes all rows of `source` into partitions of a new checkpoint.
pub(crate) fn write_partitions(
    vfs: &dyn Vfs,
    database: u64,
    checkpoint: u64,
    config: &CheckpointConfig,
    source: &mut dyn Source,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<Vec<Partition>> {
    let mut partitions = Vec::new();
    let mut next = Some(Key::new());
    while let Some(low) = next {
        let mut writer = PartitionWriter::create(vfs, database, checkpoint, partitions.len())?;
        let (ts, after) = source.partition(&low, &mut |key, value| {
            writer.row(key, value)?;
            let enough = writer.at + writer.block.len() as u64 >= config.partition_bytes;
            Ok(if enough { Enough::Yes } else { Enough::No })
        })?;
        let bytes = writer.at + writer.block.len() as u64;
        partitions.push(Partition { low, ts, rows: writer.finish()? });
        next = after;
        if let (Some(rate), Some(_)) = (config.bytes_per_second, &next) {
            let millis = bytes.saturating_mul(1000) / rate.max(1);
            pause_for(Duration::from_millis(millis), config.pause, go_on)?;
        }
    }
    Ok(partitions)
}

/// Waits so long, in pieces: whoever closes the database need not wait for a slow checkpoint.
fn pause_for(mut left: Duration, pause: fn(Duration), go_on: &dyn Fn() -> Result<()>) -> Result<()> {
    const PIECE: Duration = Duration::from_millis(100);
    while !left.is_zero() {
        go_on()?;
        pause(left.min(PIECE));
        left = left.saturating_sub(PIECE);
    }
    Ok(())
}

/// Writes a checkpoint of `source`, makes it the one that holds, and recycles the log before it.
///
/// # Errors
/// `Poisoned`; `Io`, `DiskFull`: the checkpoint before holds then, and the log is not recycled; or the new one holds,
/// and only the log was not recycled.
pub fn checkpoint(
    directory: &Directory,
    log: &Arc<Log>,
    config: &CheckpointConfig,
    source: &mut dyn Source,
) -> Result<Manifest> {
    log.process().check()?;
    let _one = directory.checkpointing()?;
    log.check()?;
    log.begin_checkpoint();
    let number = directory.manifest().checkpoint + 1;
    let manifest = publish(directory, log, number, config, source).inspect_err(|_| {
        directory.give_up_checkpoint(number);
    })?;
    let recycled = log.segments().recycle(manifest.replay_from);
    directory.remove_checkpoints(|found| found != number);
    recycled.map(|()| manifest)
}

/// Writes a checkpoint, and makes it the one that holds.
fn publish(
    directory: &Directory,
    log: &Arc<Log>,
    number: u64,
    config: &CheckpointConfig,
    source: &mut dyn Source,
) -> Result<Manifest> {
    let vfs = directory.vfs();
    let database = directory.manifest().database;
    let partitions = write_partitions(&**vfs, database, number, config, source, &|| log.check())?;
    vfs.sync_dir().map_err(WalError::io("syncing the directory of", "the checkpoint"))?;
    let oldest = partitions.iter().map(|partition| partition.ts).min().unwrap_or(Ts::ZERO);
    let (current, log_end) = log.position();
    let replay_from = log.segments().first_after(oldest, current);
    let manifest = Manifest { database, epoch: log.epoch(), checkpoint: number, replay_from, log_end, partitions };
    log.check()?;
    if mutant!("log-recycled-before-checkpoint") {
        log.segments().recycle(replay_from)?;
    }
    directory.store(manifest.clone())?;
    Ok(manifest)
}

/// Reads all partitions, on several threads; gives each row, and how many bytes were read.
pub(crate) fn load(
    vfs: &dyn Vfs,
    manifest: &Manifest,
    threads: usize,
    redo: &dyn Redo,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let load_some = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(partition) = manifest.partitions.get(index) else { return Ok(()) };
            load_partition(vfs, manifest, index, partition, redo, progress)?;
        }
    };
    on_threads(threads, load_some)
}

/// Runs `work` on so many threads; the first error, if any.
pub(crate) fn on_threads(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    if threads <= 1 {
        return work();
    }
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let outcomes = handles.into_iter().map(|handle| match handle.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        outcomes.collect()
    })
}

/// Reads one partition; gives each row, and how many bytes were read.
pub(crate) fn load_partition(
    vfs: &dyn Vfs,
    manifest: &Manifest,
    index: usize,
    partition: &Partition,
    redo: &dyn Redo,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let name = partition_name(manifest.checkpoint, index);
    let file = vfs.open(&name, OpenMode::Read).map_err(WalError::io("opening", &name))?;
    let len = file.len().map_err(WalError::io("measuring", &name))?;
    let mut reader = BlockReader { file: &*file, name: &name, len, at: 0, block: Vec::new(), blocks: 0 };
    let after = manifest.partitions.get(index.saturating_add(1));
    let mut rows = 0_u64;
    let mut take = redo.rows();
    let mut last: Option<Vec<u8>> = None;
    loop {
        let before = reader.at;
        let seed = seed(manifest.database, manifest.checkpoint, index, reader.blocks);
        let Some(block_rows) = reader.next(seed)? else {
            return reader.check_last(rows, partition.rows);
        };
        let mut fields = Fields(&reader.block);
        for _ in 0..block_rows {
            let (key, value) = read_row(&mut fields).ok_or_else(|| reader.corrupt(before, "a row makes no sense"))?;
            let in_order = last.as_deref().map_or(*key >= *partition.low, |last| key > last);
            if !in_order || after.is_some_and(|after| key >= &*after.low) {
                return Err(reader.corrupt(before, "its rows are out of order, or not of its key range"));
            }
            last.get_or_insert_default().clear();
            last.get_or_insert_default().extend_from_slice(key);
            take(key, value, partition.ts);
        }
        if !fields.0.is_empty() {
            return Err(reader.corrupt(before, "bytes are left after its rows"));
        }
        rows += u64::from(block_rows);
        progress(reader.at - before);
    }
}

fn read_row<'b>(fields: &mut Fields<'b>) -> Option<(&'b [u8], &'b [u8])> {
    let key_len = usize::try_from(fields.varint()?).ok()?;
    let key = fields.take(key_len)?;
    let value_len = usize::try_from(fields.varint()?).ok()?;
    Some((key, fields.take(value_len)?))
}

struct BlockReader<'f> {
    file: &'f dyn VfsFile,
    name: &'f str,
    len: u64,
    at: u64,
    block: Vec<u8>,
    blocks: u64,
}

impl BlockReader<'_> {
    /// Reads the next block, and tells how many rows it has; `None` for the last.
    fn next(&mut self, seed: u32) -> Result<Option<u32>> {
        let start = self.at;
        let mut header = [0; BLOCK_HEADER];
        self.fill(&mut header)?;
        let mut fields = Fields(&header);
        let numbers = fields.u32().zip(fields.u32()).zip(fields.u32());
        let ((len, rows), checksum) = numbers.ok_or_else(|| self.corrupt(start, "it is cut short"))?;
        let is_last = rows == 0;
        let body = if is_last { size_of::<u64>() as u64 } else { u64::from(len) };
        if is_last && len != 0 {
            return Err(self.corrupt(start, "a block of no rows has a length"));
        }
        // Before anything is allocated by what a length field says.
        if body > self.len.saturating_sub(self.at) {
            return Err(self.corrupt(start, "a block is cut short, or its length is wrong"));
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(usize::try_from(body).unwrap_or(0), 0);
        self.fill(&mut block)?;
        self.block = block;
        let seeded = crc32c::crc32c_append(seed, header.get(..8).unwrap_or_default());
        if crc32c::crc32c_append(seeded, &self.block) != checksum {
            return Err(self.corrupt(start, "a block's checksum is wrong"));
        }
        self.blocks += 1;
        Ok((!is_last).then_some(rows))
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        let read = read_up_to(self.file, buf, self.at).map_err(WalError::io("reading", self.name))?;
        if read < buf.len() {
            return Err(self.corrupt(self.at, "it is cut short"));
        }
        self.at += read as u64;
        Ok(())
    }

    fn check_last(&self, rows: u64, expected: u64) -> Result<()> {
        let written = Fields(&self.block).u64();
        if written != Some(rows) || rows != expected {
            return Err(self.corrupt(self.at, "rows are missing"));
        }
        if self.at == self.len { Ok(()) } else { Err(self.corrupt(self.at, "bytes are left after the last block")) }
    }

    fn corrupt(&self, at: u64, what: &'static str) -> WalError {
        WalError::corrupt(self.name, at, what)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::sim::SimFs;

    thread_local! {
        static PAUSES: RefCell<Vec<Duration>> = const { RefCell::new(Vec::new()) };
    }

    /// A state of so many rows of a thousand bytes.
    struct Thousands(u8);

    impl Source for Thousands {
        fn partition(&mut self, low: &Key, row: &mut TakeRow<'_>) -> Result<(Ts, Option<Key>)> {
            for key in low.first().copied().unwrap_or(0)..self.0 {
                if row(&[key], &[7; 1000])? == Enough::Yes {
                    return Ok((Ts(1), Some(Key::copy_from_slice(&[key + 1]))));
                }
            }
            Ok((Ts(1), None))
        }
    }

    fn paced(go_on: &dyn Fn() -> Result<()>) -> (Result<Vec<Partition>>, Duration) {
        PAUSES.take();
        let pause = |long| PAUSES.with_borrow_mut(|pauses| pauses.push(long));
        let config = CheckpointConfig { partition_bytes: 10_000, bytes_per_second: Some(20_000), pause };
        let partitions = write_partitions(&SimFs::default(), 1, 1, &config, &mut Thousands(30), go_on);
        (partitions, PAUSES.take().iter().sum())
    }

    #[test]
    fn a_checkpoint_is_no_faster_than_it_may_be() {
        let (partitions, paused) = paced(&|| Ok(()));
        assert_eq!(partitions.unwrap().len(), 4, "ten rows each, and an empty one for the end");
        let millis = paused.as_millis();
        assert!((1500..1600).contains(&millis), "30 kB at 20 kB a second, in {millis} ms");
    }

    #[test]
    fn a_slow_checkpoint_ends_when_the_log_does() {
        let asked = Cell::new(0);
        let closed_soon = || {
            asked.set(asked.get() + 1);
            if asked.get() < 3 { Ok(()) } else { Err(WalError::Closed) }
        };
        let (partitions, paused) = paced(&closed_soon);
        assert!(matches!(partitions, Err(WalError::Closed)));
        assert_eq!(paused, Duration::from_millis(200));
    }
}
