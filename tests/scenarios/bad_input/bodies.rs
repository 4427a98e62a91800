//! Bodies that aren't valid documents, or are only just valid.

use super::wire::{same, same_json};
use super::{Case, Expected, INDEX};

const JSON: &str = "content-type: application/json";
const NDJSON: &str = "content-type: application/x-ndjson";
const CSV: &str = "content-type: text/csv";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = truncated();
    cases.extend(json());
    cases.extend(ids());
    cases.extend(ndjson_and_csv());
    cases.extend(types_and_encodings());
    cases.extend(queries());
    cases.extend(known());
    cases
}

fn post(name: String, content_type: &str, body: &[u8]) -> Case {
    let line = format!("POST /indexes/{INDEX}/documents");
    same(name, &line, &[content_type], body)
}

/// Each body, truncated after each of its bytes.
fn truncated() -> Vec<Case> {
    let bodies = [
        (
            JSON,
            "[{\"id\":901,\"t\":\"é\\u00e9\\n\"},{\"id\":902,\"n\":[1.5e3,null]}]",
        ),
        (
            NDJSON,
            "{\"id\":911,\"t\":\"é\"}\n{\"id\":912,\"b\":true}\n",
        ),
        (CSV, "id:number,t\n921,\"a,\"\"é\"\n922,b\n"),
    ];
    let cut = |(kind, body): (&'static str, &'static str)| {
        (0..body.len()).map(move |end| {
            let name = format!("{kind}, cut after {end} bytes");
            post(name, kind, &body.as_bytes()[..end])
        })
    };
    bodies.into_iter().flat_map(cut).collect()
}

fn json() -> Vec<Case> {
    let nested = |depth: usize| {
        format!(
            "[{{\"id\":930,\"deep\":{}{}}}]",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let texts = r##"
null
true
1
"text"
[]
{}
[{}]
[,]
[{"id":900},]
[{"id":900}{"id":2}]
[{"id":900} {"id":2}]
{"id":931} {"id":932}
{id:1}
{'id':1}
{"id":900,}
{"id" 1}
{"id"::1}
{"id":}
{:1}
{"id":900,,"a":2}
[{"id":900,"a":NaN}]
[{"id":900,"a":Infinity}]
[{"id":900,"a":01}]
[{"id":900,"a":+1}]
[{"id":900,"a":1.}]
[{"id":900,"a":.5}]
[{"id":900,"a":1e}]
[{"id":900,"a":0x1}]
[{"id":900,"a":tru}]
[{"id":900,"a":nul}]
[{"id":900,"a":"\x"}]
[{"id":900,"a":"\u12"}]
[{"id":900,"a":"\ud800"}]
[{"id":934,"a":1,"a":2}]
[{"id":935,"":1}]
[{"id":936,"n":123456789012345678901234567890}]
[{"id":937,"n":-1e308}]
[{"id":938,"n":1e999}]
[{"id":939,"_geo":"nowhere"}]
[{"id":940,"_geo":{"lat":1000,"lng":0}}]
[{"id":941,"_vectors":1}]
[{"id":942,"_vectors":{"x":[1]}}]
"##
    .trim()
    .lines()
    .chain([
        " ",
        "{\"id\":933}\n",
        "[{\"id\":900,\"a\":\"line\nbreak\"}]",
        "[{\"id\":900,\"a\":\"\t\"}]",
        "// comment\n[{\"id\":900}]",
        "\u{feff}[{\"id\":900}]",
    ]);
    let mut cases: Vec<Case> = texts
        .into_iter()
        .map(|text| post(format!("JSON {text:?}"), JSON, text.as_bytes()))
        .collect();
    let bytes: [&[u8]; 6] = [
        b"[{\"id\":900,\"a\":\"\xff\"}]",
        b"[{\"id\":900,\"a\":\"\xc3\"}]",
        b"[{\"id\":900,\"a\":\"\xed\xa0\x80\"}]",
        b"[{\"id\":900,\"\xff\":1}]",
        b"[{\"id\":900,\"a\":\"\0\"}]",
        b"\xff\xfe[\0{\0",
    ];
    for body in bytes {
        cases.push(post(
            format!("JSON {:?}", body.escape_ascii().to_string()),
            JSON,
            body,
        ));
    }
    for depth in [10, 100, 126, 127, 128, 129, 1_000, 30_000] {
        cases.push(post(
            format!("JSON {depth} deep"),
            JSON,
            nested(depth).as_bytes(),
        ));
    }
    cases
}

/// Ids that are only just valid or invalid, alone and after a valid document.
fn ids() -> Vec<Case> {
    let long = |length: usize| format!("\"{}\"", "x".repeat(length));
    let ids = r##"
0
-1
-0
007
1.0
1e2
0.5
18446744073709551615
18446744073709551616
-9223372036854775808
-9223372036854775809
null
true
[]
[1]
{}
""
" "
"a b"
" a"
"a/b"
"a.b"
"é"
"\u0061"
"\u0000"
"-"
"_"
"a\nb"
"950"
950
"##
    .trim()
    .lines();
    let long = [511, 512, 513, 5_000].map(long);
    let all = ids.into_iter().map(str::to_owned).chain(long);
    let mut cases = Vec::new();
    for id in all {
        let name: String = id.chars().take(40).collect();
        let (one, two) = (
            format!("{{\"id\":{id}}}"),
            format!("[{{\"id\":951}},{{\"id\":{id}}}]"),
        );
        cases.push(post(
            format!("id {name} ({})", id.len()),
            JSON,
            one.as_bytes(),
        ));
        cases.push(post(
            format!("id {name} ({}), second", id.len()),
            JSON,
            two.as_bytes(),
        ));
    }
    for (name, body) in [
        ("no id", "[{\"name\":1}]"),
        ("two ids", "[{\"id\":952,\"id\":953}]"),
        ("an id whose name is escaped", "[{\"\\u0069d\":954}]"),
        (
            "an id and another one whose name is escaped",
            "[{\"id\":955,\"\\u0069d\":956}]",
        ),
        ("an `ID` in capitals", "[{\"ID\":1}]"),
    ] {
        cases.push(post(name.to_owned(), JSON, body.as_bytes()));
        cases.push(post(
            format!("{name}, NDJSON"),
            NDJSON,
            body.trim_matches(['[', ']']).as_bytes(),
        ));
    }
    cases
}

fn ndjson_and_csv() -> Vec<Case> {
    let ndjson = [
        "",
        "\n\n",
        "{\"id\":960}{\"id\":961}",
        "{\"id\":962}\n\n\n{\"id\":963}",
        "{\"id\":964},{\"id\":965}",
        "{\"id\":966}\nnot json\n",
        "{\"id\":967}\r\n{\"id\":968}\r\n",
        "{\"id\":\n969}",
        "{\"id\":971}\0",
    ];
    let csv = r##"
id
"##
    .trim()
    .lines()
    .chain([
        "",
        "\n",
        "id\n",
        "id,name\n",
        "id\n\n",
        "id,name\n980",
        "id,name\n981,a,b\n",
        "id,name\n\"982,a\n",
        "id,id\n983,984\n",
        "name\nx\n",
        "id:number\nabc\n",
        "id:number,n:number\n985,1e5\n",
        "id:string,n:boolean\n986,maybe\n",
        "id:wrong\n987\n",
        "id,n:number\n988,\n",
        "\u{feff}id\n989\n",
        "id;name\n990;a\n",
        "id\r\n991\r\n",
        "id\ra\n",
        "id,\"a\"\"b\"\n992,1\n",
        "id\na b\n",
    ]);
    let of = |kind: &'static str| {
        move |text: &str| post(format!("{kind} {text:?}"), kind, text.as_bytes())
    };
    let mut cases: Vec<Case> = ndjson.into_iter().map(of(NDJSON)).collect();
    cases.extend(csv.map(of(CSV)));
    cases.push(post(
        "CSV that isn't UTF-8".to_owned(),
        CSV,
        b"id,t\n993,\xff\n",
    ));
    cases.push(post(
        "NDJSON that isn't UTF-8".to_owned(),
        NDJSON,
        b"{\"id\":900,\"t\":\"\xff\"}\n",
    ));
    cases
}

fn types_and_encodings() -> Vec<Case> {
    let body = b"[{\"id\":1000}]";
    let line = format!("POST /indexes/{INDEX}/documents");
    let types: [&[&str]; 11] = [
        &[],
        &["content-type:"],
        &["content-type: json"],
        &["content-type: text/plain"],
        &["content-type: application/xml"],
        &["content-type: application/json; charset=latin1"],
        &["content-type: application/json;"],
        &["content-type: application/json, text/csv"],
        &["content-type: multipart/form-data; boundary=x"],
        &["content-type: */*"],
        &["content-type: text/csv; header=absent"],
    ];
    let mut cases: Vec<Case> = types
        .into_iter()
        .map(|headers| same(format!("{headers:?}"), &line, headers, body))
        .collect();
    let packed = gzip(body);
    let mut flipped = packed.clone();
    flipped[packed.len() / 2] ^= 0x55;
    let twice = [packed.clone(), packed.clone()].concat();
    let trailing = [packed.clone(), b"\0\0".to_vec()].concat();
    let zlib_twice = [zlib(body), zlib(body)].concat();
    let bodies: [(&str, &str, &[u8]); 15] = [
        ("gzip", "gzip", &packed),
        ("gzip of two members", "gzip", &twice),
        ("gzip with trailing bytes", "gzip", &trailing),
        ("deflate with trailing bytes", "deflate", &zlib_twice),
        ("deflate", "deflate", &zlib(body)),
        ("br", "br", &brotli(body)),
        ("zstd", "zstd", &zstd(body)),
        ("gzip cut short", "gzip", &packed[..packed.len() - 5]),
        ("gzip with a flipped bit", "gzip", &flipped),
        ("plain text as gzip", "gzip", body),
        ("plain text as deflate", "deflate", body),
        ("plain text as br", "br", body),
        ("plain text as zstd", "zstd", body),
        ("an unknown encoding", "rot13", body),
        ("identity", "identity", body),
    ];
    for (name, encoding, body) in bodies {
        // Real nodes don't know zstd, and read such a body as it is; Weft unpacks it, as the embedded node does.
        let expected = match name {
            "zstd" => Expected::Status(&[202]),
            "plain text as zstd" => Expected::Status(&[400]),
            _ => Expected::AsTheNode,
        };
        let encoding = format!("content-encoding: {encoding}");
        cases.push(same(name, &line, &[JSON, &encoding], body).expect(expected));
    }
    cases
}

// These encoders store the text uncompressed, which is the simplest valid form.

/// A block of deflate that stores the text.
fn stored(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let mut block = vec![1];
    block.extend(length.to_le_bytes());
    block.extend((!length).to_le_bytes());
    block.extend(text);
    block
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    packed.extend(stored(text));
    let mut crc = u32::MAX;
    for byte in text {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (0_u32.wrapping_sub(crc & 1)));
        }
    }
    packed.extend((!crc).to_le_bytes());
    packed.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    packed
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in text {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    let mut packed = vec![0x78, 0x01];
    packed.extend(stored(text));
    packed.extend((high << 16 | low).to_be_bytes());
    packed
}

fn brotli(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len() - 1).unwrap();
    // Window of 22 bits, not the last block, its length in 16 bits, stored; then the empty last block.
    let mut packed = vec![0x0b | (length & 1) << 7, length >> 1, 0x80];
    packed.extend(text);
    packed.push(3);
    packed
}

fn zstd(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let block = (u32::from(length) << 3 | 1).to_le_bytes();
    let mut packed = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, length];
    packed.extend(&block[..3]);
    packed.extend(text);
    packed
}

fn queries() -> Vec<Case> {
    let queries = r##"
primaryKey=id
primaryKey=other
primaryKey=
primaryKey=id&primaryKey=id
primarykey=id
unknown=1
csvDelimiter=;
csvDelimiter=
csvDelimiter=;;
csvDelimiter=%C3%A9
skipCreation=true
skipCreation=maybe
skipCreation=
customMetadata=
customMetadata=a%20b%26c
customMetadata=%00
primaryKey=%zz
primaryKey=%ff
=
&&
primaryKey
"##
    .trim()
    .lines();
    let mut cases = Vec::new();
    for query in queries {
        let line = format!("POST /indexes/{INDEX}/documents?{query}");
        cases.push(same_json(&line, "[{\"id\":1001}]"));
    }
    for delimiter in ["%3B", "%09", "%22", "%0A", "a", "%C3%A9"] {
        let line = format!("POST /indexes/{INDEX}/documents?csvDelimiter={delimiter}");
        cases.push(same(line.clone(), &line, &[CSV], b"id;t\n1002;x\n"));
    }
    cases.push(same_json(
        &format!("PUT /indexes/{INDEX}/documents?skipCreation=true"),
        "[{\"id\":1003,\"new\":1},{\"id\":900,\"more\":1}]",
    ));
    cases
}

/// What a real node does and the embedded node doesn't, according to Meilisearch's source (`document_formats.rs`): a value that
/// isn't a document is an `internal` error, bytes after an array are ignored, and a key must be valid text.
fn known() -> Vec<Case> {
    const INTERNAL: Expected = Expected::Known(500, Some("internal"));
    const MALFORMED: Expected = Expected::Known(400, Some("malformed_payload"));
    const ACCEPTED: Expected = Expected::Known(202, None);
    let bodies = [
        (JSON, "[[]]", INTERNAL),
        (JSON, "[1]", INTERNAL),
        (JSON, "[null]", INTERNAL),
        (JSON, "[\"a\"]", INTERNAL),
        (JSON, "[{\"id\":900},2]", INTERNAL),
        (JSON, "[[{\"id\":900}]]", INTERNAL),
        (JSON, "[{\"id\":900,\"\\ud800\":1}]", MALFORMED),
        (NDJSON, "[]", INTERNAL),
        (NDJSON, "[{\"id\":900}]", INTERNAL),
        (NDJSON, "1\n2", INTERNAL),
        (NDJSON, "{\"id\":970}\n[1]\n", INTERNAL),
        // Both write a document that the index already holds.
        (JSON, "[{\"id\":1000}] x", ACCEPTED),
        (JSON, "[{\"id\":1000}]]", ACCEPTED),
    ];
    let mut cases: Vec<Case> = bodies
        .into_iter()
        .map(|(kind, body, expected)| {
            post(format!("{kind} {body:?}"), kind, body.as_bytes()).expect(expected)
        })
        .collect();
    let line = format!("POST /indexes/{INDEX}/documents");
    let packed = gzip(b"[{\"id\":1000}]");
    let headers = [JSON, "content-encoding: GZIP"];
    cases.push(same("GZIP in capitals", &line, &headers, &packed).expect(ACCEPTED));
    cases
}
