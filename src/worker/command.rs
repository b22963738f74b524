//! Runs one command for one task.
//!
//! # What a command is given
//!
//! A command is a program with its arguments; no shell is involved. It is started anew for every task.
//!
//! * **Standard input** is one line of JSON, and then its end:
//!   `{"task": "shop.ship", "id": "…", "args": […], "kwargs": {…}, "retries": 0, "worker": "w@host", "time_limit": 60,
//!   "soft_time_limit": null}`. Limits are in seconds, `null` if there is none. It need not be read.
//! * **The environment** is the worker's own without `REDIS_URL` and `RESULT_BACKEND_URL`, with what the task's `env`
//!   adds, and `CREWJOB_TASK`, `CREWJOB_TASK_ID`, `CREWJOB_RETRIES` and `CREWJOB_WORKER`.
//! * **The working directory** is the task's `directory`, or the worker's own.
//!
//! # What it says
//!
//! * **Standard output**, a line that is a JSON object with the single key `progress`, for example
//!   `{"progress": {"done": 3}}`: a progress report, shown as soon as it is printed. When reports come faster than they
//!   can be stored, only the latest is.
//! * **Standard output**, anything else. With `output: json` the last line is the result and must be JSON; lines before
//!   it are logged, empty lines do not count. With `output: text` all of it is the result, as one string. Printing
//!   nothing is the result `null`. More than 16 MiB, in a line of JSON or in all of the text, is a failure.
//! * **Standard error** is logged line by line, each cut at 4 KiB. The last 20 lines, at most 4 KiB, are shown as the
//!   traceback of a failure.
//! * **The exit status**: 0 is success. One of `retryExitCodes`, 75 by default (`EX_TEMPFAIL` of `sysexits.h`), is a
//!   failure that may be tried again. Any other is a failure that may not.
//!
//! A result must be readable by every client of Celery: no `NaN` or `Infinity`, and no object that has exactly the keys
//! `__type__` and `__value__`, which Celery keeps for Python's own types.
//!
//! # How a failure is named
//!
//! * It exits with another status than 0: `CommandFailed` with `exit status 3: <the last line of standard error>`; or,
//!   if the last line of its output is `{"error": {"type": "NoStock", "message": "…"}}`, that type and message.
//! * It exits with 0, and its last line is no such JSON: `InvalidResult`.
//! * It prints more than 16 MiB: `ResultTooLarge`.
//! * It cannot be started: `CommandNotFound`, `CommandNotExecutable`, `DirectoryNotFound` or `CommandNotStarted`.
//! * A signal ends it that the worker has not sent: `billiard.exceptions.WorkerLostError`, which says so if the kernel
//!   killed it because there was no memory left.
//! * The soft limit passes, and it does not exit with 0 and a result after that:
//!   `billiard.exceptions.SoftTimeLimitExceeded`.
//! * The hard limit passes: `billiard.exceptions.TimeLimitExceeded`.
//!
//! # How it is stopped
//!
//! A command runs in its own process group. Every signal goes to the whole group, and to every process outside it that
//! descends from the command.
//!
//! * The soft limit sends SIGTERM. A command that then prints a result and exits with 0 has succeeded.
//! * The hard limit, counted from the start, sends SIGKILL.
//! * The request that stops the task names the signal; SIGKILL follows after `grace`, 10 seconds by default.
//! * When the main process has ended, what is left of its group is killed, and each process that was seen to leave the group. A
//!   daemon that has left the session too is let alone, unless the command was sent a signal. One that holds standard
//!   output open is waited for one second and then ignored.
//! * A worker that is told to go at once kills them all. Nothing can do that for a worker that is itself killed; in a
//!   container, where the worker is the first process, the kernel does.
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
//! | `supervise` | limits and stops |
//! | `orphans` | processes that are left to us |
//! | `memory` | high-water marks, and kills by the kernel |
//! | `answer` | what a line of output says |
//! | `classify` | what came of it, as a pure function |
//! | `check` | tries a command before any task depends on it |
//! | [`server`] | a command that stays and serves one call after the other |

mod answer;
mod check;
mod classify;
mod group;
mod kin;
mod lines;
mod memory;
mod orphans;
mod pipes;
mod processes;
pub mod server;
mod spec;
mod start;
mod stderr;
mod stdout;
mod supervise;

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::wire::RawJson;
use crate::worker::outcome::{LARGEST_RESULT, Memory, Outcome};
pub use check::check;
use classify::{Exit, Rules, Seen, classify};
use group::Group;
use memory::{OomKills, Peak};
use pipes::{Heard, Pipes};
pub use spec::{Call, MODULE, Output, Spec};
use stderr::{Names, Stderr};
use stdout::Stdout;
use supervise::{Deadlines, Done, supervise};

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
/// `started` is given its process id. `progress` holds the latest report. The first number that `stop` yields is the
/// signal it is stopped with; dropping the sender stops nothing. Dropping the future kills the whole group.
pub async fn run(
    spec: &Spec,
    call: &Call,
    stop: oneshot::Receiver<i32>,
    started: oneshot::Sender<u32>,
    progress: &watch::Sender<Option<RawJson>>,
) -> Report {
    run_within(&Bounds::usual(), spec, call, stop, started, progress).await
}

async fn run_within(
    bounds: &Bounds,
    spec: &Spec,
    call: &Call,
    mut stop: oneshot::Receiver<i32>,
    started: oneshot::Sender<u32>,
    progress: &watch::Sender<Option<RawJson>>,
) -> Report {
    let start = Instant::now();
    let oom_kills = bounds.oom_kills.count();
    let mut group = match spawn(spec, Some(call)) {
        Ok(group) => group,
        Err(outcome) => return Report::not_started(outcome, start),
    };
    let pid = group.number();
    // The receiver may be dropped already.
    let _ = started.send(pid);

    let names = Names { id: &call.id, task: &call.task };
    let mut stdout = Stdout::new(spec.output, bounds.output, names, progress);
    let mut stderr = Stderr::new(names);
    let mut peak = Peak::new(pid);
    let mut pipes = Pipes::new(group.ends());
    pipes.write(start::input(call), true);

    let mut done = Done::default();
    let deadlines = Deadlines::new(start, call.soft, call.hard, spec.grace);
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
    let exit = Exit::from(group.reap().await);
    let rest = async {
        while !pipes.closed() {
            match pipes.hear().await {
                Heard::Output(chunk) => stdout.take(chunk),
                Heard::Errors(chunk) => stderr.take(chunk),
                Heard::Input { .. } => {}
            }
        }
    };
    if timeout(bounds.pipes, rest).await.is_err() {
        tracing::warn!(task.id = %call.id, task.name = %call.task, "a process that left the command's group holds a pipe open; what it still prints is dropped");
    }

    let seen = Seen {
        exit,
        done,
        printed: stdout.finish(),
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
fn spawn(spec: &Spec, call: Option<&Call>) -> Result<Group, Outcome> {
    let mut command = start::command(spec)?;
    if let Some(call) = call {
        start::name_call(&mut command, call);
    }
    Group::spawn(&mut command).map_err(|error| start::not_started(spec, &error))
}

#[cfg(test)]
mod tests;
