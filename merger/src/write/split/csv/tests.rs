use std::sync::Arc;

use weft_routing::placement::{ShardId, SlotMap};

use crate::write::format::Format;
use crate::write::split::tests::{Whole, split};
use crate::write::split::{Fault, SplitError};

const CSV: Format = Format::Csv { delimiter: b',' };

fn shards(count: u16) -> Arc<SlotMap> {
    Arc::new(SlotMap::deal(&(0..count).map(ShardId).collect::<Vec<_>>()).unwrap())
}

fn run(text: &str) -> Result<Whole, SplitError> {
    split(CSV, &shards(3), Some("id"), &[text.as_bytes()])
}

fn fault(text: &[u8]) -> String {
    match split(CSV, &shards(3), Some("id"), &[text]) {
        Err(SplitError::Fault(Fault::Malformed(text))) => text,
        other => panic!("{other:?}"),
    }
}

/// The error of the reader that a node uses, for this text.
fn nodes_fault(text: &[u8]) -> String {
    let mut reader = csv::Reader::from_reader(text);
    if let Err(error) = reader.headers() {
        return error.to_string();
    }
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => panic!("no fault"),
            Err(error) => return error.to_string(),
        }
    }
}

#[test]
fn rows_go_on_as_they_are_behind_the_header() {
    let whole = run("id,title\r\n1,\"a, \"\"b\"\"\nc\"\r\n\r\n2,x\n3,y").unwrap();
    assert_eq!(whole.received, 3);
    let mut rows = whole.documents();
    rows.sort();
    assert_eq!(rows, ["1,\"a, \"\"b\"\"\nc\"", "2,x", "3,y"]);
    assert!(
        whole
            .parts
            .iter()
            .all(|(_, text)| text.starts_with("id,title\n") && text.ends_with('\n'))
    );
}

#[test]
fn a_quote_left_open_at_the_end_is_closed() {
    let whole = split(CSV, &shards(1), Some("id"), &[b"id,t\n1,\"open\n"]).unwrap();
    assert_eq!(
        whole.parts,
        [(ShardId(0), "id,t\n1,\"open\n\"\n".to_owned())]
    );
}

#[test]
fn ids_have_the_type_of_their_column() {
    let ids = |text: &str| run(text).unwrap().refused;
    assert_eq!(ids("id:number\n007\n+8\n 9 \n"), None);
    assert_eq!(ids("id\nabc-_1\n"), None);
    assert_eq!(ids("id:number\n1.5\n").as_deref(), Some("id:number\n1.5\n"));
    assert_eq!(ids("id,x\n1,2\n,3\n4,5\n").as_deref(), Some("id,x\n,3\n"));
    assert_eq!(
        ids("id:boolean\ntrue\n").as_deref(),
        Some("id:boolean\ntrue\n")
    );
    assert_eq!(ids("name\nx\ny\n").as_deref(), Some("name\nx\n"));
}

#[test]
fn the_key_is_inferred_from_the_columns() {
    let inferred = |text: &str| {
        let whole = split(CSV, &shards(2), None, &[text.as_bytes()]).unwrap();
        (whole.key, whole.refused)
    };
    assert_eq!(
        inferred("name,movieId:number\nx,1\n"),
        (Some("movieId".to_owned()), None)
    );
    assert_eq!(inferred("name\nx\n"), (None, Some("name\nx\n".to_owned())));
    assert_eq!(inferred("a_id,b_id\n1,2\n").0, None);
    assert_eq!(inferred("id,id\n1,2\n"), (Some("id".to_owned()), None));
    assert_eq!(inferred("movieId\n"), (None, None));
}

#[test]
fn faults_are_worded_as_a_nodes_reader_words_them() {
    let ragged: &[&[u8]] = &[
        b"id,a\n1,2\n3\n",
        b"id,a\r\n1,2\r\n3,4,5\r\n",
        b"id,a\n\n\n1,2\n\n3\n",
        b"\xef\xbb\xbfid,a\n1\n",
        b"id,a\n1,\"x\ny\"\n2\n",
        b"id,\xff\n1,2\n",
        b"id,a\n1,ok\xfe\n",
        b"id,a\n1,2,\xfe\n",
    ];
    for text in ragged {
        assert_eq!(
            fault(text),
            nodes_fault(text),
            "{}",
            String::from_utf8_lossy(text)
        );
    }
    assert_eq!(
        fault(b"id,n:number\n1,2\n3,x\n"),
        "Error parsing number \"x\" at line 2: invalid float literal"
    );
    assert_eq!(
        fault(b"id,b:boolean\n1,yes\n"),
        "Error parsing boolean \"yes\" at line 1: provided string was not `true` or `false`"
    );
}

#[test]
fn chunk_borders_do_not_matter() {
    let text = "\u{feff}id,t\r\n1,\"a\r\n\"\"b\"\r\n2,é\r\n3,\"x,y\"";
    let whole = run(text).unwrap();
    for size in 1..text.len() {
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        assert_eq!(
            split(CSV, &shards(3), Some("id"), &chunks).unwrap(),
            whole,
            "{size}"
        );
    }
}
