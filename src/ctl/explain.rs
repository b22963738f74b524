//! `explain`: why a job is where it is, what would let it go on, and when it will begin and end.

mod forecast;
pub mod queue;
mod verdict;

use std::fmt::Write as _;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::args::{Explain, Filter};
use super::cluster::Cluster;
use super::error::Error;
use super::position::{Positions, Waits};
use super::{show, view};
use crate::api::{CrewJob, CrewWorkerPool, Phase, RunOnceRecord};
use crate::core::once::Claim;
use crate::runtime::clock;
use forecast::{Forecast, forecast, remaining};
use queue::{Place, Survey};
use verdict::{Read, Verdict, verdict};

/// Prints why a job is where it is. The exit status is 0 whatever it says.
pub async fn explain(cluster: &Cluster, what: Explain) -> Result<(), Error> {
    let object = cluster.job(&what.name).await?;
    let Some(explained) = examine(cluster, &object, None).await? else {
        return show::print(&format!("{} is {}\n", what.name, view::line(&object)));
    };
    match what.output {
        Some(format) => show::value(&explained.value(), format),
        None => show::print(&explained.text()),
    }
}

/// Why a job is where it is, where the other jobs of its pool are known: nothing is listed for it.
pub async fn value(cluster: &Cluster, object: &DynamicObject, others: &[CrewJob]) -> Result<Value, Error> {
    Ok(match examine(cluster, object, Some(others)).await? {
        Some(explained) => explained.value(),
        None => json!({ "job": object.name_any(), "phase": view::phase(object), "message": view::line(object) }),
    })
}

/// `None` of a job that this version does not understand.
async fn examine<'a>(
    cluster: &Cluster,
    object: &'a DynamicObject,
    others: Option<&[CrewJob]>,
) -> Result<Option<Explained<'a>>, Error> {
    let Ok(job) = typed::<CrewJob>(object) else { return Ok(None) };
    let pool = read(cluster, &job.spec.pool_ref.name).await?;
    let now = clock::now();
    let verdict = verdict(&job, &pool, claim(cluster, &job, now).await, now);
    let phase = job.status.as_ref().map(|status| status.phase);
    let (place, forecast) = match &pool {
        Read::Found(pool) if verdict.waits || phase == Some(Phase::Running) => {
            survey(cluster, &job, pool, others, now).await?
        }
        Read::Found(_) | Read::Missing(_) => (None, None),
    };
    // What is blocked begins when it is not any more.
    let forecast = forecast.filter(|_| !verdict.is_blocked);
    let place = place.filter(|_| phase == Some(Phase::Queued));
    Ok(Some(Explained { object, verdict, place, forecast, now }))
}

/// An object as this version knows it.
fn typed<T: DeserializeOwned>(object: &DynamicObject) -> Result<T, serde_json::Error> {
    serde_json::from_value(json!(object))
}

async fn read(cluster: &Cluster, name: &str) -> Result<Read, Error> {
    let pools = cluster.pools();
    let found = pools.get_opt(name).await.map_err(Error::call(format!("reading the CrewWorkerPool {name}")))?;
    if let Some(found) = found {
        let unreadable = |_| Error::NotPossible(format!("this program does not understand the CrewWorkerPool {name}"));
        return Ok(Read::Found(typed(&found).map_err(unreadable)?));
    }
    let existing = pools.list(&ListParams::default()).await.map_err(Error::call("listing CrewWorkerPools"))?;
    let mut names: Vec<String> = existing.iter().map(kube::ResourceExt::name_any).collect();
    names.sort();
    Ok(Read::Missing(names))
}

/// What is known of its run-once key. Without the right to read it, the job is taken to have it.
async fn claim(cluster: &Cluster, object: &CrewJob, now: Timestamp) -> Claim {
    let (Some(key), Ok(job)) = (&object.spec.run_once, object.to_job()) else { return Claim::Ours };
    let config_maps = cluster.others::<ConfigMap>();
    let found = config_maps.get_opt(&RunOnceRecord::config_map_name(key)).await.ok().flatten();
    let Some(record) = found.as_ref().and_then(RunOnceRecord::read) else { return Claim::Ours };
    if let Some(claim) = record.claim(job.uid, now) {
        return claim;
    }
    let holder = cluster.jobs().get_opt(&record.job).await.ok().flatten();
    let holder = holder.and_then(|holder| typed::<CrewJob>(&holder).ok()?.to_job().ok());
    match holder.filter(|holder| holder.uid == record.uid && !holder.status.phase.is_terminal()) {
        Some(_) if record.end.is_none() => Claim::Held { by: record.job.as_str().into(), read_at: now },
        Some(_) | None => Claim::Ours,
    }
}

/// Where the job waits among the jobs of its pool, and when it begins; of one that runs, when it ends.
async fn survey(
    cluster: &Cluster,
    job: &CrewJob,
    pool: &CrewWorkerPool,
    others: Option<&[CrewJob]>,
    now: Timestamp,
) -> Result<(Option<Place>, Option<Forecast>), Error> {
    let filter = Filter { pool: Some(pool.name_any()), ..Filter::default() };
    let mut survey = Survey::new(job, pool);
    if let Some(others) = others {
        for other in others {
            survey.add(other, pool, now);
        }
    } else {
        let add = |object: DynamicObject| {
            if let Ok(other) = typed::<CrewJob>(&object) {
                survey.add(&other, pool, now);
            }
        };
        cluster.each(&cluster.jobs(), &filter, add).await?;
    }
    let place = survey.place(pool);
    let load = survey.load(pool, place.ahead);
    let started = job.status.as_ref().filter(|status| status.phase == Phase::Running);
    let started = started.and_then(|status| status.started_at.as_ref()).map(|time| time.0);
    let forecast = match started {
        None => forecast(&load),
        Some(started) => forecast(&load).map(|expected| {
            let elapsed = Duration::try_from(now.duration_since(started)).unwrap_or_default();
            Forecast { starts_in: Duration::ZERO, ends_in: remaining(&load.runs, elapsed), ..expected }
        }),
    };
    Ok((Some(place), forecast))
}

/// Where the jobs of the namespace, or of all, wait. Whatever may not be read has no place.
pub async fn positions(cluster: &Cluster, everywhere: bool) -> Positions {
    let (pools, jobs) =
        if everywhere { (cluster.all_pools(), cluster.all_jobs()) } else { (cluster.pools(), cluster.jobs()) };
    let Ok(pools) = pools.list(&ListParams::default()).await else { return Positions::default() };
    let mut waits = Waits::new(pools.iter().filter_map(|pool| typed(pool).ok()));
    let queued = Filter { phase: waits.phases(), ..Filter::default() };
    let add = |object: DynamicObject| {
        if let Ok(job) = typed(&object) {
            waits.add(&job);
        }
    };
    match cluster.each(&jobs, &queued, add).await {
        Ok(()) => waits.positions(),
        Err(_) => Positions::default(),
    }
}

struct Explained<'a> {
    object: &'a DynamicObject,
    verdict: Verdict,
    place: Option<Place>,
    forecast: Option<Forecast>,
    now: Timestamp,
}

impl Explained<'_> {
    fn at(&self, later: Duration) -> Timestamp {
        SignedDuration::try_from(later).ok().and_then(|later| self.now.checked_add(later).ok()).unwrap_or(self.now)
    }

    fn value(&self) -> Value {
        let (verdict, place) = (&self.verdict, self.place.as_ref());
        let seconds = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at).to_string();
        json!({
            "job": self.object.name_any(),
            "phase": view::phase(self.object),
            "reason": verdict.reason,
            "message": verdict.message,
            "blocked": verdict.is_blocked,
            "remedy": verdict.remedy,
            "position": place.map(|place| json!({
                "queue": place.queue, "band": place.band, "ahead": place.ahead, "foreign": place.foreign,
                "depth": place.depth,
            })),
            "expected": self.forecast.map(|forecast| json!({
                "startsAt": seconds(self.at(forecast.starts_in)), "endsAt": seconds(self.at(forecast.ends_in)),
                "startsInSeconds": forecast.starts_in.as_secs(), "endsInSeconds": forecast.ends_in.as_secs(),
                "takesSeconds": forecast.takes.as_secs(),
            })),
        })
    }

    fn text(&self) -> String {
        let verdict = &self.verdict;
        let blocked = if verdict.is_blocked { "blocked: " } else { "" };
        let mut lines = vec![
            ("job", format!("{} ({})", self.object.name_any(), view::phase(self.object))),
            ("reason", verdict.reason.clone()),
            ("why", format!("{blocked}{}", verdict.message)),
        ];
        if let Some(place) = &self.place {
            let foreign = match place.foreign {
                0 => String::new(),
                count => format!(", {count} of them of other producers"),
            };
            let Place { queue, band, ahead, depth, .. } = place;
            lines.push((
                "position",
                format!("{} of {depth} in queue {queue}, band {band}: {ahead} ahead{foreign}", ahead + 1),
            ));
        }
        if let Some(forecast) = &self.forecast {
            let begins = match view::phase(self.object) {
                "Running" => String::new(),
                _ => format!("begins in {}, ", view::length(forecast.starts_in)),
            };
            let (ends, takes) = (view::length(forecast.ends_in), view::length(forecast.takes));
            lines.push(("expected", format!("{begins}ends in {ends}; a run takes {takes} on the average")));
        }
        lines.push(("to do", verdict.remedy.clone()));
        let mut text = String::new();
        for (name, what) in lines {
            let _ = writeln!(text, "{:10}{}", format!("{name}:"), view::one_line(&what));
        }
        text
    }
}
