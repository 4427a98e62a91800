//! HTTP/1.1 as bytes, for requests that a client library would refuse to send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Case, Expected};
use crate::support::MASTER_KEY;

/// Longer than any answer takes; a target that hangs fails the case.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Sends the bytes on a connection of their own and reads the first answer; `None` if the connection ends without one.
pub(super) async fn exchange(port: u16, bytes: &[u8], cut: bool) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // A target that has refused the request already may not read the rest.
    let _ = stream.write_all(bytes).await;
    if cut {
        let _ = stream.shutdown().await;
    }
    let mut all = Vec::new();
    let answer = tokio::time::timeout(PATIENCE, async {
        let mut chunk = [0; 8192];
        loop {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return parse(&all, true),
                Ok(read) => all.extend_from_slice(&chunk[..read]),
            }
            if let Some(answer) = parse(&all, false) {
                return Some(answer);
            }
        }
    });
    answer.await.unwrap_or_else(|_| {
        panic!(
            "port {port} hangs on {}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(300)])
        )
    })
}

/// The answer, once it is complete; a body without a length ends with the connection.
fn parse(all: &[u8], ended: bool) -> Option<Answer> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = &all[end + 4..];
    if status == 100 {
        return parse(rest, ended);
    }
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let body = if status == 204 || status == 304 {
        Vec::new()
    } else if header("transfer-encoding") == Some("chunked") {
        dechunk(rest)?
    } else if let Some(length) = header("content-length") {
        rest.get(..length.parse().ok()?)?.to_vec()
    } else if ended {
        rest.to_vec()
    } else {
        return None;
    };
    Some(Answer { status, body })
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let chunk = rest.get(end + 2..end + 2 + size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2 + size + 2..)?;
    }
}

/// A complete request: request line, key, these header lines, the body's length, the body.
pub(super) fn request(line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let authorization = format!("authorization: Bearer {MASTER_KEY}");
    let mut lines = vec![format!("{line} HTTP/1.1"), "host: weft".to_owned()];
    if !headers.iter().any(|line| line.starts_with("authorization")) {
        lines.push(authorization);
    }
    lines.extend(headers.iter().map(|line| (*line).to_owned()));
    if !body.is_empty() || line.starts_with('P') {
        lines.push(format!("content-length: {}", body.len()));
    }
    let mut bytes = lines.join("\r\n").into_bytes();
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A case in which the cluster must do what the node does.
pub(super) fn same(name: impl Into<String>, line: &str, headers: &[&str], body: &[u8]) -> Case {
    Case {
        name: name.into(),
        bytes: request(line, headers, body),
        expected: Expected::AsTheNode,
        cut: false,
    }
}

impl Case {
    /// The case, with another expectation.
    pub(super) fn expect(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }
}

/// The same with a JSON body. The case's name is the request line and the start of the body.
pub(super) fn same_json(line: &str, body: &str) -> Case {
    let start: String = body.chars().take(80).collect();
    let name = format!("{line} {start}");
    same(
        name,
        line,
        &["content-type: application/json"],
        body.as_bytes(),
    )
}
