//! Tasks that need no command.

use super::context::Worker;
use super::entry::Entry;
use super::outcome::{Failure, Outcome};
use crate::wire::{Object, RawJson, Value};

/// A task that runs in the worker's own process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Says that a worker takes tasks, and which one it is.
    HealthCheck,
    /// Notes in the log how a task has failed.
    ErrorHandler,
}

impl Builtin {
    /// All of them.
    pub const ALL: &[Self] = &[Self::HealthCheck, Self::ErrorHandler];

    /// The name under which it is sent.
    pub fn name(self) -> &'static str {
        match self {
            Self::HealthCheck => "backend.tasks.health_check",
            Self::ErrorHandler => "backend.celery_app.error_handler",
        }
    }

    /// Runs it.
    pub fn run(self, worker: &Worker, entry: &Entry) -> Outcome {
        let result = match self {
            Self::HealthCheck => health(worker.node(), &entry.message.headers.id, &entry.message.args),
            Self::ErrorHandler => {
                tracing::error!(task.id = %entry.message.headers.id, args = entry.message.headers.argsrepr, "a task has failed");
                Ok(Value::Null)
            }
        };
        match result {
            Ok(value) => Outcome::Succeeded(RawJson::from(&value)),
            Err(failure) => Outcome::Failed { failure, retryable: false },
        }
    }
}

fn health(node: &str, id: &str, args: &[Value]) -> Result<Value, Failure> {
    if !args.is_empty() {
        let message = format!("health_check() takes no arguments but {} were given", args.len());
        return Err(Failure::new("builtins", "TypeError", message));
    }
    let answer = Object::new()
        .with("status", "healthy")
        .with("worker_id", node)
        .with("task_id", id)
        .with("crewjob_version", env!("CARGO_PKG_VERSION"));
    Ok(answer.into())
}
