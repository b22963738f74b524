//! Where a job leaves the table.

use std::collections::HashSet;

use uuid::Uuid;

use super::super::super::id::ObjectKey;
use super::entry::is_newer;
use super::{Entry, Lane, Table};

impl<F> Table<F> {
    /// Drops a job that is over or gone; no job ever comes back from there.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Box<Entry<F>>> {
        let entry = self.by_key.remove(key)?;
        self.index.change(key, Some(&entry.share()), None);
        self.forget_lane(&entry.lane);
        self.texts -= entry.evidence.text_bytes();
        self.fresh -= usize::from(entry.fresh.is_some());
        self.by_task.remove(&entry.job.attempt_in_hand().task);
        if !key.is_deleted() {
            self.over.remember(entry.job.uid, ());
        }
        Some(entry)
    }

    /// The same, if it still is this job: another one may have taken its name.
    pub fn remove_job(&mut self, key: &ObjectKey, uid: Uuid) -> Option<Box<Entry<F>>> {
        self.get(key).filter(|entry| entry.job.uid == uid)?;
        self.remove(key)
    }

    /// The same for an object that has ended: takes out the job, or an older one of its name that was deleted.
    pub fn remove_ended(&mut self, key: &ObjectKey, uid: Uuid, version: &str) -> Option<Box<Entry<F>>> {
        self.get(key).filter(|entry| entry.job.uid == uid || is_newer(version, &entry.version))?;
        self.remove(key)
    }

    /// The jobs that a list did not contain.
    pub fn missing_from(&self, listed: &HashSet<ObjectKey>) -> Vec<(Lane, ObjectKey)> {
        let missing = self.by_key.iter().filter(|(key, _)| !key.is_deleted() && !listed.contains(*key));
        missing.map(|(_, entry)| entry.turn_of()).collect()
    }
}
