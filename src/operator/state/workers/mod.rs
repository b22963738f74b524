//! Pods and Deployments of workers: which Pod holds a task, which worker is dead, what may be scaled.

mod containers;
mod deployments;
mod fleet;
mod known;
mod pods;
mod selector;
mod table;
mod trouble;

pub use containers::Unclear;
pub use deployments::DeploymentView;
pub use fleet::{BUSY_COST, DELETION_COST, FIELD_MANAGER, Fleet, Stay, WorkerPod, host_of, key_of};
pub use known::Workers;
pub use pods::PodView;
