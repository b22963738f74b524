//! One call of a server, from the question to what came of it.

use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::super::classify::{Exit, Rules, Seen, classify, cut_short, failed};
use super::super::memory::Peak;
use super::super::pipes::Heard;
use super::super::stderr::{Stderr, Tail};
use super::super::supervise::{Deadlines, Done, supervise};
use super::super::values::Printed;
use super::super::{Bounds, Call, Output, Spec, start};
use super::child::Child;
use super::talk::Talk;
use crate::worker::outcome::Outcome;

/// How long the last words of a server are waited for that answers with an error, or in the middle of a line.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// One call.
pub(super) struct Turn<'a> {
    pub call: &'a Call,
    pub start: Instant,
    pub bounds: &'a Bounds,
    pub spec: &'a Spec,
    pub done: Done,
}

impl Turn<'_> {
    fn rules(&self) -> Rules<'_> {
        let Spec { retry_exit_codes, .. } = self.spec;
        Rules { id: &self.call.id, output: Output::Json, retry_exit_codes, hard: self.call.hard }
    }

    /// Asks, and listens until the call has been answered or will not be.
    pub(super) async fn listen(
        &mut self,
        child: &mut Child,
        talk: &mut Talk<'_>,
        stderr: &mut Stderr<'_>,
        peak: &mut Peak,
        stop: &mut oneshot::Receiver<i32>,
        started: &mut Option<oneshot::Sender<u32>>,
    ) -> End {
        let Child { group, pipes, lines, .. } = child;
        let number = group.number();
        pipes.write(start::input(self.call), false);
        let deadlines = Deadlines::new(self.start, self.call, self.spec);
        let mut ended = std::pin::pin!(supervise(group, deadlines, stop, &mut self.done));
        loop {
            tokio::select! {
                biased;
                () = &mut ended => return End::Ended,
                heard = pipes.hear() => match heard {
                    Heard::Output([]) => return End::Mute,
                    Heard::Output(chunk) => {
                        lines.push(chunk, |line| talk.line(&line));
                        peak.printed();
                        if talk.has_ended() {
                            return End::Said;
                        }
                    }
                    Heard::Errors(chunk) => stderr.take(chunk),
                    Heard::Input { taken: false } => return End::Refused,
                    Heard::Input { taken: true } => {
                        // The receiver may be dropped already.
                        let _ = started.take().map(|started| started.send(number));
                    }
                },
                () = peak.watch() => {}
            }
        }
    }

    /// What an answer means, and whether the server can be asked again.
    pub(super) async fn answered(
        &self,
        child: &mut Child,
        mut talk: Talk<'_>,
        mut stderr: Stderr<'_>,
    ) -> (Outcome, bool) {
        let Child { group, pipes, lines, .. } = child;
        if !talk.has_succeeded() || lines.begun() {
            // What it wrote about a failure, before it answered, arrives through another pipe. And programs that do not
            // buffer their output write the end of a line after the line.
            let rest = async {
                loop {
                    match pipes.hear().await {
                        Heard::Output(chunk) => lines.push(chunk, |line| talk.line(&line)),
                        Heard::Errors(chunk) => stderr.take(chunk),
                        Heard::Input { .. } => {}
                    }
                }
            };
            let _: Result<(), _> = timeout(LAST_WORDS, rest).await;
        }
        if !talk.keeps_the_contract() {
            group.signal(Signal::KILL);
        }
        let in_step = talk.keeps_the_contract() && talk.in_step() && !lines.begun() && pipes.all_written();
        (self.outcome(talk, &stderr.finish()), in_step && self.done == Done::default())
    }

    /// What came of a call whose server has ended, or has to.
    pub(super) async fn lost(
        &self,
        child: Child,
        mut talk: Talk<'_>,
        mut stderr: Stderr<'_>,
        oom_kills: Option<u64>,
    ) -> (Outcome, bool) {
        let Child { mut group, mut pipes, mut lines, calls, program: _ } = child;
        // Pipes are closed a moment before a process has ended.
        let by_itself = timeout(self.bounds.pipes, group.ended()).await.is_ok();
        if !by_itself {
            group.signal(Signal::KILL);
        }
        let exit = Exit::from(group.reap().await);
        let rest = async {
            while !pipes.closed() {
                match pipes.hear().await {
                    Heard::Output(chunk) => lines.push(chunk, |line| talk.line(&line)),
                    Heard::Errors(chunk) => stderr.take(chunk),
                    Heard::Input { .. } => {}
                }
            }
        };
        let _ = timeout(self.bounds.pipes, rest).await;
        lines.finish(|line| talk.line(&line));
        let errors = stderr.finish();
        if talk.has_ended() {
            return (self.outcome(talk, &errors), false);
        }
        let oom = self.bounds.oom_kills.count() > oom_kills;
        let seen = Seen { exit, done: self.done, printed: Printed::Text(Vec::new()), filed: None, errors, oom };
        let (message, retryable) = match cut_short(&self.rules(), self.done, &seen.errors) {
            Some(outcome) => return (outcome, false),
            None if !by_itself => ("the server closed its pipes in the middle of a call", false),
            // One that has served before may have been about to end when the call came.
            None if exit == Exit::Code(0) => ("the server ended in the middle of a call", calls > 1),
            None => return (classify(&self.rules(), &seen), seen.oom_killed()),
        };
        (failed("InvalidResult", message, &seen.errors, retryable), false)
    }

    /// What the end of a call means.
    fn outcome(&self, talk: Talk<'_>, errors: &Tail) -> Outcome {
        let said = talk.outcome(errors);
        let cut_short = cut_short(&self.rules(), self.done, errors);
        let in_time = self.done.stopped.is_none() && !self.done.hard && matches!(said, Outcome::Succeeded(_));
        cut_short.filter(|_| !in_time).unwrap_or(said)
    }
}

/// Why one no longer listens to it.
pub(super) enum End {
    /// It has said something that ends the call.
    Said,
    /// It has ended.
    Ended,
    /// It can say nothing more.
    Mute,
    /// It did not take the call.
    Refused,
}
