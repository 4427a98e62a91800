//! `weft store copy`: moves a cluster's state from a file to etcd, or back, while no merger runs.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::etcd::{Etcd, EtcdClient, EtcdError, OptionsError};
use crate::leadership::{Candidate, Election, Leadership};
use crate::options::EtcdArgs;
use crate::store::{
    Copied, CopyError, EtcdStore, IdentityError, RedbStore, StoreError, begin_copy, claim, copy,
    end_copy, refuse_unfinished,
};

/// How long a copy that died keeps mergers from leading.
const LEASE: Duration = Duration::from_secs(10);

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The etcd that the options name.
    Etcd,
    /// A file of redb.
    File(PathBuf),
}

impl FromStr for Place {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "etcd" => Self::Etcd,
            file => Self::File(file.into()),
        })
    }
}

/// What `weft store copy` may be told.
#[derive(Debug, Clone, clap::Args)]
pub struct CopyOptions {
    /// Where the state is: `etcd`, or a file such as `weft-data/weft.redb`.
    #[arg(long)]
    pub from: Place,
    /// Where it shall be: `etcd` (an empty prefix), or a file that doesn't exist yet.
    #[arg(long)]
    pub to: Place,
    /// The etcd.
    #[command(flatten)]
    pub etcd: EtcdArgs,
}

/// Why the state was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyStoreError {
    /// Not one file and etcd.
    #[error("one of --from and --to is `etcd`, and the other a file")]
    NotBoth,
    /// No etcd is named.
    #[error("which etcd? --etcd names its endpoints")]
    NoEtcd,
    /// The options for etcd don't fit together.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// etcd doesn't answer, or doesn't let us in.
    #[error("etcd can't be used: {0}")]
    Etcd(#[from] EtcdError),
    /// What stands in etcd isn't what is expected.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A merger runs.
    #[error("a merger leads below that prefix: stop all mergers first")]
    MergerRuns,
    /// There is no such file.
    #[error("there is no file {0}")]
    NoFile(PathBuf),
    /// The target exists.
    #[error("{0} exists: a copy needs a file that doesn't")]
    FileExists(PathBuf),
    /// The file can't be opened: a merger may run on it.
    #[error("{0} can't be opened: {1} (does a merger run on it?)")]
    File(PathBuf, StoreError),
    /// The file can't be put in its place.
    #[error("{0} can't be written: {1}")]
    Rename(PathBuf, std::io::Error),
    /// The copy failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies the whole state, and compares it afterwards.
///
/// # Errors
/// It was not copied. Nothing is overwritten, and no merger uses a part: a file gets its name at the end, and a prefix in etcd is
/// marked until then.
pub async fn copy_store(options: &CopyOptions) -> Result<Copied, CopyStoreError> {
    let file = match (&options.from, &options.to) {
        (Place::File(file), Place::Etcd) | (Place::Etcd, Place::File(file)) => file,
        _ => return Err(CopyStoreError::NotBoth),
    };
    let etcd = options.etcd.options()?.ok_or(CopyStoreError::NoEtcd)?;
    let etcd = EtcdClient::new(etcd);
    etcd.check(&options.etcd.prefix.leader()).await?;
    let copying = Copying {
        etcd: Arc::new(etcd),
        options: &options.etcd,
    };
    match options.from {
        Place::File(_) => copying.to_etcd(file).await,
        Place::Etcd => copying.to_file(file).await,
    }
}

struct Copying<'a> {
    etcd: Arc<dyn Etcd>,
    options: &'a EtcdArgs,
}

impl Copying<'_> {
    /// Leads below the prefix, so that no merger does.
    async fn lead(&self) -> Result<Leadership, CopyStoreError> {
        let me = Candidate {
            id: "weft store copy".to_owned(),
            address: std::net::SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let etcd = Arc::clone(&self.etcd);
        let election = Election::new(etcd, &self.options.prefix, me, LEASE);
        let won = election.try_to_win().await?;
        won.ok_or(CopyStoreError::MergerRuns)
    }

    async fn store(&self, leadership: &Leadership) -> Result<EtcdStore, StoreError> {
        let (etcd, prefix) = (Arc::clone(&self.etcd), self.options.prefix.clone());
        EtcdStore::open(etcd, prefix, leadership.term().clone()).await
    }

    async fn to_etcd(&self, file: &Path) -> Result<Copied, CopyStoreError> {
        if !file.is_file() {
            return Err(CopyStoreError::NoFile(file.to_owned()));
        }
        let from = open_file(file)?;
        let leadership = self.lead().await?;
        let copied = self.fill_prefix(&from, &leadership).await;
        leadership.step_down().await;
        copied
    }

    async fn fill_prefix(
        &self,
        from: &RedbStore,
        leadership: &Leadership,
    ) -> Result<Copied, CopyStoreError> {
        let (prefix, term) = (&self.options.prefix, leadership.term());
        let expected = self.options.cluster_id.as_deref();
        claim(&self.etcd, prefix, term, expected, false).await?;
        begin_copy(&self.etcd, prefix, term).await?;
        let copied = {
            let to = self.store(leadership).await?;
            copy(from, &to).await?
        };
        end_copy(&self.etcd, prefix, term).await?;
        Ok(copied)
    }

    async fn to_file(&self, file: &Path) -> Result<Copied, CopyStoreError> {
        if file.exists() {
            return Err(CopyStoreError::FileExists(file.to_owned()));
        }
        let leadership = self.lead().await?;
        let copied = self.fill_file(file, &leadership).await;
        leadership.step_down().await;
        copied
    }

    async fn fill_file(
        &self,
        file: &Path,
        leadership: &Leadership,
    ) -> Result<Copied, CopyStoreError> {
        let (prefix, term) = (&self.options.prefix, leadership.term());
        let expected = self.options.cluster_id.as_deref();
        claim(&self.etcd, prefix, term, expected, false).await?;
        refuse_unfinished(&*self.etcd, prefix).await?;
        let from = self.store(leadership).await?;
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let renamed = |error| CopyStoreError::Rename(file.to_owned(), error);
        if part.exists() {
            // It is what an interrupted copy left.
            std::fs::remove_file(&part).map_err(renamed)?;
        }
        let copied = {
            let to = open_file(&part)?;
            copy(&from, &to).await?
        };
        std::fs::rename(&part, file).map_err(renamed)?;
        Ok(copied)
    }
}

fn open_file(file: &Path) -> Result<RedbStore, CopyStoreError> {
    RedbStore::open(file).map_err(|error| CopyStoreError::File(file.to_owned(), error))
}
