//! Results of jobs that have ended otherwise: a worker that could not be reached has finished after all.

use std::sync::Arc;

use kube::api::Api;
use uuid::Uuid;

use super::write::patch_status;
use crate::api::{CrewJob, status_patch};
use crate::core::decide::decide;
use crate::core::evidence::{Document, Evidence};
use crate::core::id::{ObjectKey, TaskId};
use crate::core::index::Late;
use crate::core::job::Job;
use crate::core::limits::Permit;
use crate::core::observed::{Ending, Observed, PodDeletion};
use crate::core::once::Claim;
use crate::core::twins::Verdict;
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};

/// A result document was stored, on a pool's Redis, of a task that no unfinished job has in hand.
pub fn heard(ctx: &Arc<Context>, pool: &Handle, task: TaskId, said: Option<Document>) {
    let Some(said @ Document::Over { how: Ending::Succeeded(_), .. }) = said else { return };
    let ended = ctx.jobs.ended().take(task, &pool.key);
    let (key, uid) = match ended {
        Late::Own(key, uid) => (key, uid),
        Late::Foreign => return ctx.count_foreign(pool),
        Late::Unknown => return,
    };
    let ctx = ctx.clone();
    tokio::spawn(async move { note(&ctx, &key, uid, task, said).await });
}

/// A result document was stored while the end of its job was recorded, which says otherwise.
pub async fn arrived(ctx: &Context, job: &Job, said: Document) {
    let task = job.attempt_in_hand().task;
    let pool = ObjectKey { namespace: job.key.namespace.clone(), name: job.spec.pool.clone() };
    let is_success = matches!(said, Document::Over { how: Ending::Succeeded(_), .. });
    if is_success && matches!(ctx.jobs.ended().take(task, &pool), Late::Own(..)) {
        note(ctx, &job.key, job.uid, task, said).await;
    }
}

async fn note(ctx: &Context, key: &ObjectKey, uid: Uuid, task: TaskId, said: Document) {
    tracing::warn!(job = %key, task.id = %task, "a result arrived after the job had ended without one");
    ctx.metrics.late_results.inc();
    if let Err(error) = record(ctx, key, uid, task, said).await {
        ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Failed);
        tracing::warn!(job = %key, %error, "the late result could not be noted in the job's status");
    }
}

async fn record(ctx: &Context, key: &ObjectKey, uid: Uuid, task: TaskId, said: Document) -> kube::Result<()> {
    let api: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let Some(live) = api.get_opt(&key.name).await? else { return Ok(()) };
    let version = live.metadata.resource_version.clone().unwrap_or_default();
    let Ok(job) = live.to_job() else { return Ok(()) };
    if job.uid != uid || !job.status.phase.is_terminal() {
        return Ok(());
    }
    let evidence = Evidence::ended_with(task, said);
    let seen = Observed {
        pool: ctx.pools.view(&key.namespace, &job.spec.pool),
        of: job.attempt_in_hand().task,
        published: evidence.publication(),
        stop_asked_at: None,
        stop_repeated_at: None,
        pod_deletion: PodDeletion::Useless,
        others: evidence.others(),
        claim: Claim::Unread,
        permit: Permit::Free,
        twins: Verdict::Unread,
        task: evidence.task(|seen| ctx.workers.read(|pods| pods.judge(None, &key.namespace, seen))),
    };
    let plan = decide(&job, &seen, clock::now());
    if let Some(patch) = status_patch(&job, &plan.status, &version) {
        patch_status(&ctx.client, key, &patch).await?;
        ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Done);
    }
    Ok(())
}
