//! Keeps a copy to a number of bytes per second.

use std::time::Duration;

use tokio::time::Instant;

/// What may be copied by now.
pub(super) struct Rate {
    since: Instant,
    /// How much had been copied then.
    before: u64,
    /// How much had been copied when that was last asked.
    last: u64,
    limit: Option<u64>,
}

impl Rate {
    /// So many bytes were copied before, without this limit.
    pub(super) fn new(before: u64, limit: Option<u64>) -> Self {
        Self {
            since: Instant::now(),
            before,
            last: before,
            limit,
        }
    }

    /// So many bytes were copied by now; returns how long to wait before the next ones. A new limit counts from the last of these.
    pub(super) fn after(&mut self, bytes: u64, limit: Option<u64>) -> Duration {
        if limit != self.limit {
            *self = Self::new(self.last, limit);
        }
        self.last = bytes;
        let due = bytes
            .saturating_sub(self.before)
            .saturating_mul(1_000)
            .checked_div(limit.unwrap_or(0));
        let due = Duration::from_millis(due.unwrap_or(0));
        due.saturating_sub(self.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_may_change() {
        let mut rate = Rate::new(7, None);
        let much = 1 << 40;
        assert_eq!(rate.after(much, None), Duration::ZERO);
        assert_eq!(rate.after(much + 1_000, Some(500)), Duration::from_secs(2));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(rate.after(much + 1_500, Some(500)), Duration::from_secs(2));
        assert_eq!(
            rate.after(much + 1_600, Some(1_000)),
            Duration::from_millis(100)
        );
        let more = rate.after(much + 1_601, Some(0));
        assert_eq!(more, Duration::ZERO, "no limit");
    }
}
