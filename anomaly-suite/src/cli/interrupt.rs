//! Ctrl-C, for commands that run long and have something to say when they are ended early.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// A flag that Ctrl-C sets, and so does a request to terminate. A second one does no more: `timeout` sends two
/// at once, to the process and to its group.
pub(super) fn interrupted() -> std::io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}
