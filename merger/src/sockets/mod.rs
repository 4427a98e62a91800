//! Unix sockets beside TCP: where the merger listens, and where Envoy's egress listener is.
//!
//! Between two programs of one machine a Unix socket is a shorter way than TCP, and a file's permissions say who may use it. Nothing
//! else in the merger knows which of the two a connection is.

mod listeners;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use listeners::{ListenError, Listeners};
pub use stream::Stream;

/// The longest path of a socket in bytes: what the kernel's `sun_path` holds beside the zero at its end.
pub const LONGEST_PATH: usize = 107;

/// What an address begins with that is a socket's path.
const SCHEME: &str = "unix:";

/// The path of a Unix socket: absolute, and short enough for the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketPath(PathBuf);

/// Why a path can't be a socket's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketPathError {
    /// It depends on the folder in which a program runs.
    #[error("the socket's path must begin with `/`: `{0}`")]
    Relative(PathBuf),
    /// The kernel takes no longer one.
    #[error("the socket's path has {bytes} bytes, and {LONGEST_PATH} is the most: `{path}`")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// It can't stand in Envoy's configuration.
    #[error("the socket's path must be printable text: `{0:?}`")]
    NotText(PathBuf),
}

impl TryFrom<PathBuf> for SocketPath {
    type Error = SocketPathError;

    fn try_from(path: PathBuf) -> Result<Self, SocketPathError> {
        let bytes = path.as_os_str().len();
        let is_text = |text: &str| !text.contains(char::is_control);
        if !path.to_str().is_some_and(is_text) {
            return Err(SocketPathError::NotText(path));
        }
        if !path.is_absolute() {
            return Err(SocketPathError::Relative(path));
        }
        match bytes > LONGEST_PATH {
            true => Err(SocketPathError::TooLong { path, bytes }),
            false => Ok(Self(path)),
        }
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Who may connect to a socket: the permissions of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(u32);

impl SocketMode {
    /// The permissions as the kernel takes them.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for SocketMode {
    /// Its own user alone.
    fn default() -> Self {
        Self(0o600)
    }
}

impl FromStr for SocketMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim_start_matches('0') {
            "600" => Ok(Self(0o600)),
            "660" => Ok(Self(0o660)),
            "666" => Ok(Self(0o666)),
            _ => Err(format!(
                "`{text}` is none of 600 (its own user), 660 (its group, too) and 666 (everybody)"
            )),
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

/// A place on which the merger listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address.
    Tcp(SocketAddr),
    /// A socket.
    Unix(SocketPath),
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(SCHEME) {
            Some(path) => unix(path).map(Self::Unix),
            None => match text.parse() {
                Ok(address) => Ok(Self::Tcp(address)),
                Err(_) => Err(format!("`{text}` is neither IP:PORT nor {SCHEME}/PATH")),
            },
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{SCHEME}{path}"),
        }
    }
}

/// Who is at the other end of a connection that the merger took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A program at this address.
    At(SocketAddr),
    /// A program of this machine, over a socket. The number is the connection's own.
    Local(u64),
}

/// Where Envoy's egress listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Egress {
    /// An address, `host:port`, perhaps with `https://` before it.
    Tcp(String),
    /// A socket.
    Unix(SocketPath),
}

impl Egress {
    /// The address, unless it is a socket.
    pub fn address(&self) -> Option<&str> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix(_) => None,
        }
    }

    /// The socket, if it is one.
    pub fn socket(&self) -> Option<&SocketPath> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl FromStr for Egress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(SCHEME) {
            Some(path) => unix(path).map(Self::Unix),
            None => Ok(Self::Tcp(text.to_owned())),
        }
    }
}

fn unix(path: &str) -> Result<SocketPath, String> {
    SocketPath::try_from(PathBuf::from(path)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_socket_are_told_apart() {
        let listen = |text: &str| text.parse::<Listen>();
        for text in ["127.0.0.1:7703", "[::1]:7703", "unix:/run/weft/merger.sock"] {
            assert_eq!(listen(text).unwrap().to_string(), text);
        }
        assert!(matches!(listen("unix:/x"), Ok(Listen::Unix(_))));
        assert!(listen("/run/merger.sock").is_err() && listen("localhost:1").is_err());
        let egress = |text: &str| text.parse::<Egress>().unwrap();
        assert_eq!(egress("envoy:7702").address(), Some("envoy:7702"));
        assert!(egress("unix:/x").socket().is_some());
    }

    #[test]
    fn a_path_that_the_kernel_would_not_take_is_refused_with_its_length() {
        let of_length = |length: usize| format!("/{}", "x".repeat(length - 1));
        let path = |text: String| SocketPath::try_from(PathBuf::from(text));
        assert!(path(of_length(107)).is_ok());
        let refused = path(of_length(108)).unwrap_err().to_string();
        assert!(refused.contains("108 bytes") && refused.contains("107 is the most"));
        assert!(path("merger.sock".to_owned()).is_err());
        assert!(path("/a\nb".to_owned()).is_err());
    }

    #[test]
    fn a_mode_is_one_of_three() {
        let mode = |text: &str| text.parse::<SocketMode>().map(SocketMode::bits);
        assert_eq!(mode("660"), Ok(0o660));
        assert_eq!(mode("0600"), Ok(SocketMode::default().bits()));
        assert!(mode("777").is_err() && mode("").is_err());
    }
}
