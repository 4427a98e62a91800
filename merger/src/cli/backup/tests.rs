//! A backup in a folder: whatever happens to it is noticed, and a backup that isn't whole is never taken for one.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::documents::{self, Documents, Notebooks, digest_text, group_of, slots_per_file};
use super::folder::Folder;
use super::manifest::{Damage, FORMAT, IndexEntry, MANIFEST, Manifest, folder_of};
use super::restore::verify;

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

fn films(ids: std::ops::Range<u64>) -> Documents {
    let film = |id: u64| {
        (
            id.to_string(),
            raw(&json!({"id": id, "title": format!("film {id}")})),
        )
    };
    ids.map(film).collect()
}

/// The entry of an index with these documents, whose files are stored.
fn stored(folder: &Folder, uid: &str, all: &Documents, slots_per_file: u16) -> IndexEntry {
    let mut groups = std::collections::BTreeMap::<u16, Documents>::new();
    for (id, document) in all {
        let group = group_of(id, slots_per_file).unwrap();
        let documents = groups.entry(group).or_default();
        documents.insert(id.clone(), document.clone());
    }
    let files = groups.into_iter().map(|(group, documents)| {
        let digest = documents::digest(&documents, "id");
        documents::store(folder, uid, group, (&documents, digest)).unwrap()
    });
    IndexEntry {
        uid: uid.to_owned(),
        primary_key: Some("id".to_owned()),
        shard_count: None,
        write_mode: None,
        strategy: None,
        documents: all.len() as u64,
        files: files.collect(),
        settings: folder
            .store(&folder_of(uid), ".settings.json", b"{}")
            .unwrap(),
        slots_per_file,
    }
}

fn manifest(folder: &Folder, id: &str, indexes: Vec<IndexEntry>) -> Manifest {
    Manifest {
        format: FORMAT,
        id: id.to_owned(),
        created_at: "2026-01-01T00:00:00Z".to_owned(),
        weft: "0".to_owned(),
        source: "http://h/".to_owned(),
        last_task: Some(7),
        pause_ms: 1,
        state: folder.store("state", ".json", b"{}").unwrap(),
        indexes,
    }
}

/// A folder with a backup of an index.
fn backup() -> (tempfile::TempDir, Manifest) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    let index = stored(&folder, "films", &films(0..600), 1024);
    let manifest = manifest(&folder, "one", vec![index]);
    folder.finish(&manifest).unwrap();
    (dir, manifest)
}

fn verified(dir: &Path) -> Result<(), Damage> {
    let manifest = Manifest::read(dir)?;
    let all: Vec<&IndexEntry> = manifest.indexes.iter().collect();
    verify(dir, &manifest, &all, false)
}

fn said(dir: &Path) -> String {
    verified(dir).unwrap_err().to_string()
}

fn first_file(dir: &Path, manifest: &Manifest) -> (PathBuf, String) {
    let entry = &manifest.indexes[0].files[0].file;
    (dir.join(&entry.path), entry.path.clone())
}

#[test]
fn a_backup_is_read_as_it_was_written() {
    let (dir, manifest) = backup();
    assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
    verified(dir.path()).unwrap();
    let mut back = Documents::new();
    for slots in &manifest.indexes[0].files {
        back.extend(documents::load(dir.path(), slots, "id").unwrap());
    }
    let texts = |all: &Documents| -> Vec<String> {
        all.values()
            .map(|document| document.get().to_owned())
            .collect()
    };
    assert_eq!(texts(&back), texts(&films(0..600)));
    assert_eq!(manifest.indexes[0].files.len(), 4);
}

#[test]
fn a_byte_that_has_flipped_in_any_file_is_noticed_and_the_file_is_named() {
    let (dir, manifest) = backup();
    for file in manifest.files() {
        let path = dir.path().join(&file.path);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, &damaged).unwrap();
        let wanted = format!(
            "{} is damaged: its SHA-256 isn't the one that was written down",
            file.path
        );
        assert_eq!(said(dir.path()), wanted);
        fs::write(&path, whole).unwrap();
    }
    verified(dir.path()).unwrap();
}

#[test]
fn a_file_that_is_missing_or_cut_off_is_named() {
    let (dir, manifest) = backup();
    let (path, name) = first_file(dir.path(), &manifest);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let (found, expected) = (whole.len() - 3, whole.len());
    assert_eq!(
        said(dir.path()),
        format!("{name} is damaged: it has {found} bytes, and {expected} were written")
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(said(dir.path()), format!("{name} is missing"));
}

#[test]
fn a_folder_without_a_manifest_or_with_a_later_one_is_refused() {
    let (dir, manifest) = backup();
    let path = dir.path().join(MANIFEST);
    let mut later = serde_json::to_value(&manifest).unwrap();
    later["format"] = json!(FORMAT + 1);
    fs::write(&path, json!({"backup": later}).to_string()).unwrap();
    let text = said(dir.path());
    assert!(
        text.starts_with("the backup has format 2, and this program reads formats up to 1"),
        "{text}"
    );
    fs::remove_file(&path).unwrap();
    assert!(said(dir.path()).ends_with("holds no whole backup: it has no manifest.json"));
}

#[test]
fn a_manifest_that_names_what_weft_would_not_name_is_refused() {
    let (_dir, manifest) = backup();
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        // Its own SHA-256 is right: somebody made it so.
        Manifest::from_bytes(&manifest.to_bytes())
            .unwrap_err()
            .to_string()
    };
    for text in [
        refused(&|manifest| manifest.state.path = "../../etc/passwd".to_owned()),
        refused(&|manifest| manifest.indexes[0].settings.path = "/etc/passwd".to_owned()),
        refused(&|manifest| manifest.indexes[0].files[0].file.path = "state/x".to_owned()),
        refused(&|manifest| manifest.indexes[0].uid = "../x".to_owned()),
        refused(&|manifest| manifest.indexes[0].slots_per_file = 0),
        refused(&|manifest| manifest.indexes[0].files[0].group = 4),
        refused(&|manifest| {
            let twice = manifest.indexes[0].clone();
            manifest.indexes.push(twice);
        }),
    ] {
        assert!(text.starts_with("manifest.json is damaged: "), "{text}");
    }
}

#[test]
fn a_file_that_unpacks_to_more_than_was_written_down_is_not_unpacked() {
    let (dir, manifest) = backup();
    let mut slots = manifest.indexes[0].files[0].clone();
    slots.unpacked -= 1;
    let error = documents::load(dir.path(), &slots, "id").unwrap_err();
    assert!(
        error.to_string().ends_with("it unpacks to another size"),
        "{error}"
    );
}

#[test]
fn a_backup_that_was_cut_off_leaves_the_earlier_one_whole() {
    let (dir, before) = backup();
    let folder = Folder::open(dir.path()).unwrap();
    // All of the next one but its manifest.
    stored(&folder, "films", &films(300..900), 1024);
    fs::write(folder.incomplete().join("x"), "half").unwrap();
    drop(folder);
    assert_eq!(Manifest::read(dir.path()).unwrap(), before);
    verified(dir.path()).unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(folder.incomplete()).unwrap().count(), 0);
}

#[test]
fn the_next_backup_removes_what_only_the_earlier_one_had() {
    let (dir, before) = backup();
    let folder = Folder::open(dir.path()).unwrap();
    let mut changed = films(0..600);
    changed.insert("7".to_owned(), raw(&json!({"id": 7, "title": "another"})));
    let index = stored(&folder, "films", &changed, 1024);
    let after = manifest(&folder, "two", vec![index]);
    folder.finish(&after).unwrap();
    verified(dir.path()).unwrap();
    let group = group_of("7", 1024).unwrap();
    for (old, new) in before.indexes[0].files.iter().zip(&after.indexes[0].files) {
        assert_eq!(old.file == new.file, old.group != group);
        assert_eq!(dir.path().join(&old.file.path).exists(), old.group != group);
    }
}

#[test]
fn two_backups_into_one_folder_and_one_into_a_foreign_folder_are_refused() {
    let (dir, _) = backup();
    let first = Folder::open(dir.path()).unwrap();
    let second = Folder::open(dir.path()).unwrap_err().to_string();
    assert!(second.starts_with("another backup writes to "), "{second}");
    drop(first);
    Folder::open(dir.path()).unwrap();
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis"), "").unwrap();
    let refused = Folder::open(foreign.path()).unwrap_err().to_string();
    assert!(
        refused.ends_with("isn't empty, and holds no backup"),
        "{refused}"
    );
}

#[test]
fn folders_of_long_uids_are_short_and_differ() {
    let (one, two) = ("x".repeat(300), "x".repeat(301));
    assert!(folder_of(&one).len() < 200 && folder_of(&one) != folder_of(&two));
    assert_eq!(folder_of("films"), "indexes/films");
}

#[test]
fn files_are_small_and_never_more_than_there_are_slots() {
    let sizes = [
        (0, 4096),
        (256, 4096),
        (257, 2048),
        (1_000_000, 1),
        (1 << 40, 1),
    ];
    for (documents, slots) in sizes {
        assert_eq!(slots_per_file(documents), slots, "{documents}");
    }
}

proptest! {
    /// What is known last of a document counts, however much was noted in between.
    #[test]
    fn notebooks_know_what_was_noted_last(
        notes in prop::collection::vec((0_u8..30, prop::option::of(0_u8..5), prop::bool::weighted(0.2)), 0..100)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut notebooks = Notebooks::new(dir.path().join("n"), 1024).unwrap();
        let mut model = std::collections::BTreeMap::new();
        for (id, value, flush) in notes {
            let (id, document) = (id.to_string(), value.map(|value| raw(&json!({"v": value}))));
            notebooks.note(&id, document.as_deref()).unwrap();
            if flush {
                notebooks.flush().unwrap();
            }
            model.insert(id, document.map(|document| document.get().to_owned()));
        }
        notebooks.flush().unwrap();
        let mut read = std::collections::BTreeMap::new();
        for group in 0..4 {
            for (id, document) in notebooks.read(group).unwrap().unwrap_or_default() {
                prop_assert_eq!(group_of(&id, 1024), Some(group));
                read.insert(id, document.map(|document| document.get().to_owned()));
            }
        }
        prop_assert_eq!(read, model);
    }

    /// The digest doesn't depend on how a document's fields are ordered, and tells any other content.
    #[test]
    fn a_digest_knows_contents_and_not_their_order(a in 0_u32..1000, b in 0_u32..1000) {
        let of = |text: String| {
            let document = RawValue::from_string(text).unwrap();
            documents::digest(&Documents::from([("1".to_owned(), document)]), "id")
        };
        let one = of(format!(r#"{{"id":1,"a":{a},"b":{b}}}"#));
        prop_assert_eq!(one, of(format!(r#"{{"b":{b},"id":1,"a":{a}}}"#)));
        prop_assert_ne!(one, of(format!(r#"{{"id":1,"a":{a},"b":{}}}"#, b + 1)));
        prop_assert_eq!(digest_text(one).len(), 16);
    }
}
