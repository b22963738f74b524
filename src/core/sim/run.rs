//! How workers run what they have: begin it, under a lease or without, store what came of it, acknowledge.

use super::super::observed::{Ending, Failure};
use super::super::status::{Output, TaskError};
use super::broker::{Document, Message};
use super::leases::{Admission, RENEW_EVERY};
use super::say;
use super::worker::{Copy, NO_JOB, Outcome, Run};
use super::world::{Event, World};

impl World {
    /// Begins what waits while a process is free.
    pub fn start_runs(&mut self, pod: usize) {
        while self.pods[pod].up && self.pods[pod].running() < self.pods[pod].concurrency {
            let is_next = |copy: &Copy| copy.run.is_none() && !copy.waits.is_put_aside();
            let Some(index) = self.pods[pod].copies.iter().position(is_next) else { return };
            match self.admit_copy(pod, index) {
                Admission::Run => self.begin(pod, index),
                Admission::PutAside(why) => self.put_aside(pod, index, why),
                Admission::Drop => self.drop_copy(pod, index),
            }
        }
    }

    fn begin(&mut self, pod: usize, index: usize) {
        let message = self.pods[pod].copies[index].message;
        let (leased, native) = (self.pods[pod].is_leased(), self.pods[pod].is_native());
        let run = self.begin_run(message, leased, native);
        let copy = &mut self.pods[pod].copies[index];
        copy.run = Some(run);
        copy.began_at = Some(self.now);
        let (container, early, silent, leased) = {
            let it = &self.pods[pod];
            (it.container, it.early, it.silent, it.is_leased())
        };
        say!(self, "{} begins {} (run {run})", self.pods[pod].name, self.name_of(message));
        if early && !self.broker.down && !message.is_follower {
            self.broker.ack(message.tag());
        }
        if !silent && !message.is_follower && !self.broker.down {
            self.broker.store(message.id.task, Document::Started { pod, retries: message.retries });
            self.announce(pod, message, Some(self.now));
            self.hint(message.id.task);
        }
        if leased && !message.is_follower {
            self.at(RENEW_EVERY, Event::Renew { pod, container, run });
        }
        let lasts = self.duration_of(message.job);
        // Of what it goes on by without a retry only an audit knows.
        let is_seen = (message.copy == 0 || message.retries > 0) && self.runs[run].outcome != Outcome::Replaces;
        let may_note = !early && !message.is_follower && is_seen;
        if may_note && self.rng.per_mille(200) {
            self.after(0, lasts - 1, Event::Note { pod, container, run });
        }
        self.at(lasts, Event::Finish { pod, container, run });
    }

    /// A task stores an end state itself, or what cannot be read, and goes on.
    pub fn note(&mut self, pod: usize, container: u32, run: usize) {
        let is_here = self.pods[pod].copies.iter().any(|copy| copy.run == Some(run));
        if !self.is_container(pod, container) || !is_here || self.runs[run].over || self.broker.down {
            return;
        }
        let Run { tag, outcome, retries, job, .. } = self.runs[run];
        if self.broker.ledger.put_back.contains(&tag.0) {
            return; // one of several runs acknowledges the message of all
        }
        // Of what goes on after a retry an operator believes what a worker may have stored.
        let kinds = if retries > 0 { 1 } else { 4 };
        let failure = Failure::from(TaskError::new("Unknown", "so far", None));
        let how = match self.rng.between(0, kinds) {
            1 => Ending::Failed(failure),
            2 => Ending::Unreadable("pickle".into()),
            // As in Celery, no end takes the place of a success.
            3 if outcome == Outcome::Succeeds => Ending::Succeeded(Output::of(&self.result_of(job))),
            _ => Ending::Failed(Failure { names_exception: false, ..failure }),
        };
        say!(self, "run {run} notes: {how:?}");
        self.count(match how {
            Ending::Succeeded(_) => "noted a success",
            Ending::Unreadable(_) => "noted what cannot be read",
            Ending::Failed(_) | Ending::ChildLost(_) | Ending::Revoked => "noted a failure",
        });
        self.broker.store(tag.0, Document::Ended { how: how.clone(), pod, retries });
        self.runs[run].noted = Some(how);
        self.hint(tag.0);
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
        if matches!(outcome, Outcome::Retries | Outcome::Replaces) || job == NO_JOB {
            return self.goes_on(pod, container, run);
        }
        let how = match outcome {
            Outcome::Retries | Outcome::Replaces => return,
            Outcome::Succeeds => Ending::Succeeded(Output::of(&self.result_of(job))),
            Outcome::Fails => Ending::Failed(TaskError::new("ValueError", "no luck", None).into()),
            // Its command says so, or else the policy of the job.
            Outcome::FailsForGood if self.pods[pod].is_native() => Ending::Failed(Failure {
                is_permanent: true,
                ..TaskError::new("CommandFailed", "exit status 1", None).into()
            }),
            Outcome::FailsForGood => Ending::Failed(TaskError::new("Fatal", "never again", None).into()),
            Outcome::KillsChild => Ending::ChildLost(TaskError::new("WorkerLostError", "signal 9", None)),
            Outcome::KillsContainer => {
                say!(self, "{} runs out of memory in run {run}", self.pods[pod].name);
                return self.kill_container(pod);
            }
        };
        say!(self, "{} stores {outcome:?} of run {run}", self.pods[pod].name);
        self.runs[run].over = true;
        if self.pods[pod].is_native() {
            return self.settle(pod, run, how);
        }
        self.store_end(pod, run, how);
        // A child that was killed leaves its lease to run out.
        if outcome != Outcome::KillsChild {
            self.broker.give_up_lease(tag.0, run);
        }
        let slow = self.chaos.kills && self.rng.per_mille(300);
        let gap = if slow { self.rng.between(1, 4_000) } else { 0 };
        if gap == 0 {
            self.ack(pod, container, run);
        } else {
            self.at(gap, Event::Ack { pod, container, run });
        }
    }

    /// A run is over, and the attempt goes on by another message: of a retry, or of what the task is replaced by.
    fn goes_on(&mut self, pod: usize, container: u32, run: usize) {
        let Run { outcome, tag, .. } = self.runs[run];
        let Some(copy) = self.pods[pod].copies.iter().find(|copy| copy.run == Some(run)) else { return };
        let message = copy.message;
        say!(
            self,
            "{}: run {run} of {} goes on by another message, {outcome:?}",
            self.pods[pod].name,
            self.name_of(message)
        );
        self.runs[run].over = true;
        if message.is_follower {
            self.broker.publish_copy(Message { is_follower: false, ..message });
        } else if outcome == Outcome::Replaces {
            self.broker.publish_copy(Message { is_follower: true, ..message });
            self.count("replaced");
        } else {
            let countdown = self.rng.one_of(&[0, 0, 1_000, 20_000]);
            let (retries, eta) = (message.retries + 1, self.now + countdown);
            self.broker.publish_copy(Message { retries, eta, ..message });
            self.broker.store(tag.0, Document::Retry { retries: message.retries });
            self.count("retried by Celery");
            self.hint(tag.0);
        }
        if self.pods[pod].is_leased() && !message.is_follower {
            self.broker.give_up_lease(tag.0, run);
        }
        self.wake_workers();
        // Between the two a worker can die as well; what it leaves of a task that was replaced tells no one of that.
        let is_told = outcome == Outcome::Retries && self.chaos.kills && self.rng.per_mille(300);
        if is_told {
            self.after(1, 4_000, Event::Ack { pod, container, run });
        } else {
            self.ack(pod, container, run);
        }
    }

    fn store_end(&mut self, pod: usize, run: usize, how: Ending) {
        let Run { job, tag, outcome, retries, .. } = self.runs[run];
        self.runs[run].succeeded = outcome == Outcome::Succeeds;
        self.runs[run].stored_at = Some(self.now);
        if outcome == Outcome::KillsChild {
            self.losses.hit([job]);
        }
        self.broker.store(tag.0, Document::Ended { how, pod, retries });
        self.hint(tag.0);
    }

    /// The end of a native worker's run, in one step. Where another run has the lease by now, only a success counts,
    /// and the message is left to that run.
    fn settle(&mut self, pod: usize, run: usize, how: Ending) {
        let Run { tag, outcome, .. } = self.runs[run];
        let is_ours = self.broker.renew_lease(tag.0, run);
        if is_ours || outcome == Outcome::Succeeds {
            self.store_end(pod, run, how);
        }
        self.broker.give_up_lease(tag.0, run);
        self.end_copy(pod, run, is_ours);
    }

    pub fn ack(&mut self, pod: usize, container: u32, run: usize) {
        if !self.is_container(pod, container) {
            return;
        }
        self.end_copy(pod, run, !self.broker.down);
    }

    fn end_copy(&mut self, pod: usize, run: usize, acknowledged: bool) {
        let Some(index) = self.pods[pod].copies.iter().position(|copy| copy.run == Some(run)) else { return };
        let copy = self.pods[pod].copies.remove(index);
        if acknowledged {
            self.broker.ack(copy.message.tag());
        }
        self.start_runs(pod);
        self.leave_when_drained(pod);
        self.at(1, Event::Poll { pod });
    }
}
