use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder};
use proptest::prelude::*;

use super::*;

fn wants(lines: &[&str]) -> Result<Coding, NotAcceptable> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
        headers.append(ACCEPT_ENCODING, value);
    }
    negotiate(&headers)
}

fn decode(coded: &[u8], coding: Coding) -> Vec<u8> {
    match coding {
        Coding::Identity => Ok(coded.to_vec()),
        Coding::Deflate => read(ZlibDecoder::new(coded), coded.len()),
        Coding::Gzip => read(GzipDecoder::new(coded), coded.len()),
        Coding::Brotli => read(BrotliDecoder::new(coded), coded.len()),
    }
    .unwrap()
}

fn page(bytes: usize) -> Bytes {
    let hits: String = (0..bytes / 40)
        .map(|n| format!(r#"{{"id":{n},"title":"film number {n}"}},"#))
        .collect();
    hits.into()
}

#[test]
fn the_coding_is_the_one_that_a_node_would_choose() {
    use Coding::{Brotli, Deflate, Gzip, Identity};
    for (accept, chosen) in [
        ("gzip, deflate, br, zstd", Brotli),
        ("gzip, deflate", Gzip),
        ("deflate", Deflate),
        ("deflate, gzip;q=0.5", Deflate),
        ("br;q=0.5, gzip;q=0.8, *;q=0.1", Gzip),
        ("BR", Brotli),
        ("gzip ; q=0.3 , deflate;Q=0.4", Deflate),
        ("gzip;q=1.000,br;q=0.999", Gzip),
        ("identity, gzip", Gzip),
        ("identity;q=1, gzip;q=0.5", Identity),
        ("identity", Identity),
        ("zstd", Identity),
        ("*", Identity),
        ("", Identity),
        (",, ,", Identity),
        ("gzip;q=0", Identity),
        ("gzip;q=0, br;q=0", Identity),
        ("gzip;q=2, deflate", Deflate),
        ("gzip;q=0.0001", Identity),
        ("gzip;q=0.00001", Identity),
        ("gzip;q=nan", Identity),
        ("gzip;level=9", Identity),
        ("gzip;", Identity),
        ("identity;q=0, gzip", Gzip),
        ("*;q=0, br", Brotli),
        ("*;q=0, identity;q=0.1", Identity),
    ] {
        assert_eq!(wants(&[accept]), Ok(chosen), "{accept}");
    }
    assert_eq!(wants(&[]), Ok(Identity));
    assert_eq!(wants(&["gzip;q=0.5", "br;q=0.6"]), Ok(Brotli));
    assert_eq!(wants(&["gzip", "é"]), Ok(Identity));
}

#[test]
fn who_takes_nothing_that_there_is_is_told_what_there_is() {
    for accept in [
        "identity;q=0",
        "*;q=0",
        "zstd, *;q=0",
        "gzip;q=0, identity;q=0",
    ] {
        assert_eq!(wants(&[accept]), Err(NotAcceptable), "{accept}");
    }
    let answer = NotAcceptable.into_answer();
    assert_eq!(answer.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(answer.body, "br, gzip, deflate");
}

#[tokio::test]
async fn a_page_comes_coded_and_says_so() {
    for coding in [Coding::Brotli, Coding::Gzip, Coding::Deflate] {
        for bytes in [9_000, INLINE_BYTES + 10_000, 2 << 20] {
            let plain = page(bytes);
            let answer = Answer::json_bytes(StatusCode::OK, plain.clone());
            let answer = compress(answer, coding).await;
            assert!(answer.body.len() * 3 < plain.len(), "{coding:?} {bytes}");
            assert_eq!(decode(&answer.body, coding), plain);
            let said = |name: &http::HeaderName| {
                let found = answer.headers.iter().find(|(known, _)| known == name);
                found.unwrap().1.to_str().unwrap().to_owned()
            };
            assert_eq!(said(&CONTENT_ENCODING), coding.name());
            assert_eq!(said(&VARY), "accept-encoding");
        }
    }
}

#[tokio::test]
async fn what_a_node_does_not_code_stays_plain() {
    let empty = Answer::empty(StatusCode::NO_CONTENT);
    let picture = Answer {
        content_type: Some(HeaderValue::from_static("image/png")),
        ..Answer::json_bytes(StatusCode::OK, page(9_000))
    };
    for answer in [empty, picture] {
        let before = answer.body.clone();
        let after = compress(answer, Coding::Brotli).await;
        assert_eq!(after.body, before);
        assert!(after.headers.is_empty());
    }
    let drawing = Answer {
        content_type: Some(HeaderValue::from_static("image/svg+xml")),
        ..Answer::json_bytes(StatusCode::OK, page(9_000))
    };
    assert_eq!(compress(drawing, Coding::Gzip).await.headers.len(), 2);
}

#[tokio::test]
async fn the_smallest_answer_is_coded_as_a_node_codes_it() {
    for coding in [Coding::Brotli, Coding::Gzip, Coding::Deflate] {
        for body in [r#"{"status":"available"}"#, "x"] {
            let answer = compress(Answer::json_bytes(StatusCode::OK, body), coding).await;
            assert_eq!(answer.headers.len(), 2, "{coding:?}");
            assert_eq!(decode(&answer.body, coding), body.as_bytes());
        }
    }
}

proptest! {
    #[test]
    fn every_coding_gives_back_what_it_was_given(
        plain in proptest::collection::vec(any::<u8>(), 0..5_000),
        copies in 1_usize..20,
    ) {
        let plain = plain.repeat(copies);
        for coding in [Coding::Brotli, Coding::Gzip, Coding::Deflate] {
            prop_assert_eq!(decode(&encode(&plain, coding).unwrap(), coding), plain.clone());
        }
    }

    #[test]
    fn no_wish_is_too_odd_to_be_answered(lines in proptest::collection::vec("[ -~]{0,60}", 0..4)) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let _ = wants(&lines);
    }
}
