//! What a worker is told on its command line and in its environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::follow::Defaults;
use super::node::NodeName;
use crate::runtime::telemetry::LogFormat;
use crate::store::{Access, EnvironmentError, Keys, Queue};
use crate::wire::{Bands, InvalidBands, Number, TimeLimit};

/// Options of `crewjob worker`.
///
/// Redis is named in the environment only, for its URL holds a password and every user may read command lines.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Environment:
  REDIS_URL               the broker: redis[s]://[user:password@]host[:port][/database], or, separated by semicolons,
                          sentinel://[user:password@]host:port[/database] of each sentinel
  RESULT_BACKEND_URL      the result backend, where it is not the broker
  REDIS_URL_FILE, RESULT_BACKEND_URL_FILE
                          files with these URLs, which take the place of the variables; default: /etc/crewjob/redis/url and
                          /etc/crewjob/redis/result-url if they are there
  REDIS_CREDENTIALS_COMMAND
                          a shell command that prints a password for URLs without one, such as a token, or
                          {\"username\": …, \"password\": …}
  REDIS_CA_FILE           certificate authority of rediss:// servers, PEM; default: the file that ssl_ca_certs of a URL names,
                          else /etc/crewjob/redis/ca.crt if it is there
  REDIS_CLIENT_CERT_FILE  certificate that says to rediss:// servers which client it is, PEM; default: the file of ssl_certfile
                          in a URL, else /etc/crewjob/redis/client.crt if it is there
  REDIS_CLIENT_KEY_FILE   its private key, PEM; default: the file of ssl_keyfile in a URL, else /etc/crewjob/redis/client.key
  REDIS_SENTINEL_MASTER   name under which the sentinels know the primary
  REDIS_SENTINEL_USERNAME, REDIS_SENTINEL_PASSWORD
                          user and password of the sentinels
  REDIS_SENTINEL_TLS      true where the sentinels speak TLS
  Files are read, and the command is run, again for each connection.

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

    /// Queues to consume, comma-separated; `name=routing.key` where the routing key is not the name. A name that contains a
    /// colon has to be given with its routing key, `app:jobs=app:jobs`: `name:routing.key` is the former spelling.
    #[arg(
        short = 'Q',
        long,
        env = "CREWJOB_QUEUES",
        value_delimiter = ',',
        default_value = "crew_jobs=crew.jobs,default"
    )]
    pub queues: Vec<String>,

    /// Node name. %h is the host name, %n what is before its first dot, %d the rest.
    #[arg(short = 'n', long, env = "CREWJOB_NODE_NAME", default_value = "crewjob@%h")]
    pub hostname: NodeName,

    /// Tasks that run at once.
    #[arg(short, long, env = "CELERY_CONCURRENCY", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub concurrency: u32,

    /// Messages with an ETA or countdown in the future that are held at most, without their bodies: some 2 KB each.
    ///
    /// As with Celery's `worker_eta_task_limit`, no further messages are taken while the worker holds so many.
    #[arg(long, value_name = "N", default_value_t = 25_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub eta_task_limit: u32,

    /// Seconds after which a run is killed, unless its message or its task says otherwise. 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub time_limit: u32,

    /// Seconds after which a run is asked to stop. 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 3000)]
    pub soft_time_limit: u32,

    /// Calls after which a command in server mode is replaced.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tasks_per_child: u32,

    /// Seconds after which a command in server mode ends when no call comes. 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub server_idle_timeout: u32,

    /// Runs after the first of a task that fails and may be tried again. Jobs of the operator have their own policy.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub max_retries: u32,

    /// Seconds from the first SIGTERM or SIGINT until the tasks that still run are stopped and put back on their queues, as
    /// by a second signal. Choose 20 seconds less than the process is given before it is killed. 0: never.
    #[arg(long, env = "CREWJOB_SHUTDOWN_TIMEOUT", value_name = "SECONDS", default_value_t = 0)]
    pub shutdown_timeout: u32,

    /// What becomes of a run whose state is saved when the worker is asked to stop: it goes on to its end, or it is stopped
    /// at its next checkpoint, after 8 seconds at the latest, and goes on elsewhere. One without a saved state goes on.
    #[arg(long, env = "CREWJOB_ON_DRAIN", value_enum, default_value_t)]
    pub on_drain: OnDrain,

    /// Folder for the states of jobs, the same for all workers of the queues, instead of Redis.
    #[arg(long, env = "CREWJOB_STATE_FOLDER", value_name = "FOLDER")]
    pub state_folder: Option<PathBuf>,

    /// Most bytes of a job's state, compressed. Default: 16 MiB on Redis, 4 GiB in a folder.
    #[arg(long, env = "CREWJOB_STATE_MAX_BYTES", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1024..))]
    pub state_max_bytes: Option<u64>,

    /// Seconds that the state of a job is kept after it was saved, unless the job succeeds.
    #[arg(long, env = "CREWJOB_STATE_RETENTION", value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(60..))]
    pub state_retention: u32,

    /// Seconds after which kombu takes a message for lost; must be the same for all that share the broker.
    #[arg(long, env = "VISIBILITY_TIMEOUT", value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(10..))]
    pub visibility_timeout: u32,

    /// `global_keyprefix` of the other parties: goes before every key. At most 128 letters, digits and `. _ : -`.
    #[arg(long, env = "GLOBAL_KEYPREFIX", value_name = "PREFIX", default_value = "", value_parser = key_prefix)]
    pub global_keyprefix: String,

    /// `global_keyprefix` of the other parties' result backend, where it is another one than the broker's; empty for none.
    /// Celery 5.3 and 5.4 write an underscore after it in any case: for their `app:` this is `app:_`.
    #[arg(long, env = "RESULT_KEYPREFIX", value_name = "PREFIX", value_parser = key_prefix)]
    pub result_keyprefix: Option<String>,

    /// `priority_steps` of the other parties: where the bands of priorities begin, 0 being served first.
    #[arg(long, env = "PRIORITY_STEPS", value_name = "STEPS", value_delimiter = ',', default_value = "0,3,6,9")]
    pub priority_steps: Vec<u8>,

    /// `sep` of the other parties: stands between a queue's name and its band. The bytes 06 16 unless it is given.
    #[arg(long, env = "PRIORITY_SEPARATOR", default_value = "\u{6}\u{16}", hide_default_value = true, value_parser = separator)]
    pub separator: String,

    /// `unacked_key` of the other parties: the hash of the tasks that workers hold.
    ///
    /// `unacked_index_key` and `unacked_mutex_key` must be the same name with `_index` and `_mutex` behind it.
    #[arg(long, env = "UNACKED_KEY", value_name = "KEY", default_value = "unacked", value_parser = key_name)]
    pub unacked_key: String,

    /// Seconds that results are kept; 0: for good. The operator must know of it: it counts on results that long.
    #[arg(long, env = "RESULT_EXPIRES", value_name = "SECONDS", default_value_t = 3600)]
    pub result_expires: u32,

    /// Queue of tasks that this worker sends and no route is known for.
    #[arg(long, value_name = "QUEUE", default_value = "default")]
    pub default_queue: String,

    /// `task_default_priority` of the other parties: priority of tasks that this worker sends and whose signature has none,
    /// 0 to 255. Celery sends 0, the most urgent, where that setting is not set.
    #[arg(long, value_name = "PRIORITY")]
    pub default_priority: Option<u8>,

    /// Do not ask the other workers at start which tasks are revoked.
    #[arg(long)]
    pub without_mingle: bool,

    /// Send no task events until somebody asks for them.
    #[arg(long)]
    pub without_task_events: bool,

    /// Run the command of this task for an example call, say whether it keeps the contract, and exit.
    #[arg(long, value_name = "TASK")]
    pub check_command: Option<String>,

    /// The call of --check-command: `{"args": […], "kwargs": {…}}`; `-` reads it from standard input.
    #[arg(long, value_name = "JSON", requires = "check_command")]
    pub call: Option<String>,

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

/// What becomes of a run whose state is saved when its worker is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnDrain {
    /// It goes on to its end.
    #[default]
    Finish,
    /// It is stopped at its next checkpoint, and goes on elsewhere.
    Checkpoint,
}

/// Why a worker cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The environment does not say where Redis is.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The command for credentials does not give any.
    #[error("REDIS_CREDENTIALS_COMMAND failed: {0}")]
    Credentials(String),
    /// The bands of priorities make no sense.
    #[error("--priority-steps: {0}")]
    Bands(#[from] InvalidBands),
    /// There is nothing to consume.
    #[error("--queues names no queue")]
    NoQueues,
    /// There is no place for the states of jobs.
    #[error("--state-folder {0:?} is no folder: create it, or mount the volume there")]
    NoStateFolder(PathBuf),
    /// A queue of which it cannot be told where its name ends.
    #[error("--queues: {0:?} is ambiguous: write name=routing.key, for example {0}={0}")]
    AmbiguousQueue(String),
}

impl Config {
    /// The way to Redis, as environment and files say.
    pub fn access(&self) -> Result<Access, ConfigError> {
        let access = Access::of_environment(|name| std::env::var(name).ok())?;
        Ok(Access { keys: self.keys()?, ..access })
    }

    /// The same names as the other parties', on broker and result backend.
    fn keys(&self) -> Result<Keys, ConfigError> {
        Bands::new(self.priority_steps.clone(), &self.separator)?;
        Ok(Keys {
            separator: self.separator.clone(),
            priority_steps: self.priority_steps.clone(),
            global_prefix: self.global_keyprefix.clone(),
            unacked: self.unacked_key.clone(),
            result_prefix: self.result_keyprefix.as_ref().unwrap_or(&self.global_keyprefix).clone(),
        })
    }

    /// The queues, in the order in which they are looked through.
    pub fn queues(&self) -> Result<Vec<Queue>, ConfigError> {
        let named = self.queues.iter().map(|queue| queue.trim()).filter(|queue| !queue.is_empty());
        let queues = named.map(queue).collect::<Result<Vec<Queue>, _>>()?;
        if queues.is_empty() { Err(ConfigError::NoQueues) } else { Ok(queues) }
    }

    /// What tasks that this worker sends get whose signature does not say.
    pub fn defaults(&self) -> Defaults {
        Defaults { priority: self.default_priority.unwrap_or_default().into(), ..Defaults::default() }
    }

    /// Limits of tasks whose message has none, as messages have them.
    pub fn limits(&self) -> TimeLimit {
        let limit = |seconds: u32| (seconds > 0).then(|| Number::from(i64::from(seconds)));
        TimeLimit { hard: limit(self.time_limit), soft: limit(self.soft_time_limit) }
    }

    /// The folder for the states of jobs, where they are not on Redis.
    pub fn state_folder(&self) -> Result<Option<&Path>, ConfigError> {
        match self.state_folder.as_deref() {
            Some(folder) if !folder.is_dir() => Err(ConfigError::NoStateFolder(folder.to_owned())),
            folder => Ok(folder),
        }
    }

    /// How long the state of a job is kept.
    pub fn state_retention(&self) -> Duration {
        Duration::from_secs(self.state_retention.into())
    }

    /// Most bytes of a job's state.
    pub fn state_max_bytes(&self) -> u64 {
        let usual = if self.state_folder.is_some() { 4 << 30 } else { 16 << 20 };
        self.state_max_bytes.unwrap_or(usual)
    }

    /// How long results are kept.
    pub fn result_expires(&self) -> Option<Duration> {
        seconds(self.result_expires)
    }
}

/// A queue as it is given: `name`, `name=routing.key`, or `name:routing.key` as in earlier versions.
fn queue(given: &str) -> Result<Queue, ConfigError> {
    let ambiguous = || ConfigError::AmbiguousQueue(given.to_owned());
    let (name, key) = match given.split_once('=') {
        Some(parts) => parts,
        None => given.split_once(':').unwrap_or((given, given)),
    };
    let is_former = !given.contains('=') && key.contains(':');
    if name.is_empty() || key.is_empty() || is_former { Err(ambiguous()) } else { Ok(Queue::new(name, key)) }
}

/// A prefix of keys as a `CrewWorkerPool` may name it.
fn key_prefix(text: &str) -> Result<String, String> {
    if text.len() > 128 || !text.chars().all(is_plain) {
        return Err("must be at most 128 letters, digits and . _ : -".to_owned());
    }
    Ok(text.to_owned())
}

/// A key as a `CrewWorkerPool` may name it.
fn key_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { key_prefix(text) }
}

/// A separator of bands as a `CrewWorkerPool` may name it.
fn separator(text: &str) -> Result<String, String> {
    if !(1..=16).contains(&text.len()) || !text.chars().all(|c| is_plain(c) || matches!(c, '\u{6}' | '\u{16}')) {
        return Err("must be 1 to 16 letters, digits, . _ : - or the bytes 06 and 16".to_owned());
    }
    Ok(text.to_owned())
}

/// What may be in a key without a meaning of its own, to Redis or to kombu.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-')
}

/// Seconds as typed, where 0 is none.
pub(super) fn seconds(number: u32) -> Option<Duration> {
    (number > 0).then(|| Duration::from_secs(number.into()))
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::Config;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    pub fn parse(options: &[&str]) -> Result<Config, String> {
        let given = ["worker"].iter().chain(options);
        Cli::try_parse_from(given).map(|cli| cli.config).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_have_kombus_names_unless_the_environment_sets_others() {
        let names =
            |options: &[&str]| parse(options).and_then(|config| config.keys().map_err(|error| error.to_string()));
        assert_eq!(names(&[]), Ok(crate::store::Keys::default()));
        let options = ["--global-keyprefix=a:", "--priority-steps=0,5", "--separator=:p", "--unacked-key=held"];
        let told = names(&options).unwrap();
        assert_eq!((&*told.global_prefix, &*told.result_prefix, &*told.unacked), ("a:", "a:", "held"));
        assert_eq!((&told.priority_steps[..], &*told.separator), (&[0, 5][..], ":p"));
        for (given, expected) in [("app:_", "app:_"), ("", "")] {
            let told = names(&["--global-keyprefix=a:", &format!("--result-keyprefix={given}")]).unwrap();
            assert_eq!((&*told.global_prefix, &*told.result_prefix), ("a:", expected));
        }
        let refused = names(&["--priority-steps=3,0"]);
        assert_eq!(refused.unwrap_err(), "--priority-steps: priority steps must increase: 0 follows 3");
    }

    #[test]
    fn queues_may_have_every_character_that_a_pool_allows_and_an_ambiguous_spelling_is_refused() {
        let queues = |given: &str| {
            let queues = parse(&["-Q", given]).unwrap().queues().map_err(|error| error.to_string())?;
            Ok(queues.iter().map(|queue| format!("{} {} {}", queue.name, queue.exchange, queue.routing_key)).collect())
        };
        let read = |given: &str, expected: &[&str]| {
            assert_eq!(queues(given), Ok::<Vec<String>, String>(expected.iter().map(|&queue| queue.into()).collect()));
        };
        read("app:jobs=app:jobs,default", &["app:jobs app:jobs app:jobs", "default default default"]);
        read("a.B_1-:x=crew:jobs.#, b", &["a.B_1-:x a.B_1-:x crew:jobs.#", "b b b"]);
        read("crew_jobs:crew.jobs,default:default", &["crew_jobs crew_jobs crew.jobs", "default default default"]);
        for given in ["app:jobs:app:jobs", "a:b:c", "a:", ":a", "=a", "a="] {
            let refused: Result<Vec<String>, String> = queues(given);
            assert!(refused.unwrap_err().contains("is ambiguous: write name=routing.key"), "{given}");
        }
    }

    #[test]
    fn names_that_redis_or_kombu_would_take_for_something_else_are_refused() {
        for option in [
            "--global-keyprefix=a*",
            "--result-keyprefix=a*",
            "--unacked-key=",
            "--unacked-key=a b",
            "--separator=",
            "--separator={",
        ] {
            let refused = parse(&[option]).expect_err(option);
            assert!(refused.contains("must "), "{option}: {refused}");
        }
        assert!(parse(&["--priority-steps=0,x"]).is_err());
    }
}
