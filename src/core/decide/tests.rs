//! The evidence table of the design, one sentence per test.

mod copies;
mod dedup;
mod ends;
mod holds;
mod limits;
mod losses;
mod once;
mod property;
mod retries;
mod stops;
mod visibility;

use std::sync::Arc;
use std::time::Duration;

use expect_test::Expect;
use jiff::Timestamp;
use uuid::Uuid;

use super::super::check::check as lint;
use super::super::id::{ObjectKey, Priority, SpecHash};
use super::super::job::{Job, Spec};
use super::super::limits::Permit;
use super::super::observed::{
    Ended, Ending, Failure, Held, Holding, LargeResults, Liveness, Observed, Others, PodDeletion, Pool, PoolFacts,
    Published, Search, Task,
};
use super::super::once::Claim;
use super::super::plan::{Effect, Plan};
use super::super::policy::Overrides;
use super::super::setup::{FaultKind, Futile};
use super::super::status::{Attempt, Container, Holder, Output, Phase, Status, TaskError, Unstopped, Why};
use super::super::twins::Verdict;
use super::decide;

/// So many milliseconds after the job was created.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_767_225_600_000 + millis).unwrap()
}

/// A job, what is seen of it, and when.
#[derive(Debug, Clone)]
struct Scene {
    job: Job,
    seen: Observed,
    now: Timestamp,
}

/// A job that was created a moment ago, with a pool that works.
fn scene() -> Scene {
    let job = Job {
        key: ObjectKey::new("team", "intro"),
        uid: Uuid::from_u128(7),
        created_at: at(0),
        spec: Spec {
            generation: 1,
            pool: "default".into(),
            queue: None,
            task: "backend.tasks.run_crew_task".into(),
            priority: Priority::default(),
            overrides: None,
            suspend: false,
            cancel: false,
            run_once: None,
            dedup: None,
            hash: SpecHash([1; 16]),
            invalid: None,
        },
        labels: Box::default(),
        cause: None,
        status: Status::default(),
    };
    let seen = Observed {
        published: Published::default(),
        stop_asked_at: None,
        stop_repeated_at: None,
        pod_deletion: PodDeletion::Useless,
        pool: Pool::Ready(Arc::new(pool())),
        of: job.attempt_in_hand().task,
        task: never_sent(),
        others: Others::default(),
        claim: Claim::Unread,
        permit: Permit::Free,
        twins: Verdict::Unread,
    };
    Scene { job, seen, now: at(0) }
}

/// A pool whose workers would run these tasks in vain; all tasks where none is named.
fn futile(tasks: &[&str]) -> Pool {
    let futile = Futile {
        kind: FaultKind::ResultSerializerNotJson,
        detail: "crew@a: its result_serializer is \"pickle\", which is not read; set it to \"json\"".into(),
        tasks: tasks.iter().map(|task| Arc::from(*task)).collect(),
    };
    Pool::Ready(Arc::new(PoolFacts { futile: Some(Arc::new(futile)), ..pool() }))
}

fn pool() -> PoolFacts {
    PoolFacts {
        queues: vec!["crew_jobs".into(), "default".into()],
        allowed_tasks: vec!["backend.tasks.run_crew_task".into(), "backend.tasks.health_check".into()],
        defaults: Overrides { backoff_initial: Some(Duration::ZERO), ..Overrides::default() },
        result_prefix: "app_celery-task-meta-".into(),
        ..PoolFacts::default()
    }
}

impl Scene {
    fn at(mut self, millis: i64) -> Self {
        self.now = at(millis);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Job)) -> Self {
        change(&mut self.job);
        self.seen.of = self.job.attempt_in_hand().task;
        self
    }

    fn policy(self, change: impl FnOnce(&mut Overrides)) -> Self {
        self.with(|job| change(job.spec.overrides.get_or_insert_default()))
    }

    fn cancel(self) -> Self {
        self.with(|job| job.spec.cancel = true)
    }

    fn suspend(self) -> Self {
        self.with(|job| job.spec.suspend = true)
    }

    /// The payload is not what the first attempt ran.
    fn changed(self) -> Self {
        self.with(|job| job.spec.hash = SpecHash([2; 16]))
    }

    fn pool(mut self, pool: Pool) -> Self {
        self.seen.pool = pool;
        self
    }

    fn sees(mut self, task: Task) -> Self {
        self.seen.task = task;
        self
    }

    /// Published by this operator so many milliseconds after the job was created.
    fn enqueued(mut self, millis: i64) -> Self {
        self.seen.published.at = Some(at(millis));
        self
    }

    /// Recorded as `Queued`: attempt 1 was published at once.
    fn queued(self) -> Self {
        self.with(|job| {
            job.status.observed_generation = 1;
            job.status.phase = Phase::Queued;
            job.status.why = Why::Enqueued;
            job.status.attempt = Some(Attempt { number: 1, generation: 0, enqueued_at: at(0), started_at: None });
            job.status.queued_at = Some(at(0));
            job.status.queue = Some("crew_jobs".into());
            job.status.spec_hash = Some(SpecHash([1; 16]));
        })
    }

    /// Recorded as `Running` since a second after the job was created.
    fn running(self) -> Self {
        self.queued().with(|job| {
            job.status.phase = Phase::Running;
            job.status.why = Why::Started;
            job.status.attempts = 1;
            job.status.worker = Some(Box::new(worker("a")));
            job.status.attempt.as_mut().unwrap().started_at = Some(at(1_000));
        })
    }

    /// Recorded as `Retrying` after run `attempts`, due a minute after the job was created.
    fn retrying(self, attempts: u32) -> Self {
        self.running().with(|job| {
            job.status.phase = Phase::Retrying;
            job.status.why = Why::RetryScheduled;
            job.status.attempts = attempts;
            job.status.attempt = None;
            job.status.worker = None;
            job.status.retry_at = Some(Box::new(at(60_000)));
            job.status.error = Some(Box::new(error("ValueError")));
        })
    }

    #[track_caller]
    fn plan(&self) -> Plan {
        let plan = decide(&self.job, &self.seen, self.now);
        assert_eq!(lint(&self.job, &self.seen, self.now, &plan), [], "{plan}");
        plan
    }

    /// The same job once the plan is recorded, whatever is seen next.
    #[track_caller]
    fn recorded(self) -> Self {
        let status = self.plan().status;
        self.with(|job| job.status = status)
    }
}

/// The plan in words.
#[expect(clippy::needless_pass_by_value, reason = "a test reads as `check(scene, expect)`")]
#[track_caller]
fn check(scene: Scene, plan: Expect) {
    plan.assert_eq(&scene.plan().to_string());
}

/// The sentence that people read.
#[expect(clippy::needless_pass_by_value, reason = "a test reads as `check(scene, expect)`")]
#[track_caller]
fn check_message(scene: Scene, message: Expect) {
    message.assert_eq(&scene.plan().status.message());
}

fn never_sent() -> Task {
    Task::Absent(Search {
        marker: None,
        audits: 0,
        denied: false,
        seen: None,
        denials_by_holder: 0,
        may_have_expired_unread: false,
    })
}

/// Its marker is there, its message is not, and so many audits have looked for it.
fn vanished(audits: u32) -> Search {
    Search { marker: Some(0), audits, denied: true, seen: None, denials_by_holder: 0, may_have_expired_unread: false }
}

/// Redis was emptied, and no worker has the message.
fn emptied() -> Search {
    Search { marker: None, ..vanished(0) }
}

fn queued() -> Task {
    Task::Queued { generation: 0 }
}

fn worker(pod: &str) -> Holder {
    let container = Container {
        pod: pod.into(),
        pod_uid: format!("uid-{pod}").into(),
        id: format!("containerd://{pod}").into(),
        started_at: at(-60_000),
    };
    Holder { node: format!("crew@{pod}").into(), container: Some(container) }
}

fn held(started: Option<i64>, by: Holding) -> Held {
    Held {
        generation: 0,
        started_at: started.map(at),
        by,
        celery_retries: 0,
        progress: None,
        has_stored_failure: false,
        account: None,
    }
}

/// With worker a, begun so many milliseconds after the job was created.
fn runs(started: i64, liveness: Liveness) -> Held {
    held(Some(started), Holding::By(worker("a"), liveness))
}

fn ended(how: Ending) -> Ended {
    Ended {
        marker: Some(0),
        how,
        worker: Some(worker("a")),
        celery_retries: 0,
        started_at: Some(at(1_000)),
        finished_at: None,
        account: None,
    }
}

fn succeeded(text: &str) -> Task {
    Task::Ended(ended(Ending::Succeeded(Output::of(text))))
}

fn failed(kind: &str) -> Task {
    Task::Ended(ended(Ending::Failed(error(kind).into())))
}

fn child_lost() -> Ended {
    ended(Ending::ChildLost(TaskError::new("WorkerLostError", "signal 9 (SIGKILL)", None)))
}

fn error(kind: &str) -> TaskError {
    TaskError::new(kind, "no luck", None)
}

fn publishes(plan: &Plan) -> bool {
    plan.effects.iter().any(|effect| matches!(effect, Effect::Enqueue(_) | Effect::Requeue { .. }))
}
