//! `schedule`: what people do with schedules.

use jiff::tz::TimeZoneDatabase;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::args::schedule::{Backfill, List, Next, Schedule};
use super::cluster::Cluster;
use super::error::Error;
use super::show::{self, Table};
use super::view;
use crate::api::{CrewSchedule, RUN_NOW};
use crate::core::schedule::{Birth, name_of, name_of_run};
use crate::runtime::clock;

/// Jobs that are created by one call of `backfill`.
const MOST: usize = 1000;

/// Does what was typed.
pub async fn schedule(cluster: &Cluster, what: Schedule) -> Result<(), Error> {
    match what {
        Schedule::List(what) => list(cluster, &what).await,
        Schedule::Run(what) => run(cluster, &what.name).await,
        Schedule::Suspend(what) => suspend(cluster, &what.name, true).await,
        Schedule::Resume(what) => suspend(cluster, &what.name, false).await,
        Schedule::Next(what) => next(cluster, &what).await,
        Schedule::Backfill(what) => backfill(cluster, what).await,
    }
}

async fn list(cluster: &Cluster, what: &List) -> Result<(), Error> {
    let api = if what.all_namespaces { cluster.all_schedules() } else { cluster.schedules() };
    let found = api.list(&ListParams::default()).await.map_err(Error::call("listing CrewSchedules"))?;
    if found.items.is_empty() {
        show::say("there is no schedule");
        return Ok(());
    }
    let mut headings = vec!["NAME", "SCHEDULES", "ZONE", "READY", "REASON", "ACTIVE", "LAST", "NEXT", "AGE"];
    if what.all_namespaces {
        headings.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(headings);
    let now = clock::now();
    for schedule in &found.items {
        let mut row = row(schedule, now);
        if what.all_namespaces {
            row.insert(0, schedule.namespace().unwrap_or_default());
        }
        table.row(row);
    }
    show::print(&table.text(true))
}

fn row(schedule: &DynamicObject, now: Timestamp) -> Vec<String> {
    let (spec, status) = (&schedule.data["spec"], &schedule.data["status"]);
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let lines = spec["schedules"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let ready = status["conditions"].as_array().into_iter().flatten().find(|it| it["type"] == "Ready");
    let ago = |at: &Value| {
        let at = at.as_str().and_then(|at| at.parse::<Timestamp>().ok());
        at.map_or("-".to_owned(), |at| view::length(clock::since(at, now)))
    };
    vec![
        schedule.name_any(),
        lines.collect::<Vec<_>>().join("; "),
        text(&spec["timeZone"]),
        ready.map_or("-".to_owned(), |it| text(&it["status"])),
        ready.map_or("-".to_owned(), |it| text(&it["reason"])),
        status["activeCount"].as_i64().unwrap_or(0).to_string(),
        ago(&status["lastScheduleTime"]),
        text(&status["nextScheduleTimes"][0]),
        schedule.creation_timestamp().map_or("-".to_owned(), |at| view::length(clock::since(at.0, now))),
    ]
}

/// Asks for a job, by a value of the annotation that no other call has.
async fn run(cluster: &Cluster, name: &str) -> Result<(), Error> {
    let value = clock::random_id().to_string();
    let patch = json!({ "metadata": { "annotations": { RUN_NOW: value } } });
    let schedule = change(cluster, name, patch).await?;
    let uid = schedule.uid().and_then(|uid| uid.parse().ok()).unwrap_or_default();
    show::print(&format!("crewjob.crewjob.dev/{} is to be made\n", name_of_run(name, uid, &value)))
}

async fn suspend(cluster: &Cluster, name: &str, suspend: bool) -> Result<(), Error> {
    change(cluster, name, json!({ "spec": { "suspend": suspend } })).await?;
    show::print(&format!("crewschedule.crewjob.dev/{name} {}\n", if suspend { "suspended" } else { "resumed" }))
}

async fn change(cluster: &Cluster, name: &str, patch: Value) -> Result<DynamicObject, Error> {
    match cluster.schedules().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(schedule) => Ok(schedule),
        Err(kube::Error::Api(refused)) if refused.code == 404 => Err(missing(cluster, name)),
        Err(source) => Err(Error::call(format!("changing the CrewSchedule {name}"))(source)),
    }
}

fn missing(cluster: &Cluster, name: &str) -> Error {
    let namespace = &cluster.namespace;
    Error::NotPossible(format!(
        "there is no CrewSchedule {name} in the namespace {namespace}; see: kubectl crewjob schedule list -n {namespace}"
    ))
}

async fn read(cluster: &Cluster, name: &str) -> Result<CrewSchedule, Error> {
    let api: Api<CrewSchedule> = cluster.others();
    let found = api.get_opt(name).await.map_err(Error::call(format!("reading the CrewSchedule {name}")))?;
    found.ok_or_else(|| missing(cluster, name))
}

async fn next(cluster: &Cluster, what: &Next) -> Result<(), Error> {
    let schedule = read(cluster, &what.name).await?;
    let calendar = schedule.spec.calendar().map_err(|error| Error::NotPossible(error.to_string()))?;
    let zone = TimeZoneDatabase::bundled().get(&schedule.spec.time_zone).unwrap_or(jiff::tz::TimeZone::UTC);
    let now = clock::now();
    let from = schedule.spec.start.as_ref().map_or(now, |start| start.0.max(now));
    let times = calendar.after(from).take_while(|at| schedule.spec.end.as_ref().is_none_or(|end| *at <= end.0));
    let mut table = Table::new(vec!["TIME", "UTC", "IN"]);
    for at in times.take(what.count.into()) {
        let local = at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string();
        table.row(vec![local, format!("{at:.0}"), view::length(clock::until(at, now))]);
    }
    if table.is_empty() {
        show::say("the schedule has no further time");
        return Ok(());
    }
    if schedule.spec.suspend {
        show::say("the schedule is suspended: no job is made at these times");
    }
    show::print(&table.text(true))
}

async fn backfill(cluster: &Cluster, what: Backfill) -> Result<(), Error> {
    let schedule = read(cluster, &what.name).await?;
    let now = clock::now();
    let to = what.to.unwrap_or(now);
    if to > now {
        return Err(Error::Usage("--to lies in the future: the schedule itself makes those jobs".to_owned()));
    }
    let births = births(&schedule, what.from, to).map_err(Error::NotPossible)?;
    if births.is_empty() {
        show::say("no time of the schedule lies between --from and --to");
        return Ok(());
    }
    if what.only_print {
        let names: Vec<&str> = births.iter().map(|birth| birth.name.as_str()).collect();
        return show::print(&format!("{}\n", names.join("\n")));
    }
    if !show::confirmed("create", births.len(), what.yes)? {
        return Ok(());
    }
    for birth in births {
        let job = serde_json::from_value(schedule.job(&birth))
            .map_err(|error| Error::NotPossible(format!("the template of the schedule cannot be used: {error}")))?;
        match cluster.jobs().create(&PostParams::default(), &job).await {
            Ok(made) => show::print(&format!("{} created\n", view::name(&made)))?,
            Err(kube::Error::Api(refused)) if refused.code == 409 => {
                show::say(&format!("{} exists already", birth.name));
            }
            Err(source) => return Err(Error::call(format!("creating the CrewJob {}", birth.name))(source)),
        }
    }
    Ok(())
}

/// The jobs for the times from `from` to `to`, both included.
fn births(schedule: &CrewSchedule, from: Timestamp, to: Timestamp) -> Result<Vec<Birth>, String> {
    let calendar = schedule.spec.calendar().map_err(|error| error.to_string())?;
    let before = from.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(from);
    let times: Vec<Timestamp> = calendar.after(before).take_while(|at| *at <= to).take(MOST + 1).collect();
    if times.len() > MOST {
        return Err(format!("more than {MOST} times lie between --from and --to: take a shorter part of it"));
    }
    let name = schedule.name_any();
    Ok(times.into_iter().map(|at| Birth { name: name_of(&name, at), planned: Some(at) }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hourly() -> CrewSchedule {
        serde_json::from_value(json!({
            "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewSchedule",
            "metadata": { "name": "hourly", "namespace": "team", "uid": "6e1b7c64-0f3b-4b8e-9a44-2f7b4f0a2c11" },
            "spec": { "schedules": ["0 * * * *"], "template": {
                "metadata": { "labels": { "team": "a" } }, "spec": { "topic": "bees" },
            } },
        }))
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_jobs_of_the_past_have_the_names_that_the_schedule_gives_and_belong_to_it() {
        let births = births(&hourly(), at("2026-11-26T10:00:00Z"), at("2026-11-26T12:00:00Z")).unwrap();
        let names: Vec<&str> = births.iter().map(|birth| birth.name.as_str()).collect();
        assert_eq!(names, ["hourly-20261126-1000", "hourly-20261126-1100", "hourly-20261126-1200"]);
        let job = hourly().job(&births[0]);
        assert_eq!(job["metadata"]["labels"], json!({ "team": "a", "crewjob.dev/schedule": "hourly" }));
        assert_eq!(job["metadata"]["annotations"], json!({ "crewjob.dev/planned-at": "2026-11-26T10:00:00Z" }));
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "6e1b7c64-0f3b-4b8e-9a44-2f7b4f0a2c11");
        assert_eq!(job["spec"]["topic"], "bees");
    }

    #[test]
    fn more_than_a_thousand_at_once_are_refused() {
        let error = births(&hourly(), at("2025-11-26T10:00:00Z"), at("2026-11-26T12:00:00Z")).unwrap_err();
        assert!(error.contains("more than 1000"), "{error}");
    }
}
