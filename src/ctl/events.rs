//! `events`: what happened to a job, its pool, the pool's Deployment and its Pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{DynamicObject, ListParams};

use super::args::Named;
use super::cluster::Cluster;
use super::error::Error;
use super::show::{self, Table};
use super::view;
use crate::runtime::clock;

/// Lists the Events of all of them, oldest first.
pub async fn events(cluster: &Cluster, what: Named) -> Result<(), Error> {
    let name = &what.name;
    let job = cluster.job(name).await?;
    let pool = view::text(&job, "/spec/poolRef/name");
    let pods = view::text(&job, "/status/worker/podName");
    let deployment = deployment(cluster, pool).await.unwrap_or_default();
    let mut found: Vec<Event> = Vec::new();
    for (kind, name) in
        [("CrewJob", name.as_str()), ("CrewWorkerPool", pool), ("Deployment", &deployment), ("Pod", pods)]
    {
        if !name.is_empty() {
            let params =
                ListParams::default().fields(&format!("involvedObject.kind={kind},involvedObject.name={name}"));
            let events = cluster.others::<Event>().list(&params).await;
            found.extend(events.map_err(Error::call(format!("listing the Events of the {kind} {name}")))?.items);
        }
    }
    if found.is_empty() {
        show::say(&format!(
            "there are no Events of {name}; the cluster keeps them for an hour, unless it is set otherwise"
        ));
        return Ok(());
    }
    found.sort_by_key(at);
    let mut table = Table::new(vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    for event in &found {
        table.row(row(event, clock::now()));
    }
    show::print(&table.text(true))
}

/// The Deployment that a pool names. Events of it are left out where the pool cannot be read.
async fn deployment(cluster: &Cluster, pool: &str) -> Option<String> {
    let pools: Api<DynamicObject> = cluster.pools();
    let pool = pools.get_opt(pool).await.ok()??;
    Some(view::text(&pool, "/spec/deploymentRef/name").to_owned())
}

fn at(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let once = event.event_time.as_ref().map(|time| time.0);
    series.or(last).or(once).or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn row(event: &Event, now: Timestamp) -> Vec<String> {
    let age = at(event).and_then(|at| std::time::Duration::try_from(now.duration_since(at)).ok());
    let of = |text: &Option<String>| view::one_line(text.as_deref().unwrap_or_default());
    let object = &event.involved_object;
    vec![
        age.map(view::length).unwrap_or_default(),
        of(&event.type_),
        of(&event.reason),
        format!("{}/{}", of(&object.kind).to_lowercase(), of(&object.name)),
        of(&event.message),
    ]
}
