//! `report`: what is to be known of an installation for a bug report, in one file.

mod redact;

use std::fs::File;
use std::io::Write as _;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DynamicObject, ListParams, LogParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::args::{Filter, Report as What};
use super::cluster::Cluster;
use super::error::Error;
use super::{doctor, show, version};
use crate::runtime::clock;
use crate::runtime::telemetry::chain;
use redact::redact;

/// Jobs of the namespace that are written: the last ones.
const JOBS: usize = 1000;
/// Lines of a log.
const LINES: i64 = 5000;
/// Where the operator's metrics are, behind its Pod.
const METRICS: &str = "8080/proxy/metrics";

/// Writes the file, and says what is in it and what could not be read.
pub async fn report(cluster: &Cluster, what: What) -> Result<(), Error> {
    let name = what.file.clone().unwrap_or_else(|| {
        format!("crewjob-{}-{}.zip", cluster.namespace, clock::now().strftime("%Y%m%d-%H%M%S")).into()
    });
    let path = name.display().to_string();
    let file = File::create_new(&name).map_err(|source| Error::Write { path: path.clone(), source })?;
    let mut report = Report { zip: ZipWriter::new(file), unread: Vec::new(), entries: 0, open: what.with_inputs };
    report.write(cluster).await.map_err(|error| Error::Write { path: path.clone(), source: error.into() })?;
    let (entries, unread) = (report.entries, report.unread.clone());
    report.zip.finish().map_err(|error| Error::Write { path: path.clone(), source: error.into() })?;
    show::print(&format!("{path}\n"))?;
    show::say(&format!("{entries} files; look through them before you send them"));
    for unread in unread {
        show::say(&format!("could not read {unread}"));
    }
    Ok(())
}

struct Report {
    zip: ZipWriter<File>,
    unread: Vec<String>,
    entries: usize,
    /// Whether inputs and results are left as they are.
    open: bool,
}

impl Report {
    async fn write(&mut self, cluster: &Cluster) -> zip::result::ZipResult<()> {
        let found = version::look(cluster).await;
        self.add_json("versions.json", &found.value())?;
        let examined = doctor::examine(cluster).await;
        self.add_json("doctor.json", &examined)?;
        for deployment in &found.deployments {
            self.operator(cluster, deployment).await?;
        }
        let mut jobs = Vec::new();
        let add = |job| {
            jobs.push(job);
            if jobs.len() >= 2 * JOBS {
                keep_last(&mut jobs);
            }
        };
        match cluster.each(&cluster.jobs(), &Filter::default(), add).await {
            Ok(()) => {
                keep_last(&mut jobs);
                self.objects("crewjobs", Ok(jobs))?;
            }
            Err(error) => self.unread.push(format!("crewjobs: {}", chain(&error))),
        }
        let pools = cluster.pools().list(&ListParams::default()).await;
        self.objects("crewworkerpools", pools.map(|list| list.items))?;
        let schedules = cluster.schedules().list(&ListParams::default()).await;
        self.objects("crewschedules", schedules.map(|list| list.items))?;
        self.kind::<Deployment>(cluster, "deployments").await?;
        self.kind::<ReplicaSet>(cluster, "replicasets").await?;
        self.kind::<Pod>(cluster, "pods").await?;
        self.kind::<Event>(cluster, "events").await?;
        let unread = self.unread.join("\n");
        self.add("unread.txt", unread.as_bytes())
    }

    /// The logs of an operator, and its metrics.
    async fn operator(&mut self, cluster: &Cluster, deployment: &Deployment) -> zip::result::ZipResult<()> {
        let namespace = deployment.namespace().unwrap_or_default();
        let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let pods: Api<Pod> = cluster.in_namespace(&namespace);
        let listed = pods.list(&ListParams::default().labels(&labels.join(","))).await;
        let Some(listed) = self.read(&format!("the operator's Pods in {namespace}"), listed) else { return Ok(()) };
        for pod in listed {
            let name = pod.name_any();
            for (kind, previous) in [("log", false), ("previous.log", true)] {
                let params = LogParams { tail_lines: Some(LINES), previous, timestamps: true, ..LogParams::default() };
                match pods.logs(&name, &params).await {
                    Ok(log) => self.add(&format!("operator/{name}.{kind}"), log.as_bytes())?,
                    // A container that has never ended has no earlier log.
                    Err(_) if previous => {}
                    Err(error) => self.unread.push(format!("the log of the Pod {name}: {error}")),
                }
            }
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{METRICS}");
            let metrics = cluster.raw(&path).await;
            if let Some(metrics) = self.read(&format!("the metrics of the Pod {name}"), metrics) {
                self.add(&format!("operator/{name}.metrics"), metrics.as_bytes())?;
            }
        }
        Ok(())
    }

    async fn kind<K>(&mut self, cluster: &Cluster, name: &str) -> zip::result::ZipResult<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let listed = cluster.others::<K>().list(&ListParams::default()).await;
        self.objects(name, listed.map(|list| list.items))
    }

    fn objects<K: Serialize>(&mut self, name: &str, read: Result<Vec<K>, kube::Error>) -> zip::result::ZipResult<()> {
        let Some(objects) = self.read(name, read) else { return Ok(()) };
        let mut value = json!(objects);
        redact(&mut value, self.open);
        self.add_json(&format!("{name}.json"), &value)
    }

    fn read<T>(&mut self, what: &str, read: Result<T, kube::Error>) -> Option<T> {
        read.map_err(|error| self.unread.push(format!("{what}: {error}"))).ok()
    }

    fn add_json(&mut self, name: &str, value: &Value) -> zip::result::ZipResult<()> {
        self.add(name, format!("{value:#}\n").as_bytes())
    }

    fn add(&mut self, name: &str, content: &[u8]) -> zip::result::ZipResult<()> {
        self.zip.start_file(name, SimpleFileOptions::default())?;
        self.zip.write_all(content)?;
        self.entries += 1;
        Ok(())
    }
}

/// Keeps the jobs that were created last.
fn keep_last(jobs: &mut Vec<DynamicObject>) {
    jobs.sort_by_key(|job| std::cmp::Reverse(job.metadata.creation_timestamp.as_ref().map(|time| time.0)));
    jobs.truncate(JOBS);
}
