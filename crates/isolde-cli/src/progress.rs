//! Progress bars: on the standard error, and on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of bytes that goes away when it is dropped.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar that says what is being done.
    pub fn new(doing: &str) -> Bar {
        let template = "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Bar(ProgressBar::new(0).with_style(style).with_message(doing.to_owned()))
    }

    /// So much of so much is done.
    pub fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
