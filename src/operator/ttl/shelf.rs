//! Keeping jobs before they are deleted.

use std::sync::Arc;

use kube::api::GetParams;
use kube::{Client, Resource};

use crate::api::CrewJob;
use crate::archive::{self, Archive, Batch, Kept, Listed, keep};
use crate::core::index::Last;

/// Jobs that are remembered as kept, since they could not be deleted.
const REMEMBERED: usize = 4096;

/// The archive as one leader uses it.
#[derive(Debug)]
pub struct Shelf {
    archive: Arc<Archive>,
    with_inputs: bool,
    /// Jobs that are kept and could not be deleted: they are not kept again and again.
    kept: Last<Listed>,
}

/// What is to become of an expired job.
pub enum Read {
    /// It is deleted once the batch with it is kept.
    Added,
    /// It is gone.
    Gone,
    /// It has changed since it was listed.
    Changed,
}

/// Lines could not be kept; this is one of the jobs that stay because of it.
#[derive(Debug)]
pub struct Unkept {
    pub job: Listed,
    pub source: archive::Error,
}

impl Shelf {
    /// An archive of which nothing is remembered.
    pub fn new(archive: Arc<Archive>, with_inputs: bool) -> Self {
        Self { archive, with_inputs, kept: Last::new(REMEMBERED) }
    }

    /// Reads a job that expired in this hour, and adds it to the batch.
    pub async fn read(
        &self,
        client: &Client,
        (namespace, name): (String, String),
        hour: &str,
        batch: &mut Batch,
    ) -> kube::Result<Read> {
        let jobs = kube::core::Request::new(CrewJob::url_path(&(), Some(&namespace)));
        let request = jobs.get(&name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        let object = match client.request_text(request).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Read::Gone),
            read => read?,
        };
        let Kept { line, uid, version, hour: expires, is_being_deleted } =
            keep(&object, self.with_inputs).map_err(kube::Error::SerdeError)?;
        if is_being_deleted || expires.as_deref() != Some(hour) {
            return Ok(Read::Changed);
        }
        let job = Listed { namespace, name, uid, version };
        let line = if self.kept.contains(&job) { "" } else { &line };
        batch.add(job, line);
        Ok(Read::Added)
    }

    /// Keeps a batch: the jobs, which may be deleted then.
    pub async fn keep(&self, batch: Batch) -> Result<Vec<Listed>, Box<Unkept>> {
        let kept = if batch.lines().is_empty() { Ok(()) } else { self.archive.append(batch.lines()).await };
        let mut jobs = batch.into_jobs();
        match kept {
            Ok(()) => Ok(jobs),
            Err(source) => Err(Box::new(Unkept { job: jobs.swap_remove(0), source })),
        }
    }

    /// This one is kept, and could not be deleted.
    pub fn remember(&mut self, job: Listed) {
        self.kept.remember(job, ());
    }
}
