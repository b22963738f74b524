//! Deleting finished jobs whose time is over, without keeping them in memory.
//!
//! A finished job names the hour (UTC) in which its time is over in a field that the API server selects by. The hours
//! that have jobs are known from what this leader writes, and from a look at all jobs that name one, at its election and
//! once a day. An hour that is over is listed, metadata only and page by page, and what it lists is deleted. Where there is
//! an archive, a job is read and kept there before: as long as that fails, no job is deleted.

mod shelf;
mod table;

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use tokio::time::{Instant, sleep, timeout};

use self::shelf::{Read, Unkept};
use super::context::Context;
use super::state::hours::Hours;
use super::watch::finished;
use crate::api::{CrewJob, EXPIRES};
use crate::archive::{Batch, Listed};
use crate::core::id::ObjectKey;
use crate::core::plan::Notice;
use crate::runtime::backoff::{Backoff, Bounds};
use crate::runtime::clock;
use crate::runtime::telemetry::chain;

pub use self::shelf::Shelf;

/// How often hours that have ended are looked for.
const EVERY: Duration = Duration::from_mins(1);
/// How often all jobs that name an hour are looked at: another leader may have written one.
const LOOK_EVERY: Duration = Duration::from_hours(24);
/// Between two rounds, when one is asked for.
const PAUSE: Duration = Duration::from_secs(5);
/// How much later a round comes after one of which something is left.
const AGAIN: Bounds = (PAUSE, EVERY);
/// Jobs per page. Also their metadata may have a megabyte each, with annotations and managed fields.
const PAGE: u32 = 10;

/// Reason of the Event of a job that stays because it cannot be archived.
const ARCHIVE_FAILED: &str = "ArchiveFailed";

/// Why the jobs of an hour were not deleted.
#[derive(Debug)]
enum Failure {
    /// The API server refused, or did not answer.
    Kube(kube::Error),
    /// The archive does not take them.
    Archive(Box<Unkept>),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Kube(error)
    }
}

/// Deletes what has expired, for ever, and keeps it on the shelf before, if there is one.
pub async fn run(ctx: Arc<Context>, mut shelf: Option<Shelf>) {
    let mut looked_at: Option<Instant> = None;
    let mut backoff = Backoff::new(AGAIN);
    loop {
        let mut is_done = true;
        if looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            match look(&ctx.client, &ctx.hours).await {
                Ok(()) => looked_at = Some(Instant::now()),
                Err(error) => {
                    is_done = false;
                    tracing::warn!(%error, "looking for jobs that expire failed; trying again");
                }
            }
        }
        let mut is_archive_down = false;
        for hour in ctx.hours.take_over(clock::now()) {
            if is_archive_down {
                ctx.hours.add(hour);
                continue;
            }
            let followed = |key: ObjectKey| {
                let ctx = ctx.clone();
                async move { finished::follow(&ctx, &key).await }
            };
            let mut cleared = Cleared::default();
            let end = clear(&ctx.client, &hour, followed, shelf.as_mut(), &mut cleared).await;
            let Cleared { deleted, kept, left } = cleared;
            if deleted > 0 {
                tracing::info!(hour, deleted, kept, "expired jobs deleted");
            }
            if kept > 0 {
                ctx.metrics.archived.inc_by(kept);
                if ctx.metrics.archive_failing.set(0) == 1 && !matches!(end, Err(Failure::Archive(_))) {
                    tracing::info!(kept, "the archive takes jobs again");
                }
            }
            match end {
                Ok(()) if !left => continue,
                Ok(()) => {}
                Err(Failure::Archive(unkept)) => {
                    is_archive_down = true;
                    not_archived(&ctx, &unkept);
                }
                Err(Failure::Kube(error)) => {
                    tracing::warn!(hour, %error, "expired jobs could not be deleted; trying again");
                }
            }
            is_done = false;
            ctx.hours.add(hour);
        }
        let pause = if is_done { EVERY } else { backoff.pause() };
        if is_done {
            backoff.reset();
        }
        sleep(PAUSE).await;
        let _ = timeout(pause, ctx.hours.due.notified()).await;
    }
}

/// Says that jobs stay because the archive does not take them: in the log each time, and as an Event of one of them when
/// it begins.
fn not_archived(ctx: &Context, Unkept { job, source }: &Unkept) {
    let why = chain(source);
    ctx.metrics.archive_failures.inc();
    tracing::warn!(error = %why, "expired jobs could not be archived and are not deleted; trying again");
    let has_failed_before = ctx.metrics.archive_failing.set(1) == 1;
    let Ok(uid) = job.uid.parse() else { return };
    if !has_failed_before {
        let message = format!("the job has expired and is kept until it is archived, as are others: {why}");
        let notice = Notice { warning: true, reason: ARCHIVE_FAILED.into(), message: message.into() };
        let key = ObjectKey::new(job.namespace.as_str(), job.name.as_str());
        ctx.events.announce_of(&key, uid, vec![notice]);
    }
}

/// Finds out in which hours jobs expire.
async fn look(client: &Client, hours: &Hours) -> Result<(), table::Error> {
    let mut column = table::Column::of(client.clone(), EXPIRES, "status.expiryBucket!=");
    while let Some(page) = column.next_page().await? {
        for hour in page {
            hours.add(hour);
        }
    }
    Ok(())
}

/// What became of the jobs of one hour.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cleared {
    deleted: u64,
    /// How many were archived.
    kept: u64,
    /// Whether some were changed meanwhile, so that their hour must be looked at again.
    left: bool,
}

impl Cleared {
    /// Notes whether a job is gone, and answers that. An error that is about this job alone keeps no other.
    fn note(&mut self, key: &ObjectKey, done: kube::Result<bool>) -> kube::Result<bool> {
        match done {
            Err(kube::Error::Api(error)) if error.code == 404 => self.deleted += 1,
            Err(kube::Error::Api(error)) if error.code == 409 => self.left = true,
            Err(error) if is_refusal(&error) => {
                if !self.left {
                    tracing::warn!(job = %key, %error, "an expired job could not be deleted; trying again");
                }
                self.left = true;
            }
            Err(error) => return Err(error),
            Ok(true) => {
                self.deleted += 1;
                return Ok(true);
            }
            Ok(false) => self.left = true,
        }
        Ok(false)
    }
}

/// Deletes the jobs of one hour that are not being deleted already. `followed` lets the status of a job follow its spec,
/// which may say otherwise by now, and says whether it did so before.
async fn clear<F>(
    client: &Client,
    hour: &str,
    followed: impl Fn(ObjectKey) -> F,
    mut shelf: Option<&mut Shelf>,
    cleared: &mut Cleared,
) -> Result<(), Failure>
where
    F: Future<Output = kube::Result<bool>>,
{
    let all: Api<CrewJob> = Api::all(client.clone());
    let mut expired = ListParams::default().fields(&format!("status.expiryBucket={hour}")).limit(PAGE);
    let mut batch = Batch::default();
    loop {
        let page = all.list_metadata(&expired).await?;
        for job in page.items.iter().filter(|job| job.metadata.deletion_timestamp.is_none()) {
            let key = key_of(job);
            let is_changed = job.metadata.generation.is_some_and(|generation| generation > 1);
            let follows = if is_changed { followed(key.clone()).await } else { Ok(true) };
            if !matches!(follows, Ok(true)) {
                cleared.note(&key, follows)?;
                continue;
            }
            let Some(shelf) = shelf.as_deref_mut() else {
                cleared.note(&key, delete(client, &listed(job)).await)?;
                continue;
            };
            let place = (key.namespace.to_string(), key.name.to_string());
            match shelf.read(client, place, hour, &mut batch).await {
                Ok(Read::Added) => {}
                Ok(Read::Gone) => cleared.deleted += 1,
                Ok(Read::Changed) => cleared.left = true,
                Err(error) => {
                    cleared.note(&key, Err(error))?;
                }
            }
            if batch.is_full() {
                settle(client, shelf, std::mem::take(&mut batch), cleared).await?;
            }
        }
        match page.metadata.continue_ {
            Some(more) if !more.is_empty() => expired = expired.continue_token(&more),
            Some(_) | None => break,
        }
    }
    match shelf {
        Some(shelf) => settle(client, shelf, batch, cleared).await,
        None => Ok(()),
    }
}

/// Keeps a batch of jobs, and deletes them after that.
async fn settle(client: &Client, shelf: &mut Shelf, batch: Batch, cleared: &mut Cleared) -> Result<(), Failure> {
    let lines = batch.lines().bytes().filter(|byte| *byte == b'\n').count();
    let jobs = shelf.keep(batch).await.map_err(Failure::Archive)?;
    cleared.kept += lines as u64;
    for job in jobs {
        let key = ObjectKey::new(job.namespace.as_str(), job.name.as_str());
        if !cleared.note(&key, delete(client, &job).await)? {
            shelf.remember(job);
        }
    }
    Ok(())
}

fn listed(job: &impl Resource<DynamicType = ()>) -> Listed {
    Listed {
        namespace: job.namespace().unwrap_or_default(),
        name: job.name_any(),
        uid: job.uid().unwrap_or_default(),
        version: job.resource_version().unwrap_or_default(),
    }
}

fn key_of(job: &impl Resource<DynamicType = ()>) -> ObjectKey {
    ObjectKey::new(job.namespace().unwrap_or_default(), job.name_any())
}

/// Whether the API server has answered, and said no.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// Deletes one job, if it is still the one that was listed or read.
async fn delete(client: &Client, job: &Listed) -> kube::Result<bool> {
    let api: Api<CrewJob> = Api::namespaced(client.clone(), &job.namespace);
    let as_listed = Preconditions { uid: Some(job.uid.clone()), resource_version: Some(job.version.clone()) };
    let options = DeleteParams { preconditions: Some(as_listed), ..DeleteParams::default() };
    api.delete(&job.name, &options).await.map(|_| true)
}

#[cfg(test)]
mod tests;
