//! What is written to the API server for one job, and read from it.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Client, Resource};

use super::arrive::arrive;
use super::end::gone;
use super::error::Error;
use crate::api::{CrewJob, expiry_bucket};
use crate::core::id::ObjectKey;
use crate::core::job::Job;
use crate::core::status::{Container, Status};
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};

/// Whether the rest of the plan still holds.
pub enum Step {
    /// It does.
    Done,
    /// Something else was found: observe again.
    Refused,
}

/// Reads a job.
pub async fn read(ctx: &Context, key: &ObjectKey) -> Result<Option<CrewJob>, Error> {
    let api: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let _call = ctx.call().await;
    api.get_opt(&key.name).await.map_err(|source| Error::Read { job: key.clone(), source: Box::new(source) })
}

/// Writes a status, and notes it as recorded.
pub async fn write_status(
    ctx: &Context,
    entry: &Entry,
    status: &Status,
    patch: &serde_json::Value,
) -> Result<Step, Error> {
    let key = &entry.job.key;
    let call = ctx.call().await;
    let began_at = Instant::now();
    let written = patch_status(&ctx.client, key, patch).await;
    ctx.metrics.write_took(Written::JobStatus, began_at.elapsed());
    drop(call);
    match written {
        Ok(written) => {
            ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Done);
            if let Some(at) = status.end.as_ref().and_then(|end| end.expires_at) {
                ctx.hours.note(expiry_bucket(at), clock::now());
            }
            let version = written.metadata.resource_version.unwrap_or_default();
            ctx.jobs.lock().recorded(&entry.job, &version.into(), status);
            Ok(Step::Done)
        }
        Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => {
            ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Conflict);
            ctx.jobs.lock().update(key, |entry| entry.closing = false);
            match read(ctx, key).await? {
                Some(live) => arrive(ctx, live, false),
                None => gone(ctx, key, entry.job.uid),
            }
            Ok(Step::Refused)
        }
        Err(source) => {
            ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Failed);
            ctx.jobs.lock().update(key, |entry| entry.closing = false);
            Err(Error::WriteStatus { job: key.clone(), source: Box::new(source) })
        }
    }
}

/// Writes a status. The API server is asked to answer with the metadata alone: the object may be large.
pub async fn patch_status(
    client: &Client,
    key: &ObjectKey,
    patch: &serde_json::Value,
) -> kube::Result<PartialObjectMeta<CrewJob>> {
    let jobs = kube::core::Request::new(CrewJob::url_path(&(), Some(&key.namespace)));
    let mut request = jobs
        .patch_subresource("status", &key.name, &PatchParams::default(), &Patch::Merge(patch))
        .map_err(kube::Error::BuildRequest)?;
    if let Ok(metadata) = METADATA.parse() {
        request.headers_mut().insert("accept", metadata);
    }
    client.request(request).await
}

/// What the API server is asked to answer with.
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Deletes a worker's Pod, which has a second to end: nothing that it runs is to go on.
pub async fn delete_pod(ctx: &Context, job: &Job, container: &Container) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &job.key.namespace);
    let this_one = Preconditions { uid: Some(container.pod_uid.to_string()), resource_version: None };
    let options = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default().grace_period(1) };
    let _call = ctx.call().await;
    match api.delete(&container.pod, &options).await {
        Ok(_) => {
            ctx.metrics.wrote(Written::Pod, WriteOutcome::Done);
            tracing::warn!(job = %job.key, pod = %container.pod, "a worker did not stop its task and was deleted");
            Ok(())
        }
        // It is gone, or another Pod has its name.
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(()),
        Err(source) => {
            ctx.metrics.wrote(Written::Pod, WriteOutcome::Failed);
            Err(Error::DeletePod { job: job.key.clone(), pod: container.pod.clone(), source: Box::new(source) })
        }
    }
}
