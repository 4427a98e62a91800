//! The official clients with a cluster and with one node: the programs in `tests/clients` must not notice a difference.

use std::path::{Path, PathBuf};
use std::process::Command;

use weft_cluster::{Cluster, Single};

const KEY: &str = "a-master-key-of-some-length";

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Runs a client's program; fails with its output.
fn run(program: &Path, folder: &Path, script: &str, url: &str) {
    let script = checkout().join("tests/clients").join(script);
    let output = Command::new(program)
        .arg(&script)
        .args([url, KEY])
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| {
            panic!("{}: {error}; `make clients` installs it", program.display())
        });
    assert!(
        output.status.success(),
        "{} against {url}:\n{}{}",
        script.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

fn python(url: &str) {
    run(
        &checkout().join(".venv/bin/python"),
        &checkout(),
        "everyday.py",
        url,
    );
}

fn javascript(url: &str) {
    let installed = checkout().join(".weft/clients");
    assert!(
        installed.join("node_modules/meilisearch").is_dir(),
        "`make clients` installs the JavaScript client"
    );
    run(Path::new("node"), &installed, "everyday.mjs", url);
}

#[tokio::test]
async fn official_clients_notice_no_difference() {
    for (filter, replicas) in [(true, 1), (false, 2)] {
        let cluster = Cluster::builder()
            .shards(3)
            .replicas(replicas)
            .filter(filter)
            .master_key(KEY)
            .start()
            .await
            .unwrap();
        python(&cluster.url());
        javascript(&cluster.url());
    }
}

#[tokio::test]
async fn one_node_does_what_the_client_programs_expect() {
    let single = Single::start(Some(KEY)).await.unwrap();
    python(&single.url());
    javascript(&single.url());
}
