//! `doctor`: what is wrong with an installation, and how to mend it.

mod checks;
mod rights;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};

use super::args::{Doctor, Filter};
use super::cluster::Cluster;
use super::error::Error;
use super::show::{self, Table};
use super::version::{self, Found};
use super::{broker, run, view, wait};
use crate::runtime::clock;
use crate::runtime::telemetry::chain;
use checks::{Finding, Waiting, named};
use rights::Account;

/// The Lease of an operator whose Deployment does not name another one.
const LEASE: &str = "crewjob-operator";
/// Questions about rights that are asked at once.
const AT_ONCE: usize = 8;
/// The task that an enqueue is tried with; each worker of the reference application and each native one has it.
const TASK: &str = "backend.tasks.health_check";

/// Looks at everything that the caller may read. The exit status is 1 where anything is wrong.
pub async fn doctor(cluster: &Cluster, what: Doctor) -> Result<u8, Error> {
    let mut report = Report::default();
    let pools = report.examine(cluster, what.all_namespaces).await;
    if what.redis {
        for pool in &pools {
            report.redis(cluster, pool).await;
        }
    }
    if what.enqueue {
        for pool in pools.iter().filter(|pool| checks::is_ready(pool)) {
            report.enqueue(cluster, pool, &what).await;
        }
    }
    report.print(&what)?;
    Ok(u8::from(!report.findings.is_empty()))
}

/// What is wrong with the namespace and its operator.
pub async fn examine(cluster: &Cluster) -> Value {
    let mut report = Report::default();
    report.examine(cluster, false).await;
    report.value()
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    /// What could not be read.
    unread: Vec<String>,
    /// What was looked at.
    looked_at: Vec<String>,
}

impl Report {
    /// Looks at everything; returns the pools.
    async fn examine(&mut self, cluster: &Cluster, everywhere: bool) -> Vec<DynamicObject> {
        let operators = self.installation(cluster).await;
        let pools = self.pools(cluster, everywhere).await;
        for operator in &operators {
            self.rights(cluster, operator, &pools).await;
        }
        self.jobs(cluster, everywhere).await;
        pools
    }

    fn value(&self) -> Value {
        json!({ "findings": self.findings, "unread": self.unread, "lookedAt": self.looked_at })
    }

    /// What was read, or nothing and a note that it could not be.
    fn read<T>(&mut self, what: &str, read: Result<T, kube::Error>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(error) => {
                self.unread.push(format!("{what}: {error}"));
                None
            }
        }
    }

    /// The operators and the resource definitions; returns the operators.
    async fn installation(&mut self, cluster: &Cluster) -> Vec<Deployment> {
        let Found { deployments, findings, unread, .. } = version::look(cluster).await;
        self.findings.extend(findings.into_iter().map(|what| Finding::new("versions", "VersionsDiffer", what)));
        let is_known = unread.is_empty();
        self.unread.extend(unread);
        if deployments.is_empty() && is_known {
            let what = "no operator of the chart is installed: helm install crewjob charts/crewjob-operator";
            self.findings.push(Finding::new("deployments", "NoOperator", what));
        }
        for deployment in &deployments {
            let namespace = deployment.namespace().unwrap_or_default();
            let leases: Api<Lease> = cluster.in_namespace(&namespace);
            let name = lease_of(deployment);
            if let Some(lease) = self.read(&format!("the Lease {namespace}/{name}"), leases.get_opt(&name).await) {
                self.findings.extend(checks::operator(deployment, lease.as_ref(), clock::now()));
            }
            self.looked_at.push(named("deployment", deployment));
        }
        deployments
    }

    /// What an operator may do. A caller that may not ask that finds it out by what goes wrong.
    async fn rights(&mut self, cluster: &Cluster, operator: &Deployment, pools: &[DynamicObject]) {
        let (account, reviews) = (Account::of(operator), cluster.everywhere::<SubjectAccessReview>());
        let needed = rights::needed(operator, &lease_of(operator), pools);
        let asked = needed.into_iter().map(|right| {
            let (reviews, question) = (&reviews, account.review(&right));
            async move { reviews.create(&PostParams::default(), &question).await.map(|answer| (right, answer)) }
        });
        let answers: Result<Vec<_>, _> = stream::iter(asked).buffered(AT_ONCE).try_collect().await;
        if let Some(answers) = self.read(&format!("the rights of {}", named("deployment", operator)), answers) {
            let is_denied = |answer: &SubjectAccessReview| answer.status.as_ref().is_some_and(|status| !status.allowed);
            let denied: Vec<_> =
                answers.into_iter().filter(|(_, answer)| is_denied(answer)).map(|(right, _)| right).collect();
            self.findings.extend(rights::findings(operator, &account, &denied));
        }
    }

    /// The pools, and the Deployments of their workers.
    async fn pools(&mut self, cluster: &Cluster, everywhere: bool) -> Vec<DynamicObject> {
        let api = if everywhere { cluster.all_pools() } else { cluster.pools() };
        let pools = self.read("CrewWorkerPools", api.list(&ListParams::default()).await);
        let pools = pools.map(|list| list.items).unwrap_or_default();
        for pool in &pools {
            self.looked_at.push(named("crewworkerpool", pool));
            self.findings.extend(checks::pool(pool, clock::now()));
            let deployment = view::text(pool, "/spec/deploymentRef/name");
            if !deployment.is_empty() {
                let namespace = pool.namespace().unwrap_or_default();
                let deployments: Api<Deployment> = cluster.in_namespace(&namespace);
                let read = deployments.get_opt(deployment).await;
                if let Some(Some(found)) = self.read(&format!("the Deployment {namespace}/{deployment}"), read) {
                    let is_said = |it: &Finding| self.findings.iter().any(|said| said.reason == it.reason);
                    // Of workers that run the operator has said so.
                    let found: Vec<_> = checks::workers(&found).into_iter().filter(|it| !is_said(it)).collect();
                    self.findings.extend(found);
                }
            }
        }
        pools
    }

    async fn jobs(&mut self, cluster: &Cluster, everywhere: bool) {
        let jobs = if everywhere { cluster.all_jobs() } else { cluster.jobs() };
        let (mut waiting, now) = (Waiting::default(), clock::now());
        let listed = cluster.each(&jobs, &Filter::default(), |job| waiting.add(&job, now)).await;
        if let Err(error) = listed {
            self.unread.push(format!("CrewJobs: {}", chain(&error)));
        }
        self.findings.extend(waiting.findings());
    }

    /// Looks at the server of a pool.
    async fn redis(&mut self, cluster: &Cluster, pool: &DynamicObject) {
        let object = named("crewworkerpool", pool);
        let cluster = cluster.of(&pool.namespace().unwrap_or_default());
        let store = match broker::of_pool(&cluster, pool).await {
            Ok(store) => store,
            Err(error) => return self.unread.push(format!("the Redis of {object}: {}", chain(&error))),
        };
        match store.vitals().await {
            Ok(vitals) => {
                self.looked_at.push(format!("redis/{}", store.address()));
                self.findings.extend(checks::server(&object, &vitals, store.quarantine_stream()));
            }
            Err(error) => self.unread.push(format!("the Redis of {object}: {}", chain(&error))),
        }
    }

    /// Lets a job run in a pool and come back.
    async fn enqueue(&mut self, cluster: &Cluster, pool: &DynamicObject, what: &Doctor) {
        let object = named("crewworkerpool", pool);
        let allowed = pool.data.pointer("/spec/allowedTasks").and_then(Value::as_array);
        if allowed.is_some_and(|tasks| !tasks.iter().any(|task| task == TASK)) {
            return self
                .unread
                .push(format!("whether a job comes back in {object}: it does not allow the task {TASK}"));
        }
        let cluster = cluster.of(&pool.namespace().unwrap_or_default());
        let job = json!({
            "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob",
            "metadata": { "generateName": "doctor-" },
            "spec": {
                "topic": "crewjob doctor", "task": TASK, "args": [], "kwargs": {}, "priority": 10,
                "poolRef": { "name": pool.name_any() }, "ttlAfterFinished": "1h", "retryPolicy": { "maxRetries": 0 },
            },
        });
        let tried = async {
            let name = run::create(&cluster, job, false).await?.name_any();
            let end = wait::until_end(&cluster, &name, wait::deadline(Some(what.timeout)), false).await;
            let line = cluster.job(&name).await.map(|job| view::line(&job)).unwrap_or_default();
            let _ = cluster.jobs().delete(&name, &DeleteParams::default()).await;
            Ok::<_, Error>((name, end?, line))
        };
        match tried.await {
            Ok((_, view::End::Succeeded, _)) => {}
            Ok((name, _, line)) => {
                let what = format!("the job {name} with the task {TASK} did not come back: it was {line}");
                self.findings.push(Finding::new(object, "CheckFailed", what));
            }
            Err(error) => self.unread.push(format!("{object}: {}", chain(&error))),
        }
    }

    fn print(&self, what: &Doctor) -> Result<(), Error> {
        if let Some(format) = what.output {
            return show::value(&self.value(), format);
        }
        if self.findings.is_empty() {
            show::print(&format!("nothing is wrong with the {} objects looked at\n", self.looked_at.len()))?;
        } else {
            let mut table = Table::new(vec!["OBJECT", "FINDING", "WHAT IS WRONG, AND WHAT TO DO"]);
            for finding in &self.findings {
                let cells = [&finding.object, &finding.reason, &finding.what];
                table.row(cells.map(|cell| view::one_line(cell)).into());
            }
            show::print(&table.text(true))?;
        }
        for unread in &self.unread {
            show::say(&format!("could not look at {}", view::one_line(unread)));
        }
        Ok(())
    }
}

/// The Lease that the Deployment of an operator names.
fn lease_of(deployment: &Deployment) -> String {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let variables =
        pod.into_iter().flat_map(|pod| &pod.containers).flat_map(|container| container.env.iter().flatten());
    let named = variables.filter(|variable| variable.name == "CREWJOB_LEASE_NAME").find_map(|it| it.value.clone());
    named.unwrap_or_else(|| LEASE.to_owned())
}
