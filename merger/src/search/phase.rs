//! A part of a read: its span, if the read is traced, and its time, which is counted for every read.

use std::ops::Deref;
use std::time::Instant;

use prometheus::Histogram;

use super::Context;
use crate::spans::{Ending, Span};

/// A part of a read, which ends when this is dropped.
pub(super) struct Phase {
    span: Ending,
    begun: Instant,
    seconds: Histogram,
}

impl Phase {
    /// Begins a part of the read that this span belongs to.
    pub(super) fn begin(ctx: &Context, above: &Span, name: &'static str) -> Self {
        Self {
            span: above.phase(name),
            begun: Instant::now(),
            seconds: ctx.metrics.read_phase_seconds.with_label_values(&[name]),
        }
    }
}

impl Deref for Phase {
    type Target = Span;

    fn deref(&self) -> &Span {
        &self.span
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        self.seconds.observe(self.begun.elapsed().as_secs_f64());
    }
}
