//! A command that stays and serves one call after the other, for programs that take long to start.
//!
//! * Each call is one line of JSON on **standard input**, the same as for a command that runs once. The end of standard
//!   input means: no more calls, end.
//! * **Standard output** has the answers: progress reports, and one line that ends the call, `{"result": …}` or
//!   `{"error": {"type": "NoStock", "message": "…"}, "retry": false}`. Without `retry`, another run is not tried. Other
//!   lines are logged. A line with the keys of an answer that is none, and an answer without a call, end the server.
//! * **Standard error** is logged as for other commands, under the name of the call that runs.
//!
//! The environment names no call. A server is asked to end after a number of calls, and is then replaced: its input is
//! closed, after `grace` it is sent SIGTERM, after another `grace` SIGKILL. Limits and stops end the server
//! too, with the outcomes of other commands; the next call starts another one. A server that answers after the soft
//! limit has finished in time, and is replaced nevertheless. One that ends between two calls is replaced
//! silently; if a call comes at that very moment and the server exits with 0, the call fails and may be tried again.

mod child;
mod talk;
mod turn;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::lines::Lines;
use super::memory::Peak;
use super::pipes::Pipes;
use super::reports::Reports;
use super::stderr::{Names, Stderr};
use super::supervise::Done;
use super::{Bounds, Call, Report, Spec, spawn};
use crate::worker::outcome::{Memory, Outcome};
use child::Child;
use talk::Talk;
use turn::{End, Turn};

/// A command that serves calls, started when the first one comes. Dropping it kills it.
pub struct Server {
    spec: Spec,
    max_calls: u32,
    bounds: Bounds,
    child: Option<Child>,
    leaving: JoinSet<()>,
}

impl Server {
    /// After how many calls a server is replaced, unless the configuration says otherwise.
    pub const MAX_CALLS: u32 = 100;

    /// A server that is started with the first call. [`Spec::output`] means nothing to it, [`Spec::retry_exit_codes`]
    /// only when it ends in the middle of a call.
    pub fn new(spec: Spec, max_calls: u32) -> Self {
        let bounds = Bounds::usual();
        Self { spec, max_calls, bounds, child: None, leaving: JoinSet::new() }
    }

    /// Serves one call. The parameters are those of [`run`](super::run).
    pub async fn call(
        &mut self,
        call: &Call,
        mut stop: oneshot::Receiver<i32>,
        started: oneshot::Sender<u32>,
        reports: &Reports,
    ) -> Report {
        while self.leaving.try_join_next().is_some() {}
        let start = Instant::now();
        let mut started = Some(started);
        loop {
            let mut child = match self.ready() {
                Ok(child) => child,
                Err(outcome) => return Report::not_started(outcome, start),
            };
            let fresh = child.calls == 0;
            let mut turn = Turn { call, start, bounds: &self.bounds, spec: &self.spec, done: Done::default() };
            let mut talk = Talk::new(Names { id: &call.id, task: &call.task }, reports);
            let mut stderr = Stderr::new(talk.names);
            let process = child.group.number();
            let mut peak = if fresh { Peak::new(process) } else { Peak::anew(process) };
            child.calls += 1;
            let oom_kills = self.bounds.oom_kills.count();
            let why = turn.listen(&mut child, &mut talk, &mut stderr, &mut peak, &mut stop, &mut started).await;
            if matches!(why, End::Refused) && !fresh && turn.done == Done::default() {
                // It was about to end when the call came, and has not seen it.
                continue;
            }
            let pid = child.group.number();
            let _ = started.map(|started| started.send(pid));
            let (outcome, oom_killed) = match why {
                End::Said => {
                    let (outcome, kept) = turn.answered(&mut child, talk, stderr).await;
                    if kept && child.calls < self.max_calls {
                        self.child = Some(child);
                    } else {
                        self.leaving.spawn(child.leave(self.spec.grace));
                    }
                    (outcome, false)
                }
                End::Ended | End::Mute | End::Refused => turn.lost(child, talk, stderr, oom_kills).await,
            };
            let seconds = start.elapsed().as_secs_f64();
            let memory = Memory { peak: peak.highest(), oom_killed };
            return Report { outcome, pid: Some(pid), memory: Some(memory), seconds };
        }
    }

    /// Whether its process was started, and may be asked again.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Takes what the process writes between two calls. False if it is gone, or has to go: then it is to be closed.
    pub fn tend(&mut self) -> bool {
        while self.leaving.try_join_next().is_some() {}
        self.child.as_mut().is_some_and(Child::tend)
    }

    /// Asks the server to end, and waits until it has.
    pub async fn close(mut self) {
        if let Some(child) = self.child.take() {
            child.leave(self.spec.grace).await;
        }
        while self.leaving.join_next().await.is_some() {}
    }

    /// The running server, or a new one. It is ours until the call has ended: when the call is dropped, it is killed.
    fn ready(&mut self) -> Result<Child, Outcome> {
        if let Some(mut child) = self.child.take() {
            if child.is_waiting() {
                return Ok(child);
            }
            self.leaving.spawn(child.leave(self.spec.grace));
        }
        let mut group = spawn(&self.spec, None)?;
        let program = self.spec.command.first().cloned().unwrap_or_default();
        let pipes = Pipes::new(group.ends());
        Ok(Child { group, pipes, lines: Lines::new(self.bounds.output), calls: 0, program })
    }
}

#[cfg(test)]
mod tests;
