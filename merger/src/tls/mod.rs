//! TLS between Envoy, mergers and the collector: certificates from files, read again when those change.
//!
//! A merger has one certificate, which it shows on both sides: as a server to Envoys, and as a client to an Envoy's egress listener.
//! It judges the other side's certificate by one file of authorities. Whoever reaches a merger is trusted, so with TLS no client is
//! let in without a certificate.
//!
//! Invariant: what is used has been read whole. Files that don't fit together, as while they are being replaced, change nothing; the
//! log says so once. Connections that stand already stay.

mod connect;
mod judge;

#[cfg(test)]
mod tests;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_rustls::rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};

use crate::sockets::{Egress, SocketPath};

pub use connect::{Collector, secure};
pub use judge::{Flaw, judge_authorities, judge_identity};

/// How often files are looked at, at most: whether a file has changed is asked when a connection is opened.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What an address with TLS begins with.
const ENCRYPTED: &str = "https://";

/// The way to a listener of Envoy: its address or socket, and how to encrypt what goes there.
#[derive(Debug, Clone)]
pub struct Way {
    url: String,
    socket: Option<SocketPath>,
    certificates: Option<Arc<Certificates>>,
}

impl Way {
    /// `HOST:PORT` or `http://HOST:PORT`; with `https://`, by TLS.
    pub fn to(address: &str, certificates: Option<Arc<Certificates>>) -> Self {
        match Self::is_encrypted(address) {
            true => Self {
                url: address.trim_end_matches('/').to_owned(),
                socket: None,
                certificates,
            },
            false => {
                let address = address.strip_prefix("http://").unwrap_or(address);
                Self {
                    url: format!("http://{}", address.trim_end_matches('/')),
                    socket: None,
                    certificates: None,
                }
            }
        }
    }

    /// The way to the egress listener. A socket is reached plainly: its file's permissions say who may.
    pub fn to_egress(egress: &Egress, certificates: Option<Arc<Certificates>>) -> Self {
        match egress {
            Egress::Tcp(address) => Self::to(address, certificates),
            Egress::Unix(path) => Self {
                url: "http://egress".to_owned(),
                socket: Some(path.clone()),
                certificates: None,
            },
        }
    }

    /// Where connections go whatever the URL says.
    pub fn socket(&self) -> Option<&SocketPath> {
        self.socket.as_ref()
    }

    /// Whether an address is reached by TLS.
    pub fn is_encrypted(address: &str) -> bool {
        address.starts_with(ENCRYPTED)
    }

    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What to encrypt with; `None` for a plain way.
    pub fn certificates(&self) -> Option<Arc<Certificates>> {
        self.certificates.clone()
    }
}

/// A certificate with its intermediates, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// File with the certificates (PEM).
    pub certificate: PathBuf,
    /// File with the key (PEM).
    pub key: PathBuf,
}

/// Files that say who we are, and whom we trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// File with the authorities (PEM) by which the other side's certificate is judged.
    pub authorities: PathBuf,
    /// Our own certificate, if we show one.
    pub identity: Option<Identity>,
}

/// Certificates that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or isn't PEM.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: pem::Error,
    },
    /// A file lacks what it is there for.
    #[error("{} holds no certificate in PEM", .0.display())]
    Empty(PathBuf),
    /// A certificate and a key that don't belong together, or a certificate that can't be read.
    #[error("{}: {error}", path.display())]
    Certificate {
        /// The file with the certificate.
        path: PathBuf,
        /// Why.
        error: rustls::Error,
    },
    /// Authorities by which nothing can be judged.
    #[error("{}: {error}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        error: VerifierBuilderError,
    },
}

/// Certificates as the files have them now. Cheap to ask.
#[derive(Debug)]
pub struct Certificates {
    files: Files,
    /// The protocol that clients ask for (ALPN), if any.
    protocol: Option<&'static [u8]>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    loaded: Loaded,
    stamp: Stamp,
    looked: Instant,
}

#[derive(Debug, Clone)]
struct Loaded {
    /// None without a certificate of our own.
    server: Option<Arc<ServerConfig>>,
    client: Arc<ClientConfig>,
}

/// By which a changed file is told: when each was written, its length, and its number on the disk.
type Stamp = Vec<Option<(SystemTime, u64, u64)>>;

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// A file can't be read, or they don't fit together.
    pub fn load(files: Files) -> Result<Arc<Self>, TlsError> {
        Self::for_protocol(files, None)
    }

    /// Reads the files, for clients that speak HTTP/2 only.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn for_http2(files: Files) -> Result<Arc<Self>, TlsError> {
        Self::for_protocol(files, Some(b"h2"))
    }

    fn for_protocol(files: Files, protocol: Option<&'static [u8]>) -> Result<Arc<Self>, TlsError> {
        let stamp = files.stamp();
        let current = Current {
            loaded: files.read(protocol)?,
            stamp,
            looked: Instant::now(),
        };
        Ok(Arc::new(Self {
            files,
            protocol,
            current: Mutex::new(current),
        }))
    }

    /// How to be a client.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current().client
    }

    /// How to be a server; `None` without a certificate of our own.
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.current().server
    }

    fn current(&self) -> Loaded {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            self.look(&mut current);
        }
        current.loaded.clone()
    }

    fn look(&self, current: &mut Current) {
        current.looked = Instant::now();
        let stamp = self.files.stamp();
        if stamp == current.stamp {
            return;
        }
        current.stamp = stamp;
        match self.files.read(self.protocol) {
            Ok(loaded) => {
                tracing::info!(files = ?self.files, "certificates were read again");
                current.loaded = loaded;
            }
            Err(error) => {
                tracing::warn!(%error, "changed certificates can't be used: the earlier ones stay");
            }
        }
    }
}

impl Files {
    fn all(&self) -> impl Iterator<Item = &Path> {
        let own = self.identity.iter();
        let own = own.flat_map(|own| [own.certificate.as_path(), own.key.as_path()]);
        std::iter::once(self.authorities.as_path()).chain(own)
    }

    fn stamp(&self) -> Stamp {
        let of = |path: &Path| {
            let about = std::fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len(), about.ino()))
        };
        self.all().map(of).collect()
    }

    fn read(&self, protocol: Option<&'static [u8]>) -> Result<Loaded, TlsError> {
        let provider = Arc::new(default_provider());
        let roots = Arc::new(roots(&self.authorities)?);
        let own = self.identity.as_ref().map(Identity::read).transpose()?;
        let server = match (&self.identity, &own) {
            (Some(files), Some((chain, key))) => {
                let own = (chain.clone(), key.clone_key());
                Some(Arc::new(self.server_of(files, own, &provider, &roots)?))
            }
            _ => None,
        };
        let mut client = self.client_of(own, provider, roots)?;
        client.alpn_protocols = protocol.iter().map(|name| name.to_vec()).collect();
        Ok(Loaded {
            server,
            client: Arc::new(client),
        })
    }

    fn server_of(
        &self,
        files: &Identity,
        (chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
        provider: &Arc<CryptoProvider>,
        roots: &Arc<RootCertStore>,
    ) -> Result<ServerConfig, TlsError> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
        let clients = clients.build().map_err(|error| self.authorities(error))?;
        ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                let builder = builder.with_client_cert_verifier(clients);
                builder.with_single_cert(chain, key)
            })
            .map_err(|error| files.refused(error))
    }

    fn client_of(
        &self,
        own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        provider: Arc<CryptoProvider>,
        roots: Arc<RootCertStore>,
    ) -> Result<ClientConfig, TlsError> {
        let refused = |error| match &self.identity {
            Some(files) => files.refused(error),
            None => TlsError::Certificate {
                path: self.authorities.clone(),
                error,
            },
        };
        let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let servers = servers.build().map_err(|error| self.authorities(error))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_webpki_verifier(servers);
        match own {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(refused),
            None => Ok(builder.with_no_client_auth()),
        }
    }

    fn authorities(&self, error: VerifierBuilderError) -> TlsError {
        TlsError::Authorities {
            path: self.authorities.clone(),
            error,
        }
    }
}

impl Identity {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| TlsError::File {
            path: self.key.clone(),
            error,
        })?;
        Ok((chain, key))
    }

    fn refused(&self, error: rustls::Error) -> TlsError {
        TlsError::Certificate {
            path: self.certificate.clone(),
            error,
        }
    }
}

/// The certificates of a file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| TlsError::File {
        path: path.to_owned(),
        error,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    match found.is_empty() {
        true => Err(TlsError::Empty(path.to_owned())),
        false => Ok(found),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Certificate {
                path: path.to_owned(),
                error,
            })?;
    }
    Ok(roots)
}
