//! What is promised, and whether this world kept it.

use super::super::status::{AttemptOutcome, GaveUp, Phase, Why};
use super::broker::Message;
use super::chaos::Chaos;
use super::observe::AUDIT_EVERY;
use super::worker::{Outcome, Run};
use super::world::World;

impl World {
    /// Whether this job may run more than once: Celery put back a message whose run had begun, Redis was emptied under
    /// the workers, the job itself asks for another run when the end of one cannot be known, or a worker died between
    /// storing a result and acknowledging while nobody was there to read it before it expired.
    fn is_excused(&self, job: usize) -> bool {
        let history = &self.api.jobs[job].job.status.history;
        self.broker.flushes > 0
            || history.iter().any(|past| past.outcome == AttemptOutcome::Unknown)
            || self.runs.iter().filter(|run| run.job == job).any(|run| {
                self.broker.put_back.contains(&run.tag.0) || self.chaos.blackouts && run.succeeded && !run.acked
            })
    }

    /// A run is about to begin.
    pub fn judge_run(&mut self, message: Message) {
        let job = message.job;
        if self.is_excused(job) || self.broker.put_back.contains(&message.id.task) {
            return;
        }
        let name = self.name_of(message);
        if self.runs.iter().any(|run| run.job == job && run.spec != message.spec) {
            self.broken.push(format!("{name} runs something else than job-{job} has run before"));
        }
        let mut earlier = self.runs.iter().filter(|run| run.job == job);
        if earlier.clone().any(|run| !run.over) {
            self.broken.push(format!("{name} begins while another run of job-{job} goes on"));
        } else if earlier.any(|run| run.succeeded) {
            self.broken.push(format!("{name} begins although a run of job-{job} has succeeded"));
        } else if self.api.jobs[job].job.status.phase.is_terminal() {
            self.broken.push(format!("{name} begins although job-{job} has ended"));
        }
    }

    /// A status was written.
    pub fn judge_record(&mut self, job: usize) {
        let status = &self.api.jobs[job].job.status;
        if !status.phase.is_terminal() {
            return;
        }
        if !self.is_excused(job) && self.runs.iter().any(|run| run.job == job && !run.over) {
            self.broken.push(format!("job-{job} is {:?} ({}) while it runs", status.phase, status.why.reason()));
        }
        let end = match &status.why {
            Why::Succeeded => "ends: Succeeded",
            Why::FinishedBeforeCancel => "ends: FinishedBeforeCancel",
            Why::Cancelled => "ends: Cancelled",
            Why::GaveUp(GaveUp::RetriesExhausted) => "ends: RetriesExhausted",
            Why::GaveUp(GaveUp::NonRetryableError) => "ends: NonRetryableError",
            Why::GaveUp(GaveUp::WorkerLost) => "ends: WorkerLost",
            Why::GaveUp(GaveUp::MessageLost) => "ends: MessageLost",
            Why::GaveUp(GaveUp::NoResult) => "ends: NoResult",
            Why::GaveUp(GaveUp::ResultExpired) => "ends: ResultExpired",
            Why::GaveUp(GaveUp::SpecChanged) => "ends: SpecChanged",
            Why::GaveUp(GaveUp::DeadlineExceeded) => "ends: DeadlineExceeded",
            Why::GaveUp(GaveUp::QueueTimeout) => "ends: QueueTimeout",
            Why::GaveUp(GaveUp::InvalidSpec | GaveUp::Revoked)
            | Why::Unseen
            | Why::Held(_)
            | Why::Enqueued
            | Why::Started
            | Why::RetryScheduled
            | Why::WorkerLost
            | Why::MessageLost
            | Why::Recorded { .. } => "ends: otherwise",
        };
        self.count(end);
    }

    /// The promises that were broken.
    pub fn verdict(&self) -> Vec<String> {
        let mut broken = self.broken.clone();
        for (number, stored) in self.api.jobs.iter().enumerate() {
            if !stored.job.status.phase.is_terminal() {
                broken.push(format!("job-{number} never ends: {:?}", stored.job.status));
            } else if let Some(complaint) = self.unexplained(number) {
                broken.push(format!("job-{number} {complaint}: {:?}", stored.job.status));
            }
            let runs = self.runs.iter().filter(|run| run.job == number).count();
            let status = &stored.job.status;
            let waited_in_vain = usize::from(matches!(status.why, Why::GaveUp(GaveUp::QueueTimeout)));
            let deliveries = runs.max(1) + status.worker_losses as usize + waited_in_vain;
            if self.is_calm() && stored.writes as usize > 3 * deliveries {
                broken.push(format!("job-{number} cost {} status writes for {runs} runs", stored.writes));
            }
        }
        for ((tag, _), times) in &self.broker.published {
            if *times > 1 {
                broken.push(format!("{}#{} was published {times} times", self.task_name(tag.0), tag.1));
            }
        }
        for (task, generation) in &self.broker.doubled {
            broken.push(format!("{}#{generation} was published while another was queued", self.task_name(*task)));
        }
        if self.at_rest {
            broken.extend(self.leftovers());
        }
        broken
    }

    /// Whether nothing but the jobs themselves goes wrong, and hints get lost.
    fn is_calm(&self) -> bool {
        let Chaos {
            crashes,
            pauses,
            blackouts,
            kills,
            drains,
            blips,
            early_ack,
            flushes,
            failovers,
            outages,
            people,
            deafness: _,
            silence: _,
        } = self.chaos;
        !(crashes
            || pauses
            || blackouts
            || kills
            || drains
            || blips
            || early_ack
            || flushes
            || failovers
            || outages
            || people)
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        if !self.broker.queue.is_empty() {
            left.push(format!("left in the queue: {:?}", self.broker.queue));
        }
        let unowned = self.broker.unacked.values().filter(|entry| !self.is_excused(entry.message.job));
        left.extend(unowned.map(|entry| format!("left in flight: {}", self.name_of(entry.message))));
        left.extend(self.broker.markers.keys().map(|task| format!("marker left: {}", self.task_name(*task))));
        left
    }

    /// An end that nothing in this world explains.
    fn unexplained(&self, job: usize) -> Option<String> {
        let is = &self.api.jobs[job].job;
        let runs = || self.runs.iter().filter(move |run| run.job == job);
        let count = |test: fn(&Run) -> bool| runs().filter(|run| test(run)).count();
        let policy = is.spec.overrides.as_deref();
        let results_may_be_lost = self.broker.flushes > 0
            || self.chaos.early_ack
            || self.chaos.blackouts
            || self.chaos.outages
            || self.chaos.pauses;
        let is_reported = matches!(is.status.phase, Phase::Succeeded) || results_may_be_lost || self.is_excused(job);
        if !is_reported && runs().any(|run| run.succeeded) {
            return Some("ended otherwise although a run succeeded".to_owned());
        }
        let explained = match (is.status.phase, &is.status.why) {
            (Phase::Succeeded, _) => runs().any(|run| run.succeeded),
            (Phase::Cancelled, _) => is.spec.cancel,
            (_, Why::GaveUp(why)) => match why {
                GaveUp::RetriesExhausted => {
                    let runs = count(|run| run.over && !run.succeeded);
                    results_may_be_lost || runs > policy.and_then(|policy| policy.max_retries).unwrap_or(3) as usize
                }
                GaveUp::NonRetryableError => count(|run| run.outcome == Outcome::FailsForGood) > 0,
                GaveUp::WorkerLost => {
                    let losses = policy.and_then(|policy| policy.max_worker_losses).unwrap_or(3);
                    is.status.worker_losses > losses
                }
                GaveUp::MessageLost => self.chaos.kills || self.chaos.blips || self.chaos.outages,
                // A copy that was put back and acknowledged took the entry of the run with it, and then that worker died.
                GaveUp::NoResult => results_may_be_lost || self.chaos.kills && self.chaos.blips,
                GaveUp::ResultExpired => results_may_be_lost,
                GaveUp::SpecChanged => is.spec.hash != super::super::job::SpecHash([0; 16]),
                GaveUp::DeadlineExceeded => policy.is_some_and(|policy| policy.total.is_some()),
                GaveUp::QueueTimeout => policy.is_some_and(|policy| policy.queue.is_some()),
                // Stopped at a deadline by a leader that did not live to record even when the job was published.
                GaveUp::Revoked => self.broker.flushes > 0 && policy.is_some_and(|policy| policy.total.is_some()),
                GaveUp::InvalidSpec => false,
            },
            _ => false,
        };
        (!explained).then(|| format!("ended for no reason (audits every {AUDIT_EVERY} ms)"))
    }
}
