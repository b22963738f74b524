//! Why the operator could not do its own work. "Not yet" is never an error.

use std::sync::Arc;

use crate::core::claims::fence::Term;
use crate::core::id::ObjectKey;
use crate::store;

/// Why a reconcile failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object could not be read.
    #[error("reading CrewJob {job}")]
    Read {
        /// Which.
        job: ObjectKey,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Its status could not be written.
    #[error("writing the status of CrewJob {job}")]
    WriteStatus {
        /// Which.
        job: ObjectKey,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Its result could not be kept.
    #[error("keeping the result of CrewJob {job}")]
    KeepResult {
        /// Which.
        job: ObjectKey,
        /// Which ConfigMap.
        config_map: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The ConfigMap that its result belongs in is of something else.
    #[error("keeping the result of CrewJob {job}: ConfigMap {config_map} exists and belongs to something else")]
    ConfigMapTaken {
        /// Which job.
        job: ObjectKey,
        /// Which ConfigMap.
        config_map: String,
    },
    /// What is remembered of its run-once key could not be read or written.
    #[error("the run-once key of CrewJob {job}, in ConfigMap {config_map}")]
    RunOnce {
        /// Which job.
        job: ObjectKey,
        /// Which ConfigMap.
        config_map: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The ConfigMap that its run-once key is remembered in is of something else.
    #[error("the run-once key of CrewJob {job}: ConfigMap {config_map} exists and is no record of this key")]
    RunOnceTaken {
        /// Which job.
        job: ObjectKey,
        /// Which ConfigMap.
        config_map: String,
    },
    /// A later leader has written what is remembered of its run-once key.
    #[error("the run-once key of CrewJob {job}: an operator of term {term} has written its record")]
    RunOnceFenced {
        /// Which job.
        job: ObjectKey,
        /// That leader's term.
        term: Term,
    },
    /// The jobs with its dedup key could not be listed, or one of them not cancelled.
    #[error("jobs with the dedup key of CrewJob {job}")]
    Twins {
        /// Which job.
        job: ObjectKey,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The Pod of a worker that does not stop its task could not be deleted.
    #[error("deleting Pod {pod}, whose worker does not stop CrewJob {job}")]
    DeletePod {
        /// Which job.
        job: ObjectKey,
        /// Which Pod.
        pod: Arc<str>,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Redis.
    #[error("CrewJob {job}")]
    Store {
        /// Which job.
        job: ObjectKey,
        /// What, and why not.
        source: store::Error,
    },
    /// The pool's connection went away in the meantime.
    #[error("CrewJob {job}: its pool {pool} is not connected")]
    NotConnected {
        /// Which job.
        job: ObjectKey,
        /// Which pool.
        pool: Arc<str>,
    },
}
