//! Jobs with the same dedup key: which there are, and cancelling one in whose place another is to run.

use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use serde_json::json;
use uuid::Uuid;

use super::error::Error;
use super::write::Step;
use crate::api::CrewJob;
use crate::core::id::ObjectKey;
use crate::core::job::Job;
use crate::core::twins::{Verdict, judge};
use crate::operator::context::Context;
use crate::runtime::clock;

/// Objects of a page: each may have megabytes.
const PAGE: u32 = 10;

/// Which of the jobs with a key matter. First those that may come to stand for it, and then those that have, or are
/// attached to one: a job that goes from the former to the latter meanwhile is in the second list. Duplicates that were
/// rejected are in none, however many there are.
const MATTER: [&str; 2] =
    ["status.dedupUid=,status.phase!=Succeeded,status.phase!=Failed,status.phase!=Cancelled", "status.dedupUid!="];

/// Lists the jobs with the key of a job, and notes what they mean for it. The list is as new as the API server: no watch
/// is ever up to date. It ends with the first page that shows another job to be the first.
pub async fn list(ctx: &Context, job: &Job) -> Result<Step, Error> {
    let Some(dedup) = job.spec.dedup.as_deref() else { return Ok(Step::Done) };
    let api: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &job.key.namespace);
    let mut twins = Vec::new();
    let mut verdict = Verdict::Unread;
    'lists: for those in MATTER {
        let selector = format!("spec.dedup.key={},spec.poolRef.name={},{those}", dedup.key, job.spec.pool);
        let mut page = ListParams::default().fields(&selector).limit(PAGE);
        loop {
            let jobs = {
                let _call = ctx.call().await;
                api.list(&page).await.map_err(|source| failed(job, source))?
            };
            let is_there = |job: &&CrewJob| job.metadata.deletion_timestamp.is_none();
            twins.extend(jobs.items.iter().filter(is_there).filter_map(CrewJob::to_twin));
            verdict = judge(job, &twins, clock::now());
            if matches!(verdict, Verdict::Of { .. }) {
                break 'lists;
            }
            match jobs.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
    }
    let awaited = match &verdict {
        Verdict::Undecided { by, .. } => Some(by),
        Verdict::Of { twin, .. } if twin.end.is_none() => Some(&twin.job),
        Verdict::Of { .. } | Verdict::Alone | Verdict::Unread => None,
    };
    let awaited = awaited.map(|name| ObjectKey { namespace: job.key.namespace.clone(), name: name.clone() });
    ctx.jobs.found(job, awaited, |entry, is_awaited| {
        entry.twins = Some(Box::new(if is_awaited { verdict } else { verdict.to_be_read_soon() }));
    });
    Ok(Step::Refused) // what was found decides what comes next
}

/// Cancels another job, unless it is gone.
pub async fn cancel(ctx: &Context, job: &Job, other: &str, uid: Uuid) -> Result<Step, Error> {
    let api: Api<PartialObjectMeta<CrewJob>> = Api::namespaced(ctx.client.clone(), &job.key.namespace);
    let patch = Patch::Merge(json!({ "metadata": { "uid": uid.to_string() }, "spec": { "cancel": true } }));
    let _call = ctx.call().await;
    match api.patch_metadata(other, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(Step::Done),
        // It is gone, or another one has its name.
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(Step::Done),
        Err(source) => Err(failed(job, source)),
    }
}

fn failed(job: &Job, source: kube::Error) -> Error {
    Error::Twins { job: job.key.clone(), source: Box::new(source) }
}
