//! `sizeFormat` of statistics: shards are asked for bytes, which can be summed, and the sums are printed as the client wants.

use serde_json::Value;

use crate::call::Call;
use crate::tasks::size::print;

/// The size fields of the instance and of an index, and the field of an index that holds several sizes.
const SIZES: [&str; 4] = [
    "databaseSize",
    "usedDatabaseSize",
    "rawDocumentDbSize",
    "avgDocumentSize",
];
const INTERNAL: &str = "internalDatabaseSizes";

/// How sizes are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SizeFormat {
    Raw,
    Human,
}

impl SizeFormat {
    /// The format that a call's query asks for; `None` for a query that a node refuses.
    pub(super) fn of(call: &Call) -> Option<Self> {
        Self::of_query(call.query())
    }

    fn of_query(query: &str) -> Option<Self> {
        let (mut format, mut shown) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            // A parameter given twice is for a node to judge, too.
            let again = match (name.as_ref(), value.as_ref()) {
                ("sizeFormat", "raw") => format.replace(Self::Raw).is_some(),
                ("sizeFormat", "human") => format.replace(Self::Human).is_some(),
                ("showInternalDatabaseSizes", "true" | "false") => shown.replace(()).is_some(),
                _ => return None,
            };
            if again {
                return None;
            }
        }
        Some(format.unwrap_or(Self::Raw))
    }

    /// The path and query of the request to the shards.
    pub(super) fn asked(call: &Call) -> String {
        let path = call.path_and_query.split('?').next().unwrap_or_default();
        let pairs = call.query_pairs().filter(|(name, _)| name != "sizeFormat");
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        match query.is_empty() {
            true => path.to_owned(),
            false => format!("{path}?{query}"),
        }
    }

    /// Prints the sizes in the statistics of an instance, including its indexes, or of one index.
    pub(super) fn tell(self, stats: &mut Value) {
        if self == Self::Raw {
            return;
        }
        for name in SIZES {
            if let Some(size) = stats.get_mut(name) {
                in_words(size);
            }
        }
        let internal = stats.get_mut(INTERNAL).and_then(Value::as_object_mut);
        for (_, size) in internal.into_iter().flatten() {
            in_words(size);
        }
        let indexes = stats.get_mut("indexes").and_then(Value::as_object_mut);
        for (_, index) in indexes.into_iter().flatten() {
            self.tell(index);
        }
    }
}

fn in_words(size: &mut Value) {
    if let Some(bytes) = size.as_f64() {
        *size = print(bytes).into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_is_read_as_a_node_reads_it() {
        let read = SizeFormat::of_query;
        assert_eq!(read(""), Some(SizeFormat::Raw));
        assert_eq!(
            read("showInternalDatabaseSizes=true&sizeFormat=human"),
            Some(SizeFormat::Human)
        );
        for refused in [
            "sizeFormat=Human",
            "sizeFormat=raw&sizeFormat=raw",
            "showInternalDatabaseSizes=1",
            "other=1",
        ] {
            assert_eq!(read(refused), None, "{refused}");
        }
    }

    #[test]
    fn every_size_is_told_in_words_and_no_count_is() {
        let mut stats = json!({
            "databaseSize": 94_208, "usedDatabaseSize": 512, "lastUpdate": null,
            "indexes": {"a": {
                "numberOfDocuments": 2048, "rawDocumentDbSize": 4096, "avgDocumentSize": 1500,
                "internalDatabaseSizes": {"documents": 1_310_720},
                "fieldDistribution": {"id": 2048}
            }}
        });
        SizeFormat::Human.tell(&mut stats);
        assert_eq!(
            stats,
            json!({
                "databaseSize": "92 KiB", "usedDatabaseSize": "512 B", "lastUpdate": null,
                "indexes": {"a": {
                    "numberOfDocuments": 2048, "rawDocumentDbSize": "4 KiB", "avgDocumentSize": "1.46 KiB",
                    "internalDatabaseSizes": {"documents": "1.25 MiB"},
                    "fieldDistribution": {"id": 2048}
                }}
            })
        );
    }
}
