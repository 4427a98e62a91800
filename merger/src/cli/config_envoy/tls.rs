//! TLS in an `envoy.yaml`: at the edge, and on the ways to the nodes, to the mergers and from them, and to the collector.
//!
//! Envoy reads certificates by secret discovery (SDS) from files, because only those are read again when they change. Each secret has
//! a small file that names the certificate's own files; [`Tls::write`] makes them. Keys are in none of them.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::address::Address;

/// The TLS options of `weft config envoy`. Files are named as Envoy will find them.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// The edge's certificate and its intermediates (PEM). With it, the edge speaks TLS and nothing else.
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "sds_dir")]
    pub tls_cert: Option<PathBuf>,

    /// The key to the edge's certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Authorities (PEM) of clients' certificates: clients without one are refused [default: clients need none].
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_clients_ca: Option<PathBuf>,

    /// Authorities (PEM) of the nodes' certificates. With it, nodes are reached by TLS and no other way.
    #[arg(long, value_name = "FILE", requires = "sds_dir")]
    pub tls_nodes_ca: Option<PathBuf>,

    /// The certificate that Envoy shows to the nodes (PEM) [default: none].
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_nodes_key",
        requires = "tls_nodes_ca"
    )]
    pub tls_nodes_cert: Option<PathBuf>,

    /// The key to the certificate for the nodes (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_nodes_cert")]
    pub tls_nodes_key: Option<PathBuf>,

    /// The name that is in the certificate of every node [default: each node's own host, a name or an IP address].
    #[arg(long, value_name = "NAME", requires = "tls_nodes_ca")]
    pub tls_nodes_name: Option<String>,

    /// Authorities (PEM) of the mergers' certificates (--tls-cert of `weft serve`). With it, mergers are reached by TLS and no other way.
    #[arg(long, value_name = "FILE", requires = "tls_mergers_cert")]
    pub tls_mergers_ca: Option<PathBuf>,

    /// The certificate that Envoy shows to the mergers (PEM).
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_mergers_key",
        requires = "tls_mergers_ca",
        requires = "sds_dir"
    )]
    pub tls_mergers_cert: Option<PathBuf>,

    /// The key to that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_mergers_cert")]
    pub tls_mergers_key: Option<PathBuf>,

    /// The name that is in the certificate of every merger [default: each merger's own host, a name or an IP address].
    #[arg(long, value_name = "NAME", requires = "tls_mergers_ca")]
    pub tls_mergers_name: Option<String>,

    /// The egress listener speaks TLS, too, with the same certificate and authorities, for a merger on another machine. The merger
    /// then has `https://HOST:PORT` of that listener in --egress and --envoy-admin.
    #[arg(long, requires = "tls_mergers_ca")]
    pub tls_egress: bool,

    /// Authorities (PEM) of the certificate of the collector of traces. With it, that is reached by TLS.
    #[arg(long, value_name = "FILE", requires = "sds_dir")]
    pub tls_otlp_ca: Option<PathBuf>,

    /// Folder for the files that tell Envoy where certificates are; this command writes them. Envoy must find it under the same path.
    #[arg(long, value_name = "DIR")]
    pub sds_dir: Option<PathBuf>,
}

/// Which ways of a cluster are encrypted.
///
/// Invariant: nothing is here that can't be used: a certificate has its key, and each secret its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    folder: PathBuf,
    edge: Option<Pair>,
    clients_ca: Option<PathBuf>,
    nodes_ca: Option<PathBuf>,
    nodes: Option<Pair>,
    nodes_name: Option<String>,
    mergers_ca: Option<PathBuf>,
    mergers: Option<Pair>,
    mergers_name: Option<String>,
    egress: bool,
    otlp_ca: Option<PathBuf>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

/// A file for Envoy could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be written: {source}", path.display())]
pub struct SecretError {
    path: PathBuf,
    source: std::io::Error,
}

impl Tls {
    /// What the arguments ask for; `None` without any TLS.
    pub fn of(arguments: &TlsArgs) -> Option<Self> {
        let pair = |certificate: &Option<PathBuf>, key: &Option<PathBuf>| {
            Some(Pair {
                certificate: certificate.clone()?,
                key: key.clone()?,
            })
        };
        let tls = Self {
            folder: arguments.sds_dir.clone()?,
            edge: pair(&arguments.tls_cert, &arguments.tls_key),
            clients_ca: arguments.tls_clients_ca.clone(),
            nodes_ca: arguments.tls_nodes_ca.clone(),
            nodes: pair(&arguments.tls_nodes_cert, &arguments.tls_nodes_key),
            nodes_name: arguments.tls_nodes_name.clone(),
            mergers_ca: arguments.tls_mergers_ca.clone(),
            mergers: pair(&arguments.tls_mergers_cert, &arguments.tls_mergers_key),
            mergers_name: arguments.tls_mergers_name.clone(),
            egress: arguments.tls_egress,
            otlp_ca: arguments.tls_otlp_ca.clone(),
        };
        let authorities = [&tls.nodes_ca, &tls.mergers_ca, &tls.otlp_ca];
        let is_used = tls.edge.is_some() || authorities.into_iter().any(Option::is_some);
        is_used.then_some(tls)
    }

    /// The files that Envoy reads, each with its text.
    pub fn files(&self) -> Vec<(PathBuf, String)> {
        let pairs = [
            ("edge", &self.edge),
            ("nodes", &self.nodes),
            ("mergers", &self.mergers),
        ];
        let authorities = [
            ("clients-ca", &self.clients_ca),
            ("nodes-ca", &self.nodes_ca),
            ("mergers-ca", &self.mergers_ca),
            ("otlp-ca", &self.otlp_ca),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, pair)| {
            let pair = pair.as_ref()?;
            let certificate = json!({
                "certificate_chain": {"filename": pair.certificate},
                "private_key": {"filename": pair.key},
                "watched_directory": {"path": folder_of(&pair.certificate)},
            });
            Some((name, "tls_certificate", certificate))
        });
        let authorities = authorities.into_iter().filter_map(|(name, file)| {
            let file = file.as_ref()?;
            let trusted = json!({
                "trusted_ca": {"filename": file},
                "watched_directory": {"path": folder_of(file)},
            });
            Some((name, "validation_context", trusted))
        });
        pairs
            .chain(authorities)
            .map(|(name, kind, value)| (self.file(name), secret(name, kind, &value)))
            .collect()
    }

    /// Writes those files.
    ///
    /// # Errors
    /// The folder or a file can't be written.
    pub fn write(&self) -> Result<(), SecretError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SecretError { path, source }
        };
        std::fs::create_dir_all(&self.folder).map_err(failed(&self.folder))?;
        for (path, text) in self.files() {
            // An Envoy that runs reads a file when it is moved to its place, and must never find half of one.
            let unfinished = path.with_extension("new");
            std::fs::write(&unfinished, text).map_err(failed(&unfinished))?;
            std::fs::rename(&unfinished, &path).map_err(failed(&path))?;
        }
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// How the configuration refers to a secret, as flow-style YAML.
    fn reference(&self, name: &str) -> String {
        let config = json!({
            "name": name,
            "sds_config": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": self.file(name),
                    "watched_directory": {"path": self.folder},
                },
            },
        });
        config.to_string()
    }

    /// What a listener with TLS shows, and whom it lets in.
    pub(super) fn edge(&self) -> Option<ListenerView> {
        self.edge.as_ref()?;
        Some(ListenerView {
            certificate: self.reference("edge"),
            clients: self
                .clients_ca
                .as_ref()
                .map(|_| self.reference("clients-ca")),
        })
    }

    /// The part of the way to nodes with these addresses.
    pub(super) fn nodes<'a>(
        &self,
        addresses: impl Iterator<Item = &'a Address>,
    ) -> Option<PeersView> {
        self.nodes_ca.as_ref()?;
        let certificate = self.nodes.as_ref().map(|_| self.reference("nodes"));
        let name = self.nodes_name.as_deref();
        Some(self.peers("nodes-ca", certificate, name, addresses))
    }

    /// The part of the way to mergers with these addresses.
    pub(super) fn mergers<'a>(
        &self,
        addresses: impl Iterator<Item = &'a Address>,
    ) -> Option<PeersView> {
        self.mergers_ca.as_ref()?;
        let certificate = self.mergers.as_ref().map(|_| self.reference("mergers"));
        let name = self.mergers_name.as_deref();
        Some(self.peers("mergers-ca", certificate, name, addresses))
    }

    /// The part of the way to the collector at this address.
    pub(super) fn otlp(&self, address: &Address) -> Option<PeersView> {
        self.otlp_ca.as_ref()?;
        Some(self.peers("otlp-ca", None, None, std::iter::once(address)))
    }

    /// The part of the listener that a merger on another machine reaches.
    pub(super) fn egress(&self) -> Option<ListenerView> {
        self.mergers.as_ref().filter(|_| self.egress)?;
        Some(ListenerView {
            certificate: self.reference("mergers"),
            clients: Some(self.reference("mergers-ca")),
        })
    }

    /// Whether mergers are reached by TLS.
    pub fn is_for_mergers(&self) -> bool {
        self.mergers_ca.is_some()
    }

    fn peers<'a>(
        &self,
        ca: &str,
        certificate: Option<String>,
        name: Option<&str>,
        addresses: impl Iterator<Item = &'a Address>,
    ) -> PeersView {
        let mut names: Vec<String> = match name {
            Some(name) => vec![named("DNS", name)],
            None => addresses
                .map(|address| match address.is_ip() {
                    true => named("IP_ADDRESS", address.host()),
                    false => named("DNS", address.host()),
                })
                .collect(),
        };
        names.sort_unstable();
        names.dedup();
        PeersView {
            ca: self.reference(ca),
            certificate,
            sni: name.map(|name| Value::from(name).to_string()),
            names,
        }
    }
}

/// What a listener with TLS shows, and whom it lets in.
#[derive(Serialize)]
pub(super) struct ListenerView {
    certificate: String,
    clients: Option<String>,
}

/// The way to some nodes, to mergers or to the collector.
#[derive(Serialize)]
pub(super) struct PeersView {
    ca: String,
    certificate: Option<String>,
    sni: Option<String>,
    /// One of these must be in the other side's certificate.
    names: Vec<String>,
}

fn named(kind: &str, name: &str) -> String {
    json!({"san_type": kind, "matcher": {"exact": name}}).to_string()
}

/// The folder in which a file is changed: Envoy looks when something is moved into it.
fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn secret(name: &str, kind: &str, value: &Value) -> String {
    let secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    format!(
        "{:#}\n",
        json!({"resources": [{"@type": secret, "name": name, kind: value}]})
    )
}
