use std::net::SocketAddr;

use http::Method;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::oneshot;

use super::*;

/// A merger that stands by, and in the place of Envoy a server that tells what it was sent.
struct Scene {
    url: String,
    leader: watch::Sender<Option<Candidate>>,
    end: Option<oneshot::Sender<()>>,
    standing_by: tokio::task::JoinHandle<()>,
}

async fn echo(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
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

async fn envoy() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(echo)));
        }
    });
    address
}

async fn scene() -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let leader = watch::Sender::new(None);
    let standby = Standby {
        leader: leader.subscribe(),
        me: "me".to_owned(),
        pass_on: PassOn::through(&envoy().await.to_string()),
    };
    let (end, ended) = oneshot::channel();
    let standing_by = tokio::spawn(async move {
        let stop = async { drop(ended.await) };
        stand_by(standby, &listener, stop).await;
    });
    Scene {
        url,
        leader,
        end: Some(end),
        standing_by,
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
        path: &str,
        header: Option<(&str, &str)>,
    ) -> (u16, http::HeaderMap, String) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let mut request = Request::builder().method(Method::DELETE);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.uri(format!("{}{path}", self.url));
        let answer = client.request(request.body(Empty::new()).unwrap()).await;
        let (parts, body) = answer.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (parts.status.as_u16(), parts.headers, body)
    }
}

#[tokio::test]
async fn clients_requests_go_to_the_leader_as_they_are() {
    let scene = scene().await;
    scene.lead("other");
    let key = ("authorization", "Bearer key");
    let (status, headers, body) = scene.ask("/indexes/a%2Fb?x=1", Some(key)).await;
    assert_eq!(status, 202);
    assert_eq!(headers["x-answered"], "yes");
    let sent = [
        "DELETE /indexes/a%2Fb?x=1",
        "\"x-weft-cluster\": \"node\"",
        "\"x-envoy-original-dst-host\": \"10.0.0.9:7703\"",
        "\"authorization\": \"Bearer key\"",
        "\"x-weft-passed-on\": \"1\"",
    ];
    for part in sent {
        assert!(body.contains(part), "{part} is not in {body}");
    }
}

#[tokio::test]
async fn while_nobody_leads_clients_are_told_to_try_again() {
    let scene = scene().await;
    let refused = |(status, headers, body): (u16, http::HeaderMap, String)| {
        assert_eq!(
            (status, &headers["retry-after"]),
            (503, &HeaderValue::from(1))
        );
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        for field in ["message", "code", "type", "link"] {
            assert!(body[field].is_string(), "{body}");
        }
    };
    refused(scene.ask("/indexes", None).await);
    // A merger that sees itself as the leader is about to serve.
    scene.lead("me");
    refused(scene.ask("/indexes", None).await);
    scene.lead("other");
    let again = Some((PASSED_ON, "1"));
    refused(scene.ask("/indexes", again).await);
}

#[tokio::test]
async fn what_is_about_this_envoy_is_not_asked_of_the_leader() {
    let scene = scene().await;
    scene.lead("other");
    let (status, _, body) = scene.ask("/_weft/ready", None).await;
    assert_eq!((status, body.contains("false")), (503, true));
    let (status, headers, _) = scene.ask("/_weft/table", None).await;
    assert_eq!(status, 503);
    assert!(headers.contains_key("retry-after"));
    let (status, _, body) = scene.ask("/health", None).await;
    assert_eq!((status, body.contains("available")), (200, true));
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let mut scene = scene().await;
    drop(scene.end.take());
    scene.standing_by.await.unwrap();
}
