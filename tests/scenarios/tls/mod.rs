//! TLS on every way: who is let in, who isn't, and that certificates are changed without a restart.

mod collector;
mod command_line;
mod everywhere;
mod mergers;
mod nodes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SerialNumber};
use serde_json::Value;
use tempfile::TempDir;
use weft_cluster::Deadline;

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Puts a certificate for this name or address, and its key, into a folder.
    pub(crate) fn issue(&self, folder: &Path, name: &str, serial: u64) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        put(&folder.join("tls.key"), &key.serialize_pem());
        put(&folder.join("tls.crt"), &certificate.pem());
    }
}

/// Moves a file to its place, as what distributes certificates does.
pub(crate) fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, path).unwrap();
}

/// The certificates of everybody, in a folder each: `tls.crt`, `tls.key`, `ca.pem`.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self, of: &str) -> PathBuf {
        self.0.path().join(of)
    }

    fn file(&self, of: &str, name: &str) -> String {
        self.folder(of).join(name).display().to_string()
    }

    /// Gives somebody a certificate for this name, and the authority to judge others by.
    fn give(&self, authority: &Authority, of: &str, name: &str, serial: u64) {
        authority.issue(&self.folder(of), name, serial);
        put(&self.folder(of).join("ca.pem"), &authority.pem);
    }

    /// What comes of a request to this port with the certificate of this owner.
    fn ask_as(&self, of: &str, port: u16, name: &str) -> Result<(u64, u64), String> {
        let own = (self.file(of, "tls.crt"), self.file(of, "tls.key"));
        ask(
            port,
            name,
            &self.file("client", "ca.pem"),
            Some((&own.0, &own.1)),
        )
    }
}

/// What comes of a request by TLS: the status and the number of the other side's certificate, or why there was none.
pub(crate) fn ask(
    port: u16,
    name: &str,
    authorities: &str,
    own: Option<(&str, &str)>,
) -> Result<(u64, u64), String> {
    let top = Path::new(TOP).canonicalize().unwrap();
    let mut command = Command::new(top.join(".venv/bin/python"));
    command.arg(top.join("tests/clients/tls.py"));
    command.arg(port.to_string()).args([authorities, name]);
    command.args(own.iter().flat_map(|(certificate, key)| [certificate, key]));
    let output = command.output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    match said["refused"].as_str() {
        Some(why) => Err(why.to_owned()),
        None => Ok((
            said["status"].as_u64().unwrap(),
            said["serial"].as_u64().unwrap(),
        )),
    }
}
