//! `cost`: what jobs consumed, as their status says.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::args::{By, Cost};
use super::cluster::Cluster;
use super::error::Error;
use super::show::{self, Table};
use super::view;
use crate::core::usage::{Consumed, Usd};

/// What the jobs of one group consumed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Group {
    jobs: u64,
    consumed: Consumed,
}

/// Sums up what jobs consumed, by what was asked for.
pub async fn cost(cluster: &Cluster, what: Cost) -> Result<(), Error> {
    let mut groups = BTreeMap::new();
    let mut silent = 0_u64;
    let add = |job: DynamicObject| {
        let parts = parts(&job, &what.by);
        silent += u64::from(parts.is_empty());
        for (key, consumed) in parts {
            let group: &mut Group = groups.entry(key).or_default();
            group.jobs += 1;
            group.consumed.add(&consumed);
        }
    };
    let api = if what.all_namespaces { cluster.all_jobs() } else { cluster.jobs() };
    cluster.each(&api, &what.filter, add).await?;
    if silent > 0 {
        show::say(&format!("{silent} of the jobs have not reported what they consumed"));
    }
    match what.output {
        Some(format) => show::value(&listed(&groups), format),
        None => show::print(&table(&groups, &what.by).text(!what.no_headers)),
    }
}

/// What one job consumed, by the key of its group; nothing where it has not reported anything.
fn parts(job: &DynamicObject, by: &By) -> Vec<(String, Consumed)> {
    let usage = job.data.pointer("/status/usage");
    let Some(usage) = usage else { return Vec::new() };
    let of_a_model = |it: &Value| (it["model"].as_str().unwrap_or_default().to_owned(), consumed(it));
    let key = match by {
        By::Model => return usage["models"].as_array().into_iter().flatten().map(of_a_model).collect(),
        By::Namespace => job.namespace().unwrap_or_default(),
        By::Pool => view::text(job, "/spec/poolRef/name").to_owned(),
        By::Day => {
            let at = view::text(job, "/status/finishedAt");
            at.get(..10).unwrap_or("not finished").to_owned()
        }
        By::Label(name) => job.labels().get(name).cloned().unwrap_or_default(),
    };
    vec![(key, consumed(usage))]
}

fn consumed(usage: &Value) -> Consumed {
    let count = |name: &str| usage[name].as_u64().unwrap_or(0);
    Consumed {
        input: count("inputTokens"),
        cached: count("cachedTokens"),
        output: count("outputTokens"),
        requests: count("requests"),
        cost: usage["costUSD"].as_str().and_then(|cost| cost.parse().ok()),
    }
}

/// A line for each group, and one for all of them where there are several.
fn table(groups: &BTreeMap<String, Group>, by: &By) -> Table {
    let mut table = Table::new(vec![heading(by), "JOBS", "REQUESTS", "INPUT", "CACHED", "OUTPUT", "USD"]);
    for (key, group) in groups {
        table.row(row(key, group));
    }
    if groups.len() > 1 && *by != By::Model {
        let mut all = Group::default();
        for group in groups.values() {
            all.jobs += group.jobs;
            all.consumed.add(&group.consumed);
        }
        table.row(row("(all)", &all));
    }
    table
}

fn row(key: &str, Group { jobs, consumed }: &Group) -> Vec<String> {
    let Consumed { input, cached, output, requests, cost } = consumed;
    let counts = [*jobs, *requests, *input, *cached, *output].map(|count| count.to_string());
    let key = if key.is_empty() { "-".to_owned() } else { view::one_line(key) };
    let cost = cost.as_ref().map_or_else(|| "-".to_owned(), Usd::to_string);
    [key].into_iter().chain(counts).chain([cost]).collect()
}

fn heading(by: &By) -> &'static str {
    match by {
        By::Model => "MODEL",
        By::Namespace => "NAMESPACE",
        By::Pool => "POOL",
        By::Day => "DAY",
        By::Label(_) => "LABEL",
    }
}

fn listed(groups: &BTreeMap<String, Group>) -> Value {
    let one = |(key, Group { jobs, consumed }): (&String, &Group)| {
        json!({
            "key": key, "jobs": jobs, "requests": consumed.requests, "inputTokens": consumed.input,
            "cachedTokens": consumed.cached, "outputTokens": consumed.output,
            "costUSD": consumed.cost.map(|cost| cost.to_string()),
        })
    };
    groups.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(status: &Value) -> DynamicObject {
        let metadata = json!({ "name": "report", "namespace": "team", "labels": { "customer": "acme" } });
        let object = json!({ "metadata": metadata, "spec": { "poolRef": { "name": "fast" } }, "status": status });
        serde_json::from_value(object).unwrap()
    }

    fn spent() -> Value {
        let of = |model: &str| json!({ "model": model, "inputTokens": 3, "outputTokens": 1, "requests": 1, "costUSD": "0.5" });
        let usage = json!({
            "inputTokens": 6, "outputTokens": 2, "requests": 2, "costUSD": "1", "models": [of("large"), of("small")]
        });
        json!({ "finishedAt": "2026-11-22T15:04:05Z", "usage": usage })
    }

    #[test]
    fn what_a_job_consumed_is_counted_under_what_was_asked_for() {
        let keys = |by: &By| parts(&job(&spent()), by).into_iter().map(|(key, it)| (key, it.input)).collect::<Vec<_>>();
        let one = |key: &str| vec![(key.to_owned(), 6)];
        assert_eq!(keys(&By::Namespace), one("team"));
        assert_eq!(keys(&By::Pool), one("fast"));
        assert_eq!(keys(&By::Day), one("2026-11-22"));
        assert_eq!(keys(&By::Label("customer".to_owned())), one("acme"));
        assert_eq!(keys(&By::Label("absent".to_owned())), one(""));
        assert_eq!(keys(&By::Model), [("large".to_owned(), 3), ("small".to_owned(), 3)]);
    }

    #[test]
    fn a_job_that_has_reported_nothing_or_nonsense_counts_nothing() {
        assert_eq!(parts(&job(&json!({})), &By::Pool), []);
        let odd = json!({ "usage": { "inputTokens": "many", "costUSD": 5, "models": 7 } });
        assert_eq!(parts(&job(&odd), &By::Pool), [("fast".to_owned(), Consumed::default())]);
        assert_eq!(parts(&job(&odd), &By::Model), []);
    }

    #[test]
    fn the_table_ends_with_the_sum_where_no_job_is_in_two_groups() {
        let group = |input, cost: &str| Group {
            jobs: 1,
            consumed: Consumed { input, cost: cost.parse().ok(), ..Consumed::default() },
        };
        let groups = BTreeMap::from([("a".to_owned(), group(1, "0.25")), (String::new(), group(2, ""))]);
        let text = table(&groups, &By::Pool).text(true);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["POOL", "JOBS", "REQUESTS", "INPUT", "CACHED", "OUTPUT", "USD"]);
        assert_eq!(lines[1], ["-", "1", "0", "2", "0", "0", "-"]);
        assert_eq!(lines[2], ["a", "1", "0", "1", "0", "0", "0.25"]);
        assert_eq!(lines[3], ["(all)", "2", "0", "3", "0", "0", "0.25"]);
        assert_eq!(table(&groups, &By::Model).text(false).lines().count(), 2);
    }
}
