//! Values that would make a broken cluster are refused by Helm, with a sentence.

use super::manifests::{CHART, helm};

#[test]
fn values_that_make_no_cluster_are_refused() {
    for (values, sentence) in [
        (&["merger.mode=beside"][..], "must be sidecar or deployment"),
        (&["gateway.replicas=2"], "those need etcd.endpoints"),
        (
            &["merger.storage.enabled=false"],
            "loses the cluster's state",
        ),
        (
            &["filter.api=Lua"],
            "must be WasmPlugin, TrafficExtension or none",
        ),
        (&["filter.bodyRouting=true"], "set filter.api to none"),
        (
            &["filter.bodyRouting=true", "filter.api=none"],
            "set filter.url to file://",
        ),
        (&["node.antiAffinity=none"], "must be required or preferred"),
        (&["merger.link=pipes"], "must be ports or sockets"),
        (
            &["merger.link=sockets", "merger.mode=deployment"],
            "needs Envoy and merger in one pod",
        ),
        (
            &["merger.link=sockets", "merger.tls.secret=own"],
            "a socket needs no TLS",
        ),
        (
            &["otlp.endpoint=https://collector:4317"],
            "needs otlp.caSecret",
        ),
    ] {
        let mut arguments = vec!["template", "weft", CHART];
        arguments.extend(values.iter().flat_map(|value| ["--set", *value]));
        let output = helm(&arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(sentence),
            "{values:?}: {error}"
        );
    }
    // With etcd, several gateways are no mistake.
    let mut arguments = vec!["template", "weft", CHART, "--set", "gateway.replicas=2"];
    arguments.extend([
        "--set",
        "etcd.endpoints={http://etcd:2379}",
        "--set",
        "merger.storage.enabled=false",
    ]);
    assert!(helm(&arguments).status.success());
}
