//! TLS to the collector of traces, from Envoy and from the merger.

use weft_cluster::{Api, Cluster, until};

use super::{Authority, Certificates, soon};
use crate::otlp::Collector;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A cluster of which Envoy trusts the collector by one file, and the merger by another.
fn cluster(collector: &Collector, certificates: &Certificates, of_merger: &str) -> Cluster {
    let options = [
        ("--otlp-tracing", collector.address.clone()),
        ("--tls-otlp-ca", certificates.file("collector", "ca.pem")),
        ("--sds-dir", certificates.file("sds", "")),
    ];
    let options = options.into_iter();
    let endpoint = format!("https://{}", collector.address);
    Cluster::builder()
        .shards(1)
        .envoy_args(options.flat_map(|(name, value)| [name.to_owned(), value]))
        .merger_env("WEFT_OTLP_ENDPOINT", endpoint)
        .merger_env("WEFT_OTLP_CA", certificates.file(of_merger, "ca.pem"))
        .launch()
        .unwrap()
}

/// Asks something with a trace until the collector has spans of these programs.
async fn wait_for_spans(cluster: &Cluster, collector: &Collector, wanted: &[&str]) {
    let api = Api::new(cluster.url(), None);
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let look = || async {
        let headers = [("traceparent", parent.as_str())];
        let asked = api.send("GET".parse().unwrap(), "/version", &headers, Vec::new());
        asked.await.map_err(|error| error.line())?;
        let spans = collector.spans(TRACE);
        let has = |program: &&&str| spans.iter().any(|span| span["program"] == ***program);
        let lacks: Vec<&&str> = wanted.iter().filter(|program| !has(program)).collect();
        match lacks.is_empty() {
            true => Ok(()),
            false => Err(format!("no span of {lacks:?}")),
        }
    };
    until("spans", soon(), look).await.unwrap();
}

#[tokio::test]
async fn spans_go_to_a_collector_by_tls_and_to_none_that_is_not_trusted() {
    let [ours, foreign] = ["ours", "foreign"].map(Authority::new);
    let certificates = Certificates::new();
    certificates.give(&ours, "collector", "127.0.0.1", 1);
    certificates.give(&foreign, "foreign", "127.0.0.1", 2);
    let own = ["tls.crt", "tls.key"].map(|name| certificates.file("collector", name));
    let collector = Collector::start_with(&own).await;
    let trusting = cluster(&collector, &certificates, "collector");
    wait_for_spans(
        &trusting,
        &collector,
        &["weft-edge", "weft-merger", "weft-egress"],
    )
    .await;

    let collector = Collector::start_with(&own).await;
    let mistrusting = cluster(&collector, &certificates, "foreign");
    wait_for_spans(&mistrusting, &collector, &["weft-edge"]).await;
    let merger = Api::new(mistrusting.merger_url(), None);
    let counted = || async {
        let metrics = merger.get("/_weft/metrics").await;
        let metrics = metrics.map_err(|error| error.line())?.text;
        let name = "weft_merger_spans_total{outcome=\"not-taken\"}";
        match metrics.contains(name) {
            true => Ok(metrics),
            false => Err("no span was refused".to_owned()),
        }
    };
    let metrics = until("a span that isn't taken", soon(), counted)
        .await
        .unwrap();
    assert!(!metrics.contains("outcome=\"sent\""), "{metrics}");
    let spans = collector.spans(TRACE);
    assert!(spans.iter().all(|span| span["program"] != "weft-merger"));
}
