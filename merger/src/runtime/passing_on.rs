//! Tests of what a follower answers itself and what it passes on, over real connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use clap::Parser;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::{NodeId, Topology, VIEW_KEY};
use crate::edge::{Follower, Peers, Role};
use crate::leadership::{Candidate, OnLostStore, Registration};
use crate::store::Snapshot;
use crate::upstream::{NodeAnswer, NodeRequest, PASSED_ON, PassOn, UpstreamError};

/// Nodes that answer each request with their own mark.
struct Nodes;

impl NodeApi for Nodes {
    fn exchange(&self, _: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, UpstreamError>> {
        Box::pin(async {
            Ok(NodeAnswer {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: Bytes::from_static(br#"{"from": "a node"}"#),
            })
        })
    }
}

/// What Envoy says in place of a leader.
#[derive(Clone, Default)]
struct Leader {
    /// How many requests find no leader at the address yet.
    away: Arc<AtomicUsize>,
}

impl Leader {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<String>, Infallible> {
        let away = self.away.load(Ordering::SeqCst);
        if away > 0 {
            self.away.store(away - 1, Ordering::SeqCst);
            let none = Response::builder()
                .status(503)
                .header("x-weft-envoy", "UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}");
            return Ok(none.body(String::new()).unwrap());
        }
        let head = format!(
            "{} {}\n{:?}\n",
            request.method(),
            request.uri(),
            request.headers()
        );
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = format!("{head}{}", String::from_utf8_lossy(&body));
        let answer = Response::builder().status(202).header("x-answered", "yes");
        Ok(answer.body(body).unwrap())
    }
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: ServeOptions,
}

struct Scene {
    url: String,
    leader: watch::Sender<Option<Candidate>>,
    envoy: Leader,
    knows: Fence,
    reading: Arc<edge::Reading>,
    stop: CancellationToken,
    _role: watch::Sender<Role>,
}

const PLACED: &str = r#"{"slots": {"dealt": [0]}, "primaryKey": "id", "deletedBy": null}"#;

async fn scene(on_lost_store: OnLostStore) -> Scene {
    let envoy = Leader::default();
    let egress = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = egress.local_addr().unwrap().to_string();
    let answering = envoy.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = egress.accept().await {
            let leader = answering.clone();
            let service = service_fn(move |request| {
                let leader = leader.clone();
                async move { leader.answer(request).await }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let options = Arguments::parse_from(["serve", "--body-idle-timeout-ms=200"]).options;
    let entries = [
        ("placement/films", PLACED),
        ("epoch", "3"),
        ("replica/a", r#"{"shard": 0, "state": "inSync"}"#),
        (
            "replica/b",
            r#"{"shard": 0, "state": "out", "reason": "x", "since": "2026-01-01T00:00:00Z"}"#,
        ),
        ("in-sync-epoch", "2"),
        (VIEW_KEY, r#"{"lost": ["c"]}"#),
    ];
    let entries = entries.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
    let shared = cluster::Shared::default();
    let store = Arc::new(Snapshot::of(entries.clone()));
    let cluster = Cluster::follow(store, options.cluster(), shared)
        .await
        .unwrap();
    cluster.apply_all(entries.to_vec()).unwrap();
    let hosts = |name: &str, port: u16| {
        format!(
            r#"{{"address": {{"socket_address": {{"address": "127.0.0.1", "port_value": {port}}}}}, "hostname": "{name}"}}"#
        )
    };
    let listed = format!(
        r#"{{"cluster_statuses": [{{"name": "shard-0", "host_statuses": [{}, {}]}}]}}"#,
        hosts("a", 1),
        hosts("b", 2)
    );
    cluster
        .follow_topology(Topology::from_envoy(listed.as_bytes(), &options.shard_prefix).unwrap());
    let up = crate::cluster::Probe::Answer(None);
    for node in ["a", "b"] {
        cluster
            .health
            .note(&NodeId::from(node.to_owned()), &up, true);
    }
    let knows = Fence::until(Instant::now() + Duration::from_secs(600));
    let fence = match on_lost_store {
        OnLostStore::Refuse => knows.clone(),
        OnLostStore::ServeReads => Fence::always_open(),
    };
    let base = base(
        &options,
        Arc::new(Nodes),
        fence,
        (Metrics::new().unwrap(), Spans::default()),
        cluster,
    );
    let leader = watch::Sender::new(None);
    let reading = Arc::new(edge::Reading {
        search: search_of(&options, &base, None),
        keys: Arc::new(Keys::default()),
        cors_origins: options.cors_origins.clone(),
    });
    let follower = Follower {
        reading: Arc::clone(&reading),
        knows: knows.clone(),
        on_lost_store,
        leader: leader.subscribe(),
        pass_on: PassOn::through(crate::tls::Way::to(&address, None)),
        peers: Arc::new(Peers {
            me: "me".to_owned(),
            ..Peers::alone(None)
        }),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (role, roles) = watch::channel(Role::Follows(Arc::new(follower)));
    let stop = CancellationToken::new();
    tokio::spawn(edge::serve(
        roles,
        edge::Door::new(listener.into(), None),
        stop.clone().cancelled_owned(),
    ));
    Scene {
        url,
        leader,
        envoy,
        knows,
        reading,
        stop,
        _role: role,
    }
}

impl Scene {
    fn lead(&self, id: &str) {
        let id = id.to_owned();
        let address = SocketAddr::from(([10, 0, 0, 9], 7703));
        self.leader.send_replace(Some(Candidate { id, address }));
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> (u16, HeaderMap, String) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.uri(format!("{}{path}", self.url));
        let answer = client.request(request.body(Full::from(body)).unwrap());
        let (parts, body) = answer.await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (parts.status.as_u16(), parts.headers, body)
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        self.ask(Method::GET, path, headers, "").await
    }
}

const ONE: &str = "/indexes/films/documents/1";

#[tokio::test]
async fn what_changes_something_goes_to_the_leader_as_it_is() {
    let scene = scene(OnLostStore::Refuse).await;
    scene.lead("other");
    let key = [
        ("authorization", "Bearer key"),
        ("content-type", "application/json"),
    ];
    let asked = scene.ask(
        Method::POST,
        "/indexes/a%2Fb/documents?x=1",
        &key,
        "[{\"id\": 1}]",
    );
    let (status, headers, body) = asked.await;
    assert_eq!(status, 202);
    assert_eq!(headers["x-answered"], "yes");
    let sent = [
        "POST /indexes/a%2Fb/documents?x=1",
        "\"x-weft-cluster\": \"node\"",
        "\"x-envoy-original-dst-host\": \"10.0.0.9:7703\"",
        "\"authorization\": \"Bearer key\"",
        "\"x-weft-passed-on\": \"1\"",
        "[{\"id\": 1}]",
    ];
    for part in sent {
        assert!(body.contains(part), "{part} is not in {body}");
    }
}

#[tokio::test]
async fn reads_are_answered_here_unless_only_the_leader_can() {
    let scene = scene(OnLostStore::Refuse).await;
    let (status, _, body) = scene.get(ONE, &[]).await;
    assert_eq!(
        (status, body.contains("a node")),
        (200, true),
        "nobody leads, and it is a read"
    );
    scene.lead("other");
    for (path, headers, here) in [
        (ONE, &[][..], true),
        (ONE, &[("x-weft-read", "any")][..], true),
        (ONE, &[("x-weft-read", "primary")][..], false),
        (ONE, &[("x-weft-after-task", "3")][..], false),
        ("/indexes/unknown/documents/1", &[][..], false),
        ("/indexes/films", &[][..], false),
        ("/tasks", &[][..], false),
        ("/_cluster/health", &[][..], false),
        // A read that was passed on to a merger which no longer leads.
        (
            ONE,
            &[(PASSED_ON, "1"), ("x-weft-read", "primary")][..],
            true,
        ),
    ] {
        let (_, headers, body) = scene.get(path, headers).await;
        assert_eq!(headers.contains_key("x-answered"), !here, "{path}: {body}");
    }
}

#[tokio::test]
async fn what_is_about_this_envoy_is_answered_by_what_the_leader_has_stored() {
    let scene = scene(OnLostStore::Refuse).await;
    scene.lead("other");
    for (node, wanted) in [("a", 200), ("b", 503), ("c", 425)] {
        let (status, _, body) = scene.get("/_weft/ready", &[("host", node)]).await;
        assert_eq!(status, wanted, "{node}: {body}");
    }
    let (status, _, body) = scene.get("/_weft/table", &[]).await;
    assert_eq!((status, body.contains("films")), (200, true), "{body}");
    let (status, _, body) = scene.get("/_weft/reaches-nodes", &[]).await;
    assert_eq!((status, body.contains("true")), (200, true), "{body}");
    let (status, _, body) = scene.get("/health", &[]).await;
    assert_eq!((status, body.contains("available")), (200, true));
    let (status, _, body) = scene.get("/_weft/metrics", &[]).await;
    assert_eq!(
        (status, body.contains("weft_merger_table_polls")),
        (200, true)
    );
}

#[tokio::test]
async fn without_etcd_it_answers_nothing_itself_or_goes_on_if_the_operator_wants_that() {
    for (on_lost_store, ready, here) in [
        (OnLostStore::Refuse, 503, false),
        (OnLostStore::ServeReads, 200, true),
    ] {
        let scene = scene(on_lost_store).await;
        scene.lead("other");
        scene.knows.close();
        let (status, _, body) = scene.get("/_weft/ready", &[("host", "a")]).await;
        assert_eq!(status, ready, "{body}");
        let (status, _, _) = scene.get("/_weft/table", &[]).await;
        assert_eq!(status, ready, "filters must not go on by an old table");
        let (_, headers, _) = scene.get(ONE, &[]).await;
        assert_eq!(
            headers.contains_key("x-answered"),
            !here,
            "the last known leader answers"
        );
    }
}

#[tokio::test]
async fn without_etcd_and_without_a_leader_another_merger_that_reads_answers() {
    let scene = scene(OnLostStore::Refuse).await;
    scene.knows.close();
    let address = SocketAddr::from(([10, 0, 0, 9], 7703));
    let reader = Registration {
        reaches_nodes: true,
        ..Registration::new("other".to_owned(), address)
    };
    let mergers = &scene.reading.cluster.mergers;
    mergers.note(scene.reading.cluster.epochs(), vec![reader]);
    let (_, headers, body) = scene.get(ONE, &[]).await;
    assert!(headers.contains_key("x-answered"), "{body}");
    assert!(body.contains(PASSED_ON), "{body}");
    // One that no longer knows is not asked by one that no longer knows.
    let passed_on = scene.get(ONE, &[(PASSED_ON, "1")]);
    let answered = tokio::time::timeout(Duration::from_secs(20), passed_on).await;
    let (status, headers, _) = answered.expect("it goes round in circles");
    assert_eq!((status, headers.contains_key("x-answered")), (503, false));
}

#[tokio::test]
async fn a_request_waits_for_a_leader_and_is_sent_again_if_it_has_not_arrived() {
    let scene = scene(OnLostStore::Refuse).await;
    scene.lead("me");
    scene.envoy.away.store(2, Ordering::SeqCst);
    let asked = scene.ask(Method::POST, "/indexes", &[], "{\"uid\": \"a\"}");
    let leads = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        scene.lead("other");
    };
    let ((status, headers, body), ()) = tokio::join!(asked, leads);
    assert_eq!(status, 202, "{body}");
    assert!(headers.contains_key("x-answered") && body.ends_with("{\"uid\": \"a\"}"));
}

#[tokio::test]
async fn a_request_that_was_passed_on_to_a_merger_that_does_not_lead_is_refused_at_once() {
    let scene = scene(OnLostStore::Refuse).await;
    scene.lead("other");
    let begun = Instant::now();
    let (status, headers, body) = scene.get("/tasks", &[(PASSED_ON, "1")]).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(
        (status, &headers["retry-after"]),
        (503, &HeaderValue::from(1))
    );
    assert!(headers.contains_key("x-weft-not-leading"));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    for field in ["message", "code", "type", "link"] {
        assert!(body[field].is_string(), "{body}");
    }
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_a_small_body_is_not_waited_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let scene = scene(OnLostStore::Refuse).await;
    scene.lead("other");
    // Passed on, and answered here.
    for path in ["/indexes", "/indexes/films/search"] {
        let address = scene.url.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n");
        let begun = format!("{head}content-length: 20\r\nconnection: close\r\n\r\n{{\"uid\"");
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let read = stream.read_exact(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(20), read).await;
        read.expect("it waits for ever").unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408", "{path}");
    }
}

#[tokio::test]
async fn a_merger_that_ends_answers_a_last_request_on_each_connection_and_then_takes_none() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    let scene = scene(OnLostStore::Refuse).await;
    let address = scene.url.strip_prefix("http://").unwrap();
    let request = format!("GET {ONE} HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 2048];
    let length = kept.read(&mut first).await.unwrap();
    let first = String::from_utf8_lossy(&first[..length]).into_owned();
    assert!(first.starts_with("HTTP/1.1 200") && !first.contains("connection: close"));

    scene.stop.cancel();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let new = TcpStream::connect(address).await.unwrap();
    for mut stream in [kept, new] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut last = String::new();
        stream.read_to_string(&mut last).await.unwrap();
        let is_last = last.starts_with("HTTP/1.1 200") && last.contains("connection: close");
        assert!(is_last, "{last}");
    }
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await;
    refused.expect("it goes on taking connections");
}
