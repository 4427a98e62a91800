//! Where etcd is, and how it lets this merger in: judged before anything connects.

use std::path::{Path, PathBuf};

use etcd_client::{Certificate, Identity, TlsOptions};

/// A text that isn't printed.
#[derive(Clone)]
pub struct Secret(pub(super) String);

impl Secret {
    /// Keeps a text from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// Where etcd is, and how it lets this merger in.
#[derive(Clone)]
pub struct EtcdOptions {
    pub(super) endpoints: Vec<String>,
    pub(super) tls: Option<TlsOptions>,
    pub(super) user: Option<(String, Secret)>,
}

impl std::fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the password nor the key of the certificate.
        f.debug_tuple("EtcdOptions").field(&self.endpoints).finish()
    }
}

/// Options for etcd that don't fit together, or a file that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// An endpoint isn't a URL.
    #[error("`{0}` is no endpoint of etcd: it begins with http:// or https://, and a host follows")]
    Endpoint(String),
    /// Some endpoints have TLS and others don't.
    #[error("either all endpoints of etcd begin with https://, or none does")]
    Mixed,
    /// There is nothing to judge etcd's certificate by.
    #[error("https:// endpoints need --etcd-ca, the certificates that etcd's own is judged by")]
    NoCa,
    /// Certificates where there is no TLS.
    #[error("--etcd-ca and --etcd-cert need endpoints that begin with https://")]
    NoTls,
    /// A certificate without a key, or the other way round.
    #[error("--etcd-cert and --etcd-key go together")]
    HalfIdentity,
    /// A user without a password, or the other way round.
    #[error("--etcd-user and a password (--etcd-password-file or WEFT_ETCD_PASSWORD) go together")]
    HalfUser,
    /// A file can't be read.
    #[error("{path} can't be read: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// A file isn't what it should be.
    #[error("{path} holds no {what} in PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
}

impl EtcdOptions {
    /// Etcd at these URLs, without TLS and users.
    ///
    /// # Errors
    /// A URL is wrong.
    pub fn at(endpoints: &[String]) -> Result<Self, OptionsError> {
        for endpoint in endpoints {
            let url = url::Url::parse(endpoint).ok();
            let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            url.ok_or_else(|| OptionsError::Endpoint(endpoint.clone()))?;
        }
        let endpoints = endpoints.to_vec();
        let with_tls = endpoints.iter().filter(|url| url.starts_with("https"));
        match with_tls.count() {
            0 => {}
            all if all == endpoints.len() => {}
            _ => return Err(OptionsError::Mixed),
        }
        Ok(Self {
            endpoints,
            tls: None,
            user: None,
        })
    }

    /// With TLS, if the endpoints say so.
    ///
    /// # Errors
    /// What is given doesn't fit the endpoints, or a file can't be read.
    pub fn with_tls(
        mut self,
        ca: Option<&Path>,
        identity: (Option<&Path>, Option<&Path>),
    ) -> Result<Self, OptionsError> {
        let is_tls = self.endpoints.iter().any(|url| url.starts_with("https"));
        let ca = match (is_tls, ca, identity) {
            (true, Some(ca), _) => ca,
            (true, None, _) => return Err(OptionsError::NoCa),
            (false, None, (None, None)) => return Ok(self),
            (false, ..) => return Err(OptionsError::NoTls),
        };
        let ca = Certificate::from_pem(pem(ca, "CERTIFICATE", "certificate")?);
        let mut tls = TlsOptions::new().ca_certificate(ca);
        match identity {
            (None, None) => {}
            (Some(certificate), Some(key)) => {
                let certificate = pem(certificate, "CERTIFICATE", "certificate")?;
                let key = pem(key, "PRIVATE KEY", "private key")?;
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            _ => return Err(OptionsError::HalfIdentity),
        }
        self.tls = Some(tls);
        Ok(self)
    }

    /// As this user.
    ///
    /// # Errors
    /// There is one of the two only.
    pub fn with_user(
        mut self,
        user: Option<String>,
        password: Option<Secret>,
    ) -> Result<Self, OptionsError> {
        self.user = match (user, password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user, password)),
            _ => return Err(OptionsError::HalfUser),
        };
        Ok(self)
    }
}

/// Reads a secret or a certificate.
///
/// # Errors
/// The file can't be read.
pub(crate) fn read_file(path: &Path) -> Result<String, OptionsError> {
    std::fs::read_to_string(path).map_err(|error| OptionsError::File {
        path: path.to_owned(),
        error,
    })
}

fn pem(path: &Path, label: &str, what: &'static str) -> Result<String, OptionsError> {
    let text = read_file(path)?;
    let mut lines = text.lines();
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.contains(label);
    match lines.any(begins) {
        true => Ok(text),
        false => Err(OptionsError::Pem {
            path: path.to_owned(),
            what,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(outcome: Result<EtcdOptions, OptionsError>) -> String {
        outcome.map(drop).unwrap_err().to_string()
    }

    fn at(endpoints: &[&str]) -> Result<EtcdOptions, OptionsError> {
        let endpoints: Vec<String> = endpoints.iter().map(|url| (*url).to_owned()).collect();
        EtcdOptions::at(&endpoints)
    }

    #[test]
    fn options_that_do_not_fit_together_are_refused_with_what_to_do() {
        for bad in ["etcd:2379", "ftp://etcd", "http://", ""] {
            assert!(refusal(at(&[bad])).contains("is no endpoint"), "{bad}");
        }
        assert!(refusal(at(&["http://a", "https://b"])).contains("either all"));
        let file = Path::new("/nowhere/ca.pem");
        let tls = |url, ca, identity| at(&[url]).unwrap().with_tls(ca, identity);
        let none = (None, None);
        assert!(refusal(tls("https://a", None, none)).contains("--etcd-ca"));
        assert!(refusal(tls("http://a", Some(file), none)).contains("https://"));
        assert!(refusal(tls("https://a", Some(file), none)).contains("/nowhere/ca.pem"));
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("ca.pem");
        std::fs::write(&empty, "nothing").unwrap();
        assert!(refusal(tls("https://a", Some(&empty), none)).contains("no certificate"));
        std::fs::write(&empty, "-----BEGIN CERTIFICATE-----\n").unwrap();
        let half = (Some(empty.as_path()), None);
        assert!(refusal(tls("https://a", Some(&empty), half)).contains("go together"));
        let user = at(&["http://a"])
            .unwrap()
            .with_user(Some("weft".into()), None);
        assert!(refusal(user).contains("go together"));
    }

    #[test]
    fn a_password_is_never_printed() {
        let options = at(&["http://a"]).unwrap();
        let user = options.with_user(Some("weft".into()), Some(Secret::new("hush")));
        assert!(!format!("{:?}", user.unwrap()).contains("hush"));
    }
}
