//! What is promised, and whether this world kept it.

use super::super::id::TaskId;
use super::super::observed::Ending;
use super::super::plan::{Effect, InPlaceOf};
use super::super::status::{AttemptOutcome, GaveUp, Phase, Status, Why};
use super::broker::{Document, LEASE_EXPIRES, Message, RESULT_EXPIRES, Tag};
use super::chaos::{Chaos, Fleet};
use super::leases::RENEW_EVERY;
use super::reading::AUDIT_EVERY;
use super::worker::{Copy, Outcome, Run};
use super::world::{World, number_of};

/// What there was of an attempt just before something was published.
pub struct Scene {
    publications: u32,
    is_queued: bool,
    is_withdrawn: bool,
    ended: Option<Ending>,
}

impl Scene {
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }
}

impl World {
    /// Whether it cannot be known how often this job runs: Redis forgot what it knew, also which run had a lease, the
    /// job itself asks for another run when the end of one cannot be known, or a worker died between storing a result
    /// and acknowledging while no operator was there to read it before it expired.
    fn is_doubtful(&self, job: usize) -> bool {
        self.broker.ledger.forgot_at.is_some()
            || self.doubled.contains(&job)
            || self.is_unknown(job)
            || self.chaos.blackouts && self.runs.iter().any(|run| run.job == job && run.succeeded)
    }

    /// Whether it may be with two workers: that too, or Celery put back a message whose run had begun.
    fn is_excused(&self, job: usize) -> bool {
        self.is_doubtful(job) || self.runs.iter().any(|run| run.job == job && self.is_put_back(run.tag.0))
    }

    /// Whether it may run when it should not. Where every worker asks for a lease, a message that was put back is no
    /// excuse.
    fn may_run_twice(&self, message: Message) -> bool {
        let is_guarded = self.chaos.fleet == Fleet::Leased;
        self.is_doubtful(message.job)
            || !is_guarded && (self.is_excused(message.job) || self.is_put_back(message.id.task))
    }

    /// Whether it may still be there when its job has ended. Its worker has died and the job was given up for that;
    /// that another worker had it by then, because it was put back, the operator may not have heard.
    fn is_left_over(&self, message: Message) -> bool {
        self.is_excused(message.job) || self.is_put_back(message.id.task)
    }

    fn is_put_back(&self, task: TaskId) -> bool {
        self.broker.ledger.put_back.contains(&task)
    }

    /// Whether the end of a run could not be known, and the job asks for another one then.
    fn is_unknown(&self, job: usize) -> bool {
        let history = &self.api.jobs[job].job.status.history;
        history.iter().any(|past| past.outcome == AttemptOutcome::Unknown)
    }

    // === publications ===

    pub fn scene(&self, task: TaskId) -> Scene {
        let ended = match self.broker.document(task) {
            Some(Document::Ended { how, .. }) => Some(how.clone()),
            Some(Document::Started { .. } | Document::Retry { .. }) | None => None,
        };
        Scene {
            publications: self.broker.ledger.publications,
            is_queued: self.broker.data.queue.iter().any(|message| message.id.task == task),
            is_withdrawn: self.broker.data.markers.get(&task).is_some_and(|marker| marker.withdrawn),
            ended,
        }
    }

    /// Something may have been published: no message of the same attempt may wait, none may be with a living worker,
    /// and the attempt may not be over. Whether something was.
    pub fn judge_publication(&mut self, job: usize, effect: &Effect, before: &Scene) -> bool {
        if self.broker.ledger.publications == before.publications {
            return false;
        }
        let Some(id) = effect.publication().map(|message| message.id) else { return false };
        let task = id.task;
        let clears = matches!(effect, Effect::Requeue { clear_result: true, .. });
        // Of a message that was popped when Redis was emptied there is no marker.
        let is_unmarked = clears && matches!(effect, Effect::Requeue { in_place_of: InPlaceOf::Nothing, .. });
        let is_of_failure = is_unmarked || matches!(effect, Effect::Requeue { in_place_of: InPlaceOf::Ended(_), .. });
        let is_of_flight = matches!(effect, Effect::Requeue { in_place_of: InPlaceOf::InFlight(_), .. });
        let is_missed = matches!(effect, Effect::Requeue { in_place_of: InPlaceOf::Nowhere(_), .. });
        let (put_back, went_back) = (self.is_put_back(task), self.broker.ledger.went_back);
        let is_doubled = self.doubled.contains(&job);
        // A message that Celery put back may be with two workers. What is looked for everywhere is found nevertheless.
        let is_copied = put_back && (!is_missed || before.is_withdrawn);
        let complaint = match &before.ended {
            // A failure of a copy, made by Celery itself or by a Redis that went back, is taken for the queued
            // message's: nothing tells them apart. Nor does a script look through queues: one that is sent when Redis
            // went back after the decision does not see what is there again.
            // And a copy that a person sends, or that is there again, is not known before the next audit.
            _ if before.is_queued
                && !(is_of_failure && (put_back || went_back || is_doubled))
                && !(is_of_flight && (is_doubled || went_back))
                && !(is_missed && went_back) =>
            {
                Some("while another one is queued")
            }
            Some(Ending::Failed(_) | Ending::ChildLost(_)) if clears => None,
            Some(_) => Some("although its result is there"),
            None if !is_copied && !went_back && !is_doubled && self.is_with_living_worker(task) => {
                // A leader published just this and did not live to record it, or it has replaced itself, and then Redis
                // was emptied: that cannot be known.
                let is_unknown = self.broker.ledger.was_published_before_it_forgot((task, id.generation, 0))
                    || self.is_forgotten(task);
                if is_unknown {
                    self.doubled.insert(job);
                    self.count("published once more after a flush");
                }
                (!is_unknown).then_some("while a living worker has it")
            }
            None => None,
        };
        if let Some(complaint) = complaint {
            self.broken.push(format!("job-{job}: {effect} was published {complaint}"));
        }
        true
    }

    /// Whether a worker that lives has a message of this attempt, and has not ended its run.
    fn is_with_living_worker(&self, task: TaskId) -> bool {
        let is_alive = |copy: &Copy| copy.message.id.task == task && copy.run.is_none_or(|run| !self.runs[run].over);
        self.pods.iter().any(|pod| {
            pod.up && (pod.copies.iter().any(is_alive) || pod.in_hand.is_some_and(|message| message.id.task == task))
        })
    }

    /// Whether workers have nothing of this attempt but what it was replaced by, of which Redis does not know any more.
    fn is_forgotten(&self, task: TaskId) -> bool {
        let is_it = |message: &Message| message.id.task == task;
        let is_forgotten = |it: Message| it.is_follower && !self.broker.data.unacked.contains_key(&it.tag());
        let copies = || self.pods.iter().filter(|pod| pod.up).flat_map(|pod| &pod.copies);
        self.broker.ledger.forgot_at.is_some()
            && copies().map(|copy| copy.message).filter(is_it).all(is_forgotten)
            && !self.pods.iter().any(|pod| pod.in_hand.as_ref().is_some_and(is_it))
    }

    // === runs ===

    /// A run is about to begin.
    pub fn judge_run(&mut self, message: Message, leased: bool) {
        let job = message.job;
        let name = self.name_of(message);
        let earlier = || self.runs.iter().filter(move |run| run.job == job);
        let complaint = if earlier().any(|run| !run.over && !self.may_run_beside(run, message, leased)) {
            "begins while another run goes on"
        } else if earlier().any(|run| run.succeeded && !self.may_run_after(run, message, leased)) {
            "begins although a run has succeeded"
        } else if self.api.jobs[job].job.status.phase.is_terminal() && !self.is_left_over(message) {
            "begins although its job has ended"
        } else if !self.may_run_twice(message) && earlier().any(|run| run.spec != message.spec) {
            "runs something else than its job has run before"
        } else {
            let is_beside = earlier().any(|run| !run.over && run.tag.0 == message.id.task && run.leased);
            if leased && is_beside {
                self.doubled.insert(job);
                self.count("two runs between leases");
            }
            return;
        };
        self.broken.push(format!("job-{job}: {name} {complaint}"));
    }

    /// Whether the design lets a message begin while this run goes on. No lease holds apart what is no attempt of the
    /// same task, and no run of a worker that asks for none.
    fn may_run_beside(&self, run: &Run, message: Message, leased: bool) -> bool {
        let is_same = run.tag.0 == message.id.task;
        if run.leased && leased && is_same {
            return self.may_lack_its_lease() || self.doubled.contains(&run.job);
        }
        self.may_run_twice(message)
    }

    /// Whether the lease of a run that goes on can be another run's now: only where Redis has forgotten it, or what was
    /// to be given time. It is renewed again soon after Redis can be asked; where Redis went back to the lease of
    /// another run, as soon as that has run out.
    fn may_lack_its_lease(&self) -> bool {
        let ledger = &self.broker.ledger;
        let others = if ledger.went_back { LEASE_EXPIRES } else { 0 };
        ledger.forgot_at.is_some_and(|at| self.now <= ledger.down_at.unwrap_or(at).max(at) + RENEW_EVERY + others)
    }

    /// Whether the design lets a message begin after this run has succeeded. A worker that has a lease looks for a
    /// result first.
    fn may_run_after(&self, run: &Run, message: Message, leased: bool) -> bool {
        let stored_at = run.stored_at.unwrap_or(run.began_at);
        let is_result_gone =
            self.broker.ledger.has_forgotten_since(stored_at) || stored_at + RESULT_EXPIRES <= self.now;
        let is_same = run.tag.0 == message.id.task;
        is_result_gone || !(leased && is_same) && self.may_run_twice(message)
    }

    // === the end ===

    /// A status was written.
    pub fn judge_record(&mut self, job: usize) {
        self.judge_losses(job);
        let status = &self.api.jobs[job].job.status;
        if !status.phase.is_terminal() {
            return;
        }
        if !self.is_excused(job) && self.runs.iter().any(|run| run.job == job && !run.over) {
            self.broken.push(format!("job-{job} is {:?} ({}) while it runs", status.phase, status.why.reason()));
        }
        let goes_on = self.broker.followed(true).contains(&job) || self.broker.followed(false).contains(&job);
        let is_stopped = matches!(status.why, Why::Cancelled | Why::GaveUp(GaveUp::DeadlineExceeded));
        if goes_on && is_stopped {
            self.doubled.insert(job);
        } else if goes_on && !self.is_excused(job) {
            let why = status.why.reason();
            self.broken.push(format!("job-{job} is {:?} ({why}) while what it was replaced by goes on", status.phase));
        }
        let end = match &status.why {
            Why::Succeeded => "ends: Succeeded",
            Why::FinishedBeforeCancel => "ends: FinishedBeforeCancel",
            Why::Cancelled => "ends: Cancelled",
            Why::AlreadyRan { .. } => "ends: AlreadyRan",
            Why::Attached { .. } => "ends: Attached",
            Why::Duplicate { .. } => "ends: Duplicate",
            Why::GaveUp(GaveUp::RetriesExhausted) => "ends: RetriesExhausted",
            Why::GaveUp(GaveUp::NonRetryableError) => "ends: NonRetryableError",
            Why::GaveUp(GaveUp::WorkerLost) => "ends: WorkerLost",
            Why::GaveUp(GaveUp::MessageLost) => "ends: MessageLost",
            Why::GaveUp(GaveUp::NoResult) => "ends: NoResult",
            Why::GaveUp(GaveUp::ResultExpired) => "ends: ResultExpired",
            Why::GaveUp(GaveUp::SpecChanged) => "ends: SpecChanged",
            Why::GaveUp(GaveUp::DeadlineExceeded) => "ends: DeadlineExceeded",
            Why::GaveUp(GaveUp::QueueTimeout) => "ends: QueueTimeout",
            Why::GaveUp(GaveUp::InvalidSpec | GaveUp::Revoked | GaveUp::ResultNotEncodable)
            | Why::Unseen
            | Why::OnHold(_)
            | Why::Released
            | Why::Enqueued
            | Why::Blocked { .. }
            | Why::Started
            | Why::RetryScheduled
            | Why::WorkerLost
            | Why::MessageLost
            | Why::Recorded { .. } => "ends: otherwise",
        };
        self.count(end);
        if goes_on && is_stopped {
            self.count("stopped while what it was replaced by goes on");
        }
    }

    /// The promises that were broken.
    pub fn verdict(&self) -> Vec<String> {
        let mut broken = self.broken.clone();
        for (number, stored) in self.api.jobs.iter().enumerate() {
            if stored.deleted {
                continue; // that nothing is left of it is another promise
            }
            if !stored.job.status.phase.is_terminal() {
                broken.push(format!("job-{number} never ends: {:?}", stored.job.status));
            } else if let Some(complaint) = self.unexplained(number) {
                broken.push(format!("job-{number} {complaint}: {:?}", stored.job.status));
            }
            let runs = self.runs.iter().filter(|run| run.job == number).count();
            let status = &stored.job.status;
            let in_vain = matches!(status.why, Why::GaveUp(GaveUp::QueueTimeout | GaveUp::DeadlineExceeded));
            let waited_in_vain = usize::from(in_vain);
            let deliveries = runs.max(1) + status.worker_losses as usize + waited_in_vain;
            let writes = if self.chaos.permits || self.chaos.twins { 6 } else { 3 };
            if self.is_calm() && stored.writes as usize > writes * deliveries {
                broken.push(format!("job-{number} cost {} status writes for {runs} runs", stored.writes));
            }
        }
        for ((tag, _), times) in &self.broker.ledger.published {
            if *times > 1 {
                broken.push(format!("{}#{} was published {times} times", self.task_name(tag.0), tag.1));
            }
        }
        broken.extend(self.run_more_than_once());
        if self.at_rest {
            broken.extend(self.leftovers());
        }
        broken
    }

    /// Run-once keys under which more than one job has run to its end.
    fn run_more_than_once(&self) -> Option<String> {
        let ends = || self.api.jobs.iter().filter(|stored| !stored.deleted && stored.job.spec.run_once.is_some());
        let has_run = |status: &Status| {
            let is_own = status.attempts > 0 && !matches!(status.why, Why::AlreadyRan { .. });
            is_own && matches!(status.phase, Phase::Succeeded | Phase::Failed)
        };
        let ran: Vec<_> =
            ends().filter(|stored| has_run(&stored.job.status)).map(|stored| &*stored.job.key.name).collect();
        (ran.len() > 1).then(|| format!("{ran:?} have run under one run-once key"))
    }

    /// Whether nothing but the jobs themselves goes wrong, and hints get lost.
    pub fn is_calm(&self) -> bool {
        let Chaos {
            crashes,
            pauses,
            sluggish,
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
            fleet: _,
            fresh: _,
            skew: _,
            limits: _,
            keys: _,
            twins: _,
            permits: _,
            jumps: _,
        } = self.chaos;
        !(crashes
            || pauses
            || sluggish
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
        // A Redis that went back in time lets two stock workers run one task. The second one may go on by a retry of Celery's
        // own after the job has ended by the first.
        let is_second = |message: &Message| {
            message.copy > 0 && self.broker.ledger.went_back && self.runs.iter().any(|run| run.tag.0 == message.id.task)
        };
        let queued: Vec<_> = self.broker.data.queue.iter().filter(|message| !is_second(message)).collect();
        if !queued.is_empty() {
            left.push(format!("left in the queue: {queued:?}"));
        }
        // Of a copy whose worker died between the result and the acknowledgement no operator knows: Kombu puts it back. So
        // it does with what a job that was stopped was replaced by, and workers drop it.
        let is_stored = |tag: Tag| self.runs.iter().any(|run| run.tag == tag && run.stored_at.is_some());
        let unowned = self.broker.data.unacked.values().filter(|entry| {
            let message = entry.message;
            let is_dropped = message.is_follower && self.api.jobs[message.job].deleted;
            let is_known_to_none = is_dropped || message.copy > 0 && is_stored(message.tag());
            !self.is_excused(message.job) && !is_known_to_none
        });
        left.extend(unowned.map(|entry| format!("left in flight: {}", self.name_of(entry.message))));
        // So may a deleted job: here it retries and replaces itself for ever, and is followed for as long.
        let lives_on = |job: usize| {
            let goes_on = |run: &Run| run.job == job && matches!(run.outcome, Outcome::Retries | Outcome::Replaces);
            self.broker.ledger.went_back && self.api.jobs[job].deleted && self.runs.iter().any(goes_on)
        };
        for (number, operator) in self.operators.iter().enumerate().filter(|(_, it)| it.epoch.is_some()) {
            let keys = operator.jobs(&self.pool);
            let keys = keys.iter().filter(|key| !lives_on(number_of(key)));
            left.extend(keys.map(|key| format!("operator {number} still follows {}", key.name)));
        }
        let is_of = |job: usize, task: TaskId| {
            (1..12).any(|attempt| TaskId::derive(self.api.jobs[job].job.uid, attempt) == task)
        };
        let is_left = |task: &&TaskId| !(0..self.api.jobs.len()).any(|job| lives_on(job) && is_of(job, **task));
        let markers = self.broker.data.markers.keys().filter(is_left);
        left.extend(markers.map(|task| format!("marker left: {}", self.task_name(*task))));
        left
    }

    /// An end that nothing in this world explains.
    fn unexplained(&self, job: usize) -> Option<String> {
        let is = &self.api.jobs[job].job;
        let runs = || self.runs.iter().filter(move |run| run.job == job);
        let count = |test: fn(&Run) -> bool| runs().filter(|run| test(run)).count();
        let policy = is.spec.overrides.as_deref();
        let results_may_be_lost = self.broker.ledger.forgot_at.is_some()
            || self.chaos.early_ack
            || self.chaos.blackouts
            || self.chaos.outages
            || self.chaos.pauses;
        let is_reported = matches!(is.status.phase, Phase::Succeeded) || results_may_be_lost || self.is_excused(job);
        if !is_reported && runs().any(|run| run.succeeded) {
            return Some("ended otherwise although a run succeeded".to_owned());
        }
        let explained = match (is.status.phase, &is.status.why) {
            (phase, Why::AlreadyRan { ran, .. }) => {
                let other = self.api.jobs.iter().find(|stored| stored.job.uid == ran.uid);
                let ended = other.filter(|other| !other.deleted).map(|other| other.job.status.phase);
                // What it ended as before it was deleted, or before its end was cancelled, is remembered all the same.
                runs().next().is_none() && ended.is_none_or(|ended| ended == phase || ended == Phase::Cancelled)
            }
            (_, Why::Attached { .. } | Why::Duplicate { .. }) => self.chaos.twins && runs().next().is_none(),
            (Phase::Succeeded, _) => runs().any(|run| run.succeeded || matches!(run.noted, Some(Ending::Succeeded(_)))),
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
                // A worker that acknowledges early, says nothing and dies leaves no more behind than a lost message
                // does.
                GaveUp::MessageLost => {
                    let Chaos { kills, blips, outages, early_ack, .. } = self.chaos;
                    kills || blips || outages || early_ack
                }
                // A copy that was put back and acknowledged took the entry of the run with it, and then that worker
                // died. Or a worker lost the message by which the task goes on while it popped it.
                // Or what a task stored itself cannot be read, and its worker died, or put its message back meanwhile.
                GaveUp::NoResult => {
                    let is_unread = |run: &Run| {
                        let is_taken = run.stored_at.is_none() || self.is_put_back(run.tag.0);
                        is_taken && matches!(run.noted, Some(Ending::Unreadable(_)))
                    };
                    results_may_be_lost
                        || self.chaos.kills && self.chaos.blips
                        || self.losses.are_of_popped(job)
                        || runs().any(|run| run.over && is_unread(run))
                }
                GaveUp::ResultExpired => results_may_be_lost,
                GaveUp::SpecChanged => is.spec.hash != super::super::id::SpecHash([0; 16]),
                GaveUp::DeadlineExceeded => policy.is_some_and(|policy| policy.total.is_some()),
                GaveUp::QueueTimeout => policy.is_some_and(|policy| policy.queue.is_some()),
                // Stopped at a deadline by a leader that did not live to record even when the job was published, or for
                // its hard limit before Redis went back: workers refuse what is published under that id once more.
                GaveUp::Revoked => {
                    let has_deadline = policy.is_some_and(|policy| policy.total.is_some());
                    self.broker.ledger.forgot_at.is_some() && (has_deadline || self.chaos.blackouts)
                }
                GaveUp::InvalidSpec | GaveUp::ResultNotEncodable => false,
            },
            _ => false,
        };
        (!explained).then(|| format!("ended for no reason (audits every {AUDIT_EVERY} ms)"))
    }
}
