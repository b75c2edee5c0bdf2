//! Records on their way from the order of commits to the file.
//!
//! ```text
//!  run      ▯ body ▯ body ▯ body │      │ ▯ body                  ▯ room for a header
//!           short ones, copied          a long one, as it came
//! ```
//!
//! Short bodies are copied behind one another, so that the leader writes a run as it stands, and the memory of the
//! bodies stays with the threads that made them. A long one stays where it is: copying it would hold up everybody
//! who waits for a place. The headers are filled in by the [`Writer`](crate::writer::Writer), who alone knows
//! where a record comes to stand.

use isolde_types::{LogBody, Ts};
use prefetch_index::prefetch_index;

use crate::record::record_len;

/// Longer records are not copied.
pub(crate) const SHORT: usize = if cfg!(any(test, shuttle, loom)) { 96 } else { 16 << 10 };

/// How many bytes of short records a run holds at most.
const RUN_BYTES: usize = if cfg!(any(test, shuttle, loom)) { 256 } else { 256 << 10 };

/// How many runs are kept for later batches: those of one that is large enough to be written by the log's thread.
const SPARE_RUNS: usize = 5;

/// How many cache lines of the next record are fetched ahead: a short one's.
const NEXT_LINES: usize = 3;
const LINE: usize = 64;

/// A record that has its place in the order and not yet in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub ts: Ts,
    /// With its header.
    pub len: usize,
    pub body_checksum: u32,
    pub reserved: u64,
}

impl Placed {
    fn new(ts: Ts, body: &LogBody) -> Placed {
        Placed { ts, len: record_len(body), body_checksum: body.checksum, reserved: body.reserved }
    }
}

/// Records behind one another; `bytes` has each with room for its header.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub records: Vec<Placed>,
    pub bytes: Vec<u8>,
    is_copied: bool,
}

/// Records in commit_ts order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub runs: Vec<Run>,
    pub records: usize,
    pub bytes: usize,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Takes a record; the bytes of a long one with it. A new run is one of `spare`, if there is one.
    pub fn push(&mut self, ts: Ts, body: &mut LogBody, spare: &mut Vec<Run>) {
        let placed = Placed::new(ts, body);
        self.records += 1;
        self.bytes += placed.len;
        if placed.len > SHORT {
            let bytes = std::mem::take(&mut body.bytes);
            self.runs.push(Run { records: vec![placed], bytes, is_copied: false });
            return;
        }
        let has_room = |run: &&mut Run| run.is_copied && run.bytes.len() + placed.len <= RUN_BYTES;
        if let Some(run) = self.runs.last_mut().filter(has_room) {
            run.take(placed, &body.bytes);
        } else {
            let mut run = spare.pop().unwrap_or_default();
            run.is_copied = true;
            run.take(placed, &body.bytes);
            self.runs.push(run);
        }
    }

    /// Leaves the memory of a batch that was written for later ones.
    pub fn recycle(self, spare: &mut Vec<Run>) {
        let copied = self.runs.into_iter().filter(|run| run.is_copied);
        for mut run in copied.take(SPARE_RUNS.saturating_sub(spare.len())) {
            run.records.clear();
            run.bytes.clear();
            spare.push(run);
        }
    }
}

impl Run {
    /// One record alone.
    pub fn of(ts: Ts, body: LogBody) -> Run {
        Run { records: vec![Placed::new(ts, &body)], bytes: body.bytes, is_copied: false }
    }

    fn take(&mut self, placed: Placed, bytes: &[u8]) {
        self.records.push(placed);
        self.bytes.extend_from_slice(bytes);
        // What the next record will be copied to: the log's thread had it last, and whoever leaves the queue's latch
        // waits for it.
        let end = self.bytes.len();
        (1..=NEXT_LINES).for_each(|line| prefetch_index(&self.bytes, end + line * LINE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BodyWriter;

    fn body(len: usize) -> LogBody {
        let mut writer = BodyWriter::default();
        writer.push(b"k", Some(&vec![7; len]));
        writer.finish()
    }

    #[test]
    fn short_records_share_runs_and_long_ones_stay_where_they_are() {
        let (mut batch, mut spare) = (Batch::default(), Vec::new());
        let lens = [1, 20, 200, 3, 50, 50, 50, 50, 50, 300];
        for (ts, len) in (1..).zip(lens) {
            batch.push(Ts(ts), &mut body(len), &mut spare);
        }
        let order: Vec<u64> = batch.runs.iter().flat_map(|run| &run.records).map(|placed| placed.ts.0).collect();
        assert_eq!(order, (1..=10).collect::<Vec<u64>>());
        let of: Vec<usize> = batch.runs.iter().map(|run| run.records.len()).collect();
        assert_eq!(of, [2, 1, 3, 3, 1], "runs are full before the next one begins");
        for run in &batch.runs {
            assert_eq!(run.bytes.len(), run.records.iter().map(|placed| placed.len).sum::<usize>());
        }
        assert_eq!(batch.bytes, batch.runs.iter().map(|run| run.bytes.len()).sum::<usize>());
        assert_eq!(batch.records, lens.len());
        batch.recycle(&mut spare);
        assert_eq!(spare.len(), 3, "the memory of long records is not kept");
        assert!(spare.iter().all(|run| run.bytes.is_empty() && run.records.is_empty()));
    }
}
