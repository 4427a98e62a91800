//! From a dump.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Scene, everything, fill, said};

/// A dump of these indexes, in the layout that Meilisearch documents.
pub(super) fn packed(scene: &Scene, all: &BTreeMap<String, Value>) -> PathBuf {
    let root = scene.folder.path().join("dump");
    let write = |path: &str, text: String| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let metadata =
        json!({"dumpVersion": "V6", "dbVersion": "1.15.0", "dumpDate": "2026-11-30T10:00:00Z"});
    write("metadata.json", metadata.to_string());
    write("tasks/queue.jsonl", String::new());
    let key = json!({
        "uid": "6062abda-a5aa-4414-ac91-ecd7944c0f8d", "name": "shop", "description": null, "actions": ["search"],
        "indexes": ["things"], "expires_at": null, "created_at": "2026-01-01T00:00:00Z",
    });
    write("keys.jsonl", format!("{key}\n"));
    for (uid, index) in all {
        let documents = index["documents"].as_object().unwrap().values();
        let lines: String = documents.map(|one| format!("{one}\n")).collect();
        write(&format!("indexes/{uid}/documents.jsonl"), lines);
        write(
            &format!("indexes/{uid}/settings.json"),
            index["settings"].to_string(),
        );
        let metadata = json!({"uid": uid, "primaryKey": index["primaryKey"]});
        write(
            &format!("indexes/{uid}/metadata.json"),
            metadata.to_string(),
        );
    }
    let file = scene.folder.path().join("a.dump");
    let packed = std::process::Command::new("tar")
        .arg("-czf")
        .arg(&file)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status()
        .unwrap();
    assert!(packed.success());
    file
}

#[tokio::test]
async fn a_dump_is_brought_over() {
    let scene = Scene::start().await;
    fill(&scene.old, 300).await;
    let all = everything(&scene.old).await;
    let file = packed(&scene, &all);
    let cut = scene.folder.path().join("cut.dump");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let refused = scene.command(&path_of(&cut), &[]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        everything(&scene.new).await.is_empty(),
        "nothing was written"
    );

    let arguments = ["--batch-bytes", "4096"];
    let output = scene
        .command(&path_of(&file), &arguments)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    scene.assert_equal().await;
    let path = "/keys/6062abda-a5aa-4414-ac91-ecd7944c0f8d";
    let (old, new) = (
        scene.old.get(path).await.unwrap(),
        scene.new.get(path).await.unwrap(),
    );
    assert_eq!(old.at("/key"), new.at("/key"));
    let again = scene
        .command(&path_of(&file), &arguments)
        .output()
        .await
        .unwrap();
    assert!(
        said(&again).contains("finished already"),
        "{}",
        said(&again)
    );
}

pub(super) fn path_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
