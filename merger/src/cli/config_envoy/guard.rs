//! `weft config guard`: the file for a node's own Envoy, whose filter is a guard. The text is in `guard.yaml.jinja`.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use weft_routing::headers;

use super::address::Address;
use super::render::{discovery, fill, socket};
use super::topology::take;
use super::{ConfigEnvoyError, TopologyError};

const TEMPLATE: &str = include_str!("guard.yaml.jinja");

/// Options of `weft config guard`.
#[derive(Debug, Clone, Args)]
pub struct GuardArgs {
    /// The node, as this Envoy reaches it. Nobody else may reach it there.
    #[arg(long, value_name = "HOST:PORT")]
    pub node: Address,

    /// Where requests for the node arrive: the address that the cluster knows.
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Address,

    /// Envoy's admin interface, which also has the metrics [default: none].
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<Address>,

    /// Refuse writes that say no term. Not for clusters without --etcd or with --direct-writes.
    #[arg(long)]
    pub require_term: bool,

    /// The filter, as Envoy will find it.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/wasm32-wasip1/release/weft_filter.wasm"
    )]
    pub wasm: PathBuf,
}

/// The values for the template.
#[derive(Serialize)]
struct View {
    node: String,
    node_discovery: &'static str,
    listen: String,
    admin: Option<String>,
    wasm: String,
    filter_configuration: String,
    envoy_reply: &'static str,
}

/// The text of the file that these arguments ask for.
pub fn run(arguments: &GuardArgs) -> Result<String, ConfigEnvoyError> {
    check(arguments)?;
    let filter = match arguments.require_term {
        true => serde_json::json!({"mode": "guard", "require_term": true}),
        false => serde_json::json!({"mode": "guard"}),
    };
    let view = View {
        node: socket(&arguments.node),
        node_discovery: discovery([&arguments.node]),
        listen: socket(&arguments.listen),
        admin: arguments.admin.as_ref().map(socket),
        wasm: arguments.wasm.display().to_string(),
        filter_configuration: filter.to_string(),
        envoy_reply: headers::ENVOY_REPLY,
    };
    Ok(fill(TEMPLATE, &view)?)
}

fn check(arguments: &GuardArgs) -> Result<(), TopologyError> {
    let mut seen = HashMap::new();
    let listeners = [
        ("listen", Some(&arguments.listen)),
        ("admin", arguments.admin.as_ref()),
    ];
    for (option, address) in listeners {
        let Some(address) = address else { continue };
        if !address.is_ip() {
            return Err(TopologyError::ListenOnName {
                option,
                address: address.to_string(),
            });
        }
        take(&mut seen, address, option.to_owned())?;
    }
    take(&mut seen, &arguments.node, "the node".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        guard: GuardArgs,
    }

    fn text(line: &str) -> Result<String, String> {
        let words = std::iter::once("weft").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        run(&line.guard).map_err(|error| error.to_string())
    }

    const LINE: &str = "--node 127.0.0.1:7710 --listen 10.0.0.7:7700";

    #[test]
    fn the_filter_is_told_to_guard_and_nothing_else() {
        let configuration = |line: &str| {
            let text = text(line).unwrap();
            let (_, value) = text.split_once("value: \"{").unwrap();
            value.lines().next().unwrap().replace('\\', "")
        };
        assert_eq!(configuration(LINE), r#""mode":"guard"}""#);
        let strict = format!("{LINE} --require-term");
        assert_eq!(
            configuration(&strict),
            r#""mode":"guard","require_term":true}""#
        );
    }

    #[test]
    fn an_admin_interface_and_dns_are_there_only_where_they_are_asked_for() {
        let plain = text(LINE).unwrap();
        assert!(!plain.contains("admin:") && plain.contains("type: STATIC"));
        let more = text("--node node:7700 --listen 127.0.0.1:7700 --admin 127.0.0.1:7701").unwrap();
        assert!(more.contains("admin:") && more.contains("envoy.clusters.dns"));
    }

    #[test]
    fn what_makes_no_guard_is_refused_in_one_line() {
        for (line, expected) in [
            (
                "--node 127.0.0.1:7700 --listen 127.0.0.1:7700",
                "127.0.0.1:7700 is used twice: by listen and by the node",
            ),
            (
                "--node 127.0.0.1:7700 --listen localhost:7701",
                "--listen localhost:7701: Envoy listens on IP addresses only",
            ),
            (
                "--node n:1 --listen 127.0.0.1:7700 --admin 127.0.0.1:7700",
                "127.0.0.1:7700 is used twice: by listen and by admin",
            ),
        ] {
            assert_eq!(text(line).unwrap_err(), expected, "{line}");
        }
        for line in ["", "--node n:1", "--listen 127.0.0.1:7700"] {
            assert!(text(line).is_err(), "{line}");
        }
    }
}
