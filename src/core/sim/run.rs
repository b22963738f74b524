//! How workers run what they have: begin it, under a lease or without, store what came of it, acknowledge.

use super::super::observed::Ending;
use super::super::status::TaskError;
use super::broker::Document;
use super::say;
use super::worker::{Copy, Outcome, Run, Waits};
use super::world::{Event, World};

/// How often a lease is renewed.
pub const RENEW_EVERY: i64 = 2_000;
/// How long a copy waits that was put aside for the first time.
const FIRST_WAIT: i64 = 500;

/// What a leased worker makes of a copy that it could begin.
enum Verdict {
    Run,
    /// Somebody else runs it, or nobody can say: to be tried again in so many milliseconds.
    PutAside(i64),
    /// It has ended before.
    Drop,
}

impl World {
    /// Begins what waits while a process is free.
    pub fn start_runs(&mut self, pod: usize) {
        while self.pods[pod].up && self.pods[pod].running() < self.pods[pod].concurrency {
            let is_next = |copy: &Copy| copy.run.is_none() && copy.waits != Waits::Aside;
            let Some(index) = self.pods[pod].copies.iter().position(is_next) else { return };
            match self.may_begin(pod, index) {
                Verdict::Run => self.begin(pod, index),
                Verdict::PutAside(wait) => self.put_aside(pod, index, wait),
                Verdict::Drop => self.drop_copy(pod, index),
            }
        }
    }

    /// Takes the lease, where the worker needs one, and looks at the result after that.
    fn may_begin(&mut self, pod: usize, index: usize) -> Verdict {
        if !self.pods[pod].leased {
            return Verdict::Run;
        }
        if self.broker.down {
            return Verdict::PutAside(RENEW_EVERY);
        }
        let task = self.pods[pod].copies[index].message.id.task;
        let run = self.runs.len();
        if let Err(remaining) = self.broker.take_lease(task, run) {
            return Verdict::PutAside(remaining);
        }
        match self.broker.document(task) {
            Some(Document::Ended { .. }) => {
                self.broker.give_up_lease(task, run);
                Verdict::Drop
            }
            Some(Document::Started { .. }) | None => Verdict::Run,
        }
    }

    fn begin(&mut self, pod: usize, index: usize) {
        let message = self.pods[pod].copies[index].message;
        let run = self.begin_run(message, self.pods[pod].leased);
        let copy = &mut self.pods[pod].copies[index];
        copy.run = Some(run);
        copy.began_at = Some(self.now);
        let (container, early, silent, leased) = {
            let it = &self.pods[pod];
            (it.container, it.early, it.silent, it.leased)
        };
        say!(self, "{} begins {} (run {run})", self.pods[pod].name, self.name_of(message));
        if early && !self.broker.down {
            self.broker.ack(message.tag());
        }
        if !silent && !self.broker.down {
            self.broker.store(message.id.task, Document::Started { pod });
            self.announce(pod, message, Some(self.now));
            self.hint(message.job, message.id.task);
        }
        if leased {
            self.at(RENEW_EVERY, Event::Renew { pod, container, run });
        }
        let lasts = self.duration_of(message.job);
        self.at(lasts, Event::Finish { pod, container, run });
    }

    // === leases ===

    fn put_aside(&mut self, pod: usize, index: usize, wait: i64) {
        let container = self.pods[pod].container;
        let copy = &mut self.pods[pod].copies[index];
        let is_first = copy.waits == Waits::InLine;
        copy.waits = Waits::Aside;
        let (number, message) = (copy.number, copy.message);
        self.count("put aside");
        let wait = if is_first { wait.min(FIRST_WAIT) } else { wait };
        say!(self, "{} puts {} aside for {wait} ms", self.pods[pod].name, self.name_of(message));
        self.at(wait, Event::TryAgain { pod, container, number });
    }

    pub fn try_again(&mut self, pod: usize, container: u32, number: u32) {
        if !self.is_container(pod, container) {
            return;
        }
        let it = &mut self.pods[pod];
        // Without it the connection was lost: the message comes again from the queue.
        let Some(index) = it.copies.iter().position(|copy| copy.number == number) else { return };
        it.copies[index].waits = Waits::AgainInLine;
        let message = it.copies[index].message;
        if it.revoked.contains(&message.id.task) && !self.broker.down {
            self.broker.store(message.id.task, Document::Ended { how: Ending::Revoked, pod });
            self.drop_copy(pod, index);
            self.hint(message.job, message.id.task);
        }
        self.start_runs(pod);
    }

    /// A copy of something that is over: acknowledged, and not run.
    fn drop_copy(&mut self, pod: usize, index: usize) {
        let copy = self.pods[pod].copies.remove(index);
        say!(self, "{} does not run {} again", self.pods[pod].name, self.name_of(copy.message));
        self.count("copy dropped");
        self.broker.ack(copy.message.tag());
        self.leave_when_drained(pod);
        self.at(1, Event::Poll { pod });
    }

    pub fn renew_lease(&mut self, pod: usize, container: u32, run: usize) {
        if !self.is_container(pod, container) || self.runs[run].over {
            return;
        }
        if !self.broker.down && !self.broker.renew_lease(self.runs[run].tag.0, run) {
            say!(self, "{} has lost the lease of run {run}", self.pods[pod].name);
            self.count("lease lost");
        }
        self.at(RENEW_EVERY, Event::Renew { pod, container, run });
    }

    // === the end ===

    /// A run is over: its document is stored.
    pub fn finish(&mut self, pod: usize, container: u32, run: usize) {
        if !self.is_container(pod, container) || !self.pods[pod].copies.iter().any(|copy| copy.run == Some(run)) {
            return;
        }
        if self.broker.down {
            self.at(500, Event::Finish { pod, container, run });
            return;
        }
        let Run { outcome, tag, job, .. } = self.runs[run];
        let how = match outcome {
            Outcome::Succeeds => Ending::Succeeded(self.result_of(job)),
            Outcome::Fails => Ending::Failed(TaskError::new("ValueError", "no luck", None)),
            Outcome::FailsForGood => Ending::Failed(TaskError::new("Fatal", "never again", None)),
            Outcome::KillsChild => Ending::ChildLost(TaskError::new("WorkerLostError", "signal 9", None)),
            Outcome::KillsContainer => {
                say!(self, "{} runs out of memory in run {run}", self.pods[pod].name);
                return self.kill_container(pod);
            }
        };
        say!(self, "{} stores {outcome:?} of run {run}", self.pods[pod].name);
        self.runs[run].over = true;
        self.runs[run].succeeded = outcome == Outcome::Succeeds;
        self.runs[run].stored_at = Some(self.now);
        self.broker.store(tag.0, Document::Ended { how, pod });
        // A child that was killed leaves its lease to run out.
        if outcome != Outcome::KillsChild {
            self.broker.give_up_lease(tag.0, run);
        }
        self.hint(job, tag.0);
        let slow = self.chaos.kills && self.rng.per_mille(300);
        let gap = if slow { self.rng.between(1, 4_000) } else { 0 };
        if gap == 0 {
            self.ack(pod, container, run);
        } else {
            self.at(gap, Event::Ack { pod, container, run });
        }
    }

    pub fn ack(&mut self, pod: usize, container: u32, run: usize) {
        if !self.is_container(pod, container) {
            return;
        }
        let Some(index) = self.pods[pod].copies.iter().position(|copy| copy.run == Some(run)) else { return };
        let copy = self.pods[pod].copies.remove(index);
        if !self.broker.down {
            self.broker.ack(copy.message.tag());
        }
        self.start_runs(pod);
        self.leave_when_drained(pod);
        self.at(1, Event::Poll { pod });
    }
}
