//! Metrics of the operator. Labels are closed enums, pool names and their queues, and a bounded number of models; a job's name or
//! a task id is never one.

mod consumption;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use consumption::{Consumption, ModelLabels};
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
pub use waiting::{Figures, Waiting, WaitingLabels};

use crate::core::dedup::ATTACHED;
use crate::core::reason::GaveUp;
use crate::core::schedule::Skip;
use crate::core::status::{AttemptOutcome, Phase};

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    /// Namespace of the pool.
    pub namespace: String,
    /// Name of the pool.
    pub pool: String,
}

/// A band of priorities of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BandLabels {
    /// Namespace of the pool.
    pub namespace: String,
    /// Name of the pool.
    pub pool: String,
    /// The queue.
    pub queue: String,
    /// Where the band begins, in Celery's counting: 0 is served first.
    pub band: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    /// Namespace of the pool.
    pub namespace: String,
    /// Name of the pool.
    pub pool: String,
    /// The outcome, from the closed list of a job's attempt history.
    pub outcome: &'static str,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndLabels {
    /// Terminal phase.
    pub phase: String,
    /// Reason, from the closed list.
    pub reason: String,
}

/// A kind of write to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Written {
    /// The status of a job.
    JobStatus,
    /// The status of a pool.
    PoolStatus,
    /// The replicas of a Deployment.
    Scale,
    /// The ConfigMap of a result.
    ConfigMap,
    /// An Event.
    Event,
    /// The deletion of a Pod, or its cost.
    Pod,
    /// The status of a schedule.
    ScheduleStatus,
}

/// How a write to the API server went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum WriteOutcome {
    /// It was written.
    Done,
    /// Something else had been written meanwhile.
    Conflict,
    /// It was not written.
    Failed,
}

/// A kind of write.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WrittenLabels {
    /// What was written.
    pub write: Written,
}

/// A write and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// What was written.
    pub write: Written,
    /// How it went.
    pub outcome: WriteOutcome,
}

/// Why an Event was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Dropped {
    /// It was said already.
    Repeated,
    /// There were too many in a short time.
    TooMany,
    /// They arrive faster than they are written.
    QueueFull,
}

/// An Event that was not written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DroppedLabels {
    /// Why.
    pub why: Dropped,
}

/// Why a span was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum SpanDropped {
    /// They end faster than they are sent.
    QueueFull,
    /// The collector did not take it in time, several times.
    Failed,
    /// The collector refused it.
    Refused,
}

/// A span that was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SpanDroppedLabels {
    /// Why.
    pub why: SpanDropped,
}

/// What became of a time of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ScheduleOutcome {
    /// Its job was made.
    Made,
    /// An earlier job had not ended.
    Overlap,
    /// It was noticed too late.
    TooLate,
    /// It was missed, and so was a later one.
    Superseded,
    /// Too many were missed.
    TooMany,
    /// The schedule was suspended.
    Suspended,
    /// The schedule was paused after failures.
    Paused,
    /// Too many waited.
    QueueFull,
    /// The name of its job was taken.
    NameTaken,
}

impl From<Skip> for ScheduleOutcome {
    fn from(skip: Skip) -> Self {
        match skip {
            Skip::Overlap => Self::Overlap,
            Skip::TooLate => Self::TooLate,
            Skip::Superseded => Self::Superseded,
            Skip::TooMany => Self::TooMany,
            Skip::Suspended => Self::Suspended,
            Skip::Paused => Self::Paused,
            Skip::QueueFull => Self::QueueFull,
            Skip::NameTaken => Self::NameTaken,
        }
    }
}

/// A time of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ScheduleLabels {
    /// What became of it.
    pub outcome: ScheduleOutcome,
}

/// Lengths of time by pool.
pub type Timings = Family<PoolLabels, Histogram, fn() -> Histogram>;

/// What jobs take: from milliseconds to hours.
const OF_JOBS: [f64; 16] =
    [0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0];

fn of_jobs() -> Histogram {
    Histogram::new(OF_JOBS)
}

/// What calls take: from a millisecond to half a minute.
fn of_calls() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// Everything that `/metrics` shows. Cloning shares the values.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Jobs that ended, by phase and reason.
    pub jobs_finished: Family<EndLabels, Counter>,
    /// Unfinished jobs that the operator follows.
    pub jobs_live: Gauge,
    /// Those that wait, by what they wait for.
    pub jobs_waiting: Waiting,
    /// Messages published, republished ones included.
    pub enqueued: Counter,
    /// Messages published again after a loss.
    pub requeued: Counter,
    /// Results that arrived after the end.
    pub late_results: Counter,
    /// Runs of a task that was running already.
    pub duplicate_runs: Counter,
    /// From a job's creation to its first message on Redis; creation is known to the second.
    pub enqueue_seconds: Histogram,
    /// Results and events about jobs of other pools, which were dropped.
    pub foreign_claims: Family<PoolLabels, Counter>,
    /// Elements of queues that are no messages and were taken off.
    pub quarantined: Family<PoolLabels, Counter>,
    /// Attempts on Redis without a job, taken off.
    pub strays: Family<PoolLabels, Counter>,
    /// Attempts on Redis that were not looked up yet, since there were too many without a job in hand.
    pub strays_put_off: Family<PoolLabels, Gauge>,
    /// Writes to the API server.
    pub api_writes: Family<WriteLabels, Counter>,
    /// Kubernetes Events that were not written, since there were too many.
    pub events_dropped: Family<DroppedLabels, Counter>,
    /// Spans that a collector has taken.
    pub spans_exported: Counter,
    /// Spans that no collector has taken.
    pub spans_dropped: Family<SpanDroppedLabels, Counter>,
    /// Times of schedules, by what became of them.
    pub schedule_times: Family<ScheduleLabels, Counter>,
    /// Round trips to Redis.
    pub redis_round_trips: Family<PoolLabels, Counter>,
    /// Messages waiting.
    pub queue_depth: Family<PoolLabels, Gauge>,
    /// Messages taken and not acknowledged.
    pub in_flight: Family<PoolLabels, Gauge>,
    /// Messages waiting in each band of each queue.
    pub band_depth: Family<BandLabels, Gauge>,
    /// The bands of pools that have a figure.
    bands: Arc<Mutex<HashMap<PoolLabels, HashSet<BandLabels>>>>,
    /// When the job was published that waits longest; none while none waits.
    pub oldest_queued: Family<PoolLabels, Gauge>,
    /// Attempts that ended, by outcome.
    pub attempts: Family<AttemptLabels, Counter>,
    /// Workers that died with a job.
    pub worker_losses: Family<PoolLabels, Counter>,
    /// What jobs have consumed.
    pub consumption: Consumption,
    /// From the message of an attempt to its beginning.
    pub wait_seconds: Timings,
    /// From the beginning of an attempt to its end.
    pub run_seconds: Timings,
    /// Looks at jobs, with all that they do.
    pub reconcile_seconds: Histogram,
    /// Scripts that publish.
    pub redis_enqueue_seconds: Histogram,
    /// Writes to the API server.
    pub api_write_seconds: Family<WrittenLabels, Histogram, fn() -> Histogram>,
    /// Replicas asked for.
    pub replicas_desired: Family<PoolLabels, Gauge>,
    /// Replicas that are ready.
    pub replicas_ready: Family<PoolLabels, Gauge>,
    /// Workers that have a task.
    pub workers_busy: Family<PoolLabels, Gauge>,
    /// 1 while the pool's Redis is reachable.
    pub broker_up: Family<PoolLabels, Gauge>,
    /// 1 while workers have room and take nothing.
    pub workers_stalled: Family<PoolLabels, Gauge>,
    /// Reconciliations that could not do their work.
    pub reconcile_errors: Counter,
    /// Lines of finished jobs that the archive has taken.
    pub archived: Counter,
    /// Times that the archive did not take jobs.
    pub archive_failures: Counter,
    /// 1 while expired jobs stay because the archive does not take them.
    pub archive_failing: Gauge,
    /// 1 while this replica leads.
    pub leading: Gauge,
}

impl Metrics {
    /// Metrics at zero, and the registry that shows them.
    pub fn register() -> (Self, Registry) {
        let metrics = Self {
            jobs_finished: Family::default(),
            jobs_live: Gauge::default(),
            jobs_waiting: Waiting::default(),
            enqueued: Counter::default(),
            requeued: Counter::default(),
            late_results: Counter::default(),
            duplicate_runs: Counter::default(),
            enqueue_seconds: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
            foreign_claims: Family::default(),
            quarantined: Family::default(),
            strays: Family::default(),
            strays_put_off: Family::default(),
            api_writes: Family::default(),
            events_dropped: Family::default(),
            spans_exported: Counter::default(),
            spans_dropped: Family::default(),
            schedule_times: Family::default(),
            redis_round_trips: Family::default(),
            queue_depth: Family::default(),
            in_flight: Family::default(),
            band_depth: Family::default(),
            bands: Arc::default(),
            oldest_queued: Family::default(),
            attempts: Family::default(),
            worker_losses: Family::default(),
            consumption: Consumption::default(),
            wait_seconds: Family::new_with_constructor(of_jobs),
            run_seconds: Family::new_with_constructor(of_jobs),
            reconcile_seconds: of_calls(),
            redis_enqueue_seconds: of_calls(),
            api_write_seconds: Family::new_with_constructor(of_calls),
            replicas_desired: Family::default(),
            replicas_ready: Family::default(),
            workers_busy: Family::default(),
            broker_up: Family::default(),
            workers_stalled: Family::default(),
            reconcile_errors: Counter::default(),
            archived: Counter::default(),
            archive_failures: Counter::default(),
            archive_failing: Gauge::default(),
            leading: Gauge::default(),
        };
        for (phase, reason) in ends() {
            let labels = EndLabels { phase: format!("{phase:?}"), reason: reason.to_owned() };
            metrics.jobs_finished.get_or_create(&labels).inc_by(0);
        }
        let mut registry = Registry::with_prefix("crewjob");
        metrics.clone().show_in(&mut registry);
        (metrics, registry)
    }

    /// Names each, and says what it counts.
    fn show_in(self, registry: &mut Registry) {
        let m = self;
        registry.register("jobs_finished", "Jobs that ended, by phase and reason", m.jobs_finished);
        registry.register("jobs_live", "Unfinished jobs that the operator follows", m.jobs_live);
        registry.register("enqueued", "Messages published, republished ones included", m.enqueued);
        registry.register("requeued", "Messages published again after a loss", m.requeued);
        registry.register("late_results", "Results that arrived after the end of their job", m.late_results);
        registry.register("duplicate_runs", "Runs of a task that was running already", m.duplicate_runs);
        registry.register(
            "enqueue_seconds",
            "From creation, known to the second, to the first message on Redis",
            m.enqueue_seconds,
        );
        registry.register(
            "foreign_claims",
            "Results and events on a pool's Redis about jobs of other pools, dropped; grows also where pools share a Redis",
            m.foreign_claims,
        );
        registry.register("quarantined", "Elements of queues that no worker survives, taken off", m.quarantined);
        registry.register("strays", "Attempts on Redis that no job stands behind, taken off", m.strays);
        registry.register(
            "strays_put_off",
            "Attempts on Redis without a job in hand that are looked up later",
            m.strays_put_off,
        );
        registry.register("api_writes", "Writes to the API server", m.api_writes);
        registry.register("events_dropped", "Kubernetes Events that were not written", m.events_dropped);
        registry.register("spans_exported", "Spans of traces that the collector has taken", m.spans_exported);
        registry.register("spans_dropped", "Spans of traces that the collector has not taken", m.spans_dropped);
        registry.register("schedule_times", "Times of schedules, by what became of them", m.schedule_times);
        registry.register("redis_round_trips", "Round trips to Redis", m.redis_round_trips);
        registry.register("queue_depth", "Messages waiting on the queues of a pool", m.queue_depth);
        registry.register("in_flight", "Messages taken and not acknowledged", m.in_flight);
        registry.register("band_depth", "Messages waiting in a band of priorities; 0 is served first", m.band_depth);
        registry.register(
            "oldest_queued_timestamp_seconds",
            "When the job was published that waits longest, in seconds since 1970; none while none waits",
            m.oldest_queued,
        );
        registry.register("attempts", "Attempts that ended, by outcome", m.attempts);
        registry.register("worker_losses", "Workers that died with a job", m.worker_losses);
        m.consumption.register(registry);
        registry.register("wait_seconds", "From the message of an attempt to its beginning", m.wait_seconds);
        registry.register("run_seconds", "From the beginning of an attempt to its end", m.run_seconds);
        registry.register("reconcile_seconds", "Looks at jobs, with all that they do", m.reconcile_seconds);
        registry.register("redis_enqueue_seconds", "Scripts on Redis that publish a message", m.redis_enqueue_seconds);
        registry.register("api_write_seconds", "Writes to the API server, by kind", m.api_write_seconds);
        registry.register("replicas_desired", "Worker replicas that the load asks for", m.replicas_desired);
        registry.register("replicas_ready", "Worker replicas that are ready", m.replicas_ready);
        registry.register("workers_busy", "Workers that have a task", m.workers_busy);
        registry.register("broker_up", "1 while the pool's Redis is reachable", m.broker_up);
        registry.register(
            "workers_stalled",
            "1 while messages wait, workers have room and no worker takes any",
            m.workers_stalled,
        );
        registry.register("reconcile_errors", "Reconciliations that could not do their work", m.reconcile_errors);
        registry.register("archived", "Lines of finished jobs that the archive has taken", m.archived);
        registry.register("archive_failures", "Times that the archive did not take jobs", m.archive_failures);
        registry.register(
            "archive_failing",
            "1 while expired jobs are not deleted because the archive does not take them",
            m.archive_failing,
        );
        registry.register("leading", "1 while this replica leads", m.leading);
        registry.register_collector(Box::new(m.jobs_waiting));
    }

    /// Shows the counters of a pool that alerts are about, at zero: one that appears with its first count has no increase.
    pub fn show_pool(&self, pool: &PoolLabels) {
        for counter in [&self.quarantined, &self.worker_losses] {
            counter.get_or_create(pool).inc_by(0);
        }
        for labels in outcomes(pool) {
            self.attempts.get_or_create(&labels).inc_by(0);
        }
    }

    /// Forgets all figures of a pool that was deleted, so that no more pools are kept than there are.
    pub fn drop_pool(&self, pool: &PoolLabels) {
        self.forget_pool(pool);
        self.consumption.drop_pool(pool);
        let taken_off = [&self.quarantined, &self.strays, &self.foreign_claims];
        for counter in taken_off.into_iter().chain([&self.redis_round_trips, &self.worker_losses]) {
            counter.remove(pool);
        }
        for labels in outcomes(pool) {
            self.attempts.remove(&labels);
        }
        for timing in [&self.wait_seconds, &self.run_seconds] {
            timing.remove(pool);
        }
    }

    /// Forgets the gauges of a pool that is served no more: their last values would stand for good. Its counters stay, as
    /// what they count has happened.
    pub fn forget_pool(&self, pool: &PoolLabels) {
        let counted = [&self.queue_depth, &self.in_flight, &self.strays_put_off];
        let states = [&self.broker_up, &self.workers_stalled, &self.oldest_queued];
        let workers = [&self.replicas_desired, &self.replicas_ready, &self.workers_busy];
        for gauge in counted.into_iter().chain(states).chain(workers) {
            gauge.remove(pool);
        }
        for band in self.bands.lock().remove(pool).into_iter().flatten() {
            self.band_depth.remove(&band);
        }
    }

    /// Says how many messages wait in each band of a pool's queues. Those of bands that it no longer has go.
    pub fn set_bands(&self, pool: &PoolLabels, depths: impl IntoIterator<Item = (String, u32, i64)>) {
        let mut bands = HashSet::new();
        for (queue, band, depth) in depths {
            let labels = BandLabels { namespace: pool.namespace.clone(), pool: pool.pool.clone(), queue, band };
            self.band_depth.get_or_create(&labels).set(depth);
            bands.insert(labels);
        }
        let mut known = self.bands.lock();
        let former = known.insert(pool.clone(), bands).unwrap_or_default();
        for band in former.iter().filter(|band| known.get(pool).is_none_or(|bands| !bands.contains(band))) {
            self.band_depth.remove(band);
        }
    }

    /// Counts an Event that is not written.
    pub fn dropped_event(&self, why: Dropped) {
        self.events_dropped.get_or_create(&DroppedLabels { why }).inc();
    }

    /// Counts spans that are not sent.
    pub fn dropped_spans(&self, why: SpanDropped, spans: u64) {
        self.spans_dropped.get_or_create(&SpanDroppedLabels { why }).inc_by(spans);
    }

    /// Notes how long a write to the API server took.
    pub fn write_took(&self, write: Written, time: Duration) {
        self.api_write_seconds.get_or_create(&WrittenLabels { write }).observe(time.as_secs_f64());
    }

    /// Counts times of a schedule.
    pub fn schedule_time(&self, outcome: ScheduleOutcome, count: u64) {
        self.schedule_times.get_or_create(&ScheduleLabels { outcome }).inc_by(count);
    }

    /// Counts a write to the API server.
    pub fn wrote(&self, write: Written, outcome: WriteOutcome) {
        self.api_writes.get_or_create(&WriteLabels { write, outcome }).inc();
    }
}

/// Every end that a job can have.
fn ends() -> impl Iterator<Item = (Phase, &'static str)> {
    let well = ["Succeeded", "FinishedBeforeCancel", "AlreadyRan"].map(|reason| (Phase::Succeeded, reason));
    let badly = GaveUp::ALL.map(|why| (Phase::Failed, why.reason()));
    let other = [(Phase::Failed, "AlreadyRan"), (Phase::Failed, "Duplicate"), (Phase::Cancelled, "Cancelled")];
    let attached = [Phase::Succeeded, Phase::Failed, Phase::Cancelled].map(|phase| (phase, ATTACHED));
    well.into_iter().chain(badly).chain(other).chain(attached)
}

fn outcomes(pool: &PoolLabels) -> impl Iterator<Item = AttemptLabels> {
    let PoolLabels { namespace, pool } = pool.clone();
    AttemptOutcome::ALL.into_iter().map(move |it| AttemptLabels {
        namespace: namespace.clone(),
        pool: pool.clone(),
        outcome: it.name(),
    })
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn shown(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn nothing_stands_for_good_of_a_pool_that_is_gone_or_of_a_band_that_it_no_longer_has() {
        let (metrics, registry) = Metrics::register();
        let pool = PoolLabels { namespace: "team".into(), pool: "default".into() };
        metrics.set_bands(&pool, [("crew_jobs".into(), 0, 1), ("crew_jobs".into(), 3, 2)]);
        metrics.set_bands(&pool, [("crew_jobs".into(), 3, 5)]);
        metrics.oldest_queued.get_or_create(&pool).set(7);
        metrics.workers_busy.get_or_create(&pool).set(1);
        let text = shown(&registry);
        assert!(text.contains(r#"queue="crew_jobs",band="3"} 5"#) && !text.contains(r#"band="0""#), "{text}");
        metrics.forget_pool(&pool);
        assert!(!shown(&registry).contains("team"), "{}", shown(&registry));
    }

    #[test]
    fn what_alerts_count_is_there_before_it_happens_and_goes_with_its_pool() {
        let (metrics, registry) = Metrics::register();
        let text = shown(&registry);
        assert!(text.contains(r#"jobs_finished_total{phase="Failed",reason="MessageLost"} 0"#), "{text}");
        let pool = PoolLabels { namespace: "team".into(), pool: "default".into() };
        metrics.show_pool(&pool);
        let text = shown(&registry);
        assert!(text.contains(r#"attempts_total{namespace="team",pool="default",outcome="Failed"} 0"#), "{text}");
        assert!(text.contains(r#"quarantined_total{namespace="team",pool="default"} 0"#), "{text}");
        for counter in [&metrics.strays, &metrics.foreign_claims, &metrics.redis_round_trips] {
            counter.get_or_create(&pool).inc();
        }
        metrics.wait_seconds.get_or_create(&pool).observe(1.0);
        metrics.run_seconds.get_or_create(&pool).observe(1.0);
        metrics.drop_pool(&pool);
        assert!(!shown(&registry).contains("team"), "{}", shown(&registry));
    }

    #[test]
    fn the_jobs_that_wait_are_counted_when_they_are_shown_and_by_the_leader_only() {
        let (metrics, registry) = Metrics::register();
        let jobs = Arc::new(Mutex::new(2));
        let labels = WaitingLabels { namespace: "team".into(), pool: "default".into(), reason: "Suspended" };
        let counted = jobs.clone();
        metrics.jobs_waiting.ask(move || Figures::from([(labels.clone(), *counted.lock())]));
        let line = r#"crewjob_jobs_waiting{namespace="team",pool="default",reason="Suspended"}"#;
        assert!(shown(&registry).contains(&format!("{line} 2\n")), "{}", shown(&registry));
        *jobs.lock() = 1;
        assert!(shown(&registry).contains(&format!("{line} 1\n")));
        metrics.jobs_waiting.forget();
        assert!(!shown(&registry).contains("team"));
    }
}
