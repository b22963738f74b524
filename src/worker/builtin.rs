//! Tasks that need no command.

use std::time::Duration;

use super::conclude;
use super::outcome::{Failure, Outcome};
use crate::runtime::clock;
use crate::store::Channel;
use crate::wire::python;
use crate::wire::{Message, Object, RawJson, Signature, Value};

/// How long results without an expiry are kept, and the longest that may be asked for, a century.
const RETENTION: Duration = Duration::from_hours(24);
const RETENTION_MAX: f64 = 100.0 * 366.0 * 86_400.0;

/// The module of failures to reach Redis.
const REDIS: &str = "redis.exceptions";

/// A task that runs in the worker's own process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Says that a worker takes tasks, and which one it is.
    HealthCheck,
    /// Deletes results that nothing else will ever delete, and replies that are never read.
    Cleanup,
    /// Notes in the log how a task has failed.
    ErrorHandler,
}

impl Builtin {
    /// All of them.
    pub const ALL: &[Self] = &[Self::HealthCheck, Self::Cleanup, Self::ErrorHandler];

    /// The name under which it is sent.
    pub fn name(self) -> &'static str {
        match self {
            Self::HealthCheck => "backend.tasks.health_check",
            Self::Cleanup => "backend.tasks.cleanup_old_results",
            Self::ErrorHandler => "backend.celery_app.error_handler",
        }
    }

    /// Runs it.
    pub async fn run(self, node: &str, channel: &Channel, message: &Message) -> Outcome {
        let result = match self {
            Self::HealthCheck => health(node, &message.headers.id, &message.args),
            Self::Cleanup => cleanup(channel, &message.args, &message.kwargs).await,
            Self::ErrorHandler => Ok(error_handler(&message.args, &message.kwargs)),
        };
        match result {
            Ok(value) => Outcome::Succeeded(RawJson::from(&value)),
            Err(failure) => {
                let retryable = failure.exception.exc_module.as_deref() == Some(REDIS);
                Outcome::Failed { failure, retryable }
            }
        }
    }
}

/// Whether a task is an errback that is called in place, as a Python worker does with `error_handler`.
pub fn is_errback(task: &str) -> bool {
    task == Builtin::ErrorHandler.name()
}

/// Calls an errback in place.
pub fn call_errback(errback: &Signature, task: &str, failure: &Failure) {
    let mut args = errback.args.clone();
    args.extend([task.into(), conclude::repr(failure).into(), failure.traceback.as_deref().into()]);
    error_handler(&args, &errback.kwargs);
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

/// Deletes results older than `retention_seconds`, a day unless it is given.
async fn cleanup(channel: &Channel, args: &[Value], kwargs: &Object) -> Result<Value, Failure> {
    let given = args.first().or_else(|| kwargs.get("retention_seconds")).filter(|given| !given.is_null());
    let retention = match given.map(|given| (given, given.as_f64())) {
        None => RETENTION,
        Some((_, Some(seconds))) if (0.0..=RETENTION_MAX).contains(&seconds) => Duration::from_secs_f64(seconds),
        Some((given, _)) => {
            let message = format!("retention_seconds must be a number of seconds, not {}", python::repr(given));
            return Err(Failure::new("builtins", "ValueError", message));
        }
    };
    let oldest = clock::now() - retention;
    let cleaned =
        channel.clean(oldest).await.map_err(|error| Failure::new(REDIS, "ConnectionError", error.to_string()))?;
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(Object::new()
        .with("results_scanned", count(cleaned.results))
        .with("results_deleted", count(cleaned.results_deleted))
        .with("reply_lists_scanned", count(cleaned.replies))
        .with("reply_lists_deleted", count(cleaned.replies_deleted))
        .into())
}

/// Logs a task's failure. As a task of its own it is called with the id of the task that failed.
fn error_handler(args: &[Value], kwargs: &Object) -> Value {
    let argument = |at: usize, name: &str| args.get(at).or_else(|| kwargs.get(name)).filter(|given| !given.is_null());
    let task = argument(0, "request").cloned().unwrap_or_default();
    let error = argument(1, "exc").map(python::str);
    let traceback = argument(2, "traceback").map(python::str);
    tracing::error!(task.id = python::str(&task), error, traceback, "a task has failed");
    Object::new().with("task_id", task).with("error", error).into()
}
