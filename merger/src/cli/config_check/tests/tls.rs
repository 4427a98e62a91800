//! Ways that are encrypted at one end only, and certificates that can't be used.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::tls::{Files, Identity};

#[derive(Debug, clap::Parser)]
struct Command {
    #[command(flatten)]
    envoy: config_envoy::EnvoyArgs,
}

/// Certificates of everybody, in a folder, by one authority.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        let now = OffsetDateTime::now_utc();
        scene.issue(now + Duration::days(365));
        scene
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn issue(&self, until: OffsetDateTime) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(self.path("ca.pem"), pem).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["weft.example".to_owned()]).unwrap();
        params.not_before = until - Duration::days(400);
        params.not_after = until;
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(self.path("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(self.path("tls.crt"), certificate.pem()).unwrap();
    }

    /// What `weft config envoy` prints with these options; `to-mergers` stands for the three that every way to a merger needs.
    fn printed(&self, options: &str) -> String {
        let three = |to: &str| {
            let (ca, certificate, key) = (
                self.path("ca.pem"),
                self.path("tls.crt"),
                self.path("tls.key"),
            );
            format!("--tls-{to}-ca {ca} --tls-{to}-cert {certificate} --tls-{to}-key {key}")
        };
        let all = format!("--sds-dir {} {options}", self.path("sds"))
            .replace("to-mergers", &three("mergers"))
            .replace("to-nodes", &three("nodes"));
        let words = std::iter::once("weft").chain(all.split_whitespace());
        let arguments = <Command as clap::Parser>::try_parse_from(words).unwrap();
        config_envoy::run(&arguments.envoy).unwrap()
    }

    fn own(&self) -> Files {
        Files {
            authorities: self.path("ca.pem").into(),
            identity: Some(Identity {
                certificate: self.path("tls.crt").into(),
                key: self.path("tls.key").into(),
            }),
        }
    }

    /// What is wrong with the certificates that a file names; each with the text of its line.
    fn said(&self, text: &str, own: Option<&Files>) -> Vec<(String, String)> {
        let mut report = Report::default();
        secrets::check(text, own, OffsetDateTime::now_utc(), &mut report);
        with_lines(text, &report, self.0.path())
    }
}

fn with_lines(text: &str, report: &Report, folder: &Path) -> Vec<(String, String)> {
    let line = |number: usize| match number.checked_sub(1) {
        Some(before) => text.lines().nth(before).unwrap_or("").trim().to_owned(),
        None => "options".to_owned(),
    };
    let folder = format!("{}/", folder.display());
    let findings = report.findings.iter();
    findings
        .map(|one| (line(one.line), one.text.replace(&folder, "")))
        .collect()
}

fn encrypted() -> Merger {
    Merger {
        encrypted: true,
        ..merger()
    }
}

#[test]
fn what_weft_prints_with_tls_is_sound_to_it() {
    let scene = Scene::new();
    let to_egress = Merger {
        egress_encrypted: true,
        admin_encrypted: true,
        admin: "7702".to_owned(),
        ..encrypted()
    };
    for (options, merger) in [
        ("to-mergers", encrypted()),
        ("to-mergers to-nodes --shards 2 --replicas 2", encrypted()),
        ("to-nodes", merger()),
        ("to-mergers --tls-egress", to_egress),
        (
            "to-mergers --several-mergers --other-merger 10.0.0.2:7703",
            encrypted(),
        ),
    ] {
        let text = scene.printed(options);
        let report = check(&text, &merger);
        assert!(
            report.findings.is_empty(),
            "{options}: {:?}",
            report.findings
        );
        assert!(text.contains("transport_socket"), "{options}");
        let said = scene.said(&text, Some(&scene.own()));
        assert!(said.is_empty(), "{options}: {said:?}");
    }
}

#[test]
fn a_way_that_is_encrypted_at_one_end_only_is_a_mistake() {
    let scene = Scene::new();
    let to_egress = Merger {
        egress_encrypted: true,
        ..encrypted()
    };
    let on_socket = Merger {
        listen: vec!["unix:/run/weft/merger.sock".to_owned()],
        egress: "unix:/run/weft/egress.sock".to_owned(),
        ..encrypted()
    };
    for (options, merger, line, says) in [
        (
            "to-mergers",
            merger(),
            "- name: merger",
            "but the merger has no --tls-cert and speaks plain HTTP",
        ),
        (
            "",
            encrypted(),
            "- name: merger",
            "speaks TLS only: weft config envoy --tls-mergers-ca",
        ),
        (
            "--shards 1",
            encrypted(),
            "health_check_config: { hostname: shard-0-node-0, address: { socket_address: { address: \"127.0.0.1\", port_value: 7703 } } }",
            "readiness is asked of the merger plainly",
        ),
        (
            "to-mergers --tls-egress",
            encrypted(),
            "- name: egress",
            "but the merger's --egress isn't https://HOST:PORT",
        ),
        (
            "to-mergers",
            to_egress,
            "- name: egress",
            "but the egress listener speaks plain HTTP: weft config envoy --tls-egress",
        ),
    ] {
        let text = scene.printed(options);
        let found = with_lines(&text, &check(&text, &merger), scene.0.path());
        let is_it = |(at, text): &(String, String)| at == line && text.contains(says);
        assert!(found.iter().any(is_it), "{options}: {says}: {found:#?}");
    }
    // On a socket the merger speaks plain HTTP, whatever certificate it has.
    let text = scene.printed("--sockets /run/weft");
    assert!(check(&text, &on_socket).findings.is_empty());
    let elsewhere = text.replace("/run/weft/merger.sock", "/run/other/merger.sock");
    let found = with_lines(&elsewhere, &check(&elsewhere, &on_socket), scene.0.path());
    for says in [
        "the merger is expected at unix:/run/other/merger.sock, but its --listen says unix:/run/weft/merger.sock",
        "readiness is asked at unix:/run/other/merger.sock, where no listener of this file is, and the merger's --listen says unix:/run/weft/merger.sock",
    ] {
        assert!(found.iter().any(|(_, text)| text == says), "{found:#?}");
    }
    // Neither end may forget to show a certificate, or to ask for one.
    let text = scene.printed("to-mergers --tls-egress");
    for (from, to, says) in [
        (
            "require_client_certificate: true",
            "require_client_certificate: false",
            "who reaches it reaches every node",
        ),
        (
            "            tls_certificate_sds_secret_configs: [",
            "            forgotten: [",
            "is shown no certificate",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let text = text.replace(from, to);
        let merger = Merger {
            egress_encrypted: true,
            admin_encrypted: true,
            ..encrypted()
        };
        let found = with_lines(&text, &check(&text, &merger), scene.0.path());
        assert!(
            found.iter().any(|(_, text)| text.contains(says)),
            "{says}: {found:#?}"
        );
    }
}

#[test]
fn certificates_that_cannot_be_used_are_named_where_the_file_names_them() {
    let scene = Scene::new();
    let text = scene.printed("to-mergers");
    let at = "tls_certificate_sds_secret_configs: [";
    let expect = |line: &str, says: &str| {
        let found = scene.said(&text, Some(&scene.own()));
        for place in [line, "options"] {
            let is_it =
                |(at, text): &(String, String)| at.starts_with(place) && text.contains(says);
            assert!(found.iter().any(is_it), "{place}: {says}: {found:#?}");
        }
    };
    let (key, certificate) = (
        std::fs::read_to_string(scene.path("tls.key")).unwrap(),
        std::fs::read_to_string(scene.path("tls.crt")).unwrap(),
    );
    std::fs::write(
        scene.path("tls.key"),
        KeyPair::generate().unwrap().serialize_pem(),
    )
    .unwrap();
    expect(
        at,
        "the key in tls.key doesn't belong to the certificate in tls.crt",
    );
    std::fs::remove_file(scene.path("tls.key")).unwrap();
    expect(at, "tls.key: ");
    std::fs::write(scene.path("tls.key"), key).unwrap();
    std::fs::write(scene.path("tls.crt"), "nothing").unwrap();
    expect(at, "tls.crt holds no certificate in PEM");
    std::fs::write(scene.path("tls.crt"), certificate).unwrap();
    assert!(scene.said(&text, Some(&scene.own())).is_empty());
    std::fs::remove_file(scene.path("ca.pem")).unwrap();
    expect("validation_context_sds_secret_config: ", "ca.pem: ");

    let now = OffsetDateTime::now_utc();
    scene.issue(now - Duration::days(1));
    expect(at, "the certificate in tls.crt has expired at ");
    scene.issue(now + Duration::days(1));
    expect(at, "the certificate in tls.crt expires at ");
    let mut report = Report::default();
    secrets::check(&text, Some(&scene.own()), now, &mut report);
    assert!(report.is_sound(), "it can still be used");

    // The files that lead to them.
    scene.issue(now + Duration::days(365));
    let secret = scene.path("sds/mergers.json");
    let secrets = std::fs::read_to_string(&secret).unwrap();
    std::fs::write(&secret, secrets.replace("\"mergers\"", "\"merger\"")).unwrap();
    let found = scene.said(&text, None);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].1, "sds/mergers.json has no secret `mergers`");
    std::fs::remove_file(&secret).unwrap();
    let found = scene.said(&text, None);
    assert!(
        found[0].1.starts_with("sds/mergers.json, which names"),
        "{found:#?}"
    );
}
