//! The status of a pool: composed at every look, written when it says something new and not too often.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::attribution;
use super::verdicts::{self, Seen};
use super::view::{Census, View};
use crate::api::{
    BandStatus, ConditionType, CrewWorkerPool, CrewWorkerPoolStatus, QueueStatus, Replicas, Verdict, holds,
    merge_patch, set_condition,
};
use crate::core::plan::Notice;
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;
use crate::runtime::clock;
use crate::runtime::metrics::{WriteOutcome, Written};
use crate::store::Snapshot;

/// Numbers, and the words of conditions that hold on, are written at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// The share of each pool in that, where there are many: ten such writes a second for all pools together. One costs the
/// API server about 20 ms of a core, twice as much as the status of a job.
const REPORT_SHARE: Duration = Duration::from_millis(100);
/// How long after a failed write the next one is tried.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Composes the status of a pool; [`write()`] writes it.
pub struct Reporter {
    ctx: Arc<Context>,
    pool: Arc<Handle>,
    status: CrewWorkerPoolStatus,
    wanted: watch::Sender<CrewWorkerPoolStatus>,
}

impl Reporter {
    /// A reporter for a pool with this status, and what is to be written.
    pub fn new(
        ctx: Arc<Context>,
        pool: Arc<Handle>,
        status: CrewWorkerPoolStatus,
    ) -> (Self, watch::Receiver<CrewWorkerPoolStatus>) {
        let (wanted, receiver) = watch::channel(status.clone());
        (Self { ctx, pool, status, wanted }, receiver)
    }

    /// Reports what was seen, or only what keeps the pool from working.
    pub fn report(&mut self, seen: Option<(&Snapshot, &View, &Census)>) {
        let pool = &self.pool;
        let problem = pool.problem();
        let verdicts = match (&problem, seen) {
            (Some(problem), _) => verdicts::of_problem(problem),
            (None, Some((_, view, _))) => {
                let skew = pool.clocks().skew(clock::now());
                let mut all = verdicts::of(&Seen { key: &pool.key, spec: &pool.spec, view, skew });
                all.extend(attribution::verdicts(&self.ctx, pool, &self.status.conditions));
                all
            }
            (None, None) => Vec::new(),
        };
        let status = &mut self.status;
        if let Some((snapshot, view, census)) = seen {
            numbers(status, snapshot, view, census);
        }
        status.observed_generation = Some(pool.generation);
        status.redis = pool.redis().or(status.redis.take());
        status.replicas_taken_for = pool.replicas_taken_for();
        status.audited_at = pool.settled_until().map(|at| Time(Timestamp::from_second(at.as_second()).unwrap_or(at)));
        let news = turned_bad(&status.conditions, &verdicts);
        say(&mut status.conditions, verdicts, pool.generation);
        self.ctx.events.announce_of_pool(pool, news);
        self.wanted.send_if_modified(|wanted| {
            let news = wanted != status;
            if news {
                wanted.clone_from(status);
            }
            news
        });
    }
}

/// The Events of conditions that hold from now on. Of most the jobs that wait tell; of this one no job does until it is lost.
fn turned_bad(conditions: &[Condition], verdicts: &[Verdict]) -> Vec<Notice> {
    let is_news = |it: &&Verdict| {
        it.type_ == ConditionType::BrokerEvictsKeys && it.holds == Some(true) && !holds(conditions, it.type_)
    };
    let notice = |it: &Verdict| Notice {
        warning: true,
        reason: it.reason.to_string().into(),
        message: it.message.as_str().into(),
    };
    verdicts.iter().filter(is_news).map(notice).collect()
}

fn say(conditions: &mut Vec<Condition>, verdicts: Vec<Verdict>, generation: i64) {
    let now = Time(Timestamp::from_second(clock::now().as_second()).unwrap_or_default());
    for verdict in verdicts {
        set_condition(conditions, verdict, Some(generation), now.clone());
    }
}

/// Writes what is wanted of a pool with this status, for ever.
pub async fn write(
    ctx: &Context,
    pool: &Handle,
    mut written: CrewWorkerPoolStatus,
    mut wanted: watch::Receiver<CrewWorkerPoolStatus>,
) {
    let api: Api<CrewWorkerPool> = Api::namespaced(ctx.client.clone(), &pool.key.namespace);
    let mut last: Option<Instant> = None;
    let mut not_before: Option<Instant> = None;
    loop {
        let next = wanted.borrow_and_update().clone();
        let every = report_every(ctx.pools.read().len());
        let due = pace(&written, &next, every, last.map(|last| last.elapsed())).map(|pause| Instant::now() + pause);
        let due = due.map(|due| not_before.map_or(due, |not_before| due.max(not_before)));
        if let Some(due) = due {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => {}
                changed = wanted.changed() => if changed.is_ok() { continue },
            }
        } else if wanted.changed().await.is_ok() {
            continue;
        } else {
            return std::future::pending().await; // the pool is served no more
        }
        let Some(patch) = merge_patch(&written, &next) else { continue };
        let patch = json!({ "status": patch });
        let began_at = Instant::now();
        let answered = api.patch_status(&pool.key.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        ctx.metrics.write_took(Written::PoolStatus, began_at.elapsed());
        match answered {
            Ok(_) => {
                ctx.metrics.wrote(Written::PoolStatus, WriteOutcome::Done);
                pool.reported(next.clone());
                written = next;
                (last, not_before) = (Some(Instant::now()), None);
            }
            Err(error) => {
                ctx.metrics.wrote(Written::PoolStatus, WriteOutcome::Failed);
                tracing::warn!(pool = %pool.key, %error, "writing the status of the pool failed; retrying in 2 s");
                not_before = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }
}

/// How often the numbers of each of so many pools are written, at most.
fn report_every(pools: usize) -> Duration {
    REPORT_EVERY.max(REPORT_SHARE.saturating_mul(u32::try_from(pools).unwrap_or(u32::MAX)))
}

/// How long to wait before `wanted` is written in place of `written`; `None` when there is nothing new.
fn pace(
    written: &CrewWorkerPoolStatus,
    wanted: &CrewWorkerPoolStatus,
    every: Duration,
    since_last: Option<Duration>,
) -> Option<Duration> {
    if written == wanted {
        return None;
    }
    let gist = |status: &CrewWorkerPoolStatus| {
        let of_one = |it: &Condition| (it.type_.clone(), it.status.clone(), it.reason.clone());
        let conditions: Vec<_> = status.conditions.iter().map(of_one).collect();
        (conditions, status.observed_generation, status.replicas_taken_for.clone(), status.redis.clone())
    };
    let urgent = gist(written) != gist(wanted);
    let since_last = since_last.filter(|_| !urgent);
    Some(since_last.map_or(Duration::ZERO, |since_last| every.saturating_sub(since_last)))
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
    if !view.unlisted {
        status.replicas = view.scaling.map(|scaling| Replicas {
            desired: small(scaling.desired),
            ready: small(view.ready),
            busy: i32::try_from(census.busy).unwrap_or(i32::MAX),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ConditionType, Reason};

    fn status(depth: i64, ready: bool, message: &str) -> CrewWorkerPoolStatus {
        let mut status = CrewWorkerPoolStatus { depth, ..CrewWorkerPoolStatus::default() };
        let verdict = Verdict {
            type_: ConditionType::Ready,
            holds: Some(ready),
            reason: Reason::AsExpected,
            message: message.into(),
        };
        say(&mut status.conditions, vec![verdict], 1);
        status
    }

    const SECOND: Duration = Duration::from_secs(1);
    const LATER: Duration = Duration::from_secs(4);

    #[test]
    fn numbers_of_a_pool_are_written_at_most_every_five_seconds() {
        let (before, after) = (status(1, true, ""), status(2, true, ""));
        assert_eq!(pace(&before, &after, REPORT_EVERY, Some(SECOND)), Some(LATER));
        assert_eq!(pace(&before, &after, REPORT_EVERY, Some(REPORT_EVERY)), Some(Duration::ZERO));
        assert_eq!(pace(&before, &after, REPORT_EVERY, None), Some(Duration::ZERO), "nothing was written before");
        let replicas = Some(Replicas { desired: 3, ready: 2, busy: 1 });
        let busy = CrewWorkerPoolStatus { replicas, ..before.clone() };
        assert_eq!(pace(&before, &busy, REPORT_EVERY, Some(SECOND)), Some(LATER), "so are those of replicas");
        assert_eq!(pace(&before, &before, REPORT_EVERY, Some(REPORT_EVERY)), None);
    }

    #[test]
    fn many_pools_share_ten_writes_of_numbers_a_second() {
        assert_eq!([1, 50, 200, 1000].map(|pools| report_every(pools).as_secs()), [5, 5, 20, 100]);
        let (before, after) = (status(1, true, ""), status(2, true, ""));
        assert_eq!(pace(&before, &after, report_every(200), Some(LATER)), Some(SECOND * 16));
        let urgent = status(2, false, "");
        assert_eq!(
            pace(&before, &urgent, report_every(200), Some(LATER)),
            Some(Duration::ZERO),
            "a condition is not late"
        );
    }

    #[test]
    fn a_condition_that_changes_is_written_at_once_and_its_words_alone_like_a_number() {
        let before = status(1, true, "1 of 3");
        assert_eq!(pace(&before, &status(1, false, "1 of 3"), REPORT_EVERY, Some(SECOND)), Some(Duration::ZERO));
        assert_eq!(pace(&before, &status(1, true, "2 of 3"), REPORT_EVERY, Some(SECOND)), Some(LATER));
        let newer = CrewWorkerPoolStatus { observed_generation: Some(2), ..before.clone() };
        assert_eq!(
            pace(&before, &newer, REPORT_EVERY, Some(SECOND)),
            Some(Duration::ZERO),
            "so that waiting for it ends"
        );
    }
}
