//! The wall-clock time. All code reads it here, so that tests can let it follow their own clock.

use time::OffsetDateTime;

/// The current wall-clock time in UTC.
pub fn now_utc() -> OffsetDateTime {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    OffsetDateTime::now_utc()
}

/// A wall-clock time that follows tokio's clock, on this thread.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;

    use time::OffsetDateTime;
    use tokio::time::Instant;

    thread_local! {
        static BEGIN: Cell<Option<(OffsetDateTime, Instant)>> = const { Cell::new(None) };
    }

    /// From now on, the wall-clock time starts at `begin` and follows the clock of the current runtime.
    pub(crate) fn begin(begin: OffsetDateTime) {
        BEGIN.set(Some((begin, Instant::now())));
    }

    /// From now on, the wall-clock time is the machine's again.
    pub(crate) fn end() {
        BEGIN.set(None);
    }

    pub(super) fn now() -> Option<OffsetDateTime> {
        let (begin, since) = BEGIN.get()?;
        Some(begin + since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_day_goes_on_with_the_clock_of_the_test() {
        let begin = datetime!(2026-01-01 00:00 UTC);
        simulated::begin(begin);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(now_utc(), begin + Duration::from_secs(90));
        simulated::end();
        assert!(now_utc() > begin + Duration::from_secs(3_600));
    }
}
