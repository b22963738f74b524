//! Which task is run in which way.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::builtin::Builtin;
use super::context::Worker;
use super::entry::Entry;
use super::outcome::{Failure, Outcome};

/// A way to run a task.
#[derive(Debug, Clone)]
pub enum Task {
    /// In this process.
    Builtin(Builtin),
}

/// All tasks a worker knows, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry(BTreeMap<String, Task>);

impl Registry {
    /// The tasks that need no command.
    pub fn builtin() -> Self {
        Self(Builtin::ALL.iter().map(|builtin| (builtin.name().to_owned(), Task::Builtin(*builtin))).collect())
    }

    /// How this task is run.
    pub fn get(&self, name: &str) -> Option<&Task> {
        self.0.get(name)
    }

    /// The names of all tasks, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Task {
    /// Runs it.
    pub async fn run(&self, worker: &Arc<Worker>, entry: &Arc<Entry>, _since: Timestamp) -> Outcome {
        match self {
            Self::Builtin(builtin) => builtin.run(worker, entry).await,
        }
    }
}

/// The failure of a task that no worker of this kind knows.
pub fn not_registered(name: &str) -> Failure {
    Failure::new("celery.exceptions", "NotRegistered", name)
}
