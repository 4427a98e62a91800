//! Clients that send the same request again and again, each on its own connection.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The request.
#[derive(Debug, Clone)]
pub(super) struct Shot {
    pub(super) port: u16,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) key: Option<String>,
    pub(super) body: Bytes,
}

impl Shot {
    /// The request as one of several clients sends it. Identical searches at the same time would be sent to the nodes once; those
    /// of several clients differ in a parameter that has no effect.
    fn for_client(&self, number: usize) -> Self {
        let mut shot = self.clone();
        let body = std::str::from_utf8(&shot.body).unwrap_or_default();
        if let (true, Some(rest)) = (shot.path.ends_with("/search"), body.strip_suffix('}')) {
            let comma = if rest.ends_with('{') { "" } else { "," };
            shot.body = format!("{rest}{comma}\"cropLength\":{}}}", 10 + number).into();
        }
        shot
    }
}

/// The result of a load.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    /// The time that each answer took, ascending.
    times: Vec<Duration>,
    took: Duration,
}

impl Load {
    /// Answers per second.
    pub(super) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    /// The time within which this `share` of the answers came, in milliseconds.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        let place = (self.times.len() as f64 * share) as usize;
        self.times
            .get(place.min(self.times.len().saturating_sub(1)))
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// The mean time of an answer, in milliseconds.
    pub(super) fn mean_ms(&self) -> f64 {
        let sum: Duration = self.times.iter().sum();
        sum.as_secs_f64() * 1e3 / self.times.len() as f64
    }

    /// The number of answers.
    pub(super) fn answers(&self) -> u64 {
        self.times.len() as u64
    }

    /// Combines two loads.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.times.extend(other.times);
        self.times.sort_unstable();
        self.took += other.took;
        self
    }
}

/// Runs `clients` clients for `seconds` seconds. An unsuccessful answer ends the measurement, because it would be a fast one.
pub(super) async fn fire(shot: &Shot, clients: usize, seconds: f64) -> Result<Load> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    let clients = (0..clients).map(|number| client(vec![shot.for_client(number)], &[], end));
    gather(begun, clients).await
}

/// Runs clients for `seconds` seconds, each of which sends its own requests in turn, with these headers beside the usual ones.
pub(super) async fn fire_in_turn(
    lists: &[Vec<Shot>],
    headers: &'static [(&'static str, &'static str)],
    seconds: f64,
) -> Result<Load> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    let clients = lists.iter().map(|list| client(list.clone(), headers, end));
    gather(begun, clients).await
}

/// Runs one client for `seconds` seconds that sends all of these at once, each on its own connection, and waits for all answers.
pub(super) async fn fire_at_once(shots: &[Shot], seconds: f64) -> Result<Load> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    let mut lines = try_join_all(shots.iter().map(|shot| Line::open(shot.port))).await?;
    let mut times = Vec::new();
    while Instant::now() < end {
        let sent = Instant::now();
        let asking = lines.iter_mut().zip(shots);
        try_join_all(asking.map(|(line, shot)| line.ask(shot, &[]))).await?;
        times.push(sent.elapsed());
    }
    let took = begun.elapsed();
    times.sort_unstable();
    Ok(Load { times, took })
}

async fn gather<F>(begun: Instant, clients: impl Iterator<Item = F>) -> Result<Load>
where
    F: Future<Output = Result<Vec<Duration>>> + Send + 'static,
{
    let clients: Vec<_> = clients.map(tokio::spawn).collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    let took = begun.elapsed();
    times.sort_unstable();
    Ok(Load { times, took })
}

async fn client(
    shots: Vec<Shot>,
    headers: &'static [(&'static str, &'static str)],
    end: Instant,
) -> Result<Vec<Duration>> {
    let port = shots.first().context("no request")?.port;
    let mut line = Line::open(port).await?;
    let mut times = Vec::new();
    for shot in shots.iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        times.push(line.ask(shot, headers).await?);
    }
    Ok(times)
}

/// A connection that one request at a time goes through.
struct Line(http1::SendRequest<Full<Bytes>>);

impl Line {
    async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .context("no connection")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and waits for the whole answer; returns how long that took.
    async fn ask(&mut self, shot: &Shot, headers: &[(&str, &str)]) -> Result<Duration> {
        let mut request = Request::builder()
            .method(shot.method)
            .uri(&shot.path)
            .header(header::HOST, "127.0.0.1");
        if let Some(key) = &shot.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        if !shot.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(shot.body.clone()))?;
        let begun = Instant::now();
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let took = begun.elapsed();
        if !status.is_success() {
            bail!(
                "{} {} answered {status}: {}",
                shot.method,
                shot.path,
                String::from_utf8_lossy(&body)
            );
        }
        Ok(took)
    }
}
