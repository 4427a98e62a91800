//! envoy/docker-compose.tracing.yml: traces in Jaeger, on top of docker-compose.yml.

use std::process::Command;

use compose_spec::Compose;
use weft_cluster::Binaries;

use super::ha::{file, merge};
use super::read;

const TRACING: &str = "envoy/docker-compose.tracing.yml";

#[test]
fn with_the_file_for_traces_envoy_and_merger_send_theirs_to_jaeger() {
    let mut all = file("docker-compose.yml");
    let more = file(TRACING);
    // Where Compose joins maps and lists: a command isn't joined, but replaced.
    for name in ["envoy", "filter"] {
        let service = all["services"][name].as_mapping_mut().unwrap();
        service.remove("command");
        if name == "filter" {
            service.remove("entrypoint");
        }
    }
    merge(&mut all, &more);
    let checked: Compose = serde_yaml::from_value(all.clone()).unwrap();
    checked.validate_all().unwrap();
    let services = &all["services"];
    let jaeger = &services["jaeger"];
    assert_eq!(jaeger["profiles"][0], "observability");
    let endpoint = &services["merger"]["environment"]["WEFT_OTLP_ENDPOINT"];
    assert_eq!(endpoint, "http://jaeger:4317");

    // Envoy reads what is printed: the committed file, and the collector.
    let printing = services["filter"]["command"][0].as_str().unwrap();
    let (_, printing) = printing.split_once("weft config envoy ").unwrap();
    let (options, written) = printing.split_once(" > ").unwrap();
    assert_eq!(services["envoy"]["command"][1], written);
    let mut weft = Command::new(Binaries::find().unwrap().weft);
    weft.args(["config", "envoy"])
        .args(options.split_whitespace());
    let output = weft.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains(r#"address: "jaeger", port_value: 4317"#));
    let lines: Vec<&str> = printed.lines().collect();
    for line in read("envoy/envoy.yaml").lines() {
        assert!(lines.contains(&line), "the printed file lacks: {line}");
    }
}
