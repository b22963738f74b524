//! `--check-command`: a command is tried, without Redis.

use std::io::Write as _;

use super::command::{self, Example};
use super::config::Config;
use super::crew::Arguments;
use super::registry::{Registry, Task};
use super::scratch;
use super::tasks::TasksError;

/// Why the trial of a command does not pass.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The tasks cannot be read.
    #[error(transparent)]
    Tasks(#[from] TasksError),
    /// A command is to be tried that there is not.
    #[error("no command for the task {task}; there are: {known}")]
    NoSuchCommand {
        /// The task.
        task: String,
        /// Tasks with a command.
        known: String,
    },
    /// What a command is to be tried with is no call.
    #[error("--call is not {{\"args\": […], \"kwargs\": {{…}}}}: {0}")]
    Call(String),
    /// Nothing can be said on standard output.
    #[error("writing to standard output")]
    Print(#[source] std::io::Error),
    /// A command does not keep its contract.
    #[error("the command does not keep the contract of docs/worker-commands.md: {0}")]
    Check(String),
}

/// Runs the command of this task for the call that is given, or for an example, and says what came of it.
pub async fn check_command(config: &Config, task: &str) -> Result<(), TrialError> {
    let registry = Registry::new(config)?;
    let Some(runner) = registry.command(task) else {
        let known = registry.names().filter(|name| registry.command(name).is_some()).collect::<Vec<_>>().join(", ");
        return Err(TrialError::NoSuchCommand { task: task.to_owned(), known });
    };
    let is_crew = match registry.get(task) {
        Some(Task::Crew(..)) => true,
        Some(Task::Command(_) | Task::Builtin(_)) | None => false,
    };
    let example = match &config.call {
        None if is_crew => Example { kwargs: Arguments::example().kwargs(), ..Example::default() },
        None => Example::default(),
        Some(given) => example(given, is_crew)?,
    };
    let checked = command::check(&runner.spec, runner.serves.is_some(), task, example).await;
    scratch::remove();
    match checked {
        // Not with `println!`, which panics where standard output is closed.
        Ok(said) => writeln!(std::io::stdout(), "{said}").map_err(TrialError::Print),
        Err(said) => Err(TrialError::Check(said)),
    }
}

/// The call that was given, as a crew or another command gets it.
fn example(given: &str, is_crew: bool) -> Result<Example, TrialError> {
    let text = match given {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| TrialError::Call(error.to_string()))?,
        text => text.to_owned(),
    };
    let Example { args, kwargs } = Example::parse(&text).map_err(TrialError::Call)?;
    if !is_crew {
        return Ok(Example { args, kwargs });
    }
    let bound = Arguments::bind(&args, &kwargs).map_err(|failure| TrialError::Call(failure.exception.message()))?;
    Ok(Example { kwargs: bound.kwargs(), ..Example::default() })
}
