//! What a log is measured against: bare writes and syncs, by one thread, or shared by many.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::durable::RECORD_BYTES;

const FILE_BYTES: u64 = 64 << 20;
const BLOCK: u64 = 4096;

/// Writes and perhaps syncs a record at a time.
pub(crate) struct Bare {
    file: File,
    at: u64,
    buffer: Vec<u8>,
}

impl Bare {
    pub fn new(folder: &Path, name: &str) -> Bare {
        let options = OpenOptions::new().create(true).truncate(true).write(true).open(folder.join(name));
        let mut file = options.expect("the folder can be written");
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES / zeros.len() as u64 {
            file.write_all(&zeros).expect("there is space");
        }
        file.sync_all().expect("the disk syncs");
        Bare { file, at: 0, buffer: vec![7; RECORD_BYTES] }
    }

    pub fn write(&mut self, step: u64) {
        self.file.write_all_at(&self.buffer, self.at).expect("the file can be written");
        self.at = (self.at + step) % (FILE_BYTES - BLOCK);
    }

    pub fn write_and_sync(&mut self) {
        self.write(BLOCK);
        self.file.sync_data().expect("the disk syncs");
    }
}

/// Threads that share syncs: who comes while one is under way waits for the next, and the first of them
/// makes it.
pub(crate) struct Crowd {
    bare: Mutex<Bare>,
    queue: Mutex<Queue>,
    /// The syncs that are over, told to those who wait for an even one, for an odd one, and for their turn.
    over: [Bell; 3],
    turn: Mutex<Turn>,
}

#[derive(Default)]
struct Queue {
    begun: u64,
    syncing: bool,
    has_leader: bool,
}

/// A number that grows.
#[derive(Default)]
struct Bell(Mutex<u64>, Condvar);

/// A lock that is handed on in the order in which threads came.
#[derive(Default)]
struct Turn {
    taken: bool,
    waiters: VecDeque<Arc<Bell>>,
}

const LEADER: usize = 2;

fn latch<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics")
}

impl Bell {
    fn wait(&self, number: u64) {
        let rung = latch(&self.0);
        drop(self.1.wait_while(rung, |rung| *rung < number).expect("nobody panics"));
    }

    fn ring(&self, number: u64) {
        *latch(&self.0) = number;
        self.1.notify_all();
    }
}

impl Crowd {
    pub fn new(bare: Bare) -> Crowd {
        Crowd { bare: Mutex::new(bare), queue: Mutex::default(), over: Default::default(), turn: Mutex::default() }
    }

    /// Returns after a sync that began after the call.
    pub fn sync(&self) {
        let mut queue = latch(&self.queue);
        let mine = queue.begun + 1;
        if queue.syncing {
            let follows = std::mem::replace(&mut queue.has_leader, true);
            drop(queue);
            if follows {
                return self.over[usize::from(mine % 2 == 1)].wait(mine);
            }
            self.over[LEADER].wait(mine - 1);
            queue = latch(&self.queue);
        }
        (queue.syncing, queue.has_leader, queue.begun) = (true, false, mine);
        drop(queue);
        latch(&self.bare).write_and_sync();
        let mut queue = latch(&self.queue);
        queue.syncing = queue.has_leader; // whoever waits for its turn goes on
        drop(queue);
        self.over[LEADER].ring(mine);
        self.over[usize::from(mine % 2 == 1)].ring(mine);
    }

    /// The same, after it has held a lock that all threads want.
    pub fn take_turns_and_sync(&self) {
        let mut turn = latch(&self.turn);
        if turn.taken {
            let bell = Arc::new(Bell::default());
            turn.waiters.push_back(Arc::clone(&bell));
            drop(turn);
            bell.wait(1);
        } else {
            turn.taken = true;
            drop(turn);
        }
        let next = {
            let mut turn = latch(&self.turn);
            let next = turn.waiters.pop_front();
            turn.taken = next.is_some();
            next
        };
        if let Some(bell) = next {
            bell.ring(1);
        }
        self.sync();
    }
}
