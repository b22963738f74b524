//! How the workers of a pool are set up, where that endangers jobs.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::pools::Handle;
use crate::api::Reason;
use crate::store::{NodeSettings, Store};

/// How often workers are asked.
const EVERY: Duration = Duration::from_mins(5);
/// How long after a worker came up: it answers once it is bound to the control channel.
const AFTER_START: Duration = Duration::from_secs(3);
/// kombu's `visibility_timeout` where none is set.
const VISIBILITY_TIMEOUT: Duration = Duration::from_hours(1);
/// Workers that a message names; of more only the number is said.
const NAMED: usize = 3;

/// Asks, for ever.
pub async fn run(ctx: &Arc<Context>, pool: &Arc<Handle>, store: &Store) {
    loop {
        match store.node_settings().await {
            Ok(nodes) => {
                let expected = pool.spec.celery.visibility_timeout.to_std();
                if pool.set_misconfigured(complaint(&nodes, expected)) {
                    ctx.pools.refresh_namespace(&pool.key.namespace);
                }
            }
            Err(error) => tracing::warn!(pool = %pool.key, %error, "the workers could not be asked for their settings"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = pool.started.notified() => tokio::time::sleep(AFTER_START).await,
        }
    }
}

/// What is wrong with the settings of a pool's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The worst of it.
    pub reason: Reason,
    /// All of it, and how to mend it.
    pub message: String,
}

/// `None` when all is well or nobody answers.
fn complaint(nodes: &[NodeSettings], visibility_timeout: Duration) -> Option<Complaint> {
    let faults = |node: &NodeSettings| faults(node, visibility_timeout);
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
    let order = [Reason::AcknowledgesEarly, Reason::VisibilityTimeoutDiffers, Reason::PrefetchTooHigh];
    order.iter().position(|other| *other == reason).unwrap_or(order.len())
}

/// Whether task events are on cannot be asked: `celery worker -E` turns them on without a trace in the configuration.
fn faults(node: &NodeSettings, visibility_timeout: Duration) -> Vec<Fault> {
    let mut faults = Vec::new();
    if node.acks_late != Some(true) {
        let text = "it acknowledges messages before it runs them; set task_acks_late=True";
        faults.push((Reason::AcknowledgesEarly, text.to_owned()));
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
mod tests {
    use super::*;

    fn good(name: &str) -> NodeSettings {
        NodeSettings {
            name: name.into(),
            concurrency: Some(4),
            prefetch_count: Some(4),
            prefetch_multiplier: Some(1),
            acks_late: Some(true),
            sends_events: Some(true),
            visibility_timeout: Some(3600),
            pid: Some(1),
        }
    }

    fn said(nodes: &[NodeSettings]) -> Option<String> {
        complaint(nodes, Duration::from_hours(1)).map(|complaint| complaint.message)
    }

    #[test]
    fn workers_that_are_set_up_as_they_should_are_not_complained_about() {
        assert_eq!(said(&[]), None);
        assert_eq!(said(&[good("a"), NodeSettings { visibility_timeout: None, ..good("b") }]), None);
        assert_eq!(said(&[NodeSettings { prefetch_count: Some(7), ..good("a") }]), None, "some wait for their time");
    }

    #[test]
    fn what_endangers_jobs_is_said_with_the_setting_that_mends_it() {
        let celerys_default = NodeSettings {
            acks_late: Some(false),
            prefetch_multiplier: Some(4),
            prefetch_count: Some(16),
            visibility_timeout: Some(600),
            ..good("crew@a")
        };
        let nodes = [good("crew@b"), celerys_default];
        assert_eq!(complaint(&nodes, Duration::from_hours(1)).unwrap().reason, Reason::AcknowledgesEarly);
        let said = said(&nodes).unwrap();
        assert!(said.starts_with("crew@a: ") && !said.contains("crew@b"), "{said}");
        for setting in ["task_acks_late=True", "worker_prefetch_multiplier=1", "600 s", "3600 s"] {
            assert!(said.contains(setting), "{setting} is not in {said}");
        }
    }

    #[test]
    fn of_many_workers_some_are_named() {
        let wrong: Vec<_> = (0..9).map(|n| NodeSettings { acks_late: None, ..good(&format!("crew@{n}")) }).collect();
        let said = said(&wrong).unwrap();
        assert!(said.contains("crew@2") && !said.contains("crew@3") && said.ends_with("and 6 more"), "{said}");
    }
}
