//! How the workers of a pool are set up, where that endangers jobs.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::time::Instant;

use crate::api::{ConditionType, Reason, Verdict, find_condition};
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;
use crate::operator::state::setup::{Complaint, Setup};
use crate::store::{Error, NodeSettings, Store};

/// How often all workers are called, and some of them asked again.
const EVERY: Duration = Duration::from_mins(5);
/// How long after a worker came up: it answers once it is bound to the control channel.
const AFTER_START: Duration = Duration::from_secs(3);
/// Workers that are asked at once. Those of one Deployment are set up alike, and each answers some 10 kB.
const AT_ONCE: usize = 16;
/// kombu's `visibility_timeout` where none is set.
const VISIBILITY_TIMEOUT: Duration = Duration::from_hours(1);
/// Workers that a message names; of more only the number is said.
const NAMED: usize = 3;

/// Asks, for ever.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store) {
    let mut next_call = Instant::now();
    loop {
        let is_call = next_call <= Instant::now();
        if is_call {
            next_call = Instant::now() + EVERY;
        }
        match ask(ctx, pool, store, is_call).await {
            Ok(true) => pool.load.notify_one(),
            Ok(false) => {}
            Err(error) => tracing::warn!(pool = %pool.key, %error, "asking the workers for their settings failed"),
        }
        tokio::select! {
            () = tokio::time::sleep_until(next_call) => {}
            () = pool.started.notified() => tokio::time::sleep(AFTER_START).await,
        }
    }
}

/// Asks some workers, after a call to all or only those that have just come up. Whether that is news.
async fn ask(ctx: &Context, pool: &Handle, store: &Store, is_call: bool) -> Result<bool, Error> {
    let fleet = pool.fleet.as_ref();
    if is_call {
        let present = store.present().await?;
        pool.nodes.answered_call(&present, |node| ctx.workers.read(|pods| pods.is_pod(fleet, node)), Instant::now());
    }
    let wanted = pool.nodes.to_ask(AT_ONCE, is_call, Instant::now());
    let answers = if wanted.is_empty() { Vec::new() } else { store.node_settings(&wanted).await? };
    let judge = |nodes: &[&NodeSettings]| {
        let declared = Declared {
            visibility_timeout: pool.spec.celery.visibility_timeout.to_std(),
            concurrency: i64::from(pool.spec.concurrency),
        };
        complaint(nodes, &declared, |node| ctx.workers.read(|pods| pods.shell_of(fleet, node)))
            .map_or(Setup::Fine, Setup::Wrong)
    };
    Ok(pool.nodes.told(answers, judge, Instant::now()))
}

/// The condition; `None` leaves it as it is, because no worker has told otherwise since this operator leads.
pub fn verdict(setup: &Setup, conditions: &[Condition]) -> Option<Verdict> {
    let type_ = ConditionType::WorkersMisconfigured;
    Some(match setup {
        Setup::Unknown if find_condition(conditions, type_).is_some() => return None,
        Setup::Unknown => {
            let message = "no worker has answered yet".to_owned();
            Verdict { type_, holds: None, reason: Reason::Unknown, message }
        }
        Setup::Fine => Verdict { type_, holds: Some(false), reason: Reason::AsExpected, message: String::new() },
        Setup::Wrong(Complaint { reason, message }) => {
            Verdict { type_, holds: Some(true), reason: *reason, message: message.clone() }
        }
    })
}

/// What the pool says of its workers.
struct Declared {
    visibility_timeout: Duration,
    concurrency: i64,
}

/// The shell that is the main process of a worker's container, and the container.
type Shell = (Arc<str>, Arc<str>);

/// `None` when all is well.
fn complaint(
    nodes: &[&NodeSettings],
    declared: &Declared,
    shell_of: impl Fn(&str) -> Option<Shell>,
) -> Option<Complaint> {
    let faults = |node: &NodeSettings| faults(node, declared, shell_of(&node.name));
    let wrong: Vec<(&str, Vec<Fault>)> = nodes.iter().map(|node| (&*node.name, faults(node))).collect();
    let wrong: Vec<_> = wrong.into_iter().filter(|(_, faults)| !faults.is_empty()).collect();
    let reason =
        wrong.iter().flat_map(|(_, faults)| faults).map(|(reason, _)| *reason).min_by_key(|it| severity(*it))?;
    let say = |(node, faults): &(&str, Vec<Fault>)| {
        let texts: Vec<&str> = faults.iter().map(|(_, text)| text.as_str()).collect();
        format!("{node}: {}", texts.join("; "))
    };
    let mut said: Vec<String> = wrong.iter().take(NAMED).map(say).collect();
    if wrong.len() > NAMED {
        said.push(format!("and {} more", wrong.len() - NAMED));
    }
    Some(Complaint { reason, message: said.join(". ") })
}

/// What is wrong with one worker, and how to mend it.
type Fault = (Reason, String);

/// Worst first.
fn severity(reason: Reason) -> usize {
    let order = [
        Reason::AcknowledgesEarly,
        Reason::ShellTakesSignals,
        Reason::VisibilityTimeoutDiffers,
        Reason::ConcurrencyDiffers,
        Reason::PrefetchTooHigh,
    ];
    order.iter().position(|other| *other == reason).unwrap_or(order.len())
}

/// Whether task events are on cannot be asked: `celery worker -E` turns them on without a trace in the configuration.
fn faults(node: &NodeSettings, declared: &Declared, shell: Option<Shell>) -> Vec<Fault> {
    let visibility_timeout = declared.visibility_timeout;
    let mut faults = Vec::new();
    if node.acks_late != Some(true) {
        let text = "it acknowledges messages before it runs them; set task_acks_late=True";
        faults.push((Reason::AcknowledgesEarly, text.to_owned()));
    }
    // A shell may have given its place to the worker, and an init passes signals on.
    if let (Some(pid), Some((shell, container))) = (node.pid.filter(|pid| *pid != 1), shell) {
        let text = format!(
            "its process has the PID {pid}, because the main process of container {container:?} is the shell {shell:?}, which \
             does not pass SIGTERM on, so it takes jobs until it is killed with one; write `exec celery ...`"
        );
        faults.push((Reason::ShellTakesSignals, text));
    }
    if let Some(concurrency) = node.concurrency.filter(|concurrency| *concurrency != declared.concurrency) {
        let text = format!(
            "it runs {concurrency} tasks at once and the pool's spec.concurrency is {}; start it with --concurrency {} or set \
             spec.concurrency to {concurrency}",
            declared.concurrency, declared.concurrency
        );
        faults.push((Reason::ConcurrencyDiffers, text));
    }
    // A message that waits for its time raises the count by one, so a single one more proves nothing.
    let takes =
        node.prefetch_count.zip(node.concurrency).is_some_and(|(count, at_once)| count == 0 || count > 2 * at_once);
    if takes && node.prefetch_multiplier != Some(1) {
        let text = "it takes more messages than it can run; set worker_prefetch_multiplier=1";
        faults.push((Reason::PrefetchTooHigh, text.to_owned()));
    }
    let seconds = node.visibility_timeout.and_then(|seconds| u64::try_from(seconds).ok());
    let has = seconds.map_or(VISIBILITY_TIMEOUT, Duration::from_secs);
    if has != visibility_timeout {
        let text = format!(
            "its visibility_timeout is {} s and the pool's celery.visibilityTimeout {} s; set both to the same",
            has.as_secs(),
            visibility_timeout.as_secs()
        );
        faults.push((Reason::VisibilityTimeoutDiffers, text));
    }
    faults
}

#[cfg(test)]
mod tests;
