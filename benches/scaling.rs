//! From the message in Redis to the replicas of a Deployment that was at zero.

use std::time::{Duration, Instant};

use crewjob::api::{CrewJob, CrewJobSpec, CrewWorkerPool};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use redis::Client;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bed::Bed;
use super::report::{Report, median, percentile};
use super::{Extent, Result, jobs};

const POOL: &str = "scaled";
const DEPLOYMENT: &str = "workers";
const PATIENCE: Duration = Duration::from_secs(20);

/// One job after the other on a pool whose workers are at zero.
pub async fn measure(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let samples = extent.pick(4, 15);
    report.say(format!("scale from zero: {samples} times"));
    create_deployment(bed).await?;
    let mut tasks = JoinSet::new();
    let mut pushes = pushes(bed, &mut tasks).await?;
    let mut replicas = replicas(bed, &mut tasks).await?;
    let further = json!({
        "deploymentRef": { "name": DEPLOYMENT }, "queues": [{ "name": POOL }], "scaleDownDelay": "0s",
    });
    bed.create_pool(POOL, &further).await?;
    until(&mut replicas, |replicas| replicas == 0).await?;
    let api = bed.api::<CrewJob>();
    let mut waits = Vec::new();
    for number in 0..samples {
        let name = format!("scale-{number}");
        let spec: CrewJobSpec = serde_json::from_value(jobs::spec(POOL))?;
        api.create(&PostParams::default(), &CrewJob::new(&name, spec)).await?;
        let enqueued = timeout(PATIENCE, pushes.recv()).await.ok().flatten().ok_or("no message came")?;
        let scaled = until(&mut replicas, |replicas| replicas > 0).await?;
        waits.push(scaled.duration_since(enqueued).as_secs_f64() * 1000.0);
        api.delete(&name, &DeleteParams::default()).await?;
        until(&mut replicas, |replicas| replicas == 0).await?;
    }
    bed.api::<CrewWorkerPool>().delete(POOL, &DeleteParams::default()).await?;
    report.measure("scale_from_zero", median(&waits), "ms", Some(250.0));
    report.say(format!("  at most {:.0} ms", percentile(&waits, 1.0)));
    Ok(())
}

/// Applied by server-side apply, without `replicas`: a client that creates it in another way owns their default too.
async fn create_deployment(bed: &Bed) -> Result<()> {
    let labels = json!({ "app": DEPLOYMENT });
    let deployment: Deployment = serde_json::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": DEPLOYMENT },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 3660,
                    "containers": [{ "name": "worker", "image": "example.invalid/worker" }],
                },
            },
        },
    }))?;
    bed.api::<Deployment>().patch(DEPLOYMENT, &PatchParams::apply("bench"), &Patch::Apply(&deployment)).await?;
    Ok(())
}

/// When messages are pushed, by Redis' own word.
async fn pushes(bed: &Bed, tasks: &mut JoinSet<()>) -> Result<mpsc::UnboundedReceiver<Instant>> {
    let client = Client::open(format!("{}/0", bed.redis))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("CONFIG").arg(&["SET", "notify-keyspace-events", "El"]).exec_async(&mut connection).await?;
    let mut events = client.get_async_pubsub().await?;
    events.subscribe("__keyevent@0__:lpush").await?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tasks.spawn(async move {
        let mut events = events.into_on_message();
        while let Some(event) = events.next().await {
            let queue: String = event.get_payload().unwrap_or_default();
            if queue.starts_with(POOL) && sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Every change of the Deployment: when, and to how many replicas.
async fn replicas(bed: &Bed, tasks: &mut JoinSet<()>) -> Result<mpsc::UnboundedReceiver<(Instant, i32)>> {
    let api: Api<Deployment> = bed.api();
    let version = api.get(DEPLOYMENT).await?.metadata.resource_version.unwrap_or_default();
    let (sender, receiver) = mpsc::unbounded_channel();
    tasks.spawn(async move {
        let Ok(changes) = api.watch(&WatchParams::default(), &version).await else { return };
        let mut changes = changes.boxed();
        while let Some(change) = changes.next().await {
            let Ok(WatchEvent::Modified(deployment)) = change else { continue };
            let replicas = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            if sender.send((Instant::now(), replicas)).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

async fn until(changes: &mut mpsc::UnboundedReceiver<(Instant, i32)>, fits: impl Fn(i32) -> bool) -> Result<Instant> {
    let search = async {
        loop {
            let (at, replicas) = changes.recv().await?;
            if fits(replicas) {
                return Some(at);
            }
        }
    };
    Ok(timeout(PATIENCE, search).await.ok().flatten().ok_or("the Deployment was not scaled in time")?)
}
