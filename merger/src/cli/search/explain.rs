//! The `explain` member of an answer in words: which shards were asked, and what became of what they gave.

use serde_json::Value;

use crate::cli::output::{Look, Mood, Rows, plain};
use crate::cli::words::{bytes, count, list, number, shown, text};

/// The explanation as text, with an empty line before it.
pub(super) fn show(told: &Value, look: Look) -> String {
    let mut out = format!("\nwhy these shards: {}\n\n", text(told, "why"));
    let headings = [
        "SHARD",
        "NODE",
        "TOOK",
        "ANSWER",
        "ASKED FOR",
        "FOUND",
        "KEPT",
    ];
    let mut rows = Rows::with(&headings, look);
    for part in list(told, "shards") {
        let took = part.get("tookMs").and_then(Value::as_f64).unwrap_or(0.0);
        rows.add([
            plain(number(part, "shard").to_string()),
            plain(text(part, "node")),
            plain(format!("{took:.1} ms")),
            plain(bytes(number(part, "bytes"))),
            plain(asked(part)),
            plain(count(number(part, "found"))),
            plain(count(number(part, "kept"))),
        ]);
    }
    out.push_str(&rows.text());
    for (member, words, mood) in [
        ("missing", "no answer from shard", Mood::Bad),
        ("rebuilt", "made anew from all answers:", Mood::Plain),
        ("estimated", "estimated:", Mood::Plain),
        (
            "countedTwice",
            "slots are moved, so documents may be counted twice on shard",
            Mood::Warning,
        ),
        (
            "uncertainFacets",
            "facets that may lack a value or a part of a count:",
            Mood::Warning,
        ),
    ] {
        let values: Vec<String> = list(told, member).iter().map(shown).collect();
        if !values.is_empty() {
            let line = format!("{words} {}", values.join(", "));
            out.push_str(&look.paint(&line, mood));
            out.push('\n');
        }
    }
    out
}

/// Which hits a shard was asked for, counted from 1.
fn asked(part: &Value) -> String {
    let (from, asked) = (number(part, "from"), number(part, "asked"));
    match asked {
        0 => "no hits".to_owned(),
        1 => format!("hit {}", from + 1),
        asked => format!("hits {} to {}", from + 1, from + asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_explanation_is_a_table_and_what_is_to_be_known() {
        let told = json!({"why": "it lies on 2 shards", "shards": [
            {"shard": 0, "node": "shard-0-node-1", "tookMs": 3.12, "bytes": 2_048, "from": 0, "asked": 20, "found": 34, "kept": 12},
            {"shard": 1, "tookMs": 1.0, "bytes": 100, "from": 20, "asked": 1, "found": 0, "kept": 0},
        ], "missing": [2], "rebuilt": ["the order"], "countedTwice": [0, 1], "uncertainFacets": []});
        assert_eq!(
            show(&told, Look::PLAIN),
            "\nwhy these shards: it lies on 2 shards\n\n\
             SHARD  NODE            TOOK    ANSWER   ASKED FOR     FOUND  KEPT\n    \
             0  shard-0-node-1  3.1 ms  2.0 KiB  hits 1 to 20     34    12\n    \
             1                  1.0 ms  100 B    hit 21            0     0\n\
             no answer from shard 2\n\
             made anew from all answers: the order\n\
             slots are moved, so documents may be counted twice on shard 0, 1\n"
        );
    }
}
