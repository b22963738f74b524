//! What the operator is told on its command line and in its environment.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;

use crate::archive;
use crate::runtime::telemetry::LogFormat;

/// Options of `crewjob operator`.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Address of /livez, /readyz and /metrics. `[::]` takes IPv4 too, and is `0.0.0.0` where the kernel has no IPv6.
    #[arg(long, env = "CREWJOB_ADMIN_ADDRESS", default_value = "[::]:8080")]
    pub admin_address: SocketAddr,

    /// How a log line looks.
    #[arg(long, env = "CREWJOB_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What is logged: a level, or directives such as `info,crewjob::store=debug`.
    #[arg(long = "log", env = "CREWJOB_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// Namespace of the Lease that replicas compete for; usually the operator's own.
    #[arg(long, env = "CREWJOB_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of that Lease.
    #[arg(long, env = "CREWJOB_LEASE_NAME", default_value = "crewjob-operator")]
    pub lease_name: String,

    /// Namespaces in which the operator may read Pods, Deployments and labelled Secrets, comma-separated.
    /// Default: the Lease's. Pools elsewhere say in their conditions how to grant theirs.
    #[arg(long, env = "CREWJOB_POOL_NAMESPACES", value_delimiter = ',')]
    pub pool_namespaces: Vec<String>,

    /// Label selector of further namespaces like those, such as `crewjob.dev/pools=true`: a namespace that gets the
    /// label is served at once, and not any more when it loses it. The rights are granted apart from that, by a
    /// `RoleBinding` in the namespace. Default: none.
    #[arg(long, env = "CREWJOB_POOL_NAMESPACE_SELECTOR", value_name = "SELECTOR")]
    pub pool_namespace_selector: Option<String>,

    /// Where finished jobs are kept before they are deleted.
    #[command(flatten)]
    pub archive: archive::Settings,

    /// Seconds between two audits of a pool's Redis, 1 to 300. Shorter only for tests: an audit reads whole queues.
    #[arg(long, env = "CREWJOB_AUDIT_EVERY", hide = true, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub audit_every: u64,

    /// Name of the Pod this process runs in.
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,

    /// Namespace of the Pod this process runs in.
    #[arg(long, env = "POD_NAMESPACE", hide = true)]
    pub pod_namespace: Option<String>,
}

impl Config {
    /// Namespace of the Lease: the one asked for, else the Pod's, else that of the kubeconfig's context.
    pub fn lease_namespace(&self, client: &kube::Client) -> String {
        let asked = self.lease_namespace.clone().or_else(|| self.pod_namespace.clone());
        asked.unwrap_or_else(|| client.default_namespace().to_owned())
    }

    /// Label selector of further namespaces of pools.
    pub fn pool_namespace_selector(&self) -> Option<String> {
        self.pool_namespace_selector.as_deref().map(str::trim).filter(|it| !it.is_empty()).map(ToOwned::to_owned)
    }

    /// The namespaces of pools.
    pub fn pool_namespaces(&self, lease_namespace: &str) -> Vec<Arc<str>> {
        let named: Vec<Arc<str>> =
            self.pool_namespaces.iter().filter(|name| !name.is_empty()).map(|name| name.trim().into()).collect();
        if named.is_empty() { vec![lease_namespace.into()] } else { named }
    }
}
