//! The mesh's certificates: one for each service account, as Istio's agents hold them.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
};
use serde_json::{Value, json};

use super::manifests::NAMESPACE;

/// A folder with the certificates of some service accounts.
#[derive(Debug)]
pub(super) struct Identities(tempfile::TempDir);

impl Identities {
    /// Makes an authority, and a certificate for each of these accounts.
    pub(super) fn of(accounts: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority
            .distinguished_name
            .push(DnType::OrganizationName, "cluster.local");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(authority, key);
        for account in accounts {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            let name = format!("spiffe://{}", principal(account));
            // As Istio's: nothing but the URI says who it is.
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(name).unwrap())];
            let chain = params.signed_by(&key, &issuer).unwrap().pem();
            let identities = Self::secret(
                "default",
                "tls_certificate",
                json!({
                    "certificate_chain": {"inline_string": chain},
                    "private_key": {"inline_string": key.serialize_pem()},
                }),
            );
            let trusted = json!({"trusted_ca": {"inline_string": root}});
            let roots = Self::secret("ROOTCA", "validation_context", trusted);
            let place = folder.path().join(account);
            fs::create_dir(&place).unwrap();
            fs::write(place.join("default.json"), identities).unwrap();
            fs::write(place.join("ROOTCA.json"), roots).unwrap();
        }
        Self(folder)
    }

    /// A secret as Envoy reads it from a file.
    fn secret(name: &str, kind: &str, value: Value) -> String {
        let secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
        json!({"resources": [{"@type": secret, "name": name, kind: value}]}).to_string()
    }

    /// Where an account's secret of this name is.
    fn file(&self, account: &str, name: &str) -> PathBuf {
        self.0.path().join(account).join(format!("{name}.json"))
    }

    /// The reference to a secret of this account, in the place of the one to Istio's agent.
    pub(super) fn source(&self, account: &str, name: &str) -> Value {
        let file = self.file(account, name);
        json!({"name": name, "sds_config": Self::config(&file)})
    }

    /// The source of a file's secret.
    fn config(file: &Path) -> Value {
        json!({"resource_api_version": "V3", "path_config_source": {"path": file.display().to_string()}})
    }

    /// Replaces each source that is Istio's agent by this account's files. Says how many there were.
    pub(super) fn fill_in(&self, account: &str, value: &mut Value) -> usize {
        match value {
            Value::Object(members) => {
                let cluster =
                    "/sds_config/api_config_source/grpc_services/0/envoy_grpc/cluster_name";
                let name = members
                    .get("name")
                    .and_then(Value::as_str)
                    .map(str::to_owned);
                if let Some(name) = name
                    && members.contains_key("sds_config")
                {
                    let whole = Value::Object(members.clone());
                    if whole.pointer("/sds_config/path_config_source").is_some() {
                        return 0;
                    }
                    assert_eq!(whole.pointer(cluster), Some(&json!("sds-grpc")), "{whole}");
                    assert!(["default", "ROOTCA"].contains(&name.as_str()), "{name}");
                    *value = self.source(account, &name);
                    return 1;
                }
                members
                    .values_mut()
                    .map(|one| self.fill_in(account, one))
                    .sum()
            }
            Value::Array(values) => values
                .iter_mut()
                .map(|one| self.fill_in(account, one))
                .sum(),
            _ => 0,
        }
    }

    /// What istiod adds where an address is reached with this account's certificate: `default`, the roots, and who it may be.
    pub(super) fn upstream(&self, account: &str, peer: Option<&str>) -> Value {
        let mut trust = json!({"validation_context_sds_secret_config": self.source(account, "ROOTCA"), "default_validation_context": {}});
        if let Some(peer) = peer {
            let exact = format!("spiffe://{}", principal(peer));
            trust["default_validation_context"] = json!({"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": exact}}]});
        }
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {
                    "tls_certificate_sds_secret_configs": [self.source(account, "default")],
                    "combined_validation_context": trust,
                },
            },
        })
    }

    /// What a sidecar asks of who comes in, where mTLS is STRICT.
    pub(super) fn downstream(&self, account: &str) -> Value {
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": {
                    "alpn_protocols": ["istio-peer-exchange", "h2", "http/1.1"],
                    "tls_certificate_sds_secret_configs": [self.source(account, "default")],
                    "validation_context_sds_secret_config": self.source(account, "ROOTCA"),
                },
            },
        })
    }
}

/// An account's name in the mesh.
pub(super) fn principal(account: &str) -> String {
    format!("cluster.local/ns/{NAMESPACE}/sa/{account}")
}
