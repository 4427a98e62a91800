use futures_util::FutureExt;
use http_body_util::BodyExt;
use weft_routing::document_id::DocumentId;

use super::*;

/// A batch with its pieces read into strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) parts: Vec<(ShardId, String)>,
    pub(super) received: u64,
    pub(super) key: Option<String>,
    pub(super) refused: Option<String>,
}

impl Whole {
    /// The documents of all parts, without the text around them.
    pub(super) fn documents(&self) -> Vec<String> {
        let rows = |text: &String| {
            let (_, rows) = text.split_once('\n').unwrap();
            let mut reader = rows.strip_suffix('\n').unwrap().to_owned();
            // In these tests, only line ends inside quotes don't end a row.
            let mut all = Vec::new();
            while let Some(at) = row_end(&reader) {
                let rest = reader.split_off(at);
                all.push(std::mem::replace(
                    &mut reader,
                    rest.trim_start_matches('\n').to_owned(),
                ));
            }
            all.push(reader);
            all
        };
        self.parts.iter().flat_map(|(_, text)| rows(text)).collect()
    }
}

fn row_end(text: &str) -> Option<usize> {
    let mut quoted = false;
    text.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b'\n' && !quoted
    })
}

/// Splits a body that arrives in these chunks.
pub(super) fn split(
    format: Format,
    slots: &Arc<SlotMap>,
    key: Option<&str>,
    chunks: &[&[u8]],
) -> Result<Whole, SplitError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = std::env::temp_dir();
        let limits = SpoolLimits {
            memory_bytes: 1 << 20,
            piece_bytes: 90 << 20,
            folder,
            memory: crate::bounds::Budget::unbounded(),
            disk: crate::bounds::Budget::unbounded(),
        };
        let mut splitter = Splitter::new(format, slots, named(key), limits);
        for chunk in chunks {
            splitter.push(chunk)?;
            splitter.spill().await?;
        }
        let batch = splitter.finish().await?;
        let mut parts = Vec::new();
        for part in &batch.parts {
            let mut whole = String::new();
            for piece in &part.pieces {
                whole.push_str(&text(piece).await);
            }
            parts.push((part.shard, whole));
        }
        let refused = match &batch.refused {
            Some(piece) => Some(text(piece).await),
            None => None,
        };
        Ok(Whole {
            parts,
            received: batch.received,
            key: batch.key,
            refused,
        })
    })
}

fn named(key: Option<&str>) -> SplitKey {
    SplitKey {
        name: key.map(str::to_owned),
        is_open: false,
    }
}

async fn text(piece: &Piece) -> String {
    String::from_utf8(piece.body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub(super) fn shards(count: u16) -> Arc<SlotMap> {
    Arc::new(SlotMap::deal(&(0..count).map(ShardId).collect::<Vec<_>>()).unwrap())
}

fn json(text: &str) -> Result<Whole, SplitError> {
    split(Format::Json, &shards(1), Some("id"), &[text.as_bytes()])
}

fn ndjson(text: &str) -> Result<Whole, SplitError> {
    split(Format::Ndjson, &shards(1), Some("id"), &[text.as_bytes()])
}

fn fault(outcome: Result<Whole, SplitError>) -> String {
    match outcome {
        Err(SplitError::Fault(fault)) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn documents_keep_their_bytes() {
    let whole = json("\n[ {\"id\" : 1, \"x\":1.50} ,{\"id\":2}\n]  trailing").unwrap();
    assert_eq!(
        whole.parts,
        [(
            ShardId(0),
            "[{\"id\" : 1, \"x\":1.50},{\"id\":2}]".to_owned()
        )]
    );
    let whole = ndjson("{\"id\":1}\r\n\n  {\"id\":2}{\"id\":3}\n{\"id\":\n4}").unwrap();
    assert_eq!(
        whole.parts,
        [(
            ShardId(0),
            "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":\n4}\n".to_owned()
        )]
    );
    assert_eq!(whole.received, 4);
}

#[test]
fn one_object_is_a_batch_of_one() {
    let whole = json(" {\"id\":\"a\"} \n").unwrap();
    assert_eq!(
        (whole.received, whole.parts),
        (1, vec![(ShardId(0), "[{\"id\":\"a\"}]".to_owned())])
    );
    assert_eq!(
        fault(json("{\"id\":1} x")),
        "trailing characters at line 1 column 10"
    );
    assert_eq!(
        fault(json("{\"id\":1")),
        "EOF while parsing an object at line 1 column 7"
    );
}

#[test]
fn nothing_is_a_batch_of_none() {
    for (format, text) in [
        (Format::Json, " [ ] "),
        (Format::Ndjson, "\n\n"),
        (Format::Csv { delimiter: b',' }, "id,a\n"),
    ] {
        let whole = split(format, &shards(3), Some("id"), &[text.as_bytes()]).unwrap();
        assert_eq!(
            (whole.received, whole.parts, whole.refused),
            (0, vec![], None)
        );
    }
    for format in [
        Format::Json,
        Format::Ndjson,
        Format::Csv { delimiter: b',' },
    ] {
        assert!(matches!(
            split(format, &shards(3), None, &[]),
            Err(SplitError::Empty)
        ));
    }
}

#[test]
fn a_number_and_its_text_go_to_the_same_shard() {
    let slots = shards(7);
    for id in 0..100 {
        let number = split(
            Format::Json,
            &slots,
            Some("id"),
            &[format!("[{{\"id\":{id}}}]").as_bytes()],
        )
        .unwrap();
        let text = split(
            Format::Json,
            &slots,
            Some("id"),
            &[format!("[{{\"id\":\"{id}\"}}]").as_bytes()],
        )
        .unwrap();
        assert_eq!(number.parts[0].0, text.parts[0].0);
    }
}

#[test]
fn a_document_that_a_task_would_refuse_stands_alone() {
    let long = "x".repeat(512);
    let just = "x".repeat(511);
    assert_eq!(
        json(&format!("[{{\"id\":\"{just}\"}}]")).unwrap().refused,
        None
    );
    for bad in [
        "{\"id\":1.5}",
        "{\"id\":null}",
        "{}",
        "{\"id\":\"a b\"}",
        "{\"id\":[1]}",
        "{\"id\":-0}",
        &format!("{{\"id\":\"{long}\"}}"),
    ] {
        let whole = json(&format!("[{{\"id\":1}},{bad},{{\"id\":2}}]")).unwrap();
        assert_eq!(whole.refused.as_deref(), Some(format!("[{bad}]").as_str()));
        assert_eq!((whole.parts, whole.received), (vec![], 3));
    }
}

#[test]
fn what_follows_a_refused_document_must_still_be_json() {
    assert_eq!(
        fault(json("[{\"id\":null},{]")),
        "key must be a string at line 1 column 15"
    );
}

#[test]
fn repeated_keys_are_the_formats_own_affair() {
    assert_eq!(json("[{\"id\":null,\"id\":1}]").unwrap().refused, None);
    assert!(ndjson("{\"id\":1,\"id\":1}").unwrap().refused.is_some());
}

#[test]
fn a_key_may_be_written_with_escapes_or_be_nested() {
    assert_eq!(json("[{\"\\u0069d\":1}]").unwrap().refused, None);
    let nested = split(
        Format::Json,
        &shards(1),
        Some("a.b"),
        &[b"[{\"a\":{\"b\":1}},{\"a.b\":2}]"],
    )
    .unwrap();
    assert_eq!((nested.refused, nested.received), (None, 2));
}

#[test]
fn the_key_is_inferred_from_the_first_document() {
    let infer = |text: &str| {
        let whole = split(Format::Json, &shards(1), None, &[text.as_bytes()]).unwrap();
        (whole.key, whole.refused)
    };
    assert_eq!(
        infer("[{\"movieID\":1},{\"movieID\":2,\"other_id\":3}]"),
        (Some("movieID".to_owned()), None)
    );
    assert_eq!(
        infer("[{\"a_id\":1,\"b_id\":2},{\"a_id\":2}]"),
        (None, Some("[{\"a_id\":1,\"b_id\":2}]".to_owned()))
    );
    assert_eq!(
        infer("[{\"movieID\":1},{\"x\":2}]"),
        (Some("movieID".to_owned()), Some("[{\"x\":2}]".to_owned()))
    );
    assert_eq!(infer("[]"), (None, None));
}

#[test]
fn faults_are_worded_as_a_node_words_them() {
    for (text, words) in [
        (
            "[{\"id\": 1, }]",
            "key must be a string at line 1 column 12",
        ),
        (
            "[{\"id\":1},\n{\"id\":2},\n{\"id\":x}]",
            "expected value at line 3 column 7",
        ),
        (
            "[{\"id\":1} {\"id\":2}]",
            "expected `,` or `]` at line 1 column 11",
        ),
        ("[{\"id\":1},]", "trailing comma at line 1 column 11"),
        ("[{\"id\":1}", "EOF while parsing a list at line 1 column 9"),
        (
            "[{\"id\":1},\n",
            "EOF while parsing a value at line 2 column 0",
        ),
        ("[", "EOF while parsing a list at line 1 column 1"),
        (" ", "EOF while parsing a value at line 1 column 1"),
        (
            "\"text\"",
            "data are neither an object nor a list of objects",
        ),
        ("12", "data are neither an object nor a list of objects"),
        ("nul", "EOF while parsing a value at line 1 column 3"),
        ("\u{feff}[]", "expected value at line 1 column 1"),
        (
            "[1]",
            "invalid type: integer `1`, expected a map at line 1 column 1",
        ),
        (
            "[{\"id\":1},[1],{}]",
            "trailing characters at line 1 column 15",
        ),
    ] {
        assert_eq!(fault(json(text)), words, "{text}");
    }
    for (text, words) in [
        (
            "{\"id\":1}\n{\"id\":}\n",
            "expected value at line 2 column 7",
        ),
        (
            "{\"id\":1}\n{\"id\":",
            "EOF while parsing a value at line 2 column 6",
        ),
        ("{\"id\":1},{\"id\":2}", "expected value at line 1 column 9"),
        (
            "{\"id\":1}\n\"x\"",
            "invalid type: string \"x\", expected a map at line 1 column 3",
        ),
    ] {
        assert_eq!(fault(ndjson(text)), words, "{text}");
    }
}

#[test]
fn text_that_is_no_utf8_is_refused() {
    for format in [Format::Json, Format::Ndjson] {
        let text = [
            if format == Format::Json {
                b"[".as_slice()
            } else {
                b""
            },
            b"{\"id\":1,\"t\":\"\xff\"}",
        ]
        .concat();
        let column = text.len();
        let words = fault(split(format, &shards(1), Some("id"), &[&text]));
        assert_eq!(
            words,
            format!("invalid unicode code point at line 1 column {column}")
        );
    }
}

#[test]
fn every_truncation_is_a_fault() {
    let text = "[{\"id\":1,\"t\":\"é\\n\"},\n {\"id\":2,\"a\":[1.5,{}]}]";
    for end in 1..text.len() {
        let chunk = text.as_bytes().get(..end).unwrap();
        let outcome = split(Format::Json, &shards(2), Some("id"), &[chunk]);
        assert!(
            matches!(outcome, Err(SplitError::Fault(Fault::Malformed(_)))),
            "{end}: {outcome:?}"
        );
    }
}

#[test]
fn a_document_larger_than_a_node_takes_is_refused() {
    let text = "x".repeat(200);
    for (format, body) in [
        (
            Format::Json,
            format!("[{{\"id\":1}},{{\"id\":2,\"t\":\"{text}\"}}]"),
        ),
        (Format::Ndjson, format!("{{\"id\":2,\"t\":\"{text}\"}}\n")),
        (Format::Csv { delimiter: b',' }, format!("id,t\n1,{text}\n")),
    ] {
        for size in [1, 7, 1000] {
            let limits = SpoolLimits {
                memory_bytes: 10,
                piece_bytes: 100,
                folder: std::env::temp_dir(),
                memory: crate::bounds::Budget::unbounded(),
                disk: crate::bounds::Budget::unbounded(),
            };
            let mut splitter = Splitter::new(format, &shards(1), named(Some("id")), limits);
            let outcome = body
                .as_bytes()
                .chunks(size)
                .try_for_each(|chunk| splitter.push(chunk));
            assert!(
                matches!(outcome, Err(SplitError::DocumentTooLarge { limit: 100 })),
                "{format:?} {size}"
            );
        }
    }
}

#[tokio::test]
async fn only_a_document_that_is_too_long_itself_is_refused_for_its_length() {
    let long = |id: u32, bytes: usize| format!("{{\"id\":{id},\"t\":\"{}\"}}\n", "x".repeat(bytes));
    for (bytes, fits) in [(10, true), (60, true), (80, true), (200, false)] {
        let text: String = (0..20).map(|id| long(id, bytes)).collect();
        for chunk in [1, 7, 50, 1_000] {
            let limits = SpoolLimits {
                memory_bytes: 1 << 20,
                piece_bytes: 100,
                folder: std::env::temp_dir(),
                memory: crate::bounds::Budget::unbounded(),
                disk: crate::bounds::Budget::unbounded(),
            };
            let mut splitter = Splitter::new(Format::Ndjson, &shards(3), named(Some("id")), limits);
            let pushed: Result<Vec<()>, _> = text
                .as_bytes()
                .chunks(chunk)
                .map(|chunk| splitter.push(chunk))
                .collect();
            match pushed {
                Ok(_) => {
                    assert!(fits, "{bytes} in chunks of {chunk}");
                    assert_eq!(splitter.finish().await.unwrap().received, 20);
                }
                Err(error) => {
                    let too_large = matches!(error, SplitError::DocumentTooLarge { limit: 100 });
                    assert!(!fits && too_large, "{bytes} in chunks of {chunk}: {error}");
                }
            }
        }
    }
}

#[test]
fn the_ids_of_a_part_are_those_of_its_documents_or_not_known() {
    let ids_of = |count: usize| {
        let slots = shards(3);
        let lines: String = (0..count).map(|id| format!("{{\"id\":{id}}}\n")).collect();
        let mut splitter = crate::write::dry_run::in_memory(Format::Ndjson, &slots, Some("id"));
        splitter.push(lines.as_bytes()).unwrap();
        let batch = splitter.finish().now_or_never().unwrap().unwrap();
        for part in &batch.parts {
            for id in part.ids.iter().flat_map(Ids::iter) {
                let id = DocumentId::from_text(id).unwrap();
                assert_eq!(slots.shard_of(&id), Some(part.shard));
            }
        }
        let counts = batch
            .parts
            .iter()
            .map(|part| Some(part.ids.as_ref()?.len()));
        counts.collect::<Option<Vec<usize>>>()
    };
    assert_eq!(ids_of(300).map(|counts| counts.iter().sum()), Some(300));
    assert_eq!(ids_of(40_000), None, "more than are kept");
}
