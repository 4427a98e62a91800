//! The command line with a private authority, for the cluster and for the source of an import.

use std::process::Command;

use weft_cluster::{Api, Binaries, Cluster, until};

use super::{Authority, Certificates, soon};
use crate::support::documents;

/// The exit code of a command that got no answer.
const NO_ANSWER: i32 = 3;

/// Runs `weft`: the exit code, and what was said.
fn weft(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(Binaries::find().unwrap().weft);
    let output = command.args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code().unwrap(), said)
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named_and_nowhere_else() {
    let [ours, foreign] = ["ours", "foreign"].map(Authority::new);
    let certificates = Certificates::new();
    certificates.give(&ours, "edge", "127.0.0.1", 1);
    certificates.give(&ours, "operator", "127.0.0.1", 2);
    certificates.give(&foreign, "foreign", "127.0.0.1", 3);
    let options = [
        ("--tls-cert", certificates.file("edge", "tls.crt")),
        ("--tls-key", certificates.file("edge", "tls.key")),
        ("--tls-clients-ca", certificates.file("edge", "ca.pem")),
        ("--sds-dir", certificates.file("sds", "")),
    ];
    let cluster = Cluster::builder()
        .shards(1)
        .envoy_args(
            options
                .into_iter()
                .flat_map(|(name, value)| [name.to_owned(), value]),
        )
        .launch()
        .unwrap();
    let url = format!("https://127.0.0.1:{}", cluster.layout().edge());
    let file = |of: &str, name: &str| certificates.file(of, name);
    let (ca, other) = (file("operator", "ca.pem"), file("foreign", "ca.pem"));
    let (own, key) = (file("operator", "tls.crt"), file("operator", "tls.key"));
    let as_operator = [
        "--ca-file",
        &ca,
        "--cert-file",
        &own,
        "--cert-key-file",
        &key,
    ];
    let status = |more: &[&str]| weft(&[&["status", "--url", url.as_str()][..], more].concat());
    let well = || async {
        match status(&as_operator) {
            (0, _) => Ok(()),
            (code, said) => Err(format!("{code}: {said}")),
        }
    };
    until("a cluster that is well", soon(), well).await.unwrap();
    // The public authorities, another one, or no certificate of our own.
    assert_eq!(status(&[]).0, NO_ANSWER);
    assert_eq!(status(&["--ca-file", &ca]).0, NO_ANSWER);
    let doubtful = [
        "--ca-file",
        &other,
        "--cert-file",
        &own,
        "--cert-key-file",
        &key,
    ];
    assert_eq!(status(&doubtful).0, NO_ANSWER);
    let (code, said) = status(&["--ca-file", "/nowhere/ca.pem"]);
    assert!(
        code == 2 && said.contains("/nowhere/ca.pem"),
        "{code}: {said}"
    );

    // An import from a source whose authority is private.
    let source = Certificates::new();
    source.give(&ours, "edge", "127.0.0.1", 4);
    let options = [
        ("--tls-cert", source.file("edge", "tls.crt")),
        ("--tls-key", source.file("edge", "tls.key")),
        ("--sds-dir", source.file("sds", "")),
    ];
    let old = Cluster::builder()
        .shards(1)
        .envoy_args(
            options
                .into_iter()
                .flat_map(|(name, value)| [name.to_owned(), value]),
        )
        .launch()
        .unwrap();
    let merger = Api::new(old.merger_url(), None);
    let written = || async {
        let path = "/indexes/x/documents?primaryKey=id";
        let accepted = merger.post(path, &documents(0..50)).await;
        let accepted = accepted.map_err(|error| error.line())?;
        match accepted.status == 202 {
            true => Ok(accepted),
            false => Err(accepted.text),
        }
    };
    let accepted = until("a write", soon(), written).await.unwrap();
    merger.succeed(&accepted).await.unwrap();
    let from = format!("https://127.0.0.1:{}", old.layout().edge());
    let journal = file("operator", "journal.json");
    let import = [
        "import",
        from.as_str(),
        "--url",
        url.as_str(),
        "--journal",
        &journal,
    ];
    let import = [&import[..], &as_operator].concat();
    let trusting = [&import[..], &["--source-ca-file", &ca]].concat();
    let (code, said) = weft(&trusting);
    assert_eq!(code, 0, "{said}");
    let (code, said) = weft(&[&["indexes", "--url", url.as_str()][..], &as_operator].concat());
    assert!(code == 0 && said.contains("50"), "{code}: {said}");
    let mistrusting = [
        &import[..],
        &["--source-ca-file", &other, "--into-existing"],
    ]
    .concat();
    assert_ne!(weft(&mistrusting).0, 0);
}
