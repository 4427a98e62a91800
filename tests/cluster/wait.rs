//! Waiting for a condition, with a deadline, never for a time.

use std::time::{Duration, Instant};

use crate::HarnessError;

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(25);

/// A point in time after which waiting is giving up.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    start: Instant,
    after: Duration,
}

impl Deadline {
    /// So long from now.
    pub fn after(after: Duration) -> Self {
        Self {
            start: Instant::now(),
            after,
        }
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.start.elapsed() >= self.after
    }

    /// The error that says so.
    pub fn missed(&self, what: &str, last: &str) -> HarnessError {
        HarnessError::Timeout {
            what: what.to_owned(),
            after: self.after,
            last: last.to_owned(),
        }
    }
}

/// Asks again and again until the answer is `Ok`; the last `Err` says in the error what was missing.
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
