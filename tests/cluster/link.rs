//! A relay between Envoy and one node, or between a merger and one member of etcd, in this process. The line over the relay can
//! be cut.
//!
//! Envoy's endpoint is the relay. So faults of the line need no special rights, and the node itself doesn't notice them. A
//! relay is one more hop, so only clusters on which faults of the line are injected have relays. Each pair of Envoy and merger has
//! relays of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::HarnessError;

/// How much is read at once. A line holds several of these in each direction.
const CHUNK: usize = 64 << 10;
/// The most chunks in transit in one direction.
const CHUNKS: usize = 64;
/// After this long without more data, a request counts as complete and is answered in place of the node.
const REQUEST_PAUSE: Duration = Duration::from_millis(20);
/// How often a closed line tries to open its port again.
const REOPEN: Duration = Duration::from_millis(20);

/// The state of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Everything passes.
    Open,
    /// Nothing passes, and neither side is told: connections stay open, as behind a switch that failed. What was sent
    /// arrives when the line opens again.
    Silent,
    /// New connections are refused, and existing ones are reset.
    Refused,
    /// Everything that the node sends arrives later by this time.
    Late(Duration),
    /// Every request is answered with 500 and never reaches the node.
    ServerErrors,
    /// Every request is answered with bytes that aren't HTTP, and never reaches the node.
    Garbage,
    /// Every request reaches the node, and its answer is lost: the connection is reset instead.
    AnswersLost,
}

/// A relay to one node, or to one member of etcd.
#[derive(Debug)]
pub struct Link {
    line: watch::Sender<Line>,
    relay: JoinHandle<()>,
}

impl Link {
    /// Opens a relay from one port to another, both on the loopback address.
    ///
    /// # Errors
    /// The port is taken.
    pub(crate) fn open(from: u16, to: u16) -> Result<Self, HarnessError> {
        let listener = listen(from).map_err(|source| HarnessError::Spawn {
            name: format!("the relay at port {from}"),
            source,
        })?;
        let (line, watched) = watch::channel(Line::Open);
        let relay = tokio::spawn(relay(listener, from, to, watched));
        Ok(Self { line, relay })
    }

    /// Sets the state of the line, for existing connections too.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// The current state of the line.
    pub fn line(&self) -> Line {
        *self.line.borrow()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn relay(listener: TcpListener, from: u16, to: u16, mut line: watch::Receiver<Line>) {
    let mut listener = Some(listener);
    loop {
        let now = *line.borrow_and_update();
        if now == Line::Refused {
            // Without a listener, the kernel refuses connections.
            listener = None;
            if line.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(open) = &listener else {
            listener = listen(from).ok();
            if listener.is_none() {
                tokio::time::sleep(REOPEN).await;
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => if let Ok((client, _)) = accepted {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, to));
                tokio::spawn(connection(client, address, line.clone()));
            },
            changed = line.changed() => if changed.is_err() { return },
        }
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Relays one connection until either side closes it, or the line breaks it.
async fn connection(client: TcpStream, to: SocketAddr, mut line: watch::Receiver<Line>) {
    let begun = *line.borrow();
    // The answer given in place of the node's.
    let instead: Option<&[u8]> = match begun {
        Line::ServerErrors => Some(
            b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        ),
        Line::Garbage => Some(b"\x00\x17{]garbage\xff\xfe, and no HTTP at all\r\n\r\n\x00\x01\x02"),
        _ => None,
    };
    if let Some(answer) = instead {
        tokio::select! {
            () = answer_instead(client, answer) => {}
            () = breaks(&mut line, begun) => {}
        }
        return;
    }
    if wait_open(&mut line).await.is_err() {
        return;
    }
    let Ok(node) = TcpStream::connect(to).await else {
        // A reset is the closest equivalent of a refusal after the handshake.
        reset(&client);
        return;
    };
    // Without this, small requests would wait for each other.
    drop((client.set_nodelay(true), node.set_nodelay(true)));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let requests = pump(&mut from_client, &mut to_node, line.clone(), Way::ToNode);
    let answers = pump(&mut from_node, &mut to_client, line.clone(), Way::FromNode);
    tokio::select! {
        () = answers => {}
        // A client that has sent everything still waits for the answer.
        () = forever_after(requests) => {}
        () = breaks(&mut line, begun) => {}
    }
    if let Ok(client) = from_client.reunite(to_client) {
        if matches!(*line.borrow(), Line::Open | Line::Late(_)) {
            return;
        }
        reset(&client);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToNode,
    FromNode,
}

/// Carries bytes in one direction, each chunk when it is due, until the end.
async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut line: watch::Receiver<Line>,
    way: Way,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let watched = line.clone();
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let late = match *watched.borrow() {
                Line::Late(late) if way == Way::FromNode => late,
                _ => Duration::ZERO,
            };
            let chunk = buffer.iter().take(length).copied().collect();
            if sender.send((Instant::now() + late, chunk)).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, chunk)) = chunks.recv().await {
            tokio::time::sleep_until(due).await;
            if wait_open(&mut line).await.is_err() {
                return;
            }
            if way == Way::FromNode && *line.borrow() == Line::AnswersLost {
                return;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other side has sent everything. An error means that this side is already gone.
        drop(to.shutdown().await);
    };
    tokio::select! {
        () = write => {}
        () = forever_after(read) => {}
    }
}

async fn forever_after(future: impl Future<Output = ()>) {
    future.await;
    std::future::pending::<()>().await;
}

/// Returns when the line's state changes to one in which a connection begun under the old state can't continue.
async fn breaks(line: &mut watch::Receiver<Line>, begun: Line) {
    loop {
        let now = *line.borrow_and_update();
        let instead = |line| matches!(line, Line::ServerErrors | Line::Garbage);
        if now == Line::Refused || instead(now) != instead(begun) {
            return;
        }
        if line.changed().await.is_err() {
            return;
        }
    }
}

async fn wait_open(line: &mut watch::Receiver<Line>) -> Result<(), watch::error::RecvError> {
    line.wait_for(|line| *line != Line::Silent).await.map(drop)
}

/// Reads a request without parsing it, and answers it.
async fn answer_instead(mut client: TcpStream, answer: &[u8]) {
    let mut buffer = vec![0; CHUNK];
    let Ok(1..) = client.read(&mut buffer).await else {
        return;
    };
    while let Ok(Ok(1..)) = tokio::time::timeout(REQUEST_PAUSE, client.read(&mut buffer)).await {}
    // If the client has gone, the answer is lost.
    drop(client.write_all(answer).await);
    drop(client.shutdown().await);
}

/// Makes this connection end with a reset.
fn reset(stream: &TcpStream) {
    drop(stream.set_zero_linger());
}

/// Several relays.
#[derive(Debug)]
pub(crate) struct Links(Vec<Link>);

impl Links {
    /// Opens a relay for each pair of the port that is known to others and the port that the program listens on.
    pub(crate) fn open(ports: impl IntoIterator<Item = (u16, u16)>) -> Result<Self, HarnessError> {
        let links = ports.into_iter().map(|(from, to)| Link::open(from, to));
        links.collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Link> {
        self.0.get(place)
    }

    pub(crate) fn set(&self, line: Line) {
        for link in &self.0 {
            link.set(line);
        }
    }
}
