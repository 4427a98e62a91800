//! What is wrong with certificates in files, before somebody uses them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, CertificateError, RootCertStore};

use super::{Identity, TlsError, certificates};

/// How long before its end a certificate is worth a word.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What is wrong with a file, or soon will be.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// A file can't be used.
    #[error(transparent)]
    Unusable(#[from] TlsError),
    /// A certificate and a key that don't belong together.
    #[error("the key in {} doesn't belong to the certificate in {}", key.display(), certificate.display())]
    OtherKey {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// A certificate whose time is over.
    #[error("the certificate in {} has expired at {until}", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        until: String,
    },
    /// A certificate whose time hasn't come.
    #[error("the certificate in {} is valid from {from} on only", path.display())]
    NotYet {
        /// The file.
        path: PathBuf,
        /// From when on.
        from: String,
    },
    /// A certificate that can still be used.
    #[error("the certificate in {} expires at {until}", path.display())]
    Soon {
        /// The file.
        path: PathBuf,
        /// When.
        until: String,
    },
}

impl Flaw {
    /// Whether connections fail because of it now.
    pub fn is_grave(&self) -> bool {
        !matches!(self, Self::Soon { .. })
    }
}

/// A certificate, its intermediates and its key.
pub fn judge_identity(identity: &Identity, now: OffsetDateTime) -> Vec<Flaw> {
    let (chain, key) = match identity.read() {
        Ok(read) => read,
        Err(error) => return vec![error.into()],
    };
    let mut flaws: Vec<Flaw> = chain
        .iter()
        .filter_map(|one| times(one, &identity.certificate, now))
        .collect();
    match CertifiedKey::from_der(chain, key, &default_provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => flaws.push(Flaw::OtherKey {
            key: identity.key.clone(),
            certificate: identity.certificate.clone(),
        }),
        Err(error) => flaws.push(identity.refused(error).into()),
    }
    flaws
}

/// Authorities, of which one is enough that can still be used.
pub fn judge_authorities(path: &Path, now: OffsetDateTime) -> Vec<Flaw> {
    let all = match certificates(path) {
        Ok(all) => all,
        Err(error) => return vec![error.into()],
    };
    let mut flaws: Vec<Flaw> = all.iter().filter_map(|one| times(one, path, now)).collect();
    let grave = flaws.iter().filter(|flaw| flaw.is_grave()).count();
    // While authorities are replaced, the earlier one stays for a while, and then expires.
    if grave < all.len() {
        flaws.retain(|flaw| !flaw.is_grave());
    }
    flaws
}

/// What is wrong with a certificate's times. Whoever verifies it looks at them first, whoever has signed it.
fn times(certificate: &CertificateDer<'_>, path: &Path, now: OffsetDateTime) -> Option<Flaw> {
    let path = path.to_owned();
    let at = |now: OffsetDateTime| complaint(certificate, now);
    match at(now) {
        Ok(()) => match at(now + SOON) {
            Err(CertificateError::ExpiredContext { not_after, .. }) => Some(Flaw::Soon {
                path,
                until: written(not_after),
            }),
            _ => None,
        },
        Err(CertificateError::ExpiredContext { not_after, .. }) => Some(Flaw::Expired {
            path,
            until: written(not_after),
        }),
        Err(CertificateError::NotValidYetContext { not_before, .. }) => Some(Flaw::NotYet {
            path,
            from: written(not_before),
        }),
        Err(CertificateError::BadEncoding) => {
            let error = rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
            Some(TlsError::Certificate { path, error }.into())
        }
        // Who has signed it, and for which name, isn't asked here.
        Err(_) => None,
    }
}

fn complaint(
    certificate: &CertificateDer<'_>,
    now: OffsetDateTime,
) -> Result<(), CertificateError> {
    let mut roots = RootCertStore::empty();
    let bad = |_| CertificateError::BadEncoding;
    roots.add(certificate.clone().into_owned()).map_err(bad)?;
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier
        .build()
        .map_err(|_| CertificateError::BadEncoding)?;
    let name = ServerName::try_from("weft.invalid").map_err(|_| CertificateError::BadEncoding)?;
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    match verifier.verify_server_cert(certificate, &[], &name, &[], now) {
        Err(rustls::Error::InvalidCertificate(
            why @ (CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::BadEncoding),
        )) => Err(why),
        _ => Ok(()),
    }
}

fn written(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    let text = time.and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{seconds} s after 1970"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-06-01 00:00 UTC);

    fn certificate(from: OffsetDateTime, until: OffsetDateTime) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (from, until);
        let pem = params.self_signed(&key).unwrap().pem();
        (pem, key.serialize_pem())
    }

    struct Here(TempDir);

    impl Here {
        fn with(files: &[(&str, &str)]) -> Self {
            let here = Self(tempfile::tempdir().unwrap());
            for (name, text) in files {
                std::fs::write(here.0.path().join(name), text).unwrap();
            }
            here
        }

        fn said(&self, flaws: &[Flaw]) -> Vec<String> {
            let folder = format!("{}/", self.0.path().display());
            let texts = flaws
                .iter()
                .map(|flaw| flaw.to_string().replace(&folder, ""));
            texts.collect()
        }

        fn identity(&self) -> Vec<String> {
            let identity = Identity {
                certificate: self.0.path().join("c.pem"),
                key: self.0.path().join("k.pem"),
            };
            self.said(&judge_identity(&identity, NOW))
        }

        fn authorities(&self) -> Vec<String> {
            self.said(&judge_authorities(&self.0.path().join("ca.pem"), NOW))
        }
    }

    #[test]
    fn a_certificate_is_judged_with_its_key_and_its_time() {
        let year = time::Duration::days(365);
        let (good, key) = certificate(NOW - year, NOW + year);
        let (_, other) = certificate(NOW - year, NOW + year);
        assert_eq!(
            Here::with(&[("c.pem", &good), ("k.pem", &key)]).identity(),
            Vec::<String>::new()
        );
        assert_eq!(
            Here::with(&[("c.pem", &good), ("k.pem", &other)]).identity(),
            ["the key in k.pem doesn't belong to the certificate in c.pem"]
        );
        let day = time::Duration::days(1);
        for (from, until, says) in [
            (NOW - year, NOW - day, "has expired at 2026-05-31T00:00:00Z"),
            (
                NOW + day,
                NOW + year,
                "is valid from 2026-06-02T00:00:00Z on only",
            ),
            (NOW - year, NOW + day, "expires at 2026-06-02T00:00:00Z"),
        ] {
            let (pem, key) = certificate(from, until);
            let here = Here::with(&[("c.pem", &pem), ("k.pem", &key)]);
            assert_eq!(
                here.identity(),
                [format!("the certificate in c.pem {says}")]
            );
        }
        for files in [
            &[("c.pem", good.as_str())][..],
            &[("k.pem", key.as_str())],
            &[("c.pem", "no PEM"), ("k.pem", key.as_str())],
        ] {
            let said = Here::with(files).identity();
            assert_eq!(said.len(), 1, "{said:?}");
        }
    }

    #[test]
    fn one_authority_that_can_be_used_is_enough() {
        let year = time::Duration::days(365);
        let (good, _) = certificate(NOW - year, NOW + year);
        let (old, _) = certificate(NOW - year, NOW - time::Duration::days(1));
        let both = format!("{old}{good}");
        assert_eq!(
            Here::with(&[("ca.pem", &both)]).authorities(),
            Vec::<String>::new()
        );
        let said = Here::with(&[("ca.pem", &old)]).authorities();
        assert!(said[0].contains("has expired"), "{said:?}");
        assert_eq!(Here::with(&[]).authorities().len(), 1);
    }
}
