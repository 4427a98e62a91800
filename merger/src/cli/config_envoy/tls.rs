//! TLS in an `envoy.yaml`: at the edge, and on the way to the nodes.
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
        };
        (tls.edge.is_some() || tls.nodes_ca.is_some()).then_some(tls)
    }

    /// The files that Envoy reads, each with its text.
    pub fn files(&self) -> Vec<(PathBuf, String)> {
        let pairs = [("edge", &self.edge), ("nodes", &self.nodes)];
        let authorities = [
            ("clients-ca", &self.clients_ca),
            ("nodes-ca", &self.nodes_ca),
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

    /// The edge's part of the template's values.
    pub(super) fn edge(&self) -> Option<EdgeView> {
        self.edge.as_ref()?;
        Some(EdgeView {
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
    ) -> Option<NodesView> {
        self.nodes_ca.as_ref()?;
        let name = self.nodes_name.as_deref();
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
        Some(NodesView {
            ca: self.reference("nodes-ca"),
            certificate: self.nodes.as_ref().map(|_| self.reference("nodes")),
            sni: name.map(|name| Value::from(name).to_string()),
            names,
        })
    }
}

/// The edge's part of the template's values.
#[derive(Serialize)]
pub(super) struct EdgeView {
    certificate: String,
    clients: Option<String>,
}

/// The part of the way to some nodes.
#[derive(Serialize)]
pub(super) struct NodesView {
    ca: String,
    certificate: Option<String>,
    sni: Option<String>,
    /// One of these must be in a node's certificate.
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
