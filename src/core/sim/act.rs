//! What an operator does to the world: one effect after the other, each of which may be refused.

use super::super::evidence::Evidence;
use super::super::id::TaskId;
use super::super::plan::{Effect, InPlaceOf, Publication};
use super::super::status::{Attempt, Phase, Status, Why};
use super::broker::{Marker, Message};
use super::scripts::Reply;
use super::world::World;
use super::{at, say};

impl World {
    /// Does one effect; false when the plan is to be dropped.
    pub fn act(&mut self, operator: usize, job: usize, effect: &Effect) -> bool {
        let Some(epoch) = self.operators[operator].epoch else { return false };
        if let Some(message) = effect.publication() {
            self.operators[operator].evidence(job, message.id.task).expect(message.id, at(self.now));
        }
        let is_connected = self.operators[operator].connected;
        let mut reply = if is_connected { self.send(epoch, job, effect) } else { Reply::Down };
        if reply == Reply::Done && self.chaos.outages && self.rng.per_mille(150) {
            // The connection breaks before the answer: the client sends it again, or gives up.
            reply = if self.rng.per_mille(500) { self.send_again(epoch, job, effect) } else { Reply::Lost };
        }
        self.count(name(effect, reply));
        match reply {
            Reply::Done => {
                self.learn(operator, job, effect);
                // What was found decides what comes next.
                let is_asked_anew = matches!(effect, Effect::Withdraw(_) | Effect::Retire { .. });
                if is_asked_anew {
                    self.look_in(operator, job, 1);
                }
                !is_asked_anew
            }
            Reply::Refused if matches!(effect, Effect::Move { .. }) => {
                self.learn(operator, job, effect); // it has left the queue: there is nothing to move
                true
            }
            Reply::Refused | Reply::Down | Reply::Lost => {
                if let Some(notes) = self.operators[operator].notes.get_mut(&job) {
                    notes.unread();
                }
                say!(self, "operator {operator}, job-{job}: {effect} is {reply:?}");
                let wait = self.rng.between(100, 1_000);
                self.look_in(operator, job, wait);
                false
            }
            Reply::Fenced => {
                say!(self, "operator {operator}, job-{job}: {effect} is fenced off");
                self.step_down(operator);
                false
            }
        }
    }

    /// What an operator knows of an attempt once it has acted on it.
    fn learn(&mut self, operator: usize, job: usize, effect: &Effect) {
        let now = at(self.now);
        if let Some(message) = effect.publication() {
            self.operators[operator].fresh.remove(&job);
            let notes = self.operators[operator].evidence(job, message.id.task);
            return notes.published(now, message.spec_hash, message.priority);
        }
        let Some(notes) = self.operators[operator].notes.get_mut(&job) else { return };
        match effect {
            Effect::Revoke(_) => notes.stop_asked(now),
            Effect::Move { priority, .. } => notes.moved(*priority),
            Effect::Withdraw(id) => notes.withdrawn(id.generation),
            Effect::Retire { .. } => notes.unread(),
            Effect::Enqueue(_)
            | Effect::Requeue { .. }
            | Effect::DeletePod(_)
            | Effect::StoreResult(_)
            | Effect::ExtendResult { .. }
            | Effect::Forget(_)
            | Effect::Clear(_) => {}
        }
    }

    /// A requeue that was done is done when it is sent again: else its loss would never be counted.
    fn send_again(&mut self, epoch: u64, job: usize, effect: &Effect) -> Reply {
        self.count("sent again");
        let reply = self.send(epoch, job, effect);
        if matches!(effect, Effect::Requeue { .. }) && reply == Reply::Refused {
            self.broken.push(format!("job-{job}: done, and refused when it was sent again: {effect}"));
        }
        reply
    }

    fn send(&mut self, epoch: u64, job: usize, effect: &Effect) -> Reply {
        let before = effect.publication().map(|message| self.scene(message.id.task));
        let reply = match effect {
            Effect::Enqueue(it) => self.broker.enqueue(epoch, message(job, it)),
            Effect::Requeue { in_place_of, message: it, clear_result } => {
                self.broker.requeue(epoch, *in_place_of, message(job, it), *clear_result)
            }
            Effect::Withdraw(id) => self.broker.withdraw(epoch, *id),
            Effect::Retire { in_place_of, id } => self.broker.retire(epoch, *in_place_of, *id),
            Effect::Forget(task) => self.broker.forget(*task),
            Effect::Clear(task) => self.broker.clear(epoch, *task),
            Effect::Revoke(_) if self.broker.down => Reply::Down,
            Effect::Revoke(task) => {
                self.revoke(*task);
                Reply::Done
            }
            Effect::DeletePod(container) => {
                self.count("delete Pod");
                self.delete_pod(container.pod.strip_prefix("worker-").unwrap().parse().unwrap());
                Reply::Done
            }
            Effect::Move { id, priority, queue: _ } => self.broker.move_band(epoch, *id, *priority),
            Effect::StoreResult(_) | Effect::ExtendResult { .. } => Reply::Done,
        };
        if let Some(before) = before {
            let is_refused = reply == Reply::Refused && matches!(effect, Effect::Requeue { .. });
            if is_refused && before.is_over() {
                self.count("refused: its result is there");
            } else if is_refused && before.is_queued() {
                self.count("refused: it is queued");
            }
            self.judge_publication(job, effect, &before);
            self.wake_workers();
        }
        reply
    }

    /// Markers of attempts that are over: what a crash between the status and `Forget` leaves.
    pub fn forget_strays(&mut self, operator: usize) {
        let is_over = |task: &TaskId, marker: &Marker| {
            let stored = &self.api.jobs[marker.job];
            let is_over = stored.job.status.phase.is_terminal() || stored.job.attempt_in_hand().number > marker.number;
            let cached = self.operators[operator].cache.get(&marker.job);
            if stored.deleted { cached.is_none_or(|(_, is)| is.attempt_in_hand().task != *task) } else { is_over }
        };
        let markers = &self.broker.data.markers;
        let strays: Vec<(TaskId, Marker)> =
            markers.iter().filter(|(task, marker)| is_over(task, marker)).map(|(task, it)| (*task, *it)).collect();
        for (task, marker) in strays {
            if self.api.jobs[marker.job].deleted {
                self.take_up(operator, &marker);
                continue;
            }
            say!(self, "operator {operator} forgets {}", self.task_name(task));
            self.count("stray marker");
            self.broker.forget(task);
        }
    }
}

impl World {
    /// What is left of a job that was deleted is brought to its end, one attempt after the other.
    fn take_up(&mut self, operator: usize, marker: &Marker) {
        if self.operators[operator].cache.contains_key(&marker.job) {
            return;
        }
        self.count("taken up");
        let stored = &self.api.jobs[marker.job];
        let attempt = Attempt {
            number: marker.number,
            generation: marker.generation,
            enqueued_at: at(marker.at),
            started_at: None,
        };
        let mut job = stored.job.clone();
        job.spec.cancel = true;
        job.status = Status {
            phase: Phase::Queued,
            why: Why::Enqueued,
            attempt: Some(attempt),
            spec_hash: Some(marker.spec),
            ..Status::default()
        };
        let (number, version) = (marker.job, stored.version);
        say!(self, "operator {operator} takes up what is left of job-{number}");
        let it = &mut self.operators[operator];
        it.ended.remove(&number);
        it.deleted.insert(number);
        it.notes.insert(number, Evidence::none(job.attempt_in_hand().task));
        it.cache.insert(number, (version, job));
        self.look_in(operator, number, 1);
    }
}

/// What is published.
fn message(job: usize, it: &Publication) -> Message {
    Message { job, id: it.id, spec: it.spec_hash, priority: it.priority, redelivered: false }
}

/// What is counted of an effect.
fn name(effect: &Effect, reply: Reply) -> &'static str {
    match (effect, reply) {
        (_, Reply::Down) => "down",
        (_, Reply::Lost) => "answer lost",
        (Effect::Enqueue(_), Reply::Done) => "enqueue",
        (Effect::Enqueue(_), Reply::Refused) => "enqueue refused",
        (Effect::Enqueue(_), Reply::Fenced) => "enqueue fenced",
        (Effect::Requeue { in_place_of, .. }, Reply::Done) => match in_place_of {
            InPlaceOf::Nothing => "requeue in place of nothing",
            InPlaceOf::InFlight(_) => "requeue in place of in flight",
            InPlaceOf::Nowhere(_) => "requeue in place of nowhere",
            InPlaceOf::Ended(_) => "requeue in place of ended",
        },
        (Effect::Requeue { .. }, Reply::Refused) => "requeue refused",
        (Effect::Requeue { .. }, Reply::Fenced) => "requeue fenced",
        (Effect::Withdraw(_), Reply::Done) => "withdraw",
        (Effect::Withdraw(_), Reply::Refused) => "withdraw refused",
        (Effect::Retire { .. }, Reply::Done) => "retire",
        (Effect::Revoke(_), _) => "revoke",
        (Effect::Forget(_), Reply::Done) => "forget",
        (Effect::Clear(_), Reply::Done) => "clear",
        (_, Reply::Fenced) => "forget or withdraw fenced",
        (_, _) => "other",
    }
}
