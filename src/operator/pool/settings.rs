//! How the workers of a pool are set up, where that endangers jobs: they are asked, and what they say is told on.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::time::Instant;

use crate::api::{ConditionType, Reason, Verdict, find_condition};
use crate::core::setup::{Declared, Finding, judge};
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;
use crate::operator::state::setup::Setup;
use crate::runtime::clock;
use crate::store::{Error, Store};
use crate::wire::ResultKeys;

/// How often all workers are called, and some of them asked again.
const EVERY: Duration = Duration::from_mins(5);
/// The same while jobs wait for workers to be set up otherwise.
const SOON: Duration = Duration::from_secs(10);
/// How long after a worker came up: it answers once it is bound to the control channel.
const AFTER_START: Duration = Duration::from_secs(3);
/// Workers that are asked at once. Those of one Deployment are set up alike, and each answers some 15 kB.
const AT_ONCE: usize = 16;
/// Calls in a row that no worker may answer, although one is heard, until what was known counts no more.
const SILENT_CALLS: u32 = 6;

/// Asks, for ever.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store) {
    let mut last_call: Option<Instant> = None;
    let mut silent_calls = 0;
    loop {
        let every = || if pool.futile().is_some() { SOON } else { EVERY };
        let is_call = last_call.is_none_or(|at| at + every() <= Instant::now());
        if is_call {
            last_call = Some(Instant::now());
        }
        match Box::pin(ask(ctx, pool, store, is_call, &mut silent_calls)).await {
            Ok(true) => told(ctx, pool),
            Ok(false) => {}
            Err(error) => tracing::warn!(pool = %pool.key, %error, "asking the workers for their settings failed"),
        }
        let next_call = last_call.map_or_else(Instant::now, |at| at + every());
        let next = pool.nodes.ask_again_at().map_or(next_call, |at| at.min(next_call));
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = pool.started.notified() => tokio::time::sleep(AFTER_START).await,
        }
    }
}

/// Tells the pool and its jobs.
fn told(ctx: &Arc<Context>, pool: &Handle) {
    let futile = match pool.nodes.setup() {
        Setup::Known(Finding { futile, .. }) => futile,
        Setup::Unknown | Setup::Silent => None,
    };
    if pool.set_futile(futile.as_ref()) {
        if let Some(it) = &futile {
            tracing::warn!(pool = %pool.key, reason = it.kind.reason(), detail = %it.detail, "jobs wait for their workers to be set up otherwise");
        } else {
            tracing::info!(pool = %pool.key, "the settings of the workers lose no results any more");
        }
        ctx.look_at_jobs(&pool.key);
    }
    pool.load.notify_one();
}

/// Asks some workers, after a call to all or only those that have just come up. Whether that is news.
async fn ask(
    ctx: &Context,
    pool: &Handle,
    store: &Store,
    is_call: bool,
    silent_calls: &mut u32,
) -> Result<bool, Error> {
    let fleet = pool.fleet.as_ref();
    if is_call {
        let present = store.present().await?;
        pool.nodes.answered_call(&present, |node| ctx.workers.read(|pods| pods.is_pod(fleet, node)), Instant::now());
        let is_heard = pool.worker_heard_at().is_some_and(|at| clock::since(at, clock::now()) < SOON);
        *silent_calls = if present.is_empty() && is_heard && pool.futile().is_some() { *silent_calls + 1 } else { 0 };
        if *silent_calls >= SILENT_CALLS {
            return Ok(pool.nodes.are_silent());
        }
    }
    let wanted = pool.nodes.to_ask(AT_ONCE, is_call, Instant::now());
    let tasks = &pool.facts.allowed_tasks;
    let answers = if wanted.is_empty() { Vec::new() } else { store.node_settings(&wanted, tasks).await? };
    let declared = declared(pool, store);
    let shell_of = |node: &str| ctx.workers.read(|pods| pods.shell_of(fleet, node));
    Ok(pool.nodes.told(answers, |nodes| judge(nodes, &declared, shell_of), Instant::now()))
}

fn declared(pool: &Handle, store: &Store) -> Declared {
    let celery = &pool.spec.celery;
    let prefix = celery.result_key_prefix();
    Declared {
        visibility_timeout: celery.visibility_timeout.to_std(),
        concurrency: i64::from(pool.spec.concurrency),
        queues: pool.facts.queues.clone(),
        broker: store.broker_place(),
        results: store.results_place(),
        result_prefix: prefix.into(),
        names_prefix: celery.result_key_prefix.is_some() || celery.global_key_prefix.is_some(),
        has_underscore: ResultKeys::new(prefix).result("").ends_with("_celery-task-meta-"),
        priority_steps: celery.priority_steps.iter().map(|step| i64::from(*step)).collect(),
        separator: celery.separator.as_str().into(),
        unacked_key: celery.unacked_key.as_str().into(),
    }
}

/// The condition; `None` leaves it as it is, because no worker has told otherwise since this operator leads.
pub fn verdict(setup: &Setup, conditions: &[Condition]) -> Option<Verdict> {
    let type_ = ConditionType::WorkersMisconfigured;
    let unknown = |message: &str| Verdict { type_, holds: None, reason: Reason::Unknown, message: message.to_owned() };
    Some(match setup {
        Setup::Unknown if find_condition(conditions, type_).is_some() => return None,
        Setup::Unknown => unknown("no worker has answered yet"),
        Setup::Silent => unknown("workers are heard, and none answers when it is asked for its settings"),
        Setup::Known(Finding { worst: None, message, .. }) => {
            Verdict { type_, holds: Some(false), reason: Reason::AsExpected, message: message.clone() }
        }
        Setup::Known(Finding { worst: Some(worst), message, .. }) => {
            let reason = Reason::named(worst.reason()).unwrap_or(Reason::Unknown);
            Verdict { type_, holds: Some(true), reason, message: message.clone() }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::setup::FaultKind;

    #[test]
    fn the_condition_is_not_changed_while_no_worker_answers() {
        let mut conditions = Vec::new();
        let before = verdict(&Setup::Unknown, &conditions).unwrap();
        assert_eq!((before.holds, before.reason), (None, Reason::Unknown));
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(clock::now());
        let known = |worst| Setup::Known(Finding { worst, message: "crew@a".to_owned(), futile: None });
        for kind in FaultKind::ALL {
            let said = verdict(&known(Some(kind)), &[]).unwrap();
            assert_eq!((said.holds, said.reason.to_string()), (Some(true), kind.reason().to_owned()));
            crate::api::set_condition(&mut conditions, said, None, now.clone());
        }
        assert_eq!(verdict(&Setup::Unknown, &conditions), None);
        assert_eq!(verdict(&known(None), &conditions).unwrap().holds, Some(false));
        assert_eq!(verdict(&Setup::Silent, &conditions).unwrap().holds, None);
    }
}
