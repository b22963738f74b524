//! How often a job has lost its worker, and how often that is counted.

use std::collections::{BTreeMap, BTreeSet};

use super::super::status::AttemptOutcome;
use super::broker::{Message, RESULT_EXPIRES};
use super::worker::{Copy, Run};
use super::world::World;

/// Workers and child processes that jobs have lost, by job.
#[derive(Debug, Default)]
pub struct Losses {
    hits: BTreeMap<usize, usize>,
    popped: BTreeSet<usize>,
}

impl Losses {
    /// These lose their worker now: each once, however many copies of its messages that worker has.
    pub fn hit(&mut self, jobs: impl IntoIterator<Item = usize>) {
        for job in jobs.into_iter().collect::<BTreeSet<_>>() {
            *self.hits.entry(job).or_default() += 1;
        }
    }

    /// A worker has lost a message by which the task of this job goes on, and which it had popped and not noted. An
    /// operator takes that for the loss of the run before.
    pub fn hit_popped(&mut self, job: usize) {
        self.popped.insert(job);
        self.hit([job]);
    }

    /// Whether such a message of the job was lost.
    pub fn are_of_popped(&self, job: usize) -> bool {
        self.popped.contains(&job)
    }
}

impl World {
    /// A container terminates, with all that it has not ended.
    pub fn note_death(&mut self, pod: usize) {
        let is_alive = |copy: &&Copy| copy.run.is_none_or(|run| !self.runs[run].over);
        self.losses.hit(self.pods[pod].copies.iter().filter(is_alive).map(|copy| copy.message.job));
    }

    /// A status was written: whatever is counted as the loss of a worker has a fault of its own that came before it, so
    /// nothing counts twice. Such a fault is
    ///
    /// * the death of a container that had a message of the job and had not ended its run, however many copies it had; or
    ///   that left while Redis was away, and could not put the message back,
    /// * the death, or a lost connection, of one that had popped a message by which the task went on after a run, which no
    ///   audit sees meanwhile,
    /// * a worker that drops, because it is revoked, what a task was replaced by,
    /// * the death of a child process that ran it,
    /// * a Redis that forgets: what was acknowledged, or put back, may then be in flight without a worker once more, or ended
    ///   without a result. That hits every job, once each time,
    /// * a result that expired while no operator ran, of a run that its worker did not get to acknowledge.
    ///
    /// Where Redis does not forget and an operator runs, the first four alone.
    pub fn judge_losses(&mut self, job: usize) {
        let status = &self.api.jobs[job].job.status;
        let is_loss = |outcome: AttemptOutcome| outcome == AttemptOutcome::WorkerLost;
        let remembered = status.history.iter().filter(|past| is_loss(past.outcome)).count();
        let counted = remembered.max(status.worker_losses as usize);
        let is_expired = |run: &&Run| run.job == job && run.stored_at.is_some_and(|at| at + RESULT_EXPIRES <= self.now);
        let unread = if self.chaos.blackouts { self.runs.iter().filter(is_expired).count() } else { 0 };
        let hits = self.losses.hits.get(&job).copied().unwrap_or_default();
        let is_copy = |message: Message| message.job == job && message.copy > 0;
        let popped = self.pods.iter().filter(|pod| pod.in_hand.is_some_and(is_copy)).count();
        let faults = hits + popped + self.broker.ledger.lives as usize + unread;
        if counted > faults {
            self.broken.push(format!("job-{job}: {counted} losses of workers are counted, and there were {faults}"));
        }
    }
}
