//! How a command is run, and what one run is given.

use std::path::PathBuf;
use std::time::Duration;

use crate::wire::{Headers, Object, Value};

/// The module of the exceptions that stand for a command's failures.
pub const MODULE: &str = "crewjob.worker";

/// How a task's command is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What is added to the worker's own environment.
    pub env: Vec<(String, String)>,
    /// Where it runs, if not where the worker does.
    pub directory: Option<PathBuf>,
    /// What is read from its standard output.
    pub output: Output,
    /// The exit statuses of a failure that may be tried again.
    pub retry_exit_codes: Vec<i32>,
    /// How long it has to go when it is stopped.
    pub grace: Duration,
    /// Which of its processes are asked to stop.
    pub signal: Recipient,
}

/// Which processes are sent the signal of a soft limit or of a stop. SIGKILL goes to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recipient {
    /// The command and all its descendants.
    #[default]
    Group,
    /// The command alone, which may need the others to save its work.
    Leader,
}

/// What is read from standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// The last line is the result, as JSON.
    #[default]
    Json,
    /// All of it is the result, as a string.
    Text,
}

/// What one run is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The name of the task.
    pub task: String,
    /// Its id.
    pub id: String,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Object,
    /// The CrewJob that it runs for, if it runs for one.
    pub job: Option<Job>,
    /// The same for all runs of one job, or else of one task, and for no other: under it a step is safe to repeat.
    pub idempotency_key: String,
    /// Runs that came before this one.
    pub retries: i64,
    /// The node name of the worker.
    pub worker: String,
    /// The soft limit.
    pub soft: Option<Duration>,
    /// The hard limit.
    pub hard: Option<Duration>,
    /// The folder of its state, if it has one.
    pub state_dir: Option<PathBuf>,
    /// The headers `traceparent` and `tracestate` of its message, as far as they are there and well-formed.
    pub trace: Object,
}

/// A CrewJob, as its message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
}

impl Job {
    /// The job that these headers name.
    pub fn of(headers: &Headers) -> Option<Self> {
        let header = |key| headers.other.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let [name, namespace, uid] =
            [header("crewjob_name")?, header("crewjob_namespace")?, header("crewjob_uid")?].map(str::to_owned);
        Some(Self { name, namespace, uid })
    }
}

impl Spec {
    /// A command with the defaults.
    pub fn new<T: Into<String>>(command: impl IntoIterator<Item = T>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            directory: None,
            output: Output::Json,
            retry_exit_codes: vec![75],
            grace: Duration::from_secs(10),
            signal: Recipient::Group,
        }
    }
}

/// A duration as Python would have it: an integer if it is one.
pub(super) fn seconds(duration: Duration) -> Value {
    match i64::try_from(duration.as_secs()) {
        Ok(seconds) if duration.subsec_nanos() == 0 => seconds.into(),
        _ => duration.as_secs_f64().into(),
    }
}
