//! Attempts on Redis that no unfinished job stands behind: what a crash between the status and `Forget` leaves, and what
//! was deleted while nobody operated.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};

use super::act::TERMINATE;
use super::context::Context;
use super::documents;
use super::pools::Handle;
use crate::api::{self, CrewJob};
use crate::core::evidence::Document;
use crate::core::job::{AttemptId, ObjectKey};
use crate::core::status::Holder;
use crate::runtime::clock;
use crate::store::{self, Epoch, Marker, MarkerId, Store, Withdrawn};

/// How often they are looked for, besides after every connect and whenever Redis is not what it was.
const EVERY: Duration = Duration::from_mins(10);
/// How soon after a failure.
const AGAIN: Duration = Duration::from_secs(30);
/// More jobs than these that are gone at once, and more than half of all: something else is wrong.
const MASS: usize = 20;

/// Whether a marker's job needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is the attempt in hand of an unfinished job.
    InUse,
    /// The job has ended, or has another attempt in hand.
    Over,
    /// There is no such job any more.
    Gone,
}

/// Looks for them, for ever.
pub async fn run(ctx: &Context, pool: &Handle, store: &Store) {
    ctx.jobs.listed.cancelled().await; // before that every marker looks stray
    loop {
        let pause = match sweep(ctx, pool, store).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(pool = %pool.key, %error, "looking for attempts without a job failed; trying again");
                AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = pool.strays.notified() => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading Redis: {0}")]
    Store(#[from] store::Error),
    #[error("reading the API server: {0}")]
    Kube(#[from] kube::Error),
}

async fn sweep(ctx: &Context, pool: &Handle, store: &Store) -> Result<(), Error> {
    let all = store.scan_markers().await?;
    let suspects: Vec<MarkerId> = {
        let table = ctx.jobs.lock();
        all.iter().filter(|id| !table.is_in_hand(&id.namespace, id.task)).cloned().collect()
    };
    if suspects.is_empty() || !is_established(ctx).await? {
        return Ok(());
    }
    let markers = store.markers(&suspects).await?;
    let (mut over, mut gone) = (Vec::new(), Vec::new());
    for (id, marker) in suspects.into_iter().zip(markers) {
        let Some(marker) = marker else { continue };
        match look(ctx, &id, &marker).await? {
            Verdict::InUse => {}
            Verdict::Over => over.push((id, marker)),
            Verdict::Gone => gone.push((id, marker)),
        }
    }
    if is_mass(gone.len(), all.len()) {
        tracing::error!(
            pool = %pool.key, gone = gone.len(), of = all.len(),
            "so many jobs on Redis do not exist that nothing is taken off; are these jobs another cluster's? Delete keys \
             crewjob:{{…}} by hand if they are not needed"
        );
        gone.clear();
    }
    for (id, marker) in over.into_iter().chain(gone) {
        let job = ObjectKey::new(id.namespace.clone(), marker.name.clone());
        take_off(store, ctx.epoch(), &id, marker.generation).await?;
        tracing::info!(%job, task.id = %id.task, "an attempt without a job was taken off Redis");
    }
    Ok(())
}

/// Whether so many jobs cannot have been deleted one by one.
fn is_mass(gone: usize, all: usize) -> bool {
    gone > MASS && gone * 2 > all
}

/// A resource that is not installed answers 404 for every job too.
async fn is_established(ctx: &Context) -> kube::Result<bool> {
    let crds: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
    for crd in api::crds() {
        if !crds.get_opt(&crd.name_any()).await?.is_some_and(|crd| api::is_established(&crd)) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn look(ctx: &Context, id: &MarkerId, marker: &Marker) -> kube::Result<Verdict> {
    let jobs: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &id.namespace);
    let live = jobs.get_opt(&marker.name).await?;
    let Some(job) = live.and_then(|live| live.to_job().ok()).filter(|job| job.uid == marker.uid) else {
        return Ok(Verdict::Gone);
    };
    let is_in_hand = !job.status.phase.is_terminal() && job.attempt_in_hand().task == id.task;
    Ok(if is_in_hand { Verdict::InUse } else { Verdict::Over })
}

/// Takes an attempt off Redis: no worker shall begin it, and one that runs it is told to stop.
pub async fn take_off(store: &Store, epoch: Epoch, id: &MarkerId, generation: u32) -> Result<(), store::Error> {
    match store.withdraw(epoch, id, generation).await? {
        Withdrawn::Removed => {}
        // A revoke of a task that has ended may overwrite its result.
        Withdrawn::NotQueued if has_ended(store, id).await? => {}
        Withdrawn::NotQueued => {
            store.revoke(&[id.task], Some(TERMINATE), None).await?;
        }
    }
    store.forget(std::slice::from_ref(id)).await
}

async fn has_ended(store: &Store, id: &MarkerId) -> Result<bool, store::Error> {
    let attempt = AttemptId { number: 1, task: id.task, generation: 0 };
    let nobody = |node: &Arc<str>| Holder { node: node.clone(), container: None };
    let document = store.outcome(id.task).await?;
    let said = document.and_then(|document| documents::read(attempt, document, nobody, clock::now()));
    Ok(matches!(said, Some(Document::Over { .. })))
}

/// The same for a job that was deleted, in the background.
pub fn abandon(store: Store, epoch: Epoch, job: Arc<ObjectKey>, id: MarkerId, generation: u32) {
    tokio::spawn(async move {
        match take_off(&store, epoch, &id, generation).await {
            Ok(()) => tracing::info!(%job, "deleted job taken off Redis"),
            Err(error) => tracing::warn!(%job, %error, "deleted job could not be taken off Redis; trying again later"),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_jobs_that_are_gone_at_once_are_left_alone() {
        assert!(!is_mass(20, 20), "a few may go together");
        assert!(is_mass(21, 21));
        assert!(!is_mass(500, 1000), "half of them may have been deleted");
        assert!(is_mass(501, 1000));
    }
}
