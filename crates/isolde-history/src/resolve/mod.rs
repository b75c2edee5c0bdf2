//! From events to versions: who wrote which version of each key, in which order, and which version
//! each read saw.
//!
//! Keys and transactions are numbers here: a key's number is its place among the sorted keys, a
//! transaction's its place in the order of beginning. All versions stand in one list, those of a key
//! side by side, so that nothing is looked up by name where every operation passes.

mod reads;
mod transactions;
mod versions;

use bytes::Bytes;
use isolde_types::{Isolation, Key, Ts};

use crate::model::History;
pub(crate) use versions::{Partial, VersionRec, Versions};

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Committed,
    Aborted,
    Unknown,
}

/// A write within a transaction.
#[derive(Clone, Debug)]
pub(crate) struct WriteRec<'h> {
    pub key: usize,
    pub seq: u32,
    pub value: Option<&'h Bytes>,
    pub blind: bool,
    pub undone: bool,
}

/// A read of one key, with the version that it was found to be.
#[derive(Clone, Debug)]
pub(crate) struct ReadRec<'h> {
    pub key: usize,
    pub seen: Seen,
    pub value: Option<&'h Bytes>,
    pub tracked: bool,
    /// Whether the key was read by name, or returned as a row; else a scan found it absent.
    pub item: bool,
}

/// What a read saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// The version at this place in the key's order.
    Version(usize),
    /// A write that never became a version: of this transaction, undone or of an aborted one.
    Aborted(usize),
    /// A write that its transaction overwrote itself.
    Intermediate(usize),
    /// Its own write.
    Own,
}

/// A version that a transaction left: its last write of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Left {
    pub key: usize,
    pub place: usize,
    pub seq: u32,
}

/// A transaction.
#[derive(Clone, Debug)]
pub(crate) struct Txn<'h> {
    pub name: &'h str,
    pub isolation: Isolation,
    pub outcome: Outcome,
    pub ts: Option<Ts>,
    pub begin: usize,
    pub end: Option<usize>,
    pub writes: Vec<WriteRec<'h>>,
    pub reads: Vec<ReadRec<'h>>,
    /// The versions that it left, by key; none unless it committed.
    pub left: Vec<Left>,
    /// Whether it read anything before it ended, own writes apart.
    pub read_anything: bool,
}

/// Everything that the checker asks about.
#[derive(Debug, Default)]
pub(crate) struct Resolved<'h> {
    pub txns: Vec<Txn<'h>>,
    /// The keys, in order.
    pub keys: Vec<&'h Key>,
    /// The versions of each key.
    pub versions: Versions<'h>,
    /// Own reads that did not give the own write, in words, with the reader and the key.
    pub internal: Vec<(usize, usize, String)>,
    /// Contradictions in the records.
    pub complaints: Vec<String>,
}

impl<'h> Resolved<'h> {
    pub fn of(history: &'h History) -> Resolved<'h> {
        let mut resolved = Resolved::default();
        let names = resolved.collect_keys(history);
        let owners = resolved.collect_transactions(history, &names);
        resolved.settle_unknown(history, &owners);
        resolved.order_versions(history, &names, &owners);
        resolved.resolve_reads(history, &names, &owners);
        resolved
    }

    /// The name of a transaction, or of the initial state.
    pub fn name(&self, writer: Option<usize>) -> &str {
        writer.map_or("the initial state", |txn| self.txns[txn].name)
    }

    pub fn committed(&self) -> impl Iterator<Item = (usize, &Txn<'h>)> {
        self.txns.iter().enumerate().filter(|(_, txn)| txn.outcome == Outcome::Committed)
    }

    /// The commit time of a version; none for the initial one.
    pub fn time(&self, version: &VersionRec<'_>) -> Option<Ts> {
        version.writer.and_then(|writer| self.txns[writer].ts)
    }

    /// The version that a committed transaction left of a key.
    pub fn left_by(&self, key: usize, writer: usize) -> Option<Left> {
        let left = &self.txns[writer].left;
        left.binary_search_by_key(&key, |left| left.key).ok().map(|at| left[at])
    }

    /// The place of the version that a committed transaction left of a key.
    pub fn version_by(&self, key: usize, writer: usize) -> Option<usize> {
        self.left_by(key, writer).map(|left| left.place)
    }
}

/// A value for people.
pub(crate) fn shown(value: Option<&Bytes>) -> String {
    value.map_or("nothing".to_owned(), |value| value.escape_ascii().to_string())
}
