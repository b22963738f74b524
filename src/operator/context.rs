//! What every part of a leading operator shares.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::events::Events;
use super::lease::{Claim, Leadership};
use super::state::hours::Hours;
use super::state::jobs::{Entry, Jobs};
use super::state::lookups::Lookups;
use super::state::namespaces::Namespaces;
use super::state::pool::Handle;
use super::state::pools::Pools;
use super::state::schedules::Schedules;
use super::state::servers::Servers;
use super::state::watches::Watches;
use super::state::workers::Workers;
use crate::core::id::ObjectKey;
use crate::core::status::Holder;
use crate::runtime::metrics::{Figures, Metrics, WaitingLabels};
use crate::runtime::traces::Traces;
use crate::store::Epoch;

/// Shared by everything that runs while this replica leads; dropped with the leadership.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Where spans go, if anywhere.
    pub traces: Traces,
    /// Kubernetes Events.
    pub events: Events,
    /// The claim on the Lease.
    pub claim: Claim,
    /// The leadership that this context belongs to.
    pub leadership: Leadership,
    /// UID of the `kube-system` namespace: the cluster's identity on Redis.
    pub cluster_uid: Arc<str>,
    /// `namespace/name` of the Lease.
    pub lease: Arc<str>,
    /// How often everything is read although nothing asks for it.
    pub audit_every: Duration,
    /// Namespaces whose pools are served.
    pub namespaces: Namespaces,
    /// The unfinished jobs.
    pub jobs: Jobs,
    /// The hours in which finished jobs expire.
    pub hours: Hours,
    /// Jobs that must be read from the API server.
    pub lookups: Lookups,
    /// Whether the watches work.
    pub watches: Watches,
    /// The pools.
    pub pools: Pools,
    /// The schedules.
    pub schedules: Schedules,
    /// Pods and Deployments of workers.
    pub workers: Workers,
    /// What pools on one Redis share.
    pub servers: Servers,
    /// Reads and writes of jobs on the API server that may be under way at once.
    pub calls: Semaphore,
}

/// More jobs are looked at side by side, since many may wait for a slow Redis; the API server gets no more at once.
pub const CALLS: usize = 32;

impl Context {
    /// The term that every script on Redis carries.
    pub fn epoch(&self) -> Epoch {
        self.leadership.term()
    }

    /// Waits until one more read or write of a job may be under way; first come, first served.
    pub async fn call(&self) -> Option<SemaphorePermit<'_>> {
        self.calls.acquire().await.ok() // it is never closed
    }

    /// Looks at every job of a pool, and at those of the namespace whose pool is missing, since they list what there is.
    pub fn look_at_jobs(&self, pool: &ObjectKey) {
        let existing = self.pools.keys();
        self.jobs.look_at_all(|table| {
            let asked_for = table.pools_of(&pool.namespace).into_iter();
            let touched = asked_for.filter(|it| it == pool || !existing.contains(it));
            touched.flat_map(|it| table.of_pool(&it).map(Entry::turn_of).collect::<Vec<_>>()).collect()
        });
    }

    /// The worker of this node name, and by how many milliseconds its clock is behind.
    pub fn speaker(&self, pool: &Handle, node: &Arc<str>) -> (Holder, i64) {
        (self.workers.read(|pods| pods.holder(pool.fleet.as_ref(), node)), pool.clocks().behind(node))
    }

    /// How many jobs wait for what. Those of pools that do not exist count as one, since a job may name any.
    pub fn waiting(&self) -> Figures {
        let counted: Vec<_> = self.jobs.lock().waiting().map(|(pool, why, jobs)| (pool.clone(), why, jobs)).collect();
        let pools = self.pools.keys();
        let mut figures = Figures::new();
        for (pool, reason, jobs) in counted {
            let name = if pools.contains(&pool) { pool.name.to_string() } else { String::new() };
            let labels = WaitingLabels { namespace: pool.namespace.to_string(), pool: name, reason };
            *figures.entry(labels).or_default() += i64::try_from(jobs).unwrap_or(i64::MAX);
        }
        figures
    }

    /// Counts what was heard of another pool's job, and is dropped.
    pub fn count_foreign(&self, pool: &Handle) {
        self.metrics.foreign_claims.get_or_create(&pool.labels()).inc();
    }
}
