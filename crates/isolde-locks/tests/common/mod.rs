//! Records without an index: what the tests of the manager lock.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::sync::Arc;

use isolde_locks::{Handle, LockCell, SpanRecords};
use isolde_types::{Key, Span};

/// A key and its lock word.
#[derive(Clone)]
pub struct Record(Arc<(Key, LockCell)>);

impl Record {
    pub fn new(key: &'static str) -> Record {
        Record(Arc::new((Key::from_static(key.as_bytes()), LockCell::default())))
    }
}

impl Handle for Record {
    fn key(&self) -> &Key {
        &self.0.0
    }

    fn cell(&self) -> &LockCell {
        &self.0.1
    }
}

/// The records that there are.
pub struct All(pub Vec<Record>);

impl SpanRecords<Record> for All {
    fn each(&self, span: &Span, visit: &mut dyn FnMut(Record)) {
        self.0.iter().filter(|record| span.contains(record.key())).for_each(|record| visit(record.clone()));
    }
}
