//! Where the states of jobs are kept: on Redis, or in a folder that all workers share.
//!
//! In a folder a state is two files: `<key>.run` names the run that may save it, `<key>.state` is a line of JSON about the
//! archive that follows. Both are replaced whole, by renaming.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::archive::{ArchiveError, Inventory, pack, unpack};
use crate::runtime::clock;
use crate::store::{Channel, Error};
use crate::wire::{Object, Value, time};

/// How often a folder that changes meanwhile is copied anew, and the pause before that.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(25);
/// Longest first line of a file.
const LINE: u64 = 4096;

/// Why a state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The folder of the job cannot be copied, or an archive not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Redis refuses it.
    #[error(transparent)]
    Redis(#[from] Error),
    /// The folder of all states cannot be read or written.
    #[error("{path:?}: {source}")]
    Folder {
        /// The file.
        path: PathBuf,
        /// What was seen.
        #[source]
        source: io::Error,
    },
    /// The worker ends.
    #[error("the worker stops")]
    Stopping,
}

/// The place of all states.
#[derive(Clone)]
pub enum Vault {
    /// The broker.
    Redis(Channel),
    /// A folder.
    Folder(PathBuf),
}

/// What identifies a state and the run that works on it.
#[derive(Debug, Clone)]
pub struct Id {
    /// Whose state it is.
    pub job: String,
    /// The run.
    pub run: String,
    /// The version of its task.
    pub version: String,
    /// How long it is kept after it was saved.
    pub keep: Duration,
    /// Most bytes of its archive.
    pub limit: u64,
}

/// A saved snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// When it was saved.
    pub at: Timestamp,
    /// The size of its archive.
    pub bytes: u64,
}

/// What was found when a state was opened.
#[derive(Debug)]
pub enum Opened {
    /// Nothing was saved.
    Nothing,
    /// It is in the job's folder now.
    Restored(Option<Timestamp>, u64),
    /// Another version of the task has saved it.
    OtherVersion,
}

/// A copy of the job's folder.
pub enum Copied {
    /// In memory, to be saved.
    Bytes(Vec<u8>),
    /// In the shared folder, unless a later run has begun.
    Saved(Option<Saved>),
}

impl Vault {
    /// Makes the run of `id` the only one that may save its state, and puts what is saved into `target`; of the job
    /// `other` where nothing is.
    pub async fn open(&self, id: &Id, other: Option<&str>, anew: bool, target: &Path) -> Result<Opened, VaultError> {
        let (id, target) = (id.clone(), target.to_owned());
        match self {
            Self::Redis(channel) => {
                let Some(found) = channel.open_state(&id.job, &id.run, other, anew, id.keep).await? else {
                    return Ok(Opened::Nothing);
                };
                if found.version != id.version {
                    return Ok(Opened::OtherVersion);
                }
                blocking(move || {
                    let bytes = size(found.archive.len());
                    unpack(&found.archive[..], bytes, &target)?;
                    Ok(Opened::Restored(found.saved_at, bytes))
                })
                .await
            }
            Self::Folder(folder) => {
                let (folder, other) = (folder.clone(), other.map(str::to_owned));
                blocking(move || open_file(&folder, &id, other.as_deref(), anew, &target)).await
            }
        }
    }

    /// Copies a job's folder, whole. Call it on a thread that may block, and one call after the other.
    pub fn copy(&self, id: &Id, source: &Path, mut inventory: Inventory) -> Result<(Copied, Inventory), VaultError> {
        let mut tries = 0;
        loop {
            let copied = match self {
                Self::Redis(_) => {
                    let mut bytes = Vec::new();
                    let packed = pack(source, &inventory, &mut bytes, id.limit);
                    packed.map(|()| Copied::Bytes(bytes)).map_err(VaultError::from)
                }
                Self::Folder(folder) => copy_to_file(folder, id, source, &inventory).map(Copied::Saved),
            };
            tries += 1;
            match copied {
                Ok(copied) => return Ok((copied, inventory)),
                Err(VaultError::Archive(ArchiveError::Changing)) if tries < TRIES => {
                    std::thread::sleep(PAUSE);
                    inventory = Inventory::of(source)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Saves a copy in place of the one before; nothing where a later run has begun.
    pub async fn save(&self, id: &Id, copied: Copied) -> Result<Option<Saved>, VaultError> {
        match (self, copied) {
            (Self::Redis(channel), Copied::Bytes(archive)) => {
                let saved = channel.save_state(&id.job, &id.run, &id.version, &archive, id.keep).await?;
                Ok(saved.map(|at| Saved { at, bytes: size(archive.len()) }))
            }
            (Self::Redis(_) | Self::Folder(_), Copied::Saved(saved)) => Ok(saved),
            (Self::Folder(_), Copied::Bytes(_)) => Ok(None),
        }
    }

    /// Deletes a state, unless a later run has begun.
    pub async fn forget(&self, id: &Id) -> Result<(), VaultError> {
        match self {
            Self::Redis(channel) => Ok(channel.drop_state(&id.job, &id.run).await?),
            Self::Folder(folder) => {
                let (folder, id) = (folder.clone(), id.clone());
                blocking(move || {
                    if is_ours(&folder, &id)? {
                        for end in ["state", "run"] {
                            // It may not be there.
                            let _ = fs::remove_file(folder.join(format!("{}.{end}", hash(&id.job))));
                        }
                    }
                    Ok(())
                })
                .await
            }
        }
    }
}

/// Deletes what was last written longer than `keep` ago. Redis does so by itself. Call it on a thread that may block.
pub fn sweep(folder: &Path, keep: Duration) -> io::Result<u64> {
    let (now, mut swept) = (SystemTime::from(clock::now()), 0);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|end| end == "state" || end == "run" || end == "new");
        // Another worker may sweep, too.
        let changed = fs::symlink_metadata(&path).and_then(|about| about.modified());
        let is_old = changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > keep));
        if is_ours && is_old && fs::remove_file(&path).is_ok() {
            swept += 1;
        }
    }
    Ok(swept)
}

fn copy_to_file(folder: &Path, id: &Id, source: &Path, inventory: &Inventory) -> Result<Option<Saved>, VaultError> {
    let new = folder.join(format!("{}.{}.new", hash(&id.job), clock::random_id()));
    let saved = write_file(&new, folder, id, source, inventory);
    if !matches!(saved, Ok(Some(_))) {
        // It may not have been made.
        let _ = fs::remove_file(&new);
    }
    saved
}

fn write_file(
    new: &Path,
    folder: &Path,
    id: &Id,
    source: &Path,
    inventory: &Inventory,
) -> Result<Option<Saved>, VaultError> {
    let saved_at = clock::now();
    let header = Object::new().with("version", &*id.version).with("saved_at", time::format(saved_at));
    let mut line = Value::from(header).to_json().into_bytes();
    line.push(b'\n');
    let mut file = File::create_new(new).map_err(at(new))?;
    file.write_all(&line).map_err(at(new))?;
    pack(source, inventory, &mut file, id.limit)?;
    file.sync_all().map_err(at(new))?;
    let all = file.metadata().map_err(at(new))?.len();
    if !is_ours(folder, id)? {
        return Ok(None);
    }
    claim(folder, id)?;
    let path = folder.join(format!("{}.state", hash(&id.job)));
    fs::rename(new, &path).map_err(at(&path))?;
    Ok(Some(Saved { at: saved_at, bytes: all.saturating_sub(size(line.len())) }))
}

fn open_file(folder: &Path, id: &Id, other: Option<&str>, anew: bool, target: &Path) -> Result<Opened, VaultError> {
    let own = folder.join(format!("{}.state", hash(&id.job)));
    claim(folder, id)?;
    if anew {
        let removed = fs::remove_file(&own);
        return match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&own)(error)),
            Ok(()) | Err(_) => Ok(Opened::Nothing),
        };
    }
    let others = other.map(|other| folder.join(format!("{}.state", hash(other))));
    for path in [Some(own), others].into_iter().flatten() {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(&path)(error)),
        };
        let all = file.metadata().map_err(at(&path))?.len();
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        file.by_ref().take(LINE).read_until(b'\n', &mut line).map_err(at(&path))?;
        let header = Value::parse(&line).ok();
        let field = |name: &str| header.as_ref().and_then(|header| header.get(name)).and_then(Value::as_str);
        if field("version") != Some(&id.version) {
            return Ok(Opened::OtherVersion);
        }
        let bytes = all.saturating_sub(size(line.len()));
        unpack(file, bytes, target)?;
        return Ok(Opened::Restored(field("saved_at").and_then(time::parse), bytes));
    }
    Ok(Opened::Nothing)
}

/// Whether no later run has begun.
fn is_ours(folder: &Path, id: &Id) -> Result<bool, VaultError> {
    let path = folder.join(format!("{}.run", hash(&id.job)));
    match fs::read_to_string(&path) {
        Ok(run) => Ok(run == id.run),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(at(&path)(error)),
    }
}

fn claim(folder: &Path, id: &Id) -> Result<(), VaultError> {
    let path = folder.join(format!("{}.run", hash(&id.job)));
    let new = folder.join(format!("{}.{}.new", hash(&id.job), clock::random_id()));
    fs::write(&new, &id.run).map_err(at(&new))?;
    fs::rename(&new, &path).map_err(at(&path))
}

/// A name for a file: senders choose the ids of tasks.
fn hash(job: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(job) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> VaultError {
    let path = path.to_owned();
    move |source| VaultError::Folder { path, source }
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(VaultError::Stopping))
}

#[cfg(test)]
mod tests;
