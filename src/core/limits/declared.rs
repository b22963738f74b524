//! What a pool declares, and under which keys a job counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::job::Job;
use super::slow::SlowDown;

/// The key of a job under each limit of its pool, in the order of the limits.
pub type Keys = Arc<[Arc<str>]>;

/// What a pool declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Name of the pool.
    pub pool: Arc<str>,
    /// In the order in which they were declared; at least one.
    pub all: Vec<Limit>,
    /// A job that has waited for so long counts as one priority more urgent. Not zero.
    pub aging: Duration,
}

/// One limit. It holds for each of its keys on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Name, unique in the pool.
    pub name: Arc<str>,
    /// What makes the key of a job.
    pub by: By,
    /// How many jobs of a key may be in flight.
    pub max_in_flight: Option<u32>,
    /// How many of them may be released in a while.
    pub rate: Option<Rate>,
    /// What slows a key down.
    pub slow_down: Option<SlowDown>,
    /// How much a key gets where several wait, in proportion to the others.
    pub weight: u32,
    /// The same for keys that have a weight of their own.
    pub weights: BTreeMap<Arc<str>, u32>,
}

/// What makes the key of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// The value of this label; jobs without it have the empty key.
    Label(Arc<str>),
    /// Its namespace.
    Namespace,
    /// Nothing: all jobs have one key.
    All,
}

/// So many in any span of that length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many; not zero.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

impl Limits {
    /// The keys of a job.
    pub fn keys_of(&self, job: &Job) -> Keys {
        self.all.iter().map(|limit| limit.key_of(job)).collect()
    }

    /// The key under which jobs take turns with those of others, and its weight: that of the first limit by a label.
    pub fn share_of<'a>(&self, keys: &'a Keys) -> Option<(&'a Arc<str>, u32)> {
        let index = self.all.iter().position(|limit| matches!(limit.by, By::Label(_))).unwrap_or(0);
        let (limit, key) = (self.all.get(index)?, keys.get(index)?);
        Some((key, limit.weights.get(key).copied().unwrap_or(limit.weight).max(1)))
    }
}

impl Limit {
    fn key_of(&self, job: &Job) -> Arc<str> {
        match &self.by {
            By::Label(label) => job.label(label).cloned().unwrap_or_default(),
            By::Namespace => job.key.namespace.clone(),
            By::All => Arc::default(),
        }
    }
}
