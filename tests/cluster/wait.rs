//! Waits for conditions with a deadline, and never for a fixed time.

use std::time::{Duration, Instant};

use crate::HarnessError;

/// How often a condition is checked.
const STEP: Duration = Duration::from_millis(25);

/// The time at which waiting ends with an error.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    start: Instant,
    after: Duration,
}

impl Deadline {
    /// The deadline that is this far from now.
    pub fn after(after: Duration) -> Self {
        Self {
            start: Instant::now(),
            after,
        }
    }

    /// True if the deadline has passed.
    pub fn passed(&self) -> bool {
        self.start.elapsed() >= self.after
    }

    /// The error for a missed deadline.
    pub fn missed(&self, what: &str, last: &str) -> HarnessError {
        HarnessError::Timeout {
            what: what.to_owned(),
            after: self.after,
            last: last.to_owned(),
        }
    }
}

/// Checks again and again until the result is `Ok`. If the deadline is missed, the last `Err` is part of the error.
pub async fn until<T, F>(
    what: &str,
    deadline: Deadline,
    mut ask: impl FnMut() -> F,
) -> Result<T, HarnessError>
where
    F: Future<Output = Result<T, String>>,
{
    loop {
        match ask().await {
            Ok(value) => return Ok(value),
            Err(last) if deadline.passed() => return Err(deadline.missed(what, &last)),
            Err(_) => tokio::time::sleep(STEP).await,
        }
    }
}
