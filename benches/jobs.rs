//! CrewJobs by the hundred.

use std::sync::atomic::{AtomicUsize, Ordering};

use crewjob::api::CrewJob;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::Result;

/// Requests that are under way side by side.
pub const CONCURRENCY: usize = 16;

/// The spec of an ordinary job in a pool.
pub fn spec(pool: &str) -> Value {
    json!({
        "topic": "Introduction to machine learning",
        "inputs": { "level": "undergraduate", "pages": 12 },
        "priority": 5,
        "poolRef": { "name": pool },
    })
}

/// A job of that name in pool `default`.
pub fn job(name: &str) -> Result<CrewJob> {
    job_in("default", name)
}

fn job_in(pool: &str, name: &str) -> Result<CrewJob> {
    Ok(CrewJob::new(name, serde_json::from_value(spec(pool))?))
}

/// Creates jobs `<prefix>-<number>` side by side; says how it goes every thousand.
pub async fn create(
    api: &Api<CrewJob>,
    prefix: &str,
    numbers: std::ops::Range<usize>,
    say: impl Fn(usize),
) -> Result<()> {
    create_in(api, "default", prefix, numbers, say).await
}

/// The same in another pool.
pub async fn create_in(
    api: &Api<CrewJob>,
    pool: &str,
    prefix: &str,
    numbers: std::ops::Range<usize>,
    say: impl Fn(usize),
) -> Result<()> {
    make(api, pool, prefix, numbers, None, say).await
}

/// Creates jobs that have been cancelled before an operator saw them.
pub async fn create_finished(
    api: &Api<CrewJob>,
    prefix: &str,
    numbers: std::ops::Range<usize>,
    say: impl Fn(usize),
) -> Result<()> {
    make(api, "default", prefix, numbers, Some(json!({ "status": { "phase": "Cancelled" } })), say).await
}

async fn make(
    api: &Api<CrewJob>,
    pool: &str,
    prefix: &str,
    numbers: std::ops::Range<usize>,
    status: Option<Value>,
    say: impl Fn(usize),
) -> Result<()> {
    let created = AtomicUsize::new(0);
    stream::iter(numbers)
        .map(async |number| {
            let name = format!("{prefix}-{number}");
            api.create(&PostParams::default(), &job_in(pool, &name)?).await?;
            if let Some(status) = &status {
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
            }
            let created = created.fetch_add(1, Ordering::Relaxed) + 1;
            if created.is_multiple_of(1000) {
                say(created);
            }
            Result::Ok(())
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// How many jobs have this phase.
pub async fn in_phase(api: &Api<CrewJob>, phase: &str) -> Result<usize> {
    let listed = api.list_metadata(&ListParams::default().fields(&format!("status.phase={phase}"))).await?;
    Ok(listed.items.len())
}

/// Deletes all jobs, so many at a time.
pub async fn delete_all(api: &Api<CrewJob>) -> Result<()> {
    const PAGE: u32 = 2000;
    const PAGES: u32 = 1000;
    // The API server ends a request after a minute, which is too short for 100,000 of them.
    for _ in 0..PAGES {
        if api.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
            break;
        }
        api.delete_collection(&DeleteParams::default(), &ListParams::default().limit(PAGE)).await?;
    }
    Ok(())
}
