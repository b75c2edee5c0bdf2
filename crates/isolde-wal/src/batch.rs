//! Records on their way from the order of commits to the file.
//!
//! ```text
//!  run      ▯ body ▯ body ▯ body │      │ ▯ body                  ▯ room for a header
//!           short ones, copied          a long one, as it came
//! ```
//!
//! Short bodies are copied behind one another, so that the leader writes a run as it stands, and the memory of the
//! bodies stays with the threads that made them. A long one stays where it is: copying it would hold up everybody
//! who waits for a place. The headers are made by the [`Writer`](crate::writer::Writer), who alone knows
//! where a record comes to stand; until then their room holds what is known of the record ([`Placed`]).

use isolde_types::{LogBody, Ts};
use prefetch_index::prefetch_index;

use crate::format::RECORD_HEADER;
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

/// What is known of a record before it has its place in the file. Until then it stands in the room for its header, a
/// word each.
///
/// The checksum of a long body is made by the committer, beside others. That of a short one is made by the writer:
/// the committer has only just written the bytes, and a processor that reads what it has written in other pieces
/// waits until all before is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub ts: Ts,
    /// With its header.
    pub len: usize,
    pub body_checksum: u32,
}

impl Placed {
    /// Writes it where the record begins. The time of its place in the order is written when it has it.
    pub fn note_body(record: &mut [u8]) {
        let len = record.len();
        let checksum = if len > SHORT { body_checksum(record, len) } else { 0 };
        if let [first, second, ..] = record.as_chunks_mut().0 {
            *first = (len as u64).to_le_bytes();
            *second = u64::from(checksum).to_le_bytes();
        }
    }

    fn note_ts(record: &mut [u8], ts: Ts) {
        if let [_, _, third, ..] = record.as_chunks_mut().0 {
            *third = ts.0.to_le_bytes();
        }
    }

    /// Reads it where a record begins.
    pub fn read(record: &[u8]) -> Placed {
        let [len, noted, ts] = match record.as_chunks().0 {
            [first, second, third, ..] => [first, second, third].map(|word| u64::from_le_bytes(*word)),
            _ => unreachable!("a record has room for its header"),
        };
        let len = len as usize;
        let body_checksum = if len > SHORT { noted as u32 } else { body_checksum(record, len) };
        Placed { ts: Ts(ts), len, body_checksum }
    }
}

fn body_checksum(record: &[u8], len: usize) -> u32 {
    crc32c::crc32c(record.get(RECORD_HEADER..len).unwrap_or_default())
}

/// Records behind one another, each with what is [known](Placed) of it in the room for its header.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub bytes: Vec<u8>,
    /// How much space in the log was reserved for them.
    pub reserved: u64,
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
        let len = record_len(body);
        self.records += 1;
        self.bytes += len;
        if len > SHORT {
            Placed::note_ts(&mut body.bytes, ts);
            self.runs.push(Run::of(std::mem::take(body)));
            return;
        }
        let has_room = |run: &&mut Run| run.is_copied && run.bytes.len() + len <= RUN_BYTES;
        if let Some(run) = self.runs.last_mut().filter(has_room) {
            run.take(ts, body);
        } else {
            let mut run = spare.pop().unwrap_or_default();
            run.is_copied = true;
            run.take(ts, body);
            self.runs.push(run);
        }
    }

    /// Leaves the memory of a batch that was written for later ones.
    pub fn recycle(self, spare: &mut Vec<Run>) {
        let copied = self.runs.into_iter().filter(|run| run.is_copied);
        for mut run in copied.take(SPARE_RUNS.saturating_sub(spare.len())) {
            run.bytes.clear();
            run.reserved = 0;
            spare.push(run);
        }
    }
}

impl Run {
    /// One record alone.
    pub fn of(body: LogBody) -> Run {
        Run { bytes: body.bytes, reserved: body.reserved, is_copied: false }
    }

    fn take(&mut self, ts: Ts, body: &LogBody) {
        self.reserved += body.reserved;
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&body.bytes);
        // Not before it is copied: a copy waits for what was written just before, in other pieces.
        Placed::note_ts(&mut self.bytes[begin..], ts);
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

    fn placed(run: &Run) -> Vec<Placed> {
        let mut rest = &run.bytes[..];
        std::iter::from_fn(|| {
            let placed = (!rest.is_empty()).then(|| Placed::read(rest))?;
            rest = &rest[placed.len..];
            Some(placed)
        })
        .collect()
    }

    #[test]
    fn short_records_share_runs_and_long_ones_stay_where_they_are() {
        let (mut batch, mut spare) = (Batch::default(), Vec::new());
        let lens = [1, 20, 200, 3, 50, 50, 50, 50, 50, 300];
        for (ts, len) in (1..).zip(lens) {
            batch.push(Ts(ts), &mut body(len), &mut spare);
        }
        let order: Vec<u64> = batch.runs.iter().flat_map(placed).map(|placed| placed.ts.0).collect();
        assert_eq!(order, (1..=10).collect::<Vec<u64>>());
        let of: Vec<usize> = batch.runs.iter().map(|run| placed(run).len()).collect();
        assert_eq!(of, [2, 1, 3, 3, 1], "runs are full before the next one begins");
        for run in &batch.runs {
            assert_eq!(run.bytes.len(), placed(run).iter().map(|placed| placed.len).sum::<usize>());
        }
        assert_eq!(batch.bytes, batch.runs.iter().map(|run| run.bytes.len()).sum::<usize>());
        assert_eq!(batch.records, lens.len());
        batch.recycle(&mut spare);
        assert_eq!(spare.len(), 3, "the memory of long records is not kept");
        assert!(spare.iter().all(|run| run.bytes.is_empty() && run.reserved == 0));
    }
}
