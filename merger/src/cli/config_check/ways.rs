//! Whether both ends of each way between Envoy and merger speak TLS, or neither does.

use super::clusters::{Cluster, endpoints};
use super::yaml::Node;
use super::{Merger, Report, SOCKET, named, port_of};

/// Whether something speaks TLS here: a cluster, or a chain of a listener's filters.
fn encrypts(node: &Node) -> bool {
    let kind = node.text(&["transport_socket", "typed_config", "@type"]);
    kind.is_some_and(|kind| kind.contains(".transport_sockets.tls."))
}

fn context<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.at(&[
        "transport_socket",
        "typed_config",
        "common_tls_context",
        key,
    ])
}

/// Looks at the way to the merger.
pub(super) fn to_the_merger(
    cluster: &Cluster<'_>,
    places: &[(String, usize)],
    merger: &Merger,
    report: &mut Report,
) {
    let (name, line) = (cluster.name, cluster.line);
    let by_socket = places.iter().all(|(place, _)| place.starts_with(SOCKET));
    match (encrypts(cluster.node), merger.encrypted) {
        (true, _) if by_socket => report.mistake(
            line,
            format!("`{name}` is reached by TLS, and the merger speaks plain HTTP on its socket"),
        ),
        _ if by_socket => {}
        (true, false) => report.mistake(
            line,
            format!("`{name}` is reached by TLS, but the merger has no --tls-cert and speaks plain HTTP"),
        ),
        (false, true) => report.mistake(
            line,
            format!("`{name}` is reached plainly, but the merger has a --tls-cert and speaks TLS only: weft config envoy --tls-mergers-ca"),
        ),
        (true, true) => {
            let shown = ["tls_certificate_sds_secret_configs", "tls_certificates"];
            if shown.iter().all(|key| context(cluster.node, key).is_none()) {
                let text = format!("`{name}` is shown no certificate, and the merger lets in nobody without one: weft config envoy --tls-mergers-cert");
                report.mistake(line, text);
            }
        }
        (false, false) => {}
    }
}

/// Looks at where each node's readiness is asked: of the merger, or of a listener here that leads to it.
pub(super) fn to_ask_readiness(
    cluster: &Cluster<'_>,
    root: &Node,
    merger: &Merger,
    report: &mut Report,
) {
    let listeners = root.list(&["static_resources", "listeners"]).iter();
    let own: Vec<String> = listeners
        .filter_map(|listener| Some(port_of(listener.get("address"))?.0))
        .collect();
    let checks = cluster.node.list(&["health_checks"]).iter();
    let mut other_way = checks.filter_map(|check| check.get("transport_socket_match_criteria"));
    let plainly = !encrypts(cluster.node) || other_way.next().is_some();
    for endpoint in endpoints(cluster.node) {
        let Some((place, line)) = port_of(endpoint.at(&["health_check_config", "address"])) else {
            continue;
        };
        let of_merger = merger.listen.contains(&place);
        if !of_merger && !own.contains(&place) {
            let text = format!(
                "readiness is asked at {}, where no listener of this file is, and the merger's --listen says {}",
                named(&place),
                merger.listen.join(",")
            );
            // As a rule all nodes have the same, and one line says it.
            if report.findings.iter().all(|known| known.text != text) {
                report.mistake(line, text);
            }
        } else if of_merger && merger.encrypted && plainly && !place.starts_with(SOCKET) {
            let text = "readiness is asked of the merger plainly, and it speaks TLS only (--tls-cert): ask a listener that leads to it by TLS";
            report.mistake(line, text);
        } else if of_merger && !plainly && !merger.encrypted {
            let text = "readiness is asked by the TLS of the nodes, and the merger speaks plain HTTP: health_checks needs a transport_socket_match_criteria";
            report.mistake(line, text);
        }
    }
}

/// Whether who comes to a listener must show a certificate.
pub(super) fn asks_for_certificates(listener: &Node) -> bool {
    let mut chains = listener.list(&["filter_chains"]).iter();
    chains.all(|chain| {
        let wanted = [
            "transport_socket",
            "typed_config",
            "require_client_certificate",
        ];
        encrypts(chain) && chain.text(&wanted) == Some("true")
    })
}

/// Looks at the merger's way to the nodes.
pub(super) fn to_egress(listener: &Node, merger: &Merger, report: &mut Report) {
    let mut chains = listener.list(&["filter_chains"]).iter();
    let encrypted = chains.any(encrypts);
    let line = listener.line;
    match (encrypted, merger.egress_encrypted) {
        (true, false) => report.mistake(
            line,
            "the egress listener speaks TLS, but the merger's --egress isn't https://HOST:PORT",
        ),
        (false, true) => report.mistake(
            line,
            "the merger's --egress is https://…, but the egress listener speaks plain HTTP: weft config envoy --tls-egress",
        ),
        (true, true) if !asks_for_certificates(listener) => report.mistake(
            line,
            "the egress listener lets in whoever speaks TLS, and who reaches it reaches every node: require_client_certificate: true",
        ),
        _ => {}
    }
    if encrypted && !merger.encrypted {
        let text = "the egress listener wants a certificate, and the merger has no --tls-cert";
        report.mistake(line, text);
    }
}
