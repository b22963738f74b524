//! One turn of a job: look at the Pods, read Redis, decide, act, record, and what must wait for the record. The operator
//! may die or stop between any two steps.

use super::super::check::check;
use super::super::decide::decide;
use super::super::job::{Job, TaskId};
use super::super::plan::{Effect, InPlaceOf, Next, Plan};
use super::apiserver::Refused;
use super::broker::{Message, Reply};
use super::chaos::CHAOS_ENDS;
use super::observe::PodSight;
use super::operator::Order;
use super::world::World;
use super::{at, millis, say};

/// How far it is.
#[derive(Debug)]
pub struct Pass {
    step: Step,
    version: u64,
    job: Job,
    pods: Vec<PodSight>,
    plan: Option<Plan>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Takes the job and the Pods from the caches.
    Look,
    /// Reads Redis, later than the Pods: what a dead worker stored is certainly seen.
    Read,
    /// Reads the job live before a publication that is not its first.
    Check(usize),
    Act(usize),
    Record,
    After(usize),
}

impl World {
    pub fn look(&mut self, operator: usize, job: usize) {
        let it = &mut self.operators[operator];
        if it.passes.contains_key(&job) {
            it.again.insert(job);
            return;
        }
        let Some((version, cached)) = it.cache.get(&job) else { return };
        let pass = Pass { step: Step::Look, version: *version, job: cached.clone(), pods: Vec::new(), plan: None };
        it.passes.insert(job, pass);
        self.proceed(operator, job);
    }

    pub fn proceed(&mut self, operator: usize, job: usize) {
        while let Some(mut pass) = self.operators[operator].passes.remove(&job) {
            let goes_on = self.step(operator, job, &mut pass);
            let it = &mut self.operators[operator];
            if !goes_on || !it.up {
                if it.again.remove(&job) {
                    self.look_in(operator, job, 0);
                }
                return;
            }
            it.passes.insert(job, pass);
            if self.is_interrupted(operator, job) {
                return;
            }
        }
    }

    /// Between two steps: nothing, a delay, a long pause, or death.
    fn is_interrupted(&mut self, operator: usize, job: usize) -> bool {
        let early = self.now < CHAOS_ENDS;
        if early && self.chaos.crashes && self.rng.per_mille(15) {
            let away = self.rng.between(300, 6_000);
            self.crash(operator, away);
        } else if early && self.chaos.pauses && self.rng.per_mille(30) {
            let pause = self.rng.between(5_000, 40_000);
            say!(self, "operator {operator} stops for {pause} ms, on job-{job}");
            self.operators[operator].paused_until = self.now + pause;
            self.order(operator, 0, Order::Step { job });
        } else if self.rng.per_mille(250) {
            let latest = self.rng.one_of(&[5, 50, 1_000, 4_000]);
            self.order_after(operator, 1, latest, Order::Step { job });
        } else {
            return false;
        }
        true
    }

    /// Does one step; false when the pass is over.
    fn step(&mut self, operator: usize, job: usize, pass: &mut Pass) -> bool {
        match pass.step {
            Step::Look => {
                pass.pods = self.pods.iter().map(PodSight::of).collect();
                pass.step = Step::Read;
                true
            }
            Step::Read => {
                let seen = self.observe(operator, job, &pass.job, &pass.pods);
                let now = at(self.now);
                let plan = decide(&pass.job, &seen, now);
                for finding in check(&pass.job, &seen, now, &plan) {
                    self.broken.push(format!("job-{job}: {finding}: {plan} upon {seen:?}"));
                }
                if !plan.effects.is_empty() || plan.status != pass.job.status {
                    say!(self, "operator {operator}, job-{job}: {plan}");
                }
                pass.step = if plan.effects.is_empty() { Step::Record } else { Step::Check(0) };
                pass.plan = Some(plan);
                true
            }
            Step::Check(index) => {
                let again =
                    pass.effects().get(index).and_then(Effect::publication).is_some_and(|message| message.again);
                if again && self.api.jobs[job].version != pass.version {
                    say!(self, "operator {operator}, job-{job} is not as it was");
                    self.count("not as it was");
                    self.read_live(operator, job);
                    return false;
                }
                pass.step = Step::Act(index);
                true
            }
            Step::Act(index) => {
                let effect = pass.effects()[index].clone();
                if !self.act(operator, job, &effect) {
                    return false;
                }
                pass.step = if index + 1 < pass.effects().len() { Step::Check(index + 1) } else { Step::Record };
                true
            }
            Step::Record => self.record(operator, job, pass),
            Step::After(index) => {
                let Some(plan) = &pass.plan else { return false };
                let Some(effect) = plan.afterwards.get(index).cloned() else {
                    let next = plan.next;
                    self.end_pass(operator, job, next);
                    return false;
                };
                if !self.act(operator, job, &effect) {
                    return false;
                }
                pass.step = Step::After(index + 1);
                true
            }
        }
    }

    fn end_pass(&mut self, operator: usize, job: usize, next: Next) {
        match next {
            Next::Never => {
                self.operators[operator].cache.remove(&job);
                self.operators[operator].notes.remove(&job);
            }
            Next::At(time) => {
                let wait = (millis(time) - self.now).max(0) + 1;
                self.look_in(operator, job, wait);
            }
            Next::OnHint => {}
        }
    }

    fn look_in(&mut self, operator: usize, job: usize, wait: i64) {
        self.order(operator, wait, Order::Look { job });
    }

    fn read_live(&mut self, operator: usize, job: usize) {
        let stored = &self.api.jobs[job];
        let it = &mut self.operators[operator];
        if stored.job.status.phase.is_terminal() {
            it.cache.remove(&job);
            it.notes.remove(&job);
        } else {
            it.cache.insert(job, (stored.version, stored.job.clone()));
            it.evidence(job, stored.job.attempt_in_hand().task).unread(); // what was read before somebody else wrote is stale
            self.look_in(operator, job, 1);
        }
    }

    /// Does one effect; false when the plan is to be dropped.
    fn act(&mut self, operator: usize, job: usize, effect: &Effect) -> bool {
        let Some(epoch) = self.operators[operator].epoch else { return false };
        if let Some(message) = effect.publication() {
            self.operators[operator].evidence(job, message.id.task).expect(message.id, at(self.now));
        }
        let mut reply = self.send(epoch, job, effect);
        if reply == Reply::Done && self.chaos.outages && self.rng.per_mille(150) {
            // The connection breaks before the answer: the client sends it again, or gives up.
            reply = if self.rng.per_mille(500) { self.send(epoch, job, effect) } else { Reply::Lost };
        }
        self.count(name(effect, reply));
        match reply {
            Reply::Done => {
                if let Some(message) = effect.publication() {
                    let now = at(self.now);
                    self.operators[operator].evidence(job, message.id.task).published(
                        now,
                        message.spec_hash,
                        message.priority,
                    );
                } else if let Some(notes) = self.operators[operator].notes.get_mut(&job) {
                    match effect {
                        Effect::Revoke(_) => notes.stop_asked(at(self.now)),
                        Effect::Move { priority, .. } => notes.moved(*priority),
                        Effect::Enqueue(_)
                        | Effect::Requeue { .. }
                        | Effect::Withdraw(_)
                        | Effect::Retire { .. }
                        | Effect::DeletePod(_)
                        | Effect::StoreResult(_)
                        | Effect::ExtendResult { .. }
                        | Effect::Forget(_) => notes.unread(),
                    }
                }
                true
            }
            Reply::Refused if matches!(effect, Effect::Move { .. }) => {
                // It has left the queue: there is nothing to move.
                if let (Some(notes), Effect::Move { priority, .. }) =
                    (self.operators[operator].notes.get_mut(&job), effect)
                {
                    notes.moved(*priority);
                }
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

    fn send(&mut self, epoch: u64, job: usize, effect: &Effect) -> Reply {
        let reply = match effect {
            Effect::Enqueue(message) => self
                .broker
                .enqueue(epoch, Message { job, id: message.id, spec: message.spec_hash, priority: message.priority }),
            Effect::Requeue { in_place_of, message, clear_result } => self.broker.requeue(
                epoch,
                *in_place_of,
                Message { job, id: message.id, spec: message.spec_hash, priority: message.priority },
                *clear_result,
            ),
            Effect::Withdraw(id) => self.broker.withdraw(epoch, *id),
            Effect::Retire { in_place_of, id } => self.broker.retire(epoch, *in_place_of, *id),
            Effect::Forget(task) => self.broker.forget(epoch, *task),
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
            Effect::Move { id, priority } => self.broker.move_band(epoch, *id, *priority),
            Effect::StoreResult(_) | Effect::ExtendResult { .. } => Reply::Done,
        };
        if effect.publication().is_some() {
            self.wake_workers();
        }
        reply
    }

    fn record(&mut self, operator: usize, job: usize, pass: &mut Pass) -> bool {
        let Some(plan) = &pass.plan else { return false };
        let status = plan.status.clone();
        pass.step = Step::After(0);
        if status == pass.job.status {
            return true;
        }
        match self.api.patch_status(job, pass.version, status.clone()) {
            Ok(version) => {
                pass.version = version;
                pass.job.status = status;
                self.operators[operator].cache.insert(job, (version, pass.job.clone()));
                self.judge_record(job);
                self.tell_watchers(job);
                true
            }
            Err(Refused::Conflict) => {
                say!(self, "operator {operator}, job-{job}: conflict");
                self.count("conflict");
                self.read_live(operator, job);
                false
            }
            Err(Refused::Invalid(rule)) => {
                self.broken.push(format!("job-{job}: the API server had to say: {rule}"));
                false
            }
        }
    }

    /// Markers of attempts that are over: what a crash between the status and `Forget` leaves.
    pub fn forget_strays(&mut self, operator: usize) {
        let Some(epoch) = self.operators[operator].epoch else { return };
        let strays: Vec<TaskId> = self
            .broker
            .markers
            .iter()
            .filter(|(_, marker)| {
                let live = &self.api.jobs[marker.job].job;
                live.status.phase.is_terminal() || live.attempt_in_hand().number > marker.number
            })
            .map(|(task, _)| *task)
            .collect();
        for task in strays {
            say!(self, "operator {operator} forgets {}", self.task_name(task));
            self.count("stray marker");
            self.broker.forget(epoch, task);
        }
    }
}

impl Pass {
    fn effects(&self) -> &[Effect] {
        self.plan.as_ref().map_or(&[], |plan| &plan.effects)
    }
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
        (_, Reply::Fenced) => "forget or withdraw fenced",
        (_, _) => "other",
    }
}
