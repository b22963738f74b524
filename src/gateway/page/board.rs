//! The table of jobs, kept in step with the cluster by one watch with the gateway's own rights.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use kube::api::ApiResource;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::rows::{Listed, row};
use crate::api::CrewJob;
use crate::cluster::objects::{Pause, objects};
use crate::core::listing::{Filter, Scope, Table};
use crate::runtime::telemetry::chain;

/// The jobs that are known.
pub struct Board {
    table: Mutex<Table>,
    /// Lists that have not come yet for the first time.
    unlisted: AtomicUsize,
    changed: watch::Sender<u64>,
}

impl Board {
    /// A board of at most so many jobs, that so many watches feed.
    pub fn new(most: usize, watches: usize) -> Self {
        Self {
            table: Mutex::new(Table::holding(most)),
            unlisted: AtomicUsize::new(watches),
            changed: watch::Sender::new(0),
        }
    }

    /// Whether all jobs were listed once.
    pub fn is_ready(&self) -> bool {
        self.unlisted.load(Ordering::Acquire) == 0
    }

    /// Looks at the table; not for long, for the watch waits meanwhile.
    pub fn look<T>(&self, at: impl FnOnce(&Table) -> T) -> T {
        at(&self.table.lock())
    }

    /// Hears how many changes there were, each time there were further ones.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether any change after the first `seen` concerns a job that is meant.
    pub fn has_changed(&self, seen: u64, filter: &Filter, scope: &Scope) -> bool {
        self.look(|table| table.changes().since(seen, filter, scope))
    }

    /// Follows the jobs of a namespace, or of all, for ever.
    pub async fn follow(&self, client: Client, namespace: Option<&str>) {
        let resource = ApiResource::erase::<CrewJob>(&());
        let api: Api<Listed> = match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let mut events = objects(api, Config::default()).backoff(Pause::default()).boxed();
        let (mut list, mut is_first) = (0, true);
        while let Some(event) = events.next().await {
            let mut table = self.table.lock();
            match event {
                Ok(Event::Init) => list = table.begin(),
                Ok(Event::InitApply(job) | Event::Apply(job)) => table.apply(row(&job)),
                Ok(Event::Delete(job)) => table.remove(&job.namespace().unwrap_or_default(), &job.name_any()),
                Ok(Event::InitDone) => {
                    table.complete(list, namespace);
                    if std::mem::take(&mut is_first) {
                        self.unlisted.fetch_sub(1, Ordering::Release);
                    }
                    tracing::info!(jobs = table.len(), omitted = table.omitted(), "the page knows the jobs");
                }
                Err(error) => {
                    drop(table);
                    tracing::warn!(error = chain(&error), "following the jobs for the page failed; trying again");
                    continue;
                }
            }
            let count = table.changes().count();
            drop(table);
            self.changed.send_if_modified(|known| std::mem::replace(known, count) != count);
        }
    }
}
