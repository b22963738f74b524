//! Metrics of the operator. Labels are closed enums and pool names; an object's name or a task id is never one.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    /// Namespace of the pool.
    pub namespace: String,
    /// Name of the pool.
    pub pool: String,
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
    JobStatus,
    PoolStatus,
    Scale,
    ConfigMap,
    Event,
    Pod,
}

/// How a write to the API server went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum WriteOutcome {
    Done,
    Conflict,
    Failed,
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
    Repeated,
    TooMany,
    QueueFull,
}

/// An Event that was not written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DroppedLabels {
    /// Why.
    pub why: Dropped,
}

/// Everything that `/metrics` shows. Cloning shares the values.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Jobs that ended, by phase and reason.
    pub jobs_finished: Family<EndLabels, Counter>,
    /// Unfinished jobs that the operator follows.
    pub jobs_live: Gauge,
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
    /// Round trips to Redis.
    pub redis_round_trips: Family<PoolLabels, Counter>,
    /// Messages waiting.
    pub queue_depth: Family<PoolLabels, Gauge>,
    /// Messages taken and not acknowledged.
    pub in_flight: Family<PoolLabels, Gauge>,
    /// Replicas asked for.
    pub replicas_desired: Family<PoolLabels, Gauge>,
    /// 1 while the pool's Redis is reachable.
    pub broker_up: Family<PoolLabels, Gauge>,
    /// 1 while workers have room and take nothing.
    pub workers_stalled: Family<PoolLabels, Gauge>,
    /// Reconciliations that could not do their work.
    pub reconcile_errors: Counter,
    /// 1 while this replica leads.
    pub leading: Gauge,
}

impl Metrics {
    /// Metrics at zero, and the registry that shows them.
    pub fn register() -> (Self, Registry) {
        let metrics = Self {
            jobs_finished: Family::default(),
            jobs_live: Gauge::default(),
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
            redis_round_trips: Family::default(),
            queue_depth: Family::default(),
            in_flight: Family::default(),
            replicas_desired: Family::default(),
            broker_up: Family::default(),
            workers_stalled: Family::default(),
            reconcile_errors: Counter::default(),
            leading: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("crewjob");
        let m = metrics.clone();
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
        registry.register("redis_round_trips", "Round trips to Redis", m.redis_round_trips);
        registry.register("queue_depth", "Messages waiting on the queues of a pool", m.queue_depth);
        registry.register("in_flight", "Messages taken and not acknowledged", m.in_flight);
        registry.register("replicas_desired", "Worker replicas that the load asks for", m.replicas_desired);
        registry.register("broker_up", "1 while the pool's Redis is reachable", m.broker_up);
        registry.register(
            "workers_stalled",
            "1 while messages wait, workers have room and no worker takes any",
            m.workers_stalled,
        );
        registry.register("reconcile_errors", "Reconciliations that could not do their work", m.reconcile_errors);
        registry.register("leading", "1 while this replica leads", m.leading);
        (metrics, registry)
    }

    /// Forgets the gauges of a pool that is served no more: their last values would stand for good. Its counters stay, as
    /// what they count has happened.
    pub fn forget_pool(&self, pool: &PoolLabels) {
        let counted = [&self.queue_depth, &self.in_flight, &self.strays_put_off];
        let states = [&self.replicas_desired, &self.broker_up, &self.workers_stalled];
        for gauge in counted.into_iter().chain(states) {
            gauge.remove(pool);
        }
    }

    /// Counts an Event that is not written.
    pub fn dropped_event(&self, why: Dropped) {
        self.events_dropped.get_or_create(&DroppedLabels { why }).inc();
    }

    /// Counts a write to the API server.
    pub fn wrote(&self, write: Written, outcome: WriteOutcome) {
        self.api_writes.get_or_create(&WriteLabels { write, outcome }).inc();
    }
}
