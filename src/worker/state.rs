//! The state of a job: a folder that each attempt finds as the last one left it, on whatever worker.
//!
//! While a command runs, the folder is copied whole to the [`Vault`]: when the command asks for it, when files have changed
//! and are at rest, and when the run ends other than with success. The first run of a job costs no round trip for it; it
//! becomes the state's run with its first save. Each later run reads the state and is from then on the only one that may
//! save it, so that a run that was taken for dead cannot replace what its successor has saved.
//!
//! Whatever goes wrong with a state is said, and the run goes on without.

mod archive;
mod vault;

use std::fmt;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, timeout};

use super::outcome::Outcome;
use super::scratch;
use crate::core::account::SavedState;
use crate::runtime::clock;
use crate::store::{Channel, Error};
use archive::{ArchiveError, Inventory};
pub use vault::{Id, Vault, sweep};
use vault::{Opened, VaultError, blocking};

/// For so long no file must have changed where the command does not say that its state is whole.
const REST: Duration = Duration::from_secs(1);
/// How long saving may take at the end of a run, before it ends without. A worker that is killed 20 seconds after it has
/// stopped its runs puts their messages back in the rest of that time.
const LAST_SAVE: Duration = Duration::from_secs(8);

/// How the states of a task's jobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    /// Another version does not begin with what this one has saved.
    pub version: String,
    /// How often it is looked whether files have changed.
    pub interval: Duration,
}

/// With what a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish<'a> {
    /// Whether it begins without what an earlier one has left.
    pub anew: bool,
    /// The job whose state it begins with, where it has none of its own.
    pub other: Option<&'a str>,
}

/// The state of a job while a run works on it.
pub struct State {
    id: Id,
    folder: PathBuf,
    vault: Vault,
    interval: Duration,
    /// What the last saved snapshot holds, nothing when the run is over. Locked while the folder is copied, so that copies
    /// follow each other.
    saved: Arc<Mutex<Option<Inventory>>>,
    /// Whether the vault has heard of this run.
    is_known: AtomicBool,
    /// Why the run began without what was saved.
    began_without: Mutex<Option<Arc<str>>>,
    told: watch::Sender<SavedState>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("id", &self.id).field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Where the states of this worker are kept.
pub fn vault(channel: &Channel, folder: Option<&Path>) -> Vault {
    folder.map_or_else(|| Vault::Redis(channel.clone()), |folder| Vault::Folder(folder.to_owned()))
}

impl State {
    /// The state for this run, in a folder of its own, which is empty. None where there is no place for it.
    pub fn new(id: Id, vault: Vault, interval: Duration) -> Option<Self> {
        let folder = make_folder(scratch::path()?)?;
        let saved = Arc::new(Mutex::new(Some(Inventory::default())));
        let (is_known, began_without) = (AtomicBool::new(false), Mutex::default());
        Some(Self { id, folder, vault, interval, saved, is_known, began_without, told: watch::Sender::default() })
    }

    /// Puts what is saved into the folder, and makes this run the only one that may save it.
    pub async fn restore(&self, wish: Wish<'_>) -> Result<(), Error> {
        self.is_known.store(true, Ordering::Relaxed);
        let job = &self.id.job;
        match self.vault.open(&self.id, wish.other, wish.anew, &self.folder).await {
            Ok(Opened::Nothing) => {}
            Ok(Opened::Restored(saved_at, bytes)) => {
                tracing::info!(%job, bytes, "the run begins with the state that the last one left");
                if let Ok(inventory) = Inventory::of(&self.folder) {
                    *self.saved.lock() = Some(inventory);
                }
                self.told.send_modify(|told| *told = SavedState { saved_at, bytes, is_resumed: true, problem: None });
            }
            Ok(Opened::OtherVersion) => {
                self.begins_without("another version of the task has saved the state; the run has begun without it");
            }
            // It may be answered when it is asked once more, unless the answer is none.
            Err(VaultError::Redis(error)) if !matches!(error, Error::Unexpected { .. }) => return Err(error),
            Err(error) => self.cannot_be_read(&error),
        }
        Ok(())
    }

    /// Says that what is saved cannot be read, and takes away what was read of it.
    pub fn cannot_be_read(&self, error: &dyn std::error::Error) {
        self.begins_without(&format!("reading the state failed, and the run has begun without it: {error}"));
        // It cannot have been removed by another one.
        let _ = fs::remove_dir_all(&self.folder);
        make_folder(self.folder.clone());
    }

    /// Says why the run begins without what was saved.
    pub fn begins_without(&self, problem: &str) {
        tracing::warn!(job = %self.id.job, problem, "the run begins without the state of its job");
        *self.began_without.lock() = Some(problem.into());
        self.has(problem);
    }

    /// Where the command finds it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is known of it, and told again whenever that changes.
    pub fn told(&self) -> watch::Receiver<SavedState> {
        self.told.subscribe()
    }

    /// What is known of it, if there is anything to say.
    pub fn report(&self) -> Option<SavedState> {
        let told = self.told.borrow().clone();
        (told != SavedState::default()).then_some(told)
    }

    /// Saves it while the command runs: each time that `asked` grows, and when files have changed. For ever.
    pub async fn keep(&self, mut asked: watch::Receiver<u64>) {
        let mut looks = interval_at(Instant::now() + self.interval, self.interval);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_whole = tokio::select! {
                changed = asked.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => std::future::pending().await,
                },
                _ = looks.tick() => false,
            };
            self.save(is_whole).await;
        }
    }

    /// Waits until it is saved once more.
    pub async fn saved_again(&self) {
        let mut told = self.told();
        let before = told.borrow_and_update().saved_at;
        // The sender lives as long as this.
        let _ = told.wait_for(|told| told.saved_at.is_some() && told.saved_at != before).await;
    }

    /// Whether a snapshot is saved, be it of an earlier run.
    pub fn is_saved(&self) -> bool {
        self.told.borrow().saved_at.is_some()
    }

    /// Deletes what is saved, once the success of the run is stored: until then another run may follow.
    pub async fn forget(&self) {
        if self.is_known.load(Ordering::Relaxed)
            && let Err(error) = self.vault.forget(&self.id).await
        {
            tracing::warn!(job = %self.id.job, %error, "deleting the state of a job that has succeeded failed; it is deleted when its time is over");
        }
    }

    /// Saves what a run has left that is tried again, or that another job may begin with.
    pub async fn end(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Succeeded(_) => {}
            Outcome::Failed { failure, .. } => {
                let exception = &failure.exception;
                let is_killed = exception.exc_module.as_deref() == Some("billiard.exceptions")
                    && exception.exc_type != "SoftTimeLimitExceeded";
                self.leave(!is_killed).await;
            }
            Outcome::Stopped { .. } => self.leave(true).await,
        }
    }

    /// Saves what a run has left. One that was killed may have been in the middle of a file: then what was saved last
    /// counts, unless the files were at rest.
    pub async fn leave(&self, is_whole: bool) {
        if timeout(LAST_SAVE, self.save(is_whole)).await.is_err() {
            tracing::warn!(job = %self.id.job, "saving the state of a job took too long; what was saved before counts");
        }
    }

    async fn save(&self, is_whole: bool) {
        let (id, vault, folder, saved) = (self.id.clone(), self.vault.clone(), self.folder.clone(), self.saved.clone());
        let copied = blocking(move || {
            let last = saved.lock();
            let Some(last) = &*last else { return Ok(None) };
            let inventory = Inventory::of(&folder)?;
            if inventory == *last || !(is_whole || inventory.is_at_rest(SystemTime::from(clock::now()), REST)) {
                return Ok(None);
            }
            vault.copy(&id, &folder, inventory).map(Some)
        })
        .await;
        let written = match copied {
            Ok(None) => return,
            Ok(Some((copied, inventory))) => self.vault.save(&self.id, copied).await.map(|saved| (saved, inventory)),
            Err(error) => Err(error),
        };
        match written {
            Ok((Some(saved), inventory)) => {
                *self.saved.lock() = Some(inventory);
                self.is_known.store(true, Ordering::Relaxed);
                tracing::debug!(job = %self.id.job, bytes = saved.bytes, "saved the state of a job");
                let problem = self.began_without.lock().clone();
                self.told.send_modify(|told| {
                    *told = SavedState { saved_at: Some(saved.at), bytes: saved.bytes, problem, ..*told };
                });
            }
            Ok((None, _)) => {
                self.has("a later run of the job has begun; only that one saves its state");
            }
            // It is looked at again.
            Err(VaultError::Archive(ArchiveError::Changing)) if !is_whole => {}
            Err(error) => {
                tracing::warn!(job = %self.id.job, %error, "saving the state of a job failed; the run goes on, and what was saved before counts");
                self.has(&format!("saving the state failed, and what was saved before counts: {error}"));
            }
        }
    }

    fn has(&self, problem: &str) {
        self.told.send_if_modified(|told| {
            let is_new = told.problem.as_deref() != Some(problem);
            told.problem = Some(problem.into());
            is_new
        });
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Mostly it is empty.
        if fs::remove_dir(&self.folder).is_err() {
            let (folder, saved) = (std::mem::take(&mut self.folder), self.saved.clone());
            let remove = move || {
                // A copy whose run is over must not be made of what is left of it.
                *saved.lock() = None;
                fs::remove_dir_all(folder)
            };
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(remove)),
                Err(_) => drop(remove()),
            }
        }
    }
}

fn make_folder(folder: PathBuf) -> Option<PathBuf> {
    match DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => Some(folder),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "creating the folder of a job's state failed; the run goes on without");
            None
        }
    }
}
