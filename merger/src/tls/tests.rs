//! Tests of certificates: over real connections, with files that change meanwhile.

use std::net::SocketAddr;

use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }
}

/// A folder with the files of somebody whose certificate this authority has signed.
struct Folder(TempDir);

impl Folder {
    fn of(authority: &Authority) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.trust(&[authority]);
        folder.issue(authority);
        folder
    }

    fn trust(&self, authorities: &[&Authority]) {
        let all: String = authorities.iter().map(|one| one.pem.as_str()).collect();
        std::fs::write(self.files().authorities, all).unwrap();
    }

    fn issue(&self, authority: &Authority) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let own = self.files().identity.unwrap();
        std::fs::write(own.key, key.serialize_pem()).unwrap();
        std::fs::write(own.certificate, certificate.pem()).unwrap();
    }

    fn files(&self) -> Files {
        let file = |name: &str| self.0.path().join(name);
        Files {
            authorities: file("ca.pem"),
            identity: Some(Identity {
                certificate: file("tls.crt"),
                key: file("tls.key"),
            }),
        }
    }

    fn certificates(&self) -> Arc<Certificates> {
        Certificates::load(self.files()).unwrap()
    }
}

/// Looks at the files at the next question, as after a while.
fn let_look(certificates: &Certificates) {
    let mut current = certificates.current.lock().unwrap();
    current.looked = current.looked.checked_sub(LOOK_EVERY).unwrap();
}

/// Says `ok` to everybody who is let in.
async fn serve(certificates: Arc<Certificates>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(certificates.server().unwrap());
            if let Ok(mut stream) = acceptor.accept(stream).await {
                stream.write_all(b"ok").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    address
}

/// What a client with these certificates is told.
async fn ask(server: SocketAddr, certificates: &Certificates) -> Option<String> {
    let stream = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let uri = format!("https://{server}/").parse().unwrap();
    let stream = secure(stream, &uri, certificates).await.ok()?;
    let mut said = String::new();
    let read = TokioIo::new(stream).read_to_string(&mut said).await;
    read.ok().map(|_| said)
}

#[tokio::test]
async fn whoever_has_no_certificate_of_the_authority_is_refused_on_both_sides() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let server = Folder::of(&ours);
    let address = serve(server.certificates()).await;
    let client = Folder::of(&ours);
    assert_eq!(
        ask(address, &client.certificates()).await,
        Some("ok".into())
    );
    // It trusts the server, but has a certificate of somebody else, or none.
    client.issue(&foreign);
    assert_eq!(ask(address, &client.certificates()).await, None);
    let bare = Files {
        identity: None,
        ..client.files()
    };
    let bare = Certificates::load(bare).unwrap();
    assert!(bare.server().is_none());
    assert_eq!(ask(address, &bare).await, None);
    // It has the right certificate, and doesn't trust the server.
    client.issue(&ours);
    client.trust(&[&foreign]);
    assert_eq!(ask(address, &client.certificates()).await, None);
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.ends_with(b"ok"), "{said:?}");
}

#[tokio::test]
async fn changed_files_count_from_the_next_connection_on_and_half_changed_ones_never() {
    let (first, second) = (Authority::new(), Authority::new());
    let (server, client) = (Folder::of(&first), Folder::of(&first));
    let (of_server, of_client) = (server.certificates(), client.certificates());
    let address = serve(Arc::clone(&of_server)).await;
    // A certificate without its key: the earlier pair stays.
    let own = client.files().identity.unwrap();
    let key = std::fs::read(&own.key).unwrap();
    client.issue(&second);
    let new_key = std::fs::read(&own.key).unwrap();
    std::fs::write(&own.key, key).unwrap();
    let_look(&of_client);
    assert_eq!(ask(address, &of_client).await, Some("ok".into()));
    // The key, too: now it is one of a foreign authority.
    std::fs::write(&own.key, new_key).unwrap();
    let_look(&of_client);
    assert_eq!(ask(address, &of_client).await, None);
    // The server trusts that one from now on.
    server.trust(&[&first, &second]);
    let_look(&of_server);
    assert_eq!(ask(address, &of_client).await, Some("ok".into()));
}

#[test]
fn files_that_can_not_be_used_are_refused_by_name() {
    let folder = Folder::of(&Authority::new());
    let refusal = |files: Files| Certificates::load(files).unwrap_err().to_string();
    let gone = Files {
        authorities: "/nowhere/ca.pem".into(),
        identity: None,
    };
    assert!(refusal(gone).contains("/nowhere/ca.pem"));
    let own = folder.files().identity.unwrap();
    std::fs::write(&own.certificate, "nothing").unwrap();
    assert!(refusal(folder.files()).contains("tls.crt holds no certificate"));
    folder.issue(&Authority::new());
    std::fs::write(&own.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(refusal(folder.files()).contains("tls.crt"));
}

#[test]
fn an_address_is_plain_unless_it_says_https() {
    let url = |address| Way::to(address, None).url().to_owned();
    assert_eq!(url("127.0.0.1:1"), "http://127.0.0.1:1");
    assert_eq!(url("http://a:1/"), "http://a:1");
    assert_eq!(url("https://a:1"), "https://a:1");
    assert!(Way::is_encrypted("https://a:1") && !Way::is_encrypted("a:1"));
}
