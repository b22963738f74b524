//! `crewjob operator`: claim the Lease, lead while it holds, and start over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::context::{CALLS, Context};
use super::events;
use super::job::{permits, reconcile};
use super::lease::{Claim, Identity, Leadership, Turn};
use super::once;
use super::state::hours::Hours;
use super::state::jobs::Jobs;
use super::state::lookups::Lookups;
use super::state::namespaces::Namespaces;
use super::state::pools::{Pools, Settling};
use super::state::schedules::Schedules;
use super::state::servers::Servers;
use super::state::watches::Watches;
use super::state::workers::Workers;
use super::ttl::{self, Shelf};
use super::watch::{finished, jobs, lookups, namespaces, pools, schedules};
use crate::api;
use crate::archive::{self, Archive};
use crate::cluster::Clients;
use crate::runtime::admin::{self, Heartbeat, Liveness, Readiness, State};
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown;
use crate::runtime::telemetry::Repeated;
use crate::runtime::traces::{Settings, Traces};

/// How long a stopping operator may take to release its Lease.
const LEASE_RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it waits for the collector to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Why the operator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No configuration of a cluster.
    #[error("finding the cluster: no usable kubeconfig, and not inside a cluster")]
    Configuration(#[source] Box<kube::config::InferConfigError>),
    /// The client could not be made.
    #[error("connecting to the API server")]
    Client(#[source] Box<kube::Error>),
    /// The address of the admin server cannot be used.
    #[error("listening on {address} for /livez, /readyz and /metrics")]
    Admin {
        /// Which address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Finished jobs are to be archived, and the settings do not say where.
    #[error("opening the archive of finished jobs")]
    Archive(#[from] archive::Error),
    /// Signals cannot be received.
    #[error("listening to signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until a signal asks to stop.
pub async fn run(config: Config) -> Result<(), StartError> {
    let stop = shutdown::on_signal().map_err(StartError::Signals)?;
    let kube = kube::Config::infer().await.map_err(|source| StartError::Configuration(Box::new(source)))?;
    let watches = Watches::default();
    let clients = Clients::new(&kube, watches.on_accepted()).map_err(|source| StartError::Client(Box::new(source)))?;
    let archive = Archive::open(&config.archive, config.pod_name.as_deref().unwrap_or("operator"))?.map(Arc::new);
    let (metrics, registry) = Metrics::register();
    let (readiness, liveness) = (Readiness::default(), Liveness::default());
    readiness.missing("crds", "not looked at yet");
    readiness.missing("lease", "not looked at yet");
    let address = config.admin_address;
    admin::serve(address, readiness.clone(), liveness.clone(), registry, stop.clone())
        .await
        .map_err(|source| StartError::Admin { address, source })?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, "crewjob operator started");
    let has_been_ready = AtomicBool::new(false);
    let (traces, sending) = traces(&config, &metrics).unzip();
    let traces = traces.unwrap_or_default();
    let process = Process { clients, watches, config, archive, metrics, traces, readiness, liveness, has_been_ready };
    {
        let serving = process.serve(&stop);
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            () = stop.cancelled() => {
                if tokio::time::timeout(LEASE_RELEASE_TIMEOUT, serving).await.is_err() {
                    tracing::warn!("the Lease could not be released in time; the next leader waits until it expires");
                }
            }
        }
    }
    drop(process); // and with it the way to the collector's queue, whose end is the end of sending
    if let Some(sending) = sending {
        let _ = tokio::time::timeout(LAST_SPANS, sending).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Where spans go as the environment says, and the task that sends them. A setting that cannot be used is no reason to
/// leave jobs alone: they are not traced then.
fn traces(config: &Config, metrics: &Metrics) -> Option<(Traces, JoinHandle<()>)> {
    let own = [
        ("service.name", Some("crewjob-operator".to_owned())),
        ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("k8s.namespace.name", config.pod_namespace.clone()),
        ("k8s.pod.name", config.pod_name.clone()),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let started = Settings::read(|name| std::env::var(name).ok(), own).and_then(|settings| {
        let collector = settings.as_ref().and_then(|it| it.endpoint.authority()).map(ToString::to_string);
        let started = settings.map(|settings| Traces::start(settings, metrics)).transpose()?;
        if started.is_some() {
            tracing::info!(collector, "jobs are traced");
        }
        Ok(started)
    });
    started.unwrap_or_else(|problem| {
        tracing::error!(variable = problem.name, why = problem.why, "jobs are not traced: a setting cannot be used");
        None
    })
}

/// What outlives a leadership.
struct Process {
    clients: Clients,
    watches: Watches,
    config: Config,
    archive: Option<Arc<Archive>>,
    metrics: Metrics,
    traces: Traces,
    readiness: Readiness,
    liveness: Liveness,
    /// Whether it has stood by or led before: then a change of leadership is no reason not to be ready.
    has_been_ready: AtomicBool,
}

impl Process {
    /// Leads again and again.
    async fn serve(&self, stop: &CancellationToken) {
        let heartbeat = self.liveness.heartbeat("lease");
        self.wait_for_crds(&heartbeat).await;
        let cluster_uid = self.cluster_uid(&heartbeat).await;
        let (config, client) = (&self.config, &self.clients.api);
        let namespace = config.lease_namespace(client);
        let lease: Arc<str> = format!("{namespace}/{}", config.lease_name).into();
        let leases = Api::<Lease>::namespaced(self.clients.lease.clone(), &namespace);
        let claim = Claim::new(leases, &config.lease_name, Identity::new(config.pod_name.as_deref()));
        loop {
            let leadership = tokio::select! {
                leadership = claim.acquire(|turn| self.stands_by(&lease, turn, &heartbeat)) => leadership,
                () = stop.cancelled() => return,
            };
            tracing::info!(epoch = leadership.term().transitions, "leading");
            let (events, writer) = events::events(client, &self.metrics, config.pod_name.as_deref());
            let ctx = Arc::new(Context {
                client: client.clone(),
                metrics: self.metrics.clone(),
                traces: self.traces.clone(),
                events,
                claim: claim.clone(),
                leadership: leadership.clone(),
                cluster_uid: cluster_uid.clone(),
                lease: lease.clone(),
                audit_every: Duration::from_secs(config.audit_every),
                namespaces: Namespaces::new(config.pool_namespaces(&namespace), config.pool_namespace_selector()),
                jobs: Jobs::default(),
                hours: Hours::default(),
                lookups: Lookups::default(),
                watches: self.watches.clone(),
                pools: Pools::default(),
                schedules: Schedules::default(),
                workers: Workers::default(),
                servers: Servers::default(),
                calls: Semaphore::new(CALLS),
            });
            self.show(&ctx);
            self.leads(&leadership);
            self.lead(ctx, writer, &claim, &leadership, &heartbeat, stop).await;
            self.readiness.forget("watches");
            self.readiness.forget("pools");
            self.readiness.missing("lease", "leadership lost; standing by");
            self.metrics.leading.set(0);
            self.metrics.jobs_live.set(0);
            self.metrics.jobs_waiting.forget();
            self.metrics.archive_failing.set(0);
            if stop.is_cancelled() {
                return;
            }
            tracing::warn!("leadership lost; standing by");
        }
    }

    fn stands_by(&self, lease: &str, turn: Turn<'_>, heartbeat: &Heartbeat) {
        heartbeat.turned();
        match turn {
            Turn::HeldBy(holder) => {
                self.has_been_ready.store(true, Ordering::Relaxed);
                self.readiness.ready("lease", format!("standing by; {holder} leads"));
            }
            Turn::Renewed => {}
            Turn::Failed(error) => self.readiness.missing("lease", unreadable(lease, error)),
        }
    }

    fn leads(&self, leadership: &Leadership) {
        self.metrics.leading.set(1);
        self.readiness.ready("lease", format!("leading, epoch {}", leadership.term().transitions));
    }

    /// Shows watches and pools of this leadership in `/readyz`, and the jobs that wait in `/metrics`.
    fn show(&self, ctx: &Arc<Context>) {
        let watches = self.watches.clone();
        self.readiness.ask("watches", move || watches.state());
        let ctx = Arc::downgrade(ctx);
        let counted = ctx.clone();
        self.metrics.jobs_waiting.ask(move || counted.upgrade().map(|ctx| ctx.waiting()).unwrap_or_default());
        let settling = Settling::new(self.has_been_ready.swap(true, Ordering::Relaxed));
        let state = move || ctx.upgrade().map_or(State::Ready(String::new()), |ctx| ctx.pools.state(&settling));
        self.readiness.ask("pools", state);
    }

    /// Everything a leader does, until it does not lead any more.
    async fn lead(
        &self,
        ctx: Arc<Context>,
        events: events::Writer,
        claim: &Claim,
        leadership: &Leadership,
        heartbeat: &Heartbeat,
        stop: &CancellationToken,
    ) {
        let mut tasks = JoinSet::new();
        tasks.spawn(pools::watch_pools(ctx.clone()));
        tasks.spawn(namespaces::run(ctx.clone()));
        tasks.spawn(events.run());
        tasks.spawn(finished::run(ctx.clone()));
        tasks.spawn({
            let ctx = ctx.clone();
            async move {
                ctx.pools.listed.cancelled().await; // so that no job is told that its pool is missing before pools are known
                jobs::watch_jobs(ctx).await;
            }
        });
        tasks.spawn({
            let ctx = ctx.clone();
            async move { ctx.jobs.queue.run_timers().await }
        });
        tasks.spawn(permits::run(ctx.clone()));
        tasks.spawn(lookups::run(ctx.clone()));
        tasks.spawn(ttl::run(ctx.clone(), self.shelf()));
        tasks.spawn(once::run(ctx.clone()));
        tasks.spawn(schedules::watch_schedules(ctx.clone()));
        tasks.spawn(reconcile::run(ctx.clone(), self.liveness.heartbeat("reconcilers")));
        let lease = ctx.lease.clone();
        let keep = claim.keep(leadership, stop.clone(), |turn| {
            heartbeat.turned();
            match turn {
                Turn::Renewed => self.leads(leadership),
                // A renewal that is only late changes nothing.
                Turn::Failed(_) if leadership.holds() => {}
                Turn::Failed(error) => {
                    self.metrics.leading.set(0);
                    self.readiness.missing("lease", format!("leading pauses: {}", unreadable(&lease, error)));
                }
                Turn::HeldBy(_) => {}
            }
        });
        tokio::pin!(keep);
        tokio::select! {
            () = &mut keep => {}
            () = leadership.lost.cancelled() => {}
            Some(ended) = tasks.join_next() => tracing::error!(?ended, "a part of the operator ended; starting over"),
        }
        leadership.lost.cancel();
        tasks.shutdown().await;
    }

    /// The archive for a new leadership.
    fn shelf(&self) -> Option<Shelf> {
        self.archive.as_ref().map(|archive| Shelf::new(archive.clone(), self.config.archive.inputs))
    }

    /// Waits until jobs and pools are known to the API server. Schedules need not be: under a chart of before there is no
    /// right to read their definition, and jobs do not wait for that.
    async fn wait_for_crds(&self, heartbeat: &Heartbeat) {
        let api: Api<CustomResourceDefinition> = Api::all(self.clients.api.clone());
        let [jobs, pools, _schedules] = api::crds();
        let names = [jobs, pools].map(|definition| definition.name_any());
        let mut waits = Repeated::default();
        loop {
            heartbeat.turned();
            let mut missing = Vec::new();
            for name in &names {
                match api.get_opt(name).await {
                    Ok(Some(crd)) if api::is_established(&crd) => {}
                    Ok(Some(_)) => missing.push(format!("{name} is not Established yet")),
                    Ok(None) => missing.push(format!("{name} is not installed; apply it with: crewjob crds apply")),
                    Err(error) => missing.push(format!("{name} cannot be read: {error}")),
                }
            }
            if missing.is_empty() {
                return self.readiness.ready("crds", "Established");
            }
            let missing = missing.join("; ");
            if waits.is_to_be_said(Instant::now()) {
                tracing::warn!(missing, "waiting for the CustomResourceDefinitions");
            }
            self.readiness.missing("crds", missing);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// UID of `kube-system`: what tells two clusters on one Redis apart.
    async fn cluster_uid(&self, heartbeat: &Heartbeat) -> Arc<str> {
        let api: Api<Namespace> = Api::all(self.clients.api.clone());
        let mut failures = Repeated::default();
        loop {
            heartbeat.turned();
            match api.get("kube-system").await {
                Ok(namespace) => return namespace.uid().unwrap_or_default().into(),
                Err(error) => {
                    if failures.is_to_be_said(Instant::now()) {
                        tracing::warn!(%error, "reading namespace kube-system failed; trying again every second");
                    }
                    self.readiness.missing("lease", format!("namespace kube-system cannot be read: {error}"));
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn unreadable(lease: &str, error: &str) -> String {
    format!("Lease {lease} cannot be read or written: {error}")
}
