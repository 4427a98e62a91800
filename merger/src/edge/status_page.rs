//! The status page, `GET /_cluster/ui`, and `GET /_cluster/traffic`, which tells it how busy the shards are.
//!
//! Place in the flow: dispatch answers the page before any key is judged, because it holds no data. In the browser it asks for the
//! master key and calls the same API as any operator. Each merger answers both itself, also one that follows: the page must be
//! there when no merger leads, and traffic is what went through *this* merger.
//!
//! Invariant: the page loads nothing, and sends requests only to where it came from. Its content security policy names the hashes
//! of its one script and its one style, so the browser runs nothing else.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use sha2::{Digest, Sha256};

use super::authorise::authorise;
use super::errors::ApiError;
use super::{Peers, Reading};
use crate::answer::Answer;
use crate::call::Call;
use crate::cluster;

/// The page's path below `/_cluster`.
pub(super) const PAGE: &str = "ui";
/// The page's whole path.
pub(super) const PATH: &str = "/_cluster/ui";
/// The path below `/_cluster` of what went to each shard.
pub(super) const TRAFFIC: &str = "traffic";

macro_rules! style {
    () => {
        include_str!("status_page/style.css")
    };
}
macro_rules! script {
    () => {
        concat!(
            "\"use strict\";\n",
            include_str!("status_page/dom.js"),
            include_str!("status_page/figures.js"),
            include_str!("status_page/views.js"),
            include_str!("status_page/poll.js"),
        )
    };
}

const HTML: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n",
    include_str!("status_page/head.html"),
    "<style>",
    style!(),
    "</style>\n</head>\n",
    include_str!("status_page/body.html"),
    "<script>",
    script!(),
    "</script>\n</html>\n",
);

/// What a browser may do with the page: run its script, apply its style, and ask this server.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hash(script!()),
        hash(style!()),
    );
    // Base64 and the words above are valid in a header. If they weren't, nothing would be allowed.
    HeaderValue::from_str(&policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// Names this version of the page, so that a browser doesn't load it again.
static VERSION: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(HTML));
    HeaderValue::from_str(&format!("W/\"{hash}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
});

/// Whether a call asks for the page.
pub(super) fn is_wanted(call: &Call) -> bool {
    call.item.as_deref() == Some(PAGE) && matches!(call.method, Method::GET | Method::HEAD)
}

/// The page. It needs no key.
pub(super) fn show(call: &Call) -> Answer {
    let known = call.header(IF_NONE_MATCH.as_str());
    let same = known.is_some_and(|known| known.as_bytes() == VERSION.as_bytes());
    let mut answer = Answer::empty(match same {
        true => StatusCode::NOT_MODIFIED,
        false => StatusCode::OK,
    });
    if !same {
        answer.content_type = Some(HeaderValue::from_static("text/html; charset=utf-8"));
        answer.body = Bytes::from_static(HTML.as_bytes());
    }
    let fixed: [(HeaderName, &'static str); 4] = [
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
    ];
    let headers = fixed.map(|(name, value)| (name, HeaderValue::from_static(value)));
    answer.headers.extend(headers);
    answer
        .with_header(CONTENT_SECURITY_POLICY, POLICY.clone())
        .with_header(ETAG, VERSION.clone())
}

/// Whether each merger answers this call on the cluster itself, and [`traffic`] does so.
pub(super) fn is_own(call: &Call) -> bool {
    matches!(call.item.as_deref(), Some(PAGE | TRAFFIC))
}

/// What went to each shard through this merger. The key was judged.
pub(super) fn traffic(ctx: &cluster::Context, peers: &Peers, call: &Call) -> Answer {
    if call.method != Method::GET || call.item.as_deref() != Some(TRAFFIC) {
        return Answer::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let mut view = ctx.cluster.traffic.view(&ctx.cluster.shards());
    if let Some(fields) = view.as_object_mut() {
        fields.insert("merger".to_owned(), peers.me.clone().into());
    }
    Answer::json(StatusCode::OK, &view)
}

/// A follower's answer to a call that [is its own](is_own).
pub(super) async fn of_follower(
    ctx: &Reading,
    peers: &Peers,
    call: &Call,
) -> Result<Answer, ApiError> {
    authorise(ctx, call).await?;
    Ok(traffic(ctx, peers, call))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text between two marks, which occur once.
    fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        assert_eq!(text.matches(to).count(), 1, "{to}");
        let (_, rest) = text.split_once(from).unwrap();
        rest.split_once(to).unwrap().0
    }

    #[test]
    fn the_policy_allows_the_script_and_the_style_that_the_page_has() {
        let policy = POLICY.to_str().unwrap();
        for (kind, from, to) in [
            ("script-src", "<script>", "</script>"),
            ("style-src", "<style>", "</style>"),
        ] {
            let hash = STANDARD.encode(Sha256::digest(between(HTML, from, to)));
            assert!(
                policy.contains(&format!("{kind} 'sha256-{hash}';")),
                "{kind}"
            );
        }
        assert!(policy.starts_with("default-src 'none';"));
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn the_page_names_no_other_server_and_no_file() {
        for outside in [
            "http:",
            "https:",
            "src=",
            "url(",
            "@import",
            "import(",
            "innerHTML",
        ] {
            // The namespace of drawings is a name, and nothing is loaded from there.
            let page = HTML.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(HTML.len() < 100_000, "{}", HTML.len());
    }
}
