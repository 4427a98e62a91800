//! Finds the programs: first by environment variables, then where the Makefile puts them.

use std::env;
use std::path::{Path, PathBuf};

use crate::HarnessError;

/// The programs that a cluster is made of.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The merger and its tools: `WEFT_BIN`, or `target/release/weft`.
    pub weft: PathBuf,
    /// A node's program.
    pub node: Node,
    /// Envoy: `ENVOY_BIN`, or `.venv/bin/envoy`.
    pub envoy: PathBuf,
    /// The filter: `WEFT_FILTER_WASM`, or `target/wasm32-wasip1/release/weft_filter.wasm`.
    pub filter: PathBuf,
}

/// The kind of node that a shard consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// The user's own Meilisearch: `MEILISEARCH_BIN`.
    Real(PathBuf),
    /// The embedded node: `WEFT_NODE_BIN`, or `target/release/weft-node`.
    Embedded(PathBuf),
}

impl Node {
    /// The program's path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Real(path) | Self::Embedded(path) => path,
        }
    }
}

impl Binaries {
    /// Finds all programs. The error says what is missing and how to get it.
    pub fn find() -> Result<Self, HarnessError> {
        let binaries = Self::locate();
        let Self {
            weft,
            node,
            envoy,
            filter,
        } = &binaries;
        check_exists(
            "the merger",
            weft,
            "`make build` builds it, WEFT_BIN names another",
        )?;
        match node {
            Node::Real(path) => check_exists(
                "the server in MEILISEARCH_BIN",
                path,
                "name an executable that exists",
            )?,
            Node::Embedded(path) => {
                check_exists(
                    "the embedded node",
                    path,
                    "`make build` builds it, MEILISEARCH_BIN names a real server",
                )?;
            }
        }
        check_exists(
            "Envoy",
            envoy,
            "`make envoy` installs it, ENVOY_BIN names another",
        )?;
        check_exists(
            "the filter",
            filter,
            "`make build` builds it, WEFT_FILTER_WASM names another",
        )?;
        Ok(binaries)
    }

    /// The oldest Envoy that `envoy.yaml` supports: `ENVOY_OLDEST_BIN`, or `.venv-oldest/bin/envoy`.
    pub fn oldest_envoy() -> Result<PathBuf, HarnessError> {
        let envoy = env::var_os("ENVOY_OLDEST_BIN")
            .map_or_else(|| checkout().join(".venv-oldest/bin/envoy"), PathBuf::from);
        check_exists(
            "the oldest Envoy",
            &envoy,
            "`make envoy-oldest` installs it, ENVOY_OLDEST_BIN names another",
        )?;
        Ok(envoy)
    }

    /// etcd: `ETCD_BIN`, on the path, or where `make etcd` puts it.
    pub fn etcd() -> Result<PathBuf, HarnessError> {
        let fetched = checkout().join(".weft/etcd/usr/bin/etcd");
        let etcd = match env::var_os("ETCD_BIN").filter(|path| !path.is_empty()) {
            Some(named) => PathBuf::from(named),
            None => env::split_paths(&env::var_os("PATH").unwrap_or_default())
                .map(|folder| folder.join("etcd"))
                .find(|program| program.is_file())
                .unwrap_or(fetched),
        };
        check_exists(
            "etcd, which several mergers need,",
            &etcd,
            "`make etcd` fetches it, ETCD_BIN names another",
        )?;
        Ok(etcd)
    }

    fn locate() -> Self {
        let root = checkout();
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(dir));
        let or =
            |variable: &str, default: PathBuf| env::var_os(variable).map_or(default, PathBuf::from);
        Self {
            weft: or("WEFT_BIN", target.join("release/weft")),
            node: match env::var_os("MEILISEARCH_BIN").filter(|path| !path.is_empty()) {
                Some(path) => Node::Real(path.into()),
                None => Node::Embedded(or("WEFT_NODE_BIN", target.join("release/weft-node"))),
            },
            envoy: or("ENVOY_BIN", root.join(".venv/bin/envoy")),
            filter: or(
                "WEFT_FILTER_WASM",
                target.join("wasm32-wasip1/release/weft_filter.wasm"),
            ),
        }
    }
}

/// The folder that holds the workspace.
pub(crate) fn checkout() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

fn check_exists(what: &'static str, path: &Path, remedy: &'static str) -> Result<(), HarnessError> {
    if path.is_file() {
        Ok(())
    } else {
        Err(HarnessError::Missing {
            what,
            path: path.to_owned(),
            remedy,
        })
    }
}
