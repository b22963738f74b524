//! The file that says which command runs which task.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::command::{self, Misplaced, Output, Recipient, Spec};

/// A larger file of a command line is taken for a program rather than a script, and is known by its name only.
const LARGEST_SCRIPT: u64 = 1 << 20;

/// What stands in the file. `docs/worker-commands.md` shows one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct File {
    /// The command behind `backend.tasks.run_crew_task`.
    pub crew: Option<Crew>,
    /// Commands by the name of their task.
    #[serde(default)]
    pub tasks: BTreeMap<String, Command>,
    /// Queues of tasks that are sent when another one has ended, by name.
    #[serde(default)]
    pub routes: BTreeMap<String, String>,
}

/// A command for a task. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "it is the key that users write")]
pub struct Command {
    /// Program and arguments; no shell reads them.
    pub command: Vec<String>,
    /// Added to the worker's own environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it runs; the worker's own directory unless it is given.
    pub directory: Option<PathBuf>,
    /// Whether it stays and serves one call after the other, for programs that take long to start.
    #[serde(default)]
    pub server: bool,
    /// Calls after which a server is replaced. Default: `--max-tasks-per-child`.
    pub max_tasks_per_child: Option<u32>,
    /// How long a server may be idle before it ends, in seconds; 0 is for ever. Default: `--server-idle-timeout`.
    pub idle_timeout: Option<u32>,
    /// What is read from its standard output.
    #[serde(default)]
    pub output: Format,
    /// Exit statuses after which another run may succeed. Default: 75, `EX_TEMPFAIL` of sysexits.h.
    pub retry_exit_codes: Option<Vec<i32>>,
    /// Between SIGTERM and SIGKILL. Default: 10.
    pub grace: Option<u32>,
    /// Which of its processes are asked to stop by the soft limit and by a stop. Default: all.
    #[serde(default)]
    pub signal: Signalled,
    /// After which a run is killed; 0 is never. Default: `--time-limit`. What the message says goes before.
    pub time_limit: Option<u32>,
    /// After which a run is asked to stop; 0 is never. Default: `--soft-time-limit`.
    pub soft_time_limit: Option<u32>,
    /// Runs after the first one of a task that may be tried again. Default: `--max-retries`.
    pub max_retries: Option<u32>,
    /// How the states of its jobs are kept.
    pub state: Option<Keep>,
}

/// How the states of a task's jobs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Keep {
    /// Whether they are kept. Default: true.
    pub enabled: bool,
    /// Another version does not begin with what this one has saved. Default: a digest of the command, of the files that it
    /// names, and of `CREWJOB_IMAGE`.
    pub version: Option<String>,
    /// How often it is looked whether files have changed, in seconds. Default: 30.
    pub interval: Option<u32>,
}

impl Default for Keep {
    fn default() -> Self {
        Self { enabled: true, version: None, interval: None }
    }
}

/// The crew: a command, and how its outputs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Crew {
    /// The name under which outputs are kept.
    #[serde(default = "default_crew")]
    pub name: String,
    /// How long an output is kept for calls with the same inputs, in seconds. Default: 0, which keeps none.
    #[serde(default)]
    pub cache: u32,
    /// The command.
    pub run: Command,
}

/// What is read from standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The last line is the result, as JSON.
    #[default]
    Json,
    /// All of it is the result, as a string.
    Text,
}

/// Which processes are asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signalled {
    /// The command and all its descendants.
    #[default]
    Group,
    /// The command alone.
    Leader,
}

/// Why a file of tasks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TasksError {
    /// It cannot be read.
    #[error("reading the tasks from {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What was seen.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path:?} is no file of tasks: {detail}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        detail: String,
    },
    /// A task has no command.
    #[error("task {task}: `command` is empty")]
    NoCommand {
        /// The task.
        task: String,
    },
    /// Arguments of the call stand where they must not.
    #[error("task {task}: {misplaced}")]
    Misplaced {
        /// The task.
        task: String,
        /// Where they stand.
        misplaced: Misplaced,
    },
    /// What was given with `--task` is not `NAME=COMMAND`.
    #[error("--task {given:?}: expected NAME=COMMAND")]
    Flag {
        /// What was given.
        given: String,
    },
}

impl File {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, TasksError> {
        let path = path.to_path_buf();
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|source| TasksError::Read { path: path.clone(), source })?;
        Self::parse(&text).map_err(|detail| TasksError::Parse { path, detail })
    }

    fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

impl Command {
    /// A command for the shell.
    pub fn shell(line: &str) -> Self {
        Self {
            command: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            directory: None,
            server: false,
            max_tasks_per_child: None,
            idle_timeout: None,
            output: Format::Json,
            retry_exit_codes: None,
            grace: None,
            signal: Signalled::Group,
            time_limit: None,
            soft_time_limit: None,
            max_retries: None,
            state: None,
        }
    }

    /// What its output depends on besides its input, in a few letters: the command line, the environment that is added, and
    /// the content of the files that the command line names.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        };
        let folder = self.directory.as_deref().unwrap_or(Path::new(""));
        for part in &self.command {
            add(part.as_bytes());
            let path = folder.join(part);
            let is_small = std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= LARGEST_SCRIPT);
            if let Some(content) = is_small.then(|| std::fs::read(&path).ok()).flatten() {
                add(&content);
            }
        }
        for (name, value) in &self.env {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        let mut text = String::new();
        for byte in digest.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// How it is run.
    pub fn spec(&self, task: &str) -> Result<Spec, TasksError> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(TasksError::NoCommand { task: task.to_owned() });
        }
        command::check_arguments(&self.command, self.server)
            .map_err(|misplaced| TasksError::Misplaced { task: task.to_owned(), misplaced })?;
        let mut spec = Spec::new(self.command.clone());
        spec.env = self.env.clone().into_iter().collect();
        spec.directory.clone_from(&self.directory);
        spec.output = match self.output {
            Format::Json => Output::Json,
            Format::Text => Output::Text,
        };
        spec.signal = match self.signal {
            Signalled::Group => Recipient::Group,
            Signalled::Leader => Recipient::Leader,
        };
        if let Some(codes) = &self.retry_exit_codes {
            spec.retry_exit_codes.clone_from(codes);
        }
        if let Some(grace) = self.grace {
            spec.grace = Duration::from_secs(grace.into());
        }
        Ok(spec)
    }
}

fn default_crew() -> String {
    "crew".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_commands_and_the_settings_that_differ_from_the_defaults() {
        let file = File::parse(
            "crew: {name: research, cache: 0, run: {command: [./crew.sh], output: text}}
tasks:
  shop.ship:
    command: [python3, ship.py]
    env: {REGION: eu}
    retryExitCodes: [3, 75]
    timeLimit: 60
",
        )
        .unwrap();
        let crew = file.crew.unwrap();
        assert_eq!((crew.name.as_str(), crew.cache, crew.run.output), ("research", 0, Format::Text));
        let ship = &file.tasks["shop.ship"];
        let spec = ship.spec("shop.ship").unwrap();
        assert_eq!(spec.env, [("REGION".to_owned(), "eu".to_owned())]);
        assert_eq!((spec.retry_exit_codes, ship.time_limit, spec.grace.as_secs()), (vec![3, 75], Some(60), 10));
    }

    #[test]
    fn no_output_is_cached_unless_the_file_says_so() {
        assert_eq!(File::parse("crew: {run: {command: [x]}}").unwrap().crew.unwrap().cache, 0);
    }

    #[test]
    fn the_digest_of_a_command_covers_its_arguments_its_environment_and_its_script() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("crew.sh");
        let digest = |argument: &str, model: &str, content: &str| {
            std::fs::write(&script, content).unwrap();
            let command = vec!["sh".to_owned(), "crew.sh".to_owned(), argument.to_owned()];
            let env = BTreeMap::from([("MODEL".to_owned(), model.to_owned())]);
            Command { command, env, directory: Some(folder.path().into()), ..Command::shell("") }.digest()
        };
        let first = digest("a", "m", "echo 1");
        assert_eq!(first, digest("a", "m", "echo 1"));
        let others = [digest("b", "m", "echo 1"), digest("a", "n", "echo 1"), digest("a", "m", "echo 2")];
        assert!(others.iter().all(|other| *other != first), "{others:?}");
    }

    #[test]
    fn an_error_in_a_file_names_its_field() {
        let unknown = File::parse("tasks:\n  a:\n    command: [x]\n    timelimit: 3\n").unwrap_err();
        assert!(unknown.contains("timelimit") && unknown.contains("timeLimit"), "{unknown}");
        let missing = File::parse("tasks:\n  a: {}\n").unwrap_err();
        assert!(missing.contains("command"), "{missing}");
        let empty = File::parse("tasks: {a: {command: []}}").unwrap().tasks["a"].spec("a").unwrap_err();
        assert_eq!(empty.to_string(), "task a: `command` is empty");
        let script = Command::shell("echo {{kwargs.topic}}").spec("a").unwrap_err();
        assert!(script.to_string().starts_with("task a: a script must not be made of arguments"), "{script}");
    }
}
