//! A Deployment of workers, as far as it matters: what may be scaled, and what its Pods are like.

use std::sync::Arc;
use std::time::Duration;

use super::container::{Unclear, worker_among};
use super::selector::Selector;

/// A Deployment, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeploymentView {
    /// `spec.replicas`.
    pub replicas: u32,
    /// `terminationGracePeriodSeconds` of its Pods.
    pub grace_period: Duration,
    /// Whether a rollout is under way.
    pub rolling_out: bool,
    /// Whether its replicas are the API server's default, which belongs to the client that created it by a client-side
    /// apply.
    pub is_default: bool,
    /// Another field manager that owns its replicas, in words for people.
    pub owner: Option<Arc<str>>,
    /// Why Pods cannot be created.
    pub failure: Option<Arc<str>>,
    /// Why it does not progress.
    pub stuck: Option<Arc<str>>,
    /// Secrets that its Pods use.
    pub secrets: Vec<Arc<str>>,
    /// `metadata.resourceVersion`.
    pub version: Arc<str>,
    /// What the labels of its Pods fulfil.
    pub selector: Selector,
    /// What its next Pods will be made of.
    pub template: Template,
}

/// The Pod template of a Deployment, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// The names of its containers.
    pub containers: Vec<Arc<str>>,
    /// The container that its annotation names.
    pub default_container: Option<Arc<str>>,
}

impl Template {
    /// The container that will run the worker.
    pub(super) fn worker(&self, named: Option<&Arc<str>>) -> Result<&Arc<str>, Unclear> {
        worker_among(&self.containers, |name| name, named, self.default_container.as_ref())
    }
}
