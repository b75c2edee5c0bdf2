//! Isolde's write-ahead log.

mod batch;
mod checkpoint;
mod directory;
mod error;
mod format;
mod inspect;
mod log;
mod manifest;
mod process;
mod real;
mod record;
mod redo;
mod scan;
mod segments;
#[cfg(any(test, feature = "sim"))]
#[doc(hidden)]
pub mod sim;
pub mod vfs;
mod writer;

pub use checkpoint::{CheckpointConfig, Enough, Source, TakeRow, checkpoint, partition_name};
pub use directory::{Directory, OpenConfig, Opened, Redo, Rows, open, write_backup};
pub use error::{Result, WalError};
pub use format::{BLOCK, Lsn, RecordHeader, RecordKind, SegmentHeader, VERSION};
pub use inspect::{Inspection, PartitionReport, SegmentReport, Tail, inspect};
pub use log::{HardWait, Hardness, Log, LogStats, Need, Tending, WriteBehind};
pub use manifest::{Manifest, Partition};
pub use process::Process;
pub use real::RealFs;
pub use record::{BodyWriter, Malformed, Operations};
pub use scan::{Found, Scanned, SegmentBytes};
pub use segments::{Reservation, segment_name, segment_number};
pub use vfs::{OpenMode, Vfs, VfsFile};
