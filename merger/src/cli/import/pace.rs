//! How fast documents are sent.

use std::time::Duration;

use tokio::time::Instant;

/// A limit of bytes per second. What was not used is not saved up.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    free_at: Instant,
}

impl Pace {
    /// A limit; 0 means none.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            free_at: Instant::now(),
        }
    }

    /// Waits until so many bytes may be sent.
    pub(super) async fn wait(&mut self, bytes: usize) {
        let now = Instant::now();
        let begin = self.free_at.max(now);
        self.free_at = begin + time_of(bytes, self.bytes_per_second);
        tokio::time::sleep_until(begin).await;
    }
}

fn time_of(bytes: usize, bytes_per_second: u64) -> Duration {
    let micros = (bytes as u128 * 1_000_000).checked_div(u128::from(bytes_per_second));
    Duration::from_micros(micros.map_or(0, |micros| u64::try_from(micros).unwrap_or(u64::MAX / 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_is_sent_in_a_second() {
        let mut pace = Pace::new(1000);
        let begun = Instant::now();
        for _ in 0..5 {
            pace.wait(500).await;
        }
        assert_eq!(
            begun.elapsed().as_millis() / 100,
            20,
            "the first one waits for nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let mut pace = Pace::new(0);
        let begun = Instant::now();
        for _ in 0..5 {
            pace.wait(usize::MAX).await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
