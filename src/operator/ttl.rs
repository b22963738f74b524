//! Deleting finished jobs whose time to live has passed, without keeping them in memory.
//!
//! A finished job names the hour (UTC) in which it expires in a field that the API server selects by. An hour that is
//! over is listed, metadata only and page by page, and what it lists is deleted.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::{Resource, ResourceExt};

use super::context::Context;
use crate::api::{CrewJob, expiry_bucket};
use crate::runtime::clock;

/// How often an hour that has just ended is looked for.
const EVERY: Duration = Duration::from_mins(1);
/// How far back a new leader looks: operators are rarely away for longer.
const BACK: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Between two hours of the past, so that looking back costs nobody anything.
const PAUSE: Duration = Duration::from_millis(200);
/// Jobs per page. Also their metadata may have a megabyte each, with annotations and managed fields.
const PAGE: u32 = 10;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Deletes what has expired, for ever.
pub async fn run(ctx: Arc<Context>) {
    let mut next = clock::now().checked_sub(BACK).unwrap_or(Timestamp::MIN);
    loop {
        while is_over(next, clock::now()) {
            match clear(&ctx, &expiry_bucket(next)).await {
                Ok(0) => {}
                Ok(deleted) => tracing::info!(hour = expiry_bucket(next), deleted, "expired jobs deleted"),
                Err(error) => {
                    tracing::warn!(hour = expiry_bucket(next), %error, "expired jobs could not be deleted; trying again");
                    break;
                }
            }
            next = next.checked_add(HOUR).unwrap_or(Timestamp::MAX);
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(EVERY).await;
        // A job may be recorded as expired in an hour that is over: a time to live of nothing, or a late record.
        next = next.checked_sub(HOUR * 2).unwrap_or(Timestamp::MIN);
    }
}

/// Whether the hour of `at` has ended.
fn is_over(at: Timestamp, now: Timestamp) -> bool {
    expiry_bucket(at) < expiry_bucket(now)
}

/// Deletes the jobs of one hour; says how many.
async fn clear(ctx: &Context, hour: &str) -> kube::Result<u64> {
    let all: Api<CrewJob> = Api::all(ctx.client.clone());
    let expired = ListParams::default().fields(&format!("status.expiryBucket={hour}")).limit(PAGE);
    let mut deleted = 0;
    loop {
        let page = all.list_metadata(&expired).await?;
        for job in &page.items {
            deleted += u64::from(delete(ctx, job).await?);
        }
        if page.metadata.continue_.is_none_or(|more| more.is_empty()) || page.items.is_empty() {
            return Ok(deleted);
        }
    }
}

/// Deletes one job, if it is still the one that was listed.
async fn delete(ctx: &Context, job: &impl Resource<DynamicType = ()>) -> kube::Result<bool> {
    let api: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &job.namespace().unwrap_or_default());
    let as_listed = Preconditions { uid: job.uid(), resource_version: job.resource_version() };
    let options = DeleteParams { preconditions: Some(as_listed), ..DeleteParams::default() };
    match api.delete(&job.name_any(), &options).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_over_when_the_next_one_has_begun() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(!is_over(at("2026-11-22T15:00:00Z"), at("2026-11-22T15:59:59Z")));
        assert!(is_over(at("2026-11-22T15:59:59Z"), at("2026-11-22T16:00:00Z")));
        assert!(is_over(at("2026-11-22T23:30:00Z"), at("2026-11-23T00:00:00Z")));
    }
}
