//! Keeps a copy to a number of bytes per second.

use std::time::Duration;

use tokio::time::Instant;

/// What may be copied by now.
pub(super) struct Rate {
    since: Instant,
    bytes: u64,
    limit: Option<u64>,
}

impl Rate {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            since: Instant::now(),
            bytes: 0,
            limit,
        }
    }

    /// Notes that so many bytes were copied; returns how long to wait before the next ones. A new limit counts from now on.
    pub(super) fn after(&mut self, bytes: u64, limit: Option<u64>) -> Duration {
        if limit != self.limit {
            *self = Self::new(limit);
        }
        self.bytes += bytes;
        let due = self
            .bytes
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
        let mut rate = Rate::new(None);
        assert_eq!(rate.after(1 << 40, None), Duration::ZERO);
        assert_eq!(rate.after(1_000, Some(500)), Duration::from_secs(2));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(rate.after(500, Some(500)), Duration::from_secs(2));
        assert_eq!(rate.after(100, Some(1_000)), Duration::from_millis(100));
        assert_eq!(rate.after(1, Some(0)), Duration::ZERO, "no limit");
    }
}
