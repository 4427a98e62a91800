//! All of Weft's own headers. Names are lower case, as Envoy gives and expects them.

/// The Envoy cluster that a route with `cluster_header` picks: a shard's cluster, or (egress only) `node`. Without this
/// header, the merger's.
pub const CLUSTER: &str = "x-weft-cluster";
/// The operation's name, for the merger's logs and metrics ([`crate::Operation::name`]).
pub const OPERATION: &str = "x-weft-op";
/// The term of the merger that leads, on its requests to nodes: a [`crate::Term`]. A guard in front of a node takes it off.
pub const TERM: &str = "x-weft-term";

/// Public: which replica may answer a read, `any` (the default) or `primary`.
pub const READ: &str = "x-weft-read";
/// Public: answer only from replicas that have applied this task.
pub const AFTER_TASK: &str = "x-weft-after-task";
/// Public: what to do when a shard can't answer, `partial`, `error` or `wait`.
pub const PARTIAL: &str = "x-weft-partial";
/// Public: `true` adds an explanation of how the answer came about.
pub const EXPLAIN: &str = "x-weft-explain";
/// Public: how many replicas must hold a write before it is acknowledged, `sync`, `quorum` or `async`.
pub const WRITE: &str = "x-weft-write";

/// On requests from the edge to the merger: its access log wants to know what becomes of the request. The answer then has
/// [`OPERATION`], [`SHARDS`] and [`REMEMBERED`], which the edge takes off.
pub const LOG: &str = "x-weft-log";
/// On such answers: the numbers of the shards that were asked, `0,2`; missing if none was.
pub const SHARDS: &str = "x-weft-shards";

/// On such answers: `true` if the answer was remembered, or shared with an identical search; missing otherwise.
pub const REMEMBERED: &str = "x-weft-remembered";

/// On answers: which shards are missing, `shards=2; coverage=0.67`.
pub const DEGRADED: &str = "x-weft-degraded";

/// On answers of the egress listener that Envoy generated itself: the reason. A node's answer never has this header.
pub const ENVOY_REPLY: &str = "x-weft-envoy";
/// On answers that a guard gives in its node's place: why it let a request not through. A node's answer never has this header.
pub const GUARD: &str = "x-weft-guard";
/// The value of [`GUARD`] on the refusal of a write whose term is older than one that the guard has seen.
pub const GUARD_STALE: &str = "stale";
/// The value of [`CLUSTER`] on the egress listener that selects one node, named by [`ORIGINAL_DST_HOST`].
pub const NODE_CLUSTER: &str = "node";
/// The value of [`CLUSTER`] on the egress listener that selects Envoy's own admin interface, where the listener has TLS.
pub const ADMIN_CLUSTER: &str = "admin";
/// Envoy's own header: the address for an `ORIGINAL_DST` cluster with `use_http_header`. A client may never set it.
pub const ORIGINAL_DST_HOST: &str = "x-envoy-original-dst-host";

/// The prefix of all of Weft's headers.
pub const PREFIX: &str = "x-weft-";

/// The headers that a client may send.
pub const PUBLIC: [&str; 5] = [READ, AFTER_TASK, PARTIAL, EXPLAIN, WRITE];

/// How the edge treats a header of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientHeader {
    /// Not one of Weft's headers: it passes unchanged.
    Foreign,
    /// One of [`PUBLIC`]: a request that the merger fulfils.
    Public,
    /// The client may not set it: it is removed.
    Forbidden,
}

/// Classifies a header by its name, in upper or lower case.
#[must_use]
pub fn judge(name: &str) -> ClientHeader {
    if name.eq_ignore_ascii_case(ORIGINAL_DST_HOST) {
        return ClientHeader::Forbidden;
    }
    let ours = name
        .get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    if !ours {
        ClientHeader::Foreign
    } else if PUBLIC
        .iter()
        .any(|public| name.eq_ignore_ascii_case(public))
    {
        ClientHeader::Public
    } else {
        ClientHeader::Forbidden
    }
}

/// True if a public header's value asks for nothing that a plain replica couldn't do (`x-weft-read: any`).
#[must_use]
pub fn asks_for_nothing_special(name: &str, value: &str) -> bool {
    name.eq_ignore_ascii_case(READ) && value.trim().eq_ignore_ascii_case("any")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_set_the_public_headers_only() {
        for name in PUBLIC {
            assert_eq!(judge(name), ClientHeader::Public);
        }
        for name in [
            CLUSTER,
            OPERATION,
            TERM,
            GUARD,
            DEGRADED,
            LOG,
            SHARDS,
            REMEMBERED,
            ORIGINAL_DST_HOST,
        ] {
            assert_eq!(judge(name), ClientHeader::Forbidden);
        }
        for name in [
            "X-Weft-Cluster",
            "x-WEFT-anything",
            "x-weft-",
            "X-Envoy-Original-Dst-Host",
        ] {
            assert_eq!(judge(name), ClientHeader::Forbidden, "{name}");
        }
        for name in [
            "",
            ":path",
            "x-weft",
            "authorization",
            "x-weftage",
            "é",
            "x-wefé",
        ] {
            assert_eq!(judge(name), ClientHeader::Foreign, "{name}");
        }
    }
}
