//! The manifest: which checkpoint holds, and where redo begins.
//!
//! It is replaced as a whole: written under another name, synced, renamed, and the directory synced.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use bytes::Bytes;
use isolde_types::{Key, Ts, mutant};

use crate::error::{Result, WalError};
use crate::format::{Fields, Lsn, VERSION, is_plausible, put_varint};
use crate::vfs::{OpenMode, Vfs, read_file, write_all_at};

pub(crate) const MANIFEST: &str = "MANIFEST";
pub(crate) const NEW_MANIFEST: &str = "MANIFEST.new";
const MAGIC: [u8; 8] = *b"ISOLDMAN";
/// Many more partitions than are ever made.
const LIMIT: u64 = 64 << 20;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Manifest {
    /// A random number given at creation; every file carries it.
    pub database: u64,
    /// The largest epoch that was begun when this was written, or an earlier one.
    pub epoch: u64,
    /// The checkpoint's number; 0 where there is none.
    pub checkpoint: u64,
    /// Redo begins with this segment; earlier ones are not needed.
    pub replay_from: u64,
    /// The log reaches at least to here, or something of it was lost.
    pub log_end: Lsn,
    /// The checkpoint's parts, in key order; the first begins at the empty key.
    pub partitions: Vec<Partition>,
}

/// A part of a checkpoint: the rows from `low` to the next partition's, as of `ts`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its first key.
    pub low: Key,
    /// Its rows are the state at this time; redo applies what is newer.
    pub ts: Ts,
    /// How many rows it has.
    pub rows: u64,
}

impl Manifest {
    /// The newest state of which the checkpoint holds anything.
    #[must_use]
    pub fn checkpoint_ts(&self) -> Ts {
        self.partitions.iter().map(|partition| partition.ts).max().unwrap_or(Ts::ZERO)
    }

    /// Up to when the checkpoint holds a key's changes.
    #[must_use]
    pub fn ts_of(&self, key: &[u8]) -> Ts {
        let after = self.partitions.partition_point(|partition| partition.low <= key);
        after.checked_sub(1).and_then(|at| self.partitions.get(at)).map_or(Ts::ZERO, |partition| partition.ts)
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.database, self.epoch, self.checkpoint, self.replay_from, self.log_end.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_varint(&mut out, self.partitions.len() as u64);
        for Partition { low, ts, rows } in &self.partitions {
            put_varint(&mut out, low.len() as u64);
            out.extend_from_slice(low);
            put_varint(&mut out, ts.0);
            put_varint(&mut out, *rows);
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// `Corruption`, `VersionMismatch`.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        let corrupt = |what| WalError::corrupt(MANIFEST, 0, what);
        let (rest, checksum) = bytes.split_last_chunk::<4>().ok_or_else(|| corrupt("it is cut short"))?;
        if crc32c::crc32c(rest).to_le_bytes() != *checksum {
            return Err(corrupt("the checksum is wrong"));
        }
        let mut fields = Fields(rest);
        let magic: Option<[u8; 8]> = fields.array();
        match (magic == Some(MAGIC)).then(|| fields.u32()).flatten() {
            Some(VERSION) => {}
            Some(found) => {
                return Err(WalError::VersionMismatch { file: MANIFEST.into(), found, supported: VERSION });
            }
            None => return Err(corrupt("it is no manifest")),
        }
        Self::decode_fields(fields).ok_or_else(|| corrupt("its fields make no sense"))
    }

    fn decode_fields(mut fields: Fields<'_>) -> Option<Manifest> {
        let mut manifest = Manifest {
            database: fields.u64()?,
            epoch: fields.u64()?,
            checkpoint: fields.u64()?,
            replay_from: fields.u64()?,
            log_end: Lsn(fields.u64()?),
            partitions: Vec::new(),
        };
        for _ in 0..fields.varint()? {
            let key_len = usize::try_from(fields.varint()?).ok()?;
            let low = Bytes::copy_from_slice(fields.take(key_len)?);
            let (ts, rows) = (Ts(fields.varint()?), fields.varint()?);
            // The first begins at the empty key, so that each key belongs to one.
            let in_order = manifest.partitions.last().map_or(low.is_empty(), |last| last.low < low);
            // At time 0 there was nothing yet.
            let has_time = rows == 0 || ts > Ts::ZERO;
            if !(in_order && has_time && is_plausible(ts.0)) {
                return None;
            }
            manifest.partitions.push(Partition { low, ts, rows });
        }
        let numbers = [manifest.epoch, manifest.checkpoint, manifest.replay_from, manifest.log_end.0];
        let makes_sense = numbers.into_iter().all(is_plausible)
            && (manifest.checkpoint == 0) == manifest.partitions.is_empty()
            && fields.0.is_empty();
        makes_sense.then_some(manifest)
    }

    /// Reads the directory's manifest; `None` where there is none.
    ///
    /// # Errors
    /// `Corruption`, `VersionMismatch`, `Io`.
    pub fn load(vfs: &dyn Vfs) -> Result<Option<Manifest>> {
        let file = match vfs.open(MANIFEST, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WalError::io("opening", MANIFEST)(error)),
        };
        let bytes = read_file(&*file, LIMIT).map_err(WalError::io("reading", MANIFEST))?;
        Self::decode(&bytes).map(Some)
    }

    /// Makes this the directory's manifest. When it returns, it survives a power cut.
    ///
    /// # Errors
    /// `Io`, `DiskFull`: the old one or the new one holds then.
    pub fn store(&self, vfs: &dyn Vfs) -> Result<()> {
        self.prepare(vfs)?;
        Self::replace(vfs)
    }

    /// Writes it beside the one that holds, which goes on to do so.
    pub(crate) fn prepare(&self, vfs: &dyn Vfs) -> Result<()> {
        write_new(vfs, NEW_MANIFEST, &self.encode())
    }

    /// Puts the prepared one in place. After a failure either may hold.
    pub(crate) fn replace(vfs: &dyn Vfs) -> Result<()> {
        vfs.rename(NEW_MANIFEST, MANIFEST).map_err(WalError::io("renaming", NEW_MANIFEST))?;
        if mutant!("manifest-renamed-without-dir-sync") {
            return Ok(());
        }
        vfs.sync_dir().map_err(WalError::io("syncing the directory of", MANIFEST))
    }
}

/// Writes a whole file, synced, in place of any that has its name.
pub(crate) fn write_new(vfs: &dyn Vfs, name: &str, bytes: &[u8]) -> Result<()> {
    let file = create(vfs, name)?;
    write_all_at(&*file, bytes, 0).map_err(WalError::io("writing", name))?;
    if mutant!("checkpoint-renamed-without-sync") {
        return Ok(());
    }
    file.sync().map_err(WalError::io("syncing", name))
}

/// Creates a file, in place of any that has its name.
pub(crate) fn create(vfs: &dyn Vfs, name: &str) -> Result<Box<dyn crate::vfs::VfsFile>> {
    match vfs.remove(name) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(WalError::io("removing", name)(error));
        }
        _ => {}
    }
    vfs.open(name, OpenMode::CreateNew).map_err(WalError::io("creating", name))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let partition = |low: &'static str, ts| Partition { low: low.into(), ts: Ts(ts), rows: 9 };
        Manifest {
            database: 1,
            epoch: 2,
            checkpoint: 3,
            replay_from: 4,
            log_end: Lsn(5),
            partitions: vec![partition("", 10), partition("m", 12)],
        }
    }

    #[test]
    fn it_comes_back_and_every_flipped_bit_is_noticed() {
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&broken).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn fields_that_make_no_sense_are_refused() {
        let change = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            Manifest::decode(&manifest.encode())
        };
        assert!(change(&|_| {}).is_ok());
        assert!(change(&|manifest| manifest.partitions[0].low = "a".into()).is_err(), "keys before the first");
        assert!(change(&|manifest| manifest.partitions[1].low = Key::new()).is_err(), "keys in two partitions");
        assert!(change(&|manifest| manifest.partitions[0].ts = Ts::ZERO).is_err(), "rows before every commit");
        assert!(change(&|manifest| manifest.partitions[0].ts = Ts::MAX).is_err(), "nothing comes after it");
        assert!(change(&|manifest| manifest.partitions.clear()).is_err(), "a checkpoint without partitions");
        assert!(change(&|manifest| manifest.checkpoint = 0).is_err(), "partitions of no checkpoint");
        assert!(change(&|manifest| manifest.epoch = u64::MAX).is_err(), "no epoch after it");
    }

    #[test]
    fn each_key_belongs_to_one_partition() {
        let manifest = manifest();
        let of = |key: &str| manifest.ts_of(key.as_bytes());
        assert_eq!((of(""), of("l"), of("m"), of("z")), (Ts(10), Ts(10), Ts(12), Ts(12)));
        assert_eq!(Manifest::default().ts_of(b"a"), Ts::ZERO);
    }
}
