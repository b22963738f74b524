//! `docs/metrics.md`: every metric of the operator with its type, labels and meaning, as the program shows them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crewjob::core::usage::{Consumed, Usage, Usd};
use crewjob::runtime::metrics::{
    AttemptLabels, Dropped, EndLabels, Figures, Metrics, PoolLabels, SpanDropped, WaitingLabels, WriteLabels,
    WriteOutcome, Written, WrittenLabels,
};
use prometheus_client::encoding::text::encode;

const BEFORE: &str = "\
# Metrics

Made by `make generate` from `src/runtime/metrics.rs`. Do not edit.

The operator serves its metrics under `/metrics` at port 8080, in OpenMetrics text. Its Service is there for Prometheus; the chart
makes a ServiceMonitor and alerts with `monitoring.serviceMonitor.enabled` and `monitoring.prometheusRule.enabled`. Each replica
serves its own: one that does not lead shows `crewjob_leading 0` and no figures of pools.

Labels are closed: pools, their queues and bands, words of fixed lists, and the models that jobs report, of which 16 are told apart in a
pool. No job and no task is a label. The figures of a pool go when it is deleted; when another replica leads, the gauges go and the counters stay.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
";

/// The document.
pub fn render() -> String {
    let text = shown();
    let mut rows: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            rows.entry(name).or_default().1 = help.trim_end_matches('.');
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            rows.entry(name).or_default().0 = kind;
        }
    }
    let mut document = BEFORE.to_owned();
    for (name, (kind, help)) in rows {
        let exported = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let _ = writeln!(document, "| `{exported}` | {kind} | {} | {help} |", labels(&text, name));
    }
    document
}

/// The labels of a metric, without those of a histogram's buckets.
fn labels(text: &str, name: &str) -> String {
    let sample = text.lines().find(|line| {
        let rest = line.strip_prefix(name).unwrap_or_default();
        let is_sample = ["{", " ", "_total", "_bucket", "_count"].iter().any(|next| rest.starts_with(next));
        is_sample && !rest.starts_with("_count ")
    });
    let sample = sample.unwrap_or_else(|| panic!("{name} has no sample: add one in `shown`"));
    let inside = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
    let names = inside.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
    names
        .filter(|name| !name.is_empty() && *name != "le")
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// What `/metrics` shows when everything has a figure.
fn shown() -> String {
    let (metrics, registry) = Metrics::register();
    let pool = PoolLabels { namespace: "team".into(), pool: "default".into() };
    let attempt = AttemptLabels { namespace: "team".into(), pool: "default".into(), outcome: "Succeeded" };
    let end = EndLabels { phase: "Succeeded".into(), reason: "Succeeded".into() };
    for counter in [
        &metrics.foreign_claims,
        &metrics.quarantined,
        &metrics.strays,
        &metrics.redis_round_trips,
        &metrics.worker_losses,
    ] {
        counter.get_or_create(&pool).inc();
    }
    for gauge in [
        &metrics.strays_put_off,
        &metrics.queue_depth,
        &metrics.in_flight,
        &metrics.oldest_queued,
        &metrics.replicas_desired,
        &metrics.replicas_ready,
        &metrics.workers_busy,
        &metrics.broker_up,
        &metrics.workers_stalled,
    ] {
        gauge.get_or_create(&pool).set(1);
    }
    metrics.set_bands(&pool, [("crew_jobs".into(), 3, 1)]);
    let consumed = Consumed { input: 1, cached: 1, output: 1, requests: 1, cost: Some(Usd::billionths(1)) };
    metrics.consumption.add(&pool, &Usage::of("gpt-5", consumed));
    metrics.attempts.get_or_create(&attempt).inc();
    metrics.wait_seconds.get_or_create(&pool).observe(1.0);
    metrics.run_seconds.get_or_create(&pool).observe(1.0);
    metrics.jobs_finished.get_or_create(&end).inc();
    metrics.api_writes.get_or_create(&WriteLabels { write: Written::Pod, outcome: WriteOutcome::Done }).inc();
    metrics.api_write_seconds.get_or_create(&WrittenLabels { write: Written::Pod }).observe(1.0);
    let waiting = WaitingLabels { namespace: "team".into(), pool: "default".into(), reason: "Suspended" };
    metrics.jobs_waiting.ask(move || Figures::from([(waiting.clone(), 1)]));
    metrics.dropped_event(Dropped::TooMany);
    metrics.dropped_spans(SpanDropped::QueueFull, 1);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}
