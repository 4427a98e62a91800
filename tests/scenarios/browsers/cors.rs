//! Which pages may read answers: preflight requests and the headers of CORS, with and without the filter, for answers of Envoy,
//! the merger and nodes.

use serde_json::Value;
use weft_cluster::{Api, Cluster, Single};

use super::{BEARER, JSON, Raw, ask, cluster, fill, read_directly};
use crate::support::{MASTER_KEY, start};

const PAGE: &str = "https://shop.example";
const ALLOWED: &str = "access-control-allow-origin";

impl Raw {
    /// The headers for browsers and caches: those of CORS, and `vary`.
    fn to_browsers(&self) -> Vec<(String, Vec<String>)> {
        let mut said: Vec<_> = self
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control-") || *name == "vary")
            .map(|name| {
                let mut values: Vec<String> = self
                    .all(name.as_str())
                    .iter()
                    .flat_map(|value| value.split(','))
                    .map(|value| value.trim().to_ascii_lowercase())
                    .collect();
                // A node lists methods in another order after each start.
                values.sort();
                (name.to_string(), values)
            })
            .collect();
        said.sort();
        said
    }
}

/// Method, path, headers, body.
type Asked = (
    &'static str,
    &'static str,
    Vec<(&'static str, &'static str)>,
    &'static str,
);

/// Requests that Envoy, the merger and nodes answer.
fn requests() -> Vec<Asked> {
    vec![
        ("GET", "/health", vec![], ""),
        ("GET", "/", vec![], ""),
        ("GET", "/indexes/wide/search?q=amber", vec![BEARER], ""),
        (
            "POST",
            "/indexes/wide/search",
            vec![BEARER, JSON],
            r#"{"q":"cedar"}"#,
        ),
        (
            "POST",
            "/indexes/tiny/search",
            vec![BEARER, JSON],
            r#"{"q":"cedar"}"#,
        ),
        ("GET", "/indexes/tiny/search?q=dune", vec![BEARER], ""),
        ("GET", "/indexes/wide/documents/7", vec![BEARER], ""),
        (
            "POST",
            "/multi-search",
            vec![BEARER, JSON],
            r#"{"queries":[{"indexUid":"wide"}]}"#,
        ),
        (
            "PUT",
            "/indexes/wide/documents",
            vec![BEARER, JSON],
            r#"[{"id":7}]"#,
        ),
        ("GET", "/tasks?limit=1", vec![BEARER], ""),
        // Requests that fail.
        ("POST", "/indexes/wide/search", vec![JSON], "{}"),
        ("POST", "/indexes/tiny/search", vec![JSON], "{}"),
        ("GET", "/indexes/wide/documents/none", vec![BEARER], ""),
        ("GET", "/indexes/none/search", vec![BEARER], ""),
        ("POST", "/indexes/wide/search", vec![BEARER, JSON], "{"),
        (
            "POST",
            "/indexes/wide/search",
            vec![BEARER, ("content-type", "text/plain")],
            "{}",
        ),
        ("GET", "/nothing/of/the/kind", vec![BEARER], ""),
        ("PATCH", "/health", vec![], ""),
        ("OPTIONS", "/indexes/wide/search", vec![], ""),
        ("HEAD", "/", vec![], ""),
    ]
}

#[tokio::test]
async fn pages_of_any_origin_may_read_every_answer_as_from_a_node() {
    let node = Single::start(Some(MASTER_KEY)).await.unwrap();
    let api = Api::new(node.url(), Some(MASTER_KEY));
    for uid in ["wide", "tiny"] {
        fill(&api, uid).await;
    }
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| builder).await;
        if filter {
            read_directly(&cluster).await;
        }
        for (method, path, mut headers, body) in requests() {
            let plain = ask(&cluster.url(), method, path, &headers, body).await;
            let of_node = ask(&node.url(), method, path, &headers, body).await;
            assert_eq!(
                plain.to_browsers(),
                of_node.to_browsers(),
                "{method} {path}"
            );
            headers.push(("origin", PAGE));
            let answer = ask(&cluster.url(), method, path, &headers, body).await;
            let of_node = ask(&node.url(), method, path, &headers, body).await;
            // The embedded node answers HEAD where a real one doesn't.
            if method != "HEAD" {
                assert_eq!(answer.status, of_node.status, "{method} {path}");
            }
            assert_eq!(answer.all(ALLOWED), ["*"], "{method} {path}");
            assert_eq!(
                answer.to_browsers(),
                of_node.to_browsers(),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn preflight_requests_are_answered_as_by_a_node() {
    let node = Single::start(Some(MASTER_KEY)).await.unwrap();
    let wanted = "authorization,content-type,x-meilisearch-client,meili-include-metadata,x-weft-partial,x-own";
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| builder).await;
        for path in [
            "/indexes/wide/search",
            "/indexes/tiny/documents/7?x=1",
            "/multi-search",
            "/nothing",
            "/",
        ] {
            for method in [
                "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "put", "FETCH",
            ] {
                for more in [None, Some(("access-control-request-headers", wanted))] {
                    let mut headers =
                        vec![("origin", PAGE), ("access-control-request-method", method)];
                    headers.extend(more);
                    let answer = ask(&cluster.url(), "OPTIONS", path, &headers, "").await;
                    let of_node = ask(&node.url(), "OPTIONS", path, &headers, "").await;
                    let what = format!("{method} {path}");
                    assert_eq!(answer.status, of_node.status, "{what}");
                    assert_eq!(answer.to_browsers(), of_node.to_browsers(), "{what}");
                    assert_eq!(answer.body, of_node.body, "{what}");
                    if answer.status == 200 {
                        assert_eq!(answer.all("access-control-max-age"), ["86400"], "{what}");
                    }
                }
            }
        }
    }
}

/// Envoy's own answer to a request of a page.
async fn of_envoy(cluster: &Cluster, method: &str, path: &str, headers: &[(&str, &str)]) -> Raw {
    let headers = [headers, &[("origin", PAGE)]].concat();
    ask(&cluster.url(), method, path, &headers, "").await
}

#[tokio::test]
async fn pages_can_read_the_answers_of_envoy_itself() {
    for filter in [true, false] {
        let (cluster, _) = start(Cluster::builder().filter(filter)).await;
        let hidden = of_envoy(&cluster, "GET", "/_weft/table", &[]).await;
        assert_eq!(
            (hidden.status.as_u16(), hidden.all(ALLOWED)),
            (404, vec!["*"])
        );
        let hidden = of_envoy(&cluster, "GET", "/%5Fweft/table", &[]).await;
        assert_eq!(
            (hidden.status.as_u16(), hidden.all(ALLOWED)),
            (404, vec!["*"])
        );
        let long = "x".repeat(200 << 10);
        let long = of_envoy(&cluster, "GET", "/health", &[("x-long", &long)]).await;
        assert_eq!((long.status.as_u16(), long.all(ALLOWED)), (431, vec!["*"]));
        cluster.merger().kill().unwrap();
        let down = of_envoy(&cluster, "GET", "/version", &[]).await;
        assert_eq!((down.status.as_u16(), down.all(ALLOWED)), (503, vec!["*"]));
        let said: Value = serde_json::from_slice(&down.body).unwrap();
        assert_eq!(said["code"], "internal");
    }
}

/// Checks the answers to all requests for a page that may read them, and for another page.
async fn only_this_page_may_read(cluster: &Cluster, page: &str) {
    let preflight = ("access-control-request-method", "POST");
    for (origin, allowed) in [(page, vec![page]), ("https://evil.example", vec![])] {
        for (method, path, mut headers, body) in requests() {
            headers.push(("origin", origin));
            let answer = ask(&cluster.url(), method, path, &headers, body).await;
            assert_eq!(answer.all(ALLOWED), allowed, "{origin} {method} {path}");
        }
        let asks = [("origin", origin), preflight];
        let answer = ask(&cluster.url(), "OPTIONS", "/indexes/tiny/search", &asks, "").await;
        assert_eq!(answer.all(ALLOWED), allowed, "{origin}");
    }
}

#[tokio::test]
async fn only_pages_of_listed_origins_may_read_answers() {
    let page = "https://a.shop.example";
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| {
            builder.merger_env(
                "WEFT_CORS_ORIGINS",
                "https://x.example,https://*.shop.example",
            )
        })
        .await;
        if filter {
            read_directly(&cluster).await;
        }
        only_this_page_may_read(&cluster, page).await;
    }
}

#[tokio::test]
async fn envoys_own_cors_filter_can_be_used_instead() {
    for filter in [true, false] {
        let cluster = cluster(filter, |builder| {
            builder
                .merger_env("WEFT_CORS_ORIGINS", "none")
                .edit_envoy(|printed| {
                    assert!(printed.contains("#cors: "), "nothing to uncomment");
                    printed.replace("#cors: ", "")
                })
        })
        .await;
        if filter {
            read_directly(&cluster).await;
        }
        only_this_page_may_read(&cluster, PAGE).await;
    }
}
