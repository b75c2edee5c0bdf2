//! An engine without control: a map written in place. No locks, no versions, no snapshots.
//!
//! It exists so that the schedules can be trusted. A schedule that shows its anomaly here shows it
//! because of what the transactions do, not because of how some engine works; one that shows nothing
//! here could prove nothing anywhere.
//!
//! ```text
//!           map                T1's undo list
//!   start   x = 10 (initial)
//!   T1: put x 11    x = 11 (T1)        x = 10 (initial)
//!   T2: put x 12    x = 12 (T2)        x = 10 (initial)
//!   T1: rollback    x = 10 (initial)   T2's write is gone: P0-undo
//! ```
//!
//! - A write replaces the value that stands there, whoever wrote it; a read takes what stands there.
//! - A rollback writes back what each write had found, latest first.
//! - `increment`, `merge` and `cas` are what careless code does: a get and, at the transaction's next
//!   step, a put. Locks are not taken; `get-for-update` is a get.
//! - The history is honest: a read names the write it saw, the version order of a key is the order in
//!   which it was written.

use std::collections::{BTreeMap, HashMap};
use std::task::{Context, Poll};

use bytes::Bytes;
use isolde_history::model::{Event, History, ReadKind, Row, TxnKey, Version};
use isolde_history::schedule::{Begin, Database, Failure, FailureClass, Operation, Output, Schedule, Swap};
use isolde_types::{Key, Ts};

use crate::numbers;

/// The engine without control, under one schedule.
#[derive(Debug)]
pub struct Uncontrolled {
    map: BTreeMap<Key, Slot>,
    txns: HashMap<usize, Txn>,
    started: HashMap<usize, Operation<Bytes>>,
    history: History,
    order: BTreeMap<Key, Vec<(TxnKey, u32)>>,
}

/// What stands in the map at a key, and who wrote it; a deleted key stays as a tombstone.
#[derive(Clone, Debug)]
struct Slot {
    value: Option<Bytes>,
    writer: Option<(TxnKey, u32)>,
}

#[derive(Debug)]
struct Txn {
    key: TxnKey,
    writes: u32,
    undo: Vec<Undo>,
    savepoints: Vec<(String, u32)>,
    /// What an increment, merge or cas computed and has not written yet.
    later: Option<(Key, Option<Bytes>)>,
}

/// What a write found.
#[derive(Debug)]
struct Undo {
    seq: u32,
    key: Key,
    found: Option<Slot>,
}

impl Uncontrolled {
    /// The engine, holding the initial state of a schedule.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        let slot = |value: &Bytes| Slot { value: Some(value.clone()), writer: None };
        Uncontrolled {
            map: schedule.initial.iter().map(|(key, value)| (key.clone(), slot(value))).collect(),
            txns: HashMap::new(),
            started: HashMap::new(),
            history: History { initial: schedule.initial.clone(), ..History::default() },
            order: BTreeMap::new(),
        }
    }

    fn run(&mut self, txn: &mut Txn, operation: &Operation<Bytes>) -> Result<Output, Failure> {
        if let Some((key, value)) = txn.later.take() {
            self.write(txn, &key, value);
        }
        match operation {
            Operation::Get(key) | Operation::GetForUpdate(key) => return Ok(Output::Value(self.read(txn, key))),
            Operation::Scan(place) => return Ok(Output::Rows(self.scan(txn, place.span()))),
            Operation::Put(key, value) => self.write(txn, key, Some(value.clone())),
            Operation::Delete(key) => self.write(txn, key, None),
            Operation::Insert(key, value) => self.insert(txn, key, value)?,
            Operation::Increment(key, by) => {
                let sum = numbers::add(self.read(txn, key).as_deref(), *by).map_err(refused)?;
                txn.later = Some((key.clone(), Some(sum)));
            }
            Operation::Merge { operator, key, value } => {
                let merged = numbers::merge(operator, self.read(txn, key).as_deref(), value).map_err(refused)?;
                txn.later = Some((key.clone(), Some(merged)));
            }
            Operation::CompareAndSet { key, old, new } => {
                let found = self.read(txn, key);
                if found != *old {
                    return Ok(Output::CompareAndSet { found, swap: Swap::Refused });
                }
                txn.later = Some((key.clone(), new.clone()));
                return Ok(Output::CompareAndSet { found, swap: Swap::Done });
            }
            Operation::Savepoint(name) => txn.savepoints.push((name.clone(), txn.writes)),
            Operation::RollbackTo(name) => self.rollback_to(txn, name)?,
            Operation::Commit => {
                self.history.events.push(Event::Commit { txn: txn.key, ts: None, resolved: Vec::new() });
            }
            Operation::Rollback => {
                self.undo(txn, 0);
                self.history.events.push(Event::Abort { txn: txn.key });
            }
            Operation::Lock(_) => {}
        }
        Ok(Output::Done)
    }

    fn read(&mut self, txn: &Txn, key: &Key) -> Option<Bytes> {
        let slot = self.map.get(key);
        let version = slot.map_or(Version::None, |slot| slot.version_for(txn.key));
        let value = slot.and_then(|slot| slot.value.clone());
        self.history.events.push(Event::Read {
            txn: txn.key,
            key: key.clone(),
            version,
            value: value.clone(),
            kind: ReadKind::Tracked,
            as_of: None,
        });
        value
    }

    fn scan(&mut self, txn: &Txn, span: isolde_types::Span) -> Vec<(Key, Bytes)> {
        let row = |(key, slot): (&Key, &Slot)| Row {
            key: key.clone(),
            version: slot.version_for(txn.key),
            value: slot.value.clone(),
        };
        let rows: Vec<Row> = self.map.iter().filter(|(key, _)| span.contains(key)).map(row).collect();
        let found = rows.iter().filter_map(|row| Some((row.key.clone(), row.value.clone()?))).collect();
        self.history.events.push(Event::Scan { txn: txn.key, span, rows, kind: ReadKind::Tracked, as_of: None });
        found
    }

    fn insert(&mut self, txn: &mut Txn, key: &Key, value: &Bytes) -> Result<(), Failure> {
        if self.read(txn, key).is_some() {
            return Err(refused(format!("{} exists already", isolde_types::escape_key(key))));
        }
        self.write(txn, key, Some(value.clone()));
        Ok(())
    }

    fn write(&mut self, txn: &mut Txn, key: &Key, value: Option<Bytes>) {
        txn.writes += 1;
        let slot = Slot { value: value.clone(), writer: Some((txn.key, txn.writes)) };
        let found = self.map.insert(key.clone(), slot);
        txn.undo.push(Undo { seq: txn.writes, key: key.clone(), found });
        self.order.entry(key.clone()).or_default().push((txn.key, txn.writes));
        let write = Event::Write { txn: txn.key, key: key.clone(), seq: txn.writes, value, blind: false };
        self.history.events.push(write);
    }

    fn rollback_to(&mut self, txn: &mut Txn, name: &str) -> Result<(), Failure> {
        let found = txn.savepoints.iter().rposition(|(known, _)| known == name);
        let index = found.ok_or_else(|| refused(format!("there is no savepoint {name}")))?;
        txn.savepoints.truncate(index + 1);
        let seq = txn.savepoints[index].1;
        self.undo(txn, seq);
        self.history.events.push(Event::RollbackTo { txn: txn.key, seq });
        Ok(())
    }

    /// Writes back what the writes after `seq` had found, latest first.
    fn undo(&mut self, txn: &mut Txn, seq: u32) {
        while let Some(undo) = txn.undo.pop_if(|undo| undo.seq > seq) {
            match undo.found {
                Some(slot) => self.map.insert(undo.key, slot),
                None => self.map.remove(&undo.key),
            };
        }
    }
}

impl Slot {
    fn version_for(&self, reader: TxnKey) -> Version {
        match self.writer {
            None => Version::Committed(Ts::ZERO),
            Some((txn, seq)) if txn == reader => Version::Own(seq),
            Some((txn, seq)) => Version::InFlight { txn, seq },
        }
    }
}

fn refused(message: String) -> Failure {
    Failure { class: FailureClass::Refused, message, ended: false }
}

impl Database for Uncontrolled {
    fn begin(&mut self, txn: usize, begin: &Begin<'_>) -> Result<(), Failure> {
        let key = TxnKey(txn as u64 + 1);
        let state = Txn { key, writes: 0, undo: Vec::new(), savepoints: Vec::new(), later: None };
        self.txns.insert(txn, state);
        self.history.events.push(Event::Begin {
            txn: key,
            name: begin.name.to_owned(),
            isolation: begin.isolation,
            mode: begin.mode,
            read_only: begin.read_only,
        });
        Ok(())
    }

    fn start(&mut self, txn: usize, operation: &Operation<Bytes>) {
        self.started.insert(txn, operation.clone());
    }

    fn poll(&mut self, txn: usize, _: &mut Context<'_>) -> Poll<Result<Output, Failure>> {
        let (operation, state) = (self.started.remove(&txn), self.txns.remove(&txn));
        let (Some(operation), Some(mut state)) = (operation, state) else {
            return Poll::Ready(Err(refused("nothing was started".to_owned())));
        };
        let result = self.run(&mut state, &operation);
        self.txns.insert(txn, state);
        Poll::Ready(result)
    }

    fn history(&mut self) -> History {
        let order = std::mem::take(&mut self.order).into_iter().collect();
        History { order, ..std::mem::take(&mut self.history) }
    }

    fn final_state(&mut self) -> BTreeMap<Key, Bytes> {
        self.map.iter().filter_map(|(key, slot)| Some((key.clone(), slot.value.clone()?))).collect()
    }
}
