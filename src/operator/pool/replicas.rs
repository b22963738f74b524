//! The replicas of a pool's Deployment: written by server-side apply, left alone where another field manager owns them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use serde_json::json;
use tokio::time::Instant;

use crate::core::id::ObjectKey;
use crate::core::index::PoolJobs;
use crate::core::index::pods::{DeploymentView, Fleet};
use crate::core::scale::{Bounds, Load, Restraint, Scaling, Window, Workers, scale};
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;
use crate::operator::state::workers::{BUSY_COST, DELETION_COST, FIELD_MANAGER};
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};

/// How long after a refusal the same Deployment is tried again. One that changes is tried at once.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// What is remembered between two looks at the load.
#[derive(Default)]
pub struct Scaler {
    window: Window,
    /// The version of the Deployment whose replicas could not be written, and when.
    refused: Option<(Arc<str>, Instant)>,
}

impl Scaler {
    /// Decides how many workers there are to be, and writes that.
    pub async fn rescale(
        &mut self,
        ctx: &Context,
        pool: &Handle,
        known: &DeploymentView,
        load: Load,
        hard_limit: Duration,
    ) -> Scaling {
        let take = pool.asked_to_take_replicas();
        let workers = Workers {
            replicas: known.replicas,
            grace_period: known.grace_period,
            rolling_out: known.rolling_out,
            contested: known.owner.is_some() && take.is_none(),
        };
        let mut scaling = scale(load, bounds(pool), workers, hard_limit, &mut self.window, clock::now());
        let Some(fleet) = pool.fleet.as_ref().filter(|_| ctx.leadership.holds()) else { return scaling };
        let replicas = scaling.write.or(take.as_ref().map(|_| known.replicas));
        let Some(replicas) = replicas.filter(|_| !self.is_refused(&known.version) || take.is_some()) else {
            return scaling;
        };
        if (1..known.replicas).contains(&replicas) {
            mark_busy(ctx, fleet, &busy_pods(ctx, pool)).await;
        }
        self.refused = None;
        match write(ctx, &fleet.deployment, known, replicas, take.is_some()).await {
            Ok(()) => {
                if replicas != known.replicas {
                    tracing::info!(pool = %pool.key, from = known.replicas, to = replicas, "workers scaled");
                }
                if let Some(take) = take {
                    tracing::info!(pool = %pool.key, replicas, "the replicas of the workers were taken back");
                    pool.replicas_were_taken_for(take);
                }
            }
            // The watch will show which field manager owns them; until it does, this version of the Deployment is left
            // alone.
            Err(kube::Error::Api(error)) if error.code == 409 => {
                tracing::debug!(pool = %pool.key, %error, "scaling workers was refused; another field manager owns replicas");
                scaling.restraint = Some(Restraint::Contested);
                self.refused = Some((known.version.clone(), Instant::now()));
            }
            Err(error) => tracing::warn!(pool = %pool.key, %error, "scaling workers failed; retrying"),
        }
        scaling
    }

    fn is_refused(&self, version: &Arc<str>) -> bool {
        self.refused.as_ref().is_some_and(|(refused, at)| refused == version && at.elapsed() < REFUSED_FOR)
    }
}

fn bounds(pool: &Handle) -> Bounds {
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    Bounds {
        min: count(pool.spec.min_replicas),
        max: count(pool.spec.max_replicas),
        target_per_worker: count(pool.spec.target_per_worker()),
        scale_down_delay: pool.spec.scale_down_delay.to_std(),
    }
}

/// The Pods that hold a task of this pool.
pub fn busy_pods(ctx: &Context, pool: &Handle) -> HashSet<Arc<str>> {
    ctx.jobs.lock().figures(&pool.key).into_iter().flat_map(PoolJobs::busy_pods).cloned().collect()
}

/// Marks busy Pods before some of a pool's Pods go, so that idle ones go first. Only a preference: a Pod
/// that goes finishes its job within the grace period.
async fn mark_busy(ctx: &Context, fleet: &Fleet, busy: &HashSet<Arc<str>>) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &fleet.deployment.namespace);
    let mismarked = ctx.workers.read(|pods| pods.mismarked(fleet, busy));
    for (pod, is_busy) in mismarked {
        let cost = is_busy.then_some(BUSY_COST);
        let patch = serde_json::json!({ "metadata": { "annotations": { DELETION_COST: cost } } });
        let marked = api.patch_metadata(&pod, &PatchParams::default(), &Patch::Merge(&patch)).await;
        ctx.metrics.wrote(Written::Pod, if marked.is_ok() { WriteOutcome::Done } else { WriteOutcome::Failed });
        if let Err(error) = marked {
            tracing::warn!(%pod, %error, "the deletion cost of a worker could not be written");
        }
    }
}

/// Applies the one field that we own. Another owner is a conflict, and then it is theirs, unless they are to be taken.
async fn write(
    ctx: &Context,
    deployment: &ObjectKey,
    known: &DeploymentView,
    replicas: u32,
    take: bool,
) -> kube::Result<()> {
    let own = PatchParams::apply(FIELD_MANAGER);
    let first = if take { own.clone().force() } else { own.clone() };
    let mut written = apply_scale(ctx, deployment, replicas, &first).await;
    let is_unowned = |conflict: &Status| conflict.code == 409 && known.is_default || has_no_manager(conflict);
    if matches!(&written, Err(kube::Error::Api(conflict)) if is_unowned(conflict)) {
        written = apply_scale(ctx, deployment, replicas, &own.force()).await;
    }
    let outcome = match &written {
        Ok(()) => WriteOutcome::Done,
        Err(kube::Error::Api(error)) if error.code == 409 => WriteOutcome::Conflict,
        Err(_) => WriteOutcome::Failed,
    };
    ctx.metrics.wrote(Written::Scale, outcome);
    written
}

async fn apply_scale(ctx: &Context, deployment: &ObjectKey, replicas: u32, manager: &PatchParams) -> kube::Result<()> {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &deployment.namespace);
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": { "name": &*deployment.name, "namespace": &*deployment.namespace },
        "spec": { "replicas": replicas },
    });
    api.patch_scale(&deployment.name, manager, &Patch::Apply(&scale)).await.map(|_| ())
}

/// Whether a conflict is about replicas that no manager has set: the API server's default of a Deployment without them.
/// Where a scale has no owner at all, the API server calls the owner so.
fn has_no_manager(conflict: &Status) -> bool {
    let causes = conflict.details.iter().flat_map(|details| &details.causes);
    let mut owners = causes.map(|cause| cause.message.contains("\"before-first-apply\"")).peekable();
    conflict.code == 409 && owners.peek().is_some() && owners.all(|is_no_manager| is_no_manager)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(owners: &[&str]) -> Status {
        let cause = |owner: &&str| json!({ "reason": "FieldManagerConflict", "message": format!("conflict with \"{owner}\" using apps/v1") });
        let causes: Vec<_> = owners.iter().map(cause).collect();
        let status = json!({ "code": 409, "reason": "Conflict", "details": { "causes": causes } });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn replicas_from_before_the_first_apply_have_no_manager() {
        assert!(has_no_manager(&conflict(&["before-first-apply"])));
        assert!(!has_no_manager(&conflict(&["before-first-apply", "argocd"])));
        assert!(!has_no_manager(&conflict(&["argocd"])));
        assert!(!has_no_manager(&conflict(&[])), "a conflict of versions names no owner");
    }
}
