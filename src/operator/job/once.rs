//! Run-once keys: which job has one, and what is remembered of a run. One ConfigMap for each key of a namespace.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};

use super::error::Error;
use super::write::{Step, read};
use crate::api::{CrewJob, RunOnceEnd, RunOnceRecord};
use crate::core::id::ObjectKey;
use crate::core::job::Job;
use crate::core::once::Claim;
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};

/// Takes the key for the job, or finds out which job has it. What was found decides what comes next.
pub async fn claim(ctx: &Context, entry: &Entry, key: &str) -> Result<Step, Error> {
    let job = &entry.job;
    let claim = if let Claim::Held { by, .. } = entry.claim()
        && is_held_here(ctx, job, &by, key)
    {
        Some(Claim::Held { by, read_at: clock::now() })
    } else {
        take(ctx, job, key).await?
    };
    let holder = match &claim {
        Some(Claim::Held { by, .. }) => Some(ObjectKey { namespace: job.key.namespace.clone(), name: by.clone() }),
        Some(Claim::Ours | Claim::Ran(_) | Claim::Unread) | None => None,
    };
    ctx.jobs.found(job, holder, |entry, is_awaited| {
        let claim = if is_awaited { claim } else { claim.map(Claim::to_be_read_soon) };
        entry.claim = claim.map(Box::new);
    });
    Ok(Step::Refused)
}

/// Whether the job that had the key is still among the unfinished ones: then the API server need not be asked.
fn is_held_here(ctx: &Context, job: &Job, by: &str, key: &str) -> bool {
    let holder = ObjectKey { namespace: job.key.namespace.clone(), name: by.into() };
    let jobs = ctx.jobs.lock();
    jobs.get(&holder).is_some_and(|entry| {
        let is_its_own = matches!(entry.claim.as_deref(), Some(Claim::Ours));
        is_its_own && entry.job.uid != job.uid && entry.job.spec.run_once.as_deref() == Some(key)
    })
}

/// Takes the key, if no other job has it; `None` when another writer was faster, and it is to be tried again.
async fn take(ctx: &Context, job: &Job, key: &str) -> Result<Option<Claim>, Error> {
    let ours = record(ctx, job, key, None);
    if write(ctx, job, ours.config_map()).await? {
        return Ok(Some(Claim::Ours));
    }
    let Some((found, version)) = find(ctx, job, key).await? else { return Ok(None) };
    if let Some(claim) = found.claim(job.uid, clock::now()) {
        return Ok(Some(claim));
    }
    if found.end.is_none() && is_unfinished(ctx, job, &found).await? {
        return Ok(Some(Claim::Held { by: found.job.as_str().into(), read_at: clock::now() }));
    }
    let mut config_map = ours.config_map();
    config_map.metadata.resource_version = version;
    Ok(write(ctx, job, config_map).await?.then_some(Claim::Ours))
}

/// Whether the job that has the key is there and has not ended. What was cancelled, or deleted, leaves the key.
async fn is_unfinished(ctx: &Context, job: &Job, found: &RunOnceRecord) -> Result<bool, Error> {
    let key = ObjectKey { namespace: job.key.namespace.clone(), name: found.job.as_str().into() };
    let live: Option<CrewJob> = read(ctx, &key).await?;
    let holder = live.and_then(|live| live.to_job().ok());
    Ok(holder.is_some_and(|holder| holder.uid == found.uid && !holder.status.phase.is_terminal()))
}

/// Remembers that the job has run and how it ended, before that is recorded.
pub async fn remember(ctx: &Context, job: &Job, key: &str, end: RunOnceEnd) -> Result<Step, Error> {
    let record = record(ctx, job, key, Some(end));
    let mut config_map = record.config_map();
    if let Some((found, version)) = find(ctx, job, key).await? {
        // Its record was deleted, and another job has the key now.
        if found.uid != job.uid {
            return Ok(Step::Done);
        }
        if found.term > record.term {
            return Err(Error::RunOnceFenced { job: job.key.clone(), term: found.term });
        }
        config_map.metadata.resource_version = version;
    }
    if write(ctx, job, config_map).await? {
        return Ok(Step::Done);
    }
    ctx.jobs.look_at(&job.key);
    Ok(Step::Refused)
}

fn record(ctx: &Context, job: &Job, key: &str, end: Option<RunOnceEnd>) -> RunOnceRecord {
    RunOnceRecord { key: key.to_owned(), job: job.key.name.to_string(), uid: job.uid, term: ctx.epoch(), end }
}

/// Creates the record, or replaces the version that it names; false when it is another one by now.
async fn write(ctx: &Context, job: &Job, config_map: ConfigMap) -> Result<bool, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &job.key.namespace);
    let name = config_map.metadata.name.clone().unwrap_or_default();
    let replaces = config_map.metadata.resource_version.is_some();
    let _call = ctx.call().await;
    let written = if replaces {
        api.replace(&name, &PostParams::default(), &config_map).await
    } else {
        api.create(&PostParams::default(), &config_map).await
    };
    match written {
        Ok(_) => {
            ctx.metrics.wrote(Written::ConfigMap, WriteOutcome::Done);
            Ok(true)
        }
        // Another writer was faster; what was to be replaced may also be gone.
        Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 && replaces => Ok(false),
        Err(source) => {
            ctx.metrics.wrote(Written::ConfigMap, WriteOutcome::Failed);
            Err(failed(job, name, source))
        }
    }
}

/// The record of a key with its resource version.
async fn find(ctx: &Context, job: &Job, key: &str) -> Result<Option<(RunOnceRecord, Option<String>)>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &job.key.namespace);
    let name = RunOnceRecord::config_map_name(key);
    let _call = ctx.call().await;
    let found = api.get_opt(&name).await.map_err(|source| failed(job, name.clone(), source))?;
    let Some(found) = found else { return Ok(None) };
    match RunOnceRecord::read(&found).filter(|record| record.key == key) {
        Some(record) => Ok(Some((record, found.metadata.resource_version))),
        None => Err(Error::RunOnceTaken { job: job.key.clone(), config_map: name }),
    }
}

fn failed(job: &Job, config_map: String, source: kube::Error) -> Error {
    Error::RunOnce { job: job.key.clone(), config_map, source: Box::new(source) }
}
