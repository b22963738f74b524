//! Carrying out a plan: the effects in order, then at most one status patch, then what must wait for it.
//!
//! Dying at any await is safe: ids are derived, effects are compare-and-set, and the status says only what is so. An
//! effect that is refused drops the rest of the plan: somebody knows more, so the job is observed again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::Semaphore;

use super::context::Context;
use super::deleted;
use super::error::Error;
use super::jobs::Entry;
use super::pod_deletion;
use super::publish;
use super::refused;
use crate::api::{CrewJob, JobResult, expiry_bucket, result_config_map_name, status_patch};
use crate::core::evidence::Evidence;
use crate::core::job::{Job, ObjectKey};
use crate::core::plan::{Effect, InPlaceOf, Next, Plan, Publication};
use crate::core::status::{Container, Kept, Output, Phase, Refusal, RefusalKind, Status};
use crate::runtime::clock;
use crate::runtime::metrics::{EndLabels, WriteOutcome, Written};
use crate::runtime::telemetry::chain;
use crate::store::{self, Enqueued, MarkerId, Message, Moved, Requeued, Store, Wanted, Withdrawn};

/// Signal for the child process of a revoked task.
pub const TERMINATE: &str = "SIGTERM";

/// Kibibytes of results that are written to objects of their own at a time.
const RESULTS: u32 = 2048;
static STORING: Semaphore = Semaphore::const_new(RESULTS as usize);

/// Kibibytes of inputs of which messages are made at a time.
const MESSAGES: u32 = 16 << 10;
/// How many times over inputs are held meanwhile: as what the API server answers, as values, as text, as a message.
const COPIES: u32 = 8;
static MAKING: Semaphore = Semaphore::const_new(MESSAGES as usize);

/// Invalid jobs whose end is written at a time. Most are too large, and each write of one costs the API server seconds and a
/// hundred times its size in memory: all at once they would take longer than a call may.
static ENDING_INVALID: Semaphore = Semaphore::const_new(2);
/// When an invalid job is looked at again that found no room.
const INVALID_AGAIN: Duration = Duration::from_secs(1);

/// Whether the rest of the plan still holds.
pub enum Step {
    /// It does.
    Done,
    /// Something else was found: observe again.
    Refused,
}

/// Carries out a plan for the job as it was observed.
pub async fn act(ctx: &Context, entry: Entry, plan: Plan) -> Result<Next, Error> {
    let key = entry.job.key.clone();
    let is_heavy = entry.job.spec.invalid.is_some() && plan.status != entry.job.status;
    let room = is_heavy.then(|| ENDING_INVALID.try_acquire()).transpose();
    let Ok(_room) = room else {
        return Ok(Next::At(clock::now().checked_add(INVALID_AGAIN).unwrap_or(Timestamp::MAX)));
    };
    for effect in plan.effects.iter().filter(|effect| !key.is_deleted() || deleted::is_wanted(effect)) {
        if matches!(perform(ctx, &entry, effect).await?, Step::Refused) {
            ctx.jobs.look_at(&key);
            return Ok(Next::OnHint);
        }
    }
    let mut plan = plan;
    if matches!(complete(ctx, &entry.job, &mut plan.status).await?, Step::Refused) {
        return Ok(Next::OnHint);
    }
    let terminal = plan.status.phase.is_terminal();
    ctx.jobs.lock().update(&key, |entry| entry.closing = terminal);
    match status_patch(&entry.job, &plan.status, &entry.version).filter(|_| !key.is_deleted()) {
        Some(patch) => {
            let written = match write_status(ctx, &entry, &plan.status, &patch).await {
                Err(error) => write_less(ctx, &entry, &mut plan.status, error).await,
                written => written,
            };
            if matches!(written?, Step::Refused) {
                return Ok(Next::OnHint);
            }
            ctx.events.announce(&entry.job, plan.notices);
        }
        None if plan.status != entry.job.status => {
            ctx.jobs.lock().update(&key, |entry| entry.job.status = plan.status.clone());
        }
        None => {}
    }
    if terminal {
        finish(ctx, &entry.job, &plan.status);
    }
    for effect in &plan.afterwards {
        perform(ctx, &entry, effect).await?;
    }
    Ok(plan.next)
}

async fn perform(ctx: &Context, entry: &Entry, effect: &Effect) -> Result<Step, Error> {
    let job = &entry.job;
    match effect {
        Effect::Enqueue(publication) => enqueue(ctx, entry, publication).await,
        Effect::Requeue { in_place_of, message, clear_result } => {
            requeue(ctx, entry, *in_place_of, message, *clear_result).await
        }
        Effect::Withdraw(id) => {
            let marker = MarkerId::new(job.key.namespace.clone(), id.task);
            let (store, epoch) = (connection(ctx, job)?, ctx.epoch());
            match fenced(ctx, job, store.withdraw(epoch, &marker, id.generation).await)? {
                Withdrawn::Removed => learn(ctx, job, |evidence| evidence.withdrawn(id.generation)),
                // Kombu restores messages with other bytes, and of a large one no bytes are kept: only a pass through the
                // queues finds those.
                Withdrawn::NotQueued => {
                    learn(ctx, job, Evidence::unread);
                    ctx.pools.sweep(job, id.task, Wanted::Gone);
                }
            }
            Ok(Step::Refused) // what was found decides what comes next
        }
        Effect::Retire { in_place_of, id } => {
            let marker = MarkerId::new(job.key.namespace.clone(), id.task);
            let (store, epoch) = (connection(ctx, job)?, ctx.epoch());
            fenced(ctx, job, store.retire(epoch, *in_place_of, &marker, *id).await)?;
            read_again(ctx, job);
            Ok(Step::Refused) // what is there now decides what comes next
        }
        Effect::Move { id, priority, queue } => {
            let marker = MarkerId::new(job.key.namespace.clone(), id.task);
            let (store, epoch) = (connection(ctx, job)?, ctx.epoch());
            match fenced(ctx, job, store.move_band(epoch, &marker, id.generation, queue, *priority).await)? {
                // One that has left the queue needs no other place in it.
                Moved::Moved | Moved::NotQueued => {}
                // It is moved in the next pass through the queues. Should that fail, the next audit finds the old priority.
                Moved::Large => ctx.pools.sweep(job, id.task, Wanted::Band(*priority)),
            }
            learn(ctx, job, |evidence| evidence.moved(*priority));
            Ok(Step::Done)
        }
        Effect::Revoke(task) => {
            connection(ctx, job)?
                .revoke(&[*task], Some(TERMINATE), None)
                .await
                .map_err(|source| store_error(job, source))?;
            learn(ctx, job, |evidence| evidence.stop_asked(clock::now()));
            Ok(Step::Done)
        }
        Effect::DeletePod(container) => {
            let store = connection(ctx, job)?;
            match pod_deletion::is_harmless(ctx, &store, entry, container).await {
                Ok(true) => delete_pod(ctx, job, container).await.map(|()| Step::Done),
                Ok(false) => Ok(Step::Refused), // what was found decides what comes next
                Err(source) => Err(store_error(job, source)),
            }
        }
        Effect::StoreResult(output) => store_result(ctx, job, output).await,
        Effect::ExtendResult { task, ttl } => {
            connection(ctx, job)?.extend_result(*task, *ttl).await.map_err(|source| store_error(job, source))?;
            Ok(Step::Done)
        }
        Effect::Forget(task) => {
            ctx.pools.forget(job, *task);
            Ok(Step::Done)
        }
        Effect::Clear(task) => {
            ctx.pools.clear(job, *task);
            Ok(Step::Done)
        }
    }
}

async fn enqueue(ctx: &Context, entry: &Entry, publication: &Publication) -> Result<Step, Error> {
    let job = &entry.job;
    let store = connection(ctx, job)?;
    let Some(message) = message(ctx, entry, publication).await? else { return Ok(Step::Refused) };
    learn(ctx, job, |evidence| evidence.expect(publication.id, clock::now()));
    let epoch = ctx.epoch();
    let enqueued = match fenced(ctx, job, store.enqueue(epoch, &message).await) {
        Ok(enqueued) => enqueued,
        Err(error) => {
            was_not_published(ctx, entry, &error);
            return Err(error);
        }
    };
    match enqueued {
        Enqueued::Published => {
            let now = clock::now();
            learn(ctx, job, |evidence| evidence.published(now, publication.spec_hash, publication.priority));
            ctx.jobs.lock().update(&job.key, |entry| entry.fresh = None);
            ctx.metrics.enqueued.inc();
            if publication.id.number == 1 {
                let waited = now.duration_since(job.created_at).as_secs_f64().max(0.0);
                ctx.metrics.enqueue_seconds.observe(waited);
            }
            ctx.pools.published(&job.key.namespace, &job.spec.pool);
            if ctx.jobs.lock().get(&job.key).is_none() {
                ctx.pools.look_for_strays(&job.key.namespace, &job.spec.pool); // it was deleted meanwhile
            }
            Ok(Step::Done)
        }
        Enqueued::Already(_) => {
            ctx.pools.published(&job.key.namespace, &job.spec.pool);
            read_again(ctx, job);
            Ok(Step::Refused)
        }
        Enqueued::HasResult => {
            read_again(ctx, job);
            Ok(Step::Refused)
        }
    }
}

async fn requeue(
    ctx: &Context,
    entry: &Entry,
    in_place_of: InPlaceOf,
    publication: &Publication,
    clear_result: bool,
) -> Result<Step, Error> {
    let job = &entry.job;
    let store = connection(ctx, job)?;
    let Some(message) = message(ctx, entry, publication).await? else { return Ok(Step::Refused) };
    learn(ctx, job, |evidence| evidence.expect(publication.id, clock::now()));
    let epoch = ctx.epoch();
    match fenced(ctx, job, store.requeue(epoch, in_place_of, &message, clear_result).await) {
        Ok(Requeued::Published) => {
            learn(ctx, job, |evidence| evidence.published(clock::now(), publication.spec_hash, publication.priority));
            ctx.metrics.enqueued.inc();
            ctx.metrics.requeued.inc();
            ctx.pools.published(&job.key.namespace, &job.spec.pool);
            Ok(Step::Done)
        }
        // An earlier call got through, and we died or lost the answer before the status was written.
        Ok(Requeued::Superseded(marker)) if marker.generation == publication.id.generation => Ok(Step::Done),
        Ok(Requeued::Superseded(_) | Requeued::Ended | Requeued::Changed) => {
            read_again(ctx, job);
            Ok(Step::Refused)
        }
        Err(error) => {
            was_not_published(ctx, entry, &error);
            Err(error)
        }
    }
}

/// The message to publish; `None` when the job is not any more what was decided on.
async fn message(ctx: &Context, entry: &Entry, publication: &Publication) -> Result<Option<Message>, Error> {
    let job = &entry.job;
    let room = (entry.weight / 1024 * COPIES).clamp(1, MESSAGES / 2);
    let Ok(_room) = MAKING.acquire_many(room).await else { return Ok(None) };
    let object = match entry.fresh.clone().filter(|_| !publication.again) {
        Some(fresh) => fresh,
        None => match read(ctx, &job.key).await? {
            Some(live) if same(&live, entry) => Arc::new(live),
            Some(live) => {
                ctx.jobs_apply(live);
                return Ok(None);
            }
            None => {
                super::watch::gone(ctx, &job.key, job.uid);
                return Ok(None);
            }
        },
    };
    Ok(Some(publish::message(job, &object, publication)))
}

/// Whether a live object is the one that was decided on.
fn same(live: &CrewJob, entry: &Entry) -> bool {
    live.metadata.resource_version.as_deref() == Some(&*entry.version)
}

async fn read(ctx: &Context, key: &ObjectKey) -> Result<Option<CrewJob>, Error> {
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
    let written = patch_status(&ctx.client, key, patch).await;
    drop(call);
    match written {
        Ok(written) => {
            ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Done);
            if let Some(at) = status.expires_at {
                ctx.hours.note(expiry_bucket(at), clock::now());
            }
            let version = written.metadata.resource_version.unwrap_or_default();
            ctx.jobs.lock().update(key, |entry| {
                entry.version = version.into();
                entry.job.status = status.clone();
            });
            Ok(Step::Done)
        }
        Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => {
            ctx.metrics.wrote(Written::JobStatus, WriteOutcome::Conflict);
            ctx.jobs.lock().update(key, |entry| entry.closing = false);
            match read(ctx, key).await? {
                Some(live) => ctx.jobs_apply(live),
                None => super::watch::gone(ctx, key, entry.job.uid),
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

/// Writes a status without the details that the API server may have refused for their content. They count as recorded, so
/// that they are not written again and again.
async fn write_less(ctx: &Context, entry: &Entry, wanted: &mut Status, error: Error) -> Result<Step, Error> {
    let Some((kind @ RefusalKind::Status, detail)) = refused::refusal(&error) else { return Err(error) };
    if !wanted.phase.is_terminal() {
        let refusal = Refusal { kind, detail: detail.as_str().into(), told_at: clock::now() };
        wanted.refused = Some(Box::new(refusal));
    }
    let less = wanted.clone().without_details();
    let Some(patch) = status_patch(&entry.job, &less, &entry.version) else { return Err(error) };
    let step = write_status(ctx, entry, wanted, &patch).await?;
    tracing::warn!(job = %entry.job.key, error = %chain(&error), "details of a status were refused; written without them");
    refused::warn(ctx, &entry.job, kind, &detail);
    Ok(step)
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

/// The same for a `ConfigMap` that is created.
async fn create(client: &Client, namespace: &str, config_map: ConfigMap) -> kube::Result<PartialObjectMeta<ConfigMap>> {
    let body = serde_json::to_vec(&config_map).map_err(kube::Error::SerdeError)?;
    drop(config_map);
    let config_maps = kube::core::Request::new(ConfigMap::url_path(&(), Some(namespace)));
    let mut request = config_maps.create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
    if let Ok(metadata) = METADATA.parse() {
        request.headers_mut().insert("accept", metadata);
    }
    client.request(request).await
}

/// What the API server is asked to answer with.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The end is recorded: nothing of the job is kept.
fn finish(ctx: &Context, job: &Job, status: &Status) {
    if job.key.is_deleted() {
        ctx.jobs.lock().remove(&job.key);
        return tracing::info!(job = %job.key, reason = status.why.reason(), "deleted job taken off Redis");
    }
    let labels = EndLabels { phase: format!("{:?}", status.phase), reason: status.why.reason().to_owned() };
    ctx.metrics.jobs_finished.get_or_create(&labels).inc();
    let live = {
        let mut table = ctx.jobs.lock();
        table.remove(&job.key);
        table.len()
    };
    ctx.metrics.jobs_live.set(i64::try_from(live).unwrap_or(i64::MAX));
    if status.phase != Phase::Succeeded {
        ctx.jobs.ended.remember(job);
    }
    tracing::info!(
        job = %job.key, phase = ?status.phase, reason = status.why.reason(), attempts = status.attempts, "job finished"
    );
}

/// Deletes a worker's Pod, which has a second to end: nothing that it runs is to go on.
async fn delete_pod(ctx: &Context, job: &Job, container: &Container) -> Result<(), Error> {
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

/// Reads the result that the status is to hold, where it was not held until now.
async fn complete(ctx: &Context, job: &Job, status: &mut Status) -> Result<Step, Error> {
    let Some(result) = status.result.as_mut().filter(|result| result.kept == Kept::Inline) else {
        return Ok(Step::Done);
    };
    if result.output.text.is_some() || !result.output.is_inline() {
        return Ok(Step::Done);
    }
    let Some(text) = result_text(ctx, job, &result.output).await? else { return Ok(Step::Refused) };
    result.output = Arc::new(Output { text: Some(text.into()), ..(*result.output).clone() });
    Ok(Step::Done)
}

/// The text of a result, from Redis. When there is another one by now, the job is observed again.
async fn result_text(ctx: &Context, job: &Job, output: &Output) -> Result<Option<String>, Error> {
    let text = connection(ctx, job)?.result_text(job.attempt_in_hand().task, output).await;
    let text = text.map_err(|source| store_error(job, source))?;
    if text.is_none() {
        read_again(ctx, job);
    }
    Ok(text)
}

async fn store_result(ctx: &Context, job: &Job, output: &Output) -> Result<Step, Error> {
    // On its way a result is held several times over: as text, as a request, and as what the API server answers.
    let room = u32::try_from(output.bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(RESULTS);
    let Ok(_room) = STORING.acquire_many(room).await else { return Ok(Step::Refused) };
    let Some(text) = result_text(ctx, job, output).await? else { return Ok(Step::Refused) };
    let name = result_config_map_name(&job.key.name, job.attempt_in_hand().task);
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &job.key.namespace);
    let config_map = name.clone();
    let keep = |source| Error::KeepResult { job: job.key.clone(), config_map, source: Box::new(source) };
    let owner = OwnerReference { controller: Some(true), ..owner(job) };
    let config_map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(job.key.namespace.to_string()),
            owner_references: Some(vec![owner]),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "crewjob-operator".to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([(JobResult::CONFIG_MAP_KEY.to_owned(), text)].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    };
    let _call = ctx.call().await;
    match create(&ctx.client, &job.key.namespace, config_map).await {
        Ok(_) => {
            ctx.metrics.wrote(Written::ConfigMap, WriteOutcome::Done);
            Ok(Step::Done)
        }
        Err(kube::Error::Api(error)) if error.code == 409 => {
            let existing = api.get(&name).await.map_err(keep)?;
            let ours = existing.owner_references().iter().any(|owner| owner.uid == job.uid.to_string());
            if ours { Ok(Step::Done) } else { Err(Error::ConfigMapTaken { job: job.key.clone(), config_map: name }) }
        }
        Err(source) => {
            ctx.metrics.wrote(Written::ConfigMap, WriteOutcome::Failed);
            Err(keep(source))
        }
    }
}

fn owner(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: CrewJob::api_version(&()).into_owned(),
        kind: CrewJob::kind(&()).into_owned(),
        name: job.key.name.to_string(),
        uid: job.uid.to_string(),
        ..OwnerReference::default()
    }
}

fn learn(ctx: &Context, job: &Job, what: impl FnOnce(&mut Evidence)) {
    let mut table = ctx.jobs.lock();
    if table.get(&job.key).is_some_and(|entry| entry.job.uid == job.uid) {
        let of = job.attempt_in_hand().task;
        table.note(&job.key, |now, evidence| {
            if now.attempt_in_hand().task == of {
                what(evidence.about(of));
            }
        });
    }
}

/// What Redis refuses changes nothing there, so what was known before still holds. After any other failure that is unknown.
fn was_not_published(ctx: &Context, entry: &Entry, error: &Error) {
    if matches!(error, Error::Store { source: store::Error::Refused { .. }, .. }) {
        learn(ctx, &entry.job, |evidence| *evidence = entry.evidence.clone());
    } else {
        read_again(ctx, &entry.job);
    }
}

/// Redis knows better: read its levels for this job before anything else is decided.
fn read_again(ctx: &Context, job: &Job) {
    learn(ctx, job, Evidence::unread);
    ctx.pools.read_levels(&job.key.namespace, &job.spec.pool);
}

fn connection(ctx: &Context, job: &Job) -> Result<Store, Error> {
    ctx.pools
        .store(&job.key.namespace, &job.spec.pool)
        .ok_or_else(|| Error::NotConnected { job: job.key.clone(), pool: job.spec.pool.clone() })
}

fn store_error(job: &Job, source: store::Error) -> Error {
    Error::Store { job: job.key.clone(), source }
}

/// Passes a store's answer on. Where the fence keeps us out, the next look at the pool's load finds out why.
fn fenced<T>(ctx: &Context, job: &Job, answer: Result<T, store::Error>) -> Result<T, Error> {
    if matches!(answer, Err(store::Error::Fenced { .. })) {
        ctx.pools.look_at_load(&job.key.namespace, &job.spec.pool);
    }
    answer.map_err(|source| store_error(job, source))
}
