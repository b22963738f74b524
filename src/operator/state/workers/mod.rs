//! Pods and Deployments of workers: [`core::index::pods`](crate::core::index::pods) behind a lock, and Kubernetes' objects
//! turned into what matters of them.

mod deployments;
mod pods;
mod selector;
mod shell;
#[cfg(test)]
mod tests;
mod trouble;

use kube::{Resource, ResourceExt};
use parking_lot::RwLock;

use crate::core::id::ObjectKey;
use crate::core::index::pods::Pods;

pub use deployments::FIELD_MANAGER;
pub use pods::{BUSY_COST, DELETION_COST};

/// Pods and Deployments in the pools' namespaces. No other lock is taken while this one is held.
#[derive(Default)]
pub struct Workers(RwLock<Pods>);

impl Workers {
    /// Looks at what is known of them.
    pub fn read<T>(&self, look: impl FnOnce(&Pods) -> T) -> T {
        look(&self.0.read())
    }

    /// Changes what is known of them.
    pub fn write<T>(&self, change: impl FnOnce(&mut Pods) -> T) -> T {
        change(&mut self.0.write())
    }
}

/// Namespace and name of an object.
pub fn key_of<K: Resource>(object: &K) -> Option<ObjectKey> {
    Some(ObjectKey::new(object.namespace()?, object.name_any()))
}
