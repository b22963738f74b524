//! Deleting finished jobs whose time is over, without keeping them in memory.
//!
//! A finished job names the hour (UTC) in which its time is over in a field that the API server selects by. The hours
//! that have jobs are known from what this leader writes, and from a look at all jobs that name one, at its election and
//! once a day. An hour that is over is listed, metadata only and page by page, and what it lists is deleted.

mod table;

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use tokio::time::{Instant, sleep, timeout};

use super::context::Context;
use super::state::hours::Hours;
use super::watch::finished;
use crate::api::{CrewJob, EXPIRES};
use crate::core::id::ObjectKey;
use crate::runtime::clock;

/// How often hours that have ended are looked for.
const EVERY: Duration = Duration::from_mins(1);
/// How often all jobs that name an hour are looked at: another leader may have written one.
const LOOK_EVERY: Duration = Duration::from_hours(24);
/// Between two rounds, when one is asked for.
const PAUSE: Duration = Duration::from_secs(5);
/// Jobs per page. Also their metadata may have a megabyte each, with annotations and managed fields.
const PAGE: u32 = 10;
/// Deletes what has expired, for ever.
pub async fn run(ctx: Arc<Context>) {
    let mut looked_at: Option<Instant> = None;
    loop {
        if looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            match look(&ctx.client, &ctx.hours).await {
                Ok(()) => looked_at = Some(Instant::now()),
                Err(error) => tracing::warn!(%error, "looking for jobs that expire failed; trying again in a minute"),
            }
        }
        for hour in ctx.hours.take_over(clock::now()) {
            let followed = |key: ObjectKey| {
                let ctx = ctx.clone();
                async move { finished::follow(&ctx, &key).await }
            };
            match clear(&ctx.client, &hour, followed).await {
                Ok(Cleared { deleted, left }) => {
                    if deleted > 0 {
                        tracing::info!(hour, deleted, "expired jobs deleted");
                    }
                    if left {
                        ctx.hours.add(hour);
                    }
                }
                Err(error) => {
                    tracing::warn!(hour, %error, "expired jobs could not be deleted; trying again in a minute");
                    ctx.hours.add(hour);
                }
            }
        }
        sleep(PAUSE).await;
        let _ = timeout(EVERY, ctx.hours.due.notified()).await;
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
    /// Whether some were changed meanwhile, so that their hour must be looked at again.
    left: bool,
}

/// Deletes the jobs of one hour that are not being deleted already. `followed` lets the status of a job follow its spec,
/// which may say otherwise by now, and says whether it did so before.
async fn clear<F>(client: &Client, hour: &str, followed: impl Fn(ObjectKey) -> F) -> kube::Result<Cleared>
where
    F: Future<Output = kube::Result<bool>>,
{
    let all: Api<CrewJob> = Api::all(client.clone());
    let mut expired = ListParams::default().fields(&format!("status.expiryBucket={hour}")).limit(PAGE);
    let mut cleared = Cleared::default();
    loop {
        let page = all.list_metadata(&expired).await?;
        for job in page.items.iter().filter(|job| job.metadata.deletion_timestamp.is_none()) {
            match expire(client, job, &followed).await {
                Ok(true) => cleared.deleted += 1,
                Ok(false) => cleared.left = true,
                // It is about this job alone: the others go on.
                Err(error) if is_refusal(&error) => {
                    if !cleared.left {
                        let job = key_of(job);
                        tracing::warn!(%job, %error, "an expired job could not be deleted; trying again in a minute");
                    }
                    cleared.left = true;
                }
                Err(error) => return Err(error),
            }
        }
        match page.metadata.continue_ {
            Some(more) if !more.is_empty() => expired = expired.continue_token(&more),
            Some(_) | None => return Ok(cleared),
        }
    }
}

/// Deletes one job, unless it is to be looked at again: it has changed, or its status did not follow its spec.
async fn expire<F>(
    client: &Client,
    job: &impl Resource<DynamicType = ()>,
    followed: &impl Fn(ObjectKey) -> F,
) -> kube::Result<bool>
where
    F: Future<Output = kube::Result<bool>>,
{
    let is_changed = job.meta().generation.is_some_and(|generation| generation > 1);
    let follows = if is_changed { followed(key_of(job)).await } else { Ok(true) };
    let done = match follows {
        Ok(true) => delete(client, job).await,
        other => other,
    };
    match done {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(true),
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(false),
        done => done,
    }
}

fn key_of(job: &impl Resource<DynamicType = ()>) -> ObjectKey {
    ObjectKey::new(job.namespace().unwrap_or_default(), job.name_any())
}

/// Whether the API server has answered, and said no.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// Deletes one job, if it is still the one that was listed.
async fn delete(client: &Client, job: &impl Resource<DynamicType = ()>) -> kube::Result<bool> {
    let api: Api<CrewJob> = Api::namespaced(client.clone(), &job.namespace().unwrap_or_default());
    let as_listed = Preconditions { uid: job.uid(), resource_version: job.resource_version() };
    let options = DeleteParams { preconditions: Some(as_listed), ..DeleteParams::default() };
    api.delete(&job.name_any(), &options).await.map(|_| true)
}

#[cfg(test)]
mod tests;
