use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::*;

/// A dump under construction.
struct Made {
    folder: tempfile::TempDir,
    archive: tar::Builder<Vec<u8>>,
}

impl Made {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            archive: tar::Builder::new(Vec::new()),
        }
    }

    fn file(mut self, name: &str, content: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.archive
            .append_data(&mut header, name, content.as_bytes())
            .unwrap();
        self
    }

    /// A path that the archive's own builder would refuse.
    fn hostile(mut self, name: &str, kind: tar::EntryType) -> Self {
        let mut header = tar::Header::new_old();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        self.archive.append(&header, &[][..]).unwrap();
        self
    }

    fn metadata(self, version: &str) -> Self {
        let text = json!({"dumpVersion": version, "dumpDate": "2026-11-30T10:00:00Z"});
        self.file("./metadata.json", &text.to_string())
    }

    fn index(self, uid: &str, documents: &str) -> Self {
        let folder = format!("./indexes/{uid}");
        let metadata = json!({"uid": uid, "primaryKey": "id"}).to_string();
        self.file(&format!("{folder}/documents.jsonl"), documents)
            .file(
                &format!("{folder}/settings.json"),
                r#"{"stopWords":["the"]}"#,
            )
            .file(&format!("{folder}/metadata.json"), &metadata)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let tar = std::mem::replace(&mut self.archive, tar::Builder::new(Vec::new()));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar.into_inner().unwrap()).unwrap();
        gzip.finish().unwrap()
    }

    fn written(mut self) -> (tempfile::TempDir, PathBuf) {
        let bytes = self.bytes();
        self.with(&bytes)
    }

    fn with(self, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let path = self.folder.path().join("a.dump");
        std::fs::write(&path, bytes).unwrap();
        (self.folder, path)
    }
}

fn refused(made: Made) -> String {
    let (_folder, path) = made.written();
    survey(&path).unwrap_err().to_string()
}

#[test]
fn a_dump_is_read_whatever_the_order_of_its_files_is() {
    let (_folder, path) = Made::new()
        .index("films", "{\"id\":1}\n{\"id\":2}\n")
        .index("empty", "")
        .file("keys.jsonl", "{\"uid\":\"u\",\"actions\":[\"*\"]}\n")
        .file("experimental-features.json", r#"{"containsFilter":true}"#)
        .file("tasks/update_files/3.jsonl", "{}\n")
        .file("tasks/queue.jsonl", "no JSON, and not read")
        .metadata("V6")
        .written();
    let found = survey(&path).unwrap();
    let indexes: Vec<(&str, u64)> = found
        .indexes
        .iter()
        .map(|one| (one.index.uid.as_str(), one.documents))
        .collect();
    assert_eq!(indexes, [("empty", 0), ("films", 2)]);
    assert_eq!(found.indexes[1].index.primary_key.as_deref(), Some("id"));
    assert_eq!(found.indexes[1].settings, json!({"stopWords": ["the"]}));
    assert_eq!(found.keys[0]["uid"], "u");
    assert_eq!(found.features["containsFilter"], true);
    assert_eq!(found.queued, 1);
    assert!(found.name.contains("2026-11-30"), "{}", found.name);
}

#[test]
fn the_older_format_keeps_indexes_by_uuid_and_settings_beside_the_primary_key() {
    let meta = json!({"settings": {"stopWords": []}, "primary_key": "sku"}).to_string();
    let uuids = r#"{"uid":"products","index_meta":{"uuid":"f7d5","creation_task_id":4}}"#;
    let (_folder, path) = Made::new()
        .metadata("V5")
        .file("indexes/f7d5/meta.json", &meta)
        .file("indexes/f7d5/documents.jsonl", "{\"sku\":1}")
        .file("index_uuids/data.jsonl", uuids)
        .file("keys", "")
        .written();
    let found = survey(&path).unwrap();
    let [one] = &found.indexes[..] else {
        panic!("{found:?}");
    };
    assert_eq!(one.index.uid, "products");
    assert_eq!(one.index.primary_key.as_deref(), Some("sku"));
    assert_eq!((one.folder.as_str(), one.documents), ("f7d5", 1));
    assert_eq!(one.settings, json!({"stopWords": []}));
}

#[test]
fn hostile_paths_and_links_are_refused() {
    for name in ["../keys.jsonl", "/etc/passwd", "indexes/../../x"] {
        let made = Made::new()
            .metadata("V6")
            .hostile(name, tar::EntryType::Regular);
        assert!(refused(made).contains("leads outside"), "{name}");
    }
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Fifo,
    ] {
        let made = Made::new().metadata("V6").hostile("keys.jsonl", kind);
        assert!(refused(made).contains("no ordinary file"), "{kind:?}");
    }
}

#[test]
fn a_name_that_no_index_may_have_is_refused() {
    for uid in ["a b", "a%2fb", "", "ä"] {
        let made = Made::new()
            .metadata("V6")
            .file("indexes/x/documents.jsonl", "")
            .file("indexes/x/settings.json", "{}")
            .file("indexes/x/metadata.json", &json!({"uid": uid}).to_string());
        assert!(refused(made).contains("no name of an index"), "{uid}");
    }
}

#[test]
fn what_is_incomplete_or_of_another_format_is_refused() {
    assert!(refused(Made::new().metadata("V4")).contains("`V4`"));
    assert!(refused(Made::new().index("films", "")).contains("no metadata.json"));
    let without = Made::new()
        .metadata("V6")
        .file("indexes/x/settings.json", "{}");
    assert!(refused(without).contains("has no metadata"));
    let bad = Made::new()
        .metadata("V6")
        .index("films", "{\"id\":1}\n{\"id\":\n");
    assert!(refused(bad).contains("line 2"));
    let list = Made::new().metadata("V6").index("films", "[1]\n");
    assert!(refused(list).contains("line 1"));
    let (_folder, path) = Made::new().with(b"not compressed");
    let error = survey(&path).unwrap_err().to_string();
    assert!(error.contains("no dump"), "{error}");
    assert!(survey(Path::new("/nowhere/at/all.dump")).is_err());
}

#[test]
fn a_dump_that_was_cut_off_anywhere_is_refused() {
    let documents: String = (0..2000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let mut made = Made::new().metadata("V6").index("films", &documents);
    let bytes = made.bytes();
    for cut in (0..bytes.len()).step_by(bytes.len() / 40) {
        let (_folder, path) = Made::new().with(&bytes[..cut]);
        assert!(survey(&path).is_err(), "cut at {cut} of {}", bytes.len());
    }
    let mut damaged = bytes.clone();
    let end = damaged.len() - 6;
    damaged[end] ^= 1;
    let (_folder, path) = Made::new().with(&damaged);
    assert!(survey(&path).is_err(), "the checksum is looked at");
}

#[test]
fn an_archive_that_was_cut_off_before_it_was_compressed_is_refused() {
    let documents: String = (0..2000).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let mut made = Made::new().metadata("V6").index("films", &documents);
    let tar = std::mem::replace(&mut made.archive, tar::Builder::new(Vec::new()));
    let tar = tar.into_inner().unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar[..8_000]).unwrap();
    let (_folder, path) = made.with(&gzip.finish().unwrap());
    let error = survey(&path).unwrap_err().to_string();
    assert!(error.contains("cut off"), "{error}");
}

#[test]
fn a_header_that_never_ends_is_refused() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_path("././@LongLink").unwrap();
    header.set_size(64 << 20);
    header.set_cksum();
    let mut made = Made::new();
    let zeros = std::io::repeat(b'a').take(64 << 20);
    made.archive.append(&header, zeros).unwrap();
    let error = refused(made.metadata("V6"));
    assert!(error.contains("too much stands between"), "{error}");
}

#[tokio::test]
async fn documents_come_in_batches_from_where_the_last_import_ended() {
    let documents: String = (0..100).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let (_folder, path) = Made::new()
        .metadata("V6")
        .index("films", &documents)
        .index("other", "{\"id\":1}\n")
        .written();
    let wanted = Wanted {
        folder: "films".to_owned(),
        index: Index {
            uid: "films".to_owned(),
            primary_key: None,
        },
        skip: 40,
    };
    let mut batches = batches(&path, vec![wanted], 100);
    let (mut text, mut end, mut count) = (Vec::new(), 40, 0);
    while let Some(next) = batches.recv().await {
        let (index, batch) = next.unwrap();
        assert_eq!(index.uid, "films");
        end += batch.documents;
        assert_eq!(batch.end, end);
        text.extend_from_slice(&batch.body);
        count += 1;
    }
    assert_eq!(end, 100);
    assert!(count > 5, "{count}");
    let expected: String = (40..100).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}
