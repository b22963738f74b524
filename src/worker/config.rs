//! What a worker is told on its command line and in its environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::node::NodeName;
use crate::runtime::telemetry::LogFormat;
use crate::store::{Access, Queue, Secret};

/// Where the chart puts the certificate authority of `rediss://` servers.
const REDIS_CA_FILE: &str = "/etc/crewjob/redis/ca.crt";

/// Where the broker is, with its password.
const REDIS_URL: &str = "REDIS_URL";
/// Where the result backend is, with its password.
const RESULT_BACKEND_URL: &str = "RESULT_BACKEND_URL";
/// The variables of our environment that are nobody else's business.
pub const SECRETS: [&str; 2] = [REDIS_URL, RESULT_BACKEND_URL];

/// Options of `crewjob worker`.
///
/// Redis is named in the environment only, for its URL holds a password and everybody may read command lines.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Environment:
  REDIS_URL           the broker: redis[s]://[user:password@]host[:port][/database]
  RESULT_BACKEND_URL  the result backend, where it is not the broker
  REDIS_CA_FILE       certificate authority of rediss:// servers, PEM; default /etc/crewjob/redis/ca.crt if it is there

Signals:
  SIGTERM, SIGINT     stop taking tasks, finish those that run, then exit; a second one: as SIGQUIT
  SIGQUIT             stop the tasks that run, put them back on their queues, exit")]
pub struct Config {
    /// File that says which command runs which task (YAML).
    #[arg(long, env = "CREWJOB_TASKS", value_name = "FILE")]
    pub tasks: Option<PathBuf>,

    /// A task and the shell command that runs it; may be given several times.
    #[arg(long = "task", value_name = "NAME=COMMAND")]
    pub commands: Vec<String>,

    /// Queues to consume, comma-separated; `name:routing.key` where the routing key is not the name.
    #[arg(
        short = 'Q',
        long,
        env = "CREWJOB_QUEUES",
        value_delimiter = ',',
        default_value = "crew_jobs:crew.jobs,default"
    )]
    pub queues: Vec<String>,

    /// Node name. %h is the host name, %n what is before its first dot, %d the rest.
    #[arg(short = 'n', long, env = "CREWJOB_NODE_NAME", default_value = "crewjob@%h")]
    pub hostname: NodeName,

    /// Tasks that run at once.
    #[arg(short, long, env = "CELERY_CONCURRENCY", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub concurrency: u32,

    /// Seconds after which a run is killed, unless its message or its task says otherwise. 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub time_limit: u32,

    /// Seconds after which a run is asked to stop. 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 3000)]
    pub soft_time_limit: u32,

    /// Calls after which a command in server mode is replaced.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tasks_per_child: u32,

    /// Runs after the first of a task that fails and may be tried again. Jobs of the operator have their own policy.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub max_retries: u32,

    /// Seconds after which kombu takes a message for lost; must be the same for all that share the broker.
    #[arg(long, env = "VISIBILITY_TIMEOUT", value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(10..))]
    pub visibility_timeout: u32,

    /// Seconds that results are kept; 0: for good. The operator must know of it: it counts on results that long.
    #[arg(long, env = "RESULT_EXPIRES", value_name = "SECONDS", default_value_t = 3600)]
    pub result_expires: u32,

    /// Queue of tasks that this worker sends and no route is known for.
    #[arg(long, value_name = "QUEUE", default_value = "default")]
    pub default_queue: String,

    /// Do not ask the other workers at start which tasks are revoked.
    #[arg(long)]
    pub without_mingle: bool,

    /// Send no task events until somebody asks for them.
    #[arg(long)]
    pub without_task_events: bool,

    /// Run the command of this task for an example call, say whether it keeps the contract, and exit.
    #[arg(long, value_name = "TASK")]
    pub check_command: Option<String>,

    /// Address of /livez, /readyz and /metrics; a probe that does not depend on Redis.
    #[arg(long, env = "CREWJOB_ADMIN_ADDRESS")]
    pub admin_address: Option<SocketAddr>,

    /// How a log line looks.
    #[arg(long, env = "CREWJOB_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What is logged: a level, or directives such as `info,crewjob::worker=debug`.
    #[arg(long = "log", env = "CREWJOB_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// Why a worker cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no broker.
    #[error("REDIS_URL is not set: say where the broker is, for example redis://127.0.0.1:6379/0")]
    NoBroker,
    /// The certificate authority cannot be read.
    #[error("reading REDIS_CA_FILE {path:?}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What was seen.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing to consume.
    #[error("--queues names no queue")]
    NoQueues,
}

impl Config {
    /// The way to Redis.
    pub fn access(&self) -> Result<Access, ConfigError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let mut access = Access::new(Secret::new(variable(REDIS_URL).ok_or(ConfigError::NoBroker)?));
        access.result_url = variable(RESULT_BACKEND_URL).map(Secret::new);
        let usual = || Some(PathBuf::from(REDIS_CA_FILE)).filter(|path| path.is_file());
        if let Some(path) = variable("REDIS_CA_FILE").map(PathBuf::from).or_else(usual) {
            let read = std::fs::read_to_string(&path);
            access.ca = Some(read.map_err(|source| ConfigError::Authority { path, source })?);
        }
        Ok(access)
    }

    /// The queues, in the order in which they are looked through.
    pub fn queues(&self) -> Result<Vec<Queue>, ConfigError> {
        let named = self.queues.iter().map(|queue| queue.trim()).filter(|queue| !queue.is_empty());
        let queues: Vec<Queue> = named
            .map(|queue| {
                let (name, key) = queue.split_once(':').unwrap_or((queue, queue));
                Queue::new(name, key)
            })
            .collect();
        if queues.is_empty() { Err(ConfigError::NoQueues) } else { Ok(queues) }
    }

    /// How long results are kept.
    pub fn result_expires(&self) -> Option<Duration> {
        seconds(self.result_expires)
    }
}

/// Seconds as typed, where 0 is none.
pub(super) fn seconds(number: u32) -> Option<Duration> {
    (number > 0).then(|| Duration::from_secs(number.into()))
}
