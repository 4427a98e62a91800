//! The certificates of this merger.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::ServeOptions;
use crate::tls::{Certificates, Files, Identity, TlsError, Way};

/// The certificates by which mergers, Envoys and collectors know each other.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// File with this merger's certificate and its intermediates (PEM). With it, the merger speaks TLS and nothing else, and lets in whoever has a certificate of `--tls-ca`.
    #[arg(
        long = "tls-cert",
        env = "WEFT_TLS_CERT",
        requires = "tls_key",
        requires = "tls_ca"
    )]
    pub tls_cert: Option<PathBuf>,
    /// File with the key to that certificate (PEM).
    #[arg(long = "tls-key", env = "WEFT_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// File with the authorities (PEM) by which the certificates of Envoys are judged, and that of a collector.
    #[arg(long = "tls-ca", env = "WEFT_TLS_CA", requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,
    #[arg(skip)]
    loaded: Option<Arc<Certificates>>,
}

/// Options for TLS that don't fit together.
#[derive(Debug, thiserror::Error)]
pub enum TlsOptionsError {
    /// A file can't be used.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// An address with TLS, and no certificate to show there.
    #[error("{0} https://… needs --tls-cert, --tls-key and --tls-ca")]
    NoCertificate(&'static str),
    /// Nothing to judge the collector's certificate by.
    #[error("--otlp-endpoint https://… needs --otlp-ca or --tls-ca")]
    NoAuthorities,
}

impl TlsArgs {
    /// What they name, once it has been loaded.
    pub fn certificates(&self) -> Option<Arc<Certificates>> {
        self.loaded.clone()
    }

    /// Their names, if there is a certificate of our own.
    pub fn files(&self) -> Option<Files> {
        Some(Files {
            authorities: self.tls_ca.clone()?,
            identity: self.identity(),
        })
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
        })
    }
}

impl ServeOptions {
    /// Reads the certificates, from then on as often as they change.
    ///
    /// # Errors
    /// A file can't be used, or is missing for an address with TLS.
    pub fn load_certificates(&mut self) -> Result<(), TlsOptionsError> {
        self.tls.loaded = self.tls.files().map(Certificates::load).transpose()?;
        for (option, address) in [
            ("--egress", self.egress.address()),
            ("--envoy-admin", Some(self.envoy_admin.as_str())),
        ] {
            if address.is_some_and(Way::is_encrypted) && self.tls.loaded.is_none() {
                return Err(TlsOptionsError::NoCertificate(option));
            }
        }
        self.otlp.certificates = match &self.otlp.endpoint {
            Some(endpoint) if endpoint.is_encrypted() => {
                let authorities = self
                    .otlp
                    .otlp_ca
                    .clone()
                    .or_else(|| self.tls.tls_ca.clone());
                let files = Files {
                    authorities: authorities.ok_or(TlsOptionsError::NoAuthorities)?,
                    identity: self.tls.identity(),
                };
                Some(Certificates::for_http2(files)?)
            }
            _ => None,
        };
        Ok(())
    }
}
