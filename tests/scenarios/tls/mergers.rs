//! TLS between Envoys and mergers: to the merger, from it to the egress listener, and between mergers.

use serde_json::json;
use tempfile::TempDir;
use weft_cluster::{Api, Cluster, ClusterBuilder, Layout, PortBlock, until};

use super::{Authority, Certificates, ask, put, soon};
use crate::support::documents;

/// Everybody's certificate is for this address.
const HERE: &str = "127.0.0.1";

impl Certificates {
    /// Certificates of Envoys, mergers and clients of the same authority.
    fn of_mergers(authority: &Authority) -> Self {
        let certificates = Self::new();
        for (of, serial) in [("envoy", 1), ("merger", 2), ("client", 3)] {
            certificates.give(authority, of, HERE, serial);
        }
        certificates
    }

    /// A cluster whose mergers and Envoys know each other by them.
    fn cluster(&self) -> ClusterBuilder {
        let options = [
            ("--tls-mergers-ca", self.file("envoy", "ca.pem")),
            ("--tls-mergers-cert", self.file("envoy", "tls.crt")),
            ("--tls-mergers-key", self.file("envoy", "tls.key")),
            ("--sds-dir", self.file("sds", "")),
        ];
        let options = options.into_iter();
        let arguments = options.flat_map(|(name, value)| [name.to_owned(), value]);
        Cluster::builder()
            .envoy_args(arguments)
            .merger_env("WEFT_TLS_CERT", self.file("merger", "tls.crt"))
            .merger_env("WEFT_TLS_KEY", self.file("merger", "tls.key"))
            .merger_env("WEFT_TLS_CA", self.file("merger", "ca.pem"))
    }
}

/// One pair whose merger reaches Envoy by TLS as well, as from another machine.
struct Apart {
    certificates: Certificates,
    cluster: Cluster,
    _folder: TempDir,
    _ports: PortBlock,
}

impl Apart {
    fn start(authority: &Authority) -> Self {
        let certificates = Certificates::of_mergers(authority);
        let ports = PortBlock::claim(100).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(ports.base(), 2, 1).unwrap();
        let egress = format!("https://{HERE}:{}", layout.egress());
        let cluster = certificates
            .cluster()
            .shards(2)
            .at(ports.base(), folder.path().join("cluster"))
            .envoy_args(["--tls-egress"])
            .merger_env("WEFT_EGRESS", &egress)
            .merger_env("WEFT_ENVOY_ADMIN", &egress)
            .launch()
            .unwrap();
        Self {
            certificates,
            cluster,
            _folder: folder,
            _ports: ports,
        }
    }

    /// The two listeners that only who has a certificate may reach: the merger's and Envoy's egress.
    fn guarded(&self) -> [u16; 2] {
        let layout = self.cluster.layout();
        [layout.merger(), layout.egress()]
    }

    fn api(&self) -> Api {
        Api::new(self.cluster.url(), None)
    }

    async fn wait_for_search(&self, answers: bool) {
        let look = || async {
            let found = self
                .api()
                .post("/indexes/x/search", &json!({"q": ""}))
                .await;
            let found = found.map_err(|error| error.line())?;
            let is_whole = found.status == 200 && found.at("/estimatedTotalHits") == 50;
            match is_whole == answers {
                true => Ok(()),
                false => Err(found.text),
            }
        };
        until("a search", soon(), look).await.unwrap();
    }

    /// Waits until a listener shows the certificate with this number to a client.
    async fn wait_for_certificate(&self, port: u16, serial: u64) {
        let look = || async {
            match self.certificates.ask_as("client", port, HERE) {
                Ok((_, shown)) if shown == serial => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        until("a certificate", soon(), look).await.unwrap();
    }
}

#[tokio::test]
async fn only_who_has_a_certificate_reaches_merger_and_egress_and_certificates_change_without_a_restart()
 {
    let [first, second, foreign] = ["first", "second", "foreign"].map(Authority::new);
    let all = Apart::start(&first);
    // Envoy calls nodes ready, filters poll, writes and reads arrive: all that goes by TLS in both directions.
    let written = || async {
        let path = "/indexes/x/documents?primaryKey=id";
        let accepted = all.api().post(path, &documents(0..50)).await;
        let accepted = accepted.map_err(|error| error.line())?;
        match accepted.status == 202 {
            true => Ok(accepted),
            false => Err(accepted.text),
        }
    };
    let accepted = until("a write", soon(), written).await.unwrap();
    all.api().succeed(&accepted).await.unwrap();
    all.wait_for_search(true).await;

    all.certificates.give(&foreign, "foreign", HERE, 9);
    let ca = all.certificates.file("client", "ca.pem");
    for port in all.guarded() {
        let plain = Api::new(format!("http://{HERE}:{port}"), None);
        assert!(plain.get("/health").await.is_err(), "{port}");
        assert!(ask(port, HERE, &ca, None).is_err(), "{port}");
        assert!(
            all.certificates.ask_as("foreign", port, HERE).is_err(),
            "{port}"
        );
        assert!(
            all.certificates.ask_as("client", port, HERE).is_ok(),
            "{port}"
        );
    }

    // Another authority: first both are trusted, then all get new certificates, then only the new one is.
    let ids = (all.cluster.envoy().id(), all.cluster.merger().id());
    let both = format!("{}{}", first.pem, second.pem);
    for of in ["envoy", "merger", "client"] {
        put(&all.certificates.folder(of).join("ca.pem"), &both);
    }
    let [merger, egress] = all.guarded();
    second.issue(&all.certificates.folder("envoy"), HERE, 11);
    second.issue(&all.certificates.folder("merger"), HERE, 12);
    all.wait_for_certificate(merger, 12).await;
    all.wait_for_certificate(egress, 11).await;
    for of in ["envoy", "merger"] {
        put(&all.certificates.folder(of).join("ca.pem"), &second.pem);
    }
    // The client still has a certificate of the first.
    let shut_out = || async {
        match all
            .guarded()
            .map(|port| all.certificates.ask_as("client", port, HERE))
        {
            [Err(_), Err(_)] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    until("the earlier authority's end", soon(), shut_out)
        .await
        .unwrap();
    all.wait_for_search(true).await;
    assert_eq!((all.cluster.envoy().id(), all.cluster.merger().id()), ids);

    // A merger whose new certificate nobody trusts gets no requests.
    foreign.issue(&all.certificates.folder("merger"), HERE, 13);
    all.cluster.merger().kill().unwrap();
    all.cluster.merger().restart().unwrap();
    all.wait_for_search(false).await;
    second.issue(&all.certificates.folder("merger"), HERE, 14);
    all.wait_for_search(true).await;
}

#[tokio::test]
async fn a_merger_passes_requests_on_to_the_leader_by_tls() {
    let authority = Authority::new("mergers");
    let certificates = Certificates::of_mergers(&authority);
    let cluster = certificates.cluster().shards(1).mergers(2);
    let cluster = cluster.start().await.unwrap();
    // One of the two Envoys' mergers follows. Until its Envoy calls it healthy, the other one answers.
    let passed_on = || async {
        let mut stats = String::new();
        for (pair, edge) in cluster.edges().iter().enumerate() {
            let index = format!("/indexes/x{pair}/documents?primaryKey=id");
            let accepted = edge.post(&index, &documents(0..10)).await;
            let accepted = accepted.map_err(|error| error.line())?;
            let ended = edge.succeed(&accepted).await;
            ended.map_err(|error| error.to_string())?;
            let admin = Api::new(cluster.pair(pair).admin_url(), None);
            let some = admin.get("/stats?filter=peer.upstream_rq_2xx").await;
            stats.push_str(&some.map_err(|error| error.line())?.text);
        }
        let counts = stats.lines().filter_map(|line| line.rsplit(": ").next());
        match counts
            .filter_map(|count| count.parse::<u64>().ok())
            .sum::<u64>()
        {
            0 => Err(stats),
            _ => Ok(()),
        }
    };
    until("a request that is passed on", soon(), passed_on)
        .await
        .unwrap();
    let plain = Api::new(cluster.pair(0).merger_url(), None);
    assert!(plain.get("/health").await.is_err());
}
