//! How etcd lets mergers in, and keeps others out.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use weft_merger::etcd::{EtcdClient, EtcdError, EtcdOptions, Secret};

use crate::members::{Members, Tls, free_ports, leader, on_runtime, until};

pub(crate) fn an_endpoint_that_is_gone_or_hangs_is_left_for_another() {
    let members = Members::one();
    on_runtime(async {
        let [gone] = free_ports();
        // It takes connections and says nothing.
        let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
        let hangs = hangs.local_addr().unwrap().port();
        let mut urls = vec![
            format!("http://127.0.0.1:{gone}"),
            format!("http://127.0.0.1:{hangs}"),
        ];
        urls.extend(members.urls());
        let begun = Instant::now();
        let etcd = crate::members::client(&urls).await;
        let (leadership, _store) = leader(&etcd).await;
        assert!(leadership.is_leader());
        assert!(begun.elapsed() < Duration::from_secs(8));
    });
}

fn denied(outcome: Result<(), EtcdError>) -> String {
    match outcome {
        Err(EtcdError::Denied(text)) => {
            assert!(!text.contains('\n'), "{text}");
            text
        }
        other => panic!("{other:?}"),
    }
}

/// As [`denied`], if etcd hangs up before its reason is read now and then.
async fn denied_at_last(check: impl AsyncFn() -> Result<(), EtcdError>) -> String {
    for _ in 0..20 {
        let outcome = check().await;
        if !matches!(outcome, Err(EtcdError::NoAnswer(_))) {
            return denied(outcome);
        }
    }
    panic!("etcd never said why");
}

async fn check(options: EtcdOptions) -> Result<(), EtcdError> {
    EtcdClient::new(options).check("/weft/leader").await
}

pub(crate) fn users_and_passwords() {
    let members = Members::one();
    on_runtime(async {
        members.client().await;
        let mut root = etcd_client::Client::connect(members.urls(), None)
            .await
            .unwrap();
        root.user_add("root", "topmost", None).await.unwrap();
        root.user_grant_role("root", "root").await.unwrap();
        root.role_add("weft").await.unwrap();
        let all = etcd_client::Permission::read_write("/weft/").with_prefix();
        root.role_grant_permission("weft", all).await.unwrap();
        root.user_add("weft", "hush", None).await.unwrap();
        root.user_grant_role("weft", "weft").await.unwrap();
        root.auth_enable().await.unwrap();
        let as_user = |user: Option<&str>, password: Option<&str>| {
            let options = EtcdOptions::at(&members.urls()).unwrap();
            let user = user.map(str::to_owned);
            check(options.with_user(user, password.map(Secret::new)).unwrap())
        };
        assert!(as_user(Some("weft"), Some("hush")).await.is_ok());
        let told = denied(as_user(Some("weft"), Some("wrong")).await);
        assert!(told.contains("authentication failed"), "{told}");
        denied(as_user(None, None).await);
        // Leads, commits, and steps down with these rights only; and goes on when its token is unknown all of a sudden.
        let options = EtcdOptions::at(&members.urls()).unwrap();
        let user = options.with_user(Some("weft".into()), Some(Secret::new("hush")));
        let etcd: std::sync::Arc<dyn weft_merger::etcd::Etcd> =
            std::sync::Arc::new(EtcdClient::new(user.unwrap()));
        let (leadership, store) = leader(&etcd).await;
        let put = || vec![weft_merger::store::Change::put("a", vec![1])];
        use weft_merger::store::Store;
        store.commit(put()).await.unwrap();
        let options = etcd_client::ConnectOptions::new().with_user("root", "topmost");
        let mut root = etcd_client::Client::connect(members.urls(), Some(options))
            .await
            .unwrap();
        root.user_change_password("weft", "hush").await.unwrap();
        store.commit(put()).await.unwrap();
        leadership.step_down().await;
        let left = weft_merger::etcd::get(&*etcd, "/weft/leader".into()).await;
        assert!(left.unwrap().is_none());
    });
}

/// Who signs, and the files that are made.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> (Self, PathBuf) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, own.pem()).unwrap();
        let authority = Self {
            issuer: Issuer::new(params, key),
            folder: folder.to_owned(),
        };
        (authority, file)
    }

    /// Certificate and key, for both sides of a connection to this machine.
    fn sign(&self, name: &str, has_expired: bool) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = match has_expired {
            true => date_time_ymd(2021, 1, 1),
            false => date_time_ymd(2100, 1, 1),
        };
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let file = |what: &str, text: String| {
            let file = self.folder.join(format!("{name}-{what}.pem"));
            std::fs::write(&file, text).unwrap();
            file
        };
        (
            file("certificate", signed.pem()),
            file("key", key.serialize_pem()),
        )
    }
}

pub(crate) fn certificates() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, ca) = Authority::new(folder.path(), "ours");
    let (others, other_ca) = Authority::new(folder.path(), "others");
    let (certificate, key) = ours.sign("server", false);
    let late = ours.sign("late-server", true);
    let server = |certificate, key| {
        Members::with_tls(Tls {
            ca: &ca,
            certificate,
            key,
        })
    };
    let members = server(&certificate, &key);
    let good = ours.sign("client", false);
    on_runtime(async {
        let with = |members: &Members, ca: &Path, own: Option<&(PathBuf, PathBuf)>| {
            let options = EtcdOptions::at(&members.urls()).unwrap();
            let own = own.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            let own = (own.map(|own| own.0), own.map(|own| own.1));
            check(options.with_tls(Some(ca), own).unwrap())
        };
        until("etcd answers", async || {
            with(&members, &ca, Some(&good)).await.is_ok()
        })
        .await;
        let told = denied(with(&members, &other_ca, Some(&good)).await);
        assert!(told.contains("UnknownIssuer"), "{told}");
        let expired = ours.sign("late", true);
        let foreign = others.sign("foreign", false);
        for own in [Some(&expired), Some(&foreign), None] {
            denied_at_last(async || with(&members, &ca, own).await).await;
        }
        let late = server(&late.0, &late.1);
        let told = denied(with(&late, &ca, Some(&good)).await);
        assert!(
            told.contains("expired") || told.contains("Expired"),
            "{told}"
        );
    });
}
