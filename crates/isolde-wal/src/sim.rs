//! A simulated disk: what was not synced is lost, torn and reordered, and anything fails when it is told
//! to. For tests alone.
//!
//! A [`SimFs`] is one directory. Each file has the bytes that are on disk, the writes since its last sync,
//! and what a reader sees; names have what is on disk and the changes since the last sync of the
//! directory; the directory itself, which was just made, is on disk when the one above it was synced.
//! [`SimFs::crash`] gives what a power cut may leave: of every pending write each 512-byte
//! sector is kept, dropped, torn or (rarely) garbage, each by itself, so later ones may survive without
//! earlier ones; of the directory's changes each is kept or dropped. [`SimFs::kill`] gives what the end of
//! the process leaves: everything, synced or not, and still unsynced.
//!
//! All is decided by the seed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use isolde_types::sync::{Arc, Mutex};

use crate::vfs::{OpenMode, Vfs, VfsFile};

const SECTOR: usize = 512;

/// See the module. A clone is another handle to the same disk.
#[derive(Clone)]
pub struct SimFs {
    state: Arc<Mutex<Disk>>,
}

#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    names_on_disk: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    /// The directory's own name is on disk.
    stands: bool,
    locked: bool,
    operations: u64,
    per_kind: [u64; 7],
    /// The machine has no power: everything fails.
    dead: bool,
    dies_at: Option<u64>,
    faults: Vec<Fault>,
    quota: Option<u64>,
    rng: u64,
}

#[derive(Clone, Default)]
struct Inode {
    /// What a reader sees.
    seen: Vec<u8>,
    on_disk: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

/// What is done to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A file is made.
    Create,
    /// Bytes are written.
    Write,
    /// A file is synced.
    Sync,
    /// A file gets another name.
    Rename,
    /// A file is removed.
    Remove,
    /// The directory is synced.
    SyncDir,
    /// The directory above is synced.
    SyncParent,
}

/// What a failing operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It does nothing and says that the disk is broken.
    Io,
    /// It does nothing and says that the disk is full.
    Full,
    /// A write that takes half of the bytes and says so.
    Short,
    /// A sync that says it failed, and has dropped what was written since the last one; of a directory, what was
    /// created, renamed and removed.
    SyncDrops,
    /// A sync that says it failed, and what was written is still to be synced.
    SyncKeeps,
    /// A sync that says it failed; what was written can be read and counts as clean, but no later sync
    /// writes it, and the next power cut loses it. (Linux; Rebello et al., ATC 2020.) Of a directory the same
    /// befalls its names.
    SyncPretends,
}

#[derive(Clone, Copy)]
struct Fault {
    kind: Kind,
    nth: u64,
    failure: Failure,
}

/// What a power cut has left.
pub struct Image {
    /// The disk.
    pub disk: SimFs,
    /// Something that was pending was lost, while something later survived.
    pub interesting: bool,
}

fn failed_sync() -> io::Error {
    io::Error::other("simulated failure of a sync")
}

fn power_cut() -> io::Error {
    io::Error::other("power cut")
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new(0)
    }
}

impl SimFs {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> SimFs {
        Self::of(Disk { rng: seed, ..Disk::default() })
    }

    fn of(disk: Disk) -> SimFs {
        SimFs { state: Arc::new(Mutex::new(disk)) }
    }

    /// How many operations were done: creating, writing, syncing, renaming, removing.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// How many operations of a kind were done.
    #[must_use]
    pub fn operations_of(&self, kind: Kind) -> u64 {
        self.state.lock().per_kind[kind as usize]
    }

    /// The power goes at the `nth` operation from now on, which may be half done; 0 is the next one.
    pub fn crash_at(&self, nth: u64) {
        let mut disk = self.state.lock();
        disk.dies_at = Some(disk.operations + nth);
    }

    /// The `nth` operation of this kind from now on fails; 0 is the next one.
    pub fn fail(&self, kind: Kind, nth: u64, failure: Failure) {
        let mut disk = self.state.lock();
        let nth = disk.per_kind[kind as usize] + nth;
        disk.faults.push(Fault { kind, nth, failure });
    }

    /// From now on files may hold so many bytes in all.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.state.lock().quota = bytes;
    }

    /// What a power cut now may leave; this disk is dead from then on.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Image {
        let mut old = self.state.lock();
        old.dead = true;
        let mut rng = fastrand::Rng::with_seed(seed);
        // Some cuts lose nearly everything, some nearly nothing.
        let keep = [0.1, 0.5, 0.5, 0.5, 0.9, 1.0][rng.usize(..6)];
        let mut lost = false;
        let mut interesting = false;
        let inodes =
            old.inodes.iter().map(|inode| inode.after_cut(keep, &mut rng, &mut lost, &mut interesting)).collect();
        let mut names = old.names_on_disk.clone();
        for change in &old.pending_names {
            if rng.f64() < keep {
                interesting |= lost;
                change.apply(&mut names);
            } else {
                lost = true;
            }
        }
        if !old.stands && rng.f64() >= keep {
            // The directory is gone, and who opens it makes an empty one.
            names.clear();
            interesting = true;
        }
        let disk = Disk {
            inodes,
            names: names.clone(),
            names_on_disk: names,
            stands: old.stands,
            rng: seed,
            ..Disk::default()
        };
        Image { disk: Self::of(disk), interesting }
    }

    /// What the end of the process leaves: all that was written, still unsynced. This disk is dead from
    /// then on.
    #[must_use]
    pub fn kill(&self) -> SimFs {
        let mut old = self.state.lock();
        let disk = Disk {
            locked: false,
            operations: 0,
            per_kind: [0; 7],
            dead: false,
            dies_at: None,
            faults: Vec::new(),
            ..old.clone()
        };
        old.dead = true;
        Self::of(disk)
    }

    /// The same disk, as if nothing had happened, on its own.
    #[must_use]
    pub fn copy(&self) -> SimFs {
        Self::of(Disk { locked: false, ..self.state.lock().clone() })
    }

    /// The bytes of a file, as a reader sees them.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.state.lock();
        Some(disk.inodes[*disk.names.get(name)?].seen.clone())
    }

    /// Damages a file, or makes one: these are its bytes from now on, on disk.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.state.lock();
        disk.inodes.push(Inode { seen: bytes.clone(), on_disk: bytes, pending: Vec::new() });
        let inode = disk.inodes.len() - 1;
        disk.names.insert(name.to_owned(), inode);
        disk.names_on_disk.insert(name.to_owned(), inode);
    }

    /// Names and bytes of all files, as one number: for counting distinct images.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let disk = self.state.lock();
        let mut hasher = DefaultHasher::new();
        for (name, inode) in &disk.names {
            name.hash(&mut hasher);
            disk.inodes[*inode].seen.hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Inode {
    fn after_cut(&self, keep: f64, rng: &mut fastrand::Rng, lost: &mut bool, interesting: &mut bool) -> Inode {
        let mut bytes = self.on_disk.clone();
        for (offset, data) in &self.pending {
            let mut at = *offset;
            let mut rest = &data[..];
            while !rest.is_empty() {
                // Sectors are those of the file, wherever the write began.
                let (sector, after) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                if rng.f64() < keep {
                    *interesting |= *lost;
                    put(&mut bytes, at, sector);
                } else {
                    *lost = true;
                    match rng.u8(..20) {
                        0 => put(&mut bytes, at, &sector[..rng.usize(..=sector.len())]),
                        1 => put(&mut bytes, at, &vec![rng.u8(..); sector.len()]),
                        // Space without bytes: the length was written, and they were not.
                        2 if at + sector.len() > bytes.len() => bytes.resize(at + sector.len(), 0),
                        _ => {}
                    }
                }
                at += sector.len();
                rest = after;
            }
        }
        Inode { seen: bytes.clone(), on_disk: bytes, pending: Vec::new() }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            NameChange::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

impl Disk {
    /// Counts an operation; what is to go wrong with it.
    fn begin(&mut self, kind: Kind) -> io::Result<Option<Failure>> {
        if self.dead {
            return Err(power_cut());
        }
        let nth = self.per_kind[kind as usize];
        self.per_kind[kind as usize] += 1;
        self.operations += 1;
        let failure =
            self.faults.iter().find(|fault| fault.kind == kind && fault.nth == nth).map(|fault| fault.failure);
        match failure {
            Some(Failure::Io) => Err(io::Error::other("simulated I/O error")),
            Some(Failure::Full) => Err(io::ErrorKind::StorageFull.into()),
            failure => Ok(failure),
        }
    }

    /// Whether the power goes in the middle of the operation that was begun.
    fn dies_now(&mut self) -> bool {
        self.dead = self.dies_at.is_some_and(|at| self.operations > at);
        self.dead
    }

    fn random(&mut self, below: usize) -> usize {
        let mut rng = fastrand::Rng::with_seed(self.rng);
        self.rng = rng.u64(..);
        rng.usize(..=below)
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl Vfs for SimFs {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn VfsFile>> {
        let mut disk = self.state.lock();
        if disk.dead {
            return Err(power_cut());
        }
        let found = disk.names.get(name).copied();
        let inode = match (mode, found) {
            (OpenMode::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, None) => {
                disk.begin(Kind::Create)?;
                if disk.dies_now() {
                    return Err(power_cut());
                }
                disk.inodes.push(Inode::default());
                let inode = disk.inodes.len() - 1;
                disk.change_name(NameChange::Link(name.to_owned(), inode));
                inode
            }
            (_, Some(inode)) => inode,
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.state.lock();
        disk.begin(Kind::Rename)?;
        let inode = *disk.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        if disk.dies_now() {
            return Err(power_cut());
        }
        disk.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.state.lock();
        if !disk.dead && !disk.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.begin(Kind::Remove)?;
        if disk.dies_now() {
            return Err(power_cut());
        }
        disk.change_name(NameChange::Unlink(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let disk = self.state.lock();
        if disk.dead { Err(power_cut()) } else { Ok(disk.names.keys().cloned().collect()) }
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.state.lock();
        let failure = disk.begin(Kind::SyncDir)?;
        if disk.dies_now() {
            return Err(power_cut());
        }
        match failure {
            None => {
                let Disk { names_on_disk, pending_names, .. } = &mut *disk;
                pending_names.drain(..).for_each(|change| change.apply(names_on_disk));
                return Ok(());
            }
            Some(Failure::SyncDrops) => {
                disk.pending_names.clear();
                disk.names = disk.names_on_disk.clone();
            }
            Some(Failure::SyncPretends) => disk.pending_names.clear(),
            Some(_) => {}
        }
        Err(failed_sync())
    }

    fn sync_parent(&self) -> io::Result<()> {
        let mut disk = self.state.lock();
        let failure = disk.begin(Kind::SyncParent)?;
        if disk.dies_now() {
            return Err(power_cut());
        }
        if failure.is_some() {
            return Err(failed_sync());
        }
        disk.stands = true;
        Ok(())
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut disk = self.state.lock();
        if disk.dead {
            return Err(power_cut());
        }
        if std::mem::replace(&mut disk.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Locked(self.clone()))))
    }

    fn describe(&self) -> String {
        "simulated disk".to_owned()
    }
}

struct Locked(SimFs);

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.state.lock().locked = false;
    }
}

struct SimFile {
    disk: SimFs,
    inode: usize,
}

impl VfsFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk.state.lock();
        if disk.dead {
            return Err(power_cut());
        }
        let seen = &disk.inodes[self.inode].seen;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(seen.len());
        let len = buf.len().min(seen.len() - from);
        buf[..len].copy_from_slice(&seen[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.state.lock();
        let failure = disk.begin(Kind::Write)?;
        let mut len = if failure == Some(Failure::Short) { buf.len().div_ceil(2) } else { buf.len() };
        let dies = disk.dies_now();
        if dies {
            len = disk.random(len);
        }
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let used: usize = disk.names.values().map(|inode| disk.inodes[*inode].seen.len()).sum();
        let grows = (at + len).saturating_sub(disk.inodes[self.inode].seen.len());
        if grows > 0 && disk.quota.is_some_and(|quota| (used + grows) as u64 > quota) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut disk.inodes[self.inode];
        put(&mut inode.seen, at, &buf[..len]);
        inode.pending.push((at, buf[..len].to_vec()));
        if dies { Err(power_cut()) } else { Ok(len) }
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.disk.state.lock();
        if disk.dead { Err(power_cut()) } else { Ok(disk.inodes[self.inode].seen.len() as u64) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.state.lock();
        let failure = disk.begin(Kind::Sync)?;
        if disk.dies_now() {
            return Err(power_cut());
        }
        let inode = &mut disk.inodes[self.inode];
        match failure {
            None => {
                for (at, data) in std::mem::take(&mut inode.pending) {
                    put(&mut inode.on_disk, at, &data);
                }
                return Ok(());
            }
            Some(Failure::SyncDrops) => {
                inode.pending.clear();
                inode.seen = inode.on_disk.clone();
            }
            Some(Failure::SyncPretends) => inode.pending.clear(),
            Some(_) => {}
        }
        Err(failed_sync())
    }
}
