//! What a person sees while it goes on: a bar with the time left on a terminal, and else a plain line now and then. All of it goes
//! to standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is written.
const EVERY: Duration = Duration::from_secs(5);

/// Progress over all documents of an import.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    /// What was there before this process.
    before: u64,
    done: u64,
    begun: Instant,
    spoken: Instant,
    index: String,
}

impl Progress {
    /// So many documents in all, of which some are there already.
    pub(super) fn new(total: u64, before: u64) -> Self {
        let visible = total > 0 && std::io::stderr().is_terminal();
        let bar = visible.then(|| {
            let bar = ProgressBar::new(total);
            let template = "{msg:20!} {bar:30} {human_pos}/{human_len}, {per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("█▌ "));
            }
            bar.set_position(before);
            bar.reset_eta();
            bar
        });
        Self {
            bar,
            total,
            before,
            done: before,
            begun: Instant::now(),
            spoken: Instant::now(),
            index: String::new(),
        }
    }

    /// Progress over something else than documents.
    pub(super) fn of(what: &str, total: u64) -> Self {
        let mut progress = Self::new(total, 0);
        progress.index(what);
        progress
    }

    /// The index whose documents come now.
    pub(super) fn index(&mut self, uid: &str) {
        uid.clone_into(&mut self.index);
        if let Some(bar) = &self.bar {
            bar.set_message(uid.to_owned());
        }
    }

    /// So many more documents are there.
    pub(super) fn add(&mut self, documents: u64) {
        self.done += documents;
        if let Some(bar) = &self.bar {
            bar.set_length(self.total.max(self.done));
            bar.set_position(self.done);
            return;
        }
        if self.spoken.elapsed() >= EVERY {
            self.spoken = Instant::now();
            let line = line(
                self.done,
                self.total.max(self.done),
                self.done - self.before,
                self.begun.elapsed(),
            );
            eprintln!("{}: {line}", self.index);
        }
    }

    /// A line for the person, above the bar.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// The bar goes.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(done: u64, total: u64, here: u64, elapsed: Duration) -> String {
    let percent = (done * 100).checked_div(total).unwrap_or(100);
    let seconds = elapsed.as_secs_f64().max(0.001);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded for people"
    )]
    let rate = (here as f64 / seconds) as u64;
    let left = match (total - done).checked_div(rate) {
        Some(seconds) => format!("{} left", human(seconds)),
        None => "time left unknown".to_owned(),
    };
    format!("{done} of {total} ({percent} %), {rate}/s, {left}")
}

fn human(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        assert_eq!(
            line(500, 2000, 400, Duration::from_secs(4)),
            "500 of 2000 (25 %), 100/s, 15 s left"
        );
        assert_eq!(
            line(0, 0, 0, Duration::from_secs(4)),
            "0 of 0 (100 %), 0/s, time left unknown"
        );
        assert_eq!(human(61), "1 min 1 s");
        assert_eq!(human(7_380), "2 h 3 min");
    }
}
