//! Whether the Pod of a worker may be deleted to stop a task that it does not stop itself: only where that ends nothing
//! else. What is remembered is looked at first; then the worker itself is asked, just before the deletion.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::id::{ObjectKey, TaskId};
use crate::core::index::pods::Stay;
use crate::core::observed::PodDeletion;
use crate::core::status::Container;
use crate::operator::context::Context;
use crate::operator::state::jobs::{Entry, Table};
use crate::operator::state::pool::Handle;
use crate::runtime::clock;
use crate::store::{Error, Store};

/// How soon a Pod that is to go must be due for its worker not to be waited for.
const SOON: Duration = Duration::from_secs(30);
/// Whether the Pod that has this job may be deleted, as far as is remembered.
pub fn pod_deletion(ctx: &Context, entry: &Entry) -> PodDeletion {
    let job = &entry.job;
    let Some(container) = entry.evidence.holder_now().and_then(|holder| holder.container.as_ref()) else {
        return PodDeletion::Useless;
    };
    let Some(pool) = ctx.pools.get(&job.key.namespace, &job.spec.pool) else { return PodDeletion::Useless };
    match pool.fleet.as_ref().map_or(Stay::Foreign, |fleet| ctx.workers.read(|pods| pods.stay(fleet, container))) {
        Stay::Until(due_at) if clock::until(due_at, clock::now()) <= SOON => return PodDeletion::UnderWay,
        Stay::Foreign | Stay::Until(_) => return PodDeletion::Useless,
        Stay::Stays => {}
    }
    let is_shared = pool.shared.contains(&container.pod_uid, Instant::now());
    if is_shared || runs_another(&ctx.jobs.lock(), entry, container) {
        return PodDeletion::Useless;
    }
    PodDeletion::Fine
}

/// Whether the Pod has another unfinished job, of any pool, that is not to be stopped too.
fn runs_another(table: &Table, entry: &Entry, container: &Container) -> bool {
    let is_there = |other: &&Entry| {
        let known = other.evidence.holder().and_then(|holder| holder.container.as_ref());
        let may_be_there = known.is_none_or(|known| known.pod_uid == container.pod_uid);
        may_be_there && !other.evidence.is_over() && other.job.key != entry.job.key
    };
    let pod = ObjectKey { namespace: entry.job.key.namespace.clone(), name: container.pod.clone() };
    table.seen_with(&pod).filter(is_there).any(|other| !is_to_stop(other))
}

fn is_to_stop(entry: &Entry) -> bool {
    entry.job.spec.cancel || entry.evidence.stop_asked_at().is_some()
}

/// Whether deleting the Pod now ends this job's task and no other, by its worker's own words. One that is silent counts as
/// running the task and nothing else only if it has begun it and runs one at a time: a solo pool hears nothing meanwhile.
pub async fn is_harmless(ctx: &Context, store: &Store, entry: &Entry, container: &Container) -> Result<bool, Error> {
    let job = &entry.job;
    let Some(pool) = ctx.pools.get(&job.key.namespace, &job.spec.pool) else { return Ok(false) };
    let mut nodes: HashSet<Arc<str>> = pool.nodes.on_host(&container.pod).into_iter().collect();
    nodes.extend(entry.evidence.holder().map(|holder| holder.node.clone()));
    let nodes: Vec<Arc<str>> = nodes.into_iter().collect();
    let answers = store.tasks_of(&nodes).await?;
    let is_alone = runs_alone(&pool, entry);
    // What was remembered may have changed while the worker was asked.
    let is_fine = pod_deletion(ctx, entry) == PodDeletion::Fine;
    let table = ctx.jobs.lock();
    let stops = |task: &str| TaskId::parse(task).and_then(|task| table.of_task(task)).is_some_and(is_to_stop);
    let is_harmless = is_fine && ends_only(&job.attempt_in_hand().task.to_string(), &nodes, &answers, is_alone, stops);
    drop(table);
    if !is_harmless {
        pool.shared.note(&container.pod_uid, Instant::now());
        tracing::info!(job = %job.key, pod = %container.pod, "its Pod is not deleted: that might end other tasks");
    }
    Ok(is_harmless)
}

fn runs_alone(pool: &Handle, entry: &Entry) -> bool {
    let Some(report) = entry.evidence.sighting().map(|seen| &seen.report) else { return false };
    let node = report.holder.as_ref().map(|holder| &holder.node);
    let declared = pool.spec.concurrency <= 1;
    report.started_at.is_some() && node.is_some_and(|node| pool.nodes.runs_one_at_a_time(node, declared))
}

/// Whether only this task ends, and others that are to stop, when the workers of these names end. `answers` has the tasks
/// of those that have answered.
fn ends_only(
    task: &str,
    nodes: &[Arc<str>],
    answers: &HashMap<Arc<str>, Vec<String>>,
    is_alone: bool,
    stops: impl Fn(&str) -> bool,
) -> bool {
    let has_it = answers.values().flatten().any(|other| other == task);
    let all_stop = answers.values().flatten().all(|other| other == task || stops(other));
    let is_silent = |node: &Arc<str>| !answers.contains_key(node);
    match nodes.iter().filter(|node| is_silent(node)).count() {
        0 => has_it && all_stop,
        silent if silent == nodes.len() => is_alone,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmless(nodes: &[&str], answers: &[(&str, &[&str])], is_alone: bool) -> bool {
        let nodes: Vec<Arc<str>> = nodes.iter().map(|name| Arc::from(*name)).collect();
        let tasks = |tasks: &[&str]| tasks.iter().map(ToString::to_string).collect();
        let answers = answers.iter().map(|(name, has)| (Arc::from(*name), tasks(has))).collect();
        ends_only("mine", &nodes, &answers, is_alone, |task| task == "cancelled")
    }

    #[test]
    fn a_pod_whose_worker_has_a_task_that_is_not_to_stop_is_not_deleted() {
        assert!(harmless(&["crew@a"], &[("crew@a", &["mine"])], false));
        assert!(harmless(&["crew@a"], &[("crew@a", &["mine", "cancelled"])], false));
        for is_alone in [true, false] {
            assert!(!harmless(&["crew@a"], &[("crew@a", &["mine", "of another producer"])], is_alone));
            assert!(!harmless(&["crew@a", "b@a"], &[("crew@a", &["mine"]), ("b@a", &["theirs"])], is_alone));
        }
    }

    #[test]
    fn a_pod_whose_worker_says_that_it_does_not_have_the_task_is_not_deleted() {
        assert!(!harmless(&["crew@a"], &[("crew@a", &[])], true));
        assert!(!harmless(&["crew@a"], &[("crew@a", &["cancelled"])], true));
    }

    #[test]
    fn a_silent_workers_pod_is_deleted_only_where_it_runs_one_task_at_a_time() {
        assert!(harmless(&["crew@a"], &[], true));
        assert!(!harmless(&["crew@a"], &[], false));
        assert!(!harmless(&["crew@a", "b@a"], &[("crew@a", &["mine"])], true), "the other one may run something");
    }
}
