//! A bar for people on a terminal, and figures for the cluster.

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::job::Job;

/// How far something is that takes long.
pub(super) struct Progress<'a> {
    bar: ProgressBar,
    job: &'a Job,
}

impl<'a> Progress<'a> {
    /// A bar on standard error, if that is a terminal.
    pub(super) fn new(job: &'a Job) -> Self {
        let bar = ProgressBar::no_length();
        let style = "{msg} {wide_bar} {pos}/{len} documents, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self { bar, job }
    }

    /// Begins with something of so many documents.
    pub(super) fn begin(&self, what: &str, documents: u64) {
        self.bar.reset();
        self.bar.set_length(documents);
        self.bar.set_message(what.to_owned());
        self.job.expect(documents);
    }

    /// Goes on by some documents, of so many bytes that were copied.
    pub(super) fn advance(&self, documents: usize, bytes: usize) {
        self.bar.inc(documents as u64);
        self.job.add(documents as u64, bytes as u64);
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
