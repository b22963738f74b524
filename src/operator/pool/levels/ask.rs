//! Asking the workers, when only they can tell where a message is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::api::OnWorkerUnreachable;
use crate::core::evidence::Place;
use crate::core::id::TaskId;
use crate::core::index::pods::WorkerPod;
use crate::core::status::host_of;
use crate::operator::context::Context;
use crate::operator::state::pools::Handle;
use crate::store::{Error, Store};

/// A worker that is told to stop takes no more messages after so long, and clocks do not differ by more.
const DRAIN_NOTICE: Duration = Duration::from_secs(10);

/// What the workers answered when they were asked for tasks, after the places were read.
pub struct Answers {
    /// The workers that have answered.
    pub(super) nodes: HashSet<Arc<str>>,
    pub(super) claims: HashMap<TaskId, (Arc<str>, Option<Timestamp>)>,
    /// The Pods that could have a message and have not answered; `None` when it is not known which Pods there are.
    silent: Option<Vec<WorkerPod>>,
    /// Whether there is no worker but the Deployment's, as far as is known: workers elsewhere are never taken for dead.
    all_known: bool,
}

/// Asks the workers which of these tasks they have. Silence is not denial: a draining worker is deaf and still works.
pub async fn ask_workers(ctx: &Context, pool: &Handle, store: &Store, tasks: &[TaskId]) -> Result<Answers, Error> {
    let pods =
        pool.fleet.as_ref().map(|fleet| ctx.workers.read(|pods| pods.knows(fleet).then(|| pods.workers_of(fleet))));
    let restarts = pool.spec.on_worker_unreachable == OnWorkerUnreachable::Restart;
    let is_given_up = |pod: &WorkerPod| restarts && pod.is_unreachable;
    let nodes = store.holders(tasks).await?;
    let answered: HashSet<&str> = nodes.iter().map(|node| host_of(&node.name)).collect();
    let elsewhere = pool.nodes.elsewhere(pool.longest_silence(), Instant::now());
    let (all_known, silent) = match pods {
        Some(Some(pods)) => (
            are_all(&pods, answered.iter().copied().chain(elsewhere.iter().map(|name| host_of(name)))),
            Some(pods.into_iter().filter(|pod| !answered.contains(&*pod.name) && !is_given_up(pod)).collect()),
        ),
        Some(None) => (false, None),
        // Without a Deployment the workers that answer are all that are known.
        None => (false, Some(Vec::new())),
    };
    let mut claims = HashMap::new();
    for node in &nodes {
        for task in &node.tasks {
            // A worker that runs it counts for more than one that has a copy waiting.
            let claim = claims.entry(task.task).or_insert_with(|| (node.name.clone(), task.started_at));
            if claim.1.is_none() && task.started_at.is_some() {
                *claim = (node.name.clone(), task.started_at);
            }
        }
    }
    let nodes = nodes.iter().map(|node| node.name.clone()).collect();
    Ok(Answers { nodes, claims, silent, all_known })
}

/// Whether all hosts of workers that have answered, or may be too busy to, are these Pods.
fn are_all<'a>(pods: &[WorkerPod], hosts: impl IntoIterator<Item = &'a str>) -> bool {
    let pods: HashSet<&str> = pods.iter().map(|pod| &*pod.name).collect();
    hosts.into_iter().all(|host| pods.contains(host))
}

impl Answers {
    /// Whether every worker that could have this message, published then, has denied it. When it was taken is known by
    /// the clock of an unnamed worker, so up to `spread`.
    pub(super) fn is_denied(&self, place: Place, published_at: Option<Timestamp>, spread: Duration) -> bool {
        let Some(silent) = &self.silent else { return false };
        match place {
            // A worker that started after it was taken did not take it, nor did one that was told to go before.
            Place::InFlight { received_at, .. } => {
                let earliest = received_at.and_then(|at| at.checked_sub(spread).ok());
                let latest = received_at.and_then(|at| at.checked_add(spread).ok());
                let did_not = |pod: &WorkerPod| {
                    latest.is_some_and(|latest| pod.started_at > latest)
                        || earliest.is_some_and(|earliest| has_left(pod, earliest))
                };
                self.all_known && silent.iter().all(did_not)
            }
            Place::Nowhere | Place::Queued { .. } => {
                silent.iter().all(|pod| published_at.is_some_and(|published_at| has_left(pod, published_at)))
            }
        }
    }
}

/// Whether a worker was told to go, and had the time to hear it, before then.
fn has_left(pod: &WorkerPod, at: Timestamp) -> bool {
    pod.leaving_since.and_then(|since| since.checked_add(DRAIN_NOTICE).ok()).is_some_and(|gone| gone < at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(started: i64, leaving: Option<i64>) -> WorkerPod {
        WorkerPod::silent("w", at(started), leaving.map(at))
    }

    fn denied(silent: Vec<WorkerPod>, place: Place) -> bool {
        let answers = Answers { nodes: HashSet::new(), claims: HashMap::new(), silent: Some(silent), all_known: true };
        answers.is_denied(place, Some(at(1000)), Duration::ZERO)
    }

    #[test]
    fn a_silent_worker_may_have_what_is_nowhere_unless_it_was_leaving_when_that_was_published() {
        assert!(denied(vec![], Place::Nowhere));
        assert!(!denied(vec![pod(5, None)], Place::Nowhere));
        assert!(!denied(vec![pod(5, Some(995))], Place::Nowhere), "it may not have heard yet");
        assert!(denied(vec![pod(5, Some(900))], Place::Nowhere));
    }

    #[test]
    fn what_was_taken_may_be_with_a_worker_that_is_no_pod_whatever_the_pods_say() {
        let taken = Place::InFlight { generation: 0, received_at: Some(at(1000)) };
        let denied = |hosts: &[&str], place| {
            let all_known = are_all(&[pod(5, None)], hosts.iter().copied());
            let answers = Answers { nodes: HashSet::new(), claims: HashMap::new(), silent: Some(vec![]), all_known };
            answers.is_denied(place, Some(at(1000)), Duration::ZERO)
        };
        assert!(denied(&["w"], taken));
        assert!(!denied(&["w", "celery-prod-01"], taken));
        assert!(denied(&["w", "celery-prod-01"], Place::Nowhere), "nothing holds it");
    }

    #[test]
    fn where_clocks_differ_a_silent_worker_may_have_what_was_taken_so_much_earlier_or_later() {
        let taken = Place::InFlight { generation: 0, received_at: Some(at(1000)) };
        let denied = |pod| {
            let silent = Some(vec![pod]);
            let answers = Answers { nodes: HashSet::new(), claims: HashMap::new(), silent, all_known: true };
            answers.is_denied(taken, Some(at(900)), Duration::from_mins(10))
        };
        assert!(!denied(pod(1599, None)), "its clock may be ten minutes ahead");
        assert!(denied(pod(1601, None)));
        assert!(!denied(pod(5, Some(391))), "the taker's clock may be ten minutes ahead");
        assert!(denied(pod(5, Some(389))));
    }

    #[test]
    fn a_silent_worker_may_have_what_was_taken_unless_it_came_later_or_was_leaving() {
        let taken = Place::InFlight { generation: 0, received_at: Some(at(1000)) };
        assert!(!denied(vec![pod(999, None)], taken));
        assert!(denied(vec![pod(1001, None), pod(5, Some(900))], taken));
        let at_an_unknown_time = Place::InFlight { generation: 0, received_at: None };
        assert!(!denied(vec![pod(1001, None)], at_an_unknown_time));
    }
}
