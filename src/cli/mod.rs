//! The command line: what was typed becomes a call of a subcommand's `run`.

mod apply;
mod args;
pub mod crds;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::ctl::{self, args::Plugin};
use crate::gateway;
use crate::operator;
use crate::runtime::telemetry::{self, chain};
use crate::worker;
use args::{Cli, Command, Crds};

/// What was asked for was not done.
const FAILED: u8 = 1;
/// Under this name the program is a plugin of kubectl, which finds it on the PATH.
const PLUGIN: &str = "kubectl-crewjob";

/// Runs what was typed. The exit code is 0 when it was done, 1 when it was not, 2 when it was not understood.
pub async fn run() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    if Path::new(&program).file_stem().is_some_and(|name| name == PLUGIN) {
        return ctl::run(Plugin::parse().ctl).await;
    }
    let outcome = match Cli::parse().command {
        Command::Ctl(ctl) => return ctl::run(*ctl).await,
        Command::Operator(config) => operate(*config).await,
        Command::Worker(config) => work(*config).await,
        Command::Gateway(config) => serve(*config).await,
        Command::Install { directory } => install(&directory),
        Command::Completion { shell } => complete(shell),
        Command::Crds(Crds::Print) => print(crds::print),
        Command::Crds(Crds::Apply { file, field_manager }) => {
            apply::apply(file.as_deref(), &field_manager).await.map_err(|error| chain(&error))
        }
    };
    telemetry::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "crewjob: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// The system gives no thread, or no event queue.
pub fn not_started(error: &io::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "crewjob: starting threads: {error}");
    ExitCode::from(FAILED)
}

async fn operate(config: operator::Config) -> Result<(), String> {
    telemetry::init(config.log_format, &config.log)
        .map_err(|error| format!("--log {:?} is not a filter: {error}", config.log))?;
    operator::run(config).await.map_err(|error| chain(&error))
}

async fn work(config: worker::Config) -> Result<(), String> {
    telemetry::init(config.log_format, &config.log)
        .map_err(|error| format!("--log {:?} is not a filter: {error}", config.log))?;
    worker::run(config).await.map_err(|error| chain(&error))
}

async fn serve(config: gateway::Config) -> Result<(), String> {
    telemetry::init(config.log_format, &config.log)
        .map_err(|error| format!("--log {:?} is not a filter: {error}", config.log))?;
    gateway::run(config).await.map_err(|error| chain(&error))
}

/// The copy gets its name when it is whole.
fn install(directory: &Path) -> Result<(), String> {
    let copy = || -> io::Result<()> {
        let (part, whole) = (directory.join(".crewjob.part"), directory.join("crewjob"));
        std::fs::copy(std::env::current_exe()?, &part)?;
        std::fs::rename(part, whole)
    };
    copy().map_err(|error| format!("copying this program into {}: {error}", directory.display()))
}

fn complete(shell: clap_complete::Shell) -> Result<(), String> {
    print(|out| {
        clap_complete::generate(shell, &mut Cli::command(), "crewjob", out);
        Ok(())
    })
}

fn print(text: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<(), String> {
    let mut printed = Vec::new();
    let done = text(&mut printed).and_then(|()| io::stdout().write_all(&printed));
    match done {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("printing: {error}")),
        Ok(()) | Err(_) => Ok(()), // a reader that has seen enough, such as `head`
    }
}
