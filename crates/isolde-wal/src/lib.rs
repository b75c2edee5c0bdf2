//! Isolde's write-ahead log.

mod real;
pub mod vfs;

pub use real::RealFs;
pub use vfs::{OpenMode, Vfs, VfsFile};
