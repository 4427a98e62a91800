//! What a read does when a shard gives no answer.

use std::time::Duration;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenMissing {
    /// The read fails, naming the shard.
    Error,
    /// The answer contains what the other shards gave, with a note of what is missing.
    Partial,
    /// The shard is asked again until the deadline; then the read fails.
    Wait,
}

/// A policy, as an option or a request's `x-weft-partial` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What to do.
    pub when_missing: WhenMissing,
    /// How long a shard has to answer.
    pub deadline: Duration,
}

impl Policy {
    /// Parses text such as `partial`, `error`, or `wait; deadline=2500` (milliseconds). What the text doesn't say is taken
    /// from `otherwise`.
    pub fn parse(text: &str, otherwise: Self) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let when_missing = match parts.next()? {
            "error" => WhenMissing::Error,
            "partial" => WhenMissing::Partial,
            "wait" => WhenMissing::Wait,
            _ => return None,
        };
        let mut policy = Self {
            when_missing,
            ..otherwise
        };
        for part in parts {
            let text = part.strip_prefix("deadline=").unwrap_or(part);
            let text = text.strip_suffix("ms").unwrap_or(text);
            policy.deadline = Duration::from_millis(text.trim().parse().ok()?);
        }
        Some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_may_name_its_deadline() {
        let default = Policy {
            when_missing: WhenMissing::Error,
            deadline: Duration::from_secs(30),
        };
        let parsed =
            |text| Policy::parse(text, default).map(|p| (p.when_missing, p.deadline.as_millis()));
        assert_eq!(parsed("partial"), Some((WhenMissing::Partial, 30_000)));
        assert_eq!(parsed("wait; deadline=250"), Some((WhenMissing::Wait, 250)));
        assert_eq!(parsed("error;100ms"), Some((WhenMissing::Error, 100)));
        assert_eq!(parsed("never"), None);
        assert_eq!(parsed("wait; soon"), None);
    }
}
