//! Which jobs a caller may see.

use std::collections::BTreeSet;
use std::sync::Arc;

/// In which namespaces the caller may list jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In all.
    All,
    /// In these.
    Only(BTreeSet<Arc<str>>),
}

impl Scope {
    /// Whether a namespace is one of them.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(namespaces) => namespaces.contains(namespace),
        }
    }
}
