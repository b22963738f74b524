//! Deleting what is remembered of run-once keys whose time is over, and what deleted jobs have left.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::{Client, ResourceExt};
use tokio::time::sleep;

use super::context::Context;
use crate::api::{CrewJob, RUN_ONCE_EXPIRES, RUN_ONCE_LABEL, RunOnceRecord};
use crate::runtime::clock;

/// How often it is looked for.
const EVERY: Duration = Duration::from_hours(1);
/// After this time a record without an end is looked at: its job may be gone.
const UNENDED: Duration = Duration::from_hours(24);
/// Records per page.
const PAGE: u32 = 100;

/// Deletes what has expired, for ever.
pub async fn run(ctx: Arc<Context>) {
    loop {
        let namespaces: Vec<Arc<str>> = ctx.namespaces.now.borrow().iter().cloned().collect();
        for namespace in namespaces {
            match clear(&ctx.client, &namespace, clock::now()).await {
                Ok(0) => {}
                Ok(deleted) => tracing::info!(%namespace, deleted, "expired records of run-once keys deleted"),
                Err(error) => {
                    tracing::warn!(%namespace, %error, "records of run-once keys could not be looked at; trying again in an hour");
                }
            }
        }
        sleep(EVERY).await;
    }
}

/// Deletes what has expired in a namespace. How many records that were.
async fn clear(client: &Client, namespace: &str, now: Timestamp) -> kube::Result<u64> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut records = ListParams::default().labels(RUN_ONCE_LABEL).limit(PAGE);
    let mut deleted = 0;
    loop {
        let page = api.list_metadata(&records).await?;
        for record in &page.items {
            let is_over = match state(&record.metadata, now) {
                State::Expired => true,
                State::Kept => false,
                State::Unended => !has_job(client, &api, &record.name_any()).await?,
            };
            if is_over && delete(&api, &record.metadata).await? {
                deleted += 1;
            }
        }
        match page.metadata.continue_ {
            Some(more) if !more.is_empty() => records = records.continue_token(&more),
            Some(_) | None => return Ok(deleted),
        }
    }
}

/// What the metadata of a record tell.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Expired,
    Kept,
    /// Its job had not ended when it was written, and that is a while ago.
    Unended,
}

fn state(metadata: &ObjectMeta, now: Timestamp) -> State {
    let expires = metadata.annotations.as_ref().and_then(|annotations| annotations.get(RUN_ONCE_EXPIRES));
    match expires.map(|at| at.parse::<Timestamp>()) {
        Some(Ok(at)) if at <= now => State::Expired,
        // A time that cannot be read is none of ours.
        Some(_) => State::Kept,
        None => {
            let created = metadata.creation_timestamp.as_ref().map_or(now, |at| at.0);
            if clock::since(created, now) >= UNENDED { State::Unended } else { State::Kept }
        }
    }
}

/// Whether the job that a record without an end names is there and has not ended.
async fn has_job(client: &Client, api: &Api<ConfigMap>, name: &str) -> kube::Result<bool> {
    let Some(record) = api.get_opt(name).await?.as_ref().and_then(RunOnceRecord::read) else { return Ok(true) };
    let Some(namespace) = api.namespace() else { return Ok(true) };
    let jobs: Api<CrewJob> = Api::namespaced(client.clone(), namespace);
    let job = jobs.get_opt(&record.job).await?.and_then(|job| job.to_job().ok());
    Ok(job.is_some_and(|job| job.uid == record.uid && !job.status.phase.is_terminal()))
}

/// Deletes a record, unless it has changed since it was listed. Whether it did.
async fn delete(api: &Api<ConfigMap>, metadata: &ObjectMeta) -> kube::Result<bool> {
    let as_listed = Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
    let options = DeleteParams { preconditions: Some(as_listed), ..DeleteParams::default() };
    match api.delete(metadata.name.as_deref().unwrap_or_default(), &options).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

    fn metadata(created: i64, expires: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            creation_timestamp: Some(Time(Timestamp::constant(created, 0))),
            annotations: expires.map(|at| [(RUN_ONCE_EXPIRES.to_owned(), at.to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_record_is_kept_until_it_expires_and_one_without_an_end_for_a_day_before_its_job_is_looked_for() {
        assert_eq!(state(&metadata(0, Some("1970-01-12T13:46:40Z")), NOW), State::Expired);
        assert_eq!(state(&metadata(0, Some("1970-01-12T13:46:41Z")), NOW), State::Kept);
        assert_eq!(state(&metadata(0, Some("soon")), NOW), State::Kept, "no operator has written that");
        assert_eq!(state(&metadata(1_000_000 - 86_399, None), NOW), State::Kept);
        assert_eq!(state(&metadata(1_000_000 - 86_400, None), NOW), State::Unended);
    }
}
