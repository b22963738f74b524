//! Which task is run in which way.

use std::collections::BTreeMap;
use std::time::Duration;

use super::builtin::Builtin;
use super::command::Spec;
use super::command::server::Server;
use super::config::{Config, seconds};
use super::outcome::Failure;
use super::routes::Routes;
use super::state::Keeping;
use super::tasks::{self, TasksError};
use crate::wire::{Headers, Number};

/// The task of crews.
pub const CREW: &str = "backend.tasks.run_crew_task";

/// How often it is looked whether the files of a state have changed, unless the task says otherwise, in seconds.
const INTERVAL: u32 = 30;

/// A way to run a task.
#[derive(Debug, Clone)]
pub enum Task {
    /// In this process.
    Builtin(Builtin),
    /// By a command.
    Command(Runner),
    /// By a command that is a crew.
    Crew(Runner, Kept),
}

/// A command and what holds for its runs.
#[derive(Debug, Clone)]
pub struct Runner {
    /// How it is run.
    pub spec: Spec,
    /// After how many calls it is replaced if it stays and serves; `None` for one that runs once per call.
    pub serves: Option<u32>,
    /// How long it may be idle then, before it ends; `None` is for ever.
    pub idle: Option<Duration>,
    /// How the states of its jobs are kept; `None` where they are not.
    pub state: Option<Keeping>,
    limits: Limits,
    max_retries: u32,
}

/// How a crew's outputs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Under which name.
    pub crew: String,
    /// For how long; `None` keeps none.
    pub ttl: Option<Duration>,
    /// What makes the output besides the inputs: the digest of the command, its environment and its files.
    pub command: String,
}

/// How long a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// After which it is killed.
    pub hard: Option<Duration>,
    /// After which it is asked to stop.
    pub soft: Option<Duration>,
}

/// All tasks a worker knows, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    tasks: BTreeMap<String, Task>,
    /// Queues of tasks that are sent when another one has ended.
    routes: BTreeMap<String, String>,
}

impl Registry {
    /// The tasks of the file and of the command line, and those that need no command. The last one of a name counts.
    pub fn new(config: &Config) -> Result<Self, TasksError> {
        let builtin = |task: &Builtin| (task.name().to_owned(), Task::Builtin(*task));
        let mut tasks: BTreeMap<_, _> = Builtin::ALL.iter().map(builtin).collect();
        let file = config.tasks.as_deref().map(tasks::File::read).transpose()?.unwrap_or_default();
        let image = std::env::var("CREWJOB_IMAGE").unwrap_or_default();
        let runner = |name: &str, command: &tasks::Command| {
            let kept = command.state.clone().unwrap_or_default();
            let version = kept.version.unwrap_or_else(|| format!("{} {image}", command.digest()));
            let state = Keeping {
                version: format!("{name} {version}"),
                interval: Duration::from_secs(kept.interval.unwrap_or(INTERVAL).max(1).into()),
            };
            let limit = |own: Option<u32>, usual: u32| seconds(own.unwrap_or(usual));
            Ok(Runner {
                spec: command.spec(name)?,
                serves: command
                    .server
                    .then(|| command.max_tasks_per_child.unwrap_or(config.max_tasks_per_child).max(1)),
                state: kept.enabled.then_some(state),
                idle: limit(command.idle_timeout, config.server_idle_timeout),
                limits: Limits {
                    hard: limit(command.time_limit, config.time_limit),
                    soft: limit(command.soft_time_limit, config.soft_time_limit),
                },
                max_retries: command.max_retries.unwrap_or(config.max_retries),
            })
        };
        if let Some(crew) = file.crew {
            let command = crew.run.digest();
            let kept = Kept { crew: crew.name, ttl: seconds(crew.cache), command };
            tasks.insert(CREW.to_owned(), Task::Crew(runner(CREW, &crew.run)?, kept));
        }
        for (name, command) in &file.tasks {
            tasks.insert(name.clone(), Task::Command(runner(name, command)?));
        }
        for given in &config.commands {
            let (name, line) = given
                .split_once('=')
                .filter(|(name, line)| !name.trim().is_empty() && !line.trim().is_empty())
                .ok_or_else(|| TasksError::Flag { given: given.clone() })?;
            let command = tasks::Command::shell(line.trim());
            tasks.insert(name.trim().to_owned(), Task::Command(runner(name, &command)?));
        }
        Ok(Self { tasks, routes: file.routes })
    }

    /// Queues of tasks that are sent when another one has ended, and of all others.
    pub fn routes(&self, default: &str) -> Routes {
        Routes::new(self.routes.clone(), default)
    }

    /// How this task is run.
    pub fn get(&self, name: &str) -> Option<&Task> {
        self.tasks.get(name)
    }

    /// The command of this task, if it is run by one.
    pub fn command(&self, name: &str) -> Option<&Runner> {
        match self.get(name)? {
            Task::Command(runner) | Task::Crew(runner, _) => Some(runner),
            Task::Builtin(_) => None,
        }
    }

    /// The names of all tasks, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tasks.keys().map(String::as_str)
    }
}

impl Task {
    /// Runs after the first one that failed and may be tried again.
    pub fn max_retries(&self) -> u32 {
        match self {
            Self::Builtin(_) => 0,
            Self::Command(runner) | Self::Crew(runner, _) => runner.max_retries,
        }
    }
}

impl Runner {
    /// Another server of this command.
    pub fn server(&self, calls: u32) -> Server {
        Server::new(self.spec.clone(), calls)
    }

    /// How long the run of this message may take: as it says, or else as was set since for the task, or else as it was
    /// set up.
    pub fn limits(&self, headers: &Headers, changed: Option<Limits>) -> Limits {
        let usual = changed.unwrap_or(self.limits);
        let asked = |limit: &Option<Number>| limit.as_ref().map(Number::as_f64).and_then(duration);
        let time = &headers.timelimit;
        Limits { hard: asked(&time.hard).or(usual.hard), soft: asked(&time.soft).or(usual.soft) }
    }
}

/// A limit in seconds; what is no length of time is no limit.
fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero())
}

/// The failure of a task that no worker of this kind knows.
pub fn not_registered(name: &str) -> Failure {
    Failure::new("celery.exceptions", "NotRegistered", name)
}
