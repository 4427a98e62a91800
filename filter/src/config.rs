//! The plugin's configuration: JSON in Envoy's `PluginConfig.configuration`. This file holds every key and default.

use serde_json::{Map, Value};
use weft_routing::{Policy, ShardNames};

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the filter is for here.
    pub mode: Mode,
    /// The Envoy cluster of the merger: the table comes from it, and every request that isn't direct goes to it.
    pub merger_cluster: String,
    /// The names of the shards' Envoy clusters, as in the merger's `--shard-prefix`.
    pub shard_prefix: ShardNames,
    /// How often the filter asks for the table.
    pub table_poll_ms: u32,
    /// The longest time that a table is trusted, whatever lease it states.
    pub max_lease_ms: u32,
    /// True if bodies may be held: those of small writes, to route them by their documents' ids, and the answers of direct
    /// writes, to insert the cluster's task uid. Needs `allow_on_headers_stop_iteration: true` in the `PluginConfig`;
    /// without it a held request would hang. So it is off by default, and then every write goes to the merger.
    pub body_routing: bool,
    /// The largest body that is held, in bytes.
    pub max_body_bytes: u32,
    /// How long the answer of a direct write waits for its registration.
    pub register_timeout_ms: u32,
    /// Call `clear_route_cache` after a change of headers. Needed for versions of Envoy that don't do it themselves, if an
    /// earlier filter has already picked the route.
    pub clear_route_cache: bool,
    /// Envoy removes what a client may not set before the filter sees it. Then the filter asks for the headers that it needs,
    /// one by one, which costs less than all of them.
    pub headers_removed: bool,
    /// Of which requests an access log wants to know the operation.
    pub log_operation: Named,
    /// As a guard: refuse writes that carry no term.
    pub require_term: bool,
}

/// Requests that are sent on with the name of their operation. That costs Envoy more than to decide about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// None.
    None,
    /// Those that go to the merger.
    Merged,
    /// Also those that go straight to a shard, whose route removes the header.
    All,
}

impl Named {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Merged => "merged",
            Self::All => "all",
        }
    }
}

/// What the filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At the edge: routes clients' requests.
    Route,
    /// In front of a node: lets through no write of a merger that leads no more.
    Guard,
}

impl Mode {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Guard => "guard",
        }
    }

    /// True if a key means something in this mode.
    fn knows(self, key: &str) -> bool {
        match (self, key) {
            (_, "mode") => true,
            (Self::Guard, key) => key == "require_term",
            (Self::Route, key) => key != "require_term",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Route,
            merger_cluster: "merger".to_owned(),
            shard_prefix: ShardNames::default(),
            table_poll_ms: 250,
            max_lease_ms: 10_000,
            body_routing: false,
            max_body_bytes: 64 * 1024,
            register_timeout_ms: 2_000,
            clear_route_cache: false,
            headers_removed: false,
            log_operation: Named::Merged,
            require_term: false,
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a JSON object.
    #[error("the filter's configuration is not a JSON object: {0}")]
    NotAnObject(String),
    /// A key that doesn't exist.
    #[error("the filter's configuration has no `{key}`; did you mean `{nearest}`?")]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The most similar known key.
        nearest: &'static str,
    },
    /// A key of the other mode.
    #[error("`{key}` in the filter's configuration means nothing in the mode `{mode}`")]
    OtherMode {
        /// The key.
        key: String,
        /// The mode that the configuration asks for.
        mode: &'static str,
    },
    /// A value out of its range, or of the wrong type.
    #[error("`{key}` in the filter's configuration must be {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The values that are accepted.
        expected: &'static str,
    },
}

/// Every key.
pub const KEYS: [&str; 12] = [
    "mode",
    "merger_cluster",
    "shard_prefix",
    "table_poll_ms",
    "max_lease_ms",
    "body_routing",
    "max_body_bytes",
    "register_timeout_ms",
    "clear_route_cache",
    "headers_removed",
    "log_operation",
    "require_term",
];

/// Envoy buffers at most its connection limit (1 MiB by default) and answers 413 beyond that.
const LARGEST_BODY_BYTES: u32 = 512 * 1024;

impl Config {
    /// Reads the configuration; an empty text means all defaults.
    ///
    /// # Errors
    /// [`ConfigError`] names what is wrong and what would be accepted.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        if json.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let text = std::str::from_utf8(json)
            .map_err(|error| ConfigError::NotAnObject(error.to_string()))?;
        let object: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| ConfigError::NotAnObject(error.to_string()))?;
        if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let nearest = nearest_key(key);
            return Err(ConfigError::UnknownKey {
                key: key.clone(),
                nearest,
            });
        }
        let raw = Raw(&object);
        let default = Self::default();
        let mode = raw.mode(default.mode)?;
        if let Some(key) = object.keys().find(|key| !mode.knows(key)) {
            return Err(ConfigError::OtherMode {
                key: key.clone(),
                mode: mode.name(),
            });
        }
        Ok(Self {
            mode,
            merger_cluster: raw.name("merger_cluster", default.merger_cluster)?,
            shard_prefix: raw.shard_names("shard_prefix", default.shard_prefix)?,
            table_poll_ms: raw.number(
                "table_poll_ms",
                default.table_poll_ms,
                (10, 60_000),
                "a number of milliseconds from 10 to 60000",
            )?,
            max_lease_ms: raw.number(
                "max_lease_ms",
                default.max_lease_ms,
                (10, 600_000),
                "a number of milliseconds from 10 to 600000",
            )?,
            body_routing: raw.switch("body_routing", default.body_routing)?,
            max_body_bytes: raw.number(
                "max_body_bytes",
                default.max_body_bytes,
                (1, LARGEST_BODY_BYTES),
                "a number of bytes from 1 to 524288",
            )?,
            register_timeout_ms: raw.number(
                "register_timeout_ms",
                default.register_timeout_ms,
                (1, 60_000),
                "a number of milliseconds from 1 to 60000",
            )?,
            clear_route_cache: raw.switch("clear_route_cache", default.clear_route_cache)?,
            headers_removed: raw.switch("headers_removed", default.headers_removed)?,
            log_operation: raw.named("log_operation", default.log_operation)?,
            require_term: raw.switch("require_term", default.require_term)?,
        })
    }

    /// The part of the configuration that the decision needs.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            body_routing: self.body_routing,
            max_body_bytes: u64::from(self.max_body_bytes),
        }
    }
}

struct Raw<'a>(&'a Map<String, Value>);

impl Raw<'_> {
    fn mode(&self, default: Mode) -> Result<Mode, ConfigError> {
        let Some(value) = self.0.get("mode") else {
            return Ok(default);
        };
        let named = |mode: &Mode| value.as_str() == Some(mode.name());
        let found = [Mode::Route, Mode::Guard].into_iter().find(named);
        found.ok_or(ConfigError::BadValue {
            key: "mode",
            expected: "route or guard",
        })
    }

    fn named(&self, key: &'static str, default: Named) -> Result<Named, ConfigError> {
        let Some(value) = self.0.get(key) else {
            return Ok(default);
        };
        let named = |named: &Named| value.as_str() == Some(named.name());
        let found = [Named::None, Named::Merged, Named::All]
            .into_iter()
            .find(named);
        // What was a switch before is understood.
        let found = found.or(value.as_bool().map(|all| match all {
            true => Named::All,
            false => Named::Merged,
        }));
        found.ok_or(ConfigError::BadValue {
            key,
            expected: "none, merged or all",
        })
    }

    fn name(&self, key: &'static str, default: String) -> Result<String, ConfigError> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::String(name))
                if !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()) =>
            {
                Ok(name.clone())
            }
            Some(_) => Err(ConfigError::BadValue {
                key,
                expected: "the name of an Envoy cluster",
            }),
        }
    }

    fn shard_names(
        &self,
        key: &'static str,
        default: ShardNames,
    ) -> Result<ShardNames, ConfigError> {
        let Some(value) = self.0.get(key) else {
            return Ok(default);
        };
        let names = value.as_str().and_then(|text| text.parse().ok());
        names.ok_or(ConfigError::BadValue {
            key,
            expected: "what shards' clusters are called, such as shard- or a-{}-b",
        })
    }

    fn switch(&self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(ConfigError::BadValue {
                key,
                expected: "true or false",
            }),
        }
    }

    fn number(
        &self,
        key: &'static str,
        default: u32,
        (least, most): (u32, u32),
        expected: &'static str,
    ) -> Result<u32, ConfigError> {
        let Some(value) = self.0.get(key) else {
            return Ok(default);
        };
        // `google.protobuf.Struct` has only floats, so 250 may arrive as 250.0.
        let whole = value.as_u64().or_else(|| {
            let float = value.as_f64()?;
            let in_range = float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&float);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole and within 32 bits, as just checked"
            )]
            in_range.then_some(float as u64)
        });
        whole
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (least..=most).contains(number))
            .ok_or(ConfigError::BadValue { key, expected })
    }
}

fn nearest_key(unknown: &str) -> &'static str {
    let [first, ..] = KEYS;
    KEYS.into_iter()
        .min_by_key(|key| (!key.contains(unknown), strsim::osa_distance(key, unknown)))
        .unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_the_defaults() {
        for empty in ["", "  ", "{}"] {
            assert_eq!(Config::parse(empty.as_bytes()), Ok(Config::default()));
        }
    }

    #[test]
    fn every_key_is_read() {
        let all = r#"{"mode": "route", "merger_cluster": "weft", "shard_prefix": "s-{}-t", "table_poll_ms": 100.0, "max_lease_ms": 2000, "body_routing": true,
            "max_body_bytes": 1024, "register_timeout_ms": 500, "clear_route_cache": true, "headers_removed": true, "log_operation": "all"}"#;
        let expected = Config {
            mode: Mode::Route,
            merger_cluster: "weft".to_owned(),
            shard_prefix: "s-{}-t".parse().unwrap(),
            table_poll_ms: 100,
            max_lease_ms: 2000,
            body_routing: true,
            max_body_bytes: 1024,
            register_timeout_ms: 500,
            clear_route_cache: true,
            headers_removed: true,
            log_operation: Named::All,
            require_term: false,
        };
        assert_eq!(Config::parse(all.as_bytes()), Ok(expected));
        let guard = r#"{"mode": "guard", "require_term": true}"#;
        let expected = Config {
            mode: Mode::Guard,
            require_term: true,
            ..Config::default()
        };
        assert_eq!(Config::parse(guard.as_bytes()), Ok(expected));
        let read = |key: &&str| (all.to_owned() + guard).contains(&format!("\"{key}\""));
        assert!(KEYS.iter().all(read));
    }

    #[test]
    fn the_operation_is_logged_as_the_switch_of_before_says_it() {
        for (value, named) in [
            ("true", Named::All),
            ("false", Named::Merged),
            ("\"merged\"", Named::Merged),
            ("\"none\"", Named::None),
        ] {
            let json = format!("{{\"log_operation\": {value}}}");
            let config = Config::parse(json.as_bytes()).unwrap();
            assert_eq!(config.log_operation, named, "{value}");
        }
    }

    #[test]
    fn a_key_of_the_other_mode_is_refused() {
        for (json, key) in [
            (r#"{"mode": "guard", "body_routing": true}"#, "body_routing"),
            (
                r#"{"mode": "guard", "merger_cluster": "m"}"#,
                "merger_cluster",
            ),
            (r#"{"require_term": true}"#, "require_term"),
            (
                r#"{"mode": "route", "require_term": false}"#,
                "require_term",
            ),
        ] {
            let error = Config::parse(json.as_bytes()).unwrap_err().to_string();
            let said = format!("`{key}` in the filter's configuration means nothing in the mode");
            assert!(error.starts_with(&said), "{json}: {error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        for (key, nearest) in [
            ("bodyRouting", "body_routing"),
            ("merger", "merger_cluster"),
            ("lease_ms", "max_lease_ms"),
            ("table_pol_ms", "table_poll_ms"),
            ("requireTerm", "require_term"),
        ] {
            let json = format!("{{\"{key}\": 1}}");
            let error = Config::parse(json.as_bytes()).unwrap_err();
            assert_eq!(
                error,
                ConfigError::UnknownKey {
                    key: key.to_owned(),
                    nearest
                }
            );
            assert!(error.to_string().contains(nearest), "{error}");
        }
    }

    #[test]
    fn each_bad_value_is_named() {
        for (key, value) in [
            ("merger_cluster", "\"\""),
            ("merger_cluster", "\"a b\""),
            ("merger_cluster", "7"),
            ("shard_prefix", "\"\""),
            ("shard_prefix", "\"{}-a\""),
            ("shard_prefix", "7"),
            ("table_poll_ms", "0"),
            ("table_poll_ms", "1e9"),
            ("max_lease_ms", "-1"),
            ("max_lease_ms", "10.5"),
            ("body_routing", "1"),
            ("max_body_bytes", "\"64k\""),
            ("max_body_bytes", "1048576"),
            ("register_timeout_ms", "null"),
            ("clear_route_cache", "\"yes\""),
            ("headers_removed", "1"),
            ("log_operation", "\"some\""),
            ("log_operation", "null"),
            ("mode", "\"Guard\""),
            ("mode", "true"),
        ] {
            let json = format!("{{\"{key}\": {value}}}");
            let error = Config::parse(json.as_bytes()).unwrap_err();
            assert!(
                error.to_string().contains(&format!("`{key}`")),
                "{json}: {error}"
            );
        }
        for json in ["[]", "7", "{", "nothing"] {
            let error = Config::parse(json.as_bytes()).unwrap_err();
            assert!(matches!(error, ConfigError::NotAnObject(_)), "{json}");
        }
    }
}
