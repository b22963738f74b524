//! `crewjob operator`: claim the Lease, lead while it holds, and start over.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::context::{CALLS, Context};
use super::lease::{Claim, Identity, Leadership};
use super::{
    jobs::Jobs, namespaces, namespaces::Namespaces, pools, pools::Pools, reconcile, ttl, watch, workers::Workers,
};
use crate::api;
use crate::runtime::admin::{self, Readiness};
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown;

/// How long a stopping operator may take to let go of its Lease.
const FAREWELL: Duration = Duration::from_secs(3);

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
    /// Signals cannot be received.
    #[error("listening to signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until a signal asks to stop.
pub async fn run(config: Config) -> Result<(), StartError> {
    let stop = shutdown::on_signal().map_err(StartError::Signals)?;
    let kube = kube::Config::infer().await.map_err(|source| StartError::Configuration(Box::new(source)))?;
    let client = Client::try_from(kube).map_err(|source| StartError::Client(Box::new(source)))?;
    let (metrics, registry) = Metrics::register();
    let readiness = Readiness::default();
    readiness.missing("crds", "not looked at yet");
    readiness.missing("lease", "not looked at yet");
    let address = config.admin_address;
    admin::serve(address, readiness.clone(), registry, stop.clone())
        .await
        .map_err(|source| StartError::Admin { address, source })?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, "crewjob operator started");
    let serving = serve(&client, &config, &metrics, &readiness, &stop);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = stop.cancelled() => {
            if tokio::time::timeout(FAREWELL, serving).await.is_err() {
                tracing::warn!("the Lease could not be released in time; the next leader waits until it expires");
            }
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Leads again and again.
async fn serve(client: &Client, config: &Config, metrics: &Metrics, readiness: &Readiness, stop: &CancellationToken) {
    wait_for_crds(client, readiness).await;
    let cluster_uid = cluster_uid(client, readiness).await;
    let namespace = config.lease_namespace(client);
    let claim = Claim::new(
        Api::<Lease>::namespaced(client.clone(), &namespace),
        &config.lease_name,
        Identity::new(config.pod_name.as_deref()),
    );
    loop {
        let standing_by = |holder: &str| readiness.ready("lease", format!("standing by; {holder} leads"));
        let leadership = tokio::select! {
            leadership = claim.acquire(standing_by) => leadership,
            () = stop.cancelled() => return,
        };
        readiness.ready("lease", format!("leading, epoch {}", leadership.term().transitions));
        metrics.leading.set(1);
        tracing::info!(epoch = leadership.term().transitions, "leading");
        let ctx = Arc::new(Context {
            client: client.clone(),
            metrics: metrics.clone(),
            recorder: Recorder::new(client.clone(), reporter(config)),
            claim: claim.clone(),
            leadership: leadership.clone(),
            cluster_uid: cluster_uid.clone(),
            lease: format!("{namespace}/{}", config.lease_name).into(),
            audit_every: Duration::from_secs(config.audit_every),
            namespaces: Namespaces::new(config.pool_namespaces(&namespace), config.pool_namespace_selector()),
            jobs: Jobs::default(),
            pools: Pools::default(),
            workers: Workers::default(),
            calls: Semaphore::new(CALLS),
        });
        lead(ctx, &claim, &leadership, stop).await;
        metrics.leading.set(0);
        if stop.is_cancelled() {
            return;
        }
        tracing::warn!("leadership lost; standing by");
    }
}

/// Everything a leader does, until it does not lead any more.
async fn lead(ctx: Arc<Context>, claim: &Claim, leadership: &Leadership, stop: &CancellationToken) {
    let mut tasks = JoinSet::new();
    let pools_listed = CancellationToken::new();
    tasks.spawn(pools::watch_pools(ctx.clone(), pools_listed.clone()));
    tasks.spawn(namespaces::run(ctx.clone()));
    tasks.spawn({
        let ctx = ctx.clone();
        async move {
            pools_listed.cancelled().await; // so that no job is told that its pool is missing before pools are known
            watch::watch_jobs(ctx).await;
        }
    });
    tasks.spawn({
        let ctx = ctx.clone();
        async move { ctx.jobs.queue.run_timers().await }
    });
    tasks.spawn(ttl::run(ctx.clone()));
    tasks.spawn(reconcile::run(ctx.clone()));
    let keep = claim.keep(leadership, stop.clone());
    tokio::pin!(keep);
    tokio::select! {
        () = &mut keep => {}
        () = leadership.lost.cancelled() => {}
        Some(ended) = tasks.join_next() => tracing::error!(?ended, "a part of the operator ended; starting over"),
    }
    leadership.lost.cancel();
    tasks.shutdown().await;
}

fn reporter(config: &Config) -> Reporter {
    Reporter { controller: "crewjob.dev/operator".to_owned(), instance: config.pod_name.clone() }
}

/// Waits until both kinds are known to the API server.
async fn wait_for_crds(client: &Client, readiness: &Readiness) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let names: Vec<String> = api::crds().iter().map(ResourceExt::name_any).collect();
    loop {
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
            return readiness.ready("crds", "Established");
        }
        let missing = missing.join("; ");
        tracing::warn!(missing, "waiting for the CustomResourceDefinitions");
        readiness.missing("crds", missing);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// UID of `kube-system`: what tells two clusters on one Redis apart.
async fn cluster_uid(client: &Client, readiness: &Readiness) -> Arc<str> {
    let api: Api<Namespace> = Api::all(client.clone());
    loop {
        match api.get("kube-system").await {
            Ok(namespace) => return namespace.uid().unwrap_or_default().into(),
            Err(error) => {
                tracing::warn!(%error, "reading namespace kube-system failed; trying again");
                readiness.missing("lease", format!("namespace kube-system cannot be read: {error}"));
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
