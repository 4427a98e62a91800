//! Property test: any documents, in a body that arrives in any chunks, end up on their own shards, unchanged.

use proptest::prelude::*;
use weft_routing::document_id::DocumentId;

use super::tests::{shards, split};
use super::*;

fn document() -> impl Strategy<Value = (String, String)> {
    let id = prop_oneof![
        "[a-zA-Z0-9_-]{1,20}".prop_map(|id| format!("\"{id}\"")),
        any::<i32>().prop_map(|id| id.to_string())
    ];
    let text = "[ -~é\n\"\\\\{}\\[\\],:]{0,40}";
    (id, text, any::<bool>()).prop_map(|(id, text, first)| {
        let text = serde_json::to_string(&text).unwrap();
        let body = if first {
            format!("{{\"id\":{id},\"t\":{text}}}")
        } else {
            format!("{{\"t\" : {text}, \"id\" :{id} }}")
        };
        (id, body)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn parts_are_the_documents_each_on_its_own_shard_however_the_body_is_cut(
        documents in prop::collection::vec(document(), 0..30),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        count in 1_u16..9,
        format in prop_oneof![Just(Format::Json), Just(Format::Ndjson)],
    ) {
        let texts: Vec<&str> = documents.iter().map(|(_, text)| text.as_str()).collect();
        let body = match format {
            Format::Json => format!("[{}]", texts.join(" ,\n")),
            _ => format!("{}\n", texts.join("\n")),
        };
        let slots = shards(count);
        let whole = split(format, &slots, Some("id"), &[body.as_bytes()]).unwrap();
        let mut borders: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        borders.extend([0, body.len()]);
        borders.sort_unstable();
        let chunks: Vec<&[u8]> = borders.windows(2).map(|pair| &body.as_bytes()[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&split(format, &slots, Some("id"), &chunks).unwrap(), &whole);

        let mut expected: Vec<(ShardId, String)> = Vec::new();
        for shard in slots.shards() {
            let own: Vec<&str> = documents
                .iter()
                .filter(|(id, _)| slots.shard_of(&DocumentId::from_json(id).unwrap()) == Some(*shard))
                .map(|(_, text)| text.as_str())
                .collect();
            if own.is_empty() { continue; }
            expected.push((*shard, match format {
                Format::Json => format!("[{}]", own.join(",")),
                _ => format!("{}\n", own.join("\n")),
            }));
        }
        prop_assert_eq!(whole.parts, expected);
        prop_assert_eq!(whole.received, documents.len() as u64);
    }
}
