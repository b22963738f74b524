//! The API server: jobs with resource versions, the rules that the CRD's CEL holds, and the Lease.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::job::{Job, Spec};
use super::super::once::{Claim, Ran};
use super::super::status::Status;

/// One stored object.
#[derive(Debug, Clone)]
pub struct Stored {
    pub version: u64,
    pub job: Job,
    /// Writes of the status.
    pub writes: u32,
    /// Deleted by a person.
    pub deleted: bool,
}

/// Which operator may act, and how often that has changed hands.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    pub holder: Option<usize>,
    pub transitions: u64,
    pub renewed_at: i64,
    /// When a leader last completed an audit: having led since proves nothing.
    pub audited_at: i64,
}

/// What is remembered of a run-once key.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// The job that has it.
    pub job: usize,
    /// The term of the operator that wrote it.
    pub epoch: u64,
    /// Whether the job succeeded, once it has run and ended.
    pub ended: Option<(bool, Timestamp)>,
}

#[derive(Debug)]
pub enum Refused {
    /// Another writer wrote in between.
    Conflict,
    /// A CEL rule says no.
    Invalid(&'static str),
}

#[derive(Debug, Default)]
pub struct ApiServer {
    pub jobs: Vec<Stored>,
    pub lease: Lease,
    /// The records of run-once keys.
    pub records: HashMap<Arc<str>, Record>,
    versions: u64,
}

impl ApiServer {
    fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// What a list of the unfinished jobs contains.
    pub fn unfinished(&self) -> impl Iterator<Item = &Stored> {
        self.jobs.iter().filter(|stored| !stored.deleted && !stored.job.status.phase.is_terminal())
    }

    /// What a list of the finished jobs contains.
    pub fn finished(&self) -> impl Iterator<Item = &Stored> {
        self.jobs.iter().filter(|stored| !stored.deleted && stored.job.status.phase.is_terminal())
    }

    pub fn create(&mut self, job: Job) -> usize {
        let version = self.next_version();
        self.jobs.push(Stored { version, job, writes: 0, deleted: false });
        self.jobs.len() - 1
    }

    /// A person edits the spec.
    pub fn edit(&mut self, job: usize, change: impl FnOnce(&mut Spec)) {
        let version = self.next_version();
        let stored = &mut self.jobs[job];
        change(&mut stored.job.spec);
        stored.job.spec.generation += 1;
        stored.version = version;
    }

    /// A person deletes the object.
    pub fn delete(&mut self, job: usize) {
        let version = self.next_version();
        self.jobs[job].version = version;
        self.jobs[job].deleted = true;
    }

    /// Takes a run-once key for a job, or says which job has it.
    pub fn claim(&mut self, job: usize, key: &Arc<str>, epoch: u64, now: Timestamp) -> Claim {
        let ours = Record { job, epoch, ended: None };
        let record = *self.records.entry(key.clone()).or_insert(ours);
        let holder = &self.jobs[record.job];
        let name = holder.job.key.name.clone();
        match record.ended {
            _ if record.job == job => Claim::Ours,
            Some((succeeded, at)) => Claim::Ran(Ran { job: name, uid: holder.job.uid, succeeded, at }),
            None if !holder.deleted && !holder.job.status.phase.is_terminal() => Claim::Held { by: name, read_at: now },
            None => {
                self.records.insert(key.clone(), ours);
                Claim::Ours
            }
        }
    }

    /// Remembers that a job has run; false when a later leader has.
    pub fn remember(&mut self, job: usize, key: &Arc<str>, epoch: u64, ended: (bool, Timestamp)) -> bool {
        let record = Record { job, epoch, ended: Some(ended) };
        let found = *self.records.entry(key.clone()).or_insert(record);
        if found.job == job && found.epoch <= epoch {
            self.records.insert(key.clone(), record);
        }
        found.job != job || found.epoch <= epoch
    }

    /// A merge patch on `/status` that carries the resource version.
    pub fn patch_status(&mut self, job: usize, version: u64, status: Status) -> Result<u64, Refused> {
        let next = self.versions + 1;
        let stored = &mut self.jobs[job];
        if stored.deleted || stored.version != version {
            return Err(Refused::Conflict);
        }
        let old = &stored.job.status;
        if old.phase.is_terminal() && old.phase != status.phase {
            return Err(Refused::Invalid("a terminal phase never changes"));
        }
        if status.attempts < old.attempts {
            return Err(Refused::Invalid("attempts never decreases"));
        }
        if old.result.is_some() && old.result != status.result {
            return Err(Refused::Invalid("result is set once"));
        }
        stored.job.status = status;
        stored.version = next;
        stored.writes += 1;
        self.versions = next;
        Ok(next)
    }
}
