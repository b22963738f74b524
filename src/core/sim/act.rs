//! What an operator does to the world: one effect after the other, each of which may be refused.

use super::super::evidence::Evidence;
use super::super::id::{ObjectKey, TaskId};
use super::super::index::{Entry, Stray};
use super::super::job::Job;
use super::super::once::Claim;
use super::super::plan::{Effect, InPlaceOf};
use super::broker::Marker;
use super::operator::Order;
use super::scripts::{self, Reply};
use super::world::{World, number_of};
use super::{at, say};

impl World {
    /// Does one effect; false when the plan is to be dropped.
    pub fn act(&mut self, operator: usize, entry: &Entry<()>, effect: &Effect) -> bool {
        let Some(epoch) = self.operators[operator].epoch else { return false };
        let (key, job) = (&entry.job.key, number_of(&entry.job.key));
        if let Some(goes_on) = self.act_without_redis(operator, epoch, entry, effect) {
            return goes_on;
        }
        if !self.operators[operator].connected {
            self.count("not connected");
            self.look_again_later(operator, key);
            return false;
        }
        if let Some(message) = effect.publication() {
            let now = at(self.now);
            self.operators[operator].table.learn(&entry.job, |evidence| evidence.expect(message.id, now));
        }
        let mut reply = self.send(epoch, job, effect);
        if reply == Reply::Done && self.chaos.outages && self.rng.per_mille(150) {
            // The connection breaks before the answer: the client sends it again, or gives up.
            reply = if self.rng.per_mille(500) { self.send_again(epoch, job, effect) } else { Reply::Lost };
        }
        self.count(name(effect, reply));
        match reply {
            Reply::Done => {
                self.learn(operator, &entry.job, effect);
                // What was found decides what comes next.
                let is_asked_anew = matches!(effect, Effect::Withdraw(_) | Effect::Retire { .. });
                if is_asked_anew {
                    self.look_at(operator, key);
                }
                !is_asked_anew
            }
            Reply::Refused if matches!(effect, Effect::Move { .. }) => {
                self.learn(operator, &entry.job, effect); // it has left the queue: there is nothing to move
                true
            }
            Reply::DoneBefore => true,
            Reply::Refused | Reply::Down | Reply::Lost => {
                say!(self, "operator {operator}, {}: {effect} is {reply:?}", key.name);
                if reply == Reply::Refused || effect.publication().is_some() {
                    self.operators[operator].table.learn(&entry.job, Evidence::unread);
                    self.operators[operator].readings.want_unread();
                }
                if reply == Reply::Refused {
                    self.look_at(operator, key);
                } else {
                    self.look_again_later(operator, key);
                }
                false
            }
            Reply::Fenced => {
                say!(self, "operator {operator}, {}: {effect} is fenced off", key.name);
                self.step_down(operator);
                false
            }
        }
    }

    /// What concerns run-once keys goes to the API server, and permits are in memory. `None` for everything else.
    fn act_without_redis(&mut self, operator: usize, epoch: u64, entry: &Entry<()>, effect: &Effect) -> Option<bool> {
        let (job, now) = (&entry.job, at(self.now));
        if let Effect::ClaimKey(key) = effect {
            let claim = self.api.claim(number_of(&job.key), key, epoch, now);
            self.count(match claim {
                Claim::Held { .. } => "key held",
                Claim::Ran(_) => "key has run",
                Claim::Ours | Claim::Unread => "key claimed",
            });
            self.operators[operator].table.update(&job.key, |entry| {
                if entry.job.uid == job.uid {
                    entry.claim = Some(Box::new(claim));
                }
            });
            self.look_at(operator, &job.key);
            return Some(false);
        }
        if matches!(effect, Effect::ListTwins) {
            self.list_twins(operator, job);
            return Some(false);
        }
        if let Effect::CancelTwin { uid, .. } = effect {
            self.cancel_twin(*uid);
            return Some(true);
        }
        if matches!(effect, Effect::AskForPermit) {
            let now = self.clock_of(operator);
            let it = &mut self.operators[operator];
            for (lane, key) in it.table.ask_for_permit(&job.key, now) {
                self.operators[operator].turns.push(lane, key.clone());
                say!(self, "operator {operator} gives {key} a permit");
            }
            self.look_at(operator, &job.key);
            return Some(false);
        }
        let Effect::RememberRun { key, succeeded, at, .. } = effect else { return None };
        // What is left of a deleted job is remembered nowhere.
        let is_done = job.key.is_deleted() || self.api.remember(number_of(&job.key), key, epoch, (*succeeded, *at));
        if !is_done {
            self.count("record fenced");
            self.look_again_later(operator, &job.key);
        }
        Some(is_done)
    }

    /// Something failed that may work by itself later.
    pub fn look_again_later(&mut self, operator: usize, key: &ObjectKey) {
        let wait = self.rng.between(100, 1_000);
        self.look_at_later(operator, key, wait);
    }

    /// What an operator knows of an attempt once it has acted on it.
    fn learn(&mut self, operator: usize, job: &Job, effect: &Effect) {
        let (it, now) = (&mut self.operators[operator], at(self.now));
        if let Some(message) = effect.publication() {
            it.table.learn(job, |evidence| evidence.published(now, message.spec_hash, message.priority));
            it.table.update(&job.key, |entry| entry.fresh = None);
            it.readings.published();
            if it.table.get(&job.key).is_none() {
                self.order(operator, 1, Order::Strays); // it was deleted meanwhile
            }
            return;
        }
        if matches!(effect, Effect::Retire { .. } | Effect::Drop { .. }) {
            it.readings.want_unread();
        }
        if matches!(effect, Effect::Revoke(_)) {
            return it.table.stop_asked(job, now);
        }
        it.table.learn(job, |evidence| scripts::learn(evidence, effect));
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
        let reply = self.broker.run(epoch, job, effect).unwrap_or_else(|| self.do_without_a_script(effect));
        if let Some(before) = before {
            let is_refused = reply == Reply::Refused && matches!(effect, Effect::Requeue { .. });
            if is_refused && before.is_over() {
                self.count("refused: its result is there");
            }
            if self.judge_publication(job, effect, &before) {
                self.judge_permit(job);
                self.judge_twins(job);
            }
            self.wake_workers();
        }
        reply
    }

    fn do_without_a_script(&mut self, effect: &Effect) -> Reply {
        if let Effect::Revoke(task) = effect {
            if self.broker.down {
                return Reply::Down;
            }
            self.revoke(*task);
        }
        if let Effect::DeletePod(container) = effect {
            self.count("delete Pod");
            self.delete_pod(container.pod.strip_prefix("worker-").unwrap().parse().unwrap());
        }
        Reply::Done
    }

    /// Markers of attempts that no unfinished job has in hand: what a crash between the status and `Forget` leaves, and
    /// what is left of jobs that were deleted.
    pub fn look_for_strays(&mut self, operator: usize) {
        if self.broker.down || !self.operators[operator].connected {
            return;
        }
        let is_stray = |task: TaskId, marker: &Marker| {
            let stored = &self.api.jobs[marker.job];
            let is_over = stored.job.status.phase.is_terminal() || stored.job.attempt_in_hand().task != task;
            (stored.deleted || is_over) && !self.operators[operator].table.is_in_hand(&self.pool.namespace, task)
        };
        let markers = self.broker.data.markers.iter().map(|(task, marker)| (*task, *marker));
        let strays: Vec<(TaskId, Marker)> = markers.filter(|(task, marker)| is_stray(*task, marker)).collect();
        for (task, marker) in strays {
            self.count("stray marker");
            self.take_up(operator, task, &marker);
        }
    }

    /// What is left of an attempt is brought to its end.
    fn take_up(&mut self, operator: usize, task: TaskId, marker: &Marker) {
        let stored = &self.api.jobs[marker.job];
        if stored.deleted {
            *self.tally.entry("taken up").or_default() += 1;
        }
        let stray = Stray {
            job: ObjectKey::clone(&stored.job.key),
            uid: stored.job.uid,
            number: marker.number,
            pool: self.pool.name.clone(),
            queue: None,
            mark: marker.mark(),
        };
        let job = stray.into_job(task).unwrap();
        let key = job.key.clone();
        say!(self, "operator {operator} takes up {}", self.task_name(task));
        self.operators[operator].table.keep(job, Evidence::none(task));
        self.read_if_unread(operator, &key);
        self.look_at(operator, &key);
    }
}

/// What is counted of an effect.
fn name(effect: &Effect, reply: Reply) -> &'static str {
    match (effect, reply) {
        (_, Reply::Down) => "down",
        (_, Reply::Lost) => "answer lost",
        (_, Reply::DoneBefore) => "done before",
        (Effect::Enqueue(_), Reply::Done) => "enqueue",
        (Effect::Enqueue(_), Reply::Refused) => "enqueue refused",
        (Effect::Enqueue(_), Reply::Fenced) => "enqueue fenced",
        (Effect::Requeue { in_place_of, .. }, Reply::Done) => match in_place_of {
            InPlaceOf::Nothing => "requeue in place of nothing",
            InPlaceOf::InFlight(_) => "requeue in place of in flight",
            InPlaceOf::Nowhere(_) => "requeue in place of nowhere",
            InPlaceOf::Ended(_) => "requeue in place of ended",
            InPlaceOf::Copy(..) => "requeue in place of a copy",
        },
        (Effect::Requeue { .. }, Reply::Refused) => "requeue refused",
        (Effect::Requeue { .. }, Reply::Fenced) => "requeue fenced",
        (Effect::Withdraw(_), Reply::Done) => "withdraw",
        (Effect::Withdraw(_), Reply::Refused) => "withdraw refused",
        (Effect::Retire { .. }, Reply::Done) => "retire",
        (Effect::Drop { .. }, Reply::Done) => "drop",
        (Effect::Revoke(_), _) => "revoke",
        (Effect::Forget(_), Reply::Done) => "forget",
        (Effect::Clear(_), Reply::Done) => "clear",
        (_, Reply::Fenced) => "forget or withdraw fenced",
        (_, _) => "other",
    }
}
