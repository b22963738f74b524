//! Many tenants: 200 pools in 50 namespaces on four Redis servers with 100,000 jobs that wait, and a quiet pool beside a
//! noisy one and one whose Redis is slow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crewjob::api::{CrewJob, CrewWorkerPool, REDIS_SECRET_LABEL};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, sleep_until};

use super::bed::{Bed, RedisServer};
use super::operator::JOB_WRITES;
use super::report::{Report, median, number, percentile};
use super::{Extent, Result, jobs};

const SERVERS: usize = 4;
const POOLS: usize = 4;
/// The tenants of the last measure, by their place.
const NOISY: usize = 0;
const SLOW: usize = 1;
const QUIET: usize = 2;
/// How late the slow tenant's Redis answers.
const DELAY: Duration = Duration::from_secs(4);
/// Between two jobs of the quiet tenant.
const PACE: Duration = Duration::from_millis(100);

/// How many of everything.
struct Size {
    namespaces: usize,
    waiting: usize,
    noise: usize,
    samples: usize,
    /// Within this time each pool reads its queues once after the last message, which is work and not idleness.
    settle: Duration,
    idle: Duration,
}

/// Idle with all that waits, and then with noise.
pub async fn measure(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let size = Size {
        namespaces: extent.pick(5, 50),
        waiting: extent.pick(1000, 100_000),
        noise: extent.pick(500, 10_000),
        samples: extent.pick(50, 200),
        settle: extent.pick(Duration::from_secs(10), Duration::from_secs(150)),
        idle: extent.pick(Duration::from_secs(10), Duration::from_mins(2)),
    };
    let pools = size.namespaces * POOLS;
    report.say(format!("tenants: {pools} pools in {} namespaces on {SERVERS} Redis servers", size.namespaces));
    let servers: Vec<RedisServer> = (0..SERVERS).map(|_| bed.redis_server()).collect::<Result<_>>()?;
    let slow = SlowLine::to(servers[SERVERS - 1].port).await?;
    let tenants: Vec<String> = (0..size.namespaces).map(|tenant| format!("tenant-{tenant}")).collect();
    for (place, tenant) in tenants.iter().enumerate() {
        let urls = servers.iter().map(|server| if place == SLOW { slow.url.clone() } else { server.url.clone() });
        prepare(bed, place, tenant, urls.collect()).await?;
    }
    let operator = bed.operator_for(&tenants).await?;
    operator.reaches(("crewjob_broker_up", ""), number(pools), |up| report.say(format!("  {up} pools served"))).await?;
    report.say(format!("tenants: {:.1} MB without a job", operator.memory("VmRSS")?));

    let before = operator.metric(JOB_WRITES)?;
    fill(bed, &tenants, size.waiting, report).await?;
    let say = |done: f64| report.say(format!("  {done} recorded as Queued"));
    operator.reaches(JOB_WRITES, before + number(size.waiting), say).await?;
    report.say(format!("  letting it settle for {} s", size.settle.as_secs()));
    sleep(size.settle).await;
    let (cpu, began) = (operator.cpu_seconds()?, Instant::now());
    sleep(size.idle).await;
    let share = (operator.cpu_seconds()? - cpu) / began.elapsed().as_secs_f64() * 100.0;
    let is_full = matches!(extent, Extent::Full);
    report.measure("tenants_idle_cpu", share, "% of a core", is_full.then_some(5.0));
    report.measure("tenants_rss", operator.memory("VmRSS")?, "MB", is_full.then_some(200.0));
    report.say(format!("  at most so far {:.1} MB", operator.memory("VmHWM")?));

    let quiet = Quiet::new(bed, &tenants[QUIET], &servers[0], size.samples).await?;
    let alone = quiet.latencies("alone").await?;
    slow.delay(DELAY);
    let loud: Api<CrewJob> = Api::namespaced(bed.client.clone(), &tenants[NOISY]);
    let slowed: Api<CrewJob> = Api::namespaced(bed.client.clone(), &tenants[SLOW]);
    let noise = async {
        jobs::create_in(&slowed, "p0", "slow", 0..size.noise / 10, |_| {}).await?;
        jobs::create_in(&loud, "p1", "noise", 0..size.noise, |_| {}).await
    };
    let (beside, noise) = tokio::join!(quiet.latencies("beside"), noise);
    noise?;
    let beside = beside?;
    let said = |found: &[f64]| {
        let at = |share: f64| percentile(found, share);
        format!("p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, at most {:.1} ms", median(found), at(0.9), at(0.99), at(1.0))
    };
    for (when, found) in [("alone", &alone), ("beside the noise", &beside)] {
        report.say(format!("  {when}: {}", said(&found.enqueued)));
        report.say(format!("    a watch heard of it: {}", said(&found.heard)));
    }
    report.measure("tenants_quiet_pool_p99", percentile(&beside.enqueued, 0.99), "ms", Some(250.0));
    // What the API server takes to say that there is a job is not the operator's.
    let own: Vec<f64> = beside.enqueued.iter().zip(&beside.heard).map(|(all, heard)| (all - heard).max(0.0)).collect();
    report.measure("tenants_own_p99", percentile(&own, 0.99), "ms", Some(100.0));
    slow.delay(Duration::ZERO);
    Ok(())
}

/// One namespace with its pools; each has a queue of its own, and the next of the servers.
async fn prepare(bed: &Bed, place: usize, tenant: &str, urls: Vec<String>) -> Result<()> {
    let metadata = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata: metadata(tenant), ..Namespace::default() };
    Api::<Namespace>::all(bed.client.clone()).create(&PostParams::default(), &namespace).await?;
    for (pool, url) in urls.iter().enumerate() {
        let (name, secret_name) = (format!("p{pool}"), format!("redis-{pool}"));
        let secret = Secret {
            metadata: ObjectMeta {
                labels: Some([(REDIS_SECRET_LABEL.to_owned(), "true".to_owned())].into()),
                ..metadata(&secret_name)
            },
            string_data: Some(BTreeMap::from([("REDIS_URL".to_owned(), url.clone())])),
            ..Secret::default()
        };
        Api::namespaced(bed.client.clone(), tenant).create(&PostParams::default(), &secret).await?;
        let spec = json!({ "redis": { "secretName": secret_name }, "queues": [{ "name": queue(place, pool) }] });
        let pool = CrewWorkerPool::new(&name, serde_json::from_value(spec)?);
        Api::namespaced(bed.client.clone(), tenant).create(&PostParams::default(), &pool).await?;
    }
    Ok(())
}

fn queue(place: usize, pool: usize) -> String {
    format!("q-{place}-{pool}")
}

/// As many jobs in each pool.
async fn fill(bed: &Bed, tenants: &[String], count: usize, report: &Report) -> Result<()> {
    let made = AtomicUsize::new(0);
    stream::iter(0..count)
        .map(async |n| {
            let api: Api<CrewJob> = Api::namespaced(bed.client.clone(), &tenants[n % tenants.len()]);
            let spec = jobs::spec(&format!("p{}", n / tenants.len() % POOLS));
            let job = CrewJob::new(&format!("waits-{n}"), serde_json::from_value(spec)?);
            api.create(&PostParams::default(), &job).await?;
            let made = made.fetch_add(1, Ordering::Relaxed) + 1;
            if made.is_multiple_of(10_000) {
                report.say(format!("  {made} of {count} made"));
            }
            Result::Ok(())
        })
        .buffer_unordered(jobs::CONCURRENCY)
        .try_collect()
        .await
}

/// The first pool of a tenant that makes a job now and then.
struct Quiet {
    api: Api<CrewJob>,
    redis: MultiplexedConnection,
    samples: usize,
    /// When a watch of the jobs of that namespace said last that there is a new one, and which.
    watched: watch::Receiver<Option<(String, Instant)>>,
    watching: JoinHandle<()>,
}

/// How long a job took, in milliseconds from the answer to its creation.
struct Latencies {
    /// Until its message was on Redis.
    enqueued: Vec<f64>,
    /// Until a watch of this benchmark heard of it: no operator is faster.
    heard: Vec<f64>,
}

impl Quiet {
    async fn new(bed: &Bed, tenant: &str, server: &RedisServer, samples: usize) -> Result<Self> {
        let redis = redis::Client::open(&*server.url)?.get_multiplexed_async_connection().await?;
        let api: Api<CrewJob> = Api::namespaced(bed.client.clone(), tenant);
        let (hear, watched) = watch::channel(None);
        let version = api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let mut events = api.watch(&WatchParams::default(), &version).await?.boxed();
        let watching = tokio::spawn(async move {
            while let Ok(Some(event)) = events.try_next().await {
                if let WatchEvent::Added(job) = event {
                    hear.send_replace(Some((job.name_any(), Instant::now())));
                }
            }
        });
        Ok(Self { api, redis, samples, watched, watching })
    }

    async fn waiting(&self) -> Result<usize> {
        let mut redis = self.redis.clone();
        let list = format!("{}\u{6}\u{16}3", queue(QUIET, 0));
        Ok(redis::cmd("LLEN").arg(list).query_async(&mut redis).await?)
    }

    /// Creates a job now and then.
    async fn latencies(&self, prefix: &str) -> Result<Latencies> {
        let mut ticks = interval(PACE);
        let mut found = Latencies { enqueued: Vec::new(), heard: Vec::new() };
        let mut watched = self.watched.clone();
        for n in 0..self.samples {
            ticks.tick().await;
            let before = self.waiting().await?;
            let name = format!("{prefix}-{n}");
            let job = CrewJob::new(&name, serde_json::from_value(jobs::spec("p0"))?);
            self.api.create(&PostParams::default(), &job).await?;
            let answered = Instant::now();
            while self.waiting().await? <= before {
                if answered.elapsed() > Duration::from_secs(30) {
                    return Err(format!("job {prefix}-{n} of the quiet pool is not published").into());
                }
                sleep(Duration::from_millis(1)).await;
            }
            found.enqueued.push(answered.elapsed().as_secs_f64() * 1000.0);
            let heard = watched.wait_for(|heard| heard.as_ref().is_some_and(|(heard, _)| *heard == name)).await?;
            let at = heard.as_ref().map_or(answered, |(_, at)| *at);
            found.heard.push(at.saturating_duration_since(answered).as_secs_f64() * 1000.0);
        }
        Ok(found)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// A line to a server of this machine on which answers take their time; many may be under way.
struct SlowLine {
    url: String,
    delay: Arc<AtomicU64>,
}

impl SlowLine {
    async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (url, delay) = (format!("redis://{}/0", listener.local_addr()?), Arc::new(AtomicU64::new(0)));
        tokio::spawn({
            let delay = delay.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::spawn(pass_on(from_client, to_server, Arc::default()));
                    tokio::spawn(pass_on(from_server, to_client, delay.clone()));
                }
            }
        });
        Ok(Self { url, delay })
    }

    fn delay(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

async fn pass_on(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
    delay: Arc<AtomicU64>,
) {
    let (line, mut end) = mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((due, bytes)) = end.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let due = tokio::time::Instant::now() + Duration::from_millis(delay.load(Ordering::Relaxed));
        if line.send((due, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}
