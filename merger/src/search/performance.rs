//! `performanceDetails`: where a search spent its time, step by step, as a node reports it. Of several shards, the slowest
//! one's steps are reported, since the others were waited for at the same time. The merger's own steps follow.
//!
//! Pure: functions of values.

use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// How long a search took so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Waiting for shards.
    pub shards: Duration,
    /// Everything else.
    pub merge: Duration,
}

/// The details of the slowest of `shards`, with the merger's own; `None` if no shard reported any.
pub(super) fn details<'a>(
    shards: impl Iterator<Item = &'a RawValue>,
    times: Times,
) -> Option<Map<String, Value>> {
    let read =
        shards.filter_map(|text| serde_json::from_str::<Map<String, Value>>(text.get()).ok());
    let mut slowest = read.max_by_key(total)?;
    for (step, took) in [("ask shards", times.shards), ("merge shards", times.merge)] {
        slowest.insert(step.to_owned(), Value::from(format!("{took:.2?}")));
    }
    Some(slowest)
}

/// The total time of a node: its steps that aren't part of another step.
fn total(steps: &Map<String, Value>) -> Duration {
    let whole = steps.iter().filter(|(step, _)| !step.contains(" > "));
    whole.filter_map(|(_, took)| duration(took.as_str()?)).sum()
}

/// A duration as nodes write it: a decimal number and its unit.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))?;
    let (number, unit) = text.split_at(unit);
    let nanoseconds = match unit {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * nanoseconds / 1e9;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_shards_steps_are_told_with_the_mergers_own() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let shards = [
            raw(r#"{"wait in queue":"90.12µs","search > format":"9.99s","search":"1.20ms"}"#),
            raw(r#"{"wait in queue":"3.00ms","search":"850.00µs"}"#),
            raw(r#"{"wait in queue":"10ns","search":"1.21ms"}"#),
        ];
        let times = Times {
            shards: Duration::from_micros(4500),
            merge: Duration::from_nanos(90_126),
        };
        let told = details(shards.iter().map(|raw| &**raw), times).unwrap();
        assert_eq!(
            serde_json::to_string(&told).unwrap(),
            r#"{"wait in queue":"3.00ms","search":"850.00µs","ask shards":"4.50ms","merge shards":"90.13µs"}"#
        );
        assert_eq!(details(std::iter::empty(), times), None);
        assert_eq!(duration("1.5h"), None);
    }
}
