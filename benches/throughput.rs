//! Jobs per second from created to `Succeeded`, against the least that an API server has to do for that: to create an
//! object and to merge one status.

use std::time::{Duration, Instant};

use crewjob::api::CrewJob;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::bed::{BARE_GROUP, Bed, NAMESPACE};
use super::operator::{FINISHED, JOB_WRITES, Operator};
use super::report::{Report, median, number};
use super::worker::Worker;
use super::{Extent, Result, jobs};

/// The operator adds up its round trips with every look at the load, which is at least so often.
const LOOK: Duration = Duration::from_millis(2500);

/// Rounds of both, in turn.
pub async fn measure(bed: &Bed, operator: &Operator, extent: Extent, report: &Report) -> Result<()> {
    let (rounds, count) = (extent.pick(2, 5), extent.pick(150, 600));
    report.say(format!("jobs per second: {rounds} rounds of {count} jobs, and of create and one status patch"));
    let worker = Worker::start(&bed.redis).await?;
    let api = bed.api::<CrewJob>();
    let status = warm(&api, operator).await?;
    let bare = Api::namespaced_with(bed.client.clone(), NAMESPACE, &bare_resource());
    let (mut rates, mut limits, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let (mut writes, mut trips, mut cpu) = (0.0, 0.0, 0.0);
    for round in 0..rounds {
        let limit = bare_round(&bare, &format!("bare-{round}"), count, &status).await?;
        sleep(LOOK).await;
        let before = Counters::read(operator)?;
        let started = Instant::now();
        jobs::create(&api, &format!("full-{round}"), 0..count, |_| {}).await?;
        let created = started.elapsed();
        operator.reaches(FINISHED, before.finished + number(count), |_| {}).await?;
        let rate = number(count) / started.elapsed().as_secs_f64();
        sleep(LOOK).await;
        let after = Counters::read(operator)?;
        writes += after.writes - before.writes;
        trips += after.trips - before.trips;
        cpu += after.cpu - before.cpu;
        report.say(format!(
            "  round {}: {rate:.0}/s (all created after {:.1} s), bare {limit:.0}/s, ratio {:.2}",
            round + 1,
            created.as_secs_f64(),
            rate / limit
        ));
        rates.push(rate);
        limits.push(limit);
        shares.push(rate / limit);
    }
    drop(worker);
    let all = number(rounds * count);
    let succeeded = jobs::in_phase(&api, "Succeeded").await?;
    let failed = jobs::in_phase(&api, "Failed").await?;
    if succeeded < rounds * count || failed > 0 {
        return Err(format!("{succeeded} jobs Succeeded, {failed} Failed, of {all} made here").into());
    }
    report.measure("jobs_per_second", median(&rates), "1/s", Some(median(&limits)));
    report.measure("api_writes_per_job", writes / all, "writes", Some(1.0));
    report.measure("redis_round_trips_per_job", trips / all, "round trips", None);
    report.say(format!(
        "  median of the rounds' ratios {:.2}; the operator used {:.2} ms of processor time per job",
        median(&shares),
        cpu * 1000.0 / all
    ));
    Ok(())
}

/// What is counted over a round.
struct Counters {
    finished: f64,
    writes: f64,
    trips: f64,
    cpu: f64,
}

impl Counters {
    fn read(operator: &Operator) -> Result<Self> {
        Ok(Self {
            finished: operator.metric(FINISHED)?,
            writes: operator.metric(JOB_WRITES)?,
            trips: operator.metric(("crewjob_redis_round_trips_total", ""))?,
            cpu: operator.cpu_seconds()?,
        })
    }
}

/// Warms everything up and returns what the operator writes about a job that has succeeded.
async fn warm(api: &Api<CrewJob>, operator: &Operator) -> Result<Value> {
    let before = operator.metric(FINISHED)?;
    jobs::create(api, "warm", 0..50, |_| {}).await?;
    operator.reaches(FINISHED, before + 50.0, |_| {}).await?;
    let status = api.get("warm-49").await?.status.ok_or("a job without status")?;
    Ok(serde_json::to_value(status)?)
}

fn bare_resource() -> ApiResource {
    let kind = GroupVersionKind::gvk(BARE_GROUP, &CrewJob::version(&()), &CrewJob::kind(&()));
    ApiResource::from_gvk_with_plural(&kind, &CrewJob::plural(&()))
}

/// Pairs of requests per second.
async fn bare_round(api: &Api<DynamicObject>, prefix: &str, count: usize, status: &Value) -> Result<f64> {
    let started = Instant::now();
    stream::iter(0..count)
        .map(async |number| {
            let name = format!("{prefix}-{number}");
            let object = DynamicObject::new(&name, &bare_resource()).data(json!({ "spec": jobs::spec("default") }));
            let version = api.create(&PostParams::default(), &object).await?.resource_version();
            let patch = json!({ "metadata": { "resourceVersion": version }, "status": status });
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
            Result::Ok(())
        })
        .buffer_unordered(jobs::CONCURRENCY)
        .try_collect::<()>()
        .await?;
    Ok(number(count) / started.elapsed().as_secs_f64())
}
