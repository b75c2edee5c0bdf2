//! Tests of what is private to the log.

use super::*;
use crate::directory::{OpenConfig, Opened, Redo, open};
use crate::real::RealFs;

struct Nothing;

impl Redo for Nothing {
    fn apply(&self, _: &[u8], _: Option<&[u8]>, _: Ts) {}
}

#[test]
fn a_batch_that_ends_after_the_log_has_failed_makes_nothing_durable() {
    let folder = tempfile::tempdir().unwrap();
    let vfs = Arc::new(RealFs::open(folder.path(), false).unwrap());
    let config = OpenConfig { segment_bytes: 64 << 10, ..OpenConfig::default() };
    let Opened { log, .. } = open(vfs, &config, &Nothing).unwrap();
    log.queue.lock().leading = true;
    log.poison(&WalError::Poisoned("the log's thread panicked".into()));
    log.after_batch(Batch::default(), Ts(7), true, Ok(0));
    assert_eq!(log.durable().get(), Ts::ZERO);
    log.lead(log.queue.lock());
    assert!(!log.queue.lock().leading, "nobody leads any more");
}
