//! `weft config check`: what an envoy.yaml and the merger will make of each other, with the line of each mistake.
//!
//! [`yaml`] reads the file, [`clusters`], [`listeners`], [`ways`] and [`filter`] look at its parts, and [`show`] says what was found. All
//! of that is pure. [`secrets`] reads the certificates that the file names. What Envoy itself refuses is for `envoy --mode validate` to say; here is what Envoy takes, and Weft can't work with.

mod clusters;
mod filter;
mod listeners;
mod secrets;
mod ways;
mod yaml;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::json;
use weft_routing::ShardNames;

use super::output::{self, Look, Mood, OutputOptions, Rows, plain};
use super::words::counted;
use crate::clock::now_utc;
use crate::options::TlsArgs;
use crate::tls::Way;
use yaml::Node;

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Options of `weft config check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft config check envoy.yaml
  weft config check envoy.yaml --shard-prefix 'outbound|7700||shard-{}.search.svc.cluster.local'
  weft config envoy --shards 5 | weft config check -
  weft config check envoy.yaml --tls-cert m/tls.crt --tls-key m/tls.key --tls-ca m/ca.pem --egress https://10.0.0.1:7702
  weft config check envoy.yaml --no-files             certificates are elsewhere: in a container, say

The merger's options are those of `weft serve`, and its variables are read, too: set them as they are for the merger.
What Envoy itself refuses is told by: envoy --mode validate -c envoy.yaml
Exit code 1 if something is wrong; what is merely unusual (`hint`) is no mistake.")]
pub(super) struct CheckArgs {
    /// The file, or - for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The merger's --shard-prefix.
    #[arg(long, env = "WEFT_SHARD_PREFIX", default_value = "shard-")]
    pub shard_prefix: ShardNames,
    /// The merger's --listen; its ports and sockets are compared.
    #[arg(
        long,
        env = "WEFT_LISTEN",
        default_value = "127.0.0.1:7703",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub listen: Vec<String>,
    /// The merger's --egress; its port or socket is compared.
    #[arg(
        long,
        env = "WEFT_EGRESS",
        default_value = "127.0.0.1:7702",
        value_name = "HOST:PORT"
    )]
    pub egress: String,
    /// The merger's --envoy-admin; its port is compared.
    #[arg(
        long,
        env = "WEFT_ENVOY_ADMIN",
        default_value = "127.0.0.1:7701",
        value_name = "HOST:PORT"
    )]
    pub envoy_admin: String,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Don't read the files with certificates that are named: they are on another machine.
    #[arg(long)]
    pub no_files: bool,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// Why a file wasn't checked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    /// The file can't be read.
    #[error("{} can't be read: {source}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{} is larger than {} MiB", .0.display(), MAX_FILE_BYTES >> 20)]
    TooLarge(PathBuf),
}

/// The merger's side of the configuration.
#[derive(Debug, Clone)]
struct Merger {
    names: ShardNames,
    /// Ports as written, since hosts may have other names here and there; of sockets, `unix:` and the path.
    listen: Vec<String>,
    egress: String,
    admin: String,
    /// Whether it speaks TLS, but for its sockets.
    encrypted: bool,
    /// Whether it asks the egress listener by TLS, and there for the admin interface, too.
    egress_encrypted: bool,
    admin_encrypted: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum Severity {
    /// Weft can't work with this, or not safely.
    Mistake,
    /// This is unusual.
    Hint,
}

/// Something that somebody should look at. Line 0: in the merger's options.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Finding {
    line: usize,
    severity: Severity,
    text: String,
}

/// A shard as the merger will see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Shard {
    shard: u16,
    cluster: String,
    line: usize,
    nodes: Vec<Member>,
}

/// A node as the merger will see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Member {
    id: String,
    address: String,
    line: usize,
}

/// What was found.
#[derive(Debug, Default)]
struct Report {
    shards: Vec<Shard>,
    findings: Vec<Finding>,
}

impl Report {
    fn mistake(&mut self, line: usize, text: impl fmt::Display) {
        self.add(line, Severity::Mistake, text);
    }

    fn hint(&mut self, line: usize, text: impl fmt::Display) {
        self.add(line, Severity::Hint, text);
    }

    fn add(&mut self, line: usize, severity: Severity, text: impl fmt::Display) {
        self.findings.push(Finding {
            line,
            severity,
            text: text.to_string(),
        });
    }

    fn in_order(&mut self) {
        self.findings.sort();
        self.findings.dedup();
    }

    fn is_sound(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.severity != Severity::Mistake)
    }
}

/// Reads the file and says what is wrong with it: the text, and whether all is well.
pub(super) fn run(arguments: &CheckArgs) -> Result<(String, bool), CheckError> {
    let text = read(&arguments.file)?;
    let merger = Merger {
        names: arguments.shard_prefix.clone(),
        listen: arguments.listen.iter().map(|place| port(place)).collect(),
        egress: port(&arguments.egress),
        admin: port(&arguments.envoy_admin),
        encrypted: arguments.tls.tls_cert.is_some(),
        egress_encrypted: Way::is_encrypted(&arguments.egress),
        admin_encrypted: Way::is_encrypted(&arguments.envoy_admin),
    };
    let mut report = check(&text, &merger);
    if !arguments.no_files {
        secrets::check(
            &text,
            arguments.tls.files().as_ref(),
            now_utc(),
            &mut report,
        );
    }
    let name = match arguments.file.to_str() {
        Some("-") => "line".into(),
        _ => arguments.file.display().to_string(),
    };
    let shown = match arguments.output.json {
        true => output::json(&json!({"shards": report.shards, "findings": report.findings})),
        false => show(&report, &name, Look::of_stdout()),
    };
    Ok((shown, report.is_sound()))
}

fn read(path: &Path) -> Result<String, CheckError> {
    use std::io::Read;
    let failed = |source| CheckError::File {
        path: path.to_owned(),
        source,
    };
    let input: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    let mut text = String::new();
    let mut limited = input.take(MAX_FILE_BYTES + 1);
    limited.read_to_string(&mut text).map_err(failed)?;
    match text.len() as u64 > MAX_FILE_BYTES {
        true => Err(CheckError::TooLarge(path.to_owned())),
        false => Ok(text),
    }
}

/// Whether a text is YAML as far as this reads it.
#[cfg(test)]
pub(super) fn parses(text: &str) -> Result<(), String> {
    let read = yaml::read(text);
    read.map(drop)
        .map_err(|error| format!("line {}: {error}", error.line))
}

fn port(address: &str) -> String {
    if address.starts_with(SOCKET) {
        return address.to_owned();
    }
    let port = address.trim_end_matches('/').rsplit(':').next();
    port.unwrap_or(address).to_owned()
}

/// Looks at the whole file.
fn check(text: &str, merger: &Merger) -> Report {
    let mut report = Report::default();
    let root = match yaml::read(text) {
        Ok(root) => root,
        Err(error) => {
            report.mistake(error.line, format!("this can't be read: {}", error.problem));
            return report;
        }
    };
    let filters = filter::find(&root);
    let guards = filters.iter().any(filter::Found::is_guard);
    filter::check(&filters, &root, merger, &mut report);
    // The Envoy of one node knows no shards.
    if !guards {
        clusters::check(&root, merger, &mut report);
        listeners::check(&root, merger, !filters.is_empty(), &mut report);
    }
    report.in_order();
    report
}

/// The name among these that was probably meant.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let close = |known: &&str| strsim::osa_distance(known, name) <= (name.len() / 3).max(1);
    let by_distance = |known: &&str| strsim::osa_distance(known, name);
    known.into_iter().filter(close).min_by_key(by_distance)
}

/// `; did you mean …?`, or nothing.
fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let found = nearest(name, known);
    found.map_or_else(String::new, |found| format!("; did you mean `{found}`?"))
}

/// What a place begins with that is a socket.
const SOCKET: &str = "unix:";

/// The port of an address (`{ socket_address: { address, port_value } }`) with its line; of a `pipe`, `unix:` and its path.
fn port_of(address: Option<&Node>) -> Option<(String, usize)> {
    if let Some(path) = address?.at(&["pipe", "path"]) {
        return Some((format!("{SOCKET}{}", path.scalar()?), path.line));
    }
    let port = address?.at(&["socket_address", "port_value"])?;
    Some((port.scalar()?.to_owned(), port.line))
}

/// A place as [`port_of`] gives it, in a sentence.
fn named(place: &str) -> String {
    match place.starts_with(SOCKET) {
        true => place.to_owned(),
        false => format!("port {place}"),
    }
}

fn show(report: &Report, name: &str, look: Look) -> String {
    let mut out = String::new();
    if !report.shards.is_empty() {
        let mut rows = Rows::with(&["SHARD", "CLUSTER", "LINE", "NODES"], look);
        for shard in &report.shards {
            let nodes = shard
                .nodes
                .iter()
                .map(|node| match node.id == node.address {
                    true => node.id.clone(),
                    false => format!("{} ({})", node.id, node.address),
                });
            rows.add([
                plain(shard.shard.to_string()),
                plain(shard.cluster.as_str()),
                plain(shard.line.to_string()),
                plain(nodes.collect::<Vec<_>>().join(", ")),
            ]);
        }
        out.push_str(&rows.text());
        out.push('\n');
    }
    for Finding {
        line,
        severity,
        text,
    } in &report.findings
    {
        let (word, mood) = match severity {
            Severity::Mistake => ("mistake", Mood::Bad),
            Severity::Hint => ("hint", Mood::Warning),
        };
        let place = match line {
            0 => "the merger's options".to_owned(),
            line => format!("{name}:{line}"),
        };
        let word = look.paint(word, mood);
        out.push_str(&format!("{place}: {word}: {text}\n"));
    }
    let mistakes = report
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Mistake);
    out.push_str(&match mistakes.count() {
        0 => look.paint("nothing is wrong", Mood::Good),
        count => look.paint(&counted(count as u64, "mistake", "mistakes"), Mood::Bad),
    });
    out.push('\n');
    out
}
