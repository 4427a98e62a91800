//! Which writes can't spoil their neighbours.

use serde_json::{Map, Value};

use crate::write::format::Format;

/// Whether a write's documents can't spoil their neighbours', as far as can be told before a node has seen them: read
/// whole, so that numbers out of range and values nested too deep show, which only the indexer refuses.
pub(in crate::write) fn is_harmless(format: Format, documents: &[u8]) -> bool {
    match format {
        Format::Json => {
            let array = [b"[", documents, b"]"].concat();
            serde_json::from_slice::<Vec<Map<String, Value>>>(&array)
                .is_ok_and(|documents| documents.iter().all(is_plain))
        }
        Format::Ndjson => serde_json::Deserializer::from_slice(documents)
            .into_iter::<Map<String, Value>>()
            .all(|document| document.is_ok_and(|document| is_plain(&document))),
        Format::Csv { .. } => false,
    }
}

/// No field that the engine checks in ways of its own.
fn is_plain(document: &Map<String, Value>) -> bool {
    !document
        .keys()
        .any(|name| name.starts_with("_vectors") || name.starts_with("_geo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_only_an_indexer_can_judge_go_alone() {
        let harmless = |text: &str| is_harmless(Format::Json, text.as_bytes());
        assert!(harmless(r#"{"id":1,"t":"a\n\u00e9"},{"id":2}"#));
        for text in [
            r#"{"id":1,"_geo":{"lat":1,"lng":2}}"#,
            r#"{"id":1,"_vectors":{}}"#,
            r#"{"id":1,"\u005fgeo":1}"#,
            r#"{"id":1,"t":"\ud800"}"#,
            r#"{"id":1,"n":1e999}"#,
        ] {
            assert!(!harmless(text), "{text}");
        }
        assert!(!harmless(&format!(
            r#"{{"id":1,"d":{}{}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        )));
        assert!(is_harmless(Format::Ndjson, b"{\"id\":1}\n{\"id\":2}"));
    }
}
