//! The pages for people who open the cluster's address in a browser: the same as a node's, which are its dashboard or a line that
//! says that it runs.
//!
//! Place in the flow: dispatch hands over requests that are no operation of the API. The pages come from a node, because only a
//! node knows which pages it has. The dashboard then uses the API as any client does. The node is asked without the client's key,
//! and only for the root and for files, so that no part of a newer node's API can be reached around the merger.

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::json;

use super::errors::ApiError;
use crate::answer::Answer;
use crate::call::ForwardedHeaders;
use crate::cluster::Context;
use crate::upstream::{NodeRequest, Target};

/// The extensions of files that pages consist of.
const FILES: [&str; 17] = [
    "css",
    "gif",
    "html",
    "ico",
    "jpeg",
    "jpg",
    "js",
    "json",
    "map",
    "mjs",
    "png",
    "svg",
    "txt",
    "webmanifest",
    "webp",
    "woff",
    "woff2",
];

/// Answers a request for a path that the API doesn't have. Returns a name for metrics, and the answer.
pub(super) async fn show(ctx: &Context, request: &Parts) -> (&'static str, Answer) {
    let wanted = Wanted::by(request);
    let _slot = match (wanted, ctx.bounds.begin()) {
        (Wanted::Root | Wanted::File, Err(full)) => {
            return ("page", ApiError::from(full).into_answer());
        }
        (_, slot) => slot.ok(),
    };
    match wanted {
        Wanted::Root => ("root", root(ctx, request).await),
        Wanted::File => {
            let node = from_a_node(ctx, request).await;
            let answer = node.unwrap_or_else(|| Answer::empty(StatusCode::NOT_FOUND));
            ("file", answer)
        }
        Wanted::NotAllowed => ("unknown", Answer::empty(StatusCode::METHOD_NOT_ALLOWED)),
        Wanted::Unknown => ("unknown", Answer::empty(StatusCode::NOT_FOUND)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Root,
    File,
    NotAllowed,
    Unknown,
}

impl Wanted {
    fn by(request: &Parts) -> Self {
        let path = request.uri.path();
        if path.bytes().all(|byte| byte == b'/') {
            return match request.method {
                Method::GET => Self::Root,
                _ => Self::NotAllowed,
            };
        }
        let name = path.trim_end_matches('/').rsplit('/').next();
        let ending = name
            .and_then(|name| name.rsplit_once('.'))
            .map_or("", |(_, ending)| ending);
        let file = FILES.iter().any(|known| ending.eq_ignore_ascii_case(known));
        match request.method {
            Method::GET | Method::HEAD if file => Self::File,
            _ => Self::Unknown,
        }
    }
}

/// The root page. While no node gives it, the merger itself answers that it runs.
async fn root(ctx: &Context, request: &Parts) -> Answer {
    match from_a_node(ctx, request).await {
        Some(answer) if answer.status.is_success() => answer,
        _ => Answer::json(StatusCode::OK, &json!({"status": "Meilisearch is running"})),
    }
}

async fn from_a_node(ctx: &Context, request: &Parts) -> Option<Answer> {
    let shard = ctx.cluster.shards().into_iter().next()?;
    let path = request.uri.path_and_query()?.as_str();
    let forwarded = ForwardedHeaders::from_client(&request.headers).with_key(None);
    let asked = NodeRequest::new(
        Target::Shard(shard),
        request.method.clone(),
        path,
        &forwarded,
        ctx.search_timeout,
    );
    match ctx.upstream.send(asked).await {
        Ok(answer) => Some(answer.pass_on()),
        Err(error) => {
            tracing::debug!(%error, "no node gave a page");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(method: &str, path: &str) -> Wanted {
        let request = http::Request::builder().method(method).uri(path);
        Wanted::by(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_root_and_files_are_pages_and_nothing_else_is() {
        for path in ["/", "//", "/?x=1"] {
            assert_eq!(wanted("GET", path), Wanted::Root, "{path}");
            for method in ["HEAD", "POST", "OPTIONS", "DELETE"] {
                assert_eq!(wanted(method, path), Wanted::NotAllowed, "{method} {path}");
            }
        }
        for path in [
            "/favicon.ico",
            "/static/js/main.2f1.js",
            "/assets/INDEX.CSS?v=2",
            "/robots.txt/",
        ] {
            assert_eq!(wanted("GET", path), Wanted::File, "{path}");
            assert_eq!(wanted("HEAD", path), Wanted::File, "{path}");
            assert_eq!(wanted("POST", path), Wanted::Unknown, "{path}");
        }
        for path in [
            "/nothing",
            "/scalar",
            "/v1.2/export",
            "/a.b/",
            "/.",
            "/x.",
            "/js",
        ] {
            assert_eq!(wanted("GET", path), Wanted::Unknown, "{path}");
        }
    }
}
