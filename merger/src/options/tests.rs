//! Tests of the options: each is in the README, and what they mean together.

use std::time::Duration;

use clap::FromArgMatches;

use super::etcd::ETCD_PASSWORD;
use super::*;

const README: &str = include_str!("../../README.md");

/// A row of merger/README.md's table for each flag, made from the flags themselves.
fn rows() -> Vec<String> {
    let command = ServeOptions::augment_args(clap::Command::new("serve"));
    let row = |flag: &clap::Arg| {
        let name = flag.get_long().unwrap();
        let variable = flag.get_env().unwrap().to_string_lossy();
        let default = flag
            .get_default_values()
            .first()
            .map_or("none".to_owned(), |value| {
                format!("`{}`", value.to_string_lossy())
            });
        let help = flag.get_help().unwrap().to_string();
        format!("| `--{name}` | `{variable}` | {default} | {help} |")
    };
    command
        .get_arguments()
        .filter(|flag| !flag.is_hide_set())
        .map(row)
        .collect()
}

#[test]
fn the_readme_lists_every_flag_with_its_default() {
    let missing: Vec<String> = rows()
        .into_iter()
        .filter(|row| !README.contains(row.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "merger/README.md lacks:\n{}",
        missing.join("\n")
    );
}

#[test]
fn the_readme_lists_no_flag_that_is_gone() {
    let rows = rows();
    let gone: Vec<&str> = README
        .lines()
        .filter(|line| line.starts_with("| `--") && !rows.iter().any(|row| row == line))
        .collect();
    assert!(
        gone.is_empty(),
        "merger/README.md lists:\n{}",
        gone.join("\n")
    );
}

fn parsed(flags: &[&str]) -> Result<ServeOptions, clap::Error> {
    let command = ServeOptions::augment_args(clap::Command::new("serve"));
    let names = std::iter::once("serve").chain(flags.iter().copied());
    ServeOptions::from_arg_matches(&command.try_get_matches_from(names)?)
}

#[test]
fn etcd_is_used_where_it_is_named_only() {
    let options = |flags: &[&str]| parsed(flags).unwrap().etcd.options();
    assert!(options(&[]).unwrap().is_none());
    assert!(options(&["--etcd="]).unwrap().is_none());
    assert!(
        options(&["--etcd=http://a:1, http://b:2"])
            .unwrap()
            .is_some()
    );
    let refused = options(&["--etcd=http://a", "--etcd-user=weft"]);
    assert!(refused.unwrap_err().to_string().contains(ETCD_PASSWORD));
    let refused = options(&["--etcd=http://a", "--etcd-password-file=/nowhere/secret"]);
    assert!(refused.unwrap_err().to_string().contains("/nowhere/secret"));
    assert!(parsed(&["--etcd-prefix=/"]).is_err());
    assert!(parsed(&["--leader-lease-ms=10"]).is_err());
}

#[test]
fn nobody_is_replaced_unless_it_is_asked_for() {
    let spares = |flags: &[&str]| parsed(flags).unwrap().spares();
    assert!(spares(&[]).is_none());
    assert_eq!(spares(&["--eds-dir=/x"]).unwrap().after, None);
    let after = spares(&["--eds-dir=/x", "--replace-after-s=60"])
        .unwrap()
        .after;
    assert_eq!(after, Some(Duration::from_secs(60)));
}

#[test]
fn a_merger_is_reached_where_it_listens_unless_it_says_otherwise() {
    let advertised = |flags: &[&str]| {
        let address = parsed(flags).unwrap().advertised();
        address.map(|address| address.to_string())
    };
    let at = |address: &str| Some(address.to_owned());
    assert_eq!(advertised(&["--listen=10.0.0.1:5"]), at("10.0.0.1:5"));
    assert_eq!(advertised(&["--advertise=10.0.0.2:6"]), at("10.0.0.2:6"));
    let socket = "--listen=unix:/run/m.sock";
    assert_eq!(advertised(&[socket]), None);
    assert_eq!(
        advertised(&[socket, "--advertise=10.0.0.2:6"]),
        at("10.0.0.2:6")
    );
    let both = "--listen=unix:/run/m.sock,10.0.0.1:5";
    assert_eq!(advertised(&[both]), at("10.0.0.1:5"));
    assert_eq!(
        parsed(&[both]).unwrap().listens_on(),
        both.replace("--listen=", "")
    );
}

#[test]
fn the_older_two_numbers_still_say_when_a_node_is_down() {
    let down_after = |flags: &[&str]| parsed(flags).unwrap().down_after().as_millis();
    assert_eq!(down_after(&[]), 15_000);
    assert_eq!(down_after(&["--node-down-after-ms=700"]), 700);
    assert_eq!(down_after(&["--heartbeat-interval-ms=100"]), 300);
    assert_eq!(down_after(&["--heartbeat-misses=2"]), 10_000);
    let both = ["--heartbeat-interval-ms=100", "--heartbeat-misses=2"];
    assert_eq!(down_after(&both), 200);
}

#[test]
fn no_two_flags_share_a_name() {
    let command = ServeOptions::augment_args(clap::Command::new("serve"));
    let mut names: Vec<&str> = command
        .get_arguments()
        .map(|flag| flag.get_id().as_str())
        .collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "two flags have the same id");
}

#[test]
fn an_address_with_tls_needs_certificates() {
    let refusal = |flags: &[&str]| {
        let loaded = parsed(flags).unwrap().load_certificates();
        loaded.unwrap_err().to_string()
    };
    assert!(refusal(&["--egress=https://a:1"]).contains("--egress https://… needs --tls-cert"));
    assert!(refusal(&["--envoy-admin=https://a:1"]).contains("--envoy-admin"));
    assert!(refusal(&["--otlp-endpoint=https://a:1"]).contains("--otlp-ca"));
    let with_ca = ["--otlp-endpoint=https://a:1", "--otlp-ca=/nowhere/ca.pem"];
    assert!(refusal(&with_ca).contains("/nowhere/ca.pem"));
    assert!(parsed(&["--tls-cert=a"]).is_err() && parsed(&["--otlp-ca=a"]).is_err());
    assert!(parsed(&[]).unwrap().load_certificates().is_ok());
}
