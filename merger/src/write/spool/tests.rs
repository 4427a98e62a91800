use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;

use super::*;

fn limits(memory_bytes: usize, piece_bytes: u64) -> (tempfile::TempDir, SpoolLimits) {
    let folder = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        memory_bytes,
        piece_bytes,
        folder: folder.path().to_owned(),
        memory: Budget::unbounded(),
        disk: Budget::unbounded(),
    };
    (folder, limits)
}

fn array() -> Framing {
    Framing {
        before: Bytes::from_static(b"["),
        after: Bytes::from_static(b"]"),
        between: b',',
    }
}

async fn text(piece: &Piece) -> String {
    let body = piece.body();
    let exact = body.size_hint().exact().unwrap();
    let bytes = body.collect().await.unwrap().to_bytes();
    assert_eq!(bytes.len() as u64, exact);
    assert_eq!(bytes.len() as u64, piece.bytes());
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_part_is_cut_between_documents_and_each_piece_is_whole() {
    for memory_bytes in [0, 7, 1 << 20] {
        let (_folder, limits) = limits(memory_bytes, 12);
        let mut spool = Spool::new(array(), &limits);
        for document in ["{\"a\":1}", "{}", "{\"bb\":22}", "{}", "{}", "{}"] {
            spool.append(document.as_bytes());
            spool.spill(&limits).await.unwrap();
        }
        let pieces = spool.finish(&limits).await.unwrap();
        let mut texts = Vec::new();
        for piece in &pieces {
            texts.push(text(piece).await);
            assert_eq!(
                text(piece).await,
                *texts.last().unwrap(),
                "a piece can be sent twice"
            );
        }
        assert_eq!(texts, ["[{\"a\":1},{}]", "[{\"bb\":22}]", "[{},{},{}]"]);
        assert_eq!(
            pieces.iter().map(Piece::documents).collect::<Vec<_>>(),
            [2, 1, 3]
        );
    }
}

#[tokio::test]
async fn parts_together_take_no_more_than_there_is_room_for_and_give_it_back() {
    let full = |error: io::Error| error.downcast::<crate::bounds::NoRoom>().unwrap();
    let (_folder, unbounded) = limits(8, 1 << 20);
    let limits = SpoolLimits {
        memory: Budget::new("bytes of request bodies", 20),
        disk: Budget::new("bytes of writes on disk", 100),
        ..unbounded
    };
    let mut one = Spool::new(array(), &limits);
    for _ in 0..9 {
        one.append(b"0123456789");
        one.spill(&limits).await.unwrap();
    }
    assert_eq!((limits.disk.used(), limits.memory.used()), (99, 0));
    let mut other = Spool::new(array(), &limits);
    other.append(b"0123456789");
    let refused = full(other.spill(&limits).await.unwrap_err());
    assert_eq!(refused.limit, 100);
    drop(other);
    let pieces = one.finish(&limits).await.unwrap();
    assert_eq!(limits.disk.used(), 99, "until it is delivered");
    let body = pieces[0].body();
    drop(pieces);
    assert_eq!(limits.disk.used(), 99, "while it is sent");
    drop(body);
    assert_eq!(limits.disk.used(), 0);

    let mut small: Vec<Spool> = (0..3).map(|_| Spool::new(array(), &limits)).collect();
    for spool in &mut small {
        spool.append(b"01234");
    }
    small[0].spill(&limits).await.unwrap();
    small[1].spill(&limits).await.unwrap();
    small[2].spill(&limits).await.unwrap();
    let mut last = Spool::new(array(), &limits);
    last.append(b"01234");
    assert_eq!(full(last.spill(&limits).await.unwrap_err()).limit, 20);
    drop((small, last));
    assert_eq!(limits.memory.used(), 0);
}

#[tokio::test]
async fn a_piece_of_nothing_is_its_frame() {
    assert_eq!(text(&Piece::of(array(), &[])).await, "[]");
    assert_eq!(text(&Piece::of(array(), &[b"{}"])).await, "[{}]");
}

#[tokio::test]
async fn a_large_part_comes_back_from_the_file_as_it_was() {
    let (_folder, limits) = limits(1_000, 1 << 20);
    let mut spool = Spool::new(
        Framing {
            between: b'\n',
            ..Framing::default()
        },
        &limits,
    );
    let mut expected = String::new();
    for number in 0..60_000 {
        let document = format!("{{\"id\":{number}}}");
        spool.append(document.as_bytes());
        spool.spill(&limits).await.unwrap();
        expected.push_str(&document);
        expected.push('\n');
    }
    let mut whole = String::new();
    for piece in spool.finish(&limits).await.unwrap() {
        whole.push_str(&text(&piece).await);
        whole.push('\n');
    }
    assert!(whole == expected);
}
