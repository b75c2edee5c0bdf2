//! Rows that are read a leaf at a time: where nothing is locked, marked, certified, recorded or written by the
//! transaction itself. A scan with a limit reads no more records than rows are wanted, and so rows in vain only
//! where it is left before.

use bytes::Bytes;
use isolde_mvcc::{ReadAt, View};
use isolde_types::RowKey;
use isolde_types::sync::Arc;

use super::{End, OnLocked, ScanCore};
use crate::engine::read::Intent;
use crate::error::{Error, Result};
use crate::isolation::{Footprint, ReadView};

impl ScanCore {
    /// A row that was read ahead.
    #[inline]
    pub fn take_ready(&mut self) -> Option<(RowKey, Bytes)> {
        if self.ready.is_empty() || self.limit == Some(0) || !self.txn.is_open() {
            return None;
        }
        self.handed_out();
        self.ready.pop_front()
    }

    /// Counts a row.
    #[inline]
    pub fn handed_out(&mut self) {
        if let Some(left) = &mut self.limit {
            *left -= 1;
        }
    }

    /// Rows that can be read a leaf at a time: where nothing is locked, marked, certified, recorded or
    /// written by the transaction itself. `None` where [`next`](Self::next) must be asked.
    pub fn next_ready(&mut self) -> Option<Result<(RowKey, Bytes)>> {
        if !self.ready.is_empty() {
            return Some(self.txn.check_open().and_then(|()| self.ready.pop_front().ok_or(Error::TransactionEnded)));
        }
        if !self.reads_leaves {
            return None;
        }
        if let Err(poisoned) = self.not_left_behind() {
            return Some(Err(poisoned));
        }
        if self.near.is_none() {
            self.open_leaves().ok()?;
        }
        let ScanCore { txn, near, ready, statement, .. } = self;
        let at = ReadAt::At(statement.as_ref().map_or_else(|| txn.read_ts(), View::ts));
        // Inside the gate while leaves are read: the view stays registered as long.
        let inside = txn.step_inside().ok()?;
        let mut more = true;
        while more && ready.is_empty() {
            more = txn.core.store.next_rows(near.as_mut()?, at, self.limit, ready);
        }
        drop(inside);
        if !more {
            // What is left, if anything, is for `next`: it knows how to end.
            self.reads_leaves = false;
            self.near = None;
        }
        self.ready.pop_front().map(Ok)
    }

    /// Opens the whole span as one chunk.
    fn open_leaves(&mut self) -> Result<()> {
        let txn = Arc::clone(&self.txn);
        let _inside = txn.step_inside()?;
        self.start()?;
        self.near = Some(txn.core.store.cursor(&self.span));
        Ok(())
    }

    /// Decides, at the first call, whether rows can be read a leaf at a time.
    pub fn decide(&mut self, end: End) {
        let plain = self.intent == Intent::Plain && self.on_locked == OnLocked::Wait;
        let policy = self.txn.policy;
        let consistent = matches!(policy.view, ReadView::Snapshot | ReadView::Statement);
        let free = policy.certify == Footprint::Nothing && !self.txn.core.tap.is_open();
        let unwritten = self.own.is_empty() && !self.txn.has_in_flight();
        self.reads_leaves = end == End::Front && !self.started && plain && consistent && free && unwritten;
    }
}
