//! What workers answer when they are asked which tasks they have.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::super::evidence::Place;
use super::super::super::id::TaskId;
use super::super::super::status::host_of;
use super::super::pods::{Fleet, Pods, WorkerPod};

/// A worker that is told to stop takes no more messages after so long, and clocks do not differ by more.
const DRAIN_NOTICE: Duration = Duration::from_secs(10);

/// The workers that could have a message when all are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Those in the Pods of the pool's Deployment.
    Pods(Vec<WorkerPod>),
    /// It is not known which Pods there are.
    Unknown,
    /// The pool names no Deployment: the workers that answer are all that are known.
    Anywhere,
}

/// What one worker answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its node name.
    pub node: Arc<str>,
    /// Those of the tasks asked for that it has, and when the run of each began.
    pub has: Vec<(TaskId, Option<Timestamp>)>,
}

/// A worker limits the rate of a task. What it has taken of it waits in the worker until its turn comes, and `inspect`
/// shows nothing of that (`celery.worker.consumer.Consumer._limit_task`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// The task's name.
    pub task: Arc<str>,
    /// The time from one run to the next.
    pub every: Duration,
    /// Messages that the worker takes at once; 0 for any number, `None` where it does not say.
    pub prefetched: Option<i64>,
}

impl RateLimit {
    /// Messages that wait in a worker that takes any number, at most.
    const MESSAGES: u32 = 1000;
    /// A worker that says more is not believed.
    const LONGEST: Duration = Duration::from_hours(24);

    /// How long the last of the messages that the worker has taken may wait.
    fn longest_wait(&self) -> Duration {
        let taken = match self.prefetched {
            Some(0) => Self::MESSAGES,
            Some(count) => u32::try_from(count).unwrap_or(0).clamp(1, Self::MESSAGES),
            None => 1,
        };
        // The last run may have been just before the first of them was taken.
        self.every.saturating_mul(taken + 1).min(Self::LONGEST)
    }
}

/// What the workers answered when they were asked for tasks, after the places were read. Silence is not denial: a
/// draining worker is deaf and still works.
#[derive(Debug)]
pub struct Answers {
    /// The workers that have answered.
    nodes: HashSet<Arc<str>>,
    claims: HashMap<TaskId, Claim>,
    /// The Pods that could have a message and have not answered; `None` when it is not known which Pods there are.
    silent: Option<Vec<WorkerPod>>,
    /// Whether there is no worker but the Deployment's, as far as is known: workers elsewhere are never taken for dead.
    all_known: bool,
    limits: Vec<RateLimit>,
}

/// A worker says that it has a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its node name.
    pub node: Arc<str>,
    /// When the run began, by the worker's clock; `None` for a message that is only taken.
    pub started_at: Option<Timestamp>,
}

impl Asked {
    /// The workers of a pool, as they are known now.
    pub fn of(pods: &Pods, fleet: Option<&Fleet>) -> Self {
        match fleet {
            None => Self::Anywhere,
            Some(fleet) if pods.knows(fleet) => Self::Pods(pods.workers_of(fleet)),
            Some(_) => Self::Unknown,
        }
    }

    /// What these have answered. `elsewhere` are workers that were heard of and are no Pods. Where a pool restarts what
    /// is unreachable, Pods whose Nodes do not answer are given up.
    pub fn answered(self, answers: Vec<Answer>, elsewhere: &[Arc<str>], restarts_unreachable: bool) -> Answers {
        let hosts: HashSet<&str> = answers.iter().map(|answer| host_of(&answer.node)).collect();
        let (all_known, silent) = match self {
            Self::Pods(pods) => {
                let all_known = are_all(&pods, hosts.iter().copied().chain(elsewhere.iter().map(|it| host_of(it))));
                let is_given_up = |pod: &WorkerPod| restarts_unreachable && pod.is_unreachable;
                let is_silent = |pod: &WorkerPod| !hosts.contains(&*pod.name) && !is_given_up(pod);
                (all_known, Some(pods.into_iter().filter(is_silent).collect()))
            }
            Self::Unknown => (false, None),
            Self::Anywhere => (false, Some(Vec::new())),
        };
        let mut claims: HashMap<TaskId, Claim> = HashMap::new();
        for Answer { node, has } in &answers {
            for (task, started_at) in has {
                let claim =
                    claims.entry(*task).or_insert_with(|| Claim { node: node.clone(), started_at: *started_at });
                // A worker that runs it counts for more than one that has a copy waiting.
                if claim.started_at.is_none() && started_at.is_some() {
                    *claim = Claim { node: node.clone(), started_at: *started_at };
                }
            }
        }
        let nodes = answers.into_iter().map(|answer| answer.node).collect();
        Answers { nodes, claims, silent, all_known, limits: Vec::new() }
    }
}

/// Whether all hosts of workers that have answered, or may be too busy to, are these Pods.
fn are_all<'a>(pods: &[WorkerPod], hosts: impl IntoIterator<Item = &'a str>) -> bool {
    let pods: HashSet<&str> = pods.iter().map(|pod| &*pod.name).collect();
    hosts.into_iter().all(|host| pods.contains(host))
}

impl Answers {
    /// The worker that says that it has this task.
    pub fn claim(&self, task: TaskId) -> Option<&Claim> {
        self.claims.get(&task)
    }

    /// The workers have been asked for the rate limits of the tasks whose messages they hold and none claims.
    pub fn limited(&mut self, limits: Vec<RateLimit>) {
        self.limits = limits;
    }

    /// How long a message of this task may wait for its rate limit in any worker: which one has it is not known, also
    /// where one was seen with it, which may have given it back.
    pub fn longest_wait(&self, task: &str) -> Option<Duration> {
        self.limits.iter().filter(|limit| *limit.task == *task).map(RateLimit::longest_wait).max()
    }

    /// Whether this worker has answered.
    pub fn has_answered(&self, node: &Arc<str>) -> bool {
        self.nodes.contains(node)
    }

    /// Whether every worker that could have this message, published then, has denied it. When it was taken is known by
    /// the clock of an unnamed worker, so up to `spread`.
    pub fn is_denied(&self, place: Place, published_at: Option<Timestamp>, spread: Duration) -> bool {
        let Some(silent) = &self.silent else { return false };
        match place {
            // A worker that started after it was taken did not take it, nor did one that was told to go before.
            Place::InFlight { received_at, .. } | Place::CopyInFlight { received_at, .. } => {
                let earliest = received_at.and_then(|at| at.checked_sub(spread).ok());
                let latest = received_at.and_then(|at| at.checked_add(spread).ok());
                let did_not = |pod: &WorkerPod| {
                    latest.is_some_and(|latest| pod.started_at > latest)
                        || earliest.is_some_and(|earliest| has_left(pod, earliest))
                };
                self.all_known && silent.iter().all(did_not)
            }
            Place::Nowhere | Place::GoesOn | Place::Queued { .. } | Place::CopyQueued => {
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

    /// The Pod `w`.
    fn pod(started: i64, leaving: Option<i64>) -> WorkerPod {
        WorkerPod::silent("w", at(started), leaving.map(at))
    }

    fn answer(node: &str, has: &[(TaskId, Option<i64>)]) -> Answer {
        let has = has.iter().map(|(task, started_at)| (*task, started_at.map(at))).collect();
        Answer { node: node.into(), has }
    }

    const TAKEN: Place = Place::InFlight { generation: 0, received_at: Some(Timestamp::constant(1000, 0)) };

    /// Whether a message that was published at 1000 is denied by all while these Pods are silent.
    fn denied(silent: Vec<WorkerPod>, place: Place) -> bool {
        let answers = Asked::Pods(silent).answered(vec![], &[], false);
        answers.is_denied(place, Some(at(1000)), Duration::ZERO)
    }

    #[test]
    fn a_silent_worker_may_have_what_is_nowhere_unless_it_was_leaving_when_that_was_published() {
        assert!(denied(vec![], Place::Nowhere));
        assert!(!denied(vec![pod(5, None)], Place::Nowhere));
        assert!(!denied(vec![pod(5, Some(995))], Place::Nowhere), "it may not have heard yet");
        assert!(denied(vec![pod(5, Some(900))], Place::Nowhere));
        let answers = Asked::Pods(vec![pod(5, Some(900))]).answered(vec![], &[], false);
        assert!(!answers.is_denied(Place::Nowhere, None, Duration::ZERO), "when it was published is not known");
    }

    #[test]
    fn a_silent_worker_may_have_what_was_taken_unless_it_came_later_or_was_leaving() {
        assert!(!denied(vec![pod(999, None)], TAKEN));
        assert!(denied(vec![pod(1001, None), pod(5, Some(900))], TAKEN));
        let at_an_unknown_time = Place::InFlight { generation: 0, received_at: None };
        assert!(!denied(vec![pod(1001, None)], at_an_unknown_time));
    }

    #[test]
    fn where_clocks_differ_a_silent_worker_may_have_what_was_taken_so_much_earlier_or_later() {
        let denied = |pod| {
            let answers = Asked::Pods(vec![pod]).answered(vec![], &[], false);
            answers.is_denied(TAKEN, Some(at(900)), Duration::from_mins(10))
        };
        assert!(!denied(pod(1599, None)), "its clock may be ten minutes ahead");
        assert!(denied(pod(1601, None)));
        assert!(!denied(pod(5, Some(391))), "the taker's clock may be ten minutes ahead");
        assert!(denied(pod(5, Some(389))));
    }

    #[test]
    fn what_was_taken_may_be_with_a_worker_that_is_no_pod_whatever_the_pods_say() {
        let denied = |answered: &[&str], elsewhere: &[&str], place| {
            let answers = answered.iter().map(|node| answer(node, &[])).collect();
            let elsewhere: Vec<Arc<str>> = elsewhere.iter().map(|node| Arc::from(*node)).collect();
            let answers = Asked::Pods(vec![pod(5, None)]).answered(answers, &elsewhere, false);
            answers.is_denied(place, Some(at(1000)), Duration::ZERO)
        };
        assert!(denied(&["crew@w"], &[], TAKEN));
        assert!(!denied(&["crew@w", "celery@prod-01"], &[], TAKEN), "another one may be as deaf as this one is not");
        assert!(!denied(&["crew@w"], &["celery@prod-01"], TAKEN), "it was heard of before");
        assert!(denied(&["crew@w", "celery@prod-01"], &[], Place::Nowhere), "nothing holds it");
    }

    #[test]
    fn nothing_is_denied_while_it_is_not_known_which_pods_there_are() {
        let unknown = Asked::Unknown.answered(vec![], &[], false);
        let anywhere = Asked::Anywhere.answered(vec![], &[], false);
        for (answers, is_denied) in [(unknown, false), (anywhere, true)] {
            assert_eq!(answers.is_denied(Place::Nowhere, Some(at(1000)), Duration::ZERO), is_denied);
            assert!(!answers.is_denied(TAKEN, Some(at(1000)), Duration::ZERO));
        }
    }

    #[test]
    fn the_silence_of_a_pod_whose_node_does_not_answer_counts_unless_the_pool_gives_it_up() {
        let unreachable = || vec![WorkerPod { is_unreachable: true, ..pod(5, None) }];
        for restarts in [false, true] {
            let answers = Asked::Pods(unreachable()).answered(vec![], &[], restarts);
            assert_eq!(answers.is_denied(Place::Nowhere, Some(at(1000)), Duration::ZERO), restarts);
        }
    }

    #[test]
    fn of_two_workers_that_claim_a_task_the_one_that_runs_it_counts() {
        let task = TaskId::derive(uuid::Uuid::from_u128(1), 1);
        let (waits, runs) = (answer("crew@waits", &[(task, None)]), answer("crew@runs", &[(task, Some(7))]));
        for both in [vec![waits.clone(), runs.clone()], vec![runs, waits]] {
            let answers = Asked::Anywhere.answered(both, &[], false);
            let claim = Claim { node: "crew@runs".into(), started_at: Some(at(7)) };
            assert_eq!(answers.claim(task), Some(&claim));
            assert!(answers.has_answered(&"crew@waits".into()) && !answers.has_answered(&"crew@silent".into()));
        }
    }
}
