//! The names of the shards' Envoy clusters. Filter, merger and routes must use the same names.

use std::str::FromStr;

use crate::placement::ShardId;

/// The placeholder for the number in a pattern.
const NUMBER: &str = "{}";

/// The pattern for the names of shards' Envoy clusters: a text with the shard's number in it.
///
/// Written as a prefix (`shard-`), or with `{}` in the number's place (`outbound|7700||shard-{}.ns.svc.cluster.local`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardNames {
    before: String,
    after: String,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadShardNames {
    /// Nothing precedes the number, but routes tell shards from other clusters by the beginning of their names.
    #[error("`{0}` has nothing before the shard's number")]
    NothingBefore(String),
    /// More than one `{}`.
    #[error("`{0}` has more than one place for the shard's number")]
    TwoNumbers(String),
    /// The prefix ends with a digit: `shard1` with number 2 would read as shard 12.
    #[error("`{0}` has a digit beside the shard's number")]
    Digit(String),
    /// Names are sent in a header.
    #[error("`{0}` has a character that no header can carry")]
    Character(String),
}

impl ShardNames {
    /// The name of a shard's cluster.
    #[must_use]
    pub fn of(&self, shard: ShardId) -> String {
        format!("{}{}{}", self.before, shard.0, self.after)
    }

    /// The shard whose cluster has this name.
    #[must_use]
    pub fn shard(&self, cluster: &str) -> Option<ShardId> {
        let number = cluster
            .strip_prefix(&self.before)?
            .strip_suffix(&self.after)?;
        let shard = ShardId(number.parse().ok()?);
        // `+1` and `01` parse as numbers too, but Weft never writes such names.
        (self.of(shard) == cluster).then_some(shard)
    }

    /// The prefix of all names.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.before
    }

    /// The pattern with `text` in the number's place.
    #[must_use]
    pub fn with(&self, number: &str) -> String {
        format!("{}{number}{}", self.before, self.after)
    }
}

impl Default for ShardNames {
    fn default() -> Self {
        Self {
            before: "shard-".to_owned(),
            after: String::new(),
        }
    }
}

impl std::fmt::Display for ShardNames {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.before)?;
        if self.after.is_empty() {
            return Ok(());
        }
        write!(formatter, "{NUMBER}{}", self.after)
    }
}

impl FromStr for ShardNames {
    type Err = BadShardNames;

    fn from_str(text: &str) -> Result<Self, BadShardNames> {
        let (before, after) = text.split_once(NUMBER).unwrap_or((text, ""));
        let owned = || text.to_owned();
        if before.is_empty() {
            return Err(BadShardNames::NothingBefore(owned()));
        }
        if after.contains(NUMBER) {
            return Err(BadShardNames::TwoNumbers(owned()));
        }
        let digit = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_digit());
        if digit(before.bytes().last()) || digit(after.bytes().next()) {
            return Err(BadShardNames::Digit(owned()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadShardNames::Character(owned()));
        }
        Ok(Self {
            before: before.to_owned(),
            after: after.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISTIO: &str = "outbound|7700||shard-{}.ns.svc.cluster.local";

    #[test]
    fn a_name_leads_to_its_shard_and_back() {
        for pattern in ["shard-", "s", ISTIO, "a-{}-b"] {
            let names: ShardNames = pattern.parse().unwrap();
            assert_eq!(names.to_string(), pattern);
            for number in [0, 1, 9, 10, 123, u16::MAX] {
                let name = names.of(ShardId(number));
                assert!(name.starts_with(names.prefix()));
                assert_eq!(names.shard(&name), Some(ShardId(number)), "{name}");
            }
        }
        let names: ShardNames = ISTIO.parse().unwrap();
        assert_eq!(
            names.of(ShardId(3)),
            "outbound|7700||shard-3.ns.svc.cluster.local"
        );
        assert_eq!("shard-{}".parse(), Ok(ShardNames::default()));
    }

    #[test]
    fn other_clusters_are_no_shards() {
        let names: ShardNames = ISTIO.parse().unwrap();
        for other in [
            "outbound|7700||shard-3.other.svc.cluster.local",
            "outbound|7700|v1|shard-3.ns.svc.cluster.local",
            "shard-3",
            "outbound|7700||shard-.ns.svc.cluster.local",
        ] {
            assert_eq!(names.shard(other), None, "{other}");
        }
        let names = ShardNames::default();
        for other in [
            "shard-",
            "shard-x",
            "shard-01",
            "shard-+1",
            "shard-65536",
            "merger",
            "node",
            "shard-1 ",
        ] {
            assert_eq!(names.shard(other), None, "{other}");
        }
    }

    #[test]
    fn patterns_that_name_nothing_are_refused() {
        use BadShardNames as Bad;
        let refused = |text: &str| text.parse::<ShardNames>().unwrap_err();
        assert_eq!(refused(""), Bad::NothingBefore(String::new()));
        assert_eq!(refused("{}-x"), Bad::NothingBefore("{}-x".to_owned()));
        assert_eq!(refused("a{}{}"), Bad::TwoNumbers("a{}{}".to_owned()));
        assert_eq!(refused("shard1"), Bad::Digit("shard1".to_owned()));
        assert_eq!(refused("a{}1"), Bad::Digit("a{}1".to_owned()));
        assert_eq!(refused("shard "), Bad::Character("shard ".to_owned()));
    }
}
