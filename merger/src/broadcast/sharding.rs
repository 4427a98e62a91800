//! How an index is to be placed: `sharding` of `POST /indexes` and `PATCH /indexes/{uid}`.
//!
//! Pure: functions of values.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use weft_routing::document_id::DocumentId;
use weft_routing::strategy::{IdKey, Ranges, Strategy};
use weft_routing::value::RoutingField;

use super::BroadcastError;
use crate::cluster::{Wanted, WriteMode};

/// What a client asks for.
#[derive(Debug, Default)]
pub(super) struct Sharding {
    pub(super) wanted: Wanted,
    pub(super) write: Option<WriteMode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    shard_count: Option<u16>,
    #[serde(default = "one")]
    replication_factor: u16,
    strategy: Option<String>,
    ranges: Option<Vec<Box<RawValue>>>,
    field: Option<String>,
    write: Option<WriteMode>,
}

/// What a client asks for of an index that is there.
#[derive(Debug)]
pub(super) struct Resharding {
    pub(super) write: Option<Option<WriteMode>>,
    /// `None` within for all shards.
    pub(super) shard_count: Option<Option<u16>>,
    pub(super) strategy: Option<Strategy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rewired {
    #[serde(default, deserialize_with = "given")]
    write: Option<Option<WriteMode>>,
    #[serde(default, deserialize_with = "given")]
    shard_count: Option<Option<u16>>,
    strategy: Option<String>,
    ranges: Option<Vec<Box<RawValue>>>,
    field: Option<String>,
}

/// A member that may be `null`, and isn't missing.
#[allow(clippy::option_option, reason = "missing, null, or a value")]
fn given<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Resharding {
    /// Reads what a client sent.
    ///
    /// # Errors
    /// It can't be read, or makes no sense.
    pub(super) fn read(value: &Value) -> Result<Self, BroadcastError> {
        let wire: Rewired = read(value)?;
        if wire.shard_count == Some(Some(0)) {
            return Err(invalid("counts start from 1".to_owned()));
        }
        let strategy = strategy(
            wire.strategy.as_deref(),
            wire.ranges.as_deref(),
            wire.field.as_deref(),
        )?;
        Ok(Self {
            write: wire.write,
            shard_count: wire.shard_count,
            strategy,
        })
    }
}

/// Reads from the text, since numbers of boundaries must keep their spelling.
fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, BroadcastError> {
    serde_json::from_str(&value.to_string()).map_err(|error| invalid(error.to_string()))
}

fn one() -> u16 {
    1
}

impl Sharding {
    /// Reads what a client sent.
    ///
    /// # Errors
    /// It can't be read, or asks for something that isn't there.
    pub(super) fn read(value: &Value) -> Result<Self, BroadcastError> {
        let wire: Wire = read(value)?;
        if wire.shard_count == Some(0) || wire.replication_factor == 0 {
            return Err(invalid("counts start from 1".to_owned()));
        }
        let strategy = strategy(
            wire.strategy.as_deref(),
            wire.ranges.as_deref(),
            wire.field.as_deref(),
        )?;
        Ok(Self {
            wanted: Wanted {
                shard_count: wire.shard_count,
                replicas: wire.replication_factor,
                strategy,
            },
            write: wire.write,
        })
    }
}

fn strategy(
    name: Option<&str>,
    ranges: Option<&[Box<RawValue>]>,
    field: Option<&str>,
) -> Result<Option<Strategy>, BroadcastError> {
    if name != Some("field") && field.is_some() {
        return Err(invalid("`field` goes with the strategy `field`".to_owned()));
    }
    match (name, ranges) {
        (None, None) => Ok(None),
        (Some("hash"), None) => Ok(Some(Strategy::Hash)),
        (Some("range"), Some(boundaries)) => {
            let keys = boundaries.iter().map(|boundary| boundary_of(boundary));
            let keys = keys.collect::<Result<Vec<_>, _>>()?;
            let ranges = Ranges::new(keys).map_err(|error| invalid(format!("ranges: {error}")))?;
            Ok(Some(Strategy::Range(ranges)))
        }
        (Some("range"), None) => Err(invalid(
            "strategy `range` needs `ranges`: the first ids of all ranges but the lowest"
                .to_owned(),
        )),
        (None | Some("hash" | "field"), Some(_)) => Err(invalid(
            "`ranges` goes with the strategy `range`".to_owned(),
        )),
        (Some("field"), None) => match field {
            Some(name) => match RoutingField::new(name) {
                Ok(field) => Ok(Some(Strategy::Field(field))),
                Err(error) => Err(invalid(error.to_string())),
            },
            None => Err(invalid(
                "strategy `field` needs `field`: the field whose value tells where a document lies"
                    .to_owned(),
            )),
        },
        (Some(other), _) => Err(invalid(format!(
            "unknown strategy `{other}`: expected `hash`, `range` or `field`"
        ))),
    }
}

fn boundary_of(boundary: &RawValue) -> Result<IdKey, BroadcastError> {
    match DocumentId::from_json(boundary.get()) {
        Ok(id) => Ok(IdKey::of(&id)),
        Err(error) => Err(invalid(format!("ranges: {}: {error}", boundary.get()))),
    }
}

fn invalid(detail: String) -> BroadcastError {
    BroadcastError::InvalidSharding { detail }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_asks_for_counts_and_a_strategy() {
        let asked = Sharding::read(&json!({"shardCount": 2, "strategy": "hash"})).unwrap();
        assert_eq!(asked.wanted.shard_count, Some(2));
        assert_eq!(asked.wanted.replicas, 1);
        assert_eq!(asked.wanted.strategy, Some(Strategy::Hash));
        let asked =
            json!({"strategy": "range", "ranges": [-5, "10", 18_446_744_073_709_551_615_u64, "a"]});
        let asked = Sharding::read(&asked).unwrap().wanted.strategy.unwrap();
        let texts: Vec<String> = asked.boundaries().iter().map(IdKey::to_string).collect();
        assert_eq!(texts, ["-5", "10", "18446744073709551615", "a"]);
        let asked = Sharding::read(&json!({"strategy": "field", "field": "tenant"})).unwrap();
        let strategy = asked.wanted.strategy.unwrap();
        assert_eq!(strategy.field().map(RoutingField::as_str), Some("tenant"));
        assert_eq!(Sharding::read(&json!({})).unwrap().wanted.strategy, None);
    }

    #[test]
    fn of_an_index_that_is_there_a_client_asks_for_less_and_a_missing_member_changes_nothing() {
        let read = |asked: Value| Resharding::read(&asked);
        let asked = read(json!({"strategy": "range", "ranges": [5, "m"], "shardCount": null}));
        let asked = asked.unwrap();
        assert_eq!(asked.shard_count, Some(None));
        assert_eq!(asked.write, None);
        let wanted: Strategy = "range:5,m".parse().unwrap();
        assert_eq!(asked.strategy, Some(wanted));
        let asked = read(json!({"write": null, "strategy": null})).unwrap();
        assert_eq!((asked.write, asked.strategy), (Some(None), None));
        for (asked, why) in [
            (json!({"replicationFactor": 2}), "unknown field"),
            (json!({"shardCount": 0}), "counts start from 1"),
            (json!({"ranges": [5]}), "goes with"),
            (json!({"strategy": "field"}), "needs `field`"),
        ] {
            let refused = read(asked).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_said() {
        for (asked, why) in [
            (json!({"shardCount": 0}), "counts start from 1"),
            (json!({"strategy": "range"}), "needs `ranges`"),
            (json!({"strategy": "range", "ranges": []}), "at least one"),
            (
                json!({"strategy": "range", "ranges": [2, 1]}),
                "`1` isn't larger",
            ),
            (
                json!({"strategy": "range", "ranges": [1.5]}),
                "not an integer",
            ),
            (json!({"strategy": "range", "ranges": ["a b"]}), "character"),
            (json!({"strategy": "hash", "ranges": [1]}), "goes with"),
            (json!({"ranges": [1]}), "goes with"),
            (json!({"strategy": "round-robin"}), "unknown strategy"),
            (json!({"field": "tenant"}), "goes with"),
            (json!({"strategy": "hash", "field": "tenant"}), "goes with"),
            (json!({"strategy": "field"}), "needs `field`"),
            (
                json!({"strategy": "field", "field": "owner.tenant"}),
                "can't be a routing field",
            ),
            (
                json!({"strategy": "field", "field": "tenant", "ranges": [1]}),
                "goes with",
            ),
            (json!({"fields": "tenant"}), "unknown field"),
            (json!([]), ""),
        ] {
            let refused = Sharding::read(&asked).unwrap_err().to_string();
            assert!(refused.contains(why), "{asked}: {refused}");
        }
    }
}
