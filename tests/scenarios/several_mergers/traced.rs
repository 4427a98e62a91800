//! A request that one merger passes on to another is one trace.

use std::time::Duration;

use serde_json::Value;
use weft_cluster::{Cluster, Deadline, until};

use crate::otlp::Collector;
use crate::support::{MASTER_KEY, documents};

const OUTSIDE: &str = "b7ad6b7169203331";

/// The programs and names of the spans above a span, from the outermost one on.
fn above(spans: &[Value], span: &Value) -> Vec<String> {
    let parent = spans.iter().find(|other| other["id"] == span["parent"]);
    let mut all = parent
        .map(|parent| above(spans, parent))
        .unwrap_or_default();
    let text = |field: &str| span[field].as_str().unwrap_or_default().to_owned();
    all.push(text("program"));
    all
}

#[tokio::test]
async fn a_request_that_is_passed_on_to_the_leader_is_one_trace() {
    let collector = Collector::start_with(&[]).await;
    let cluster = Cluster::builder()
        .shards(1)
        .mergers(2)
        .master_key(MASTER_KEY)
        .envoy_args(["--otlp-tracing", collector.address.as_str()])
        .merger_env(
            "WEFT_OTLP_ENDPOINT",
            format!("http://{}", collector.address),
        )
        .start()
        .await
        .unwrap();
    // Writes through each Envoy, one of whose mergers follows. An Envoy that doesn't call its own merger healthy yet asks the other.
    let (mut ways, edges) = (Vec::<Vec<String>>::new(), cluster.edges());
    for number in 0..10 {
        if number > 1 && ways.iter().any(|way| way.len() > 3) {
            break;
        }
        let edge = &edges[number % edges.len()];
        let trace = format!("0af7651916cd43dd8448eb211c80319{number}");
        let parent = format!("00-{trace}-{OUTSIDE}-01");
        let headers = [
            ("traceparent", parent.as_str()),
            ("content-type", "application/json"),
        ];
        let path = "/indexes/x/documents?primaryKey=id";
        let body = documents(0..10).to_string().into_bytes();
        let sent = edge
            .send("POST".parse().unwrap(), path, &headers, body)
            .await;
        let sent = sent.unwrap();
        assert_eq!(sent.status, 202, "{}", sent.text);
        edge.succeed(&sent).await.unwrap();
        let look = || async {
            let spans = collector.spans(&trace);
            let is_of_merger =
                |span: &&Value| span["program"] == "weft-merger" && span["kind"] == 2;
            let of_mergers: Vec<&Value> = spans.iter().filter(is_of_merger).collect();
            let [span] = of_mergers[..] else {
                return Err(format!("{} spans of mergers", of_mergers.len()));
            };
            let way = above(&spans, span);
            // Each of Envoy's requests has a span, and so has each attempt; a follower has none.
            match way.first().is_some_and(|first| first == "weft-edge") {
                true => Ok(way),
                false => Err(format!("{way:?}")),
            }
        };
        let deadline = Deadline::after(Duration::from_secs(30));
        ways.push(until("a whole trace", deadline, look).await.unwrap());
    }
    let (edge, egress) = (["weft-edge"; 2], ["weft-egress"; 2]);
    let straight = [&edge[..], &["weft-merger"]].concat();
    let passed_on = [&edge[..], &egress, &["weft-merger"]].concat();
    assert!(ways.iter().any(|way| *way == passed_on), "{ways:?}");
    let is_known = |way: &Vec<String>| *way == straight || *way == passed_on;
    assert!(ways.iter().all(is_known), "{ways:?}");
}
