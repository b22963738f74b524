//! Results of jobs that have ended otherwise: a worker that nobody could reach has finished after all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::{Api, Patch, PatchParams};
use uuid::Uuid;

use super::context::Context;
use crate::api::{CrewJob, status_patch};
use crate::core::decide::decide;
use crate::core::evidence::{Document, Evidence};
use crate::core::job::{ObjectKey, TaskId};
use crate::core::observed::{Ending, Observed, PodDeletion};
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};

/// Jobs that are remembered after their end; the oldest are forgotten first.
const REMEMBERED: usize = 1000;

/// The last jobs that ended without a result.
#[derive(Default)]
pub struct Ended(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    jobs: HashMap<TaskId, (ObjectKey, Uuid)>,
    /// Oldest first.
    order: VecDeque<TaskId>,
}

impl Ended {
    /// A job has ended; a result of this attempt would be late.
    pub fn remember(&self, job: &ObjectKey, uid: Uuid, task: TaskId) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.jobs.insert(task, (job.clone(), uid)).is_none() {
            ended.order.push_back(task);
        }
        if ended.order.len() > REMEMBERED
            && let Some(oldest) = ended.order.pop_front()
        {
            ended.jobs.remove(&oldest);
        }
    }

    /// Whether a result of this attempt would be late.
    pub fn awaits(&self, task: TaskId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).jobs.contains_key(&task)
    }

    fn take(&self, task: TaskId) -> Option<(ObjectKey, Uuid)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).jobs.remove(&task)
    }
}

/// A result document was stored of a task that no unfinished job has in hand.
pub fn heard(ctx: &Arc<Context>, task: TaskId, said: Option<Document>) {
    let Some(said @ Document::Over { how: Ending::Succeeded(_), .. }) = said else { return };
    let Some((key, uid)) = ctx.jobs.ended.take(task) else { return };
    tracing::warn!(job = %key, task.id = %task, "a result arrived after the job had ended without one");
    ctx.metrics.late_results.inc();
    let ctx = ctx.clone();
    tokio::spawn(async move {
        if let Err(error) = record(&ctx, &key, uid, task, said).await {
            ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Failed);
            tracing::warn!(job = %key, %error, "the late result could not be noted in the job's status");
        }
    });
}

async fn record(ctx: &Context, key: &ObjectKey, uid: Uuid, task: TaskId, said: Document) -> kube::Result<()> {
    let api: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let Some(live) = api.get_opt(&key.name).await? else { return Ok(()) };
    let version = live.metadata.resource_version.clone().unwrap_or_default();
    let Ok(job) = live.to_job() else { return Ok(()) };
    if job.uid != uid || !job.status.phase.is_terminal() {
        return Ok(());
    }
    let mut evidence = Evidence::none(task);
    evidence.told(said);
    let seen = Observed {
        pool: ctx.pools.view(&key.namespace, &job.spec.pool),
        of: job.attempt_in_hand().task,
        published: evidence.publication(),
        stop_asked_at: None,
        pod_deletion: PodDeletion::Useless,
        task: evidence.task(|seen| ctx.workers.judge(&key.namespace, seen)),
    };
    let plan = decide(&job, &seen, clock::now());
    if let Some(patch) = status_patch(&job, &plan.status, &version) {
        api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Done);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_jobs_are_remembered_and_no_more() {
        let ended = Ended::default();
        let (job, uid) = (ObjectKey::new("team", "a"), Uuid::from_u128(1));
        let task = |n| TaskId::derive(uid, n);
        for n in 0..=1000 {
            ended.remember(&job, uid, task(n));
        }
        assert_eq!((ended.take(task(0)), ended.take(task(1))), (None, Some((job, uid))));
        assert_eq!(ended.take(task(1)), None, "it is late once");
    }
}
