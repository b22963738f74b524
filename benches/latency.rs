//! From the call that creates a CrewJob to its message in Redis, popped by a worker that waits for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crewjob::api::CrewJob;
use kube::api::PostParams;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::bed::Bed;
use super::operator::{FINISHED, Operator};
use super::report::{Report, median, number, percentile};
use super::worker::Worker;
use super::{Extent, Result, jobs};

/// Between two jobs.
const PACE: Duration = Duration::from_millis(100);

/// Ten jobs a second.
pub async fn measure(bed: &Bed, operator: &Operator, extent: Extent, report: &Report) -> Result<()> {
    let count = extent.pick(50, 300);
    report.say(format!("apply to Redis: {count} jobs, 10 a second"));
    let worker = Worker::start(&bed.redis).await?;
    let api = bed.api::<CrewJob>();
    jobs::create(&api, "latency-warm", 0..20, |_| {}).await?;
    let before = operator.metric(FINISHED)?;
    let mut calls = JoinSet::new();
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 0..count {
        ticks.tick().await;
        let (api, name) = (api.clone(), format!("latency-{number}"));
        calls.spawn(async move {
            let called = Instant::now();
            api.create(&PostParams::default(), &jobs::job(&name)?).await?;
            Result::Ok((name, called, called.elapsed()))
        });
    }
    let mut called = HashMap::new();
    let mut answered = Vec::new();
    while let Some(call) = calls.join_next().await {
        let (name, at, took) = call??;
        called.insert(name, at);
        answered.push(took.as_secs_f64() * 1000.0);
    }
    operator.reaches(FINISHED, before.max(20.0) + number(count), |_| {}).await?;
    let seen = worker.seen();
    let waits: Vec<f64> = called
        .iter()
        .filter_map(|(name, at)| Some(seen.get(name)?.duration_since(*at).as_secs_f64() * 1000.0))
        .collect();
    if waits.len() != count {
        return Err(format!("of {count} messages only {} were popped", waits.len()).into());
    }
    report.measure("apply_to_redis_p50", median(&waits), "ms", Some(20.0));
    report.measure("apply_to_redis_p99", percentile(&waits, 0.99), "ms", Some(100.0));
    report.say(format!(
        "  of that, the API server took {:.1} ms (p50) and {:.1} ms (p99) to answer the call",
        median(&answered),
        percentile(&answered, 0.99)
    ));
    Ok(())
}
