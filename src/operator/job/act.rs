//! Carrying out a plan: the effects in order, then at most one status patch, then what must wait for it.
//!
//! Dying at any await is safe: ids are derived, effects are compare-and-set, and the status says only what is so. An
//! effect that is refused drops the rest of the plan: Redis or the API server knows more, so the job is observed again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::abandon::is_wanted;
use super::arrive::arrive;
use super::broker::{connection, fenced, learn, read_again, store_error};
use super::dedup;
use super::end::{finished, gone};
use super::error::Error;
use super::late;
use super::measure::measure;
use super::once;
use super::pod_deletion;
use super::publish::{self, Origin};
use super::refused;
use super::result::{complete, store_result};
use super::tell::tell;
use super::write::{Step, delete_pod, read, write_status};
use crate::api::{CrewJob, RunOnceEnd, status_patch};
use crate::core::evidence::Evidence;
use crate::core::id::ObjectKey;
use crate::core::job::Job;
use crate::core::plan::{Effect, InPlaceOf, Next, Plan, Publication};
use crate::core::status::{Refusal, RefusalKind, Status};
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::runtime::clock;
use crate::runtime::telemetry::chain;
use crate::store::{self, Enqueued, MarkerId, Message, Moved, Requeued, Store, Wanted, Withdrawn};

/// Kibibytes of inputs of which messages are made at a time.
const MESSAGES: u32 = 16 << 10;
/// How many times over inputs are held meanwhile: as what the API server answers, as values, as text, as a message.
const COPIES: u32 = 8;
static MAKING: Semaphore = Semaphore::const_new(MESSAGES as usize);

/// Invalid jobs whose end is written at a time. Most are too large, and each write of one costs the API server seconds
/// and a hundred times its size in memory: all at once they would take longer than a call may.
static ENDING_INVALID: Semaphore = Semaphore::const_new(2);
/// When an invalid job is looked at again that found no room.
const INVALID_AGAIN: Duration = Duration::from_secs(1);

/// Carries out a plan for the job as it was observed.
pub async fn act(ctx: &Context, entry: &Entry, plan: &mut Plan) -> Result<Next, Error> {
    let key = entry.job.key.clone();
    if plan.status.phase != entry.job.status.phase {
        plan.status.is_traced |= ctx.traces.samples(&entry.job); // with what is written anyway
    }
    let is_heavy = entry.job.spec.invalid.is_some() && plan.status != entry.job.status;
    let room = is_heavy.then(|| ENDING_INVALID.try_acquire()).transpose();
    let Ok(_room) = room else {
        return Ok(Next::At(clock::now().checked_add(INVALID_AGAIN).unwrap_or(Timestamp::MAX)));
    };
    for effect in plan.effects.iter().filter(|effect| !key.is_deleted() || is_wanted(effect)) {
        if matches!(perform(ctx, entry, effect).await?, Step::Refused) {
            ctx.jobs.look_at(&key);
            return Ok(Next::OnHint);
        }
    }
    if matches!(complete(ctx, &entry.job, &mut plan.status).await?, Step::Refused) {
        return Ok(Next::OnHint);
    }
    let terminal = plan.status.phase.is_terminal();
    ctx.jobs.lock().update(&key, |entry| entry.closing = terminal);
    match status_patch(&entry.job, &plan.status, &entry.version).filter(|_| !key.is_deleted()) {
        Some(patch) => {
            let written = match write_status(ctx, entry, &plan.status, &patch).await {
                Err(error) => Box::pin(write_less(ctx, entry, &mut plan.status, error)).await,
                written => written,
            };
            if matches!(written?, Step::Refused) {
                return Ok(Next::OnHint);
            }
            measure(ctx, &entry.job, &plan.status);
            ctx.traces.recorded(&entry.job, &plan.status);
            ctx.events.announce(&entry.job, std::mem::take(&mut plan.notices));
        }
        None if plan.status != entry.job.status => {
            ctx.jobs.lock().update(&key, |entry| entry.job.status = plan.status.clone());
        }
        None => {}
    }
    tell(ctx, entry, &plan.status);
    if terminal && let Some(said) = finished(ctx, entry, &plan.status) {
        Box::pin(late::arrived(ctx, &entry.job, said)).await;
    }
    for effect in &plan.afterwards {
        perform(ctx, entry, effect).await?;
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
            if entry.evidence.others().is_copy {
                learn(ctx, job, Evidence::unread);
                ctx.pools.sweep(job, id.task, Wanted::Gone); // no marker knows its bytes
                return Ok(Step::Refused);
            }
            match fenced(ctx, job, store.withdraw(epoch, &marker, id.generation).await)? {
                Withdrawn::Removed => learn(ctx, job, |evidence| evidence.withdrawn(id.generation)),
                // Kombu restores messages with other bytes, and of a large one no bytes are kept: only a pass through
                // the queues finds those.
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
        Effect::Drop { id, copy } => {
            let marker = MarkerId::new(job.key.namespace.clone(), id.task);
            let (store, epoch) = (connection(ctx, job)?, ctx.epoch());
            fenced(ctx, job, store.drop_copy(epoch, &marker, id.generation, *copy).await)?;
            if !entry.evidence.is_over() {
                read_again(ctx, job);
            }
            Ok(Step::Done)
        }
        Effect::Move { id, priority, queue } => {
            let marker = MarkerId::new(job.key.namespace.clone(), id.task);
            let (store, epoch) = (connection(ctx, job)?, ctx.epoch());
            match fenced(ctx, job, store.move_band(epoch, &marker, id.generation, queue, *priority).await)? {
                // One that has left the queue needs no other place in it.
                Moved::Moved | Moved::NotQueued => {}
                // It is moved in the next pass through the queues. Should that fail, the next audit finds the old
                // priority.
                Moved::Large => ctx.pools.sweep(job, id.task, Wanted::Band(*priority)),
            }
            learn(ctx, job, |evidence| evidence.moved(*priority));
            Ok(Step::Done)
        }
        Effect::Revoke(task) => {
            let followers = ctx.pools.get(&job.key.namespace, &job.spec.pool).map(|pool| pool.followers_of(*task));
            let followers = followers.iter().flatten().map(ToString::to_string);
            let tasks: Vec<String> = [task.to_string()].into_iter().chain(followers).collect();
            connection(ctx, job)?
                .revoke(&tasks, Some(store::TERMINATE), None)
                .await
                .map_err(|source| store_error(job, source))?;
            ctx.jobs.lock().stop_asked(job, clock::now());
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
        Effect::ClaimKey(key) => once::claim(ctx, entry, key).await,
        Effect::ListTwins => dedup::list(ctx, job).await,
        Effect::CancelTwin { job: other, uid } => dedup::cancel(ctx, job, other, *uid).await,
        Effect::AskForPermit => {
            ctx.jobs.ask_for_permit(&job.key, clock::now());
            Ok(Step::Refused) // whether it was given decides what comes next
        }
        Effect::RememberRun { key, succeeded, at, until } => {
            let end = RunOnceEnd { succeeded: *succeeded, at: *at, until: *until };
            once::remember(ctx, job, key, end).await
        }
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
    let Some(message) = message(ctx, entry, publication, &store).await? else { return Ok(Step::Refused) };
    learn(ctx, job, |evidence| evidence.expect(publication.id, clock::now()));
    let epoch = ctx.epoch();
    let began_at = Instant::now();
    let enqueued = store.enqueue(epoch, &message).await;
    ctx.metrics.redis_enqueue_seconds.observe(began_at.elapsed().as_secs_f64());
    let enqueued = match fenced(ctx, job, enqueued) {
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
    let Some(message) = message(ctx, entry, publication, &store).await? else { return Ok(Step::Refused) };
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
async fn message(
    ctx: &Context,
    entry: &Entry,
    publication: &Publication,
    store: &Store,
) -> Result<Option<Message>, Error> {
    let job = &entry.job;
    let room = (entry.weight / 1024 * COPIES).clamp(1, MESSAGES / 2);
    let Ok(_room) = MAKING.acquire_many(room).await else { return Ok(None) };
    let object = match entry.fresh.clone().filter(|_| !publication.again) {
        Some(fresh) => fresh,
        None => match read(ctx, &job.key).await? {
            Some(live) if same(&live, entry) => Arc::new(live),
            Some(live) => {
                arrive(ctx, live, false);
                return Ok(None);
            }
            None => {
                gone(ctx, &job.key, job.uid);
                return Ok(None);
            }
        },
    };
    let span = ctx.traces.context(job, publication.id.number);
    let origin = origin(ctx, &object, job).await?;
    let priority = store.celery(publication.priority);
    Ok(Some(publish::message(job, &object, publication, priority, span, origin.as_ref())))
}

/// The job with whose state this one begins, if it names one.
async fn origin(ctx: &Context, object: &CrewJob, job: &Job) -> Result<Option<Origin>, Error> {
    let Some(named) = &object.spec.resume_from else { return Ok(None) };
    let key = ObjectKey { namespace: job.key.namespace.clone(), name: named.name.as_str().into() };
    let found = read(ctx, &key).await?;
    let is_served_there = |other: &CrewJob| *other.spec.pool_ref.name == *job.spec.pool;
    let missing = |why: &str| Origin::Missing(format!("spec.resumeFrom names CrewJob {:?}, which {why}", named.name));
    Ok(Some(match found {
        Some(other) if !is_served_there(&other) => missing("another pool serves"),
        Some(other) => match other.metadata.uid.as_deref().and_then(|uid| Uuid::try_parse(uid).ok()) {
            Some(uid) => Origin::Of(uid),
            None => missing("has no UID"),
        },
        None => missing("does not exist"),
    }))
}

/// Whether a live object is the one that was decided on.
fn same(live: &CrewJob, entry: &Entry) -> bool {
    live.metadata.resource_version.as_deref() == Some(&*entry.version)
}

/// Writes a status without the details that the API server may have refused for their content. They count as recorded,
/// so that they are not written again and again.
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

/// What Redis refuses changes nothing there, so what was known before still holds. After any other failure that is
/// unknown.
fn was_not_published(ctx: &Context, entry: &Entry, error: &Error) {
    if matches!(error, Error::Store { source: store::Error::Refused { .. }, .. }) {
        learn(ctx, &entry.job, |evidence| *evidence = entry.evidence.clone());
    } else {
        read_again(ctx, &entry.job);
    }
}
