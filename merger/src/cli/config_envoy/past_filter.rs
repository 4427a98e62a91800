//! The requests that go to the merger without passing the filter: frequent ones that no shard can answer alone.
//!
//! A filter in wasm costs Envoy about a third of the processor time of a request, and for these it would decide nothing. What
//! is spelled in another way, such as with a double slash, takes the way through the filter to the same merger. The list is short
//! because each route costs all other requests almost a microsecond.

use serde::Serialize;
use weft_routing::Operation;

/// One of them.
pub(super) struct Way {
    method: &'static str,
    path: Path,
    operation: Operation,
}

enum Path {
    /// This path.
    Is(&'static str),
    /// A path that ends in a number.
    Numbered(&'static str),
}

/// All of them.
pub(super) const PAST_FILTER: [Way; 2] = [
    way("POST", Path::Is("/multi-search"), Operation::MultiSearch),
    way("GET", Path::Numbered("/tasks/"), Operation::GetTask),
];

const fn way(method: &'static str, path: Path, operation: Operation) -> Way {
    Way {
        method,
        path,
        operation,
    }
}

/// One of them, as the template needs it.
#[derive(Serialize)]
pub(super) struct WayView {
    method: &'static str,
    /// Envoy's matcher for the path.
    path: String,
    operation: &'static str,
}

impl WayView {
    pub(super) fn of(way: &Way) -> Self {
        Self {
            method: way.method,
            path: match way.path {
                Path::Is(path) => format!("path: {path}"),
                Path::Numbered(path) => {
                    format!("safe_regex: {{ regex: \"{path}[0-9]+\" }}")
                }
            },
            operation: way.operation.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_routing::{Decision, Facts, Policy, RoutingTable, classify, decide};

    use super::*;

    #[test]
    fn the_filter_would_leave_them_to_the_merger_whatever_its_table_says() {
        for way in &PAST_FILTER {
            let path = match way.path {
                Path::Is(path) => path.to_owned(),
                Path::Numbered(path) => format!("{path}17"),
            };
            let classified = classify(way.method, &path).unwrap();
            assert_eq!(classified.operation, way.operation, "{path}");
            assert_eq!(classified.index, None, "{path}");
            let policy = Policy {
                body_routing: true,
                max_body_bytes: 1 << 16,
            };
            let table = RoutingTable::default();
            let decision = decide(&classified, Some(&table), Facts::default(), policy);
            assert_eq!(decision, Decision::Merge, "{path}");
        }
    }
}
