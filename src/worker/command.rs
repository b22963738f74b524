//! Runs one command for one task.
//!
//! What a command is given, what it returns and how it is stopped is in `docs/worker-commands.md`, which is the contract.
//! In short: a command is a program with its arguments, started anew for every task in a process group of its own. It
//! reads its call as one line of JSON. It returns a value in the file that `CREWJOB_RESULT` names, or on standard output,
//! where progress is reported, too. Its exit status says whether it has failed, and whether another run may succeed.
//!
//! # Files
//!
//! | file | what it does |
//! |---|---|
//! | `spec` | how a command is run, and what one run is given |
//! | `start` | the command line, its input, and why it cannot be started |
//! | `group` | the process group and its signals |
//! | `kin`, `processes` | the descendants of a command, and what `/proc` says of it |
//! | `pipes` | all three pipes at once |
//! | `lines`, `stdout`, `stderr` | lines in bounded memory, and what is kept of them |
//! | `reports` | what a command tells while it runs |
//! | `supervise` | limits and stops |
//! | `orphans` | processes that are left to us |
//! | `memory` | high-water marks, and kills by the kernel |
//! | `answer`, `values` | what a line of output says, and the JSON among other lines |
//! | `result_file` | the file of the result |
//! | `arguments` | arguments of the call in the command line and in the environment |
//! | `exception` | which Python class a failure names |
//! | `classify` | what came of it, as a pure function |
//! | `check` | tries a command before any task depends on it |
//! | [`server`] | a command that stays and serves one call after the other |

mod answer;
mod arguments;
mod check;
mod classify;
mod exception;
mod group;
mod kin;
mod lines;
mod memory;
mod orphans;
mod pipes;
mod processes;
mod reports;
mod result_file;
pub mod server;
mod spec;
mod start;
mod stderr;
mod stdout;
mod supervise;
mod values;

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::worker::outcome::{LARGEST_RESULT, Memory, Outcome};
pub use arguments::{Misplaced, check as check_arguments};
pub use check::{Example, check};
use classify::{Exit, Rules, Seen, classify};
use group::Group;
use memory::{OomKills, Peak};
pub use orphans::{keep as reap_orphans, spawn as spawn_child};
use pipes::{Heard, Pipes};
pub use reports::Reports;
use result_file::ResultFile;
pub use spec::{Call, Job, MODULE, Output, Recipient, Spec};
use stderr::{Names, Stderr};
use stdout::Stdout;
use supervise::{Deadlines, Done, supervise};

/// How long the other processes of a group whose leader has ended may still print, before they are killed.
const LAST_LINES: Duration = Duration::from_millis(200);

/// What came of a run, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What came of it.
    pub outcome: Outcome,
    /// The process, if one was started.
    pub pid: Option<u32>,
    /// The memory it took, if a process was started.
    pub memory: Option<Memory>,
    /// How long it took.
    pub seconds: f64,
}

/// What a run may take of us.
#[derive(Debug, Clone)]
struct Bounds {
    /// Longest line, and longest text, in bytes.
    output: usize,
    /// How long pipes are read that another process holds open.
    pipes: Duration,
    oom_kills: OomKills,
}

impl Report {
    fn not_started(outcome: Outcome, start: Instant) -> Self {
        Self { outcome, pid: None, memory: None, seconds: start.elapsed().as_secs_f64() }
    }
}

impl Bounds {
    fn usual() -> Self {
        Self { output: LARGEST_RESULT, pipes: Duration::from_secs(1), oom_kills: OomKills::here() }
    }
}

/// Runs the command for one call.
///
/// `started` is given its process id. `reports` holds what it has told. The first number that `stop` yields is the
/// signal it is stopped with; dropping the sender stops nothing. Dropping the future kills the whole group.
pub async fn run(
    spec: &Spec,
    call: &Call,
    stop: oneshot::Receiver<i32>,
    started: oneshot::Sender<u32>,
    reports: &Reports,
) -> Report {
    run_within(&Bounds::usual(), spec, call, stop, started, reports).await
}

async fn run_within(
    bounds: &Bounds,
    spec: &Spec,
    call: &Call,
    mut stop: oneshot::Receiver<i32>,
    started: oneshot::Sender<u32>,
    reports: &Reports,
) -> Report {
    let start = Instant::now();
    let oom_kills = bounds.oom_kills.count();
    let file = ResultFile::new();
    let mut group = match spawn(spec, Some((call, &file))) {
        Ok(group) => group,
        Err(outcome) => return Report::not_started(outcome, start),
    };
    let pid = group.number();
    // The receiver may be dropped already.
    let _ = started.send(pid);

    let names = Names { id: &call.id, task: &call.task };
    let mut stdout = Stdout::new(spec.output, bounds.output, names, reports);
    let mut stderr = Stderr::new(names);
    let mut peak = Peak::new(pid);
    let mut pipes = Pipes::new(group.ends());
    pipes.write(start::input(call), true);

    let mut done = Done::default();
    let deadlines = Deadlines::new(start, call, spec);
    {
        let mut ended = std::pin::pin!(supervise(&mut group, deadlines, &mut stop, &mut done));
        loop {
            tokio::select! {
                biased;
                () = &mut ended => break,
                heard = pipes.hear() => match heard {
                    Heard::Output(chunk) => {
                        stdout.take(chunk);
                        peak.printed();
                    }
                    Heard::Errors(chunk) => stderr.take(chunk),
                    Heard::Input { .. } => {}
                },
                () = peak.watch() => {}
            }
        }
    }
    let mut rest = async || {
        while !pipes.closed() {
            match pipes.hear().await {
                Heard::Output(chunk) => stdout.take(chunk),
                Heard::Errors(chunk) => stderr.take(chunk),
                Heard::Input { .. } => {}
            }
        }
    };
    if done == Done::default() {
        // A process between the command and its pipe, as in `exec > >(tee log)`, passes on the last lines before it ends.
        let _: Result<(), _> = timeout(LAST_LINES.min(bounds.pipes), rest()).await;
    }
    let exit = Exit::from(group.reap().await);
    if timeout(bounds.pipes, rest()).await.is_err() {
        tracing::warn!(task.id = %call.id, task.name = %call.task, "a process that left the command's group holds a pipe open; what it still prints is dropped");
    }

    let seen = Seen {
        exit,
        done,
        printed: stdout.finish(),
        filed: file.read(bounds.output),
        errors: stderr.finish(),
        oom: bounds.oom_kills.count() > oom_kills,
    };
    let rules = Rules { id: &call.id, output: spec.output, retry_exit_codes: &spec.retry_exit_codes, hard: call.hard };
    Report {
        outcome: classify(&rules, &seen),
        pid: Some(pid),
        memory: Some(Memory { peak: peak.highest(), oom_killed: seen.oom_killed() }),
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// Starts the command, for one call or for many.
fn spawn(spec: &Spec, call: Option<(&Call, &ResultFile)>) -> Result<Group, Outcome> {
    let mut command = start::command(spec, call.map(|(call, _)| call))?;
    if let Some((call, file)) = call {
        start::name_call(&mut command, call, file.path());
    }
    Group::spawn(&mut command).map_err(|error| start::not_started(spec, &error))
}

#[cfg(test)]
mod tests;
