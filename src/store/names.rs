//! Names of keys and channels: Celery's, and ours beside them.

use std::sync::Arc;

use super::error::ConnectError;
use super::settings::Settings;
use crate::core::id::{Priority, TaskId};
use crate::wire::{BrokerKeys, ResultKeys};

/// Which marker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MarkerId {
    /// Namespace of the job.
    pub namespace: Arc<str>,
    /// The attempt's task id.
    pub task: TaskId,
}

impl MarkerId {
    /// The marker of this task of a job in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, task: TaskId) -> Self {
        Self { namespace: namespace.into(), task }
    }
}

/// All names that one pool uses.
pub(super) struct Names {
    /// Celery's on the broker.
    pub broker: BrokerKeys,
    /// Celery's on the result backend.
    pub results: ResultKeys,
    /// Where the leader's epoch stands.
    pub fence: String,
    /// Where elements are kept that are no messages.
    pub quarantine: String,
    markers: String,
}

impl Names {
    pub fn new(settings: &Settings, database: i64) -> Result<Self, ConnectError> {
        let (broker, results) = settings.access.keys.names(database)?;
        // The braces keep a cluster's keys together should Redis ever be sharded.
        let markers = format!("crewjob:{{{}}}:", settings.cluster_uid);
        let fence = format!("{markers}epoch:{}", settings.lease);
        let quarantine = format!("{markers}quarantine");
        Ok(Self { broker, results, fence, quarantine, markers })
    }

    pub fn band(&self, priority: Priority) -> u8 {
        self.broker.bands.step(Some(self.celery(priority).into()))
    }

    pub fn list(&self, queue: &str, priority: Priority) -> String {
        self.broker.queue(queue, Some(self.celery(priority).into()))
    }

    /// The priority that a message carries.
    pub fn celery(&self, priority: Priority) -> u8 {
        priority.celery(self.broker.bands.steps())
    }

    pub fn marker(&self, id: &MarkerId) -> String {
        format!("{}{}:{}", self.markers, id.namespace, id.task)
    }

    /// Where the message is kept that a marker belongs to.
    pub fn kept(&self, id: &MarkerId) -> String {
        format!("{}:message", self.marker(id))
    }

    /// Where the result of a task is put together that is brought from another Redis.
    pub fn carried(&self, task: TaskId) -> String {
        format!("{}carried:{task}:result", self.markers)
    }

    /// Pattern of all marker keys.
    pub fn markers(&self) -> String {
        format!("{}*", self.markers)
    }

    /// The marker that has this key.
    pub fn marker_of(&self, key: &str) -> Option<MarkerId> {
        let (namespace, task) = key.strip_prefix(&self.markers)?.split_once(':')?;
        Some(MarkerId::new(namespace, TaskId::parse(task)?))
    }

    pub fn result(&self, task: TaskId) -> String {
        self.results.result(&task.to_string())
    }
}
