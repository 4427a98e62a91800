//! Bytes that aren't HTTP, or that contain two requests: they never succeed, and no request gets two answers.

use super::wire::request;
use super::{Case, Expected};
use crate::support::MASTER_KEY;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = heads();
    cases.extend(lengths());
    cases.extend(chunks());
    cases
}

fn case(name: &str, bytes: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case {
        name: name.to_owned(),
        bytes: bytes.into(),
        expected,
        cut: false,
    }
}

/// A case after which the client closes its side of the connection.
fn cut(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    Case {
        cut: true,
        ..case(name, bytes, Expected::NoSuccess)
    }
}

/// A write whose head ends with these lines, followed by `after`.
fn write(lines: &str, after: &str) -> Vec<u8> {
    format!(
        "POST /indexes/things/documents HTTP/1.1\r\nhost: weft\r\nauthorization: Bearer {MASTER_KEY}\r\ncontent-type: application/json\r\n{lines}\r\n\r\n{after}"
    )
    .into_bytes()
}

fn heads() -> Vec<Case> {
    let none = Expected::NoSuccess;
    // Envoy may accept these, and then passes on an ordinary read.
    let ok = Expected::Status(&[200, 400]);
    let long = format!("x-long: {}", "x".repeat(300_000));
    let many: Vec<String> = (0..5_000).map(|n| format!("x-{n}: {n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let get = "GET /indexes/things/documents/1";
    vec![
        case(
            "bytes that aren't HTTP",
            "\x16\x03\x01\x02\x00\x01\x00",
            none,
        ),
        case("HTTP/0.9", "GET /health\r\n\r\n", ok),
        case("HTTP/7.0", "GET /health HTTP/7.0\r\nhost: weft\r\n\r\n", ok),
        case("no path", "GET HTTP/1.1\r\nhost: weft\r\n\r\n", none),
        case(
            "two paths",
            "GET /health /health HTTP/1.1\r\nhost: weft\r\n\r\n",
            none,
        ),
        case(
            "no host",
            "GET /health HTTP/1.1\r\n\r\n",
            Expected::Status(&[200, 400]),
        ),
        case(
            "a path without its slash",
            request("GET indexes", &[], b""),
            none,
        ),
        case(
            "an absolute internal path on another host",
            request("GET http://elsewhere/_weft/table", &[], b""),
            none,
        ),
        case(
            "an absolute path on another host",
            request("GET http://elsewhere/health", &[], b""),
            Expected::Status(&[200]),
        ),
        case(
            "a CONNECT request",
            request("CONNECT 127.0.0.1:7701", &[], b""),
            none,
        ),
        case(
            "OPTIONS of an asterisk",
            request("OPTIONS *", &[], b""),
            none,
        ),
        case(
            "a header without a colon",
            request(get, &["no colon here"], b""),
            none,
        ),
        case(
            "a space before the colon",
            request(get, &["x-weft-cluster : node"], b""),
            none,
        ),
        case(
            "a header folded over two lines",
            request(get, &["x-a: b\r\n c: d"], b""),
            Expected::Status(&[200, 400]),
        ),
        case(
            "a zero byte in a header",
            request(get, &["x-a: b\0c"], b""),
            none,
        ),
        case(
            "a bare CR in a header",
            request(get, &["x-a: b\rx-weft-cluster: node"], b""),
            ok,
        ),
        case(
            "a bare LF in a header",
            request(get, &["x-a: b\nx-weft-cluster: node"], b""),
            Expected::Status(&[200, 400]),
        ),
        case(
            "a space in a header's name",
            request(get, &["x a: b"], b""),
            none,
        ),
        case(
            "a header of 300,000 bytes",
            request(get, &[&long], b""),
            none,
        ),
        case("5,000 headers", request(get, &many, b""), none),
        cut(
            "an unfinished head",
            &b"GET /health HTTP/1.1\r\nhost: we"[..],
        ),
        case(
            "an invalid method",
            "G@T /health HTTP/1.1\r\nhost: weft\r\n\r\n",
            none,
        ),
    ]
}

fn lengths() -> Vec<Case> {
    let none = Expected::NoSuccess;
    let body = "[{\"id\":1}]";
    let behind = "POST /indexes/things/documents HTTP/1.1\r\nhost: weft\r\n\r\n";
    vec![
        case("a negative length", write("content-length: -1", body), none),
        case(
            "a length with a sign",
            write("content-length: +10", body),
            none,
        ),
        case(
            "a length that isn't a number",
            write("content-length: ten", body),
            none,
        ),
        case(
            "a length in hexadecimal",
            write("content-length: 0xa", body),
            none,
        ),
        case(
            "an absurd length",
            write("content-length: 99999999999999999999", body),
            none,
        ),
        case(
            "two lengths",
            write("content-length: 10\r\ncontent-length: 11", body),
            none,
        ),
        case(
            "a list of lengths",
            write("content-length: 10, 11", body),
            none,
        ),
        case(
            "a length and chunks",
            write(
                "content-length: 10\r\ntransfer-encoding: chunked",
                "0\r\n\r\n",
            ),
            none,
        ),
        cut(
            "a length greater than the body",
            write("content-length: 1000", body),
        ),
        // What follows the five bytes must not be answered as a part of this request.
        case(
            "a length smaller than the body",
            write("content-length: 5", &format!("{body}{behind}")),
            none,
        ),
        case("no length at all", write("x-a: b", body), none),
    ]
}

fn chunks() -> Vec<Case> {
    let none = Expected::NoSuccess;
    let chunked = |after: &str| write("transfer-encoding: chunked", after);
    vec![
        cut("a chunk without an end", chunked("a\r\n[{\"id\":1}]\r\n")),
        cut("a chunk cut short", chunked("a\r\n[{\"id\"")),
        case(
            "a chunk size that isn't a number",
            chunked("ten\r\n[{\"id\":1}]\r\n0\r\n\r\n"),
            none,
        ),
        case(
            "a negative chunk size",
            chunked("-1\r\n\r\n0\r\n\r\n"),
            none,
        ),
        case(
            "a chunk size out of range",
            chunked("fffffffffffffffff\r\n[]\r\n0\r\n\r\n"),
            none,
        ),
        case(
            "a chunk longer than its size",
            chunked("2\r\n[{\"id\":1}]\r\n0\r\n\r\n"),
            none,
        ),
        case("no chunk at all", chunked("0\r\n\r\n"), Expected::AsTheNode),
        case(
            "a chunk with an extension",
            chunked("a;x=y\r\n[{\"id\":1}]\r\n0\r\n\r\n"),
            Expected::AsTheNode,
        ),
        case(
            "chunks with a trailer",
            chunked("a\r\n[{\"id\":1}]\r\n0\r\nx-weft-cluster: node\r\n\r\n"),
            // A real node closes the connection; Envoy leaves the trailer out.
            Expected::Status(&[202]),
        ),
        case(
            "one byte per chunk",
            chunked(&one_by_one("[{\"id\":1101},{\"id\":\"a b\"}]")),
            Expected::AsTheNode,
        ),
        case(
            "an unknown transfer encoding",
            write("transfer-encoding: rot13", "x"),
            Expected::Status(&[400, 501]),
        ),
        case(
            "chunked twice",
            write("transfer-encoding: chunked, chunked", "0\r\n\r\n"),
            Expected::Status(&[400, 501]),
        ),
    ]
}

fn one_by_one(body: &str) -> String {
    let chunks: String = body
        .chars()
        .map(|byte| format!("1\r\n{byte}\r\n"))
        .collect();
    chunks + "0\r\n\r\n"
}
