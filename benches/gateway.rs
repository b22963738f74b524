//! Jobs submitted over HTTP beside jobs created at the API server: how many in a second, how long one takes, and how long a change of
//! a job takes to all that follow it. No operator runs.

use std::path::Path;
use std::time::{Duration, Instant};

use axum::body::Body;
use crewjob::api::CrewJob;
use futures::{StreamExt, stream};
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::bed::{Bed, NAMESPACE};
use super::operator::{AS_IN_THE_IMAGE, free_port, program};
use super::process::{Process, memory};
use super::report::{Report, median, number, percentile};
use super::{Extent, Result, jobs};

/// Between two jobs of the measure of times: 50 in a second each way.
const PACE: Duration = Duration::from_millis(10);

/// A running gateway, and a caller of it.
struct Gateway {
    process: Process,
    address: String,
    token: String,
    client: Client<HttpConnector, Body>,
}

impl Gateway {
    async fn start(kubeconfig: &str, folder: &Path) -> Result<Self> {
        let (address, admin) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
        let command =
            [&*program(), "gateway", "--address", &address, "--admin-address", &admin, "--namespace", NAMESPACE];
        let options = ["--rate-limit", "off", "--log", "warn"];
        let variables = [[("KUBECONFIG", kubeconfig)].as_slice(), &AS_IN_THE_IMAGE].concat();
        let process = Process::start(&[&command[..], &options].concat(), &variables, &folder.join("gateway.log"))?;
        let text = std::fs::read_to_string(kubeconfig)?;
        let token = text.split("token:").nth(1).and_then(|rest| rest.split_whitespace().next()).ok_or("no token")?;
        let token = token.trim_matches(['"', '}', ',']).to_owned();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let gateway = Self { process, address, token, client };
        let deadline = Instant::now() + Duration::from_secs(10);
        while gateway.call("GET", "/healthz", "").await.is_err() {
            if Instant::now() > deadline {
                return Err(format!("the gateway does not start:\n{}", gateway.process.last_words()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(gateway)
    }

    /// One request; an error if it is not answered well.
    async fn call(&self, method: &str, path: &str, body: &str) -> Result<http::Response<Body>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))?;
        let answer = self.client.request(request).await?.map(Body::new);
        if !answer.status().is_success() {
            return Err(format!("{method} {path}: {}", answer.status()).into());
        }
        Ok(answer)
    }

    async fn submit(&self, key: &str) -> Result<()> {
        let body = json!({
            "topic": "Introduction to machine learning", "inputs": { "level": "undergraduate", "pages": 12 }, "name": key,
        });
        let answer = self.call("POST", "/api/submit", &body.to_string()).await?;
        axum::body::to_bytes(answer.into_body(), 1 << 20).await?;
        Ok(())
    }
}

/// Takes all of it.
pub async fn measure(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let gateway = Gateway::start(bed.kubeconfig(), folder.path()).await?;
    let measured = async {
        throughput(bed, &gateway, extent, report).await?;
        times(bed, &gateway, extent, report).await?;
        events(bed, &gateway, extent, report).await
    };
    measured.await.map_err(|error| format!("{error}; the gateway said:\n{}", gateway.process.last_words()))?;
    jobs::delete_all(&bed.api::<CrewJob>()).await
}

/// Rounds of both, one after the other, so that a machine that gets slower slows both.
async fn throughput(bed: &Bed, gateway: &Gateway, extent: Extent, report: &Report) -> Result<()> {
    let (rounds, count) = extent.pick((2, 200), (5, 600));
    report.say(format!("submit: {rounds} rounds of {count} jobs over HTTP and as many at the API server"));
    let api = bed.api::<CrewJob>();
    let (mut submitted, mut created) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let began = Instant::now();
        let calls =
            stream::iter(0..count).map(|job| async move { gateway.submit(&format!("http-{round}-{job}")).await });
        let done: Vec<Result<()>> = calls.buffer_unordered(jobs::CONCURRENCY).collect().await;
        done.into_iter().collect::<Result<Vec<()>>>()?;
        submitted.push(number(count) / began.elapsed().as_secs_f64());
        let began = Instant::now();
        jobs::create(&api, &format!("bare-{round}"), 0..count, |_| {}).await?;
        created.push(number(count) / began.elapsed().as_secs_f64());
    }
    report.measure("gateway_submit_per_second", median(&submitted), "1/s", Some(median(&created) * 0.7));
    report.measure("gateway_memory", memory(gateway.process.pid(), "VmHWM")?, "MB", Some(64.0));
    Ok(())
}

/// 50 jobs a second, in turns over HTTP and at the API server.
async fn times(bed: &Bed, gateway: &Gateway, extent: Extent, report: &Report) -> Result<()> {
    let count = extent.pick(100, 1000);
    report.say(format!("submit: {count} jobs, 50 a second, every other one at the API server"));
    let api = bed.api::<CrewJob>();
    let first_at = Instant::now() + Duration::from_millis(100);
    let calls = stream::iter(0..2 * count).map(|job| {
        let api = &api;
        async move {
            sleep_until((first_at + PACE * u32::try_from(job)?).into()).await;
            let began = Instant::now();
            if job % 2 == 0 {
                gateway.submit(&format!("timed-{job}")).await?;
            } else {
                api.create(&PostParams::default(), &jobs::job(&format!("timed-{job}"))?).await?;
            }
            Result::Ok((job % 2 == 0, began.elapsed().as_secs_f64() * 1000.0))
        }
    });
    // All at once: each waits for its time.
    let calls: Vec<_> = calls.buffer_unordered(2 * count).collect().await;
    let (mut over_http, mut bare) = (Vec::new(), Vec::new());
    for call in calls {
        let (is_over_http, took) = call?;
        if is_over_http { over_http.push(took) } else { bare.push(took) }
    }
    report.measure("gateway_p50", median(&over_http), "ms", Some(median(&bare) + 50.0));
    report.measure("gateway_p99", percentile(&over_http, 0.99), "ms", Some(percentile(&bare, 0.99) + 50.0));
    Ok(())
}

/// One job that many follow.
async fn events(bed: &Bed, gateway: &Gateway, extent: Extent, report: &Report) -> Result<()> {
    let streams = extent.pick(100, 1000);
    report.say(format!("events: one job, {streams} streams"));
    let api = bed.api::<CrewJob>();
    api.create(&PostParams::default(), &jobs::job("followed")?).await?;
    let (told, mut opened) = (tokio::sync::watch::Sender::new(None::<Instant>), JoinSet::new());
    let ready = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..streams {
        let answer = gateway.call("GET", &format!("/api/events/{NAMESPACE}.followed"), "").await?;
        let (ready, told) = (ready.clone(), told.subscribe());
        opened.spawn(async move {
            let mut chunks = answer.into_body().into_data_stream();
            let mut text = String::new();
            let mut is_ready = false;
            while let Some(chunk) = chunks.next().await {
                text.push_str(&String::from_utf8_lossy(&chunk?));
                if !is_ready && text.contains("event: phase") {
                    is_ready = true;
                    ready.add_permits(1);
                }
                if text.contains("event: end") {
                    let began = told.borrow().ok_or("the end came before it was made")?;
                    return Result::Ok(began.elapsed().as_secs_f64() * 1000.0);
                }
            }
            Err("a stream ended early".into())
        });
    }
    let all = u32::try_from(streams)?;
    let _all = timeout(Duration::from_mins(1), ready.acquire_many(all)).await??;
    // The watches behind the first events begin.
    tokio::time::sleep(Duration::from_secs(2)).await;
    told.send_replace(Some(Instant::now()));
    let change = json!({ "status": { "phase": "Cancelled" } });
    api.patch_status("followed", &PatchParams::default(), &Patch::Merge(&change)).await?;
    let mut waits = Vec::new();
    while let Some(stream) = opened.join_next().await {
        waits.push(stream??);
    }
    report.measure("gateway_events_p50", median(&waits), "ms", None);
    report.measure("gateway_events_p99", percentile(&waits, 0.99), "ms", Some(500.0));
    report.measure("gateway_memory_streams", memory(gateway.process.pid(), "VmRSS")?, "MB", None);
    Ok(())
}
