//! The command line of `weft import`.

use std::path::PathBuf;

use clap::Args;
use url::Url;

use super::error::ImportError;
use crate::cli::output::OutputOptions;
use crate::cli::remote::{ConnectOptions, Remote, key_from_file};
use crate::tls::Files;

/// Bring a single Meilisearch into the cluster: keys, indexes, settings and documents with their vectors.
///
/// SOURCE is the URL of a running Meilisearch, or the path of a dump (.dump). An import that ends early goes on where it was
/// when the same command is run again: its journal says how far it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft import http://old:7700 --url http://envoy:7700     copies everything
  weft import http://old:7700 --follow                    and brings over what is written to the old server afterwards
  weft import http://old:7700 --follow --until-caught-up  the same, until nothing is missing: for the moment of cut-over
  weft import http://old:7700 --compare queries.jsonl     asks both the same, and says how often they agree
  weft import dumps/20261130-101500.dump                  from a dump

The source's key is read from WEFT_SOURCE_KEY or --source-key-file, the cluster's from WEFT_MASTER_KEY or --master-key-file.")]
pub(in crate::cli) struct ImportArgs {
    /// The URL of a running Meilisearch, or the path of a dump.
    pub source: String,
    /// Where it goes.
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// A file that holds the source's key: its master key, or one that may read everything. Without it, the variable
    /// WEFT_SOURCE_KEY is read.
    #[arg(
        long,
        value_name = "FILE",
        env = "WEFT_SOURCE_KEY_FILE",
        help_heading = "Connection"
    )]
    pub source_key_file: Option<PathBuf>,
    /// Authorities (PEM) by which the certificate of an https:// source is judged, instead of the public ones.
    #[arg(
        long,
        value_name = "FILE",
        env = "WEFT_SOURCE_CA_FILE",
        help_heading = "Connection"
    )]
    pub source_ca_file: Option<PathBuf>,
    /// Only these indexes. May be given several times, or as a list with commas.
    #[arg(long = "index", value_name = "UID", value_delimiter = ',')]
    pub indexes: Vec<String>,
    /// The file that says how far the import is.
    #[arg(long, value_name = "FILE", default_value = "weft-import.json")]
    pub journal: PathBuf,
    /// Write into indexes that hold documents already. From a running server they are made equal to the source's, and what they
    /// hold beside is deleted; from a dump, documents are added or replaced.
    #[arg(long)]
    pub into_existing: bool,
    /// Leave keys out.
    #[arg(long)]
    pub no_keys: bool,
    /// How large a batch of documents is, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(1024..=(90 << 20)), help_heading = "Speed")]
    pub batch_bytes: u64,
    /// How many batches may be under way.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Speed")]
    pub in_flight: u16,
    /// How fast documents are sent, in bytes per second; 0 means as fast as it goes.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        help_heading = "Speed"
    )]
    pub bytes_per_second: u64,
    /// After the copy, bring over what is written to the source, until Ctrl-C.
    #[arg(long, conflicts_with = "compare", help_heading = "Following")]
    pub follow: bool,
    /// End as soon as everything is brought over and nothing differs.
    #[arg(long, requires = "follow", help_heading = "Following")]
    pub until_caught_up: bool,
    /// Copy nothing; ask source and cluster the same queries and compare the answers. FILE has a JSON object a line: `index` and
    /// the body of a search. Without FILE, queries are made of words of the source's documents.
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = "Comparing")]
    pub compare: Option<Option<PathBuf>>,
    /// How many queries are asked at most: of the file (all, if not given), or for each index if they are made (200).
    #[arg(long, value_name = "N", requires = "compare", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Comparing")]
    pub sample: Option<u32>,
    /// The least share of queries with the same hits, in percent, leaving out the order of equal hits. Below it, the exit code
    /// is 1.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 95.0,
        help_heading = "Comparing"
    )]
    pub min_equal: f64,
    /// How the report is shown.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// What is read.
#[derive(Debug)]
pub(super) enum SourceKind {
    /// A running server.
    Live(Box<Remote>),
    /// A dump.
    Dump(PathBuf),
}

impl ImportArgs {
    /// What the positional argument names.
    pub(super) fn source_kind(&self) -> Result<SourceKind, ImportError> {
        if !self.source.starts_with("http://") && !self.source.starts_with("https://") {
            return Ok(SourceKind::Dump(PathBuf::from(&self.source)));
        }
        let url = Url::parse(&self.source).map_err(|error| ImportError::SourceUrl {
            text: self.source.clone(),
            cause: error.to_string(),
        })?;
        let key = match &self.source_key_file {
            Some(path) => Some(key_from_file(path).map_err(ImportError::Source)?),
            None => std::env::var("WEFT_SOURCE_KEY").ok(),
        };
        let key = key.filter(|key| !key.is_empty());
        let certificates = self.source_ca_file.clone().map(|authorities| Files {
            authorities,
            identity: None,
        });
        let remote = Remote::new(url, key.as_deref(), certificates).map_err(ImportError::Source)?;
        Ok(SourceKind::Live(Box::new(remote)))
    }

    /// Whether an index is among the chosen ones.
    pub(super) fn chooses(&self, index: &str) -> bool {
        self.indexes.is_empty() || self.indexes.iter().any(|chosen| chosen == index)
    }
}
