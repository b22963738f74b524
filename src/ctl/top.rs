//! `top`: the pools, their queues by band, and their workers.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams};
use serde_json::Value;
use tokio::time::sleep;

use super::args::{Filter, Top};
use super::cluster::Cluster;
use super::error::Error;
use super::show::{self, Table};
use super::view;
use crate::runtime::clock;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// How often the jobs of the last minute are counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// Prints the load of the pools: on a terminal again and again, elsewhere once.
pub async fn top(cluster: &Cluster, what: Top) -> Result<(), Error> {
    let pools = if what.all_namespaces { cluster.all_pools() } else { cluster.pools() };
    let is_live = io::stdout().is_terminal() && !what.once;
    let mut rates = Rates::default();
    loop {
        rates.renew(cluster, what.all_namespaces, clock::now()).await;
        let list = pools.list(&ListParams::default()).await.map_err(Error::call("listing CrewWorkerPools"))?;
        if list.items.is_empty() {
            show::say("there are no CrewWorkerPools");
        }
        let text = table(&list.items, &rates, what.all_namespaces, clock::now()).text(true);
        show::print(&if is_live { format!("{CLEAR}{text}") } else { text })?;
        if !is_live {
            return Ok(());
        }
        sleep(what.every).await;
    }
}

/// A line for each pool, and for each of its queues where there are several or any message waits.
fn table(pools: &[DynamicObject], rates: &Rates, all_namespaces: bool, now: Timestamp) -> Table {
    let first: &[&str] = if all_namespaces { &["NAMESPACE"] } else { &[] };
    let usual = [
        "POOL",
        "READY",
        "WORKERS",
        "BUSY",
        "MAX",
        "WAITING",
        "RUNNING",
        "STARTED/MIN",
        "ENDED/MIN",
        "OLDEST",
        "BANDS",
    ];
    let mut table = Table::new(first.iter().chain(&usual).copied().collect());
    for pool in pools {
        let number =
            |at: &str| Some(view::number(pool, at)).filter(|it| !it.is_empty()).unwrap_or_else(|| "0".to_owned());
        let replicas = |field: &str| number(&format!("/status/replicas/{field}"));
        let oldest = view::text(pool, "/status/oldestQueuedAt").parse::<Timestamp>().ok();
        let oldest = oldest.and_then(|at| Duration::try_from(now.duration_since(at)).ok());
        let rate = |of: fn(&Rate) -> usize| {
            let rate = rates.of(&pool.namespace().unwrap_or_default(), &pool.name_any());
            rate.map_or_else(|| "-".to_owned(), |rate| of(&rate).to_string())
        };
        let mut row = if all_namespaces { vec![pool.namespace().unwrap_or_default()] } else { Vec::new() };
        row.extend([
            pool.name_any(),
            ready(pool),
            format!("{}/{}", replicas("ready"), replicas("desired")),
            replicas("busy"),
            number("/spec/maxReplicas"),
            number("/status/depth"),
            number("/status/inFlight"),
            rate(|rate| rate.started),
            rate(|rate| rate.ended),
            oldest.map_or_else(|| "-".to_owned(), view::length),
            String::new(),
        ]);
        table.row(row);
        for queue in pool.data.pointer("/status/queues").and_then(Value::as_array).into_iter().flatten() {
            let count = |field: &str| queue[field].as_i64().unwrap_or_default().to_string();
            let mut row = if all_namespaces { vec![String::new()] } else { Vec::new() };
            let name = view::one_line(queue["name"].as_str().unwrap_or_default());
            row.push(format!("  {name}"));
            row.extend([const { String::new() }; 4]);
            row.extend([count("depth"), count("inFlight"), String::new(), String::new(), String::new(), bands(queue)]);
            table.row(row);
        }
    }
    table
}

/// What jobs of a pool did in the last minute.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Rate {
    started: usize,
    ended: usize,
}

/// The same of all pools, as their jobs say it; unknown to a caller that may not list them.
#[derive(Debug, Default)]
struct Rates {
    counted_at: Option<Timestamp>,
    by_pool: Option<HashMap<(String, String), Rate>>,
}

impl Rates {
    /// Counts anew, but not each time: the list of the jobs may be long.
    async fn renew(&mut self, cluster: &Cluster, all_namespaces: bool, now: Timestamp) {
        if self.counted_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < COUNT_EVERY) {
            return;
        }
        let jobs = if all_namespaces { cluster.all_jobs() } else { cluster.jobs() };
        let mut by_pool = HashMap::new();
        let counted = cluster.each(&jobs, &Filter::default(), |job| count(&mut by_pool, &job, now)).await;
        *self = Self { counted_at: Some(now), by_pool: counted.is_ok().then_some(by_pool) };
    }

    fn of(&self, namespace: &str, pool: &str) -> Option<Rate> {
        let by_pool = self.by_pool.as_ref()?;
        Some(by_pool.get(&(namespace.to_owned(), pool.to_owned())).copied().unwrap_or_default())
    }
}

/// Adds what a job did in the last minute.
fn count(by_pool: &mut HashMap<(String, String), Rate>, job: &DynamicObject, now: Timestamp) {
    let is_recent = |at: &str| {
        let at = view::text(job, at).parse::<Timestamp>();
        at.is_ok_and(|at| now.duration_since(at).as_secs() < 60)
    };
    let (started, ended) = (is_recent("/status/startedAt"), is_recent("/status/finishedAt"));
    if started || ended {
        let pool = (job.namespace().unwrap_or_default(), view::text(job, "/spec/poolRef/name").to_owned());
        let rate = by_pool.entry(pool).or_default();
        rate.started += usize::from(started);
        rate.ended += usize::from(ended);
    }
}

/// `yes`, or why not.
fn ready(pool: &DynamicObject) -> String {
    let conditions = pool.data.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    match ready {
        Some(condition) if condition["status"] == "True" => "yes".to_owned(),
        Some(condition) => view::one_line(condition["reason"].as_str().unwrap_or("no")),
        None => "unknown".to_owned(),
    }
}

/// How many messages wait in each band, the most urgent first: `0:2 3:15`.
fn bands(queue: &Value) -> String {
    let bands = queue["bands"].as_array().into_iter().flatten();
    let text: Vec<String> = bands
        .filter(|band| band["depth"].as_i64().unwrap_or_default() > 0)
        .map(|band| format!("{}:{}", band["step"], band["depth"]))
        .collect();
    text.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_is_a_line_and_each_of_its_queues_another() {
        let pool: DynamicObject = serde_json::from_value(json!({
            "metadata": { "name": "default", "namespace": "team" },
            "spec": { "maxReplicas": 8 },
            "status": {
                "depth": 17, "inFlight": 2, "oldestQueuedAt": "2026-03-01T10:00:00Z",
                "replicas": { "desired": 3, "ready": 2, "busy": 2 },
                "conditions": [{ "type": "Ready", "status": "True" }],
                "queues": [{
                    "name": "crew_jobs", "depth": 17, "inFlight": 2,
                    "bands": [{ "step": 0, "depth": 2 }, { "step": 3, "depth": 15 }, { "step": 6, "depth": 0 }],
                }],
            },
        }))
        .unwrap();
        let new: DynamicObject = serde_json::from_value(json!({ "metadata": { "name": "new" } })).unwrap();
        let mut by_pool = HashMap::new();
        let job = |status: Value| -> DynamicObject {
            let (metadata, spec) =
                (json!({ "name": "tea", "namespace": "team" }), json!({ "poolRef": { "name": "default" } }));
            serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap()
        };
        let now: Timestamp = "2026-03-01T10:05:00Z".parse().unwrap();
        for status in [
            json!({ "startedAt": "2026-03-01T10:04:10Z", "finishedAt": "2026-03-01T10:04:59Z" }),
            json!({ "startedAt": "2026-03-01T10:03:59Z", "finishedAt": "2026-03-01T10:04:01Z" }),
            json!({ "startedAt": "2026-03-01T09:00:00Z" }),
        ] {
            count(&mut by_pool, &job(status), now);
        }
        let rates = Rates { counted_at: None, by_pool: Some(by_pool) };
        let text = table(&[pool, new], &rates, false, now).text(true);
        let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells[1], ["default", "yes", "2/3", "2", "8", "17", "2", "1", "2", "5m"]);
        assert_eq!(cells[2], ["crew_jobs", "17", "2", "0:2", "3:15"]);
        assert_eq!(cells[3], ["new", "unknown", "0/0", "0", "0", "0", "0", "0", "0", "-"]);
    }
}
