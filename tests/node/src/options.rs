//! The command line. The options are those of a Meilisearch server, so that one can replace the other.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// The default limit for a body, in bytes.
const PAYLOAD_SIZE_LIMIT: &str = "104857600";
/// The address space for one index, in bytes; the file is only as large as its content.
const MAX_INDEX_SIZE: &str = "17179869184";

/// The Meilisearch engine (milli 1.15) behind Meilisearch's HTTP interface, for development and tests.
#[derive(Debug, Clone, Parser)]
#[command(name = "weft-node", version)]
pub(crate) struct Options {
    /// Address and port to listen on.
    #[arg(long, env = "MEILI_HTTP_ADDR", default_value = "127.0.0.1:7700")]
    pub(crate) http_addr: SocketAddr,

    /// Folder of all data.
    #[arg(long, env = "MEILI_DB_PATH", default_value = "./data.ms")]
    pub(crate) db_path: PathBuf,

    /// The key that allows everything; without one, nothing is protected.
    #[arg(long, env = "MEILI_MASTER_KEY", hide_env_values = true)]
    pub(crate) master_key: Option<String>,

    /// `production` demands a master key of at least 16 bytes.
    #[arg(long, env = "MEILI_ENV", default_value = "development")]
    pub(crate) env: Environment,

    /// Bytes of a body at most; units such as `100MiB` are understood.
    #[arg(long, env = "MEILI_HTTP_PAYLOAD_SIZE_LIMIT", default_value = PAYLOAD_SIZE_LIMIT, value_parser = parse_size)]
    pub(crate) http_payload_size_limit: usize,

    /// Memory that indexing may use, about.
    #[arg(long, env = "MEILI_MAX_INDEXING_MEMORY", value_parser = parse_size)]
    pub(crate) max_indexing_memory: Option<usize>,

    /// Threads that index.
    #[arg(long, env = "MEILI_MAX_INDEXING_THREADS")]
    pub(crate) max_indexing_threads: Option<usize>,

    /// Address space for one index.
    #[arg(long, default_value = MAX_INDEX_SIZE, value_parser = parse_size)]
    pub(crate) max_index_size: usize,

    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, `off`.
    #[arg(long, env = "MEILI_LOG_LEVEL", default_value = "warn")]
    pub(crate) log_level: String,

    /// Accepted and without effect: there are no analytics.
    #[arg(long, env = "MEILI_NO_ANALYTICS", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) no_analytics: Option<bool>,
}

/// How strict the node is about its master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Environment {
    /// A missing or short master key is fine.
    Development,
    /// It is not.
    Production,
}

/// The shortest master key in production.
const MASTER_KEY_BYTES: usize = 16;

impl Options {
    /// Why these options are unusable; `None` if they aren't.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        if self.env == Environment::Development {
            return None;
        }
        match &self.master_key {
            None => Some("in production a master key is needed: use --master-key"),
            Some(key) if key.len() < MASTER_KEY_BYTES => {
                Some("in production the master key must have at least 16 bytes")
            }
            Some(_) => None,
        }
    }

    /// The number of indexing threads: as set, or one for every two processors.
    pub(crate) fn indexing_threads(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.max_indexing_threads.unwrap_or(processors / 2).max(1)
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text
        .get(digits.len()..)
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let factor: usize = match unit.as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return Err(format!("unknown unit in `{text}`")),
    };
    let number: usize = digits
        .trim()
        .parse()
        .map_err(|error| format!("`{text}` is not a size: {error}"))?;
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("100MiB"), Ok(104_857_600));
        assert_eq!(parse_size("100 MB"), Ok(100_000_000));
        assert_eq!(parse_size("42"), Ok(42));
        assert!(parse_size("many").is_err());
    }

    #[test]
    fn production_wants_a_long_master_key() {
        let options =
            |arguments: &[&str]| Options::parse_from([&["weft-node"], arguments].concat());
        assert!(options(&[]).complaint().is_none());
        assert!(options(&["--env", "production"]).complaint().is_some());
        assert!(
            options(&["--env", "production", "--master-key", "short"])
                .complaint()
                .is_some()
        );
        assert!(
            options(&["--env", "production", "--master-key", "0123456789abcdef"])
                .complaint()
                .is_none()
        );
    }
}
