//! The line to one node, which can be cut: a relay between Envoy and the node, in this process.
//!
//! Envoy's endpoint is the relay, so that whatever is done to the line needs no rights that a test doesn't have, and the
//! node itself never knows. A relay is one more hop: only faults of the line are injected on a cluster that has them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{HarnessError, PortBlock};

/// How much is read at once; a line holds a few of these in each direction.
const CHUNK: usize = 64 << 10;
/// Chunks under way in one direction.
const CHUNKS: usize = 64;
/// A request has arrived when nothing more has come for this long; then it is answered in the node's stead.
const REQUEST_PAUSE: Duration = Duration::from_millis(20);
/// How often a closed line tries to open its port again.
const REOPEN: Duration = Duration::from_millis(20);

/// What the line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Everything passes.
    Open,
    /// Nothing passes and nobody is told: connections stay, as behind a switch that died. What was sent arrives when the
    /// line opens again.
    Silent,
    /// Connections are refused, and those that there were are gone.
    Refused,
    /// Whatever the node sends arrives so much later.
    Late(Duration),
    /// Every request is answered 500, and the node never sees it.
    ServerErrors,
    /// Every request is answered with bytes that are no HTTP, and the node never sees it.
    Garbage,
    /// Every request reaches the node, and its answer is lost: the connection breaks instead.
    AnswersLost,
}

/// A relay to one node.
#[derive(Debug)]
pub struct Link {
    line: watch::Sender<Line>,
    relay: JoinHandle<()>,
}

impl Link {
    /// Relays from one port to another, both on the loopback address.
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

    /// From now on, for connections that there are as well.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// What it does now.
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
            // Without a listener the kernel refuses.
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

/// One connection until either side ends it, or the line does.
async fn connection(client: TcpStream, to: SocketAddr, mut line: watch::Receiver<Line>) {
    let begun = *line.borrow();
    // What is answered in the node's stead.
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
        // As near as one gets to a refusal after the handshake: a reset.
        reset(&client);
        return;
    };
    // Small requests would wait for each other otherwise.
    drop((client.set_nodelay(true), node.set_nodelay(true)));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let requests = pump(&mut from_client, &mut to_node, line.clone(), Way::ToNode);
    let answers = pump(&mut from_node, &mut to_client, line.clone(), Way::FromNode);
    tokio::select! {
        () = answers => {}
        // A client that has said all still waits for the answer.
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

/// Carries bytes one way, each chunk when it is due, until the end.
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
        // The other side has said all; an error means that this one is gone already.
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

/// Returns when a connection that was begun under one state of the line can't outlive the present one.
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

/// Reads a request and answers it without having understood it.
async fn answer_instead(mut client: TcpStream, answer: &[u8]) {
    let mut buffer = vec![0; CHUNK];
    let Ok(1..) = client.read(&mut buffer).await else {
        return;
    };
    while let Ok(Ok(1..)) = tokio::time::timeout(REQUEST_PAUSE, client.read(&mut buffer)).await {}
    // Whether it arrives is the client's affair.
    drop(client.write_all(answer).await);
    drop(client.shutdown().await);
}

/// Makes the end of this connection a reset.
fn reset(stream: &TcpStream) {
    drop(stream.set_zero_linger());
}

/// As many relays as a layout has nodes: the ports that Envoy knows lead to these others.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    _ports: PortBlock,
}

impl Links {
    /// `ways`: the port that Envoy knows, and the port that the node listens on.
    pub(crate) fn open(ways: &[(u16, u16)], ports: PortBlock) -> Result<Self, HarnessError> {
        let links = ways
            .iter()
            .map(|(from, to)| Link::open(*from, *to))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            links,
            _ports: ports,
        })
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Link> {
        self.links.get(place)
    }
}
