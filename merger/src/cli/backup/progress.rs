//! A bar for people on a terminal; nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

/// How far something is that takes long.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar on standard error, if that is a terminal.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::no_length();
        let style = "{msg} {wide_bar} {pos}/{len} documents, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Begins with something of so many documents.
    pub(super) fn begin(&self, what: &str, documents: u64) {
        self.0.reset();
        self.0.set_length(documents);
        self.0.set_message(what.to_owned());
    }

    /// Goes on by some documents.
    pub(super) fn advance(&self, documents: usize) {
        self.0.inc(documents as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
