//! Listens on addresses and sockets at the same time.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as Connecting;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixSocket};

use super::{Listen, Peer, SocketMode, SocketPath, Stream};

/// How many connections may wait to be taken.
const BACKLOG: u32 = 1024;
/// The pause after a connection could not be taken, as where no file can be opened any more.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Why nobody can listen at a place.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The kernel refuses.
    #[error("can't listen on {at}")]
    Refused {
        /// The place.
        at: Listen,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process answers there.
    #[error("can't listen on unix:{0}: another process does")]
    Taken(SocketPath),
    /// There is a file that is no socket, so it isn't removed.
    #[error("can't listen on unix:{0}: the file there is no socket")]
    NoSocket(SocketPath),
}

/// All places on which the merger listens.
pub struct Listeners {
    all: Vec<Listener>,
    /// How many connections came over sockets so far.
    unix: AtomicU64,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        Self {
            all: vec![Listener::Tcp(listener)],
            unix: AtomicU64::new(0),
        }
    }
}

impl Listeners {
    /// Begins to listen. The file of a socket on which nobody listens any more is replaced; nobody can connect to the new one before
    /// its permissions are set.
    ///
    /// # Errors
    /// One of the places can't be listened on.
    pub async fn bind(places: &[Listen], mode: SocketMode) -> Result<Self, ListenError> {
        let mut all = Vec::with_capacity(places.len());
        for place in places {
            let refused = |source| ListenError::Refused {
                at: place.clone(),
                source,
            };
            all.push(match place {
                Listen::Tcp(address) => {
                    Listener::Tcp(TcpListener::bind(address).await.map_err(refused)?)
                }
                Listen::Unix(path) => {
                    remove_stale(path)?;
                    Listener::Unix(bind_socket(path.as_ref(), mode).map_err(refused)?)
                }
            });
        }
        let unix = AtomicU64::new(0);
        Ok(Self { all, unix })
    }

    /// The next connection, and who is at its other end.
    pub async fn accept(&self) -> (Stream, Peer) {
        loop {
            match std::future::poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        for listener in &self.all {
            let accepted = match listener {
                Listener::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| {
                    let _ = stream.set_nodelay(true);
                    (Stream::Tcp(stream), Peer::At(peer))
                }),
                Listener::Unix(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| {
                    let number = self.unix.fetch_add(1, Ordering::Relaxed);
                    (Stream::Unix(stream), Peer::Local(number))
                }),
            };
            if accepted.is_ready() {
                return accepted;
            }
        }
        Poll::Pending
    }
}

/// Removes the socket that an earlier process has left behind.
fn remove_stale(path: &SocketPath) -> Result<(), ListenError> {
    let file: &Path = path.as_ref();
    let refused = |source| ListenError::Refused {
        at: Listen::Unix(path.clone()),
        source,
    };
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NoSocket(path.clone()));
        }
        Ok(_) => {}
    }
    match Connecting::connect(file) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(file).map_err(refused)
        }
        Err(error) => Err(refused(error)),
        Ok(_) => Err(ListenError::Taken(path.clone())),
    }
}

fn bind_socket(path: &Path, mode: SocketMode) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode.bits()))?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;

    fn at(folder: &tempfile::TempDir) -> (Listen, std::path::PathBuf) {
        let path = folder.path().join("m.sock");
        let socket = SocketPath::try_from(path.clone()).unwrap();
        (Listen::Unix(socket), path)
    }

    #[tokio::test]
    async fn connections_come_over_both_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, path) = at(&folder);
        let tcp = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let listeners = Listeners::bind(&[tcp, socket], SocketMode::default()).await;
        let listeners = listeners.unwrap();
        let Some(Listener::Tcp(tcp)) = listeners.all.first() else {
            panic!("no TCP")
        };
        let mut over_tcp = TcpStream::connect(tcp.local_addr().unwrap()).await.unwrap();
        let (mut stream, peer) = listeners.accept().await;
        assert_eq!(peer, Peer::At(over_tcp.local_addr().unwrap()));
        over_tcp.write_all(b"t").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b't');
        let mut peers = Vec::new();
        for _ in 0..2 {
            let mut over_unix = UnixStream::connect(&path).await.unwrap();
            let (mut stream, peer) = listeners.accept().await;
            over_unix.write_all(b"u").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'u');
            peers.push(peer);
        }
        assert_ne!(peers[0], peers[1], "each connection is told apart");
    }

    #[tokio::test]
    async fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, path) = at(&folder);
        let bind = async |mode: &str| {
            let mode = mode.parse().unwrap();
            Listeners::bind(std::slice::from_ref(&socket), mode).await
        };
        let first = bind("600").await.unwrap();
        let permissions = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(permissions(), 0o600);
        let taken = bind("600").await;
        assert!(matches!(taken, Err(ListenError::Taken(_))));
        drop(first);
        let second = bind("660").await.unwrap();
        assert_eq!(permissions(), 0o660);
        let connected = UnixStream::connect(&path);
        let (connected, _) = tokio::join!(connected, second.accept());
        connected.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, path) = at(&folder);
        fs::write(&path, "a file").unwrap();
        let refused = Listeners::bind(&[socket], SocketMode::default()).await;
        assert!(matches!(refused, Err(ListenError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
    }
}
