//! The manifests as an API server would see them, and the files as linters do.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use super::manifests::{CHART, helm, tool};

/// Choices of values that differ in what they render.
pub(super) const VARIANTS: [&[&str]; 8] = [
    &[],
    &[
        "merger.mode=deployment",
        "gateway.replicas=2",
        "gateway.tls.credentialName=edge",
    ],
    &[
        "etcd.endpoints={https://etcd-0:2379,https://etcd-1:2379}",
        "etcd.tlsSecret=etcd-client",
        "etcd.user=weft",
        "etcd.passwordSecret=etcd-password",
        "gateway.replicas=3",
        "merger.storage.enabled=false",
        "filter.api=TrafficExtension",
        "filter.sha256=0000000000000000000000000000000000000000000000000000000000000000",
        "filter.imagePullSecret=registry",
        "podMonitor.enabled=true",
        "node.antiAffinity=preferred",
    ],
    &[
        "filter.api=none",
        "filter.bodyRouting=true",
        "filter.url=file:///etc/weft/weft_filter.wasm",
        "shards=1",
        "replicas=1",
    ],
    &[
        "filter.api=none",
        "networkPolicy.enabled=false",
        "gateway.revision=canary",
        "gateway.serviceType=LoadBalancer",
        "node.storage.className=fast",
        "merger.env[0].name=WEFT_WRITE_MODE",
        "merger.env[0].value=quorum",
        "node.env[0].name=MEILI_LOG_LEVEL",
        "node.env[0].value=WARN",
    ],
    &[
        "merger.tls.secret=weft-merger-tls",
        "otlp.endpoint=https://collector:4317",
        "otlp.metrics=true",
    ],
    &[
        "merger.tls.secret=weft-merger-tls",
        "merger.mode=deployment",
        "otlp.endpoint=https://collector:4317",
        "otlp.caSecret=collector",
    ],
    &[
        "merger.link=sockets",
        "etcd.endpoints={https://etcd-0:2379}",
        "etcd.tlsSecret=etcd-client",
        "merger.storage.enabled=false",
    ],
];

/// What `helm template` prints.
fn rendered(values: &[&str]) -> String {
    let mut arguments = vec!["template", "weft", CHART, "--namespace", "search"];
    arguments.extend(values.iter().flat_map(|value| ["--set", *value]));
    let output = helm(&arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{values:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The mistakes that the schemas find.
fn mistakes(manifests: &str) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/istio/schemas.py");
    let mut python = Command::new(tool(".weft/packaging/venv/bin/python"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(manifests.as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    assert!(!error.starts_with("0 "), "no manifest was read");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    for values in VARIANTS {
        let mut arguments = vec!["lint", CHART, "--strict", "--quiet"];
        arguments.extend(values.iter().flat_map(|value| ["--set", *value]));
        let output = helm(&arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{values:?}: {text}");
    }
}

#[test]
fn kubernetes_and_istio_know_every_member_of_every_manifest() {
    // Most manifests are the same with all values: once is enough.
    let all: Vec<String> = VARIANTS.into_iter().map(rendered).collect();
    let each: BTreeSet<&str> = all.iter().flat_map(|all| all.split("\n---\n")).collect();
    let each: Vec<&str> = each.into_iter().collect();
    assert_eq!(mistakes(&each.join("\n---\n")), Vec::<String>::new());
}

#[test]
fn the_schemas_find_unknown_members_wrong_values_and_missing_ones() {
    // All at once: reading the schemas takes seconds.
    let default = [
        (
            "publishNotReadyAddresses:",
            "publishUnready:",
            "Service weft-shard-0",
        ),
        (
            "fsGroupChangePolicy: OnRootMismatch",
            "fsGroupChangePolicy: [1]",
            "StatefulSet weft-gateway",
        ),
        ("maxUnavailable: 1", "maxMissing: 1", "PodDisruptionBudget"),
        ("portNumber: 7700", "portNo: 7700", "EnvoyFilter weft-edge"),
        (
            "applyTo: CLUSTER",
            "applyTo: CLUSTERS",
            "EnvoyFilter weft-nodes-gateway",
        ),
        ("mode: STRICT", "mode: STRICTLY", "PeerAuthentication"),
        ("principals:", "principles:", "AuthorizationPolicy"),
        (
            "mode: ISTIO_MUTUAL",
            "modes: ISTIO_MUTUAL",
            "DestinationRule",
        ),
        ("pluginName:", "rootId:", "WasmPlugin"),
        ("directResponse:", "direct_response:", "VirtualService"),
    ];
    let others = [
        (
            "failStrategy: FAIL_OPEN",
            "failStrategy: OPEN",
            "TrafficExtension",
        ),
        ("portNumber: 15090", "portNo: 15090", "PodMonitor"),
    ];
    for (values, edits) in [(&[][..], &default[..]), (VARIANTS[2], &others[..])] {
        let mut manifests = rendered(values);
        for (right, wrong, _) in edits {
            assert!(manifests.contains(right), "{right}");
            manifests = manifests.replace(right, wrong);
        }
        let found = mistakes(&manifests);
        for (_, wrong, named) in edits {
            let named = |mistake: &String| mistake.starts_with(named);
            assert!(found.iter().any(named), "{wrong}: {found:?}");
        }
    }
}
