//! `weft backup`: copies, looks for the moment to which the copies belong, and stores them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::copy::Copy;
use super::folder::{self, Folder};
use super::manifest::{Damage, FORMAT, Manifest};
use super::progress::Progress;
use super::session::{Index, Round, Session, Touched, Writes};
use super::{BackupArgs, BackupError, Counts};
use crate::cli::job::Job;
use crate::cli::remote::Remote;

/// How often the cluster may end a backup before it is given up: shards came or went, another merger leads.
const BEGINNINGS: usize = 3;
/// How often the copy of an index may be broken off because a node was away.
const ATTEMPTS: usize = 5;
/// How often an index may be copied anew because it was changed as a whole.
const COPIES: usize = 6;
/// What writers may have waited for their turn before the locks are held: a part of the pause that isn't in the client's hands.
const BEFORE_THE_LOCKS: Duration = Duration::from_millis(200);

/// What was copied.
struct Taken {
    last_task: Option<u32>,
    pause_ms: u64,
    state: Value,
    copies: BTreeMap<String, Copy>,
    rounds: usize,
}

/// Makes a backup. Returns what was done.
pub(super) async fn take(
    remote: &Remote,
    args: &BackupArgs,
    job: &Job,
) -> Result<Value, BackupError> {
    let folder = Folder::open(&args.dir)?;
    let before = match Manifest::read(&args.dir) {
        Ok(before) => Some(before),
        Err(Damage::None(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let begun = Instant::now();
    let progress = Progress::new(job);
    let mut beginnings = 0;
    let taken = loop {
        beginnings += 1;
        folder.clear()?;
        let session = Session::begin(remote).await?;
        let mut taking = Taking {
            session: &session,
            folder: &folder,
            before: before.as_ref(),
            progress: &progress,
            copies: BTreeMap::new(),
            times: BTreeMap::new(),
        };
        let taken = taking.take(args).await;
        session.end().await;
        match taken {
            Err(error) if error.is_broken() && beginnings < BEGINNINGS => {}
            taken => break taken?,
        }
    };
    drop(progress);
    store(&folder, remote, taken, begun)
}

fn store(
    folder: &Folder,
    remote: &Remote,
    taken: Taken,
    begun: Instant,
) -> Result<Value, BackupError> {
    let mut counts = Counts::default();
    let state = serde_json::to_vec_pretty(&taken.state).unwrap_or_default();
    let state = folder.store("state", ".json", &state)?;
    let mut indexes = Vec::with_capacity(taken.copies.len());
    for copy in taken.copies.into_values() {
        indexes.push(copy.store(folder, &mut counts)?);
    }
    let now = OffsetDateTime::now_utc();
    let mut source = remote.url().clone();
    // Whoever puts a password into a URL doesn't expect it in a backup.
    let _ = source.set_password(None);
    let manifest = Manifest {
        format: FORMAT,
        id: Uuid::new_v4().to_string(),
        created_at: now.format(&Rfc3339).unwrap_or_default(),
        weft: env!("CARGO_PKG_VERSION").to_owned(),
        source: source.to_string(),
        last_task: taken.last_task,
        pause_ms: taken.pause_ms,
        state,
        indexes,
    };
    // What is kept of the earlier backup was verified at the beginning, and what is new when it was written.
    for file in manifest.files() {
        folder::is_there(folder.path(), file)?;
    }
    folder.finish(&manifest)?;
    Ok(json!({
        "id": manifest.id,
        "lastTask": manifest.last_task,
        "indexes": manifest.indexes.len(),
        "documents": manifest.indexes.iter().map(|index| index.documents).sum::<u64>(),
        "files": manifest.files().count(),
        "copiedFiles": counts.copied,
        "keptFiles": counts.kept,
        "copiedBytes": counts.bytes,
        "rounds": taken.rounds,
        "longestPauseMs": manifest.pause_ms,
        "seconds": begun.elapsed().as_secs(),
    }))
}

/// A backup in the making.
struct Taking<'a> {
    session: &'a Session<'a>,
    folder: &'a Folder,
    before: Option<&'a Manifest>,
    progress: &'a Progress<'a>,
    copies: BTreeMap<String, Copy>,
    /// How often each index was copied.
    times: BTreeMap<String, usize>,
}

impl Taking<'_> {
    async fn take(&mut self, args: &BackupArgs) -> Result<Taken, BackupError> {
        for index in self.session.indexes().await? {
            self.copy(index).await?;
        }
        let mut state = self.session.state().await?;
        let pause = Duration::from_millis(args.max_pause_ms);
        let hold = pause.saturating_sub(BEFORE_THE_LOCKS);
        let (begun, mut rounds, mut longest) = (Instant::now(), 0, 0);
        let last_task = loop {
            rounds += 1;
            match self.session.round(hold).await? {
                Round::Consistent {
                    last_task,
                    pause_ms,
                } => {
                    longest = longest.max(pause_ms);
                    break last_task;
                }
                Round::Held {
                    last_task,
                    pause_ms,
                    indexes,
                    state: read,
                } => {
                    longest = longest.max(pause_ms);
                    for (uid, read) in indexes {
                        if let Some(copy) = self.copies.get_mut(&uid) {
                            copy.note_all(&read.ids, &read.documents)?;
                        }
                    }
                    state = read;
                    break last_task;
                }
                Round::Again { writes, pause_ms } => {
                    longest = longest.max(pause_ms);
                    self.copy_written(writes).await?;
                    state = self.session.state().await?;
                }
            }
            if begun.elapsed() > Duration::from_secs(args.give_up_after_s) {
                return Err(BackupError::Restless {
                    rounds,
                    seconds: args.give_up_after_s,
                });
            }
        };
        Ok(Taken {
            last_task,
            pause_ms: longest,
            state,
            copies: std::mem::take(&mut self.copies),
            rounds,
        })
    }

    /// Copies an index, or copies it anew.
    async fn copy(&mut self, index: Index) -> Result<(), BackupError> {
        let times = self.times.entry(index.uid.clone()).or_default();
        *times += 1;
        if *times > COPIES {
            return Err(BackupError::ChangesAllTheTime(index.uid));
        }
        let uid = index.uid.clone();
        // Its notebooks are begun anew, too.
        self.copies.remove(&uid);
        let before = self.before.and_then(|before| before.index(&uid));
        let mut attempts = 0;
        let copy = loop {
            attempts += 1;
            let (session, folder) = (self.session, self.folder);
            match Copy::of(session, folder, index.clone(), before, self.progress).await {
                // The node that was read was away for a moment, and what was copied of other indexes is as good as before.
                Err(error) if error.is_broken() && attempts < ATTEMPTS => {}
                copy => break copy?,
            }
        };
        self.copies.insert(uid, copy);
        Ok(())
    }

    /// Copies what was written since the last round.
    async fn copy_written(&mut self, writes: Writes) -> Result<(), BackupError> {
        let is_doubtful = |uid: &String| {
            writes.everything || matches!(writes.indexes.get(uid), Some(Touched::All))
        };
        let changed = writes.indexes.keys().any(&is_doubtful);
        if writes.list || writes.everything || changed {
            let now = self.session.indexes().await?;
            self.copies
                .retain(|uid, _| now.iter().any(|index| index.uid == *uid));
            for index in now {
                if is_doubtful(&index.uid) || !self.copies.contains_key(&index.uid) {
                    self.copy(index).await?;
                }
            }
        }
        for (uid, touched) in &writes.indexes {
            if let (Touched::Ids(ids), Some(copy)) = (touched, self.copies.get_mut(uid)) {
                copy.take_written(self.session, ids).await?;
            }
        }
        Ok(())
    }
}
