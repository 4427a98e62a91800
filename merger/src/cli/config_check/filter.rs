//! The filter's configuration in the file.

use serde_json::{Map, Value};
use weft_routing::ShardNames;

use super::clusters::{come_from_elsewhere, listed};
use super::yaml::{Kind, Node};
use super::{Merger, Report, meant};

/// Every key of the filter's configuration, and what its value is.
pub(super) const KEYS: [(&str, Shape); 12] = [
    ("mode", Shape::Text),
    ("merger_cluster", Shape::Text),
    ("shard_prefix", Shape::Text),
    ("table_poll_ms", Shape::Number),
    ("max_lease_ms", Shape::Number),
    ("body_routing", Shape::Truth),
    ("max_body_bytes", Shape::Number),
    ("register_timeout_ms", Shape::Number),
    ("clear_route_cache", Shape::Truth),
    ("headers_removed", Shape::Truth),
    ("log_operation", Shape::Operations),
    ("require_term", Shape::Truth),
];

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Number,
    Truth,
    /// Which operations are named; a truth is what it was before.
    Operations,
}

/// Weft's filter in a listener.
pub(super) struct Found<'a> {
    /// `PluginConfig`.
    plugin: &'a Node,
    line: usize,
    /// The line of the filter's own configuration.
    configured: usize,
    configuration: Result<Map<String, Value>, String>,
}

impl Found<'_> {
    /// Whether it stands in front of one node.
    pub(super) fn is_guard(&self) -> bool {
        self.value("mode").and_then(Value::as_str) == Some("guard")
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.configuration.as_ref().ok()?.get(key)
    }
}

/// All places where the filter stands.
pub(super) fn find(root: &Node) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    root.walk(&mut |node| {
        let is_wasm = node
            .text(&["typed_config", "@type"])
            .is_some_and(|kind| kind.ends_with(".wasm.v3.Wasm"));
        let Some(plugin) = node.at(&["typed_config", "config"]).filter(|_| is_wasm) else {
            return;
        };
        let of_weft = |keys: &[&str]| {
            let name = node.text(keys).or_else(|| plugin.text(keys));
            name.is_some_and(|name| name.contains("weft"))
        };
        let is_ours = of_weft(&["name"])
            || of_weft(&["root_id"])
            || of_weft(&["vm_config", "code", "local", "filename"]);
        if is_ours {
            found.push(read(plugin));
        }
    });
    found
}

fn read(plugin: &Node) -> Found<'_> {
    let value = plugin
        .at(&["configuration", "value"])
        .or_else(|| plugin.get("configuration"));
    let configuration = match value.map(|value| (value, &value.kind)) {
        None | Some((_, Kind::Null)) => Ok(Map::new()),
        Some((_, Kind::Scalar(text))) => match serde_json::from_str(text) {
            Ok(map) => Ok(map),
            Err(_) if text.trim().is_empty() => Ok(Map::new()),
            Err(error) => Err(error.to_string()),
        },
        Some((node, Kind::Map(_))) => Ok(members(node)),
        Some((_, Kind::List(_))) => Err("it is a list".to_owned()),
    };
    Found {
        plugin,
        line: plugin.line,
        configured: value.map_or(plugin.line, |value| value.line),
        configuration,
    }
}

/// A `google.protobuf.Struct` as JSON.
fn members(node: &Node) -> Map<String, Value> {
    let members = node.entries().iter().filter(|entry| entry.key != "@type");
    let value = |entry: &Node| match entry.scalar() {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
    };
    members
        .map(|entry| (entry.key.clone(), value(&entry.value)))
        .collect()
}

/// Looks at each of them.
pub(super) fn check(filters: &[Found<'_>], root: &Node, merger: &Merger, report: &mut Report) {
    for filter in filters {
        match &filter.configuration {
            Err(error) => {
                let text = format!("the filter's configuration isn't a JSON object: {error}");
                report.mistake(filter.configured, text);
            }
            Ok(configuration) => {
                keys(configuration, filter.configured, report);
                if !filter.is_guard() {
                    names(filter, root, merger, report);
                    bodies(filter, report);
                }
            }
        }
    }
}

fn keys(configuration: &Map<String, Value>, line: usize, report: &mut Report) {
    for (key, value) in configuration {
        let known = || KEYS.iter().map(|(name, _)| *name);
        let Some((_, shape)) = KEYS.iter().find(|(name, _)| name == key) else {
            let text = format!(
                "the filter's configuration has no `{key}`{}",
                meant(key, known())
            );
            report.mistake(line, text);
            continue;
        };
        let expected = match shape {
            Shape::Text if !value.is_string() => "a text",
            Shape::Number if !value.is_number() => "a number",
            Shape::Truth if !value.is_boolean() => "true or false",
            Shape::Operations if !names_operations(value) => "none, merged or all",
            _ => continue,
        };
        report.mistake(
            line,
            format!("`{key}` in the filter's configuration must be {expected}"),
        );
    }
}

fn names_operations(value: &Value) -> bool {
    let named = value.as_str();
    value.is_boolean() || named.is_some_and(|name| ["none", "merged", "all"].contains(&name))
}

/// The names that filter, merger and file must have in common.
fn names(filter: &Found<'_>, root: &Node, merger: &Merger, report: &mut Report) {
    let name = filter.value("merger_cluster").and_then(Value::as_str);
    let name = name.unwrap_or("merger");
    let clusters = listed(root);
    let known = || clusters.iter().map(|cluster| cluster.name);
    if known().all(|known| known != name) && !come_from_elsewhere(root) {
        let text = format!(
            "the filter's merger_cluster is `{name}`, and there is no such cluster{}",
            meant(name, known())
        );
        report.mistake(filter.configured, text);
    }
    let pattern = filter.value("shard_prefix").and_then(Value::as_str);
    let pattern = pattern.unwrap_or("shard-");
    match pattern.parse::<ShardNames>() {
        Ok(names) if names == merger.names => {}
        Ok(_) => {
            let text = format!(
                "the filter's shard_prefix is `{pattern}`, and the merger's --shard-prefix is `{}`",
                merger.names
            );
            report.mistake(filter.configured, text);
        }
        Err(error) => report.mistake(
            filter.configured,
            format!("the filter's shard_prefix: {error}"),
        ),
    }
}

/// A filter that looks into bodies must be able to wait for them.
fn bodies(filter: &Found<'_>, report: &mut Report) {
    let looks = filter.value("body_routing") == Some(&Value::Bool(true));
    let waits = filter.plugin.text(&["allow_on_headers_stop_iteration"]) == Some("true");
    if looks && !waits {
        let text = "body_routing needs allow_on_headers_stop_iteration: true beside the filter's vm_config: else writes hang";
        report.mistake(filter.line, text);
    }
}
