use weft_filter::config::{Config, KEYS};

const README: &str = include_str!("../../README.md");

/// The default of a key, as the README writes it.
fn default_of(key: &str) -> String {
    let default = Config::default();
    match key {
        "mode" => default.mode.name().to_owned(),
        "merger_cluster" => default.merger_cluster,
        "shard_prefix" => default.shard_prefix.to_string(),
        "table_poll_ms" => default.table_poll_ms.to_string(),
        "max_lease_ms" => default.max_lease_ms.to_string(),
        "body_routing" => default.body_routing.to_string(),
        "max_body_bytes" => default.max_body_bytes.to_string(),
        "register_timeout_ms" => default.register_timeout_ms.to_string(),
        "clear_route_cache" => default.clear_route_cache.to_string(),
        "headers_removed" => default.headers_removed.to_string(),
        "log_operation" => default.log_operation.name().to_owned(),
        "require_term" => default.require_term.to_string(),
        other => panic!("say here what the default of {other} is"),
    }
}

#[test]
fn the_readme_names_every_option_of_the_filter_with_its_default() {
    let (_, section) = README.split_once("## Options").unwrap();
    let (section, _) = section.split_once("\n#").unwrap();
    let rows: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let expected: Vec<String> = KEYS
        .iter()
        .map(|key| format!("| `{key}` | `{}` | ", default_of(key)))
        .collect();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert!(
            row.starts_with(expected),
            "the README says {row}, the code {expected}…"
        );
    }
}
