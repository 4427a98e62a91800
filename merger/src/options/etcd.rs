//! The etcd that several mergers share.

use std::path::PathBuf;

use clap::Args;

use crate::etcd::{EtcdOptions, OptionsError, Prefix, Secret, read_file};

/// The variable with the password for etcd: a flag would show it to everybody on the machine.
pub(super) const ETCD_PASSWORD: &str = "WEFT_ETCD_PASSWORD";

/// Where the etcd is that several mergers share, and what is kept there.
#[derive(Debug, Clone, Args)]
pub struct EtcdArgs {
    /// Endpoints of the etcd that several mergers share (`https://etcd-0:2379,…`). Without it, one merger keeps everything in its data folder.
    #[arg(long = "etcd", env = "WEFT_ETCD", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// What the cluster's keys in etcd begin with.
    #[arg(
        long = "etcd-prefix",
        env = "WEFT_ETCD_PREFIX",
        default_value = "/weft/"
    )]
    pub prefix: Prefix,
    /// File with the certificates (PEM) by which etcd's own is judged.
    #[arg(long = "etcd-ca", env = "WEFT_ETCD_CA")]
    pub ca: Option<PathBuf>,
    /// File with this merger's certificate (PEM), if etcd wants one.
    #[arg(long = "etcd-cert", env = "WEFT_ETCD_CERT")]
    pub cert: Option<PathBuf>,
    /// File with the key to that certificate (PEM).
    #[arg(long = "etcd-key", env = "WEFT_ETCD_KEY")]
    pub key: Option<PathBuf>,
    /// User at etcd, if it has users.
    #[arg(long = "etcd-user", env = "WEFT_ETCD_USER")]
    pub user: Option<String>,
    /// File with the user's password; without it, the variable `WEFT_ETCD_PASSWORD` has the password.
    #[arg(long = "etcd-password-file", env = "WEFT_ETCD_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// How often etcd is told to forget its history, in seconds; 0 means never, because somebody else does it.
    #[arg(
        long = "etcd-compact-interval-s",
        env = "WEFT_ETCD_COMPACT_INTERVAL_S",
        default_value_t = 300
    )]
    pub compact_interval_s: u64,
    /// The cluster whose state this must be. Without it, a merger remembers the first one in its data folder (`cluster-id`).
    #[arg(long, env = "WEFT_CLUSTER_ID")]
    pub cluster_id: Option<String>,
}

impl EtcdArgs {
    /// The way to etcd; `None` without one. Reads the files.
    ///
    /// # Errors
    /// The options don't fit together, or a file can't be read.
    pub fn options(&self) -> Result<Option<EtcdOptions>, OptionsError> {
        let endpoints = self.endpoints.iter().map(|endpoint| endpoint.trim());
        let endpoints = endpoints.filter(|endpoint| !endpoint.is_empty());
        let endpoints: Vec<String> = endpoints.map(str::to_owned).collect();
        if endpoints.is_empty() {
            return Ok(None);
        }
        let password = match &self.password_file {
            Some(file) => Some(read_file(file)?.trim_end_matches(['\r', '\n']).to_owned()),
            // Meant for somebody else where there is no user.
            None => std::env::var(ETCD_PASSWORD)
                .ok()
                .filter(|_| self.user.is_some()),
        };
        let identity = (self.cert.as_deref(), self.key.as_deref());
        EtcdOptions::at(&endpoints)?
            .with_tls(self.ca.as_deref(), identity)?
            .with_user(self.user.clone(), password.map(Secret::new))
            .map(Some)
    }
}
