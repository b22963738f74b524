//! What can be typed behind `kubectl crewjob`.

pub mod schedule;

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use kube::api::DynamicObject;

use super::view;
use crate::api;
use crate::archive;

/// Run, watch and change CrewJobs, with the rights of your kubeconfig.
#[derive(Debug, Parser)]
#[command(name = "kubectl-crewjob", bin_name = "kubectl crewjob", version, about, max_term_width = 100)]
pub struct Plugin {
    /// What to do.
    #[command(flatten)]
    pub ctl: Ctl,
}

/// Where, and what.
#[derive(Debug, Args)]
pub struct Ctl {
    /// Which cluster and namespace.
    #[command(flatten)]
    pub connection: Connection,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Which cluster and namespace.
#[derive(Debug, Args)]
pub struct Connection {
    /// The namespace of the jobs. Default: that of the kubeconfig's context.
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// The context of the kubeconfig. Default: its current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// The kubeconfig. Default: $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a job, and with --wait or --follow see it to its end.
    ///
    /// The exit status is then the job's: 0 succeeded, 1 failed, 3 cancelled, 4 not finished within --timeout.
    Run(Box<Run>),

    /// Wait until jobs have finished.
    ///
    /// The exit status is that of the first job that did not succeed: 1 failed, 3 cancelled, 4 not finished within
    /// --timeout; 0 when all have succeeded.
    Wait(Wait),

    /// List jobs.
    #[command(visible_alias = "ls")]
    List(Box<List>),

    /// Show the jobs of these names.
    Get(Get),

    /// Print what a job returned: indented on a terminal, in a pipe as the worker stored it.
    ///
    /// Of a job without a result the exit status says why: 1 failed or not finished, 3 cancelled.
    Result(Named),

    /// Say why a job is where it is, what would let it go on, where it waits, and when it will begin and end.
    ///
    /// It decides as the operator does, on what the API server says of the job, its pool and the pool's other jobs. When it
    /// begins and ends follows from how long the last 50 jobs ran that have succeeded.
    Explain(Explain),

    /// Print what the worker's container wrote while it ran a job, waiting until a worker has begun it.
    ///
    /// Of a worker that runs several tasks at a time the lines of the others are between those of the job.
    Logs(Logs),

    /// List the Events of a job, of its pool, of the pool's Deployment and of the Pod that runs it, oldest first.
    Events(Named),

    /// Ask for the end of jobs: a queued one is taken off its queue, a running one is stopped.
    Cancel(Selected),

    /// Hold jobs back that no worker has taken yet.
    Suspend(Selected),

    /// Let suspended jobs go on.
    Resume(Selected),

    /// Change how urgent jobs are.
    Priority {
        /// 0 to 10, 10 being the most urgent.
        #[arg(value_parser = clap::value_parser!(i32).range(0..=10))]
        priority: i32,

        /// Which jobs.
        #[command(flatten)]
        jobs: Selected,
    },

    /// Run failed or cancelled jobs once more, each as a new job that names its origin.
    Retry(Retry),

    /// List and change schedules, have a job of one made now or for times in the past.
    #[command(subcommand)]
    Schedule(schedule::Schedule),

    /// Show the load of the pools, of their queues by band of priorities, and of their workers.
    ///
    /// On a terminal it is shown anew every few seconds until it is interrupted.
    Top(Top),

    /// Sum up what jobs consumed, of those whose programs report it: requests, tokens and US dollars.
    ///
    /// Jobs that were deleted are not there any more: see the metrics for those, or the archive.
    Cost(Cost),

    /// Say what is wrong with the operator, the pools and the jobs, and how to mend it.
    ///
    /// The exit status is 0 where nothing was found, and 1 otherwise. What may not be read is said, and is no finding.
    Doctor(Doctor),

    /// Write what is to be known for a bug report into a zip file: objects of the namespace, what doctor and version say, and
    /// logs and metrics of the operator.
    ///
    /// No Secret is read. What jobs are about, their inputs and their results are left out, as are the values of variables of
    /// containers and passwords in URLs.
    Report(Report),

    /// Print the versions of this program, of the operators and of the resource definitions.
    ///
    /// The exit status is 1 where they do not fit together.
    Version(Version),

    /// Print what an existing Celery set-up would be here; nothing of it is changed.
    #[command(subcommand)]
    Import(Import),

    /// Print the helper that lets kubectl complete what is typed behind `kubectl crewjob`.
    ///
    /// Write it to an executable file kubectl_complete-crewjob on the PATH, beside kubectl-crewjob.
    Completion,

    /// Print what the last word can be.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// What is typed behind `kubectl crewjob`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// `run`
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Run {
    /// The subject the crew works on. Default: with --from that of the other job.
    #[arg(long, required_unless_present = "from")]
    pub topic: Option<String>,

    /// The name of the job. Default: made from the topic, or from the other job's name, and a few random letters.
    #[arg(long)]
    pub name: Option<String>,

    /// One more input; may be repeated. A value that is JSON is sent as such (`--input depth=3`), any other as text.
    #[arg(long = "input", value_name = "KEY=VALUE")]
    pub inputs: Vec<String>,

    /// A file with inputs, a JSON or YAML object; - is standard input. Inputs given by --input win.
    #[arg(long, value_name = "FILE")]
    pub inputs_file: Option<PathBuf>,

    /// Begin with the spec of this job.
    #[arg(long, value_name = "JOB")]
    pub from: Option<String>,

    /// The CrewWorkerPool. Default: default.
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,

    /// The queue. Default: the pool's first one.
    #[arg(long)]
    pub queue: Option<String>,

    /// How urgent: 0 to 10, 10 being the most urgent. Default: 5.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..=10))]
    pub priority: Option<i32>,

    /// The Celery task. Default: `backend.tasks.run_crew_task`.
    #[arg(long)]
    pub task: Option<String>,

    /// How often a failed run is repeated. Default: that of the pool.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(0..=100))]
    pub max_retries: Option<i32>,

    /// How long the job is kept after it finished, such as 24h. Default: that of the pool.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub ttl: Option<Duration>,

    /// Run the crew although it has a cached result for these inputs.
    #[arg(long)]
    pub bypass_cache: bool,

    /// Create the job suspended.
    #[arg(long)]
    pub suspend: bool,

    /// Of all jobs of the namespace with this key one runs; the others end as it did, without a run.
    #[arg(long = "run-once", value_name = "KEY")]
    pub key: Option<String>,

    /// Let the API server check the job, and print it, without creating it.
    #[arg(long = "dry-run", conflicts_with_all = ["wait", "follow"])]
    pub only_check: bool,

    /// Wait until the job has finished.
    #[arg(long)]
    pub wait: bool,

    /// Wait, and say on standard error what happens meanwhile: phases, reasons, progress.
    #[arg(short, long)]
    pub follow: bool,

    /// How long to wait, such as 30m. The job goes on afterwards. Default: as long as it takes.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,

    /// How to print the job that was created.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
}

/// `wait`
#[derive(Debug, Args)]
pub struct Wait {
    /// The jobs.
    #[arg(required = true, value_name = "JOB")]
    pub names: Vec<String>,

    /// How long to wait for all of them, such as 30m. Default: as long as it takes.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,

    /// Say on standard error what happens meanwhile: phases, reasons, progress.
    #[arg(short, long)]
    pub follow: bool,
}

/// Which of the jobs.
#[derive(Debug, Default, Args)]
pub struct Filter {
    /// Labels that the jobs have, as kubectl takes them.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Jobs in this phase only; may be repeated.
    #[arg(long, value_name = "PHASE")]
    pub phase: Vec<String>,

    /// Jobs of this pool only.
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,

    /// Jobs that were created within this time only, such as 24h.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub since: Option<Duration>,
}

impl Filter {
    /// Whether a job fits, apart from its labels.
    pub fn fits(&self, job: &DynamicObject, now: Timestamp) -> bool {
        self.since.is_none_or(|since| view::age(job, now).is_none_or(|age| age <= since))
            && (self.phase.is_empty() || self.phase.iter().any(|phase| phase == view::phase(job)))
            && self.pool.as_deref().is_none_or(|pool| pool == view::text(job, "/spec/poolRef/name"))
    }

    /// Whether it leaves any job out.
    pub fn is_set(&self) -> bool {
        let Self { selector, phase, pool, since } = self;
        selector.is_some() || !phase.is_empty() || pool.is_some() || since.is_some()
    }
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// The jobs of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Which of them.
    #[command(flatten)]
    pub filter: Filter,

    /// How to print them.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,

    /// Print no line of headings.
    #[arg(long)]
    pub no_headers: bool,

    /// List jobs that were archived and deleted, from a file, from the files of a folder, from standard input (-), or,
    /// without a SOURCE, from the object store of --archive-s3-bucket.
    #[arg(long, value_name = "SOURCE", num_args = 0..=1, default_missing_value = "")]
    pub archived: Option<String>,

    /// The object store.
    #[command(flatten)]
    pub store: archive::Store,
}

/// `get`
#[derive(Debug, Args)]
pub struct Get {
    /// The jobs.
    #[arg(required = true, value_name = "JOB")]
    pub names: Vec<String>,

    /// How to print them.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
}

/// One job.
#[derive(Debug, Args)]
pub struct Named {
    /// The job.
    #[arg(value_name = "JOB")]
    pub name: String,
}

/// `explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// The job.
    #[arg(value_name = "JOB")]
    pub name: String,

    /// How to print it.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// The job.
    #[arg(value_name = "JOB")]
    pub name: String,

    /// Go on with what is written from now on, and with the next attempts, until the job has ended.
    #[arg(short, long)]
    pub follow: bool,

    /// The attempt, counted from 1. Default: the current or last one.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,

    /// Only the last so many of the lines that are written already.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,

    /// Only lines that this regular expression matches.
    #[arg(long, value_name = "PATTERN")]
    pub grep: Option<String>,

    /// Print when each line was written.
    #[arg(long)]
    pub timestamps: bool,

    /// The container of the Pod. Default: the one that ran the attempt, where that can be told.
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
}

/// Jobs by their names, or by what they have in common.
#[derive(Debug, Args)]
pub struct Selected {
    /// The jobs.
    #[arg(value_name = "JOB")]
    pub names: Vec<String>,

    /// All jobs of the namespace that have not finished and that the other options select.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,

    /// Which of them.
    #[command(flatten)]
    pub filter: Filter,

    /// Do not ask before more than one job that was not named is changed.
    #[arg(short, long)]
    pub yes: bool,
}

/// `retry`
#[derive(Debug, Args)]
pub struct Retry {
    /// The jobs.
    #[arg(value_name = "JOB")]
    pub names: Vec<String>,

    /// All failed jobs that the other options select.
    #[arg(long, conflicts_with = "names")]
    pub failed: bool,

    /// Begin with the state that the job has left, as far as its workers have saved one.
    #[arg(long)]
    pub resume: bool,

    /// Which of them.
    #[command(flatten)]
    pub filter: Filter,

    /// Do not ask before more than one job that was not named is run again.
    #[arg(short, long)]
    pub yes: bool,
}

/// `report`
#[derive(Debug, Args)]
pub struct Report {
    /// The file; it must not be there. Default: crewjob-NAMESPACE-TIME.zip.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// With topics, inputs and results of the jobs.
    #[arg(long)]
    pub with_inputs: bool,
}

/// `cost`
#[derive(Debug, Args)]
pub struct Cost {
    /// The jobs of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Which of them.
    #[command(flatten)]
    pub filter: Filter,

    /// What is summed up: by model, namespace, pool, day (UTC, of the end), or label=NAME.
    #[arg(long, value_name = "KEY", default_value = "model", value_parser = by)]
    pub by: By,

    /// How to print it; a table by default.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,

    /// Print no line of headings.
    #[arg(long)]
    pub no_headers: bool,
}

/// By what `cost` sums up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// The model.
    Model,
    /// The namespace of the job.
    Namespace,
    /// The pool.
    Pool,
    /// The day on which the job ended.
    Day,
    /// The value of this label.
    Label(String),
}

fn by(text: &str) -> Result<By, String> {
    match (text, text.split_once('=')) {
        ("model", _) => Ok(By::Model),
        ("namespace", _) => Ok(By::Namespace),
        ("pool", _) => Ok(By::Pool),
        ("day", _) => Ok(By::Day),
        (_, Some(("label", name))) if !name.is_empty() => Ok(By::Label(name.to_owned())),
        _ => Err("must be model, namespace, pool, day, or label=NAME such as label=customer".to_owned()),
    }
}

/// `top`
#[derive(Debug, Args)]
pub struct Top {
    /// The pools of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// How often it is shown anew. The operator writes the load of a pool at most every few seconds.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    pub every: Duration,

    /// Show it once on a terminal, too.
    #[arg(long)]
    pub once: bool,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// The pools and jobs of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Let `backend.tasks.health_check` run in each pool, and wait until it comes back; the job is deleted again.
    #[arg(long)]
    pub enqueue: bool,

    /// Look at the Redis of the pools, too: this needs the right to read their Secrets, and a way to Redis.
    #[arg(long)]
    pub redis: bool,

    /// How long to wait for each of these jobs.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "3m", requires = "enqueue")]
    pub timeout: Duration,

    /// How to print what was found.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `version`
#[derive(Debug, Args)]
pub struct Version {
    /// Ask no cluster.
    #[arg(long)]
    pub client: bool,

    /// How to print them.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// What of a Celery set-up is printed.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// The CrewWorkerPool that fits the workers that answer, with what they should have set otherwise.
    Pool {
        #[command(flatten)]
        from: ImportFrom,

        /// The name of the pool.
        #[arg(long, default_value = api::DEFAULT_POOL)]
        name: String,

        /// How to print it. Default: yaml.
        #[arg(short, long, value_enum)]
        output: Option<Format>,
    },

    /// The messages that wait, as suspended CrewJobs with the same calls.
    Jobs {
        #[command(flatten)]
        from: ImportFrom,

        /// A queue; may be repeated. Default: those that the workers that answer consume.
        #[arg(long = "queue", value_name = "QUEUE")]
        queues: Vec<String>,

        /// The CrewWorkerPool of the jobs.
        #[arg(long, default_value = api::DEFAULT_POOL)]
        pool: String,

        /// How to print them. Default: yaml.
        #[arg(short, long, value_enum)]
        output: Option<Format>,
    },
}

/// Where the broker of a Celery set-up is.
#[derive(Debug, Args)]
pub struct ImportFrom {
    /// A Secret of the namespace with `REDIS_URL` and the other keys that the Secret of a pool may have. Default: the environment
    /// variables that a native worker reads, `REDIS_URL` and the others.
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,

    /// `global_keyprefix` of the broker, which its workers do not tell.
    #[arg(long, value_name = "PREFIX")]
    pub global_keyprefix: Option<String>,
}

/// How something is printed that is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
}

/// How objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// The kind and the name.
    Name,
    /// A table with more columns.
    Wide,
    /// The object as JSON.
    Json,
    /// The object as YAML.
    Yaml,
}

fn duration(text: &str) -> Result<Duration, String> {
    api::Duration::from_str(text).map(api::Duration::to_std).map_err(|error| error.to_string())
}
