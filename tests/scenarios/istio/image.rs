//! The filter as an OCI image: what Istio's agent and Envoy Gateway look for in it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};
use weft_cluster::Binaries;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Makes the image of the built filter, and returns what was printed.
fn make(layout: &Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../envoy/oci.sh");
    let output = Command::new(script)
        .arg(Binaries::find().unwrap().filter)
        .arg(layout)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The bytes that a descriptor names, whose digest and size must be as it says.
fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"]
        .as_str()
        .unwrap()
        .strip_prefix("sha256:")
        .unwrap();
    let bytes = fs::read(layout.join("blobs/sha256").join(digest)).unwrap();
    assert_eq!(sha256(&bytes), digest);
    assert_eq!(
        descriptor["size"].as_u64(),
        Some(u64::try_from(bytes.len()).unwrap())
    );
    bytes
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// What the system's own program makes of these bytes.
fn piped(program: &str, arguments: &[&str], file: &Path) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .arg(file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn the_image_holds_the_filter_as_meshes_look_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("oci");
    let printed = make(&layout);
    assert_eq!(
        json(&fs::read(layout.join("oci-layout")).unwrap())["imageLayoutVersion"],
        "1.0.0"
    );
    let index = json(&fs::read(layout.join("index.json")).unwrap());
    let descriptor = &index["manifests"][0];
    assert_eq!(
        descriptor["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    let manifest = blob(&layout, descriptor);
    assert!(
        printed.contains(&format!("with oci://…:              {}", sha256(&manifest))),
        "{printed}"
    );
    let manifest = json(&manifest);
    // Both take a plain image whose last layer is a gzipped tar with plugin.wasm in it.
    let [layer] = manifest["layers"].as_array().unwrap().as_slice() else {
        panic!("{manifest}");
    };
    assert_eq!(
        layer["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    blob(&layout, layer);
    let config = json(&blob(&layout, &manifest["config"]));
    let gzipped = folder.path().join("layer.tar.gz");
    fs::write(&gzipped, blob(&layout, layer)).unwrap();
    let tar = piped("gzip", &["-dc"], &gzipped);
    assert_eq!(
        config["rootfs"]["diff_ids"][0],
        format!("sha256:{}", sha256(&tar))
    );
    assert_eq!(piped("tar", &["-tzf"], &gzipped), b"plugin.wasm\n");
    let module = fs::read(Binaries::find().unwrap().filter).unwrap();
    assert_eq!(piped("tar", &["-xOzf"], &gzipped), module);
    assert!(printed.contains(&sha256(&module)), "{printed}");
}

#[test]
fn the_same_filter_has_the_same_digest() {
    let folder = tempfile::tempdir().unwrap();
    let digests = ["one", "two"].map(|name| {
        let layout = folder.path().join(name);
        make(&layout);
        fs::read_to_string(layout.join("index.json")).unwrap()
    });
    assert_eq!(digests[0], digests[1]);
}
