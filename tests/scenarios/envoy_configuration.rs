//! Envoy itself judges the files that `weft config envoy` prints.

use std::fs;
use std::path::Path;
use std::process::Command;

use weft_cluster::Binaries;

/// Envoy's verdict on the file for these options.
fn validate(options: &str) -> Result<(), String> {
    let binaries = Binaries::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.yaml");
    let printed = Command::new(&binaries.weft)
        .args(["config", "envoy", "--wasm"])
        .arg(&binaries.filter)
        .args(options.split_whitespace())
        .output()
        .unwrap();
    assert!(
        printed.status.success(),
        "{options}: {}",
        String::from_utf8_lossy(&printed.stderr)
    );
    fs::write(&file, printed.stdout).unwrap();
    judge(&binaries.envoy, &file)
}

fn judge(envoy: &Path, file: &Path) -> Result<(), String> {
    let output = Command::new(envoy)
        .args([
            "--mode",
            "validate",
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
            "--config-path",
        ])
        .arg(file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(said.into_owned());
    }
    // A field that the next Envoy won't know is an error of ours today.
    if said.to_lowercase().contains("deprecated") {
        Err(said.into_owned())
    } else {
        Ok(())
    }
}

#[test]
fn envoy_accepts_what_weft_prints() {
    for options in [
        "",
        "--shards 1 --replicas 1",
        "--shards 3 --replicas 2",
        "--shards 40 --replicas 3",
        "--no-filter",
        "--body-routing false",
        "--access-log failed",
        "--access-log off",
        "--node-host shard-{shard}-node-{replica}:7700",
        "--merger merger.weft.svc.cluster.local:7703",
        "--node 0=10.0.0.1:7700 --node 0=10.0.0.2:7700 --node 1=[fd00::3]:7700 --edge [::]:7700",
    ] {
        assert_eq!(validate(options), Ok(()), "{options}");
    }
}

#[test]
fn envoy_accepts_the_committed_file() {
    let binaries = Binaries::find().unwrap();
    let committed =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../envoy/envoy.yaml")).unwrap();
    // The one thing that differs here: where the filter lies.
    let here = committed.replace(
        "/etc/weft/weft_filter.wasm",
        &binaries.filter.display().to_string(),
    );
    assert_ne!(here, committed);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.yaml");
    fs::write(&file, here).unwrap();
    assert_eq!(judge(&binaries.envoy, &file), Ok(()));
}
