//! The states of jobs: a hash for each, of the run that may save it, and of the last whole snapshot.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use redis::Script;

use super::{Channel, Error};
use crate::store::link::script;

static OPEN: LazyLock<Script> = script!("lua/state_open.lua");
static SAVE: LazyLock<Script> = script!("lua/state_save.lua");
static DROP: LazyLock<Script> = script!("lua/state_drop.lua");

/// A snapshot, as it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The version of the task that made it.
    pub version: String,
    /// When it was saved, by the clock of Redis.
    pub saved_at: Option<Timestamp>,
    /// Its archive.
    pub archive: Vec<u8>,
}

impl Channel {
    /// Makes `run` the only one that may save the state of `job` from now on, and reads what is saved; with `other`, what
    /// that job has saved where this one has nothing. With `anew` what was saved is deleted first.
    pub async fn open_state(
        &self,
        job: &str,
        run: &str,
        other: Option<&str>,
        anew: bool,
        keep: Duration,
    ) -> Result<Option<Snapshot>, Error> {
        let mut call = OPEN.key(self.state_key(job));
        if let Some(other) = other {
            call.key(self.state_key(other));
        }
        call.arg(run).arg(keep.as_secs().max(1)).arg(u8::from(anew));
        let (version, saved, archive): (String, String, Vec<u8>) =
            self.0.broker.script("reading the state of a job", &call).await?;
        let saved_at = saved.parse().ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
        Ok((!archive.is_empty()).then_some(Snapshot { version, saved_at, archive }))
    }

    /// Saves a snapshot, in one round trip. Answers when it was saved; `None` where a later run has begun, which alone
    /// may save the state then.
    pub async fn save_state(
        &self,
        job: &str,
        run: &str,
        version: &str,
        archive: &[u8],
        keep: Duration,
    ) -> Result<Option<Timestamp>, Error> {
        let mut call = SAVE.key(self.state_key(job));
        call.arg(run).arg(keep.as_secs().max(1)).arg(version).arg(archive);
        let saved: Option<i64> = self.0.broker.script("saving the state of a job", &call).await?;
        Ok(saved.and_then(|millis| Timestamp::from_millisecond(millis).ok()))
    }

    /// Deletes the state of a job, unless a later run has begun.
    pub async fn drop_state(&self, job: &str, run: &str) -> Result<(), Error> {
        self.0.broker.script("deleting the state of a job", DROP.key(self.state_key(job)).arg(run)).await
    }

    /// The hash of a job's state, in the broker's Redis; the same key that the package for Python workers uses.
    fn state_key(&self, job: &str) -> String {
        format!("{}crewjob-state:{job}", self.0.keys.prefix)
    }
}
