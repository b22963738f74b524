//! The cluster, as the caller's kubeconfig leads to it.

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};

use super::args::{Connection, Filter};
use super::error::Error;
use super::view;
use crate::api::{CrewJob, CrewSchedule, CrewWorkerPool};
use crate::runtime::clock;

/// How long connecting and one answer may take; a watch counts as answered when it has begun.
const CONNECT: Duration = Duration::from_secs(10);
/// Objects in one answer of a list.
const PAGE: u32 = 500;

/// The API server, and the namespace that is meant.
pub struct Cluster {
    client: Client,
    /// The namespace of the jobs.
    pub namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig; calls nothing.
    pub async fn connect(to: &Connection) -> Result<Self, Error> {
        let options = KubeConfigOptions { context: to.context.clone(), ..KubeConfigOptions::default() };
        let failed = |source| Error::Kubeconfig(Box::new(source));
        let config = match &to.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(failed)?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await
            }
            // In a Pod there is none: its service account is the caller.
            None => match Config::from_kubeconfig(&options).await {
                Err(error) if to.context.is_none() => Config::incluster().map_err(|_| error),
                read => read,
            },
        };
        let mut config = config.map_err(failed)?;
        config.connect_timeout = Some(CONNECT);
        let namespace = to.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(Error::call("connecting to the cluster"))?;
        Ok(Self { client, namespace })
    }

    /// The cluster behind a client, with a namespace in mind.
    pub fn with(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// The jobs of the namespace.
    pub fn jobs(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource())
    }

    /// The jobs of all namespaces.
    pub fn all_jobs(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &resource())
    }

    /// The pools of the namespace.
    pub fn pools(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<CrewWorkerPool>(&()))
    }

    /// The pools of all namespaces.
    pub fn all_pools(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &ApiResource::erase::<CrewWorkerPool>(&()))
    }

    /// The schedules of the namespace.
    pub fn schedules(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<CrewSchedule>(&()))
    }

    /// The schedules of all namespaces.
    pub fn all_schedules(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &ApiResource::erase::<CrewSchedule>(&()))
    }

    /// The same cluster, with another namespace in mind.
    pub fn of(&self, namespace: &str) -> Self {
        Self { client: self.client.clone(), namespace: namespace.to_owned() }
    }

    /// Objects of another namespace.
    pub fn in_namespace<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Other objects of the namespace.
    pub fn others<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of all namespaces, or of none.
    pub fn everywhere<K>(&self) -> Api<K>
    where
        K: Resource,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }

    /// What the API server answers under this path, as text.
    pub async fn raw(&self, path: &str) -> Result<String, kube::Error> {
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await
    }

    /// One job.
    pub async fn job(&self, name: &str) -> Result<DynamicObject, Error> {
        let found = self.jobs().get_opt(name).await.map_err(Error::call(format!("reading the CrewJob {name}")))?;
        found.ok_or_else(|| self.missing(name))
    }

    /// There is no such job.
    pub fn missing(&self, name: &str) -> Error {
        let namespace = &self.namespace;
        Error::NotPossible(format!(
            "there is no CrewJob {name} in the namespace {namespace}; see: kubectl crewjob list -n {namespace}"
        ))
    }

    /// Calls `each` with the jobs that fit, page by page.
    pub async fn each(
        &self,
        jobs: &Api<DynamicObject>,
        filter: &Filter,
        mut each: impl FnMut(DynamicObject),
    ) -> Result<(), Error> {
        let mut params = ListParams { label_selector: filter.selector.clone(), ..ListParams::default() }.limit(PAGE);
        // The API server selects one phase. Several are selected here, and jobs that no operator has seen: they have none.
        let phase = match &filter.phase[..] {
            [phase] if phase != view::PENDING => Some(format!("status.phase={phase}")),
            _ => None,
        };
        let pool = filter.pool.as_ref().map(|pool| format!("spec.poolRef.name={pool}"));
        let fields: Vec<String> = phase.into_iter().chain(pool).collect();
        params.field_selector = Some(fields.join(",")).filter(|fields| !fields.is_empty());
        let now = clock::now();
        loop {
            let page = jobs.list(&params).await.map_err(Error::call("listing CrewJobs"))?;
            for job in page.items {
                if filter.fits(&job, now) {
                    each(job);
                }
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(());
            }
        }
    }
}

/// CrewJobs.
fn resource() -> ApiResource {
    ApiResource::erase::<CrewJob>(&())
}
