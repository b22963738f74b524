//! The status of a pool: its load, its workers, and what keeps it from working.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::context::Context;
use super::load::{Census, View};
use super::pools::Handle;
use crate::api::{
    BandStatus, ConditionType, CrewWorkerPool, CrewWorkerPoolStatus, QueueStatus, Reason, Replicas, Verdict,
    merge_patch, set_condition,
};
use crate::core::scale::GRACE_MARGIN;
use crate::core::status::PoolProblem;
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};
use crate::store::Snapshot;

/// Numbers in the status of a pool change at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Writes the status of a pool, when it says something new and not too often.
pub struct Reporter {
    ctx: Arc<Context>,
    pool: Arc<Handle>,
    written: CrewWorkerPoolStatus,
    at: Option<Instant>,
}

impl Reporter {
    /// A reporter for a pool with this status.
    pub fn new(ctx: Arc<Context>, pool: Arc<Handle>, status: CrewWorkerPoolStatus) -> Self {
        Self { ctx, pool, written: status, at: None }
    }

    /// Reports what was seen, or only what keeps the pool from working.
    pub async fn report(&mut self, seen: Option<(&Snapshot, &View, &Census)>) {
        let mut status = self.written.clone();
        status.observed_generation = Some(self.pool.generation);
        let problem = self.pool.problem();
        if let Some((snapshot, view, census)) = seen {
            numbers(&mut status, snapshot, view, census);
        }
        status.audited_at = self.pool.known_at().map(|at| Time(Timestamp::from_second(at.as_second()).unwrap_or(at)));
        let now = Time(Timestamp::from_second(clock::now().as_second()).unwrap_or_default());
        for verdict in verdicts(problem.as_ref(), seen.map(|(_, view, _)| view), &self.pool) {
            set_condition(&mut status.conditions, verdict, Some(self.pool.generation), now.clone());
        }
        if status == self.written {
            return;
        }
        let urgent = status.conditions != self.written.conditions || status.replicas != self.written.replicas;
        if !urgent && self.at.is_some_and(|at| at.elapsed() < REPORT_EVERY) {
            return;
        }
        let api: Api<CrewWorkerPool> = Api::namespaced(self.ctx.client.clone(), &self.pool.key.namespace);
        let Some(patch) = merge_patch(&self.written, &status) else { return };
        let patch = json!({ "status": patch });
        match api.patch_status(&self.pool.key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {
                self.ctx.metrics.wrote(Written::PoolStatus, WriteOutcome::Done);
                self.written = status;
                self.at = Some(Instant::now());
            }
            Err(error) => {
                self.ctx.metrics.wrote(Written::PoolStatus, WriteOutcome::Failed);
                tracing::warn!(pool = %self.pool.key, %error, "the status of the pool could not be written");
            }
        }
    }
}

fn numbers(status: &mut CrewWorkerPoolStatus, snapshot: &Snapshot, view: &View, census: &Census) {
    let large = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let small = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    status.queues = snapshot
        .queues
        .iter()
        .map(|queue| QueueStatus {
            name: queue.queue.to_string(),
            depth: large(queue.depth()),
            in_flight: large(queue.in_flight),
            bands: queue
                .bands
                .iter()
                .map(|(step, depth)| BandStatus { step: i32::from(*step), depth: large(*depth) })
                .collect(),
        })
        .collect();
    status.depth = status.queues.iter().map(|queue| queue.depth).sum();
    status.in_flight = status.queues.iter().map(|queue| queue.in_flight).sum();
    status.redis_run_id = Some(snapshot.incarnation.run_id.to_string());
    status.oldest_queued_at = census.oldest.map(|at| Time(Timestamp::from_second(at.as_second()).unwrap_or(at)));
    status.replicas = view.scaling.map(|scaling| Replicas {
        desired: small(scaling.desired),
        ready: small(view.ready),
        busy: i32::try_from(census.busy).unwrap_or(i32::MAX),
    });
}

fn verdicts(problem: Option<&PoolProblem>, view: Option<&View>, pool: &Handle) -> Vec<Verdict> {
    let verdict = |type_, holds, reason, message: String| Verdict { type_, holds: Some(holds), reason, message };
    let fine = |type_, holds| verdict(type_, holds, Reason::AsExpected, String::new());
    let mut all = match problem {
        None => vec![fine(ConditionType::BrokerReachable, true)],
        Some(problem) => {
            let reason = Reason::named(problem.kind.reason()).unwrap_or(Reason::Unknown);
            vec![
                verdict(ConditionType::BrokerReachable, false, reason, problem.detail.to_string()),
                verdict(ConditionType::Ready, false, reason, problem.detail.to_string()),
            ]
        }
    };
    let Some(view) = view.filter(|_| problem.is_none()) else { return all };
    all.push(match (&view.deployment, &view.known) {
        (Some(key), None) => verdict(
            ConditionType::Ready,
            false,
            Reason::DeploymentNotFound,
            format!(
                "Deployment {:?} does not exist; jobs wait until it does or other workers serve the queues",
                &*key.name
            ),
        ),
        (Some(_) | None, _) => fine(ConditionType::Ready, true),
    });
    all.push(match pool.misconfigured() {
        Some(complaint) => verdict(ConditionType::WorkersMisconfigured, true, complaint.reason, complaint.message),
        None => fine(ConditionType::WorkersMisconfigured, false),
    });
    if let Some(known) = &view.known {
        let needed = view.hard_limit.saturating_add(GRACE_MARGIN);
        all.push(if known.grace_period < needed {
            verdict(
                ConditionType::GracePeriodTooShort,
                true,
                Reason::GracePeriodTooShort,
                format!(
                    "terminationGracePeriodSeconds of Deployment {:?} is {}, at least {} (hard time limit plus a minute) is \
                     needed; workers are not scaled down until then",
                    pool.spec.deployment_ref.as_ref().map_or("", |named| named.name.as_str()),
                    known.grace_period.as_secs(),
                    needed.as_secs()
                ),
            )
        } else {
            fine(ConditionType::GracePeriodTooShort, false)
        });
        all.push(match &view.contested_by {
            Some(who) => verdict(
                ConditionType::ReplicasContested,
                true,
                Reason::ReplicasContested,
                format!("spec.replicas of the Deployment is set by somebody else too; it is left alone: {who}"),
            ),
            None => fine(ConditionType::ReplicasContested, false),
        });
        all.push(match view.stalled_since {
            Some(since) => verdict(
                ConditionType::WorkersStalled,
                true,
                Reason::NothingTaken,
                format!(
                    "since {since:.0} messages wait and no worker has taken one, although not all are busy; their log may \
                     tell whether they hang, consume other queues than {} or run fewer tasks at once than {} \
                     (spec.concurrency)",
                    pool.spec.queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>().join(","),
                    pool.spec.concurrency,
                ),
            ),
            None => fine(ConditionType::WorkersStalled, false),
        });
    }
    all
}
